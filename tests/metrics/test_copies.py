"""The copy score: 0 for a copy, independent of company, a threshold that holds its promise, planted copies found."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import affine_transform

from mgdm_cli.errors import BadInput
from mgdm_cli.metrics import copies
from mgdm_cli.metrics.copies import (
    SAME,
    CopyScorer,
    _averaging,
    _detail,
    _smoothing,
    calibrate,
    percentile,
    threshold,
)

Images = NDArray[np.float32]


@lru_cache
def blobs(n: int, *, size: int = 32, channels: int = 1, seed: int = 0) -> Images:
    """n images (n,C,H,W) of a few soft spots each, in [-1,1]: alike in kind, all different."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:size, 0:size] / size
    out = np.zeros((n, channels, size, size))
    for i in range(n):
        for _ in range(12):
            cy, cx, width, tone = rng.uniform(0.1, 0.9), rng.uniform(0.1, 0.9), rng.uniform(0.03, 0.1), rng.normal(0, 1)
            out[i] += tone * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * width**2))
    return np.clip(out / 2, -1, 1).astype(np.float32)


def jpeg(images: Images, quality: int = 50) -> Images:
    out = []
    for image in images:
        data = io.BytesIO()
        Image.fromarray(np.clip((image[0] + 1) * 127.5, 0, 255).astype(np.uint8)).save(data, "JPEG", quality=quality)
        out.append(np.asarray(Image.open(data), dtype=np.float32)[None] / 127.5 - 1)
    return np.stack(out)


def shifted(images: Images, by: int) -> Images:
    return np.roll(images, (by, -by), axis=(2, 3))


def warped(images: Images, *, angle_rad: float = 0.0, scale: float = 1.0) -> Images:
    turn = scale * np.array([[np.cos(angle_rad), -np.sin(angle_rad)], [np.sin(angle_rad), np.cos(angle_rad)]])
    centre = (np.array(images.shape[2:]) - 1) / 2
    offset = centre - turn @ centre
    planes = [[affine_transform(p, turn, offset, order=1, mode="nearest") for p in image] for image in images]
    return np.asarray(planes, dtype=np.float32)


EDITS: dict[str, Callable[[Images], Images]] = {
    "exact": lambda x: x,
    "noise": lambda x: x + np.random.default_rng(9).normal(0, 0.1, x.shape).astype(np.float32),  # 5 % of the range
    "jpeg": jpeg,
    "gamma": lambda x: (2 * ((x + 1) / 2) ** 0.7 - 1).astype(np.float32),
    "contrast": lambda x: (0.6 * x + 0.2).astype(np.float32),
    "shift": lambda x: shifted(x, 3),
    "half a pixel": lambda x: ((x + np.roll(x, 1, axis=3)) / 2).astype(np.float32),
    "turn": lambda x: warped(x, angle_rad=0.07),
    "zoom": lambda x: warped(x, scale=0.93),
    "flip": lambda x: np.ascontiguousarray(x[..., ::-1]),
}


@pytest.fixture(scope="module")
def scorer() -> CopyScorer:
    return CopyScorer(blobs(250))


@pytest.fixture(scope="module")
def tau(scorer: CopyScorer) -> float:
    value = calibrate(scorer, blobs(200, seed=1)).threshold.value
    assert value is not None
    return value


@pytest.mark.parametrize("edit", EDITS)
def test_planted_copies_are_found(scorer: CopyScorer, tau: float, edit: str) -> None:
    planted = np.arange(0, 250, 12)
    found = scorer.score(EDITS[edit](blobs(250)[planted]))
    assert (found.score <= tau).mean() >= 0.95
    assert (found.nearest == planted).mean() >= 0.95


def test_new_images_are_rarely_flagged(scorer: CopyScorer, tau: float) -> None:
    """1 % is promised; more than 9 of 200 happen in 0.5 % of calibrations (beta-binomial, m = 200)."""
    assert (scorer.score(blobs(200, seed=2)).score <= tau).sum() <= 9


def test_an_exact_copy_scores_zero_and_names_its_source(scorer: CopyScorer) -> None:
    found = scorer.score(blobs(250)[[7, 123]])
    assert found.nearest.tolist() == [7, 123]
    assert np.all(found.score < 1e-3)
    assert np.all(found.ncc > 0.999999)


def test_a_score_does_not_depend_on_company_or_order(scorer: CopyScorer) -> None:
    images = blobs(9, seed=3)
    together = scorer.score(images).score
    alone = np.concatenate([scorer.score(images[i : i + 1]).score for i in range(9)])
    assert np.array_equal(together, alone)
    assert np.array_equal(together[::-1], scorer.score(images[::-1]).score)


def test_an_image_and_its_mirror_image_score_alike(scorer: CopyScorer) -> None:
    images = warped(blobs(250)[:4], angle_rad=0.08)
    mirrored = np.ascontiguousarray(images[..., ::-1])
    assert scorer.score(mirrored).score == pytest.approx(scorer.score(images).score, abs=1e-6)


def test_the_score_equals_its_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    """Brute force: every shift and mirroring of the query against the centre of every training image, unrefined."""
    monkeypatch.setattr(copies, "refined", lambda *args: np.full(len(args[-1]), -1.0))
    train, query = blobs(60, size=20), blobs(2, size=20, seed=5)
    band, seen = _detail(train), _detail(query)
    expected = []
    for image in seen:
        best = np.full(60, -2.0)
        for view in (image, image[:, ::-1]):
            for dy in range(11):
                for dx in range(11):
                    patch = view[dy : dy + 10, dx : dx + 10]
                    for j in range(60):
                        best[j] = max(best[j], np.corrcoef(patch.ravel(), band[j, 5:15, 5:15].ravel())[0, 1])
        d = np.sort(np.sqrt(2 - 2 * best))
        expected.append(d[0] / d[:50].mean())
    assert CopyScorer(train).score(query).score == pytest.approx(expected, abs=1e-6)


def test_brightness_and_shading_do_not_count(scorer: CopyScorer) -> None:
    ramp = np.linspace(-0.3, 0.3, 32, dtype=np.float32)[None, None, None, :]
    assert np.all(scorer.score(blobs(250)[:3] + ramp).score < 0.2)


def test_large_and_coloured_images_are_reduced_first() -> None:
    train = blobs(80, size=64, channels=3)
    found = CopyScorer(train).score(train[:2])
    assert _detail(train[:1]).shape == (1, 32, 32)
    assert _detail(np.zeros((1, 1, 40, 80), np.float32)).shape == (1, 16, 32)
    assert np.all(found.score < 1e-3)


def test_a_blank_image_is_no_copy(scorer: CopyScorer) -> None:
    found = scorer.score(np.zeros((1, 1, 32, 32), np.float32))
    assert found.score[0] == pytest.approx(1.0)


@pytest.mark.parametrize(("m", "alpha", "rank"), [(99, 0.01, 1), (199, 0.01, 2), (400, 0.01, 4), (19, 0.05, 1)])
def test_threshold_is_the_conformal_rank(m: int, alpha: float, rank: int) -> None:
    scores = np.random.default_rng(0).permutation(np.arange(1.0, m + 1))
    assert threshold(scores, alpha).value == rank


def test_too_few_calibration_images_give_no_threshold() -> None:
    """Then only the same picture counts; the reason says which level there would be images enough for."""
    found = threshold(np.linspace(0.5, 1, 91), 0.01)
    assert found.value is None
    assert found.reason == "91 calibration images; 99 are needed at 0.01 (--copy-alpha 0.011 would do)"
    assert threshold(np.linspace(0.5, 1, 91), 0.011).value is not None
    assert "would do" not in threshold(np.linspace(0.5, 1, 5), 0.01).reason
    assert found.flags(np.array([0.0, SAME - 0.01, SAME, 1.0])).tolist() == [True, True, False, False]


def test_the_threshold_keeps_its_level() -> None:
    """Over many calibrations with exchangeable scores the share of false alarms is alpha (k/(m+1) exactly)."""
    rng = np.random.default_rng(0)
    flagged = [
        threshold(s[:199], 0.02).flags(s[199:])[0] for s in (rng.beta(8, 2, 200) for _ in range(4000))
    ]  # expected 4/200 = 2 %, standard error 0.22 %
    assert 0.013 < np.mean(flagged) < 0.027


def test_leave_one_out_does_not_see_the_patients_own_images() -> None:
    images = blobs(120)
    twins = np.concatenate([images, images])  # each picture stands twice
    alone, _ = CopyScorer(twins).leave_one_out(limit=40)
    apart, chosen = CopyScorer(twins, groups=[str(i % 120) for i in range(240)]).leave_one_out(limit=40)
    assert np.all(alone.score < 1e-3)
    assert np.all(apart.score > SAME)
    assert np.all(apart.nearest % 120 != chosen % 120)


def test_calibration_leaves_out_real_duplicates(scorer: CopyScorer) -> None:
    """Images of the holdout that the training set holds too do not blunt the threshold."""
    new = blobs(120, seed=1)
    clean = calibrate(scorer, new)
    mixed = calibrate(scorer, np.concatenate([new, blobs(250)[:20]]))
    assert mixed.same_as_training == 20
    assert mixed.threshold.value == clean.threshold.value


def test_a_small_holdout_falls_back_to_the_training_images(scorer: CopyScorer) -> None:
    found = calibrate(scorer, blobs(50, seed=1), limit=120)
    assert found.source.startswith("training")
    assert found.threshold.value is not None
    assert found.threshold.calibrated_on == 120 - found.same_as_training


def test_percentile_counts_calibration_scores_at_or_below() -> None:
    calibration = np.array([0.2, 0.4, 0.6, 0.8])
    assert percentile(calibration, np.array([0.1, 0.4, 0.9])).tolist() == [0.0, 0.5, 1.0]


def test_other_sizes_are_refused(scorer: CopyScorer) -> None:
    with pytest.raises(BadInput, match="shape"):
        scorer.score(blobs(1, size=28))


def test_area_average_keeps_the_mean_and_gaussian_keeps_a_constant() -> None:
    matrix = _averaging(45, 32)
    assert matrix.sum(axis=1) == pytest.approx(np.ones(32))
    assert matrix.sum(axis=0) == pytest.approx(np.full(45, 32 / 45))
    assert _smoothing(9, 3.0).sum(axis=1) == pytest.approx(np.ones(9))


def test_the_gaussian_is_scipys() -> None:
    from scipy.ndimage import gaussian_filter1d

    x = np.random.default_rng(0).normal(size=32)
    assert _smoothing(32, 3.0) @ x == pytest.approx(gaussian_filter1d(x, 3.0, mode="reflect", truncate=4.0))
