"""Processes: four coefficients, a law of training sigmas and a grid of sampling sigmas each.

The three frameworks that the survey of Kazerouni et al. (2023, arXiv 2211.07804, section 2) sets side by side, and the two that came
after, are one thing here. Each of them noises a picture as `x_t = s(t) (x0 + sigma(t) eps)` (Karras et al. 2022, section 3). Divided
by s, all of them are `x = x0 + sigma eps`, and only that is ever sampled:

| framework | written as | s | sigma | process |
|---|---|---|---|---|
| DDPM (Ho et al. 2020) | sqrt(abar) x0 + sqrt(1 - abar) eps | sqrt(abar) | sqrt((1 - abar) / abar) | `vp` |
| NCSN (Song & Ermon 2019) | x0 + sigma eps, sigma_i geometric | 1 | sigma | `ve` |
| SDE (Song et al. 2021): VP | dx = -beta x / 2 dt + sqrt(beta) dw | exp(-B / 2) | sqrt(exp(B) - 1) | `vp` |
| the same: VE | dx = sigma sqrt(2 ln(hi / lo)) dw | 1 | sigma | `ve` |
| the same: sub-VP | g^2 = beta (1 - exp(-2 B)) | a = exp(-B / 2) | (1 - a^2) / a | `subvp` |
| EDM (Karras et al. 2022) | x0 + sigma eps | 1 | sigma | `edm` |
| flow matching (Lipman et al. 2023) | (1 - t) x0 + t eps | 1 - t | t / (1 - t) | `flow` |

B is the integral of beta from 0 to t; here a is a cosine (`vp`). What is left of a framework is how the net is wrapped (`coefs`: a v-net, a
velocity-net, EDM's) and which sigmas it is trained on (`draw`: the paper's law of t). Whether an ODE or an SDE is followed afterwards, with
which step, is a choice of sampler: any process runs under any of them. All share one default grid over one range, so that steps and
guidance intervals mean the same for every model; a paper's own grid is uniform in its clock, and `clocked` gives it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .types import Coefs, Process

LO, HI, RHO = 0.002, 80.0, 7.0  # Karras et al. 2022, table 1
RIGHT = math.pi / 2


def edm(
    *,
    sigma_data: float = 0.5,
    mean: float = -1.2,
    spread: float = 1.2,
    lo: float = LO,
    hi: float = HI,
    rho: float = RHO,
) -> Process:
    """The EDM process (Karras et al. 2022, table 1; grid: equation 5 with a final 0).

    `sigma_data` is the standard deviation of the data in [-1, 1]; ln(sigma) is drawn from N(mean, spread^2) in training.
    """

    def coefs(sigma: Tensor) -> Coefs:
        total = sigma.square() + sigma_data**2
        return Coefs(sigma_data**2 / total, sigma * sigma_data / total.sqrt(), 1 / total.sqrt(), sigma.log() / 4)

    def draw(n: int, generator: torch.Generator) -> Tensor:
        return (torch.randn(n, generator=generator) * spread + mean).exp().clamp(lo, hi)

    def clock(t: Tensor) -> Tensor:
        return torch.pow(lo ** (1 / rho) + t * (hi ** (1 / rho) - lo ** (1 / rho)), rho)

    return Process(coefs, draw, _karras(lo, hi, rho), clock, torch.ones_like)


def ve(*, sigma_data: float = 0.5, lo: float = LO, hi: float = HI, rho: float = RHO) -> Process:
    """Variance exploding: a score net over log-uniform sigmas, weighted by sigma^2 (Song & Ermon 2019; Song et al. 2021, section 3.4).

    The paper feeds x as it is. Here its size is taken out, as in EDM: in a short trial on a small net the levels at which a picture
    forms were learnt sooner (a loss of 0.18 against 0.21 at sigma 0.5), the highest ones later, and all together alike.
    """

    def coefs(sigma: Tensor) -> Coefs:
        return Coefs(torch.ones_like(sigma), sigma, (sigma.square() + sigma_data**2).rsqrt(), (sigma / 2).log())

    def clock(t: Tensor) -> Tensor:
        return lo * (hi / lo) ** t

    return Process(coefs, _uniform_in(clock), _karras(lo, hi, rho), clock, torch.ones_like)


def vp(*, sigma_data: float = 0.5, lo: float = LO, hi: float = HI, rho: float = RHO) -> Process:
    """Variance preserving, a v-net over uniform t: DDPM (Ho et al. 2020) with the cosine schedule of Nichol & Dhariwal (2021, equation 17)
    and the prediction of Salimans & Ho (2022, section 4).

    abar(t) = cos^2(u) with u the t-th part of a right angle, so sigma = tan(u). With the linear beta and the eps-net of 2020 half of the
    time lies above sigma 3.4, where no picture is left, and an error of the net counts sigma times. `sigma_data` plays no part: the paper's
    net does not know it, and every process is called alike.
    """

    def scale(sigma: Tensor) -> Tensor:
        return (1 + sigma.square()).rsqrt()

    def coefs(sigma: Tensor) -> Coefs:
        near = scale(sigma)
        return Coefs(near.square(), -sigma * near, near, sigma.atan() / RIGHT)

    first, last = (math.atan(edge) for edge in (lo, hi))

    def clock(t: Tensor) -> Tensor:
        return (first + t * (last - first)).tan()

    return Process(coefs, _uniform_in(clock), _karras(lo, hi, rho), clock, scale)


def subvp(*, sigma_data: float = 0.5, lo: float = LO, hi: float = HI, rho: float = RHO) -> Process:
    """Sub-VP, x_t = a x0 + (1 - a^2) eps (Song et al. 2021, section 3.4), with the schedule and the prediction of `vp`: a = cos(u).

    From sigma = sin^2(u) / cos(u) follow a = exp(-asinh(sigma / 2)) and u = atan(sqrt(sigma / a)). `sigma_data` plays no part, as in `vp`.
    """

    def scale(sigma: Tensor) -> Tensor:
        return (-torch.asinh(sigma / 2)).exp()

    def angle(sigma: Tensor) -> Tensor:
        return (sigma / scale(sigma)).sqrt().atan()

    def coefs(sigma: Tensor) -> Coefs:
        near = (1 + sigma.square()).rsqrt()
        return Coefs(near.square(), -sigma * near, scale(sigma), angle(sigma) / RIGHT)

    first, last = (_at(angle, edge) for edge in (lo, hi))

    def clock(t: Tensor) -> Tensor:
        u = first + t * (last - first)
        return u.sin().square() / u.cos()

    return Process(coefs, _uniform_in(clock), _karras(lo, hi, rho), clock, scale)


def flow(*, sigma_data: float = 0.5, lo: float = LO, hi: float = HI, rho: float = RHO) -> Process:
    """Flow matching on straight paths, a net of the velocity eps - x0 over uniform t (Lipman et al. 2023; Liu et al. 2023).

    z = (1 - t) x0 + t eps is x / (1 + sigma) with sigma = t / (1 - t). `sigma_data` plays no part, as in `vp`.
    """

    def coefs(sigma: Tensor) -> Coefs:
        near = 1 / (1 + sigma)
        return Coefs(near, -sigma * near, near, sigma * near)

    first, last = lo / (1 + lo), hi / (1 + hi)

    def clock(t: Tensor) -> Tensor:
        now = first + t * (last - first)
        return now / (1 - now)

    return Process(coefs, _uniform_in(clock), _karras(lo, hi, rho), clock, lambda sigma: 1 / (1 + sigma))


def clocked(process: Process, steps: int) -> list[float]:
    """The paper's own grid, [sigma, ..., 0.0]: uniform in the process's clock (DDPM's t, NCSN's geometric levels, EDM's rho)."""
    if steps < 1:
        raise ValueError(f"a grid needs at least one step, not {steps}")
    return [*process.clock(torch.linspace(1, 0, steps, dtype=torch.float64)).tolist(), 0.0]


def _karras(lo: float, hi: float, rho: float) -> Callable[[int], list[float]]:
    """steps -> grid: equation 5 of Karras et al. 2022, and 0."""

    def grid(steps: int) -> list[float]:
        if steps < 1:
            raise ValueError(f"a grid needs at least one step, not {steps}")
        ramp = [i / max(steps - 1, 1) for i in range(steps)]
        return [(hi ** (1 / rho) + r * (lo ** (1 / rho) - hi ** (1 / rho))) ** rho for r in ramp] + [0.0]

    return grid


def _uniform_in(clock: Callable[[Tensor], Tensor]) -> Callable[[int, torch.Generator], Tensor]:
    """Training sigmas at uniform times."""

    def draw(n: int, generator: torch.Generator) -> Tensor:
        return clock(torch.rand(n, generator=generator))

    return draw


def _at(function: Callable[[Tensor], Tensor], value: float) -> float:
    return float(function(torch.tensor(value, dtype=torch.float64)))


PROCESSES: dict[str, Callable[..., Process]] = {"edm": edm, "vp": vp, "ve": ve, "subvp": subvp, "flow": flow}
