"""Layers shared by the nets: noise embedding, residual blocks, attention."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PLAIN = 1024  # positions up to which a CPU attends by plain matrix products
SILU = 0.596  # root mean square of SiLU of unit noise (Karras et al. 2024, equation 81)
BRANCH = 0.3  # share of the residual branch in a sum (the same, configuration G)
LENGTH = 5.0  # of the stored weights at first: the longer, the less an optimizer's step turns them
EPS = 1e-4


def zeroed(layer: nn.Module) -> nn.Module:
    """The layer with all its parameters 0: a residual branch that starts as the identity."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


class ChannelNorm(nn.Module):
    """Layer norm over the channels of each position (Ba et al. 2016; per pixel as in Karras et al. 2024, section 2.3).

    On a CPU in bfloat16 with channels last it is much cheaper than a group norm. `learnt`: with a weight and a bias of its own.
    """

    def __init__(self, channels: int, *, learnt: bool = True) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, elementwise_affine=learnt)

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = (None if part is None else part.to(x.dtype) for part in (self.norm.weight, self.norm.bias))
        return F.layer_norm(x.permute(0, 2, 3, 1), self.norm.normalized_shape, weight, bias).permute(0, 3, 1, 2)


class Unit(nn.Module):
    """Weights (C', ...) that count with the length `gain` for each output, however long the stored ones are.

    Weight normalisation (Salimans & Kingma 2016) as in Karras et al. (2024, equation 47): inputs of variance 1 give outputs of variance
    gain^2, at the start and after any training, so that no norm has to look at the maps.
    """

    def __init__(self, *shape: int, gain: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(shape) * LENGTH * math.prod(shape[1:]) ** -0.5)
        self.gain, self.settled = gain, False

    def counted(self) -> Tensor:
        """The weights that count."""
        if self.settled and not self.weight.requires_grad:
            return self.weight
        length = torch.linalg.vector_norm(self.weight, dim=tuple(range(1, self.weight.dim())), keepdim=True)
        weight: Tensor = self.weight * (self.gain / (length + EPS))
        return weight

    @torch.no_grad()
    def settle(self) -> None:
        """Store the weights that count, so that inference need not normalise them anew. Training goes on from them as from the old ones."""
        self.weight.copy_(self.counted())
        self.settled = True


class UnitConv(Unit):
    """Convolution without bias."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, *, stride: int = 1, gain: float = 1.0) -> None:
        super().__init__(channels_out, channels_in, kernel, kernel, gain=gain)
        self.stride, self.padding = stride, kernel // 2

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        """x (B, C, H, W); its output times `scale` (B, C'), or (1, C') where all rows share it: then the weights take it."""
        weight = self.counted()
        if scale is not None and len(scale) == 1:
            weight, scale = weight * scale[0, :, None, None, None], None
        y = F.conv2d(x, weight, None, self.stride, self.padding)
        return y if scale is None else y * scale[:, :, None, None]


class UnitLinear(Unit):
    """Linear layer without bias: (B, D) -> (B, D')."""

    def __init__(self, entries_in: int, entries_out: int) -> None:
        super().__init__(entries_out, entries_in)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.counted())


def patch_of(size: Sequence[int]) -> int:
    """Pixels a side that a net for images of (height, width) folds into channels: from 64 on it quarters the widest maps."""
    return 2 if max(size) >= 64 else 1


def unit(x: Tensor) -> Tensor:
    """x (B, D) at a root mean square of 1 over each row."""
    out: Tensor = F.normalize(x.float(), dim=1, eps=EPS) * x.shape[1] ** 0.5
    return out.to(x.dtype)


def settle(net: nn.Module) -> None:
    """Settle all of a net's layers whose weights have a length."""
    for layer in net.modules():
        if isinstance(layer, Unit):
            layer.settle()


def silu(x: Tensor) -> Tensor:
    """SiLU of a tensor that nobody else holds: in place where no gradient will ask for it."""
    return F.silu(x, inplace=not x.requires_grad)


class NoiseEmbedding(nn.Module):
    """Sinusoids of the noise level (B,) -> (B, dim), then two linear layers."""

    def __init__(self, dim: int, *, frequencies: int = 64) -> None:
        super().__init__()
        self.register_buffer("rates", self.rates_of(frequencies), persistent=False)
        self.inner = nn.Linear(2 * frequencies, dim)
        self.outer = nn.Linear(dim, dim)

    def forward(self, noise: Tensor) -> Tensor:
        angles = noise[:, None].float() * self.get_buffer("rates").float()
        waves = torch.cat([angles.sin(), angles.cos()], -1).to(self.inner.weight.dtype)
        out: Tensor = self.outer(F.silu(self.inner(waves)))
        return out

    @staticmethod
    def rates_of(frequencies: int) -> Tensor:
        """(frequencies,): radians for each unit of noise level."""
        return 2 * math.pi * torch.logspace(-2, 1, frequencies)


class PreservingBlock(nn.Module):
    """Magnitude-preserving residual block (Karras et al. 2024, section 2.3, configuration G): SiLU, 3x3 conv, twice, on maps of variance 1.

    The embedding scales the first convolution's output: by 1 at first, and as far from it as `gain` has learnt. `encodes`: the maps are
    brought to variance 1 first, once on the way down; on the way up the weights alone keep them there.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        embedding: int,
        *,
        encodes: bool,
        dropout: float = 0.0,
        stride: int = 1,
    ) -> None:
        super().__init__()
        self.norm = ChannelNorm(channels_in, learnt=False) if encodes else nn.Identity()
        self.conv1 = UnitConv(channels_in, channels_out, 3, stride=stride, gain=1 / SILU)
        self.modulate, self.gain = UnitLinear(embedding, channels_out), nn.Parameter(torch.zeros(()))
        size = math.hypot(1 - BRANCH, BRANCH)  # equation 88: a sum that keeps the variance of its parts
        self.conv2 = UnitConv(channels_out, channels_out, 3, gain=BRANCH / size / SILU)
        self.dropout, self.stride, self.kept = dropout, stride, (1 - BRANCH) / size
        same = channels_in == channels_out and stride == 1
        self.skip = None if same else UnitConv(channels_in, channels_out, 1, gain=self.kept)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        x = self.norm(x)
        y = silu(self.conv1(F.silu(x), 1 + self.gain * self.modulate(embedding)))
        y = self.conv2(F.dropout(y, self.dropout, self.training))
        x = F.avg_pool2d(x, self.stride) if self.stride > 1 else x
        out: Tensor = y.add_(x, alpha=self.kept) if self.skip is None else y.add_(self.skip(x))
        return out


class ResBlock(nn.Module):
    """Norm, SiLU, 3x3 conv, twice; the embedding scales and shifts the second norm (Dhariwal & Nichol 2021, AdaGN).

    `norm`: channels -> layer. Of the classifiers and critics.
    """

    def __init__(
        self, channels_in: int, channels_out: int, embedding: int, *, norm: Callable[[int], nn.Module], stride: int = 1
    ) -> None:
        super().__init__()
        self.norm1 = norm(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1)
        self.modulate = nn.Linear(embedding, 2 * channels_out)
        self.norm2 = norm(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        same = channels_in == channels_out and stride == 1
        self.skip = nn.Identity() if same else nn.Conv2d(channels_in, channels_out, 1)
        self.stride = stride

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        same = isinstance(self.norm1, nn.Identity)  # then x itself is looked at, which the skip needs as it is
        y = self.conv1(F.silu(x) if same else silu(self.norm1(x)))
        scale, shift = self.modulate(embedding).chunk(2, 1)
        # Two steps, not addcmul: on a CPU in bfloat16 that one is not vectorised where it broadcasts.
        y = (self.norm2(y) * (1 + scale)[:, :, None, None]).add_(shift[:, :, None, None])
        y = self.conv2(silu(y))
        if self.stride > 1:  # of an odd side the convolution keeps the last row as well
            x = F.avg_pool2d(x, self.stride, ceil_mode=True)
        out: Tensor = y.add_(self.skip(x))
        return out


def narrowing(
    width: int, widths: Sequence[int], embedding: int, norm: Callable[[int], nn.Module]
) -> tuple[nn.ModuleList, int]:
    """(residual blocks, channels at the end): one a level, of `width` times its entry in `widths`, each but the first at half the size."""
    blocks, now = nn.ModuleList(), width
    for level, times in enumerate(widths):
        stride = 2 if level else 1
        blocks.append(ResBlock(now, times * width, embedding, stride=stride, norm=norm))
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
