"""Measures against scikit-learn, and differences whose intervals cover and whose verdicts are calm."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import cohen_kappa_score, f1_score, recall_score

from mgdm_cli.errors import BadInput
from mgdm_cli.metrics.utility import (
    MEASURES,
    are_grades,
    calibration_error,
    gain,
    macro_f1,
    mcnemar,
    measured,
    quadratic_kappa,
    worst_class,
)

Array = NDArray[np.float64]
NETS = ("a", "b", "c")


def shares(n: int, *, seed: int, sharp: float = 2.0) -> tuple[Array, NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 4, n)
    logits = rng.normal(size=(n, 4)) + sharp * np.eye(4)[label]
    exp = np.exp(logits)
    return exp / exp.sum(axis=1, keepdims=True), label


def test_measures_equal_scikit_learn() -> None:
    p, label = shares(200, seed=0)
    told = p.argmax(axis=1)
    assert macro_f1(p, label) == pytest.approx(f1_score(label, told, average="macro"))
    assert quadratic_kappa(p, label) == pytest.approx(cohen_kappa_score(label, told, weights="quadratic"))
    assert worst_class(p, label) == pytest.approx(recall_score(label, told, average=None).min())
    assert MEASURES["balanced_accuracy"](p, label) == pytest.approx(recall_score(label, told, average="macro"))


def test_calibration_error_of_known_cases() -> None:
    """Always sure and right: 0. Always sure and wrong in a quarter: 1/4. Of four equal classes at chance: 0."""
    label = np.arange(400) % 4
    assert calibration_error(np.eye(4)[label], label) == 0
    told = np.where(np.arange(400) < 100, (label + 1) % 4, label)
    assert calibration_error(np.eye(4)[told], label) == pytest.approx(0.25)
    assert calibration_error(np.full((400, 4), 0.25), label) == pytest.approx(0.0)


def test_torchmetrics_gives_the_same_calibration_error() -> None:
    torch = pytest.importorskip("torch")
    theirs = pytest.importorskip(
        "torchmetrics.functional.classification", reason="torchmetrics is not installed (extra: test)"
    )
    p, label = shares(300, seed=1)
    expected = theirs.multiclass_calibration_error(torch.tensor(p), torch.tensor(label), 4, n_bins=15)
    assert calibration_error(p, label) == pytest.approx(float(expected), abs=1e-4)


def cells(seed: int, *, right: float, net: float, start: float, n: int = 90) -> tuple[Array, NDArray[np.int64]]:
    """(3 nets, 3 seeds, n, 3) one-hot answers: right with a chance that differs by net, by cell and by image."""
    rng = np.random.default_rng(seed)
    label = np.arange(n) % 3
    chance = right + net * rng.normal(size=(3, 1, 1)) + start * rng.normal(size=(3, 3, 1)) + 0.15 * rng.normal(size=n)
    hit = rng.random((3, 3, n)) < chance
    return np.eye(3)[np.where(hit, label, (label + 1) % 3)], label


def test_nothing_is_found_where_nothing_is() -> None:
    """Two arms of the same law: the interval holds 0 in 94 % of 150 repeats or more (the bootstrap is not narrow)."""
    calm = 0
    for i in range(150):
        first, label = cells(2 * i, right=0.7, net=0.02, start=0.03)
        second, _ = cells(2 * i + 1, right=0.7, net=0.02, start=0.03)
        calm += gain("x", "real", first, second, label, NETS, draws=300, seed=i).verdict == "no evidence"
    assert calm / 150 >= 0.94


def test_nets_that_differ_are_no_evidence_of_others() -> None:
    """Two nets or three of which each gains or loses by its own nature, on many test images: false verdicts are 1 in 20 or few more."""
    rng = np.random.default_rng(0)
    for nets in (2, 3):
        false = 0
        for i in range(100):
            label = np.arange(3000) % 3
            own = 0.8 + 0.03 * rng.normal(size=(nets, 1, 1)) + 0.01 * rng.normal(size=(nets, 2, 1))
            hits = [rng.random((nets, 2, 3000)) < chance for chance in (own, np.full_like(own, 0.8))]
            first, second = (np.eye(3)[np.where(hit, label, (label + 1) % 3)] for hit in hits)
            false += gain("x", "real", first, second, label, NETS[:nets], draws=100, seed=i).verdict != "no evidence"
        assert false <= 12


def test_a_gain_is_found_and_its_reverse_is_a_loss() -> None:
    first, label = cells(0, right=0.9, net=0.01, start=0.01)
    second, _ = cells(1, right=0.6, net=0.01, start=0.01)
    up = gain("x", "real", first, second, label, NETS)
    down = gain("real", "x", second, first, label, NETS)
    assert (up.verdict, down.verdict) == ("helps", "hurts")
    assert up.value == pytest.approx(-down.value)
    assert up.value == pytest.approx(
        measured(first, label)["balanced_accuracy"] - measured(second, label)["balanced_accuracy"]
    )
    assert up.lo < up.lo_training < up.value < up.hi_training < up.hi
    assert [row.net for row in up.nets] == list(NETS)
    assert np.mean([row.value for row in up.nets]) == pytest.approx(up.value)
    assert up.p < 0.05
    assert up.better > up.worse


def test_one_seed_is_no_evidence() -> None:
    first, label = cells(0, right=0.95, net=0.0, start=0.0)
    second, _ = cells(1, right=0.3, net=0.0, start=0.0)
    assert gain("x", "real", first[:, :1], second[:, :1], label, NETS).verdict == "no evidence"
    assert gain("x", "real", first[:1], second[:1], label, NETS[:1]).verdict == "no evidence"  # nor is one net
    assert gain("x", "real", first, second, label, NETS).verdict == "helps"


def test_kappa_is_given_for_grades_alone() -> None:
    p, label = shares(60, seed=0)
    assert set(measured(p[None, None], label, ordered=False)) == set(MEASURES) - {"quadratic_kappa"}
    assert set(measured(p[None, None], label)) == set(MEASURES)


@pytest.mark.parametrize(
    ("classes", "grades"),
    [
        (("grade0", "grade1", "grade2"), True),
        (("Stage I", "Stage II", "Stage III"), True),
        (("KL-0", "KL-1", "KL-2", "KL-3", "KL-4"), True),
        (("0", "1", "2"), False),  # as often the index of a class
        (("grade0", "grade1"), False),  # two classes have one distance
        (("benign", "malignant", "normal"), False),
        (("grade0", "grade1", "healthy"), False),
    ],
)
def test_grades_are_told_from_their_names(classes: tuple[str, ...], grades: bool) -> None:
    assert are_grades(classes) is grades


def test_patients_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    label = np.repeat(np.arange(30) % 2, 6)
    hit = np.repeat(rng.random(30) < 0.8, 6)
    first = np.eye(2)[np.where(hit, label, 1 - label)][None, None].repeat(2, 0).repeat(2, 1)
    second = np.eye(2)[1 - label][None, None].repeat(2, 0).repeat(2, 1)
    one = gain("x", "y", first, second, label, ("a", "b"))
    many = gain("x", "y", first, second, label, ("a", "b"), patients=[str(i // 6) for i in range(180)])
    assert many.hi - many.lo > 1.8 * (one.hi - one.lo)


def test_mcnemar_is_the_exact_binomial() -> None:
    label = np.zeros(20, dtype=np.int64)
    first, second = np.eye(2)[np.array([0] * 10 + [1] * 10)], np.eye(2)[np.array([1] * 9 + [0] * 2 + [1] * 9)]
    better, worse, p = mcnemar(first, second, label)
    assert (better, worse) == (9, 1)
    assert p == pytest.approx(2 * (1 + 10) / 1024)
    assert mcnemar(first, first, label) == (0, 0, 1.0)


def test_cells_that_do_not_match_are_refused() -> None:
    first, label = cells(0, right=0.9, net=0.0, start=0.0)
    with pytest.raises(BadInput, match="shapes"):
        gain("x", "y", first, first[:, :2], label, NETS)
