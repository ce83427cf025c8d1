"""Layers shared by the nets: noise embedding, modulated residual block, attention."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PLAIN = 1024  # positions up to which a CPU attends by plain matrix products


def zeroed(layer: nn.Module) -> nn.Module:
    """The layer with all its parameters 0: a residual branch that starts as the identity."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


class ChannelNorm(nn.Module):
    """Layer norm over the channels of each position (Ba et al. 2016; per pixel as in Karras et al. 2024, section 2.3).

    On a CPU in bfloat16 with channels last it is much cheaper than a group norm, which was among the dearest parts of a step.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.scaled(x, self.norm.weight, self.norm.bias)

    def scaled(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """With this weight and bias (C,) in place of its own."""
        shape = self.norm.normalized_shape
        return F.layer_norm(x.permute(0, 2, 3, 1), shape, weight.to(x.dtype), bias.to(x.dtype)).permute(0, 3, 1, 2)


def silu(x: Tensor) -> Tensor:
    """SiLU of a tensor that nobody else holds: in place where no gradient will ask for it."""
    return F.silu(x, inplace=not x.requires_grad)


def modulated(norm: nn.Module, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """norm(x) (1 + scale) + shift; scale, shift (B, C), or (1, C) where all rows share them."""
    if len(scale) == 1 and isinstance(
        norm, ChannelNorm
    ):  # then they are the norm's own weight and bias: nothing is left to do
        weight, more = norm.norm.weight, 1 + scale[0]
        return norm.scaled(x, weight * more, torch.addcmul(shift[0], norm.norm.bias, more))
    # Two steps, not addcmul: on a CPU in bfloat16 that one is not vectorised where it broadcasts.
    out: Tensor = norm(x) * (1 + scale)[:, :, None, None]
    return out.add_(shift[:, :, None, None])


class NoiseEmbedding(nn.Module):
    """Sinusoids of the noise level (B,) -> (B, dim), then two linear layers."""

    def __init__(self, dim: int, *, frequencies: int = 64) -> None:
        super().__init__()
        self.register_buffer("rates", 2 * math.pi * torch.logspace(-2, 1, frequencies), persistent=False)
        self.inner = nn.Linear(2 * frequencies, dim)
        self.outer = nn.Linear(dim, dim)

    def forward(self, noise: Tensor) -> Tensor:
        angles = noise[:, None].float() * self.get_buffer("rates").float()
        waves = torch.cat([angles.sin(), angles.cos()], -1).to(self.inner.weight.dtype)
        out: Tensor = self.outer(F.silu(self.inner(waves)))
        return out


class ResBlock(nn.Module):
    """Norm, SiLU, 3x3 conv, twice; the embedding scales and shifts the second norm (Dhariwal & Nichol 2021, AdaGN).

    `norm`: channels -> layer. `begins_as_identity`: the residual branch starts at 0.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        embedding: int,
        *,
        dropout: float = 0.0,
        stride: int = 1,
        norm: Callable[[int], nn.Module] = ChannelNorm,
        begins_as_identity: bool = True,
    ) -> None:
        super().__init__()
        self.norm1 = norm(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1)
        self.modulate = nn.Linear(embedding, 2 * channels_out)
        self.norm2 = norm(channels_out)
        conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        self.conv2 = zeroed(conv2) if begins_as_identity else conv2
        self.dropout = dropout
        same = channels_in == channels_out and stride == 1
        self.skip = nn.Identity() if same else nn.Conv2d(channels_in, channels_out, 1)
        self.stride = stride

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        same = isinstance(self.norm1, nn.Identity)  # then x itself is looked at, which the skip needs as it is
        y = self.conv1(F.silu(x) if same else silu(self.norm1(x)))
        y = silu(modulated(self.norm2, y, *self.modulate(embedding).chunk(2, 1)))
        y = self.conv2(F.dropout(y, self.dropout, self.training))
        x = F.avg_pool2d(x, self.stride) if self.stride > 1 else x
        out: Tensor = y.add_(self.skip(x))
        return out


def narrowing(
    width: int, widths: Sequence[int], embedding: int, norm: Callable[[int], nn.Module]
) -> tuple[nn.ModuleList, int]:
    """(residual blocks, channels at the end): one a level, of `width` times its entry in `widths`, each but the first at half the size."""
    blocks, now = nn.ModuleList(), width
    for level, times in enumerate(widths):
        stride = 2 if level else 1
        blocks.append(ResBlock(now, times * width, embedding, stride=stride, norm=norm, begins_as_identity=False))
        now = times * width
    return blocks, now


class Attention(nn.Module):
    """Self-attention over the H * W positions, residual."""

    def __init__(self, channels: int, *, head: int = 32) -> None:
        super().__init__()
        heads = max(channels // head, 1)
        self.heads = next(n for n in range(heads, 0, -1) if channels % n == 0)  # heads of one size
        self.norm = ChannelNorm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        qkv = self.qkv(self.norm(x)).permute(0, 2, 3, 1).reshape(b, h * w, 3, self.heads, c // self.heads)
        y = _attend(*qkv.permute(2, 0, 3, 1, 4).unbind(0)).transpose(1, 2).reshape(b, h, w, c).permute(0, 3, 1, 2)
        out: Tensor = self.out(y).add_(x)
        return out


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d)) v of (B, heads, T, d). On a CPU, while T is small, the plain products are 2 to 6 times as quick as the
    flash kernel, most of all backwards."""
    if q.device.type != "cpu" or q.shape[-2] > PLAIN:
        return F.scaled_dot_product_attention(q, k, v)
    return torch.softmax((q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2), -1) @ v
