"""How sure and how right a classifier is, with intervals: figures on logits or probabilities (N, K) and labels (N,)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mgdm_cli.errors import BadInput

Array = NDArray[np.float64]
Labels = NDArray[np.int64]


def softmax(logits: Array) -> Array:
    """Probabilities (N,K) of logits (N,K)."""
    shifted = np.asarray(logits, dtype=np.float64) - np.max(logits, axis=1, keepdims=True)
    exp = np.exp(shifted)
    return np.asarray(exp / exp.sum(axis=1, keepdims=True))


def entropy(probabilities: Array) -> Array:
    """Shannon entropy (N,) in nats, 0 for a certain class and ln K for none; 0 ln 0 counts as 0."""
    p = np.asarray(probabilities, dtype=np.float64)
    return np.asarray(-(p * np.log(np.where(p > 0, p, 1.0))).sum(axis=1))


def balanced_accuracy(predicted: Labels, label: Labels) -> float:
    """Mean over the classes that occur of the share of right predictions in them."""
    return float(np.mean([np.mean(predicted[label == k] == k) for k in np.unique(label)]))


def macro_auroc(probabilities: Array, label: Labels) -> float | None:
    """Mean over classes of the area under the ROC curve, each class against the rest; None with a single class.

    A class without images is left out.
    """
    from sklearn.metrics import roc_auc_score

    there = np.unique(label)
    if len(there) < 2:
        return None
    return float(np.mean([roc_auc_score(label == k, probabilities[:, k]) for k in there]))


def wilson(right: float, n: float, level: float = 0.95) -> tuple[float, float]:
    """Interval of a proportion (Wilson 1927): close to its level on average, for display; of an effective number as well."""
    from scipy.stats import norm

    _check_count(right, n)
    z = float(norm.ppf(0.5 + level / 2.0))
    centre = (right + z * z / 2.0) / (n + z * z)
    half = z / (n + z * z) * np.sqrt(right * (n - right) / n + z * z / 4.0)
    return float(max(centre - half, 0.0)), float(min(centre + half, 1.0))


def clopper_pearson(right: float, n: float, level: float = 0.95) -> tuple[float, float]:
    """Interval of a proportion that never covers less than its level (Clopper & Pearson 1934): for gates; of an effective number too."""
    from scipy.stats import beta

    _check_count(right, n)
    tail = (1.0 - level) / 2.0
    low = 0.0 if right == 0 else float(beta.ppf(tail, right, n - right + 1))
    high = 1.0 if right == n else float(beta.ppf(1.0 - tail, right + 1, n - right))
    return low, high


def most_by_chance(n: int, rate: float, level: float = 0.99, *, estimated_on: int | None = None) -> int:
    """The number of hits in n trials of probability `rate` that is exceeded with probability 1 - level at most.

    A hit that lies below the floor(rate (m + 1))-th of m = `estimated_on` others has no fixed probability: their own chance
    gives it the law Beta(r, m + 1 - r), and the hits the beta-binomial one (Vovk 2012, "Conditional validity", section 2).
    """
    from scipy.stats import betabinom, binom

    if estimated_on is None:
        return int(binom.ppf(level, n, rate))
    rank = rate * (estimated_on + 1)
    rank = float(np.floor(rank + 1e-9)) or rank
    return int(betabinom.ppf(level, n, rank, estimated_on + 1 - rank))


def _check_count(right: float, n: float) -> None:
    if n < 1 or not 0 <= right <= n + 1e-9:
        raise BadInput(f"interval: {right} of {n}", "Counts must satisfy 0 <= right <= n and n >= 1.")
