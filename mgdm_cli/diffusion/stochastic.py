"""Samplers that draw fresh noise on the way. The same form as those of `samplers`, where all are on one menu.

In `x = x0 + sigma eps` the score is (x0 - x) / sigma^2, so that every published SDE sampler is a few terms in x, x0 and noise. No step
mixes rows of a batch: what is measured on an image (the corrector's step) is measured on that image alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

from torch import Tensor

from .types import Denoise, RandnLike


def sde(denoise: Denoise, x: Tensor, sigmas: list[float], *, randn_like: RandnLike) -> Iterator[Tensor]:
    """Euler-Maruyama on the reverse SDE: the "reverse diffusion" predictor (Song et al. 2021, algorithm 2). First order in the mean.

    x + (sigma^2 - to^2) score + sqrt(sigma^2 - to^2) noise; the last step is x0, without noise (appendix G). It wants many steps: the
    noise that it adds is that of the whole step, where `ddpm` adds what the posterior says.
    """
    for sigma, to in pairwise(sigmas):
        x0 = denoise(x, sigma)
        gone = sigma**2 - to**2
        x = x0 if to == 0 else x + gone / sigma**2 * (x0 - x) + math.sqrt(gone) * randn_like(x)
        yield x


def churn(
    denoise: Denoise,
    x: Tensor,
    sigmas: list[float],
    *,
    randn_like: RandnLike,
    churn: float = 40.0,
    lo: float = 0.05,
    hi: float = 50.0,
    noise: float = 1.003,
) -> Iterator[Tensor]:
    """Heun with noise added and removed again (Karras et al. 2022, algorithm 2; its ImageNet settings). `churn` 0 is Heun.

    For sigma in [lo, hi] each step first raises sigma by the share min(churn / steps, sqrt(2) - 1), by noise of spread `noise`.
    """
    share = min(churn / (len(sigmas) - 1), math.sqrt(2) - 1)
    for sigma, to in pairwise(sigmas):
        raised = sigma * (1 + share) if lo <= sigma <= hi else sigma
        if raised > sigma:
            x = x + math.sqrt(raised**2 - sigma**2) * noise * randn_like(x)
        slope = (x - denoise(x, raised)) / raised
        there = x + (to - raised) * slope
        if to > 0:
            slope = (slope + (there - denoise(there, to)) / to) / 2
        x = x + (to - raised) * slope
        yield x


def dpmpp_2m_sde(
    denoise: Denoise, x: Tensor, sigmas: list[float], *, randn_like: RandnLike, eta: float = 1.0, lo: float = 0.0
) -> Iterator[Tensor]:
    """SDE-DPM-Solver++(2M): second order, one evaluation a step (Lu et al. 2022, section 6), in lambda = -ln(sigma). eta 0 is the ODE.

    With h the step in lambda: exp(-h eta) (to / sigma) x + (1 - exp(-(1 + eta) h)) (x0 + slope h / 2) + to sqrt(1 - exp(-2 eta h)) noise.
    Steps that end below `lo` follow the ODE: high up fresh noise undoes what the net got wrong, low down few steps blur by it.
    """
    before: Tensor | None = None
    step_before = 0.0
    for sigma, to in pairwise(sigmas):
        x0 = denoise(x, sigma)
        if to == 0:
            x = x0
        else:
            step, fresh = math.log(sigma / to), eta if to >= lo else 0.0
            ahead = x0 if before is None else x0 + (x0 - before) * step / (2 * step_before)
            x = math.exp(-fresh * step) * (to / sigma) * x - math.expm1(-(1 + fresh) * step) * ahead
            if fresh > 0:
                x = x + to * math.sqrt(-math.expm1(-2 * fresh * step)) * randn_like(x)
            before, step_before = x0, step
        yield x


def langevin(
    denoise: Denoise,
    x: Tensor,
    sigmas: list[float],
    *,
    randn_like: RandnLike,
    inner: float = 8,
    step: float = 0.4,
) -> Iterator[Tensor]:
    """Annealed Langevin dynamics (Song & Ermon 2019, algorithm 1): `inner` steps at each level, then one denoising (Song & Ermon 2020).

    `step` is the paper's alpha / sigma^2: x + step / 2 (x0 - x) + noise. The paper's noise, sqrt(step) sigma, leaves the levels a share
    step / 4 too noisy; here it is sized to leave N(x0, sigma^2) as it is. Costs `inner` evaluations a level, and wants many levels.
    """
    kept = 1 - step / 2
    fresh = math.sqrt(1 - kept**2)
    for sigma, to in pairwise(sigmas):
        for _ in range(int(inner)):
            x0 = denoise(x, sigma)
            x = x0 + kept * (x - x0) + fresh * sigma * randn_like(x)
        if to == 0:
            x = denoise(x, sigma)
        yield x


def pc(
    denoise: Denoise,
    x: Tensor,
    sigmas: list[float],
    *,
    randn_like: RandnLike,
    snr: float = 0.16,
    correct: float = 1,
) -> Iterator[Tensor]:
    """Predictor-corrector (Song et al. 2021, algorithm 2): an ancestral step, then `correct` Langevin steps at the new level.

    The corrector goes x + e score + sqrt(2 e) noise with e = 2 (snr |noise| / |score|)^2 (algorithm 4), its norms taken over one image.
    """
    for sigma, to in pairwise(sigmas):
        x0 = denoise(x, sigma)
        if to == 0:
            yield x0
            return
        left = to**2 / sigma**2
        x = x0 + left * (x - x0) + to * math.sqrt(1 - left) * randn_like(x)
        for _ in range(int(correct)):
            score, noise = (denoise(x, to) - x) / to**2, randn_like(x)
            size = 2 * (snr * _norm(noise) / _norm(score).clamp_min(1e-12)).square()
            x = x + size * score + (2 * size).sqrt() * noise
        yield x


def _norm(x: Tensor) -> Tensor:
    """(B, 1, 1, 1): the length of each image."""
    return x.square().sum((1, 2, 3), keepdim=True).sqrt()
