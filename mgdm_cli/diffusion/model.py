"""A net with its process around it: the denoiser that samplers, guidance and training see."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .types import WARPED_FROM, Cond, Denoise, Process


class Model(nn.Module):
    """`x0 = skip * x + out * net(in_ * x, noise, label, warp)` (Karras et al. 2022, equation 7)."""

    def __init__(self, net: nn.Module, process: Process) -> None:
        super().__init__()
        self.net = net
        self.process = process

    def forward(self, x: Tensor, sigma: Tensor, cond: Cond) -> Tensor:
        """x0 (B, C, H, W) float32 of the noisy x (B, C, H, W) at sigma (B,); sigma and cond may have one row for all."""
        skip, out, in_, noise = (c[:, None, None, None] for c in self.process.coefs(sigma))
        more = () if cond.latent is None else (cond.latent,)
        seen = (in_ * x).to(memory_format=torch.channels_last)
        raw: Tensor = self.net(seen, noise.flatten(), cond.label, _told(cond.warp, sigma), *more)
        x0: Tensor = skip * x + out * raw.float()
        return x0

    def features(self, x: Tensor, sigma: Tensor, cond: Cond) -> Tensor:
        """(B, D, h, w) of the net's encoder, for a discriminator that stands on it."""
        _, _, in_, noise = (c[:, None, None, None] for c in self.process.coefs(sigma))
        found: Tensor = self.net.features(
            (in_ * x).to(memory_format=torch.channels_last), noise.flatten(), cond.label, _told(cond.warp, sigma)
        )  # type: ignore[operator]
        return found

    def bind(self, cond: Cond) -> Denoise:
        """A denoiser with the condition inside; runs without gradients."""
        rows = cond.label if cond.warp is None else None
        same = rows is None or bool((rows == rows[:1]).all())
        # One class at one noise level: the net is told once, and not for each image.
        alike = cond.warp is None and cond.latent is None and same
        one = Cond(None if rows is None else rows[:1]) if alike else None

        @torch.no_grad()
        def denoise(x: Tensor, sigma: float) -> Tensor:
            x0: Tensor = self(x, x.new_full((len(x) if one is None else 1,), sigma), cond if one is None else one)
            return x0

        return denoise


def _told(warp: Tensor | None, sigma: Tensor) -> Tensor | None:
    """What is told of warps (B, W) at sigma (B,): none where none was learnt."""
    return None if warp is None else torch.where((sigma >= WARPED_FROM)[:, None], warp, 0)
