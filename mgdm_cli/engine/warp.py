"""Augmentation that should not leak: the net is told which warp was applied, and told "none" when sampling.

Karras et al. 2022, appendix F.2: geometric transforms drawn independently with a small probability, their parameters a condition. It is
told in units of each parameter's spread (`told`): as they are, parameters of about 0.1 are hardly heard beside noise level and class, which
count 1, and what is sampled varies in area and place as the warped pictures do.

That does not keep interpolation from leaking: between pixels a cubic one leaves two thirds of the power of the finest detail, a linear one
less than half, and a net that is told a small warp cannot tell it from none. So the denoiser meets warps only where noise hides the loss
(`diffusion.types.WARPED_FROM`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

PARAMETERS = 6  # log scale, log stretch, sin and 1 - cos of the turn, shift along columns and rows; + flip below
WIDTH = PARAMETERS + 1


@dataclass(frozen=True)
class WarpSettings:
    """`probability` of each transform; the spreads are standard deviations. `flip` (left-right) is off: it breaks laterality."""

    probability: float = 0.15
    log_scale: float = 0.12
    log_stretch: float = 0.08
    angle_rad: float = 0.15
    shift: float = 0.05
    flip: bool = False


def draw(n: int, settings: WarpSettings, generator: torch.Generator) -> Tensor:
    """(n, WIDTH) parameters of n warps; all 0 is the identity."""
    s = settings
    size = torch.randn(n, 5, generator=generator) * torch.tensor(
        [s.log_scale, s.log_stretch, s.angle_rad, s.shift, s.shift]
    )
    size = torch.where(torch.rand(n, 5, generator=generator) < s.probability, size, 0.0)
    flip = (torch.rand(n, generator=generator) < 0.5).float() if s.flip else torch.zeros(n)
    scale, stretch, angle, right, down = size.unbind(1)
    return torch.stack([scale, stretch, angle.sin(), 1 - angle.cos(), right, down, flip], 1)


def told(warp: Tensor) -> Tensor:
    """(n, WIDTH) what a net is told of warps (n, WIDTH): each parameter in units of the spread it usually has; 0 stays none."""
    s = WarpSettings()  # one unit for all runs, so that a base means the same; 1 - cos of an angle goes with its square
    units = torch.tensor(
        [s.log_scale, s.log_stretch, s.angle_rad, s.angle_rad**2, s.shift, s.shift, 1.0], device=warp.device
    )
    return warp / units


def apply(x: Tensor, warp: Tensor) -> Tensor:
    """x (B, C, H, W) under warp (B, WIDTH); pixels from outside are reflected. Rows with no warp come back untouched."""
    scale, stretch, sin, gone, right, down, flip = warp.to(x.device).unbind(1)
    cos, aspect = 1 - gone, x.shape[-1] / x.shape[-2]
    wide, high = (-scale - stretch).exp() * (1 - 2 * flip), (-scale + stretch).exp()
    theta = torch.stack(
        [
            torch.stack([wide * cos, -wide * sin / aspect, -2 * right], 1),
            torch.stack([high * sin * aspect, high * cos, -2 * down], 1),
        ],
        1,
    )
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    moved = F.grid_sample(x, grid, mode="bicubic", padding_mode="reflection", align_corners=False).clamp(-1, 1)
    still = (warp == 0).all(1).to(x.device)[:, None, None, None]
    return torch.where(still, x, moved)


def strong(classes_smallest: int) -> WarpSettings:
    """Settings for the smallest class: stronger below 200 images."""
    return WarpSettings(probability=0.3, angle_rad=math.radians(12)) if classes_smallest < 200 else WarpSettings()
