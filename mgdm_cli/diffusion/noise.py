"""Noise that belongs to an image, not to a batch: one CPU generator per seed, drawn at full shape, then moved."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Noise:
    """A stream of unit noise for each of `seeds`; row i depends on seeds[i] alone, whatever its neighbours or the device.

    torch's CPU generator takes the low 32 bits of a seed: two seeds that are alike in those give the same noise.
    """

    def __init__(self, seeds: Sequence[int], shape: tuple[int, int, int], device: torch.device) -> None:
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.shape = shape
        self.device = device

    def draw(self) -> Tensor:
        """The next noise (B, C, H, W), float32."""
        # Drawn one image at a time: torch.randn(n) is not a prefix of a longer draw, so a joint draw would depend on the batch.
        rows = [torch.randn(self.shape, generator=generator) for generator in self.generators]
        return torch.stack(rows).to(self.device)

    def like(self, x: Tensor) -> Tensor:
        """The next noise, for a sampler's `randn_like`."""
        if x.shape != (len(self.generators), *self.shape):
            raise ValueError(
                f"noise of shape {(len(self.generators), *self.shape)} cannot serve x of shape {tuple(x.shape)}"
            )
        return self.draw()
