"""How much of each set lies where the other one does, from balls around its points, and how many kinds of image a set holds.

Every point of features (N, F) carries a ball that reaches to its k-th nearest neighbour in its own set. A point lies
"inside" a set when it lies in one of the balls of that set.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from mgdm_cli.errors import BadInput

from .diversity import distances
from .fidelity import Estimate, Halves, thinned

Array = NDArray[np.float64]
Flags = NDArray[np.float64]

NEAR = 5  # the k of all four: Naeem et al. 2020, section 4; Kynkaanniemi et al. 2019 use 3, which is noisier at small n
LEAST = 3 * NEAR  # images of a set below which nothing is said
MOST = 1000  # images of a set that enter; a share is known to 3 points with them
LEVEL = 0.95
Z = 1.959964  # standard deviations of a normal interval of that level


def precision(real: Array, synthetic: Array, k: int = NEAR) -> float:
    """Share of synthetic (M,F) inside the balls of real (N,F) (Kynkaanniemi et al. 2019, eqs. 1 and 2)."""
    return float(_precision(*_pairs(real, synthetic), k).mean())


def recall(real: Array, synthetic: Array, k: int = NEAR) -> float:
    """Share of real (N,F) inside the balls of synthetic (M,F) (Kynkaanniemi et al. 2019, eqs. 1 and 3)."""
    return float(_recall(*_pairs(real, synthetic), k).mean())


def density(real: Array, synthetic: Array, k: int = NEAR) -> float:
    """Mean number of real balls (N,F) around a synthetic image (M,F), over k; may exceed 1 (Naeem et al. 2020, eq. 3)."""
    return float(_density(*_pairs(real, synthetic), k).mean())


def coverage(real: Array, synthetic: Array, k: int = NEAR) -> float:
    """Share of real images (N,F) whose ball holds a synthetic one (M,F) (Naeem et al. 2020, eq. 4)."""
    return float(_coverage(*_pairs(real, synthetic), k).mean())


def vendi(features: Array, width: float) -> float:
    """Effective number of different images among features (N,F): exp of the entropy of the eigenvalues of K / N.

    Friedman & Dieng 2023, "The Vendi Score", definition 3.1, with K = exp(-|x - y|^2 / (2 width^2)): 1 where all are
    alike, N where none resembles another.
    """
    features = _checked(features)
    return _effective(_similar(features, width), np.ones(len(features)))


def kernel_width(features: Array) -> float:
    """Median distance between two of features (N,F): the unit in which `vendi` calls images alike."""
    features = _checked(features)
    upper = distances(features, features)[np.triu_indices(len(features), 1)]
    return max(float(np.median(upper)), 1e-12)


def vendi_with_interval(
    features: Array, width: float, *, groups: Sequence[str] | None = None, draws: int = 100, seed: int = 0
) -> tuple[float, float, float]:
    """(`vendi`, lo, hi), 95 %: half-samples of whole groups, whose spread is brought to the full size.

    An image that is drawn twice would count as no new kind, so that the usual bootstrap cannot be used; half of the
    groups without replacement spreads like the whole does under the bootstrap (Politis, Romano & Wolf 1999, "Subsampling":
    the finite-population factor is 1 at one half), about its own mean.
    """
    generator = np.random.default_rng(seed)
    features = _checked(features)
    similar = _similar(features, width)
    value = _effective(similar, np.ones(len(features)))
    names, which = np.unique(
        np.asarray([str(i) for i in range(len(features))] if groups is None else list(groups)), return_inverse=True
    )
    drawn = []
    for _ in range(draws):
        chosen = np.isin(which, generator.permutation(len(names))[: max(len(names) // 2, 1)])
        if chosen.sum() >= 2:
            drawn.append(np.log(_effective(similar, chosen.astype(np.float64))))
    if not drawn:
        return value, value, value
    low, high = np.quantile(np.array(drawn) - np.mean(drawn), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return value, float(value * np.exp(low)), float(value * np.exp(high))


def estimate(
    name: str,
    real: Array,
    synthetic: Array,
    *,
    groups: Sequence[str] | None = None,
    draws: int = 200,
    seed: int = 0,
    k: int = NEAR,
) -> Estimate:
    """The share `name` of `SHARES` with its 95 % interval and the same between halves of the real images.

    The interval is over the images that are counted, real ones by patient; the balls stay as they are, for a point
    that is drawn twice would shrink its own. So it speaks of new images against these balls.
    """
    n = (min(len(real), MOST), min(len(synthetic), MOST))
    if min(n) < LEAST:
        return Estimate(None, n=n, reason=f"{min(n)} images are too few; {LEAST} are the least")
    real, synthetic, names, generator = thinned(real, synthetic, groups, seed, MOST)
    count, of_real = SHARES[name]
    hits = count(*_pairs(real, synthetic), k)
    pools = names if of_real else np.asarray([str(i) for i in range(n[1])])
    low, high = interval(hits, pools, generator, draws=draws)

    def share(a: Array, b: Array) -> float:
        return float(count(*_pairs(a, b), k).mean())

    halves = Halves(share, real, synthetic, names, least=LEAST)
    baseline, ratio = halves.baseline(generator)
    why = "" if baseline is not None else f"half of {n[0]} real images is too few for a baseline"
    return Estimate(float(hits.mean()), low, high, baseline, ratio, n, why)


def interval(
    hits: Flags, groups: NDArray[np.str_], generator: np.random.Generator, *, draws: int = 200
) -> tuple[float, float]:
    """95 % interval of the mean of hits (N,), whose variance comes from a bootstrap over whole groups (N,).

    Of a share: Wilson's interval with as many independent images as that variance says, because the quantiles of the
    draws are too narrow near 0 and 1. Of a mean that may exceed 1 (density): the mean and twice the deviation.
    """
    value = float(hits.mean())
    names, which = np.unique(groups, return_inverse=True)
    times = generator.multinomial(len(names), np.full(len(names), 1.0 / len(names)), draws)  # of each group in a draw
    means = times @ np.bincount(which, weights=hits) / (times @ np.bincount(which))
    deviation = float(np.std(means, ddof=1)) * np.sqrt(len(names) / max(len(names) - 1, 1))
    if hits.max() > 1:
        return max(value - Z * deviation, 0.0), value + Z * deviation
    n = value * (1 - value) / deviation**2 if deviation > 0 else float(len(np.unique(groups)))
    n = min(n, float(len(hits)))
    centre = (value * n + Z * Z / 2) / (n + Z * Z)
    half = Z / (n + Z * Z) * float(np.sqrt(value * (1 - value) * n + Z * Z / 4))
    return max(centre - half, 0.0), min(centre + half, 1.0)


Count = Callable[[Array, Array, Array, int], Flags]


def _precision(within_real: Array, _: Array, across: Array, k: int) -> Flags:
    return np.asarray((across <= _radii(within_real, k)[:, None]).any(axis=0), dtype=np.float64)


def _recall(_: Array, within_synthetic: Array, across: Array, k: int) -> Flags:
    return np.asarray((across <= _radii(within_synthetic, k)[None, :]).any(axis=1), dtype=np.float64)


def _density(within_real: Array, _: Array, across: Array, k: int) -> Flags:
    return np.asarray((across <= _radii(within_real, k)[:, None]).sum(axis=0) / k, dtype=np.float64)


def _coverage(within_real: Array, _: Array, across: Array, k: int) -> Flags:
    return np.asarray(across.min(axis=1) <= _radii(within_real, k), dtype=np.float64)


# name -> (what each counted image contributes, whether the real images are counted or the synthetic ones)
SHARES: dict[str, tuple[Count, bool]] = {
    "precision": (_precision, False),
    "recall": (_recall, True),
    "density": (_density, False),
    "coverage": (_coverage, True),
}


def _pairs(real: Array, synthetic: Array) -> tuple[Array, Array, Array]:
    """Distances within real (N,N), within synthetic (M,M), and across (N,M)."""
    real, synthetic = np.asarray(real, dtype=np.float64), np.asarray(synthetic, dtype=np.float64)
    if real.ndim != 2 or synthetic.ndim != 2 or real.shape[1] != synthetic.shape[1]:
        raise BadInput(f"manifold: features of shapes {real.shape} and {synthetic.shape}", "Use one feature space.")
    centre = real.mean(axis=0)
    a, b = real - centre, synthetic - centre
    return distances(a, a), distances(b, b), distances(a, b)


def _radii(within: Array, k: int) -> Array:
    """Distance (N,) of each point to its k-th nearest other point."""
    if len(within) <= k:
        raise BadInput(f"manifold: {len(within)} images", f"More than {k} are needed.")
    apart = within.copy()
    np.fill_diagonal(apart, np.inf)
    return np.asarray(np.partition(apart, k - 1, axis=1)[:, k - 1])


def _similar(features: Array, width: float) -> Array:
    return np.asarray(np.exp(-(distances(features, features) ** 2) / (2.0 * width**2)))


def _effective(similar: Array, weight: Array) -> float:
    """exp entropy of the eigenvalues of the kernel matrix (N,N) of the images with weight 1."""
    rows = np.flatnonzero(weight)
    values = np.linalg.eigvalsh(similar[np.ix_(rows, rows)] / len(rows))
    values = values[values > 1e-12]
    return float(np.exp(-(values * np.log(values)).sum()))


def _checked(features: Array) -> Array:
    features = np.asarray(features, dtype=np.float64)
    if features.ndim != 2 or len(features) < 2:
        raise BadInput(f"manifold: features of shape {features.shape}", "Two images are the least.")
    return np.asarray(features - features.mean(axis=0))
