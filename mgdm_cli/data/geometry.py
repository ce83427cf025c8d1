"""Pixel geometry without torch: fit to a size, pad to a multiple, and what that does to spacing and affine.

Shrinking averages areas (each input pixel counts by its overlap): nothing aliases, the mean is kept. Enlarging is
linear, and only done when asked for. Pixel (r, c) covers [r, r+1) x [c, c+1): scales act about the first pixel's corner.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mgdm_cli.data.image import Form
from mgdm_cli.errors import BadInput, UsageError

Floats = NDArray[np.float32]
Affine = tuple[tuple[float, ...], ...]
How = Literal["pad", "crop", "stretch"]
HOWS: tuple[How, ...] = ("pad", "crop", "stretch")
_DIGITS = 9  # of an affine in mm: far below a pixel, and the same after the next rounding


def fit(pixels: Floats, size: tuple[int, int], how: str = "pad", *, upsample: bool = False) -> Floats:
    """(C,H,W) -> (C,*size) float32.

    "pad" keeps the aspect and fills up with each channel's darkest border value, "crop" keeps the aspect and cuts the
    centre, "stretch" does not keep it. BadInput where the image is smaller than `size` needs and `upsample` is False.
    """
    height, width = pixels.shape[1:]
    if (height, width) == tuple(size):
        return np.ascontiguousarray(pixels, dtype=np.float32)
    inner = _inner((height, width), size, how)
    if not upsample and enlarges((height, width), size, how):
        raise BadInput(f"is {height}x{width}, smaller than {size[0]}x{size[1]}", "Choose a smaller --size.")
    scaled = _scaled(pixels, inner)
    top, left = _offset(inner, size)
    if how == "crop":
        return np.ascontiguousarray(scaled[:, -top : -top + size[0], -left : -left + size[1]])
    return _framed(scaled, size, (top, left), _border(scaled))


def enlarges(old: tuple[int, int], size: tuple[int, int], how: str = "pad") -> bool:
    """Whether `fit` would have to make an image of (height, width) `old` larger."""
    inner = _inner(old, size, how)
    return old != tuple(size) and (inner[0] > old[0] or inner[1] > old[1])


def pad_to_multiple(pixels: Floats, multiple: int) -> tuple[Floats, tuple[int, int]]:
    """(C,H,W) -> ((C,H',W') with H' and W' multiples, edges repeated; (top, left) of the image inside)."""
    height, width = pixels.shape[1:]
    tall, wide = -height % multiple, -width % multiple
    top, left = tall // 2, wide // 2
    padded = np.pad(pixels, ((0, 0), (top, tall - top), (left, wide - left)), mode="edge")
    return padded, (top, left)


def resized(form: Form, size: tuple[int, int], how: str = "pad") -> Form:
    """The Form of an image of `form` after `fit`: new size, spacing, and affine with the same patient positions."""
    inner = _inner((form.height, form.width), size, how)
    rows, columns = form.height / inner[0], form.width / inner[1]  # old pixels per new pixel
    top, left = _offset(inner, size)
    spacing = None if form.spacing_mm is None else (form.spacing_mm[0] * rows, form.spacing_mm[1] * columns)
    affine = None
    if form.affine is not None:
        # new pixel centre r' lies at old centre (r' + 0.5 - top) * rows - 0.5; the affine's first axis is columns
        step = np.diag([columns, rows, 1.0, 1.0])
        step[0, 3] = (0.5 - left) * columns - 0.5
        step[1, 3] = (0.5 - top) * rows - 0.5
        affine = tuple(tuple(float(v) for v in row) for row in np.asarray(form.affine, dtype=np.float64) @ step)
    return replace(form, height=size[0], width=size[1], spacing_mm=spacing, affine=affine)


def about_origin(axes: NDArray[np.float64], height: int, width: int) -> Affine:
    """4x4 of a picture whose middle is the origin. `axes` (3,3) mm: a step along columns, rows, slices; it is rounded."""
    axes = np.round(axes, _DIGITS)
    middle = axes[:, 0] * (width - 1) / 2 + axes[:, 1] * (height - 1) / 2
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = axes, np.round(-middle, _DIGITS)
    return tuple(tuple(float(value) + 0.0 for value in row) for row in matrix)


def shared(forms: Iterable[Form], size: tuple[int, int], how: str = "pad") -> Form:
    """The first of `forms` after `fit`, without the terms that others contradict: they vary with the class, or as a class may.

    Terms are modality, body part, orientation, storage class, the numbers on disk with their slope, and of the affine its plane:
    an image knows none of them. The spacing is the median of all that have one.
    """
    first, *others = forms = list(forms)
    said = _terms(first)
    wrong: dict[str, Any] = {name: None for form in others for name, term in _terms(form).items() if term != said[name]}
    measured = Counter(replace(form, affine=None) for form in forms if form.spacing_mm is not None)
    spacings = [resized(form, size, how).spacing_mm for form in measured]
    form = resized(replace(first, **wrong), size, how)
    if not spacings:
        return form
    rows, columns = np.median(np.repeat(np.array(spacings), list(measured.values()), axis=0), axis=0).tolist()
    return _spaced(form, (rows, columns))


def _spaced(form: Form, spacing_mm: tuple[float, float]) -> Form:
    """The form with another pixel spacing, its middle where it was."""
    old, affine = form.spacing_mm, form.affine
    if affine is not None and old is not None and spacing_mm != old:
        matrix = np.asarray(affine, dtype=np.float64)
        middle = np.array([(form.width - 1) / 2, (form.height - 1) / 2, 0.0, 1.0])
        there = matrix @ middle
        matrix = matrix * [spacing_mm[1] / old[1], spacing_mm[0] / old[0], 1.0, 1.0]
        matrix[:, 3] += there - matrix @ middle
        affine = tuple(tuple(float(value) for value in row) for row in matrix)
    return replace(form, spacing_mm=spacing_mm, affine=affine)


def _terms(form: Form) -> dict[str, object]:
    """What a form says in words; of its affine the nearest axes of columns and rows, whichever way they run."""
    plane = None
    if form.affine is not None:
        plane = tuple(np.abs(np.asarray(form.affine)[:3, :2]).argmax(axis=0).tolist())
    return {
        "modality": form.modality,
        "body_part": form.body_part,
        "orientation": form.orientation,
        "storage": form.storage,
        "stored": form.stored,  # the range of one file's numbers would clip what others hold
        "affine": plane,
    }


def _inner(old: tuple[int, int], size: tuple[int, int], how: str) -> tuple[int, int]:
    """(rows, columns) that the whole old image takes in the new grid, before padding or cutting."""
    if how not in HOWS:
        raise UsageError(f"--fit: {how!r} is not known", "Choose pad, crop or stretch.")
    if min(*old, *size) < 1:
        raise UsageError(f"--size: {size[0]}x{size[1]} is no size", "Give positive numbers.")
    if how == "stretch":
        return size
    ratios = size[0] / old[0], size[1] / old[1]
    ratio = min(ratios) if how == "pad" else max(ratios)
    return max(1, round(old[0] * ratio)), max(1, round(old[1] * ratio))


def _offset(inner: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """(top, left) of the scaled image in the new grid; negative where it is cut."""
    return _half(size[0] - inner[0]), _half(size[1] - inner[1])


def _half(room: int) -> int:
    return room // 2 if room >= 0 else -(-room // 2)


def _scaled(pixels: Floats, inner: tuple[int, int]) -> Floats:
    down = _weights(pixels.shape[1], inner[0])
    across = _weights(pixels.shape[2], inner[1])
    tall = np.einsum("ij,cjk->cik", down, pixels.astype(np.float64), optimize=True)
    scaled: Floats = np.einsum("cik,lk->cil", tall, across, optimize=True).astype(np.float32)
    return scaled


def _weights(old: int, new: int) -> NDArray[np.float64]:
    """(new, old) rows that sum to 1: overlap of areas when shrinking, linear between pixel centres when enlarging."""
    if new == old:
        return np.eye(old)
    if new < old:
        edges = np.arange(new + 1) * (old / new)
        low = np.maximum(edges[:-1, None], np.arange(old)[None, :])
        high = np.minimum(edges[1:, None], np.arange(1, old + 1)[None, :])
        overlap: NDArray[np.float64] = np.maximum(high - low, 0.0)
        shares: NDArray[np.float64] = overlap / overlap.sum(axis=1, keepdims=True)
        return shares
    centre = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    distance = np.abs(centre[:, None] - np.arange(old)[None, :])
    near: NDArray[np.float64] = np.maximum(1.0 - distance, 0.0)
    return near


def _border(pixels: Floats) -> Floats:
    """(C,) the lowest value on the image's outline: air in CT, black in most pictures."""
    outline = np.concatenate([pixels[:, 0], pixels[:, -1], pixels[:, :, 0], pixels[:, :, -1]], axis=1)
    lowest: Floats = outline.min(axis=1)
    return lowest


def _framed(pixels: Floats, size: tuple[int, int], at: tuple[int, int], fill: Any) -> Floats:
    out = np.empty((pixels.shape[0], *size), dtype=np.float32)
    out[:] = np.asarray(fill, dtype=np.float32)[:, None, None]
    top, left = at
    out[:, top : top + pixels.shape[1], left : left + pixels.shape[2]] = pixels
    return out
