"""From a picture back to the noise that DDIM decodes into it: for real images, whose noise nobody knows.

The usual inversion (Song et al. 2021, section 4.3) runs the Euler step backwards with the answer of the wrong end of the step, and loses
about 27 dB of a picture in 25 steps. Here each step solves for the x from which the decoding step leads exactly to where we are, by a
damped fixed-point iteration; decoding then finds its way back.

Under classifier-free guidance DDIM is no ODE of one denoiser and its inversion drifts. CFG++ (Chung et al. 2024, equations 13 and 14)
renoises with the unconditional answer instead, which makes decode and inversion one path again: `renoise`.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from .types import Denoise


def decode(denoise: Denoise, x: Tensor, sigmas: list[float], *, renoise: Denoise | None = None) -> Iterator[Tensor]:
    """DDIM with eta 0 over the decreasing `sigmas`: x0 + to / sigma (x - y), y being x0, or renoise's answer (CFG++)."""
    for sigma, to in pairwise(sigmas):
        x0 = denoise(x, sigma)
        y = x0 if renoise is None else renoise(x, sigma)
        x = x0 + (to / sigma) * (x - y)
        yield x


def invert(
    denoise: Denoise,
    x0: Tensor,
    sigmas: list[float],
    *,
    renoise: Denoise | None = None,
    iterations: int = 30,
    tolerance: float = 1e-5,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields (x at the next higher sigma, how far its decoding step misses (B,), RMS), up to sigmas[0]; x0 (B, C, H, W) is the picture.

    The same `denoise`, `renoise` and `sigmas` (decreasing, ending in 0) as `decode` will use; begin to decode from any x that was yielded,
    at its sigma, for a partial edit. `iterations` 0 is the usual explicit inversion. `tolerance`: RMS at which an image's step is solved;
    at 0 each step takes all iterations.
    """
    x, answers = x0, None
    for to, sigma in pairwise(reversed(sigmas)):
        x, missed, answers = _back(denoise, renoise, x, answers, sigma, to, iterations, tolerance)
        yield x, missed


Answers = tuple[Tensor, Tensor]
"""(x0, what the noise is told from: x0 again, or renoise's answer) at some x."""


def _back(
    denoise: Denoise,
    renoise: Denoise | None,
    target: Tensor,
    answers: Answers | None,
    sigma: float,
    to: float,
    iterations: int,
    tolerance: float,
) -> tuple[Tensor, Tensor, Answers]:
    """The x at `sigma` whose decoding step lands on `target` at `to`, how far it misses, and the answers there.

    `answers`: those at `target`, from the step before; None at a clean image, where there are none.
    """

    def ask(x: Tensor) -> Answers:
        found = denoise(x, sigma)
        return found, found if renoise is None else renoise(x, sigma)

    def lands(x: Tensor, found: Answers) -> Tensor:
        return found[0] + (to / sigma) * (x - found[1])

    # The usual explicit step up: the answer at `to` stands for the one at `sigma`. From a clean image, x itself.
    x = target if answers is None else answers[1] + (sigma / to) * (target - answers[0])
    answers = ask(x)
    # The landing point moves by J + (to / sigma)(1 - J) of a move of x, J being the denoiser's slope there, 0 to 1 where the data have one
    # mode: a step by the miss over the middle of that range converges at both ends of it. From then on the pace is measured.
    miss = target - lands(x, answers)
    best, least, kept = x, _rms(miss), answers
    pace = x.new_full((len(x), 1, 1, 1), 2 / (1 + to / sigma))
    for _ in range(iterations):
        if tolerance > 0 and bool((least < tolerance).all()):
            break
        trial = x + pace * miss
        answers = ask(trial)
        left = target - lands(trial, answers)
        # A step that makes things much worse is not taken. A little worse is allowed: that is how this pace outruns a fixed one.
        taken = _rms(left) < 2 * _rms(miss)
        better = _rms(left) < least
        best, least = torch.where(better, trial, best), torch.where(better, _rms(left), least)
        kept = (torch.where(better, answers[0], kept[0]), torch.where(better, answers[1], kept[1]))
        pace = torch.where(taken, _measured(trial - x, miss - left, pace), pace / 4)
        x, miss = torch.where(taken, trial, x), torch.where(taken, left, miss)
    return best, least.flatten(), kept


def _measured(moved: Tensor, landed: Tensor, before: Tensor) -> Tensor:
    """(B, 1, 1, 1): the pace that would have been right for the last step, <moved, landed> / |landed|^2 (Barzilai & Borwein 1988)."""
    along = (moved * landed).sum((1, 2, 3), keepdim=True)
    size = landed.square().sum((1, 2, 3), keepdim=True)
    return torch.where((along > 0) & (size > 0), along / size.clamp_min(1e-30), before)


def _rms(x: Tensor) -> Tensor:
    """(B, 1, 1, 1): the root mean square of each image."""
    return x.square().mean((1, 2, 3), keepdim=True).sqrt()


def psnr(found: Tensor, wanted: Tensor) -> Tensor:
    """(B,) peak signal-to-noise ratio in dB, the range being [-1, 1]."""
    return 10 * torch.log10(4 / (found - wanted).square().mean((1, 2, 3)).clamp_min(1e-20))
