"""Samplers: generator functions `(denoise, x, sigmas, *, randn_like, knobs) -> Iterator[x]` over a decreasing grid.

Each yields x after every step; the last x is the image when the grid ends in 0. "SDE" or "ODE" is a choice of sampler, never of
process: any model runs under any of them. Here are the ones that solve the ODE, and DDIM; `stochastic` has those of the SDE.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from .stochastic import churn, dpmpp_2m_sde, langevin, pc, sde
from .types import Denoise, RandnLike, Sampler


def euler(denoise: Denoise, x: Tensor, sigmas: list[float], *, randn_like: RandnLike) -> Iterator[Tensor]:
    """First order on the probability-flow ODE dx/dsigma = (x - x0) / sigma (Karras et al. 2022, equation 3)."""
    for sigma, to in pairwise(sigmas):
        x = x + (to - sigma) * (x - denoise(x, sigma)) / sigma
        yield x


def heun(denoise: Denoise, x: Tensor, sigmas: list[float], *, randn_like: RandnLike) -> Iterator[Tensor]:
    """Second order, two evaluations a step but the last (Karras et al. 2022, algorithm 1): `churn` that adds no noise."""
    return churn(denoise, x, sigmas, randn_like=randn_like, churn=0.0)


def ddim(
    denoise: Denoise, x: Tensor, sigmas: list[float], *, randn_like: RandnLike, eta: float = 0.0
) -> Iterator[Tensor]:
    """DDIM (Song et al. 2021, equation 12) in the sigma coordinate; eta 0 is the ODE step, eta 1 the DDPM posterior."""
    for sigma, to in pairwise(sigmas):
        x0 = denoise(x, sigma)
        fresh = eta * to * math.sqrt(max(sigma**2 - to**2, 0.0)) / sigma
        kept = math.sqrt(max(to**2 - fresh**2, 0.0))
        x = x0 + kept * (x - x0) / sigma
        if fresh > 0:
            x = x + fresh * randn_like(x)
        yield x


def ddpm(denoise: Denoise, x: Tensor, sigmas: list[float], *, randn_like: RandnLike) -> Iterator[Tensor]:
    """Ancestral sampling from the posterior q(x_to | x, x0) (Ho et al. 2020, equation 7): DDIM with eta 1."""
    return ddim(denoise, x, sigmas, randn_like=randn_like, eta=1.0)


def dpmpp_2m(denoise: Denoise, x: Tensor, sigmas: list[float], *, randn_like: RandnLike) -> Iterator[Tensor]:
    """DPM-Solver++(2M): second order, one evaluation a step (Lu et al. 2022, algorithm 2): its SDE that adds no noise."""
    return dpmpp_2m_sde(denoise, x, sigmas, randn_like=randn_like, eta=0.0)


def unipc(
    denoise: Denoise, x: Tensor, sigmas: list[float], *, randn_like: RandnLike, order: float = 2
) -> Iterator[Tensor]:
    """UniPC (Zhao et al. 2023, algorithms 1 and 2): a multistep predictor of `order`, corrected to the next order for free.

    The evaluation at the predicted point both corrects the step to it and serves the next one: one evaluation a step. The coefficients
    integrate the polynomial through the kept x0 exactly in lambda = -ln(sigma), which is the paper's system solved whole (B(h) cancels),
    but for a line, whose slope counts half as the paper advises (section 3.4, B2): that is safer where steps are long.
    """
    kept: list[tuple[float, Tensor]] = []  # (lambda, x0), newest first
    for sigma, to in pairwise(sigmas):
        if not kept:
            kept = [(-math.log(sigma), denoise(x, sigma))]
        if to == 0:
            x = kept[0][1]
        else:
            step = math.log(sigma / to)
            nodes = [(at + math.log(sigma)) / step for at, _ in kept]
            found = [x0 for _, x0 in kept]
            there = (to / sigma) * x + _sum(_weights(nodes, step), found)
            new = denoise(there, to)
            x = (to / sigma) * x + _sum(_weights([1.0, *nodes], step), [new, *found])
            kept = [(-math.log(to), new), *kept][: int(order)]
        yield x


def _weights(nodes: list[float], step: float) -> list[float]:
    """w with sum(w p(nodes)) = integral over u in [0, 1] of step exp(-step (1 - u)) p(u), for every polynomial p that the nodes fix.

    Of two nodes, one of which is 0: the slope times half of exp's integral, which agrees with that to the order that counts.
    """
    moments = [-math.expm1(-step)]
    if len(nodes) == 2:
        shares = [moments[0] / (2 * node) if node else 0.0 for node in nodes]
        return [share if node else moments[0] - sum(shares) for share, node in zip(shares, nodes, strict=True)]
    for power in range(1, len(nodes)):
        moments.append(1 - power / step * moments[-1])
    at = torch.tensor(nodes, dtype=torch.float64)
    powers = torch.stack([at**power for power in range(len(nodes))])
    weights: list[float] = torch.linalg.solve(powers, torch.tensor(moments, dtype=torch.float64)).tolist()
    return weights


def _sum(weights: list[float], terms: list[Tensor]) -> Tensor:
    total = weights[0] * terms[0]
    for weight, term in zip(weights[1:], terms[1:], strict=True):
        total = total + weight * term
    return total


class Bound(NamedTuple):
    """What a knob may be: from `lo` to `hi`, and a whole number if `whole`."""

    lo: float
    hi: float
    whole: bool = False


COUNT = 1000  # more of anything is beyond use
BOUNDS: dict[tuple[str, str], Bound] = {  # of those that give pictures in these bounds alone
    ("ddim", "eta"): Bound(0, 1),  # the posterior has no more noise
    ("unipc", "order"): Bound(1, 3, True),  # the paper's; beyond, what is extrapolated grows without end
    ("langevin", "inner"): Bound(1, COUNT, True),
    ("langevin", "step"): Bound(0.001, 4),  # after a longer one no noise gives x its spread back
    ("pc", "snr"): Bound(0, 1),  # from there on the steps add more noise than they take
    ("pc", "correct"): Bound(0, COUNT, True),
}

SAMPLERS: dict[str, Sampler] = {
    "euler": euler,
    "heun": heun,
    "ddim": ddim,
    "ddpm": ddpm,
    "dpmpp_2m": dpmpp_2m,
    "unipc": unipc,
    "sde": sde,
    "churn": churn,
    "dpmpp_2m_sde": dpmpp_2m_sde,
    "langevin": langevin,
    "pc": pc,
}
_ALWAYS_DRAW = frozenset({"ddpm", "sde", "churn", "langevin", "pc"})
_ETA = {"ddim": 0.0, "dpmpp_2m_sde": 1.0}  # of those that draw by it, where none is given


def draws(sampler: str, knobs: Mapping[str, float]) -> bool:
    """Whether it draws fresh noise on the way: then another number of steps gives another picture, not the same one less exactly."""
    return sampler in _ALWAYS_DRAW or (sampler in _ETA and knobs.get("eta", _ETA[sampler]) > 0)
