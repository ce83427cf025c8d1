"""Distances within a set against brute force."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from mgdm_cli.errors import BadInput
from mgdm_cli.metrics import diversity

FEATURES = np.random.default_rng(0).normal(size=(57, 6)) + 100.0


def test_the_mean_distance_equals_brute_force() -> None:
    pairs = [float(np.linalg.norm(a - b)) for a, b in combinations(FEATURES, 2)]
    assert diversity.spread(FEATURES, draws=2)[0] == pytest.approx(np.mean(pairs), rel=1e-6)


def test_the_interval_holds_the_value_and_patients_widen_it() -> None:
    features = np.repeat(FEATURES, 4, axis=0) + np.random.default_rng(1).normal(size=(228, 6)) * 0.1
    value, lo, hi = diversity.spread(features)
    assert lo < value < hi
    groups = [str(i // 4) for i in range(228)]
    _, low, high = diversity.spread(features, groups=groups)
    assert high - low > 1.5 * (hi - lo)


def test_a_single_image_has_no_diversity() -> None:
    with pytest.raises(BadInput, match="shape"):
        diversity.spread(FEATURES[:1])
