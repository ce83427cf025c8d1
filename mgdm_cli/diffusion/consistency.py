"""Consistency distillation: a student that answers, at any noise level, with the end of the teacher's path from there.

Song et al. (2023, algorithm 2) with the lessons of Song & Dhariwal (2024): no average as the target's net, pseudo-Huber distance; and of
Geng et al. (2025): start from the teacher's weights and shorten the hop as training goes on. Two neighbours on one path must have one
end, so that what is learnt near the data travels up to the noise, a hop a step.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

Answer = Callable[[Tensor, Tensor], Tensor]
"""(x (B, C, H, W), sigma (B,)) -> x0: a denoiser whose rows may stand at different noise levels."""


def hop(clock: Callable[[Tensor], Tensor], at: Tensor, hops: int) -> tuple[Tensor, Tensor]:
    """(sigma, to), each (B,): the level at `at` (a share of the process's clock) and the one a hop of 1 / hops below; 0 at the end."""
    below = at - 1 / hops
    to = torch.where(below > 0, clock(below.clamp_min(0).double()), 0.0)
    return clock(at.double()).to(at.dtype), to.to(at.dtype)


def hops_at(share: float, first: int, last: int) -> int:
    """How many hops the path is cut into when `share` of the training is done: doubling from `first` to at most `last`."""
    doublings = (last // first).bit_length() - 1
    return first << min(int(share * (doublings + 1)), doublings)


def along(answer: Answer, x: Tensor, sigma: Tensor, to: Tensor) -> Tensor:
    """x at `to`: one step of Heun on the teacher's ODE dx/dsigma = (x - x0) / sigma (Karras et al. 2022, algorithm 1)."""
    s, t = sigma[:, None, None, None], to[:, None, None, None]
    slope = (x - answer(x, sigma)) / s
    there = x + (t - s) * slope
    inner = t > 0
    low = torch.where(to > 0, to, sigma)  # rows that end at 0 take Euler's step; their second slope is not used
    second = (there - answer(torch.where(inner, there, x), low)) / low[:, None, None, None]
    out: Tensor = torch.where(inner, x + (t - s) * (slope + second) / 2, there)
    return out


def pseudo_huber(away: Tensor) -> Tensor:
    """(B,) of sqrt(|away|^2 + c^2) - c with c = 0.00054 sqrt(D) (Song & Dhariwal 2024, section 3.3): each image pulls alike."""
    c = 0.00054 * math.sqrt(away[0].numel())
    return (away.square().flatten(1).sum(1) + c**2).sqrt() - c


def consistency_loss(student: Answer, teacher: Answer, x: Tensor, sigma: Tensor, to: Tensor) -> Tensor:
    """(B,) distance between the student's answers at x and at the teacher's next point on the same path; at sigma 0 the point itself."""
    with torch.no_grad():
        there = along(teacher, x, sigma, to)
        end = torch.where((to > 0)[:, None, None, None], student(there, torch.where(to > 0, to, sigma)), there)
    return pseudo_huber(student(x, sigma) - end) / sigma.new_tensor(float(x[0].numel())).sqrt()
