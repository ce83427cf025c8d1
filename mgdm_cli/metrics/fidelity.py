"""How far a synthetic set lies from the real one in a feature space: two distances, each with interval and baseline.

Sets are features (N, F); all statistics are in double precision. A distance alone says little: it depends on the
features, and the Frechet distance also on the number of images. So each comes with the same distance between two
halves of the real images, and with the ratio of the two at equal numbers: about 1 where the synthetic images might be
one more sample of the real ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mgdm_cli.errors import BadInput

Array = NDArray[np.float64]
Indices = NDArray[np.int64]
Distance = Callable[[Array, Array], float]

LEVEL = 0.95  # of every interval
HALVES = 10  # random splits of the real images that the baseline is the mean of
MOST = 2500  # images of a set that enter a distance
ENOUGH = 4  # images a feature, in each half, from which a Frechet distance tells the sets apart more than their size


@dataclass(frozen=True)
class Estimate:
    """A distance with its interval; `value` None where it is not given (`reason`). `n`: real and synthetic images used.

    `baseline` is the mean size of the same distance between two halves of the real images, and `ratio` the mean size
    that the synthetic images give in place of one half, over it: about 1 for one more sample of the real ones.
    `large`: whether the ratio tells how far the sets are; a Frechet distance of few images is mostly their number.
    """

    value: float | None
    lo: float | None = None
    hi: float | None = None
    baseline: float | None = None
    ratio: float | None = None
    n: tuple[int, int] = (0, 0)
    reason: str = ""
    large: bool = True


def frechet(a: Array, b: Array) -> float:
    """Frechet distance of the Gaussians fitted to a (N,F) and b (M,F): |mean gap|^2 + tr(A + B - 2 (A B)^(1/2)).

    Dowson & Landau 1982, eq. 16; on features: Heusel et al. 2017. The trace of the root is that of the symmetric
    (A^(1/2) B A^(1/2))^(1/2), from eigenvalues alone, real and stable also for singular matrices.
    """
    a, b = _checked(a, b)
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    cov_a, cov_b = np.atleast_2d(cov_a), np.atleast_2d(cov_b)
    root = _root(cov_a)
    inner = np.linalg.eigvalsh(_symmetric(root @ cov_b @ root))
    gap = a.mean(axis=0) - b.mean(axis=0)
    trace = np.trace(cov_a) + np.trace(cov_b) - 2.0 * np.sqrt(np.maximum(inner, 0.0)).sum()
    return float(max(gap @ gap + trace, 0.0))


def kernel_distance(a: Array, b: Array) -> float:
    """Unbiased MMD^2 of a (N,F) and b (M,F) with the kernel (x.y / F + 1)^3; may fall below 0 for equal distributions.

    Gretton et al. 2012, eq. 3; kernel and use on features: Binkowski et al. 2018, section 4.
    """
    a, b = _checked(a, b)
    every = np.concatenate([a, b])
    between = _pooled(kernel_distance, every, np.arange(len(every)))
    return between(np.arange(len(a)), len(a) + np.arange(len(b)))


def kernel_doubt(real: Array, one: Array, other: Array, *, groups: Sequence[str]) -> float:
    """Variance of `kernel_distance` of real (N,F) to one (M,F) less that to other (M,F), row s of both from the same seed.

    By the first-order terms (Hoeffding projections) of the two U-statistics: what each seed and each real image, those of a patient
    (`groups`, N) together, adds to the difference. The seeds are as good as independent of the real images.
    """
    if not 2 <= len(one) == len(other):
        raise BadInput(
            f"distance: {len(one)} and {len(other)} images of the same seeds", "As many of both, and two at least."
        )

    def terms(made: Array) -> tuple[Array, Array]:
        own, across, m = _cubic(made, made), _cubic(made, real), len(made)
        return 2 * (own.sum(axis=1) - np.diag(own)) / (m - 1) - 2 * across.mean(axis=1), -2 * across.mean(axis=0)

    (seeds, images), (their_seeds, their_images) = terms(one), terms(other)
    _, which = np.unique(np.asarray(list(groups)), return_inverse=True)
    gap = images - their_images
    of_patients = np.bincount(which, gap - gap.mean())
    return float((seeds - their_seeds).var(ddof=1) / len(one) + (of_patients @ of_patients) / len(real) ** 2)


def with_interval(
    metric: Distance,
    real: Array,
    synthetic: Array,
    *,
    groups: Sequence[str] | None = None,
    draws: int = 200,
    seed: int = 0,
) -> Estimate:
    """`metric` of real (N,F) against synthetic (M,F), with its 95 % interval and the real-against-real baseline.

    The interval is the basic bootstrap (Davison & Hinkley 1997, eq. 5.6), with the draws' mean in place of the value,
    because images that are drawn twice shift a distance. Real images are drawn by patient (`groups`, N of them),
    synthetic ones singly. Of each set `MOST` images at random are used at most. The kernel distance pairs no two images of a
    patient: they are alike, and would make equal sets look apart.
    """
    real, synthetic, names, generator = thinned(real, synthetic, groups, seed)
    n = (len(real), len(synthetic))
    if metric is frechet and min(n) <= real.shape[1]:
        return Estimate(None, n=n, reason=_too_few(min(n), real.shape[1]))
    if len(np.unique(names)) < 2:
        return Estimate(None, n=n, reason="the real images are of one patient")
    pooled = _pooled(metric, np.concatenate([real, synthetic]), _whose(names, n[1]))
    ours, theirs = np.arange(n[0]), n[0] + np.arange(n[1])
    value = pooled(ours, theirs)
    drawn = np.array(
        [pooled(resample(names, generator), generator.choice(theirs, n[1])) for _ in range(draws)], dtype=np.float64
    )
    drawn = drawn[np.isfinite(drawn)]  # a draw of one patient alone gives no kernel distance
    tail = (1.0 - LEVEL) / 2.0
    low, high = np.quantile(drawn - drawn.mean(), [tail, 1.0 - tail])
    least = 1 + (real.shape[1] if metric is frechet else 1)
    baseline, ratio = _baseline(pooled, names, theirs, least, generator)
    why = "" if baseline is not None else f"half of {n[0]} real images is too few for a baseline"
    lo = value - float(high)
    if metric is frechet:  # never below 0, which the basic interval does not know
        lo = max(lo, 0.0)
    large = metric is not frechet or n[0] // 2 >= ENOUGH * real.shape[1]
    return Estimate(value, lo, value - float(low), baseline, ratio, n, why, large)


def thinned(
    real: Array, synthetic: Array, groups: Sequence[str] | None, seed: int, most: int = MOST
) -> tuple[Array, Array, NDArray[np.str_], np.random.Generator]:
    """(real, synthetic, patients of real, generator): at most `most` images of each set, chosen at random by `seed`."""
    real, synthetic = _checked(real, synthetic)
    generator = np.random.default_rng(seed)
    names = np.asarray([str(i) for i in range(len(real))] if groups is None else list(groups))
    keep = np.sort(generator.permutation(len(real))[:most])
    return real[keep], synthetic[np.sort(generator.permutation(len(synthetic))[:most])], names[keep], generator


@dataclass(frozen=True)
class Halves:
    """`metric` of real (N,F) and synthetic (M,F) and what it needs to be compared with halves of the real images."""

    metric: Distance
    real: Array
    synthetic: Array
    names: NDArray[np.str_]
    least: int

    def baseline(self, generator: np.random.Generator) -> tuple[float | None, float | None]:
        """(mean size between halves of the real images, ratio of the synthetic set's at equal numbers to it)."""
        whose = _whose(self.names, len(self.synthetic))
        pooled = _pooled(self.metric, np.concatenate([self.real, self.synthetic]), whose)
        theirs = len(self.real) + np.arange(len(self.synthetic))
        return _baseline(pooled, self.names, theirs, self.least, generator)


def halves(groups: NDArray[np.str_], generator: np.random.Generator) -> tuple[Indices, Indices]:
    """Indices of two parts of about equal size that share no group."""
    order = generator.permutation(np.unique(groups))
    sizes = np.array([(groups == name).sum() for name in order])
    first = order[np.cumsum(sizes) <= (len(groups) + 1) // 2]
    inside = np.isin(groups, first)
    return np.flatnonzero(inside), np.flatnonzero(~inside)


def _whose(names: NDArray[np.str_], synthetic: int) -> Indices:
    """(N + synthetic,) a number for the patient of each real image, and one of its own for each synthetic one."""
    known, which = np.unique(names, return_inverse=True)
    return np.concatenate([which, len(known) + np.arange(synthetic)])


def _pooled(metric: Distance, features: Array, whose: Indices) -> Callable[[Indices, Indices], float]:
    """`metric` between two choices of rows of `features` (N,F) of the patients `whose` (N,); the kernel matrix is computed once."""
    if metric is not kernel_distance:
        return lambda a, b: metric(features[a], features[b])
    kernel = _cubic(features, features)
    kernel[whose[:, None] == whose] = 0.0  # pairs that do not count; what is compared shares no patient

    def between(a: Indices, b: Indices) -> float:
        rows, columns = (np.unique(side, return_counts=True) for side in (a, b))
        within = [
            _mean_within(kernel[np.ix_(side, side)], times.astype(np.float64), whose[side])
            for side, times in (rows, columns)
        ]
        across = rows[1] @ kernel[np.ix_(rows[0], columns[0])] @ columns[1] / (len(a) * len(b))
        return float(within[0] + within[1] - 2.0 * across)

    return between


def _mean_within(kernel: Array, times: Array, whose: Indices) -> float:
    """Mean over the pairs of two patients of kernel (N,N), 0 for other pairs, row i counting `times[i]` times; NaN for one patient."""
    pairs = times.sum() ** 2 - (np.bincount(whose, times) ** 2).sum()
    return float(times @ kernel @ times / pairs) if pairs > 0 else float("nan")


def _baseline(
    pooled: Callable[[Indices, Indices], float],
    groups: NDArray[np.str_],
    synthetic: Indices,
    least: int,
    generator: np.random.Generator,
) -> tuple[float | None, float | None]:
    """Mean size of the distance between halves of the real images, and the synthetic one's at equal numbers over it.

    Of a distance without bias the size is that of its chance part, so that the ratio says how many times that it is.
    """
    real_real, real_synthetic = [], []
    for _ in range(HALVES):
        one, other = halves(groups, generator)
        size = min(len(other), len(synthetic))
        if min(len(one), size) < least:
            return None, None
        real_real.append(abs(pooled(one, generator.permutation(other)[:size])))
        real_synthetic.append(abs(pooled(one, generator.permutation(synthetic)[:size])))
    baseline = float(np.mean(real_real))
    if not np.isfinite(baseline):  # a half of one patient
        return None, None
    return baseline, float(np.mean(real_synthetic)) / baseline if baseline > 0 else None


def resample(groups: NDArray[np.str_], generator: np.random.Generator) -> Indices:
    """Indices of whole groups drawn with replacement, as many groups as there are."""
    names, which = np.unique(groups, return_inverse=True)
    members = np.split(np.argsort(which, kind="stable"), np.cumsum(np.bincount(which))[:-1])
    return np.concatenate([members[i] for i in generator.integers(0, len(names), len(names))])


def _too_few(images: int, features: int) -> str:
    return (
        f"{images} images are too few for {features} features: with no more images than features the distance tells "
        "their number, not how alike they are"
    )


def _checked(a: Array, b: Array) -> tuple[Array, Array]:
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise BadInput(f"distance: features of shapes {a.shape} and {b.shape}", "Two images a set are the least.")
    return a, b


def _cubic(a: Array, b: Array) -> Array:
    """(N, M) kernel matrix."""
    return np.asarray((a @ b.T / a.shape[1] + 1.0) ** 3)


def _root(matrix: Array) -> Array:
    """Symmetric square root of a symmetric matrix without negative eigenvalues (those of rounding become 0)."""
    values, vectors = np.linalg.eigh(_symmetric(matrix))
    return np.asarray((vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T)


def _symmetric(matrix: Array) -> Array:
    return np.asarray((matrix + matrix.T) / 2.0)
