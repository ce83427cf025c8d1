"""Processes: four coefficients, a law of training sigmas and a grid of sampling sigmas each."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .types import Coefs, Process


def edm(
    *,
    sigma_data: float = 0.5,
    mean: float = -1.2,
    spread: float = 1.2,
    lo: float = 0.002,
    hi: float = 80.0,
    rho: float = 7.0,
) -> Process:
    """The EDM process (Karras et al. 2022, table 1; grid: equation 5 with a final 0).

    `sigma_data` is the standard deviation of the data in [-1, 1]; ln(sigma) is drawn from N(mean, spread^2) in training.
    """

    def coefs(sigma: Tensor) -> Coefs:
        total = sigma.square() + sigma_data**2
        return Coefs(sigma_data**2 / total, sigma * sigma_data / total.sqrt(), 1 / total.sqrt(), sigma.log() / 4)

    def draw(n: int, generator: torch.Generator) -> Tensor:
        return (torch.randn(n, generator=generator) * spread + mean).exp().clamp(lo, hi)

    def grid(steps: int) -> list[float]:
        if steps < 1:
            raise ValueError(f"a grid needs at least one step, not {steps}")
        ramp = [i / max(steps - 1, 1) for i in range(steps)]
        return [(hi ** (1 / rho) + r * (lo ** (1 / rho) - hi ** (1 / rho))) ** rho for r in ramp] + [0.0]

    return Process(coefs, draw, grid)


PROCESSES: dict[str, Callable[..., Process]] = {"edm": edm}
