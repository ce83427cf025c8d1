"""Which grade a phantom eye shows, by a fixed rule on colour and area: nothing here is trained.

In colour the rule rests on G/R and B/G against their medians over the field, which light and contrast hardly move.
Blood lacks green, exudate has more of it. In grey (the green channel) it rests on darkness against a smooth surround.
Large haemorrhages are what survives an opening by a disc that no red spot holds; a red spot is a summit that curves in
all directions, which tells it from a vessel (Frangi et al. 1998 turn the same test the other way round). The optic
disc is left out, and in grey the fovea. What the rule gets right, on blurred and noisy pictures too, is held by its
tests.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

SIZE = 64  # the rule works on pictures of this size; others are resampled to it
UNREADABLE = -1  # no eye in the picture, or too noisy to grade: never the grade that was asked for
NOISE = 0.06  # standard deviation of the noise from which on a picture is unreadable
FIELD = (0.4 * SIZE**2, 0.9 * SIZE**2)  # px; a whole field has 0.7 of the picture
BLOOD_PX, YELLOW_PX, SPOTS = 24.0, 14.0, 2.0  # from here on: grade 3, grade 2, grade 1


@dataclass(frozen=True)
class Scores:
    """What the rule weighs, on a grid of 64 x 64.

    `blood` px of large haemorrhage, `yellow` px of exudate (in grey: of anything pale), `spots` red spots apart from
    the haemorrhages, `cotton` px of white spots (shown, not used; none in grey), `field` px of the illuminated field.
    """

    blood: float
    yellow: float
    spots: float
    cotton: float
    field: float
    noise: float  # standard deviation inside the field


@dataclass(frozen=True)
class _Maps:
    """What the two kinds of picture differ in: maps (64, 64) of blood at three scales, and where each counts."""

    large: Mask  # bloody enough for a haemorrhage
    pale: Mask  # pale enough for exudate or cotton wool
    white: Mask  # and of no colour
    blood: Array  # for the spots
    dark: float  # least blood of a spot
    round: float  # least curvature of a spot; vessels stay below it
    free: Mask  # where lesions can be


def oracle(pixels: NDArray[np.floating]) -> int:
    """The grade 0..3 of a picture (3, H, W) or (1, H, W) in 0..1, or UNREADABLE."""
    scores = oracle_scores(pixels)
    if not FIELD[0] < scores.field < FIELD[1] or scores.noise > NOISE:
        return UNREADABLE
    if scores.blood >= BLOOD_PX:
        return 3
    if scores.yellow >= YELLOW_PX:
        return 2
    return 1 if scores.spots >= SPOTS else 0


def oracle_scores(pixels: NDArray[np.floating]) -> Scores:
    """The areas and counts behind `oracle`; raises ValueError unless the picture is (3, H, W) or (1, H, W)."""
    from scipy import ndimage

    if pixels.ndim != 3 or pixels.shape[0] not in (1, 3):
        raise ValueError(f"a picture (3, H, W) or (1, H, W) is wanted, not {pixels.shape}")
    levels = np.clip(_resampled(pixels.astype(np.float64)), 0.0, 1.0)
    field = _field(levels[0])
    inner = ndimage.binary_erosion(field, iterations=2)
    if inner.sum() < FIELD[0] / 2:  # nothing to fit a surround to
        return Scores(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    noise = _noise(levels, inner)
    if not field.all():  # the surround is the level of black
        levels = levels - np.median(levels[:, ~field], axis=1)[:, None, None]
    levels = np.maximum(levels, 0.02)
    maps = _colour_maps(levels, inner) if len(levels) == 3 else _grey_maps(levels[0], inner)
    large = ndimage.binary_opening(maps.large & maps.free, _ball(2.3))
    spots = _bumps(maps) & ~ndimage.binary_dilation(large, _ball(2.3))
    return Scores(
        blood=float(large.sum()),
        yellow=float((maps.pale & ~maps.white & maps.free).sum()),
        spots=float(spots.sum()),
        cotton=float(ndimage.binary_opening(maps.white & maps.free, _ball(1.0)).sum()),
        field=float(field.sum()),
        noise=noise,
    )


def _colour_maps(rgb: Array, inner: Mask) -> _Maps:
    red, green, blue = rgb
    disc, _ = _disc(rgb.sum(axis=0), inner)
    free = inner & ~disc
    pale = _bloodiness(red, green, inner, 0.5) < -0.20
    return _Maps(
        large=_bloodiness(red, green, inner, 1.0) + _darkness(green, free, 1.0) > 0.72,
        pale=pale,
        white=pale & (_relative(blue, green, inner, 0.5) > 0.22),
        blood=_bloodiness(red, green, inner, 0.8),
        dark=0.2,
        round=0.034,
        free=free,
    )


def _grey_maps(green: Array, inner: Mask) -> _Maps:
    disc, (x, y) = _disc(green, inner)
    half = (SIZE - 1) / 2
    rows, columns = np.mgrid[:SIZE, :SIZE] - half
    fovea = np.hypot(columns - (x - np.sign(x) * 0.64 * half), rows - (y + 0.08 * half)) < 0.12 * half
    free = inner & ~disc & ~fovea
    return _Maps(
        large=_darkness(green, free, 1.0) > 0.48,
        pale=_darkness(green, free, 0.5) < -0.30,
        white=np.zeros_like(free),
        blood=_darkness(green, free, 0.8),
        dark=0.3,
        round=0.055,
        free=free,
    )


def _resampled(pixels: Array) -> Array:
    """(C, 64, 64), area-averaged where the size is a multiple of 64, blurred and linear otherwise."""
    from scipy import ndimage

    channels, height, width = pixels.shape
    if height % SIZE == 0 and width % SIZE == 0:
        return np.asarray(pixels.reshape(channels, SIZE, height // SIZE, SIZE, width // SIZE).mean(axis=(2, 4)))
    shrink = (0.0, max(0.0, height / SIZE - 1) / 2, max(0.0, width / SIZE - 1) / 2)
    soft = ndimage.gaussian_filter(pixels, shrink)
    return np.asarray(ndimage.zoom(soft, (1, SIZE / height, SIZE / width), order=1, grid_mode=True, mode="nearest"))


def _noise(levels: Array, inner: Mask) -> float:
    """Standard deviation of the noise, by Immerkaer's mask (1996), which is blind to slopes; the median to edges."""
    from scipy import ndimage

    mask = np.outer((1.0, -2.0, 1.0), (1.0, -2.0, 1.0)) / 6.0
    return float(1.4826 * np.median([np.abs(ndimage.convolve(level, mask)[inner]) for level in levels]))


def _field(red: Array) -> Mask:
    """The illuminated field: bright against the middle of the picture, without holes."""
    from scipy import ndimage

    middle = np.median(red[SIZE // 4 : -SIZE // 4, SIZE // 4 : -SIZE // 4])
    return np.asarray(ndimage.binary_fill_holes(red > 0.4 * middle), dtype=bool)


def _disc(light: Array, inner: Mask) -> tuple[Mask, tuple[float, float]]:
    """The optic disc with a margin, and its centre (x, y) from the middle: the brightest patch where a disc can be."""
    from scipy import ndimage

    half = (SIZE - 1) / 2
    y, x = np.mgrid[:SIZE, :SIZE] - half
    patch = ndimage.gaussian_filter(light, 3.0)
    patch[~inner | (np.abs(y) > 0.30 * half) | (np.abs(np.abs(x) - 0.5 * half) > 0.18 * half)] = 0.0
    row, column = np.unravel_index(int(np.argmax(patch)), patch.shape)
    centre = float(column - half), float(row - half)
    return np.asarray(np.hypot(y - centre[1], x - centre[0]) < 0.25 * half), centre


def _relative(above: Array, below: Array, inner: Mask, sigma: float) -> Array:
    """above / below after a blur by `sigma` px, as a share over its median in the field: 0 for plain retina."""
    from scipy import ndimage

    ratio = ndimage.gaussian_filter(above, sigma) / ndimage.gaussian_filter(below, sigma)
    return np.asarray(ratio / np.median(ratio[inner]) - 1.0)


def _bloodiness(red: Array, green: Array, inner: Mask, sigma: float) -> Array:
    """How much green is missing beside red: 0 retina, about 0.25 vessels, 0.6 blood, below 0 exudate and disc."""
    return -_relative(green, red, inner, sigma)


def _darkness(green: Array, free: Mask, sigma: float) -> Array:
    """How much darker than its surround: 0 retina, 0.4 vessels and fovea, 0.7 blood.

    The surround is a quadratic surface, fitted to log(green) twice: the second time without what stood out at first.
    """
    from scipy import ndimage

    level = np.log(ndimage.gaussian_filter(green, sigma))
    y, x = (np.mgrid[:SIZE, :SIZE] / (SIZE - 1) - 0.5).reshape(2, -1)
    basis = np.stack([np.ones_like(x), x, y, x * y, x * x, y * y], axis=1)
    flat, use = level.ravel(), free.ravel().copy()
    for cut in (0.25, np.inf):
        some = basis[use]
        fit = basis @ np.linalg.lstsq(some.T @ some, some.T @ flat[use], rcond=None)[0]
        offset = flat - fit - np.median((flat - fit)[use])
        use &= np.abs(offset) < cut
    return np.asarray(1.0 - np.exp(flat - fit)).reshape(level.shape)


def _bumps(maps: _Maps) -> Mask:
    """One true pixel for each round summit: both principal curvatures are strong there, while a vessel has but one."""
    from scipy import ndimage

    xx, yy, xy = (ndimage.gaussian_filter(maps.blood, 0.9, order=order) for order in ((0, 2), (2, 0), (1, 1)))
    roundness = -0.81 * ((xx + yy) / 2 + np.sqrt(((xx - yy) / 2) ** 2 + xy**2))
    summit = roundness == ndimage.maximum_filter(roundness, size=3)
    return np.asarray(summit & (roundness > maps.round) & (maps.blood > maps.dark) & maps.free)


def _ball(radius: float) -> Mask:
    """A disc-shaped element of the given radius in pixels."""
    reach = int(radius)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    return np.asarray(np.hypot(x, y) <= radius)
