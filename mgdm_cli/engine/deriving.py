"""From real images: each is taken back towards its noise, to a depth below 1, and decoded again under guidance.

MGDM's second stage on real images (TPAMI 2024, "Disturbance"). Where a generated image's noise is known, a real one's must be found:
`diffusion.inversion` solves every step of DDIM for it, so that without a pull the image itself comes back; what is different afterwards
is the pull's doing. Below a scale of 1, classifier-free guidance is CFG++ (Chung et al. 2024), under which that still holds.

The path is deterministic, so an image gives one derived image. Where more are wanted than there are images, each later round mixes
fresh noise into the one that was found.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mgdm_cli.data.plan import seed_of
from mgdm_cli.diffusion.inversion import decode, invert
from mgdm_cli.diffusion.types import Denoise, Process

ITERATIONS = 4  # of the fixed point in each step back: 45 dB and more come back in 25 steps
FRESH = 0.5  # share of fresh noise that each round after the first adds
ORDER = 2**32 - 1  # in place of an attempt: keeps the seed of the order apart from those of images


def tail(process: Process, steps: int, depth: float) -> list[float]:
    """The lowest `steps` levels of the process's grid of steps / depth, and 0: every depth is decoded in as many steps."""
    return process.grid(max(round(steps / depth), steps))[-steps - 1 :]


def chosen(label: Tensor, class_index: int, run_seed: int, numbers: Sequence[int]) -> list[tuple[int, int]]:
    """(index of the real image, round) for each candidate number of a class: its images in one order, round by round."""
    mine = torch.nonzero(label == class_index)[:, 0].tolist()
    generator = torch.Generator().manual_seed(seed_of(run_seed, class_index, ORDER, 0))
    order = torch.randperm(len(mine), generator=generator).tolist()
    return [(mine[order[number % len(mine)]], number // len(mine)) for number in numbers]


def noised(denoise: Denoise, x0: Tensor, grid: list[float], renoise: Denoise | None) -> Tensor:
    """The x at grid[0] from which `decode` finds x0 again."""
    x = x0
    for found, _ in invert(denoise, x0, grid, renoise=renoise, iterations=ITERATIONS, tolerance=0.0):
        x = found
    return x


def freshened(x: Tensor, x0: Tensor, sigma: float, rounds: Sequence[int], draw: Callable[[], Tensor]) -> Tensor:
    """x with fresh noise mixed into its own, (x - x0) / sigma, keeping its size; rows of round 0 as they are."""
    share = torch.tensor([min(FRESH * turn, 1.0) for turn in rounds], device=x.device)[:, None, None, None]
    if not bool((share > 0).any()):
        return x
    mixed = x0 + (1 - share.square()).sqrt() * (x - x0) + share * sigma * draw()
    return torch.where(share > 0, mixed, x)


def decoded(denoise: Denoise, x: Tensor, grid: list[float], renoise: Denoise | None) -> Tensor:
    """The last x of DDIM over `grid`."""
    for found in decode(denoise, x, grid, renoise=renoise):
        x = found
    return x


class Pair:
    """The conditional and the unconditional answer at one x, each asked for once: CFG++ needs the second one twice."""

    def __init__(self, cond: Denoise, uncond: Denoise, scale: float) -> None:
        self.cond, self.uncond, self.scale = cond, uncond, scale
        self._at: tuple[Tensor, float, Tensor] | None = None

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        """uncond + scale (cond - uncond)."""
        away = self.renoise(x, sigma)
        return away + self.scale * (self.cond(x, sigma) - away)

    def renoise(self, x: Tensor, sigma: float) -> Tensor:
        """uncond."""
        if self._at is None or self._at[0] is not x or self._at[1] != sigma:
            self._at = (x, sigma, self.uncond(x, sigma))
        return self._at[2]
