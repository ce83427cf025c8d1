"""f-distillation: which divergence between the student's law q and the teacher's p a one-step student descends (Xu et al. 2025).

For D_f(p || q) = E_q f(p / q) the gradient with respect to the student is that of distribution matching (Wang et al. 2023, VSD; Yin et al.
2024, DMD) times h(r) = f''(r) r^2 at r = p / q (their theorem 1). h = 1 is reverse KL, which seeks modes: where q is not, nothing
calls it. A rising h gives weight to what the student makes too little of.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Function = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Divergence:
    """f with D_f(p || q) = E_q f(p / q), and h(r) = f''(r) r^2."""

    f: Function
    h: Function


def _js(r: Tensor) -> Tensor:
    """r ln r - (r + 1) ln((r + 1) / 2): twice the Jensen-Shannon divergence."""
    return r * r.log() - (r + 1) * ((r + 1) / 2).log()


DIVERGENCES: dict[str, Divergence] = {
    "rkl": Divergence(lambda r: -r.log(), torch.ones_like),
    "fkl": Divergence(lambda r: r * r.log(), lambda r: r),
    "js": Divergence(_js, lambda r: r / (r + 1)),
    "srkl": Divergence(lambda r: (r + 1) * torch.log1p(1 / r), lambda r: 1 / (r + 1)),
    "sh": Divergence(lambda r: 4 * (1 - r.sqrt()), lambda r: r.sqrt()),
    "jeffreys": Divergence(lambda r: (r - 1) * r.log(), lambda r: 1 + r),
    "neyman": Divergence(lambda r: 1 / (2 * r), lambda r: 1 / r),
}
"""rkl = KL(q || p), fkl = KL(p || q), js = Jensen-Shannon, srkl = softened rkl, sh = squared Hellinger, jeffreys = rkl + fkl, neyman."""

LOGIT, RATIO, LEAST_MEAN = 10.0, (0.1, 20.0), 1e-3


def ratio(logit: Tensor) -> Tensor:
    """r = p / q of a discriminator's logit log(p / q), (B,), within bounds that no single image can leave."""
    return logit.clamp(-LOGIT, LOGIT).exp().clamp(*RATIO)


def weights_of(h: Function, r: Tensor, mean: Tensor) -> Tensor:
    """(B,) of h at r / `mean` (a running mean of r at this noise level), over the batch's mean of h: a step is as long as rkl's."""
    found = h(r / mean.clamp_min(LEAST_MEAN))
    return found / found.mean().clamp_min(LEAST_MEAN)


def target(x: Tensor, real: Tensor, fake: Tensor, weight: Tensor) -> Tensor:
    """Where x should have been: x + weight (real - fake) / mean|x - real| (Yin et al. 2024, equation 8); a constant.

    `real`, `fake`: the denoised x by the teacher and by the student's own score; their difference is that of the scores times sigma^2.
    """
    size = (x - real).abs().mean((1, 2, 3), keepdim=True) + 1e-6
    return (x + weight[:, None, None, None] * (real - fake) / size).detach()
