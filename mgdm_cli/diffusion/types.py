"""The few types that samplers, guidance and models speak in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

Denoise = Callable[[Tensor, float], Tensor]
"""(x (B, C, H, W), sigma) -> x0 (B, C, H, W); condition and guidance are already inside."""

Score = Callable[[Tensor, float], Tensor]
"""(image (B, C, H, W), sigma) -> (B,); higher is more wanted."""

RandnLike = Callable[[Tensor], Tensor]
"""x -> unit normal noise of the same shape, device and type."""

NULL = -1
"""The label of "no class": the unconditional branch of a class-conditional net."""


class Coefs(NamedTuple):
    """Preconditioning, each (B,): `x0 = skip * x + out * net(in_ * x, noise)`."""

    skip: Tensor
    out: Tensor
    in_: Tensor
    noise: Tensor


WARPED_FROM = 0.2  # noise that hides the blur of a warped picture; below it models learn from unwarped ones


@dataclass(frozen=True)
class Cond:
    """What a model is told beside x and sigma. `label` (B,) int64, NULL = no class; `warp` (B, W) the augmentation applied, of which
    it hears from noise level `WARPED_FROM` on.

    `latent` (B, L) is unit noise: to which of the pictures that x may come from a stochastic student answers.
    """

    label: Tensor | None = None
    warp: Tensor | None = None
    latent: Tensor | None = None


@dataclass(frozen=True)
class Process:
    """A diffusion process: its coefficients, its training sigmas and its sampling grid.

    `clock`: the paper's time as a share, 0 (least noise) to 1, -> sigma. `scale`: sigma -> s in the paper's `x_t = s (x0 + sigma eps)`.
    """

    coefs: Callable[[Tensor], Coefs]
    draw: Callable[[int, torch.Generator], Tensor]
    grid: Callable[[int], list[float]]
    clock: Callable[[Tensor], Tensor]
    scale: Callable[[Tensor], Tensor]


Sampler = Callable[..., Iterator[Tensor]]
"""(denoise, x, sigmas decreasing, *, randn_like, knobs) -> x after every step: a generator function."""
