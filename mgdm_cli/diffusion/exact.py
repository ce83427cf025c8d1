"""Exact denoisers of known data laws: what samplers and guidance are tested and demonstrated against."""

from __future__ import annotations

import torch
from torch import Tensor

from .types import Denoise


def gaussian(mean: float, spread: float) -> Denoise:
    """E[x0 | x] for x0 ~ N(mean, spread^2): the conjugate normal posterior mean."""

    def denoise(x: Tensor, sigma: float) -> Tensor:
        return (spread**2 * x + sigma**2 * mean) / (spread**2 + sigma**2)

    return denoise


def mixture(means: Tensor, spread: float, weights: Tensor) -> Denoise:
    """E[x0 | x], per pixel, for a mixture of normals: means (M,), weights (M,), one common spread."""

    def denoise(x: Tensor, sigma: float) -> Tensor:
        total = spread**2 + sigma**2
        apart = x[..., None] - means
        share = torch.softmax(weights.log() - apart.square() / (2 * total), -1)
        return (share * (spread**2 * x[..., None] + sigma**2 * means) / total).sum(-1)

    return denoise
