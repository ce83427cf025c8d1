"""Critics: is this step of the chain a true one; is this noisy picture the teacher's or the student's."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .layers import ChannelNorm, NoiseEmbedding, narrowing


@dataclass(frozen=True)
class CriticSettings:
    """`channels`: of one picture; the critic sees two. `patch` folds pixels into channels first."""

    channels: int
    classes: int
    sigma_data: float
    width: int = 32
    widths: tuple[int, ...] = (1, 2, 3, 4)
    patch: int = 1


class Critic(nn.Module):
    """(near (B, C, H, W), x (B, C, H, W), to (B,), sigma (B,), label (B,)) -> logits (B,) that `near` at `to` truly led to x at sigma.

    Residual blocks without norms, the class by projection (Miyato & Koyama 2018). Not the paper's map of the spread over the batch: steps
    at all levels stand in one batch, and by what the last step's pictures look like it gave away the first ones, which then taught nothing.
    """

    def __init__(self, settings: CriticSettings) -> None:
        super().__init__()
        s = self.settings = settings
        dim = 4 * s.width
        self.noise = NoiseEmbedding(dim, frequencies=16)
        self.stem = nn.Conv2d(2 * s.channels * s.patch**2, s.width, 3, padding=1)
        self.blocks, now = narrowing(s.width, s.widths, dim, _no_norm)
        self.last = nn.Conv2d(now, now, 3, padding=1)
        self.label = nn.Embedding(s.classes, now)
        self.head = nn.Linear(now, 1)

    def forward(self, near: Tensor, x: Tensor, to: Tensor, sigma: Tensor, label: Tensor) -> Tensor:
        s = self.settings
        embedding = F.silu(self.noise(sigma.log() / 4))
        pair = torch.cat([_unit(near, to, s.sigma_data), _unit(x, sigma, s.sigma_data)], 1)
        pair = self.stem(F.pixel_unshuffle(pair, s.patch) if s.patch > 1 else pair)
        for block in self.blocks:
            pair = block(pair, embedding)
        pair = F.leaky_relu(self.last(pair), 0.2)
        found = pair.float().mean((2, 3))
        out: Tensor = self.head(found)[:, 0] + (self.label(label) * found).sum(1) / found.shape[1] ** 0.5
        return out


class Head(nn.Module):
    """(features (B, D, h, w) of a frozen encoder, label (B,)) -> logits (B,): a small net on what the teacher sees."""

    def __init__(self, features: int, classes: int, *, width: int = 96) -> None:
        super().__init__()
        self.inner = nn.Conv2d(features, width, 3, stride=2, padding=1)
        self.middle = nn.Conv2d(width, width, 3, padding=1)
        self.label = nn.Embedding(classes, width)
        self.out = nn.Linear(width, 1)
        self.norm = ChannelNorm(features)

    def forward(self, features: Tensor, label: Tensor) -> Tensor:
        found = F.silu(self.inner(self.norm(features.float())))
        found = F.silu(self.middle(found)).mean((2, 3))
        out: Tensor = self.out(found)[:, 0] + (self.label(label) * found).sum(1) / found.shape[1] ** 0.5
        return out


def _no_norm(channels: int) -> nn.Module:
    return nn.Identity()


def _unit(x: Tensor, sigma: Tensor, spread: float) -> Tensor:
    """x at sigma scaled to unit variance."""
    return x * (sigma.square() + spread**2).rsqrt()[:, None, None, None]
