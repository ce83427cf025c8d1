"""Distances within a set against brute force."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from mgdm_cli.errors import BadInput
from mgdm_cli.metrics import diversity

FEATURES = np.random.default_rng(0).normal(size=(57, 6)) + 100.0


def test_mean_distance_and_closest_pair_equal_brute_force(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diversity, "ROWS", 10)  # several blocks
    pairs = {(i, j): float(np.linalg.norm(FEATURES[i] - FEATURES[j])) for i, j in combinations(range(57), 2)}
    assert diversity.mean_distance(FEATURES) == pytest.approx(np.mean(list(pairs.values())), rel=1e-6)
    best = min(pairs, key=lambda pair: pairs[pair])
    found = diversity.closest_pair(FEATURES)
    assert (found.first, found.second) == best
    assert found.distance == pytest.approx(pairs[best])


def test_a_doubled_image_is_found_at_distance_zero() -> None:
    features = np.concatenate([FEATURES, FEATURES[20:21]])
    assert diversity.closest_pair(features) == diversity.Closest(20, 57, 0.0)


def test_the_interval_holds_the_value_and_patients_widen_it() -> None:
    features = np.repeat(FEATURES, 4, axis=0) + np.random.default_rng(1).normal(size=(228, 6)) * 0.1
    value, lo, hi = diversity.spread(features)
    assert lo < value < hi
    groups = [str(i // 4) for i in range(228)]
    _, low, high = diversity.spread(features, groups=groups)
    assert high - low > 1.5 * (hi - lo)


def test_a_single_image_has_no_diversity() -> None:
    with pytest.raises(BadInput, match="shape"):
        diversity.mean_distance(FEATURES[:1])
