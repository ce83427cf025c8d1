"""What nets of other papers predict, and x0: exact conversions in the one coordinate `x = x0 + sigma * eps`.

Each pair is inverse to the other. x, x0 and predictions are (B, C, H, W) of one dtype; sigma is a float above 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

Conversion = Callable[[Tensor, Tensor, float], Tensor]
"""(x, prediction or x0, sigma) -> x0 or prediction."""


def eps_of(x: Tensor, x0: Tensor, sigma: float) -> Tensor:
    """The unit noise, (x - x0) / sigma (Ho et al. 2020)."""
    return (x - x0) / sigma


def x0_of_eps(x: Tensor, eps: Tensor, sigma: float) -> Tensor:
    """x - sigma eps."""
    return x - sigma * eps


def score_of(x: Tensor, x0: Tensor, sigma: float) -> Tensor:
    """The gradient of log p_sigma at x, (x0 - x) / sigma^2 (Tweedie's formula; Karras et al. 2022, equation 3).

    In a framework with its own scale s, at x_t = s x, the score is this over s.
    """
    return (x0 - x) / sigma**2


def x0_of_score(x: Tensor, score: Tensor, sigma: float) -> Tensor:
    """x + sigma^2 score."""
    return x + sigma**2 * score


def v_of(x: Tensor, x0: Tensor, sigma: float) -> Tensor:
    """v = alpha eps - beta x0 with alpha = 1 / sqrt(1 + sigma^2), beta = sigma alpha (Salimans & Ho 2022, section 4)."""
    alpha = 1 / math.sqrt(1 + sigma**2)
    return alpha * (x - x0) / sigma - sigma * alpha * x0


def x0_of_v(x: Tensor, v: Tensor, sigma: float) -> Tensor:
    """alpha z - beta v at z = alpha x (Salimans & Ho 2022, appendix D)."""
    alpha = 1 / math.sqrt(1 + sigma**2)
    return alpha * (alpha * x) - sigma * alpha * v


def velocity_of(x: Tensor, x0: Tensor, sigma: float) -> Tensor:
    """eps - x0, the velocity of the straight path from data to noise (Lipman et al. 2023)."""
    return (x - x0) / sigma - x0


def x0_of_velocity(x: Tensor, velocity: Tensor, sigma: float) -> Tensor:
    """z - t velocity at z = x / (1 + sigma), t = sigma / (1 + sigma)."""
    return (x - sigma * velocity) / (1 + sigma)


PREDICTIONS: dict[str, tuple[Conversion, Conversion]] = {
    "eps": (eps_of, x0_of_eps),
    "score": (score_of, x0_of_score),
    "v": (v_of, x0_of_v),
    "velocity": (velocity_of, x0_of_velocity),
}
"""Name -> (x0 -> prediction, prediction -> x0)."""
