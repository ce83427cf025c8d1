"""The denoising loss: one formula and one weight for every process."""

from __future__ import annotations

from torch import Tensor

from .model import Model
from .types import Cond


def denoising_loss(model: Model, x0: Tensor, sigma: Tensor, eps: Tensor, cond: Cond) -> Tensor:
    """(B,) of |model(x0 + sigma eps) - x0|^2 ((1 + sigma) / sigma)^2: the squared error of a flow's velocity eps - x0.

    x0, eps (B, C, H, W), sigma (B,). It is flow matching's own loss (Lipman et al. 2023, equation 14), whatever the net answers with: in
    z = x / (1 + sigma) at t = sigma / (1 + sigma), the velocity is (x - x0) / sigma - x0, so an error of x0 counts (1 + sigma) / sigma.
    EDM's weight, 1 / out^2, asks for the same loss at every sigma of a net that answers 0; this one is as strict near 0, and sigma_data^2
    as strict where all is noise. A net that answers 0 has a loss between the data's second moment and 1 more than it.
    """
    away: Tensor = model(x0 + sigma[:, None, None, None] * eps, sigma, cond) - x0
    return away.square().mean((1, 2, 3)) * ((1 + sigma) / sigma).square()
