"""The denoising loss: one formula for every process."""

from __future__ import annotations

from torch import Tensor

from .model import Model
from .types import Cond


def denoising_loss(model: Model, x0: Tensor, sigma: Tensor, eps: Tensor, cond: Cond) -> Tensor:
    """(B,) of |model(x0 + sigma eps) - x0|^2 / out^2: each process's own weight (Karras et al. 2022, equation 8).

    x0, eps (B, C, H, W), sigma (B,). It is the plain squared error of what the net predicts: v of data of unit variance (EDM's target up
    to its sign), or a flow's velocity. A net that answers 0 has a loss of 1 where the data's mean is 0, of 1 + their second moment for a
    velocity.
    """
    away: Tensor = model(x0 + sigma[:, None, None, None] * eps, sigma, cond) - x0
    return away.square().mean((1, 2, 3)) / model.process.coefs(sigma).out.square()
