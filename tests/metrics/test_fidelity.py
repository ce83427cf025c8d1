"""Distances against their oracles (scipy's matrix root, sums by brute force) and intervals that cover."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import sqrtm

from mgdm_cli.errors import BadInput
from mgdm_cli.metrics.fidelity import Distance, frechet, halves, kernel_distance, kernel_doubt, with_interval


def cloud(n: int, f: int, *, seed: int, shift: float = 0.0) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(99).normal(size=(f, f)) / np.sqrt(f)
    return np.asarray(rng.normal(size=(n, f)) @ mix + shift)


@pytest.mark.parametrize(("n", "f"), [(300, 16), (500, 64), (40, 64)])
def test_frechet_equals_scipys_matrix_root(n: int, f: int) -> None:
    a, b = cloud(n, f, seed=0), 1.3 * cloud(n, f, seed=1, shift=0.2)
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    jitter = 0.0 if n > f else 1e-10  # sqrtm of a singular product needs a little
    root = sqrtm((cov_a + jitter * np.eye(f)) @ (cov_b + jitter * np.eye(f)))
    gap = a.mean(0) - b.mean(0)
    expected = gap @ gap + np.trace(cov_a + cov_b) - 2 * np.trace(np.real(root))
    assert frechet(a, b) == pytest.approx(expected, rel=1e-4 if n > f else 1e-3)


def test_frechet_of_known_gaussians() -> None:
    """One dimension: (difference of means)^2 + (difference of standard deviations)^2."""
    a = np.random.default_rng(0).normal(size=(1000, 1))
    a = (a - a.mean()) / a.std(ddof=1)
    assert frechet(a, 3 * a + 2) == pytest.approx(4 + 4)
    assert frechet(a, a) == pytest.approx(0, abs=1e-9)


def test_kernel_distance_equals_brute_force() -> None:
    a, b = cloud(13, 5, seed=0), cloud(17, 5, seed=1, shift=0.3)

    same_a = np.mean([(a[i] @ a[j] / 5 + 1) ** 3 for i in range(13) for j in range(13) if i != j])
    same_b = np.mean([(b[i] @ b[j] / 5 + 1) ** 3 for i in range(17) for j in range(17) if i != j])
    across = np.mean([(x @ y / 5 + 1) ** 3 for x in a for y in b])
    assert kernel_distance(a, b) == pytest.approx(same_a + same_b - 2 * across, rel=1e-12)


def test_kernel_distance_is_unbiased() -> None:
    """Equal distributions: the mean over 400 draws lies within 4 standard errors of 0."""
    drawn = [kernel_distance(cloud(20, 4, seed=2 * i), cloud(30, 4, seed=2 * i + 1)) for i in range(400)]
    assert abs(np.mean(drawn)) < 4 * np.std(drawn) / np.sqrt(400)


def test_intervals_of_the_kernel_distance_cover() -> None:
    """The distance of the two populations lies in the 95 % interval in 88 to 100 % of 80 repeats."""
    truth = float(
        np.mean([kernel_distance(cloud(1000, 3, seed=i), cloud(1000, 3, seed=50 + i, shift=0.5)) for i in range(4)])
    )
    hits = 0
    for i in range(80):
        a, b = cloud(60, 3, seed=1000 + i), cloud(60, 3, seed=5000 + i, shift=0.5)
        found = with_interval(kernel_distance, a, b, draws=60, seed=i)
        assert found.lo is not None
        assert found.hi is not None
        hits += found.lo <= truth <= found.hi
    assert hits / 80 >= 0.88


def test_intervals_of_the_frechet_distance_cover() -> None:
    """What sets of this size give on average lies in the 95 % interval in 90 % of 100 repeats or more."""
    pairs = [(cloud(60, 3, seed=2000 + i), cloud(60, 3, seed=7000 + i, shift=0.5)) for i in range(400)]
    truth = float(np.mean([frechet(a, b) for a, b in pairs]))
    hits = 0
    for i, (a, b) in enumerate(pairs[:100]):
        found = with_interval(frechet, a, b, draws=60, seed=i)
        assert found.lo is not None
        assert found.hi is not None
        hits += found.lo <= truth <= found.hi
    assert hits / 100 >= 0.90


def test_the_doubt_of_a_difference_is_its_variance() -> None:
    """Over 400 repeats, patients of five alike images and pairs from the same seed: within a quarter of what was said on average."""
    found, said = [], []
    for i in range(400):
        rng = np.random.default_rng(i)
        real = np.repeat(rng.normal(size=(12, 4)), 5, axis=0) + 0.3 * rng.normal(size=(60, 4))
        one = rng.normal(size=(40, 4))
        other = 1.1 * one + 0.2 * rng.normal(size=(40, 4)) + 0.1
        found.append(kernel_distance(real, one) - kernel_distance(real, other))
        said.append(kernel_doubt(real, one, other, groups=[str(j // 5) for j in range(60)]))
    assert np.mean(said) == pytest.approx(np.var(found), rel=0.25)
    assert kernel_doubt(real, one, one, groups=[""] * 60) == 0
    with pytest.raises(BadInput, match="same seeds"):
        kernel_doubt(real, one, other[:5], groups=[""] * 60)


def test_images_of_a_patient_do_not_make_equal_sets_look_apart() -> None:
    """Six patients of twenty alike images against as many single ones: the mean over 60 draws lies within 4 standard errors of 0."""
    found = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        real = np.repeat(rng.normal(size=(6, 8)), 20, axis=0) * 0.8 + 0.6 * rng.normal(size=(120, 8))
        groups = [str(i // 20) for i in range(120)]
        estimate = with_interval(kernel_distance, real, rng.normal(size=(120, 8)), groups=groups, draws=2)
        found.append(estimate.value or 0.0)
    assert abs(np.mean(found)) < 4 * np.std(found) / np.sqrt(60)
    assert np.mean(found) < 0.1  # counted as single images they lie 0.3 apart


def test_of_one_patient_no_distance_is_known() -> None:
    found = with_interval(kernel_distance, cloud(30, 4, seed=0), cloud(30, 4, seed=1), groups=["a"] * 30)
    assert found.value is None
    assert "one patient" in found.reason


def test_a_frechet_ratio_of_few_images_is_not_taken_for_a_distance() -> None:
    few = with_interval(frechet, cloud(60, 10, seed=0), cloud(60, 10, seed=1), draws=5)
    many = with_interval(frechet, cloud(90, 10, seed=0), cloud(90, 10, seed=1), draws=5)
    assert (few.large, many.large) == (False, True)


def test_patients_widen_the_interval() -> None:
    """Ten images of each patient are little more than one: drawing by patient must know it."""
    base = cloud(30, 4, seed=0)
    real = np.repeat(base, 10, axis=0) + 0.01 * cloud(300, 4, seed=1)
    groups = [str(i // 10) for i in range(300)]
    other = cloud(300, 4, seed=2)
    single = with_interval(frechet, real, other, draws=80)
    by_patient = with_interval(frechet, real, other, groups=groups, draws=80)
    assert single.hi is not None
    assert single.lo is not None
    assert by_patient.hi is not None
    assert by_patient.lo is not None
    assert by_patient.hi - by_patient.lo > 1.7 * (single.hi - single.lo)


@pytest.mark.parametrize("metric", [frechet, kernel_distance])
def test_ratio_is_one_for_more_of_the_same_and_large_for_others(metric: Distance) -> None:
    real = cloud(400, 8, seed=0)
    same = with_interval(metric, real, cloud(400, 8, seed=1), draws=20)
    other = with_interval(metric, real, cloud(400, 8, seed=2, shift=1.0), draws=20)
    assert same.ratio == pytest.approx(1.0, abs=0.35 if metric is frechet else 0.8)
    assert other.ratio is not None
    assert other.ratio > 20
    assert same.baseline == pytest.approx(other.baseline, rel=0.3)


def test_frechet_is_refused_below_the_feature_dimension() -> None:
    found = with_interval(frechet, cloud(300, 40, seed=0), cloud(40, 40, seed=1), draws=5)
    assert found.value is None
    assert "40 images are too few for 40 features" in found.reason


def test_a_baseline_that_cannot_be_had_says_so() -> None:
    found = with_interval(frechet, cloud(60, 40, seed=0), cloud(60, 40, seed=1), draws=5)
    assert found.value is not None
    assert found.baseline is None
    assert found.ratio is None
    assert "too few for a baseline" in found.reason


def test_halves_share_no_patient_and_are_even() -> None:
    groups = np.array([f"p{i // 3}" for i in range(90)])
    one, other = halves(groups, np.random.default_rng(0))
    assert not set(groups[one]) & set(groups[other])
    assert abs(len(one) - len(other)) <= 3
    assert len(one) + len(other) == 90


def test_the_same_seed_gives_the_same_estimate() -> None:
    a, b = cloud(60, 4, seed=0), cloud(50, 4, seed=1)
    assert with_interval(kernel_distance, a, b, draws=20) == with_interval(kernel_distance, a, b, draws=20)


def test_features_of_two_spaces_are_refused() -> None:
    with pytest.raises(BadInput, match="features of shapes"):
        frechet(cloud(10, 4, seed=0), cloud(10, 5, seed=0))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchmetrics_gives_the_same_distances() -> None:
    """Another implementation on the same features, to 1e-4."""
    torch = pytest.importorskip("torch")
    kid = pytest.importorskip("torchmetrics.image.kid", reason="torchmetrics is not installed (extra: test)")
    fid = pytest.importorskip("torchmetrics.image.fid", reason="torchmetrics is not installed (extra: test)")
    a, b = cloud(200, 12, seed=0), cloud(150, 12, seed=1, shift=0.4)
    first, second = (torch.from_numpy(x) for x in (a, b))
    theirs = fid._compute_fid(first.mean(0), first.T.cov(), second.mean(0), second.T.cov())
    assert frechet(a, b) == pytest.approx(float(theirs), rel=1e-4)
    equal = cloud(200, 12, seed=2, shift=0.4)  # theirs takes equal numbers
    assert kernel_distance(a, equal) == pytest.approx(float(kid.poly_mmd(first, torch.from_numpy(equal))), rel=1e-4)
