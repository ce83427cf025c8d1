"""Denoising diffusion GANs (Xiao et al. 2022): few large steps of the ancestral chain, each one drawn by a conditional generator.

Over a large step the posterior of x0 given x has many modes and is no normal law: the generator draws one x0 by its latent, and the
ordinary posterior q(x_to | x, x0) takes the step. So the student is a denoiser, and `ddpm` its sampler. Here in `x = x0 + sigma eps`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

BETA_MIN, BETA_MAX, FIRST = 0.1, 20.0, 1e-3  # Xiao et al. 2022, appendix B


def few(steps: int, hi: float) -> list[float]:
    """[sigma, ..., 0.0] of the paper's chain of `steps` steps: abar(t) = exp(-t^2 (max - min) / 2 - t min), t = 1, (steps - 1) / steps, ...

    The chain's end, sigma 152, is cut off at `hi`, the largest that the teacher knows: there is no picture left at either.
    """
    if steps < 1:
        raise ValueError(f"a grid needs at least one step, not {steps}")
    grid = []
    for index in range(steps, 0, -1):
        t = index / steps * (1 - FIRST) + FIRST
        grid.append(min(math.sqrt(math.expm1(t * t * (BETA_MAX - BETA_MIN) / 2 + t * BETA_MIN)), hi))
    return [*grid, 0.0]


def forward_pair(x0: Tensor, sigma: Tensor, to: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """(x at `to`, x at `sigma` from there): a true step of the chain, upwards. Levels are (B, 1, 1, 1), first and second unit noise."""
    near = x0 + to * first
    return near, near + (sigma.square() - to.square()).sqrt() * second


def posterior(x0: Tensor, x: Tensor, sigma: Tensor, to: Tensor, noise: Tensor) -> Tensor:
    """A draw of q(x_to | x, x0) (Ho et al. 2020, equation 7): a step of the sampler `ddpm`."""
    left = to.square() / sigma.square()
    return x0 + left * (x - x0) + to * (1 - left).clamp_min(0).sqrt() * noise


def critic_loss(real: Tensor, fake: Tensor) -> Tensor:
    """softplus(-D(real)) + softplus(D(fake)), the mean: the critic's logit is then log(p / q)."""
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def fooling_loss(fake: Tensor) -> Tensor:
    """softplus(-D(fake)), the mean: the generator's side (Goodfellow et al. 2014, not saturating)."""
    return F.softplus(-fake).mean()


def steepness(logit: Tensor, at: Tensor) -> Tensor:
    """|d logit / d at|^2 an image, the mean: R1 of Mescheder et al. (2018) on real pictures."""
    (grad,) = torch.autograd.grad(logit.sum(), at, create_graph=True)
    return grad.square().flatten(1).sum(1).mean()


def draw_change(n: int, generator: torch.Generator, *, shift: float = 0.125, light: float = 0.25) -> Tensor:
    """(n, 5) changes for `changed`: shifts along columns and rows, brightness, and the place of the hole."""
    raw = torch.rand(n, 5, generator=generator) * 2 - 1
    return raw * torch.tensor([2 * shift, 2 * shift, light, 1.0, 1.0])


def changed(x: Tensor, change: Tensor, *, hole: float = 0.25) -> Tensor:
    """x (B, C, H, W) moved, lit and with a square of 2 * `hole` of each side blank: the same for all channels, differentiable.

    DiffAugment (Zhao et al. 2020): what both sides of a critic undergo teaches it no real picture by heart.
    """
    n, _, h, w = x.shape
    right, down, light, column, row = change.to(x.device).unbind(1)
    theta = torch.zeros(n, 2, 3, device=x.device)
    theta[:, 0, 0], theta[:, 1, 1] = 1, 1
    theta[:, 0, 2], theta[:, 1, 2] = (right * w / 2).round() * 2 / w, (down * h / 2).round() * 2 / h  # whole pixels
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    moved = F.grid_sample(x, grid, mode="nearest", padding_mode="zeros", align_corners=False)
    across = (torch.linspace(-1, 1, w, device=x.device)[None] - column[:, None]).abs() < hole
    along = (torch.linspace(-1, 1, h, device=x.device)[None] - row[:, None]).abs() < hole
    blank = (along[:, :, None] & across[:, None, :])[:, None]
    return torch.where(blank, 0.0, moved + light[:, None, None, None])
