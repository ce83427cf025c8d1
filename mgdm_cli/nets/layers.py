"""Layers shared by the nets: noise embedding, modulated residual block, attention."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


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
        n = self.norm
        return F.layer_norm(
            x.permute(0, 2, 3, 1), n.normalized_shape, n.weight.to(x.dtype), n.bias.to(x.dtype)
        ).permute(0, 3, 1, 2)


class NoiseEmbedding(nn.Module):
    """Sinusoids of the noise level (B,) -> (B, dim), then two linear layers."""

    def __init__(self, dim: int, *, frequencies: int = 64) -> None:
        super().__init__()
        self.register_buffer("rates", 2 * math.pi * torch.logspace(-2, 1, frequencies), persistent=False)
        self.inner = nn.Linear(2 * frequencies, dim)
        self.outer = nn.Linear(dim, dim)

    def forward(self, noise: Tensor) -> Tensor:
        angles = noise[:, None].float() * self.get_buffer("rates")
        out: Tensor = self.outer(F.silu(self.inner(torch.cat([angles.sin(), angles.cos()], -1))))
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
        y = self.conv1(F.silu(self.norm1(x)))
        scale, shift = self.modulate(embedding)[:, :, None, None].chunk(2, 1)
        y = F.silu(torch.addcmul(shift, self.norm2(y), scale + 1))
        y = self.conv2(F.dropout(y, self.dropout, self.training))
        x = F.avg_pool2d(x, self.stride) if self.stride > 1 else x
        out: Tensor = self.skip(x) + y
        return out


class Attention(nn.Module):
    """Self-attention over the H * W positions, residual."""

    def __init__(self, channels: int, *, head: int = 32) -> None:
        super().__init__()
        self.heads = max(channels // head, 1)
        self.norm = ChannelNorm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(b, 3, self.heads, c // self.heads, h * w).transpose(-1, -2).unbind(1)
        y = F.scaled_dot_product_attention(q, k, v).transpose(-1, -2).reshape(b, c, h, w)
        out: Tensor = x + self.out(y)
        return out
