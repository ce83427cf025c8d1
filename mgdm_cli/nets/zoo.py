"""Classic image classifiers for 28 to 128 pixels, by name: x (B, C, H, W) in [-1, 1] -> logits (B, K).

They measure what a set of training images is worth and take no other part. The small ones are written here and train on a
CPU; the large ones are MONAI's, taken from there where it is installed (extra `monai`), with fresh weights, never fetched.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Shape:
    """What a net is built for; height and width are multiples of 8."""

    channels: int
    classes: int
    size: tuple[int, int]

    @property
    def stride(self) -> int:
        """Of the first layer: it brings large images to about 32 pixels, so that a step costs much the same."""
        longer = max(self.size)
        return 1 if longer < 56 else 2 if longer < 112 else 4

    @property
    def patch(self) -> int:
        """Side of a patch of transformers: an eighth of the longer side, and no more than the shorter one."""
        return max(min(max(self.size) // 8, *self.size), 1)


def _conv(into: int, out: int, *, size: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution, batch norm, ReLU."""
    layer = nn.Conv2d(into, out, size, stride=stride, padding=size // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(out), nn.ReLU())


def _head(width: int, classes: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes)]


def lenet(s: Shape) -> nn.Module:
    """LeCun et al. 1998, figure 2, with ReLU and max pooling."""
    return nn.Sequential(
        nn.Conv2d(s.channels, 6, 5, stride=s.stride, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5, padding=2), nn.ReLU(), nn.AdaptiveAvgPool2d(5), nn.Flatten(),
        nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, s.classes),
    )  # fmt: skip


def vgg(s: Shape) -> nn.Module:
    """Simonyan & Zisserman 2015: stacks of 3x3 convolutions and pooling, here four thin ones with batch norm."""
    layers: list[nn.Module] = [_conv(s.channels, 16, stride=s.stride)]
    for into, out in ((16, 32), (32, 64), (64, 96)):
        layers += [_conv(into, out), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, _conv(96, 96), *_head(96, s.classes))


class _Residual(nn.Module):
    """Two 3x3 convolutions beside a shortcut (He et al. 2016a, figure 2)."""

    def __init__(self, into: int, out: int, stride: int) -> None:
        super().__init__()
        self.first, self.second = _conv(into, out, stride=stride), _conv(out, out)[:2]
        plain = into == out and stride == 1
        self.skip = (
            nn.Identity() if plain else nn.Sequential(nn.Conv2d(into, out, 1, stride, bias=False), nn.BatchNorm2d(out))
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.second(self.first(x)) + self.skip(x))


def _residual(s: Shape, widths: tuple[int, ...], blocks: int) -> nn.Module:
    layers, now = [_conv(s.channels, widths[0], stride=s.stride)], widths[0]
    body: list[nn.Module] = []
    for level, width in enumerate(widths):
        for index in range(blocks):
            body.append(_Residual(now, width, 2 if level and index == 0 else 1))
            now = width
    return nn.Sequential(*layers, *body, *_head(now, s.classes))


def resnet(s: Shape) -> nn.Module:
    """A residual net of eight layers (He et al. 2016a, section 4.2)."""
    return _residual(s, (16, 32, 64), 1)


def wrn(s: Shape) -> nn.Module:
    """A wide residual net 16-2 (Zagoruyko & Komodakis 2016)."""
    return _residual(s, (32, 64, 128), 2)


class _Dense(nn.Module):
    """Norm, ReLU, convolution; the output is stacked on the input (Huang et al. 2017, section 3)."""

    def __init__(self, into: int, growth: int) -> None:
        super().__init__()
        self.layer = nn.Sequential(nn.BatchNorm2d(into), nn.ReLU(), nn.Conv2d(into, growth, 3, padding=1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.layer(x)], 1)


def densenet(s: Shape) -> nn.Module:
    """A densely connected net of 22 layers, growth 12, compression one half."""
    now = 24
    layers: list[nn.Module] = [nn.Conv2d(s.channels, now, 3, stride=s.stride, padding=1, bias=False)]
    for level in range(3):
        for _ in range(6):
            layers.append(_Dense(now, 12))
            now += 12
        if level < 2:
            layers += [_conv(now, now // 2, size=1), nn.AvgPool2d(2)]
            now //= 2
    return nn.Sequential(*layers, nn.BatchNorm2d(now), nn.ReLU(), *_head(now, s.classes))


class _Inverted(nn.Module):
    """Widen, convolve each channel by itself, narrow; a shortcut where shapes agree (Sandler et al. 2018, table 1)."""

    def __init__(self, into: int, out: int, stride: int) -> None:
        super().__init__()
        wide = 4 * into
        self.layers = nn.Sequential(
            _conv(into, wide, size=1), _conv(wide, wide, stride=stride, groups=wide),
            nn.Conv2d(wide, out, 1, bias=False), nn.BatchNorm2d(out),
        )  # fmt: skip
        self.same = into == out and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return x + y if self.same else y


def mobilenet(s: Shape) -> nn.Module:
    """MobileNetV2 made for small images: seven inverted residuals."""
    layers: list[nn.Module] = [_conv(s.channels, 16, stride=s.stride)]
    for into, out, stride in (
        (16, 16, 1),
        (16, 24, 2),
        (24, 24, 1),
        (24, 40, 2),
        (40, 40, 1),
        (40, 64, 2),
        (64, 64, 1),
    ):
        layers.append(_Inverted(into, out, stride))
    return nn.Sequential(*layers, _conv(64, 128, size=1), *_head(128, s.classes))


class VisionTransformer(nn.Module):
    """Dosovitskiy et al. 2021 in small: 8 x 8 patches of the image, fewer of a long one, mean of the tokens for a head."""

    def __init__(self, s: Shape, width: int = 96, depth: int = 4, heads: int = 4) -> None:
        super().__init__()
        patch = s.patch
        self.fold = nn.Conv2d(s.channels, width, patch, stride=patch)
        tokens = (s.size[0] // patch) * (s.size[1] // patch)
        self.place = nn.Parameter(0.02 * torch.randn(1, tokens, width))
        layer = nn.TransformerEncoderLayer(width, heads, 2 * width, 0.0, "gelu", batch_first=True, norm_first=True)
        self.body = nn.TransformerEncoder(layer, depth, nn.LayerNorm(width), enable_nested_tensor=False)
        self.head = nn.Linear(width, s.classes)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.fold(x).flatten(2).transpose(1, 2)
        out: Tensor = self.head(self.body(tokens + self.place).mean(1))
        return out


def vit(s: Shape) -> nn.Module:
    """`VisionTransformer` of four layers."""
    return VisionTransformer(s)


class _First(nn.Module):
    """The first output of a net that gives several."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)[0]
        return out


def _monai(name: str) -> Callable[[Shape], nn.Module]:
    """A builder of the net that MONAI calls `name`. Raises ImportError where MONAI is missing."""

    def build(s: Shape) -> nn.Module:
        if name.startswith("resnet"):
            return _made(
                name, spatial_dims=2, n_input_channels=s.channels, num_classes=s.classes,
                conv1_t_size=3, conv1_t_stride=s.stride, no_max_pool=True,
            )  # fmt: skip
        if name.startswith("efficientnet"):
            return _made(
                "EfficientNetBN", name, spatial_dims=2, in_channels=s.channels, num_classes=s.classes, pretrained=False
            )
        if name == "ViT":
            patch = s.patch
            return _First(
                _made(
                    name, s.channels, s.size, (patch, patch), hidden_size=192, mlp_dim=384, num_layers=6, num_heads=6,
                    classification=True, num_classes=s.classes, spatial_dims=2, post_activation="none",
                )
            )  # fmt: skip
        if name == "SEResNet50":
            return _made(name, spatial_dims=2, in_channels=s.channels, num_classes=s.classes)
        return _made(name, spatial_dims=2, in_channels=s.channels, out_channels=s.classes)

    return build


def _made(name: str, *given: object, **named: object) -> nn.Module:
    from monai.networks import nets

    net: nn.Module = getattr(nets, name)(*given, **named)
    return net


SMALL: dict[str, Callable[[Shape], nn.Module]] = {
    "lenet": lenet,
    "vgg": vgg,
    "resnet": resnet,
    "wrn": wrn,
    "densenet": densenet,
    "mobilenet": mobilenet,
    "vit": vit,
}
LARGE: dict[str, Callable[[Shape], nn.Module]] = {
    "resnet18": _monai("resnet18"),
    "resnet34": _monai("resnet34"),
    "resnet50": _monai("resnet50"),
    "densenet121": _monai("DenseNet121"),
    "densenet169": _monai("DenseNet169"),
    "efficientnet-b0": _monai("efficientnet-b0"),
    "se-resnet50": _monai("SEResNet50"),
    "vit-s": _monai("ViT"),
}
NETS = {**SMALL, **LARGE}
GROUPS: dict[str, tuple[str, ...]] = {
    "quick": ("vgg", "resnet", "densenet"),
    "small": tuple(SMALL),
    "ten": (*LARGE, "wrn", "mobilenet"),
}


def try_net(name: str, shape: Shape) -> None:
    """Raises RuntimeError or ValueError where the net does not take images of this shape; as `new_net` does besides. Computes nothing."""
    with torch.device("meta"), torch.no_grad():
        NETS[name](shape).eval()(torch.zeros(2, shape.channels, *shape.size))


def new_net(name: str, shape: Shape, *, seed: int) -> nn.Module:
    """A net with fresh weights drawn from `seed`. Raises KeyError for a name that is none of `NETS`, and ImportError."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return NETS[name](shape)
