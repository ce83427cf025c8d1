"""The audit on sets whose answer is known: equal, shifted, narrowed, mislabelled, copied."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray

from mgdm_cli.metrics.audit import Judged, Space, agreements, copies, fidelity, matched
from mgdm_cli.metrics.copies import CopyScorer, calibrate
from mgdm_cli.metrics.leaks import neighbour_test
from mgdm_cli.metrics.parts import PartScorer
from mgdm_cli.metrics.planting import KINDS

CLASSES = ("a", "b", "c")
COUNTS_REAL, COUNTS_SYNTHETIC = (200, 60, 30), (10, 150, 150)


def space(counts: tuple[int, ...], *, seed: int, shift: float = 0.0, spread: float = 1.0) -> Space:
    rng = np.random.default_rng(seed)
    label = np.repeat(np.arange(3), counts)
    centre = 4.0 * np.eye(3, 4)[label]
    return Space(centre + shift + spread * rng.normal(size=(len(label), 4)), label)


def test_the_balance_itself_is_no_distance() -> None:
    """Same classes in other shares: far apart as they stand, equal once each class counts alike."""
    from mgdm_cli.metrics.fidelity import frechet

    real, synthetic = space(COUNTS_REAL, seed=0), space(COUNTS_SYNTHETIC, seed=1)
    found = fidelity(real, synthetic, CLASSES, draws=40)
    assert frechet(real.features, synthetic.features) > 5
    assert found.frechet.value is not None
    assert found.frechet.value < 1
    assert found.frechet.n == (100, 100)  # 10 + 60 + 30 of each
    assert found.kernel.lo is not None
    assert found.kernel.hi is not None
    assert found.kernel.lo < 0 < found.kernel.hi
    assert found.kernel.ratio == pytest.approx(1.0, abs=0.7)


def test_a_shift_and_a_narrowing_are_seen_class_by_class() -> None:
    found = fidelity(space((80, 80, 80), seed=0), space((80, 80, 80), seed=1, shift=1.0, spread=0.5), CLASSES, draws=60)
    assert set(found.by_class) == set(found.spread) == set(CLASSES)
    for name in CLASSES:
        low = found.by_class[name].lo
        assert low is not None
        assert low > 0
        assert found.spread[name].hi < 0.7 * found.spread[name].real


def test_classes_without_images_are_left_out_and_small_ones_say_so() -> None:
    found = fidelity(space((50, 50, 5), seed=0), space((50, 0, 50), seed=1), CLASSES, draws=5)
    assert set(found.by_class) == {"a", "c"}
    assert found.by_class["c"].value is None
    assert "too few" in found.by_class["c"].reason


@pytest.mark.parametrize("counts", [(1, 0, 0), (1, 1, 0), (0, 0, 40)])
def test_of_too_few_common_images_nothing_is_said_but_why(counts: tuple[int, int, int]) -> None:
    """One image, two, and a set whose only class the real one lacks."""
    found = fidelity(space((50, 50, 0), seed=0), space(counts, seed=1), CLASSES, draws=5)
    for estimate in (found.frechet, found.kernel, *found.shares.values()):
        assert estimate.value is None
        assert "too few" in estimate.reason
    assert set(found.shares) == {"precision", "recall", "density", "coverage"}


def test_matched_takes_each_class_equally_often() -> None:
    first, second = np.repeat([0, 1, 2], [5, 9, 0]), np.repeat([0, 1, 2], [7, 3, 4])
    a, b = matched(first, second)
    assert np.bincount(first[a]).tolist() == np.bincount(second[b]).tolist() == [5, 3]
    assert len(set(a)) == len(a)


def judged(label: NDArray[np.int64], right: float, *, seed: int) -> Judged:
    rng = np.random.default_rng(seed)
    told = np.where(rng.random(len(label)) < right, label, (label + 1) % 3)
    return Judged(0.1 + 0.7 * np.eye(3)[told], label)


def test_agreement_compares_in_equal_shares() -> None:
    """All synthetic images are of the hard class: the real figure beside them is that of the hard class too."""
    label = np.repeat([0, 1], [900, 100])
    right = np.where(label == 0, 1.0, 0.0)
    told = np.where(right > 0, label, 2)
    real = Judged(np.eye(3)[told], label)
    found = agreements(real, judged(np.ones(200, int), 0.9, seed=0), CLASSES)
    assert [row.name for row in found] == ["all classes", "b"]
    assert found[0].real == 0.0
    assert found[0].share == pytest.approx(0.9, abs=0.06)
    assert found[0].lo < found[0].share < found[0].hi
    assert found[0].n == 200
    assert found[1] == type(found[1])("b", *(getattr(found[0], f.name) for f in dataclasses.fields(found[0])[1:]))


def test_the_difference_to_real_images_counts_how_few_they_are() -> None:
    """Labels that hold as often: between 1,000 made images and 40 real ones the gap is no finding."""
    label = np.repeat([0, 1, 2], 14)
    real = judged(label, 0.9, seed=3)
    row = agreements(real, judged(np.repeat([0, 1, 2], 330), 0.85, seed=1), CLASSES)[0]
    assert row.real is not None
    assert row.real_n == pytest.approx(len(label))
    low, high = row.difference
    assert low < row.share - row.real < high
    assert high - low > 2 * (row.hi - row.lo)
    rare = agreements(real, judged(np.zeros(300, int), 0.9, seed=1), CLASSES)[0]
    assert rare.real_n == pytest.approx(14)


def test_the_judges_skill_is_that_of_all_classes() -> None:
    """One that always says `b` is right on every image of `b`, and can tell nothing."""
    real = Judged(np.eye(3)[np.ones(90, int)], np.repeat([0, 1, 2], 30))
    row = agreements(real, Judged(np.eye(3)[np.ones(50, int)], np.ones(50, int)), CLASSES)[0]
    assert (row.share, row.real) == (1.0, 1.0)
    assert row.skill == pytest.approx(1 / 3)


def test_a_class_without_real_images_has_no_baseline() -> None:
    real = judged(np.zeros(50, int), 1.0, seed=0)
    assert agreements(real, judged(np.ones(20, int), 1.0, seed=1), CLASSES)[0].real is None


def pictures(n: int, seed: int) -> NDArray[np.float32]:
    from scipy.ndimage import gaussian_filter

    raw = np.random.default_rng(seed).normal(size=(n, 1, 28, 28))
    return np.asarray(np.clip(2.5 * gaussian_filter(raw, (0, 0, 1.5, 1.5)), -1, 1), dtype=np.float32)


@pytest.fixture(scope="module")
def scorer() -> CopyScorer:
    return CopyScorer(pictures(150, 0))


def test_copies_are_counted_and_the_test_shows_its_power(scorer: CopyScorer) -> None:
    train, fresh = pictures(150, 0), pictures(40, 2)
    fair = copies(scorer, train, pictures(110, 1), fresh)
    assert fair.auditable
    assert fair.powerful
    assert not fair.failed
    assert {p.kind for p in fair.planted} == set(KINDS)
    stolen = copies(scorer, train, pictures(110, 1), np.concatenate([fresh[:30], train[:10]]))
    assert stolen.failed
    assert stolen.flagged[30:].all()
    assert stolen.scores.nearest[30:].tolist() == list(range(10))
    assert stolen.interval[0] > 0.1


def test_one_training_image_once_more_fails_and_what_shows_the_same_is_told(scorer: CopyScorer) -> None:
    """Ten of 300 would be explained by the threshold's own chance; that a training image returns is not."""
    train, aside = pictures(150, 0), pictures(110, 1)
    found = copies(scorer, train, aside, np.concatenate([pictures(60, 2), train[:1]]))
    assert not found.beyond_chance
    assert (found.repeated, found.failed) == (1, True)
    alike = np.clip(train[:1] + 0.03 * np.random.default_rng(0).standard_normal(train[:1].shape), -1, 1)
    near = copies(scorer, train, aside, np.concatenate([pictures(60, 2), alike.astype(np.float32)]))
    assert (near.repeated, near.same, near.failed) == (0, 1, False)
    usual = copies(scorer, train, np.concatenate([aside, train[5:6]]), np.concatenate([pictures(60, 2), train[:1]]))
    assert (usual.repeated, usual.same) == (0, 1)  # where real images repeat each other, one more is no proof


def test_a_threshold_from_few_patients_is_less_sure(scorer: CopyScorer) -> None:
    train, aside, fresh = pictures(150, 0), pictures(110, 1), pictures(40, 2)
    one_each = copies(scorer, train, aside, fresh, patients=[str(i) for i in range(110)])
    few = copies(scorer, train, aside, fresh, patients=[str(i // 10) for i in range(110)])
    assert one_each.by_chance == copies(scorer, train, aside, fresh).by_chance
    assert few.by_chance > one_each.by_chance


def test_three_hundred_planted_copies_are_all_found() -> None:
    """300 of 300 (recall 99.0 % or more, 95 % bound); of 300 fresh ones 13 at most (99.9 % point, beta-binomial)."""
    train = pictures(300, 10)
    big = CopyScorer(train)
    tau = calibrate(big, pictures(200, 11)).threshold
    kinds = ("exact", "JPEG", "contrast", "flip")
    changed = [KINDS[kind](train[i::4], np.random.default_rng(i)) for i, kind in enumerate(kinds)]
    assert int(tau.flags(big.score(np.concatenate(changed)).score).sum()) == 300
    assert int(tau.flags(big.score(pictures(300, 12)).score).sum()) <= 13


def test_an_overfitted_set_fails_and_a_healthy_one_passes() -> None:
    """Training images with a little noise and shift against images of the same kind: by copies and by neighbours."""
    rng = np.random.default_rng(0)
    train, holdout = pictures(110, 20), pictures(110, 21)
    own = CopyScorer(train)
    both = CopyScorer(np.concatenate([train, holdout]))
    patients, learnt = [str(i) for i in range(220)], np.arange(220) < 110
    jittered = np.roll(train[rng.integers(0, 110, 60)], (1, -1), axis=(2, 3))
    overfitted = np.clip(jittered + rng.normal(0, 0.05, jittered.shape), -1, 1).astype(np.float32)
    for made, bad in ((overfitted, True), (pictures(60, 22), False)):
        found = copies(own, train, holdout, made)
        near = both.score(made)
        assert found.failed is bad
        assert neighbour_test(near.nearest, near.score, patients, learnt).failed is bad


def test_without_enough_images_only_the_same_pictures_count() -> None:
    train = pictures(40, 0)
    new = copies(CopyScorer(train), train, pictures(20, 1), pictures(5, 2))
    same = copies(CopyScorer(train), train, pictures(20, 1), train[:5], parts=PartScorer(train))
    assert not new.auditable
    assert (int(new.flagged.sum()), new.failed) == (0, False)
    assert (int(same.flagged.sum()), same.failed) == (5, True)
    assert same.parts is not None
    assert not same.parts.flagged.any()


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_planted_copies_keep_shape_and_type(channels: int) -> None:
    images = np.repeat(pictures(3, 0), channels, axis=1)
    for change in KINDS.values():
        out = change(images, np.random.default_rng(0))
        assert out.shape == images.shape
        assert out.dtype == np.float32
