"""The oracle on fresh phantoms, also as soft and noisy as a small generator makes them; and that it can be wrong."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from mgdm_cli.data.phantom import draw
from mgdm_cli.data.phantom_oracle import UNREADABLE, oracle, oracle_scores

Pixels = NDArray[np.float32]
EACH = 20  # pictures of each grade
FIRST_SEED = 900_000  # far from the seeds that the thresholds were set on


@cache
def fresh() -> tuple[tuple[int, Pixels], ...]:
    return tuple(
        (grade, draw(FIRST_SEED + EACH * grade + n, grade, eye="left" if n % 2 else "right").pixels)
        for grade in range(4)
        for n in range(EACH)
    )


def right(change: Callable[[Pixels], NDArray[np.floating]]) -> float:
    """The share of the changed pictures that the oracle gets right."""
    return float(np.mean([oracle(change(pixels)) == grade for grade, pixels in fresh()]))


def blur(pixels: Pixels, sigma: float) -> Pixels:
    return np.asarray(ndimage.gaussian_filter(pixels, (0, sigma, sigma)), dtype=np.float32)


def noise(pixels: Pixels, sd: float) -> Pixels:
    rng = np.random.default_rng(int(1e6 * float(pixels.mean())))
    return np.asarray(pixels + rng.normal(0, sd, pixels.shape), dtype=np.float32)


def contrast(pixels: Pixels, factor: float) -> Pixels:
    return np.asarray(np.clip((pixels - 0.5) * factor + 0.5, 0, 1))


def test_fresh_phantoms() -> None:
    assert right(lambda pixels: pixels) >= 0.97


@pytest.mark.parametrize("factor", [0.95, 1.0, 1.05])
def test_soft_noisy_and_of_other_contrast(factor: float) -> None:
    assert right(lambda pixels: contrast(noise(blur(pixels, 0.6), 0.02), factor)) >= 0.95


def test_softer_still() -> None:
    assert right(lambda pixels: blur(pixels, 0.9)) >= 0.95


def test_grey_pictures() -> None:
    """The green channel alone: what the DICOM and NIfTI variants hold."""
    assert right(lambda pixels: pixels[1:2]) >= 0.97
    assert right(lambda pixels: noise(blur(pixels[1:2], 0.6), 0.02)) >= 0.95


def test_mirrored_and_in_eight_bits() -> None:
    assert right(lambda pixels: np.round(pixels[:, :, ::-1] * 255) / 255) >= 0.97


def test_blurred_away_lesions_are_not_seen() -> None:
    """The rule looks at the picture: without the detail it cannot tell grade 1 from grade 0."""
    ones = [pixels for grade, pixels in fresh() if grade == 1]
    assert np.mean([oracle(blur(pixels, 2.5)) == 1 for pixels in ones]) < 0.2


def test_lesions_of_another_picture_count() -> None:
    """Pasting the lesions of a grade 3 into a healthy eye makes it grade 3; erasing them makes it grade 0."""
    for seed in range(6):
        healthy, ill = draw(seed, 0), draw(seed, 3)
        rows, columns = np.mgrid[:64, :64]
        near = np.zeros((64, 64), dtype=bool)
        for name in ("haemorrhages", "cotton_wool", "exudates", "red_spots"):
            for x, y, radius in ill.truth[name]:
                near |= np.hypot(columns - x, rows - y) < 1.5 * radius + 2
        assert oracle(np.where(near, ill.pixels, healthy.pixels)) == 3
        assert oracle(np.where(near, healthy.pixels, ill.pixels)) == 0


def test_scores_follow_the_truth() -> None:
    for grade, pixels in fresh()[::4]:
        scores = oracle_scores(pixels)
        assert 0.6 * 64 * 64 < scores.field < 0.8 * 64 * 64
        assert (scores.blood > 60) == (grade == 3)
        assert (scores.yellow > 40) == (grade == 2) or grade == 3
        assert (scores.cotton > 20) == (grade == 3)
        assert (scores.spots >= 2) == (grade >= 1)


@pytest.mark.parametrize("size", [96, 128])
def test_larger_pictures(size: int) -> None:
    for grade in range(4):
        for seed in range(6):
            assert oracle(draw(seed, grade, size=size).pixels) == grade


def test_pictures_without_an_eye_and_noise_get_no_grade() -> None:
    """Otherwise a broken generator would be right by chance whenever the grade that garbage resembles is asked for."""
    rng = np.random.default_rng(0)
    assert oracle(np.zeros((3, 64, 64))) == oracle(np.ones((3, 64, 64))) == UNREADABLE
    assert oracle(rng.uniform(size=(3, 64, 64))) == UNREADABLE
    for _, pixels in fresh()[::8]:
        assert oracle(noise(pixels, 0.1)) == UNREADABLE
        assert oracle_scores(noise(pixels, 0.02)).noise == pytest.approx(0.02, abs=0.01)


def test_odd_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="wanted"):
        oracle(np.zeros((64, 64)))
