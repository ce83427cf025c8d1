"""Everything that `evaluate` says in numbers about a synthetic set, from features, probabilities and copy scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from mgdm_cli.metrics import diversity, manifold
from mgdm_cli.metrics.copies import REPEATED, SAME, Calibration, Scorer, Scores, calibrate
from mgdm_cli.metrics.fidelity import Estimate, frechet, kernel_distance, with_interval
from mgdm_cli.metrics.labels import balanced_accuracy, clopper_pearson, entropy, most_by_chance, wilson
from mgdm_cli.metrics.planting import KINDS, Planted, planted_copies

Array = NDArray[np.float64]
Labels = NDArray[np.int64]
Images = NDArray[np.float32]

LEAST = 10  # images of a class below which its distances are not given
VENDI = 300  # images of a class in the effective number: eigenvalues cost its cube
MUST_FIND = ("exact", "JPEG", "contrast", "flip", "shift")  # without these the copy test has too little power
PARTIAL = ("half", "crop")  # what the look at parts is there for
BEYOND = 0.995  # level of the most that chance explains: two looks, so that 1 set in 100 exceeds one of them by chance
POWER = 0.95  # share of planted copies of each of those kinds that must be found


@dataclass(frozen=True)
class Space:
    """One set in the feature space: features (N,F), labels (N,) and patients (N,); each image its own where empty."""

    features: Array
    label: Labels
    groups: tuple[str, ...] = ()


@dataclass(frozen=True)
class Judged:
    """One set as a judge sees it: class probabilities (N,K) and the labels (N,) that it has."""

    probabilities: Array
    label: Labels


@dataclass(frozen=True)
class Spread:
    """Mean distance between images of a set with its interval, beside the same of the real ones."""

    value: float
    lo: float
    hi: float
    real: float


@dataclass(frozen=True)
class Fidelity:
    """Distances over all classes (equal shares of each class in both sets), and class by class."""

    frechet: Estimate
    kernel: Estimate
    by_class: dict[str, Estimate]  # kernel distance
    spread: dict[str, Spread]  # diversity within a class
    shares: dict[str, Estimate] = field(default_factory=dict)  # precision, recall, density, coverage
    shares_by_class: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    vendi: dict[str, Spread] = field(default_factory=dict)  # effective number of images of a class, at equal numbers


@dataclass(frozen=True)
class Agreement:
    """Of one class, or of all: share whose label the judge sees, with interval, beside that of unseen real images."""

    name: str
    share: float
    lo: float
    hi: float
    n: int
    real: float | None
    entropy: float  # mean, nats
    real_entropy: float | None
    real_n: float = 0.0  # real images that `real` is as sure as: fewer than there are where a rare class counts much
    skill: float | None = None  # balanced accuracy of the judges on unseen real images, of whatever class

    @property
    def difference(self) -> tuple[float, float]:
        """95 % interval of the share less that of real images (Newcombe 1998, method 10: from the two Wilson intervals)."""
        if self.real is None:
            return -1.0, 1.0
        low, high = wilson(self.real * self.real_n, self.real_n)
        gap = self.share - self.real
        return (
            float(gap - np.hypot(self.share - self.lo, high - self.real)),
            float(gap + np.hypot(self.hi - self.share, self.real - low)),
        )


@dataclass(frozen=True)
class Copies:
    """Copy scores of the synthetic set, how many count as copies, and what the test is able to find here.

    `parts` is the same by quarters of the picture: copies of a part, which the look at the whole misses.
    """

    scores: Scores
    calibration: Calibration
    flagged: NDArray[np.bool_]
    interval: tuple[float, float]  # of the share flagged (Clopper-Pearson)
    by_chance: int  # flagged images that chance explains, the threshold's own too, but for 1 in 200 sets of this size
    planted: tuple[Planted, ...]
    parts: Copies | None = None

    @property
    def powerful(self) -> bool:
        """Whether the planted copies of every kind that must be found were found."""
        return all(p.found >= POWER * p.planted for p in self.planted if p.kind in MUST_FIND)

    @property
    def auditable(self) -> bool:
        """Whether a threshold exists."""
        return self.calibration.threshold.value is not None

    @property
    def beyond_chance(self) -> bool:
        """Whether this look by itself counts more images as copies than chance explains."""
        return int(self.flagged.sum()) > self.by_chance

    @property
    def same(self) -> int:
        """Images that show the same thing as a training image, which the chance that calibrates the threshold leaves out."""
        return int((self.scores.score < SAME).sum())

    @property
    def repeated(self) -> int:
        """Images that are a training image once more, where no real image is another one once more; chance explains none."""
        return 0 if self.calibration.repeated else int((self.scores.score < REPEATED).sum())

    @property
    def failed(self) -> bool:
        """Whether more images count as copies, of the whole or of a part, than chance explains, or one is a training image."""
        return self.beyond_chance or self.repeated > 0 or (self.parts is not None and self.parts.beyond_chance)


def fidelity(real: Space, synthetic: Space, classes: Sequence[str], *, draws: int = 200, seed: int = 0) -> Fidelity:
    """Distances of `synthetic` from `real`, the classes in equal shares, so that the balance itself does not count."""
    a, b = matched(real.label, synthetic.label, seed=seed)
    groups = np.asarray(real.groups or [str(i) for i in range(len(real.label))])
    whole = {
        metric.__name__: with_interval(
            metric, real.features[a], synthetic.features[b], groups=list(groups[a]), draws=draws, seed=seed
        )
        if min(len(a), len(b)) >= LEAST
        else Estimate(None, n=(len(a), len(b)), reason=f"{min(len(a), len(b))} images are too few")
        for metric in (frechet, kernel_distance)
    }
    shares = _shares(real.features[a], synthetic.features[b], list(groups[a]), draws, seed)
    by_class, spread, vendi, by_class_shares = {}, {}, {}, {}
    for k, name in enumerate(classes):
        mine, theirs = np.flatnonzero(real.label == k), np.flatnonzero(synthetic.label == k)
        if len(theirs) == 0:
            continue
        few = min(len(mine), len(theirs))
        if few < LEAST:
            by_class[name] = Estimate(None, n=(len(mine), len(theirs)), reason=f"{few} images are too few")
            continue
        own = list(groups[mine])
        by_class[name] = with_interval(
            kernel_distance, real.features[mine], synthetic.features[theirs], groups=own, draws=draws, seed=seed
        )
        value, lo, hi = diversity.spread(synthetic.features[theirs], draws=draws, seed=seed)
        spread[name] = Spread(value, lo, hi, diversity.spread(real.features[mine], groups=own, draws=1, seed=seed)[0])
        by_class_shares[name] = _shares(real.features[mine], synthetic.features[theirs], own, draws, seed)
        vendi[name] = _vendi(real.features[mine], synthetic.features[theirs], draws, seed)
    return Fidelity(whole["frechet"], whole["kernel_distance"], by_class, spread, shares, by_class_shares, vendi)


def _shares(real: Array, synthetic: Array, groups: list[str], draws: int, seed: int) -> dict[str, Estimate]:
    return {
        name: manifold.estimate(name, real, synthetic, groups=groups, draws=draws, seed=seed)
        for name in manifold.SHARES
    }


def _vendi(real: Array, synthetic: Array, draws: int, seed: int) -> Spread:
    """The effective number of images of one class, both sets at the smaller one's number: it grows with the number."""
    generator = np.random.default_rng(seed)
    size = min(len(real), len(synthetic), VENDI)
    ours, theirs = (features[np.sort(generator.permutation(len(features))[:size])] for features in (real, synthetic))
    width = manifold.kernel_width(ours)
    value, lo, hi = manifold.vendi_with_interval(theirs, width, draws=draws, seed=seed)
    return Spread(value, lo, hi, manifold.vendi(ours, width))


def matched(first: Labels, second: Labels, *, seed: int = 0) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices into both sets that hold each common class equally often: as often as the smaller set has it."""
    generator = np.random.default_rng(seed)
    chosen: tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]] = ([], [])
    for k in np.intersect1d(first, second):
        places = [np.flatnonzero(label == k) for label in (first, second)]
        size = min(len(p) for p in places)
        for into, p in zip(chosen, places, strict=True):
            into.append(generator.permutation(p)[:size])
    empty = np.empty(0, dtype=np.int64)
    return np.sort(np.concatenate([empty, *chosen[0]])), np.sort(np.concatenate([empty, *chosen[1]]))


def agreements(real: Judged, synthetic: Judged, classes: Sequence[str]) -> tuple[Agreement, ...]:
    """Agreement with the judge of every class that has synthetic images, and first of all of them together."""
    out = []
    told = real.probabilities.argmax(axis=1)
    skill = balanced_accuracy(told, real.label) if len(real.label) else None
    for name, k in (("all classes", None), *((name, k) for k, name in enumerate(classes))):
        mine = np.ones(len(synthetic.label), bool) if k is None else synthetic.label == k
        if not mine.any():
            continue
        right = (synthetic.probabilities[mine].argmax(axis=1) == synthetic.label[mine]).sum()
        n = int(mine.sum())
        share, unsure, as_many = _real(real, synthetic.label, k)
        unsure_here = float(entropy(synthetic.probabilities[mine]).mean())
        out.append(Agreement(name, right / n, *wilson(int(right), n), n, share, unsure_here, unsure, as_many, skill))
    return tuple(out)


def _real(real: Judged, synthetic: Labels, k: int | None) -> tuple[float | None, float | None, float]:
    """(share the judge gets right, mean entropy, effective number) of real images of class k; for all, in the synthetic set's shares."""
    weight = np.zeros(len(real.label))
    for c in np.unique(synthetic) if k is None else [k]:
        inside = real.label == c
        if not inside.any():
            return None, None, 0.0
        weight[inside] = (synthetic == c).mean() / inside.sum() if k is None else 1.0 / inside.sum()
    right = real.probabilities.argmax(axis=1) == real.label
    return float(weight @ right), float(weight @ entropy(real.probabilities)), float(1.0 / (weight @ weight))


def copies(
    scorer: Scorer,
    train: Images,
    holdout: Images | None,
    synthetic: Images,
    *,
    alpha: float = 0.01,
    parts: Scorer | None = None,
    patients: Sequence[str] | None = None,
    seed: int = 0,
) -> Copies:
    """Copy scores of synthetic images (S,C,H,W) against `scorer` and a scorer of `parts`, prepared from `train` (N,C,H,W).

    `patients` (M,) are those of the holdout (M,C,H,W).
    """
    partial = None if parts is None else _copies(parts, PARTIAL, train, holdout, synthetic, alpha, patients, seed)
    if partial is not None and not partial.auditable:  # the dark corners of two pictures are alike
        partial = replace(partial, flagged=np.zeros_like(partial.flagged))
    return replace(_copies(scorer, tuple(KINDS), train, holdout, synthetic, alpha, patients, seed), parts=partial)


def _copies(
    scorer: Scorer,
    kinds: tuple[str, ...],
    train: Images,
    holdout: Images | None,
    synthetic: Images,
    alpha: float,
    patients: Sequence[str] | None,
    seed: int,
) -> Copies:
    calibration = calibrate(scorer, holdout, alpha=alpha, seed=seed, patients=patients)
    scores = scorer.score(synthetic)
    flagged = calibration.threshold.flags(scores.score)
    planted = planted_copies(scorer, train, calibration.threshold, kinds=kinds, seed=seed)
    interval = clopper_pearson(int(flagged.sum()), len(flagged))
    known = calibration.threshold.value is not None
    several = len(calibration.scores) if calibration.patients is None else calibration.patients
    chance = most_by_chance(len(flagged), alpha, BEYOND, estimated_on=several if known else None)
    return Copies(scores, calibration, flagged, interval, chance, planted)
