"""Guidance: functions from denoiser to denoiser, and the terms (logits -> one number an image) they may follow.

A term never touches autograd: `guided` differentiates it and, for students of one step, `climbed`. At weight 0 or scale 1 the denoiser
itself is returned, so that guidance that is off costs nothing and changes no bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from .types import Denoise, Score

EVERYWHERE = (0.0, math.inf)


def log_likelihood(logits: Tensor, label: Tensor) -> Tensor:
    """log p(label): ordinary classifier guidance (Dhariwal & Nichol 2021). logits (B, K), label (B,) -> (B,)."""
    return F.log_softmax(logits, -1).gather(-1, label[:, None])[:, 0]


def entropy(logits: Tensor, label: Tensor) -> Tensor:
    """Shannon entropy of the predicted classes, in nats (MGDM's measure "Entropy")."""
    log_p = F.log_softmax(logits, -1)
    return -(log_p.exp() * log_p).sum(-1)


def margin(logits: Tensor, label: Tensor) -> Tensor:
    """Minus the lead of the most probable class over the next (MGDM's measure "Margin")."""
    first, second = F.softmax(logits, -1).topk(2, -1).values.unbind(-1)
    return second - first


def least_confidence(logits: Tensor, label: Tensor) -> Tensor:
    """Minus the probability of the most probable class (MGDM's measure "Least confidence")."""
    return -F.softmax(logits, -1).amax(-1)


def logit_gap(logits: Tensor, label: Tensor) -> Tensor:
    """logit[label] - max of the others: > 0 where the label holds. (B,)."""
    own = logits.gather(-1, label[:, None])[:, 0]
    others = logits.scatter(-1, label[:, None], -torch.inf).amax(-1)
    return own - others


def gap(logits: Tensor, label: Tensor, target: float = 1.0) -> Tensor:
    """-|gap - target|, smooth near 0: just on the label's side of the boundary. Its gradient does not vanish for a sure classifier."""
    away = logit_gap(logits, label) - target
    return -F.huber_loss(away, torch.zeros_like(away), reduction="none", delta=0.5)


def disagreement(logits: Tensor, label: Tensor) -> Tensor:
    """What the members of an ensemble would tell each other: H(mean p) - mean H(p), in nats (BALD: Houlsby et al. 2011, equation 2).

    logits (M, B, K) -> (B,). High where members are sure of different classes: what an image lacks is then knowledge, not sharpness.
    """
    log_p = F.log_softmax(logits, -1)
    log_mean = torch.logsumexp(log_p, 0) - math.log(len(logits))
    return -(log_mean.exp() * log_mean).sum(-1) + (log_p.exp() * log_p).sum(-1).mean(0)


Term = Callable[[Tensor, Tensor], Tensor]
TERMS: dict[str, Term] = {
    "class": log_likelihood,
    "entropy": entropy,
    "margin": margin,
    "least-confidence": least_confidence,
    "gap": gap,
    "disagreement": disagreement,
}
OF_MEMBERS = frozenset({"disagreement"})  # terms that look at the logits (M, B, K) of an ensemble


@dataclass(frozen=True)
class Pull:
    """A score to climb. `weight` 0 is off; active for sigma in `between`; on the noisy `x` or the denoised `x0`.

    On `x` the score must know noise (MGDM as published). On `x0` it is that of a clean image and its gradient is taken with respect to
    x0 alone, without the net's Jacobian, as in Askari Hemmat et al. (2024; 2025): any classifier can then guide.

    With `spread` (the data's standard deviation) the step has length `weight` in units of what is still undecided at sigma,
    spread * sigma / sqrt(spread^2 + sigma^2), whatever the size of the gradient: one weight then works across data sets.
    """

    score: Score
    weight: float
    on: Literal["x", "x0"] = "x"
    between: tuple[float, float] = EVERYWHERE
    spread: float | None = None


def cfg(cond: Denoise, uncond: Denoise, scale: float, between: tuple[float, float] = EVERYWHERE) -> Denoise:
    """Classifier-free guidance (Ho & Salimans 2022), only for sigma in `between` (Kynkaanniemi et al. 2024). Scale 1 is off."""
    if scale == 1:
        return cond

    def denoise(x: Tensor, sigma: float) -> Tensor:
        wanted = cond(x, sigma)
        if not between[0] <= sigma <= between[1]:
            return wanted
        return wanted + (scale - 1) * (wanted - uncond(x, sigma))

    return denoise


def autoguidance(strong: Denoise, weak: Denoise, scale: float, between: tuple[float, float] = EVERYWHERE) -> Denoise:
    """weak + scale (strong - weak): away from what a worse model of the same data gets wrong (Karras et al. 2024, equation 3).

    Both know the class, so that, unlike `cfg`, it sharpens without narrowing a class to its most typical images; the weak model is an
    early average of the same training (their section 5, "reduced training"). Scale 1 is off.
    """
    return cfg(strong, weak, scale, between)


def guided(denoise: Denoise, *pulls: Pull) -> Denoise:
    """x0 + sigma^2 * d/dx sum(weight * score): the DDIM guidance of Dhariwal & Nichol (2021, algorithm 2) in this coordinate."""
    active = tuple(pull for pull in pulls if pull.weight != 0)
    if not active:
        return denoise

    def denoise_and_climb(x: Tensor, sigma: float) -> Tensor:
        x0 = denoise(x, sigma)
        step = torch.zeros_like(x0)
        for pull in active:
            if pull.between[0] <= sigma <= pull.between[1]:
                step = step + _step(pull, x if pull.on == "x" else x0, sigma)
        return x0 + step

    return denoise_and_climb


def climbed(score: Callable[[Tensor], Tensor], noise: Tensor, *, length: float, steps: int) -> Tensor:
    """Unit noise (B, C, H, W) near `noise` at which `score` (noise -> (B,)) is higher: for models that have no states in between.

    `steps` gradient steps of `length` / `steps` (root mean square), each along the sphere on which the noise lies: a noise of another
    length is one that the model never met. So no image moves farther than `length`.
    """
    radius = noise.square().mean((1, 2, 3), keepdim=True).sqrt()
    at = noise
    for _ in range(steps if length else 0):
        with torch.enable_grad():
            leaf = at.detach().requires_grad_(True)
            grad = torch.autograd.grad(score(leaf).sum(), leaf)[0]
        grad = grad - at * (grad * at).mean((1, 2, 3), keepdim=True) / radius.square()
        size = grad.square().mean((1, 2, 3), keepdim=True).sqrt()
        at = at + length / steps * grad / size.clamp_min(1e-12)
        at = at * radius / at.square().mean((1, 2, 3), keepdim=True).sqrt()
    return at


def _step(pull: Pull, at: Tensor, sigma: float) -> Tensor:
    with torch.enable_grad():
        leaf = at.detach().requires_grad_(True)
        # The gradient of the sum over the batch is each image's own gradient: no mean, or the strength would depend on the batch.
        grad = torch.autograd.grad(pull.score(leaf, sigma).sum(), leaf)[0]
    if pull.spread is None:
        return pull.weight * sigma**2 * grad
    undecided = pull.spread * sigma / math.sqrt(pull.spread**2 + sigma**2)
    size = grad.square().mean((1, 2, 3), keepdim=True).sqrt()
    return pull.weight * undecided * grad / size.clamp_min(1e-12)


class Recorded:
    """A denoiser that keeps its answers above a noise level, in order, so that a second decode of the same noise repeats them."""

    def __init__(self, denoise: Denoise, above: float) -> None:
        self.denoise, self.above = denoise, above
        self.kept: list[Tensor] = []
        self.parted = False

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        x0 = self.denoise(x, sigma)
        self.parted = self.parted or sigma <= self.above
        if not self.parted:
            self.kept.append(x0)
        return x0

    def replay(self, rows: Sequence[int], then: Denoise) -> Denoise:
        """The same answers again for these rows, and `then` from the first sigma at or below the level on."""
        left = iter(self.kept)

        def denoise(x: Tensor, sigma: float) -> Tensor:
            kept = next(left, None)
            return then(x, sigma) if kept is None else kept[rows]

        return denoise
