"""The noise-aware classifier: p(class | x, sigma) for guidance, and the same net at low noise for judging."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .layers import NoiseEmbedding, narrowing


@dataclass(frozen=True)
class ClassifierSettings:
    """`sigma_data`: the data's standard deviation, for scaling the input; `patch` folds pixels into channels first."""

    channels: int
    classes: int
    sigma_data: float
    width: int = 32
    widths: tuple[int, ...] = (1, 2, 3, 4)
    patch: int = 1
    dropout: float = 0.3


class Classifier(nn.Module):
    """(x (B, C, H, W), sigma (B,)) -> logits (B, K), divided by the calibrated temperature when not training.

    Batch norm, unlike a norm at each position, keeps how strong a texture is, which tells classes apart: with the latter
    a few hundred ultrasound images, or small lesions, were hardly learnt at all.
    """

    def __init__(self, settings: ClassifierSettings) -> None:
        super().__init__()
        s = self.settings = settings
        dim = 4 * s.width
        self.noise = NoiseEmbedding(dim, frequencies=16)
        self.stem = nn.Conv2d(s.channels * s.patch**2, s.width, 3, padding=1)
        self.blocks, now = narrowing(s.width, s.widths, dim, nn.BatchNorm2d)
        self.norm = nn.BatchNorm2d(now)
        self.head = nn.Linear(now, s.classes)
        self.register_buffer("temperature", torch.ones(()))

    def features(self, x: Tensor, sigma: Tensor) -> Tensor:
        """(B, F): what the last layer sees."""
        s = self.settings
        total = (sigma.square() + s.sigma_data**2).sqrt()
        embedding = F.silu(self.noise(sigma.clamp_min(1e-3).log() / 4))
        x = (x / total[:, None, None, None]).to(memory_format=torch.channels_last)
        x = self.stem(F.pixel_unshuffle(x, s.patch) if s.patch > 1 else x)
        for block in self.blocks:
            x = block(x, embedding)
        return F.silu(self.norm(x)).mean((2, 3)).float()

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        out: Tensor = self.head(F.dropout(self.features(x, sigma), self.settings.dropout, self.training)).float()
        return out if self.training else out / self.get_buffer("temperature")
