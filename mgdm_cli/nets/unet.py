"""The U-Net: any height and width divisible by 8, any number of channels, class-conditional with a null class."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .layers import (
    SILU,
    Attention,
    ChannelNorm,
    NoiseEmbedding,
    PreservingBlock,
    UnitConv,
    UnitLinear,
    silu,
    unit,
    zeroed,
)


@dataclass(frozen=True)
class UNetSettings:
    """`patch` folds pixels into channels before the first layer: at 64 px and above it quarters the cost of the widest maps."""

    channels: int
    classes: int
    width: int = 48
    widths: tuple[int, ...] = (1, 2, 2)
    blocks: int = 2
    attention: tuple[bool, ...] = (False, False, True)
    patch: int = 1
    dropout: float = 0.1
    warp: int = 0
    latent: int = 0  # width of the noise by which one noisy picture has many answers

    @property
    def multiple(self) -> int:
        """Height and width must be divisible by this."""
        return int(self.patch * 2 ** (len(self.widths) - 1))


class UNet(nn.Module):
    """(x (B, C, H, W), noise (B,), label (B,), warp (B, W), latent (B, L), each or None) -> (B, C, H, W). A label below 0 is "no class".

    Noise, label and warp may have one row for all of x: then every block's modulation goes into the weights of its convolution.
    """

    def __init__(self, settings: UNetSettings) -> None:
        super().__init__()
        s = self.settings = settings
        folded, dim = s.channels * s.patch**2, 4 * s.width
        self.noise = NoiseEmbedding(dim)
        self.label = nn.Embedding(s.classes + 1, dim)  # the last row is "no class"
        self.warp = UnitLinear(s.warp, dim) if s.warp else None
        # Begins at 0: a student that draws starts as the teacher, which does not.
        self.latent = (
            nn.Sequential(nn.Linear(s.latent, dim), nn.SiLU(), zeroed(nn.Linear(dim, dim))) if s.latent else None
        )
        self.stem = UnitConv(
            folded + 3, s.width, 3
        )  # + row and column, for anatomy has its place, and 1, for want of a bias
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        now, kept = s.width, [s.width]
        for level, times in enumerate(s.widths):
            for index in range(s.blocks):
                self.down.append(self._stage(now, times * s.width, level, encodes=True, last=index == s.blocks - 1))
                now = times * s.width
                kept.append(now)
            if level < len(s.widths) - 1:
                self.down.append(
                    nn.ModuleList([PreservingBlock(now, now, dim, encodes=True, dropout=s.dropout, stride=2)])
                )
                kept.append(now)
        self.middle1 = PreservingBlock(now, now, dim, encodes=True, dropout=s.dropout)
        self.middle2 = Attention(now) if s.attention[-1] else nn.Identity()
        self.middle3 = PreservingBlock(now, now, dim, encodes=True, dropout=s.dropout)
        for level, times in reversed(list(enumerate(s.widths))):
            for index in range(s.blocks + 1):
                before = now + kept.pop()
                self.up.append(self._stage(before, times * s.width, level, encodes=False, last=index == s.blocks))
                now = times * s.width
                if level and index == s.blocks:
                    self.up.append(nn.ModuleList([PreservingBlock(now, now, dim, encodes=False)]))
        self.norm = ChannelNorm(now)
        self.out = zeroed(nn.Conv2d(now, folded, 3, padding=1))

    def _stage(self, now: int, then: int, level: int, *, encodes: bool, last: bool) -> nn.ModuleList:
        s = self.settings
        # Dropout at the coarsest maps only: at the widest it costs a tenth of a step, and it is the coarse levels that memorise.
        dropout = s.dropout if level == len(s.widths) - 1 else 0.0
        block: list[nn.Module] = [PreservingBlock(now, then, 4 * s.width, encodes=encodes, dropout=dropout)]
        return nn.ModuleList(block + ([Attention(then)] if s.attention[level] and last else []))

    def embed(
        self, noise: Tensor, label: Tensor | None, warp: Tensor | None = None, latent: Tensor | None = None
    ) -> Tensor:
        """(B, D) of noise level, class, augmentation and latent."""
        if label is None:
            label = torch.full_like(noise, -1, dtype=torch.int64)
        # Each of length 1 an entry before they are summed (Karras et al. 2024, equation 88): the longer one would drown the other, and what
        # a rare noise level adds up to would be a factor of hundreds in every block.
        own = self.label(torch.where(label < 0, self.settings.classes, label))
        embedding = (unit(self.noise(noise)) + unit(own)) * 0.5**0.5
        if self.warp is not None and warp is not None:
            embedding = embedding + self.warp(warp)
        if self.latent is not None and latent is not None:
            embedding = embedding + self.latent(latent)
        return F.silu(embedding) / SILU

    def features(self, x: Tensor, noise: Tensor, label: Tensor | None = None, warp: Tensor | None = None) -> Tensor:
        """(B, D, h, w): what the encoder hands to the decoder at the coarsest level."""
        return self._encode(x, self.embed(noise, label, warp))[-1]

    def _encode(self, x: Tensor, embedding: Tensor) -> list[Tensor]:
        """The maps of every stage on the way down, and last the middle's."""
        s = self.settings
        if x.shape[-1] % s.multiple or x.shape[-2] % s.multiple:
            raise ValueError(f"height and width must be divisible by {s.multiple}, not {tuple(x.shape[-2:])}")
        x = x.to(self.stem.weight.dtype)
        x = F.pixel_unshuffle(x, s.patch) if s.patch > 1 else x
        x = self.stem(torch.cat([x, _places(x)], 1))
        kept = [x]
        for stage in self.down:
            x = _run(stage, x, embedding)
            kept.append(x)
        return [*kept, self.middle3(self.middle2(self.middle1(x, embedding)), embedding)]

    def forward(
        self,
        x: Tensor,
        noise: Tensor,
        label: Tensor | None = None,
        warp: Tensor | None = None,
        latent: Tensor | None = None,
    ) -> Tensor:
        s = self.settings
        embedding = self.embed(noise, label, warp, latent)
        *kept, x = self._encode(x, embedding)
        count = 0
        for stage in self.up:
            if count == s.blocks + 1:  # the stage after a level's blocks raises the resolution
                x = _run(stage, F.interpolate(x, scale_factor=2.0, mode="nearest"), embedding)
                count = 0
            else:
                x = _run(stage, torch.cat([x, kept.pop()], 1), embedding)
                count += 1
        x = self.out(silu(self.norm(x)))
        return F.pixel_shuffle(x, s.patch) if s.patch > 1 else x


def _places(x: Tensor) -> Tensor:
    """(B, 3, H, W): row and column of each position, -1 to 1, and 1."""
    b, _, h, w = x.shape
    rows = torch.linspace(-1, 1, h, device=x.device, dtype=x.dtype)[:, None].expand(h, w)
    columns = torch.linspace(-1, 1, w, device=x.device, dtype=x.dtype).expand(h, w)
    return torch.stack([rows, columns, torch.ones_like(rows)]).expand(b, 3, h, w)


def _run(stage: nn.Module, x: Tensor, embedding: Tensor) -> Tensor:
    assert isinstance(stage, nn.ModuleList)
    x = stage[0](x, embedding)
    for layer in stage[1:]:
        x = layer(x)
    return x
