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

B is the integral of beta from 0 to t; here a is a cosine (`vp`). What is left of a framework is how the net is wrapped (`coefs`: a
v-net of data of unit variance, a velocity-net, EDM's) and which sigmas it is trained on (`draw`: the paper's law of t). What an error
counts is one weight for all, the flow's (`loss.py`). Whether an ODE or an SDE is followed afterwards, with which step, is a choice of
sampler: any process runs under any of them. All share one default grid over one range, so that steps and guidance intervals mean the
same for every model; a paper's own grid is uniform in its clock, and `clocked` gives it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .types import Coefs, Process

LO, HI, RHO = 0.002, 80.0, 7.0  # Karras et al. 2022, table 1
VE_LEAST = 0.01  # the lowest of NCSN's levels (Song & Ermon 2019, section 5): below it there is nothing to learn
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
        skip, out, in_ = _v_of_unit(sigma, sigma_data)
        return Coefs(skip, -out, in_, sigma.log() / 4)

    def draw(n: int, generator: torch.Generator) -> Tensor:
        return (torch.randn(n, generator=generator) * spread + mean).exp().clamp(lo, hi)

    def clock(t: Tensor) -> Tensor:
        return torch.pow(lo ** (1 / rho) + t * (hi ** (1 / rho) - lo ** (1 / rho)), rho)

    return Process(coefs, draw, _karras(lo, hi, rho), clock, torch.ones_like)


def ve(*, sigma_data: float = 0.5, lo: float = LO, hi: float = HI, rho: float = RHO) -> Process:
    """Variance exploding: log-uniform sigmas from `VE_LEAST` up (Song & Ermon 2019; Song et al. 2021, section 3.4), a v-net as in `vp`.

    The papers' net answers for the noise, and an error of it counts sigma times in the picture: where a picture begins that is all that
    can be seen. It is told ln(sigma / 2), here a quarter of it as in EDM, or the fastest sinusoids tell neighbours apart.
    """

    def coefs(sigma: Tensor) -> Coefs:
        return Coefs(*_v_of_unit(sigma, sigma_data), (sigma / 2).log() / 4)

    def levels(least: float) -> Callable[[Tensor], Tensor]:
        return lambda t: least * (hi / least) ** t

    law = levels(max(lo, VE_LEAST))
    return Process(coefs, _uniform_in(law), _karras(lo, hi, rho), levels(lo), torch.ones_like)


def vp(*, sigma_data: float = 0.5, lo: float = LO, hi: float = HI, rho: float = RHO) -> Process:
    """Variance preserving, a v-net over uniform t: DDPM (Ho et al. 2020) with the cosine schedule of Nichol & Dhariwal (2021, equation 17)
    and the prediction of Salimans & Ho (2022, section 4), on data of unit variance.

    The data are divided by their spread, or variance would not be preserved but grow with t, and most of the time be spent where no picture
    is left. abar(t) = cos^2(u) with u the t-th part of a right angle, so sigma = sigma_data tan(u). With the linear beta and the eps-net of
    2020 half of the time lies above sigma 3.4, and an error of the net counts sigma times.
    """

    def coefs(sigma: Tensor) -> Coefs:
        return Coefs(*_v_of_unit(sigma, sigma_data), (sigma / sigma_data).atan() / RIGHT)

    first, last = (math.atan(edge / sigma_data) for edge in (lo, hi))

    def clock(t: Tensor) -> Tensor:
        return sigma_data * (first + t * (last - first)).tan()

    def scale(sigma: Tensor) -> Tensor:
        return (sigma_data**2 + sigma.square()).rsqrt()

    return Process(coefs, _uniform_in(clock), _karras(lo, hi, rho), clock, scale)


def subvp(*, sigma_data: float = 0.5, lo: float = LO, hi: float = HI, rho: float = RHO) -> Process:
    """Sub-VP, x_t = a x0 + (1 - a^2) eps (Song et al. 2021, section 3.4), with schedule, prediction and unit variance of `vp`: a = cos(u).

    From r = sigma / sigma_data = sin^2(u) / cos(u) follow a = exp(-asinh(r / 2)) and u = atan(sqrt(r / a)).
    """

    def kept(ratio: Tensor) -> Tensor:
        return (-torch.asinh(ratio / 2)).exp()

    def angle(sigma: Tensor) -> Tensor:
        ratio = sigma / sigma_data
        return (ratio / kept(ratio)).sqrt().atan()

    def coefs(sigma: Tensor) -> Coefs:
        return Coefs(*_v_of_unit(sigma, sigma_data), angle(sigma) / RIGHT)

    first, last = (_at(angle, edge) for edge in (lo, hi))

    def clock(t: Tensor) -> Tensor:
        u = first + t * (last - first)
        return sigma_data * u.sin().square() / u.cos()

    return Process(
        coefs, _uniform_in(clock), _karras(lo, hi, rho), clock, lambda sigma: kept(sigma / sigma_data) / sigma_data
    )


def flow(*, sigma_data: float = 0.5, lo: float = LO, hi: float = HI, rho: float = RHO) -> Process:
    """Flow matching on straight paths, a net of the velocity eps - x0 over uniform t (Lipman et al. 2023; Liu et al. 2023).

    z = (1 - t) x0 + t eps is x / (1 + sigma) with sigma = t / (1 - t). `sigma_data` plays no part: the paper's net does not know it, and
    every process is called alike.
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


def _v_of_unit(sigma: Tensor, sigma_data: float) -> tuple[Tensor, Tensor, Tensor]:
    """(skip, out, in) of a net that sees data of unit variance, noised, at variance 1 and answers with v (Salimans & Ho 2022, section 4).

    Up to the sign of `out` they are EDM's (Karras et al. 2022, table 1), which follow from asking for unit variance.
    """
    total = sigma.square() + sigma_data**2
    return sigma_data**2 / total, -sigma * sigma_data / total.sqrt(), 1 / total.sqrt()


def _at(function: Callable[[Tensor], Tensor], value: float) -> float:
    return float(function(torch.tensor(value, dtype=torch.float64)))


PROCESSES: dict[str, Callable[..., Process]] = {"edm": edm, "vp": vp, "ve": ve, "subvp": subvp, "flow": flow}
