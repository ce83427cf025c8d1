"""The denoising loss: one formula for every process."""

from __future__ import annotations

from torch import Tensor

from .model import Model
from .types import Cond


def denoising_loss(model: Model, x0: Tensor, sigma: Tensor, eps: Tensor, cond: Cond) -> Tensor:
    """(B,) of |model(x0 + sigma eps) - x0|^2 / out^2: each process's own weight (Karras et al. 2022, equation 8).

    x0, eps (B, C, H, W), sigma (B,). The weight makes the loss of an untrained net 1 at every sigma.
    """
    away: Tensor = model(x0 + sigma[:, None, None, None] * eps, sigma, cond) - x0
    return away.square().mean((1, 2, 3)) / model.process.coefs(sigma).out.square()
