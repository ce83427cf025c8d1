"""Phantom eyes: the same seed draws the same eye, and the truth that comes with it is where it says."""

from __future__ import annotations

import numpy as np
import pytest

from mgdm_cli.data.phantom import COUNTS, GRADES, LESIONS, Phantom, draw


def ratio(phantom: Phantom, x: float, y: float) -> float:
    """Green over red, averaged over the 3 x 3 pixels at (x, y)."""
    column, row = round(x), round(y)
    red, green, _ = phantom.pixels[:, row - 1 : row + 2, column - 1 : column + 2].mean(axis=(1, 2))
    return float(green / red)


@pytest.mark.parametrize("grade", range(4))
def test_same_seed_same_picture(grade: int) -> None:
    first, second = draw(7, grade), draw(7, grade)
    assert np.array_equal(first.pixels, second.pixels)
    assert not np.array_equal(first.pixels, draw(8, grade).pixels)
    assert first.pixels.shape == (3, 64, 64)
    assert first.pixels.dtype == np.float32
    assert first.pixels.min() >= 0.0
    assert first.pixels.max() <= 1.0


def test_every_grade_has_its_lesions() -> None:
    for grade, wanted in COUNTS.items():
        for seed in range(12):
            truth = draw(seed, grade).truth
            for name in LESIONS:
                low, high = wanted.get(name, (0, 0))
                assert low <= len(truth[name]) <= high
    assert len(GRADES) == len(COUNTS)


def test_left_eye_mirrors_the_right_one() -> None:
    right, left = draw(3, 2, eye="right"), draw(3, 2, eye="left")
    assert np.array_equal(left.pixels, right.pixels[:, :, ::-1])
    assert right.truth["disc"][0][0] > 31.5 > left.truth["disc"][0][0]  # nasal: right of the middle in a right eye
    assert right.truth["macula"][0][0] < right.truth["disc"][0][0]


def test_grade_changes_the_lesions_and_nothing_else() -> None:
    healthy, ill = draw(5, 0), draw(5, 3)
    assert healthy.truth["disc"] == ill.truth["disc"]
    away = np.ones((64, 64), dtype=bool)
    rows, columns = np.mgrid[:64, :64]
    for name in LESIONS:
        for x, y, radius in ill.truth[name]:
            away &= np.hypot(columns - x, rows - y) > 1.6 * radius + 3
    assert away.sum() > 1000
    difference = np.abs(healthy.pixels - ill.pixels).max(axis=0)
    assert difference[away].max() < 0.05  # sensor noise
    assert difference[~away].max() > 0.2


def test_truth_points_at_the_lesions() -> None:
    """Blood lacks green beside red, exudate has more of it: at the places that the truth names."""
    for seed in range(8):
        healthy, ill = draw(seed, 0), draw(seed, 3)
        for x, y, _ in ill.truth["haemorrhages"] + ill.truth["red_spots"]:
            assert ratio(ill, x, y) < 0.8 * ratio(healthy, x, y)
        beside = [ratio(ill, x, y) / ratio(healthy, x, y) for x, y, _ in ill.truth["exudates"]]
        assert np.median(beside) > 1.2


def test_lesions_keep_off_the_disc_the_fovea_and_the_rim() -> None:
    for seed in range(20):
        truth = draw(seed, 3).truth
        disc, macula = truth["disc"][0], truth["macula"][0]
        for x, y, radius in (place for name in LESIONS for place in truth[name]):
            assert np.hypot(x - 31.5, y - 31.5) + radius < 31.5
            assert np.hypot(x - disc[0], y - disc[1]) > disc[2]
            assert np.hypot(x - macula[0], y - macula[1]) > 1.5


def test_style_is_shared_by_the_eyes_of_a_patient() -> None:
    def pigment(phantom: Phantom) -> np.ndarray:
        return np.asarray(np.median(phantom.pixels[:, 12:52, 12:52].reshape(3, -1), axis=1))

    fellow = [np.abs(pigment(draw(2 * n, 0, style=n)) - pigment(draw(2 * n + 1, 0, style=n))).max() for n in range(12)]
    strangers = [np.abs(pigment(draw(2 * n, 0)) - pigment(draw(2 * n + 1, 0))).max() for n in range(12)]
    assert max(fellow) < 0.015
    assert np.median(strangers) > 0.03


@pytest.mark.parametrize("size", [32, 48, 128])
def test_other_sizes_show_the_same_eye(size: int) -> None:
    small, large = draw(4, 2, size=size), draw(4, 2, size=2 * size)
    assert large.pixels.shape == (3, 2 * size, 2 * size)
    halved = large.pixels.reshape(3, size, 2, size, 2).mean(axis=(2, 4))
    assert np.abs(halved - small.pixels).mean() < 0.02


@pytest.mark.parametrize(("grade", "size"), [(4, 64), (-1, 64), (0, 16)])
def test_refuses_what_it_cannot_draw(grade: int, size: int) -> None:
    with pytest.raises(ValueError, match="grade"):
        draw(0, grade, size=size)
