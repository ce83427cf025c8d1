"""How varied a set is among itself: distances between the features (N, F) of its images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mgdm_cli.errors import BadInput

Array = NDArray[np.float64]

MOST = 2500  # images that enter an interval


def spread(
    features: Array, *, groups: Sequence[str] | None = None, draws: int = 200, seed: int = 0
) -> tuple[float, float, float]:
    """(mean Euclidean distance over all pairs of different images of features (N,F), lo, hi).

    The 95 % interval is a bootstrap by patient over at most `MOST` images. Copies of one image that a draw holds are
    never paired with each other.
    """
    generator = np.random.default_rng(seed)
    features = _checked(features)
    names = np.asarray([str(i) for i in range(len(features))] if groups is None else list(groups))
    keep = np.sort(generator.permutation(len(features))[:MOST])
    distance = distances(features[keep], features[keep])
    np.fill_diagonal(distance, 0.0)
    patients, which = np.unique(names[keep], return_inverse=True)
    drawn = []
    for _ in range(draws):
        times = np.bincount(generator.integers(0, len(patients), len(patients)), minlength=len(patients))[which]
        pairs = times.sum() ** 2 - (times**2).sum()
        if pairs > 0:
            drawn.append(float(times @ distance @ times) / pairs)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(distance.sum() / (len(keep) * (len(keep) - 1))), float(low), float(high)


def distances(a: Array, b: Array) -> Array:
    """(len(a), len(b)) Euclidean distances, good to about 1e-7 of the features' spread."""
    squared = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None, :] - 2.0 * a @ b.T
    return np.asarray(np.sqrt(np.maximum(squared, 0.0)))


def _checked(features: Array) -> Array:
    """Features (N,F) in double precision, centred: distances stay, rounding shrinks."""
    features = np.asarray(features, dtype=np.float64)
    if features.ndim != 2 or len(features) < 2:
        raise BadInput(f"diversity: features of shape {features.shape}", "Two images are the least.")
    return np.asarray(features - features.mean(axis=0))
