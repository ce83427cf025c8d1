"""Precision, recall, density, coverage and Vendi score against their definitions and other implementations."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from mgdm_cli.errors import BadInput
from mgdm_cli.metrics.manifold import (
    LEAST,
    NEAR,
    coverage,
    density,
    estimate,
    interval,
    kernel_width,
    precision,
    recall,
    vendi,
    vendi_with_interval,
)

Array = NDArray[np.float64]


def cloud(n: int, *, seed: int, f: int = 3, shift: float = 0.0, width: float = 1.0) -> Array:
    return np.asarray(width * np.random.default_rng(seed).normal(size=(n, f)) + shift)


def by_neighbours(real: Array, synthetic: Array, k: int) -> dict[str, float]:
    """The four by scikit-learn's trees and plain loops, from the papers' equations."""

    def radii(x: Array) -> Array:
        return np.asarray(NearestNeighbors(n_neighbors=k + 1).fit(x).kneighbors(x)[0][:, k])

    reach, theirs = radii(real), radii(synthetic)
    inside = np.array([[np.linalg.norm(x - y) <= r for y in synthetic] for x, r in zip(real, reach, strict=True)])
    covered = np.array([[np.linalg.norm(x - y) <= r for y, r in zip(synthetic, theirs, strict=True)] for x in real])
    return {
        "precision": float(inside.any(axis=0).mean()),
        "recall": float(covered.any(axis=1).mean()),
        "density": float(inside.sum() / (k * len(synthetic))),
        "coverage": float(inside.any(axis=1).mean()),
    }


@pytest.mark.parametrize("k", [3, 5])
def test_the_four_shares_equal_their_definitions(k: int) -> None:
    real, synthetic = cloud(70, seed=0), cloud(50, seed=1, shift=0.7, width=0.8)
    expected = by_neighbours(real, synthetic, k)
    for name, share in (("precision", precision), ("recall", recall), ("density", density), ("coverage", coverage)):
        assert share(real, synthetic, k) == pytest.approx(expected[name], abs=1e-4), name


def test_what_each_share_is_about() -> None:
    """A narrow set is precise and covers little; a wide one the reverse; one elsewhere is neither."""
    real = cloud(300, seed=0)
    narrow, wide = cloud(300, seed=1, width=0.3), cloud(300, seed=2, width=4.0)
    assert precision(real, narrow) > 0.95
    assert recall(real, narrow) < 0.4
    assert precision(real, wide) < 0.4
    assert recall(real, wide) > 0.9
    assert density(real, narrow) > 1
    assert coverage(real, cloud(300, seed=3)) > 0.9
    assert coverage(real, cloud(300, seed=3, shift=9.0)) == precision(real, cloud(300, seed=3, shift=9.0)) == 0


def test_vendi_counts_kinds() -> None:
    """Three points far from each other, ten times each: three kinds. All alike: one. The order does not matter."""
    three = np.repeat(100.0 * np.eye(3), 10, axis=0)
    assert vendi(three, 1.0) == pytest.approx(3.0)
    assert vendi(np.ones((9, 4)), 1.0) == pytest.approx(1.0)
    x = cloud(40, seed=0)
    assert vendi(x[::-1], kernel_width(x)) == pytest.approx(vendi(x, kernel_width(x)))


def test_vendi_equals_its_definition() -> None:
    x, width = cloud(25, seed=0), 0.8
    kernel = np.array([[math.exp(-float((a - b) @ (a - b)) / (2 * width**2)) for a in x] for b in x]) / 25
    values = np.linalg.svd(kernel, compute_uv=False)  # of a positive matrix: its eigenvalues
    entropy = -sum(v * math.log(v) for v in values if v > 1e-12)
    assert vendi(x, width) == pytest.approx(math.exp(entropy), rel=1e-4)


def test_intervals_of_the_shares_cover() -> None:
    """Against fixed balls the share of the whole population lies in the 95 % interval in 90 % of 150 repeats or more."""
    fixed = cloud(80, seed=10_000)
    reach = NearestNeighbors(n_neighbors=NEAR + 1).fit(fixed).kneighbors(fixed)[0][:, NEAR]
    apart = np.linalg.norm(fixed[:, None] - cloud(20_000, seed=10_001, shift=0.8)[None], axis=2)
    truth = float((apart <= reach[:, None]).any(axis=0).mean())
    hits = 0
    for i in range(150):
        drawn = np.repeat(cloud(60, seed=i, shift=0.8), 2, axis=0)  # every patient twice
        apart = np.linalg.norm(fixed[:, None] - drawn[None], axis=2)
        flags = (apart <= reach[:, None]).any(axis=0).astype(float)
        patients = np.array([str(j // 2) for j in range(120)])
        lo, hi = interval(flags, patients, np.random.default_rng(i), draws=200)
        hits += lo <= truth <= hi
    assert hits / 150 >= 0.90


def test_the_interval_of_a_density_covers() -> None:
    truth, hits = 1.5, 0
    for i in range(150):
        values = np.random.default_rng(i).gamma(1.5, 1.0, 80)
        lo, hi = interval(values, np.arange(80).astype(str), np.random.default_rng(i), draws=200)
        hits += lo <= truth <= hi
    assert hits / 150 >= 0.88


def test_the_interval_of_vendi_covers() -> None:
    """The mean Vendi score of sets of this size lies in the interval in 85 to 100 % of 80 repeats."""
    truth = float(np.mean([vendi(cloud(60, seed=i), 1.0) for i in range(1000, 1150)]))
    hits = 0
    for i in range(80):
        _, lo, hi = vendi_with_interval(cloud(60, seed=i), 1.0, draws=40, seed=i)
        hits += lo <= truth <= hi
    assert hits / 80 >= 0.85


def test_patients_widen_the_interval_of_what_counts_real_images() -> None:
    real = np.repeat(cloud(30, seed=0), 8, axis=0) + 0.01 * cloud(240, seed=1)
    made = cloud(240, seed=2, shift=0.5)
    groups = [str(i // 8) for i in range(240)]
    single, grouped = (estimate("recall", real, made, groups=g, draws=100) for g in (None, groups))
    assert single.lo is not None
    assert single.hi is not None
    assert grouped.lo is not None
    assert grouped.hi is not None
    assert grouped.hi - grouped.lo > 1.7 * (single.hi - single.lo)


def test_more_of_the_same_has_the_ratio_one() -> None:
    for name in ("precision", "recall", "density", "coverage"):
        found = estimate(name, cloud(300, seed=0), cloud(300, seed=1), draws=10)
        assert found.ratio == pytest.approx(1.0, abs=0.1), name


def test_too_few_images_are_refused_with_the_reason() -> None:
    found = estimate("coverage", cloud(LEAST - 1, seed=0), cloud(50, seed=1))
    assert found.value is None
    assert "too few" in found.reason
    with pytest.raises(BadInput, match="images"):
        precision(cloud(NEAR, seed=0), cloud(50, seed=1))
    with pytest.raises(BadInput, match="shapes"):
        precision(cloud(50, seed=0), cloud(50, seed=1, f=4))
