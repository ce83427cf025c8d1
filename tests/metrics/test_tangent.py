"""The refinement undoes small moves, and never trusts itself too far."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import affine_transform, gaussian_filter, shift

from mgdm_cli.metrics.tangent import refined

SOFT = gaussian_filter(np.random.default_rng(0).normal(size=(3, 32, 32)), (0, 2, 2))
CORNER = (np.full(3, 5), np.full(3, 5))


def windows(pictures: NDArray[np.float64]) -> NDArray[np.float64]:
    flat = pictures[:, 5:27, 5:27].reshape(len(pictures), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    return np.asarray(flat / np.linalg.norm(flat, axis=1, keepdims=True))


def turned(angle_rad: float, scale: float) -> NDArray[np.float64]:
    matrix = scale * np.array([[np.cos(angle_rad), -np.sin(angle_rad)], [np.sin(angle_rad), np.cos(angle_rad)]])
    return np.stack([affine_transform(p, matrix, 15.5 - matrix @ [15.5, 15.5], order=3, mode="nearest") for p in SOFT])


def match(target: NDArray[np.float64]) -> tuple[float, float]:
    """(worst plain correlation, worst refined one) of the pictures with the target."""
    wanted = windows(target)
    plain = (windows(SOFT) * wanted).sum(axis=1)
    return float(plain.min()), float(refined(SOFT, np.arange(3), CORNER, (22, 22), wanted).min())


@pytest.mark.parametrize(
    "target",
    [
        np.stack([shift(p, (0.5, -0.4), order=3, mode="nearest") for p in SOFT]),
        turned(0.08, 1.0),
        turned(0.0, 0.93),
        turned(0.0, 1.06),
    ],
    ids=["half a pixel", "turned", "larger", "smaller"],
)
def test_a_small_move_is_undone(target: NDArray[np.float64]) -> None:
    plain, better = match(target)
    assert plain < 0.98
    assert 1 - better < 0.25 * (1 - plain)


def test_the_same_picture_matches_fully_and_an_inverted_one_not_at_all() -> None:
    assert match(SOFT)[1] == pytest.approx(1.0)
    assert match(-SOFT)[1] == pytest.approx(-1.0)


def test_a_large_move_is_not_undone() -> None:
    assert match(np.roll(SOFT, 4, axis=2))[1] < 0.8


def test_a_flat_window_matches_nothing() -> None:
    found = refined(np.ones((1, 32, 32)), np.zeros(3, int), CORNER, (22, 22), windows(SOFT))
    assert found == pytest.approx(np.zeros(3))
