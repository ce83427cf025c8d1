"""The look at quarters finds what repeats a part of a training image, and leaves new images alone."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from mgdm_cli.metrics.audit import copies
from mgdm_cli.metrics.copies import CopyScorer, Threshold, calibrate
from mgdm_cli.metrics.parts import PartScorer
from mgdm_cli.metrics.planting import KINDS


def pictures(n: int, seed: int) -> NDArray[np.float32]:
    raw = np.random.default_rng(seed).normal(size=(n, 1, 28, 28))
    return np.asarray(np.clip(2.5 * gaussian_filter(raw, (0, 0, 1.2, 1.2)), -1, 1), dtype=np.float32)


TRAIN, ASIDE, FRESH = pictures(150, 0), pictures(110, 1), pictures(40, 2)


@pytest.fixture(scope="module")
def scorer() -> PartScorer:
    return PartScorer(TRAIN)


@pytest.fixture(scope="module")
def threshold(scorer: PartScorer) -> Threshold:
    return calibrate(scorer, ASIDE).threshold


def test_half_a_copy_is_found_here_and_not_by_the_look_at_the_whole(scorer: PartScorer, threshold: Threshold) -> None:
    halves = KINDS["half"](TRAIN[:20], np.random.default_rng(0))
    assert int(threshold.flags(scorer.score(halves).score).sum()) >= 18
    whole = CopyScorer(TRAIN)
    assert int(calibrate(whole, ASIDE).threshold.flags(whole.score(halves).score).sum()) <= 10


def test_new_images_are_left_alone(scorer: PartScorer, threshold: Threshold) -> None:
    """Of 40 new ones 4 at most: the 99.9 % point at 1 %, for a threshold from 110 images."""
    assert int(threshold.flags(scorer.score(FRESH).score).sum()) <= 4


def test_a_quarter_names_the_image_that_it_comes_from(scorer: PartScorer) -> None:
    mixed = FRESH[:4].copy()
    mixed[:, :, 14:, 14:] = TRAIN[[3, 50, 77, 149], :, 14:, 14:]
    assert scorer.score(mixed).nearest.tolist() == [3, 50, 77, 149]


def test_odd_sizes_are_cut_into_quarters_that_cover_them() -> None:
    odd = pictures(60, 3)[:, :, :27, :25]
    assert PartScorer(odd).score(odd[:3]).nearest.tolist() == [0, 1, 2]


def test_a_set_of_half_copies_fails_the_audit_by_its_parts(scorer: PartScorer) -> None:
    halves = KINDS["half"](TRAIN[:30], np.random.default_rng(1))
    found = copies(CopyScorer(TRAIN), TRAIN, ASIDE, np.concatenate([FRESH[:20], halves]), parts=scorer)
    assert found.parts is not None
    assert found.parts.beyond_chance
    assert found.failed
    assert not copies(CopyScorer(TRAIN), TRAIN, ASIDE, FRESH, parts=scorer).failed
