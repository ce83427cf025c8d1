"""Label figures against sklearn and scipy, and against numbers worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest
from scipy.stats import entropy as scipy_entropy
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from mgdm_cli.errors import BadInput
from mgdm_cli.metrics.labels import (
    balanced_accuracy,
    clopper_pearson,
    entropy,
    macro_auroc,
    most_by_chance,
    softmax,
    wilson,
)

RNG = np.random.default_rng(0)
LABEL = RNG.integers(0, 3, 200)
P = softmax(RNG.normal(size=(200, 3)) + 1.5 * np.eye(3)[LABEL])
PREDICTED = P.argmax(axis=1)


def test_entropy_is_scipys_and_has_its_bounds() -> None:
    assert entropy(P) == pytest.approx(scipy_entropy(P, axis=1))
    assert entropy(np.array([[1.0, 0.0, 0.0]]))[0] == 0
    assert entropy(np.full((1, 3), 1 / 3))[0] == pytest.approx(np.log(3))


def test_softmax_survives_large_logits() -> None:
    assert softmax(np.array([[1e4, 0.0]])).tolist() == [[1.0, 0.0]]


def test_balanced_accuracy_and_auroc_are_sklearns() -> None:
    assert balanced_accuracy(PREDICTED, LABEL) == pytest.approx(balanced_accuracy_score(LABEL, PREDICTED))
    assert macro_auroc(P, LABEL) == pytest.approx(roc_auc_score(LABEL, P, multi_class="ovr", average="macro"))
    assert macro_auroc(P, np.zeros(200, dtype=np.int64)) is None


@pytest.mark.parametrize(("right", "n"), [(0, 40), (3, 40), (40, 40), (117, 400)])
def test_intervals_are_scipys(right: int, n: int) -> None:
    test = binomtest(right, n)
    for ours, method in ((wilson, "wilson"), (clopper_pearson, "exact")):
        theirs = test.proportion_ci(0.95, method=method)
        assert ours(right, n) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_zero_copies_in_five_hundred_leave_at_most_six_in_a_thousand() -> None:
    assert clopper_pearson(0, 500, level=0.90)[1] == pytest.approx(0.006, abs=0.0001)


def test_impossible_counts_are_refused() -> None:
    with pytest.raises(BadInput):
        wilson(5, 4)


def test_most_by_chance_counts_the_chance_of_an_estimated_threshold() -> None:
    """Sets that are like the others exceed it no more often than 1 in 100, of one patient's images neither."""
    rng = np.random.default_rng(0)
    for m, n in ((100, 300), (400, 1000)):
        most = most_by_chance(n, 0.01, estimated_on=m)
        assert most > most_by_chance(n, 0.01)
        rank = int(0.01 * (m + 1))
        over = [int((rng.random(n) <= np.sort(rng.random(m))[rank - 1]).sum()) > most for _ in range(4000)]
        assert np.mean(over) < 0.0145  # 1 % with four standard errors
    assert most_by_chance(300, 0.01, estimated_on=20) > most_by_chance(300, 0.01, estimated_on=100)


def test_most_by_chance_is_the_binomial_quantile() -> None:
    assert most_by_chance(400, 0.01) == 9
    assert most_by_chance(0, 0.01) == 0
