"""Copies planted on purpose: what share of them the copy score finds is its power on these very images."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mgdm_cli.metrics.copies import Scorer, Threshold

Images = NDArray[np.float32]

NOISE = 0.10  # standard deviation in [-1, 1]: 5 % of the range
QUALITY = 50  # of JPEG
BLUR = 0.8  # pixels
ANGLE = 5.0  # degrees
CROP = 0.9  # of width and height


@dataclass(frozen=True)
class Planted:
    """Of one kind of copy: how many were found of how many planted."""

    kind: str
    found: int
    planted: int


def planted_copies(
    scorer: Scorer,
    train: Images,
    threshold: Threshold,
    *,
    kinds: Sequence[str],
    each: int = 20,
    seed: int = 0,
) -> tuple[Planted, ...]:
    """For every one of `kinds` of `KINDS`: `each` training images (N,C,H,W) so changed, and how many of them are flagged."""
    generator = np.random.default_rng(seed)
    chosen = train[np.sort(generator.permutation(len(train))[:each])]
    found = []
    for kind in kinds:
        flags = threshold.flags(scorer.score(KINDS[kind](chosen, generator)).score)
        found.append(Planted(kind, int(flags.sum()), len(chosen)))
    return tuple(found)


def _exact(x: Images, _: np.random.Generator) -> Images:
    return x


def _noise(x: Images, generator: np.random.Generator) -> Images:
    return np.asarray(np.clip(x + generator.normal(0.0, NOISE, x.shape), -1, 1), dtype=np.float32)


def _jpeg(x: Images, _: np.random.Generator) -> Images:
    """Each image through a JPEG of quality `QUALITY`; channels singly where they are neither one nor three."""
    from PIL import Image

    out = []
    for image in np.clip((x + 1) * 127.5, 0, 255).round().astype(np.uint8):
        layers = [image.transpose(1, 2, 0)] if len(image) == 3 else list(image)
        decoded = []
        for layer in layers:
            data = io.BytesIO()
            Image.fromarray(np.ascontiguousarray(layer)).save(data, "JPEG", quality=QUALITY)
            decoded.append(np.asarray(Image.open(data, formats=("JPEG",)), dtype=np.float32))
        out.append(decoded[0].transpose(2, 0, 1) if len(image) == 3 else np.stack(decoded))
    return np.asarray(np.stack(out) / 127.5 - 1, dtype=np.float32)


def _gamma(x: Images, _: np.random.Generator) -> Images:
    return np.asarray(2 * np.clip((x + 1) / 2, 0, 1) ** 0.7 - 1, dtype=np.float32)


def _contrast(x: Images, _: np.random.Generator) -> Images:
    return np.asarray(0.7 * x + 0.1, dtype=np.float32)


def _shift(x: Images, _: np.random.Generator) -> Images:
    """Moved by a tenth of the width and height, at most 3 pixels; what comes in is the edge repeated."""
    down, right = (max(1, min(3, side // 10)) for side in x.shape[2:])
    padded = np.pad(x, ((0, 0), (0, 0), (down, 0), (right, 0)), mode="edge")
    return np.ascontiguousarray(padded[:, :, : x.shape[2], : x.shape[3]])


def _flip(x: Images, _: np.random.Generator) -> Images:
    return np.ascontiguousarray(x[..., ::-1])


def _blur(x: Images, _: np.random.Generator) -> Images:
    from scipy.ndimage import gaussian_filter

    return np.asarray(gaussian_filter(x, (0, 0, BLUR, BLUR), mode="nearest"), dtype=np.float32)


def _turn(x: Images, _: np.random.Generator) -> Images:
    return _warped(x, np.deg2rad(ANGLE), 1.0)


def _crop(x: Images, _: np.random.Generator) -> Images:
    """The central nine tenths of the width and height, drawn out to the full size."""
    return _warped(x, 0.0, CROP)


def _half(x: Images, generator: np.random.Generator) -> Images:
    """The left half of each image beside the right half of another one: part of a picture."""
    out = x[generator.permutation(len(x))].copy()
    out[..., : x.shape[3] // 2] = x[..., : x.shape[3] // 2]
    return out


def _warped(x: Images, angle_rad: float, scale: float) -> Images:
    """Turned about the centre and zoomed; pixels from outside are the edge repeated."""
    from scipy.ndimage import affine_transform

    cos, sin = scale * np.cos(angle_rad), scale * np.sin(angle_rad)
    turn = np.array([[cos, -sin], [sin, cos]])
    centre = (np.array(x.shape[2:]) - 1) / 2
    planes = [
        [affine_transform(plane, turn, centre - turn @ centre, order=1, mode="nearest") for plane in image]
        for image in x
    ]
    return np.asarray(planes, dtype=np.float32)


KINDS: dict[str, Callable[[Images, np.random.Generator], Images]] = {
    "exact": _exact,
    "noise": _noise,
    "JPEG": _jpeg,
    "gamma": _gamma,
    "contrast": _contrast,
    "shift": _shift,
    "flip": _flip,
    "blur": _blur,
    "turn": _turn,
    "crop": _crop,
    "half": _half,
}
