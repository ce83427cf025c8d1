"""The looks for leaks on sets whose answer is known: nothing learnt, a little, everything; and calm where there is nothing."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors

from mgdm_cli.errors import BadInput
from mgdm_cli.metrics.leaks import (
    authenticity,
    blind,
    membership,
    neighbour_test,
    references,
)

Array = NDArray[np.float64]


def world(
    seed: int, *, made: int = 200, copied: float = 0.0
) -> tuple[NDArray[np.int64], Array, list[str], NDArray[np.bool_]]:
    """Nearest reference and distance of `made` points; 2 x 60 references, two near each other to a patient, half learnt."""
    rng = np.random.default_rng(seed)
    centre = rng.normal(size=(60, 4))
    points = np.repeat(centre, 2, axis=0) + 0.2 * rng.normal(size=(120, 4))
    learnt = np.repeat(rng.permutation(60) < 30, 2)
    synthetic = rng.normal(size=(made, 4))
    stolen = round(copied * made)
    synthetic[:stolen] = points[rng.choice(np.flatnonzero(learnt), stolen)] + 0.01 * rng.normal(size=(stolen, 4))
    distance, nearest = NearestNeighbors(n_neighbors=1).fit(points).kneighbors(synthetic)
    return nearest[:, 0].astype(np.int64), distance[:, 0], [str(i // 2) for i in range(120)], learnt


def test_p_values_are_uniform_where_nothing_was_learnt() -> None:
    """200 audits: p < 0.05 between 3 and 19 times is the 99 % range of 5 %, and the whole law is uniform.

    A binomial test that counts every image rejects more often than that.
    """
    from scipy.stats import binomtest, kstest

    both, counted = [], 0
    looks: list[tuple[float, float]] = []
    for seed in range(200):
        nearest, distance, patients, learnt = world(seed, made=400)
        found = neighbour_test(nearest, distance, patients, learnt, permutations=199)
        both.append(found.p)
        looks.append(found.looks)
        counted += binomtest(int(learnt[nearest].sum()), len(nearest), 0.5, alternative="greater").pvalue < 0.05
    of_all = [p for p, _ in looks]
    assert 3 <= sum(p < 0.05 for p in of_all) <= 19
    assert kstest(of_all, "uniform").pvalue > 0.001
    assert sum(p < 0.05 for p in both) <= 19
    assert counted > 19


@pytest.mark.parametrize("copied", [0.05, 0.2])
def test_copies_of_learnt_images_are_noticed(copied: float) -> None:
    nearest, distance, patients, learnt = world(1, made=400, copied=copied)
    found = neighbour_test(nearest, distance, patients, learnt)
    assert found.failed
    assert found.share_closest > 0.9
    assert found.references == (60, 60)


def test_the_power_is_found_by_planting() -> None:
    """2 % of 600 images are seen among the closest 12 to 20; without any reference nothing could be."""
    nearest, distance, patients, learnt = world(2, made=600)
    found = neighbour_test(nearest, distance, patients, learnt)
    assert not found.failed
    assert found.power is not None
    assert found.power <= 0.05
    few = neighbour_test(nearest[:5] % 4, distance[:5], ["a", "b", "c", "d"], np.array([True, True, False, False]))
    assert few.power is None
    with pytest.raises(BadInput, match="one side"):
        neighbour_test(nearest, distance, patients, np.ones(120, bool))


def test_copies_of_images_that_are_no_references_are_not_counted_as_noticed() -> None:
    """With nine training images in ten outside the references, what the test says it notices it does notice, and no less."""
    nearest, distance, patients, learnt = world(2, made=600)
    usual = neighbour_test(nearest, distance, patients, learnt)
    weak = neighbour_test(nearest, distance, patients, learnt, training=10 * int(learnt.sum()))
    assert usual.power is not None
    assert weak.power is None or weak.power > usual.power
    said, found = neighbour_test(nearest, distance, patients, learnt, training=2 * int(learnt.sum())).power, 0
    assert said is not None
    rng = np.random.default_rng(0)
    for seed in range(20):
        nearest, distance, patients, learnt = world(100 + seed, made=600)
        stolen = rng.permutation(600)[: round(said * 600)]
        seen = stolen[rng.random(len(stolen)) < 0.5]
        nearest[seen], distance[seen] = rng.choice(np.flatnonzero(learnt), len(seen)), 0.0
        found += neighbour_test(nearest, distance, patients, learnt, permutations=499).failed
    assert found >= 12  # of 16 or more


def test_patients_are_exchanged_within_their_class() -> None:
    """All synthetic images are of class 1, of which three patients in four were learnt from: that alone is no leak."""
    rng = np.random.default_rng(0)
    stratum = np.repeat([0, 1], 40)
    learnt = np.concatenate([np.arange(40) < 10, np.arange(40) < 30])
    nearest, score = rng.integers(40, 80, 300).astype(np.int64), rng.random(300)
    patients = [str(i) for i in range(80)]
    assert neighbour_test(nearest, score, patients, learnt).failed
    assert not neighbour_test(nearest, score, patients, learnt, stratum=stratum).failed


def test_references_are_whole_patients_in_the_classes_of_the_holdout() -> None:
    label = np.repeat([0, 1, 2], [60, 30, 10])
    patients = [str(i // 2) for i in range(100)]
    chosen = references(label, patients, np.repeat([0, 1, 2], [20, 10, 3]))
    assert np.bincount(label[chosen]).tolist() == [20, 10, 2]
    assert all(patients.count(patients[i]) == sum(patients[j] == patients[i] for j in chosen) for i in chosen)


def test_the_area_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    learnt, held = rng.normal(0.0, 1, 80).round(1), rng.normal(0.4, 1, 120).round(1)
    expected = roc_auc_score(np.repeat([1, 0], [80, 120]), -np.concatenate([learnt, held]))
    found = membership(learnt, held)
    assert found.auc == pytest.approx(expected, abs=1e-12)
    assert found.lo < found.auc < found.hi


def test_membership_fails_an_overfitted_model_and_not_a_healthy_one() -> None:
    rng = np.random.default_rng(0)
    held = rng.normal(1.0, 0.2, 120)
    assert membership(rng.normal(0.1, 0.1, 200), held).failed
    failed = sum(membership(rng.normal(1, 0.2, 200), rng.normal(1, 0.2, 120), draws=100).failed for _ in range(100))
    assert failed <= 3
    few = membership(rng.normal(1, 0.2, 200), held[:50])
    assert few.tpr is None
    assert "99 are needed" in few.reason


def test_hits_are_those_of_patients() -> None:
    """Ten images of a patient are alike: the lowest loss of ten held-out patients says next to nothing of others."""
    rng = np.random.default_rng(1)

    def side(people: int, each: int) -> tuple[Array, list[str]]:
        shared = np.repeat(rng.normal(size=people), each) + 0.5 * rng.normal(size=people * each)
        return shared, [str(i // each) for i in range(people * each)]

    few, names = side(10, 10)
    assert membership(side(40, 10)[0], few, patients=(side(40, 10)[1], names), draws=10).tpr is None
    failed = 0
    for seed in range(60):
        (own, mine), (others, theirs) = side(40, 10), side(110, 2)
        failed += membership(own, others, patients=(mine, theirs), draws=20, seed=seed).failed
    assert failed <= 3


def test_the_interval_of_the_area_covers_by_patient() -> None:
    """Two alike losses to a patient: the area of 0.5 lies inside in 88 to 100 % of 150 repeats."""
    hits = 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        sides = [np.repeat(rng.normal(size=40), 2) + 0.01 * rng.normal(size=80) for _ in range(2)]
        groups = [str(i // 2) for i in range(80)]
        found = membership(sides[0], sides[1], patients=(groups, groups), draws=150, seed=seed)
        hits += found.lo <= 0.5 <= found.hi
    assert hits / 150 >= 0.88


def test_the_blind_control_sees_sets_that_differ_by_themselves() -> None:
    rng = np.random.default_rng(0)
    pictures = rng.normal(0, 0.3, (200, 1, 12, 12)).astype(np.float32)
    groups = [str(i) for i in range(100)]
    _, low = blind(pictures[:100], pictures[100:], patients=(groups, groups))
    assert low <= 0.5
    auc, low = blind(pictures[:100] + 0.1, pictures[100:], patients=(groups, groups))
    assert auc > 0.9
    assert low > 0.5


def test_authenticity_stands_beside_the_holdouts() -> None:
    ones = np.ones(100)
    copied = authenticity(0.1 * ones, 0.1 * ones, ones, ones, 2 * ones, ones)
    assert (copied.share, copied.share_holdout) == (0.0, 1.0)
    assert copied.low
    assert not authenticity(ones, 2 * ones, ones, ones, 2 * ones, ones).low
