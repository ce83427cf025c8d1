"""What a set of training images is worth: measures of classifiers on test images, and differences that are paired and bounded.

An arm is a way to make the training set. A cell is one net, trained from one seed on one arm; cells of two arms with the same
net and seed began with the same weights and drew in the same order, so their difference is due to the images.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence, Sized
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mgdm_cli.errors import BadInput
from mgdm_cli.metrics.labels import balanced_accuracy, macro_auroc

Array = NDArray[np.float64]
Labels = NDArray[np.int64]
Measure = Callable[[Array, Labels], float]
Verdict = Literal["helps", "no evidence", "hurts"]

DRAWS = 4000
BINS = 15  # of the calibration error
LEVEL = 0.95
FEW = 5  # nets below which a bootstrap over them spans too little of what other nets would say
GRADED = {"birads", "dr", "grade", "isup", "kl", "level", "score", "severity", "stage"}  # words of ordered classes


@dataclass(frozen=True)
class ByNet:
    """The difference of one net, averaged over its seeds; the interval draws seeds and test patients."""

    net: str
    value: float
    lo: float
    hi: float


def enough(nets: Sized, seeds: int) -> bool:
    """Whether so many nets and seeds tell an effect from chance in training: a single one of either cannot."""
    return len(nets) >= 2 and seeds >= 2


@dataclass(frozen=True)
class Gain:
    """Balanced accuracy of `arm` less that of `against`, paired over nets and seeds, with what may be said of it.

    `lo`, `hi`: 95 %, nets, seeds and test patients drawn together: it speaks of other nets, other starts, other patients.
    `lo_training`, `hi_training`: nets and seeds alone, for these very test images. `better` and `worse` are test images
    that the mean of all cells gets right under one arm alone, `p` their exact McNemar test.
    """

    arm: str
    against: str
    value: float
    lo: float
    hi: float
    lo_training: float
    hi_training: float
    nets: tuple[ByNet, ...]
    seeds: int
    better: int
    worse: int
    p: float

    @property
    def able(self) -> bool:
        """Whether there is enough of nets and seeds for a verdict."""
        return enough(self.nets, self.seeds)

    @property
    def verdict(self) -> Verdict:
        """By the wider interval."""
        if not self.able:
            return "no evidence"
        return "helps" if self.lo > 0 else "hurts" if self.hi < 0 else "no evidence"


def macro_f1(probabilities: Array, label: Labels) -> float:
    """Mean over the classes that occur of the harmonic mean of precision and recall; 0 for a class never predicted."""
    told = probabilities.argmax(axis=1)
    scores = []
    for k in np.unique(label):
        right = float(((told == k) & (label == k)).sum())
        scores.append(2 * right / float((told == k).sum() + (label == k).sum()))
    return float(np.mean(scores))


def quadratic_kappa(probabilities: Array, label: Labels) -> float:
    """Agreement beyond chance, errors counted by the square of their distance (Cohen 1968): for ordered classes."""
    classes = probabilities.shape[1]
    table = np.zeros((classes, classes))
    np.add.at(table, (label, probabilities.argmax(axis=1)), 1.0)
    weight = (np.arange(classes)[:, None] - np.arange(classes)[None, :]) ** 2.0
    chance = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    expected = float((weight * chance).sum())
    return 1.0 - float((weight * table).sum()) / expected if expected > 0 else 0.0


def calibration_error(probabilities: Array, label: Labels, bins: int = BINS) -> float:
    """Mean gap of confidence and accuracy over `bins` of equal width, weighted by images (Guo et al. 2017, eq. 3)."""
    sure, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == label
    place = np.minimum((sure * bins).astype(np.int64), bins - 1)
    gaps = [
        abs(float(sure[place == b].mean() - right[place == b].mean())) * float((place == b).mean())
        for b in np.unique(place)
    ]
    return float(np.sum(gaps))


def worst_class(probabilities: Array, label: Labels) -> float:
    """Share of right predictions in the class where it is lowest."""
    told = probabilities.argmax(axis=1)
    return min(float((told[label == k] == k).mean()) for k in np.unique(label))


def _balanced(probabilities: Array, label: Labels) -> float:
    return balanced_accuracy(probabilities.argmax(axis=1), label)


def _auroc(probabilities: Array, label: Labels) -> float:
    found = macro_auroc(probabilities, label)
    return float("nan") if found is None else found


MEASURES: dict[str, Measure] = {
    "balanced_accuracy": _balanced,
    "macro_auroc": _auroc,
    "macro_f1": macro_f1,
    "quadratic_kappa": quadratic_kappa,
    "calibration_error": calibration_error,
    "worst_class": worst_class,
}


def measured(probabilities: Array, label: Labels, *, ordered: bool = True) -> dict[str, float]:
    """Mean over cells of each measure, from probabilities (nets, seeds, N, K) and labels (N,).

    Without the kappa where the classes are not `ordered`: it would count a mistake by a distance that does not exist.
    """
    cells = probabilities.reshape(-1, *probabilities.shape[2:])
    asked = {name: measure for name, measure in MEASURES.items() if ordered or measure is not quadratic_kappa}
    return {name: float(np.mean([measure(cell, label) for cell in cells])) for name, measure in asked.items()}


def are_grades(classes: Sequence[str]) -> bool:
    """Whether three or more classes say by their names that they are grades: one word of `GRADED`, each with a number.

    Bare numbers do not: they are as often just indices.
    """
    found = [re.fullmatch(r"([a-z]+)[ _.-]*(?:\d+|[ivx]+)", name.strip().lower()) for name in classes]
    words = {match[1] for match in found if match is not None}
    return len(classes) > 2 and None not in found and len(words) == 1 and words <= GRADED


def gain(
    arm: str,
    against: str,
    first: Array,
    second: Array,
    label: Labels,
    nets: Sequence[str],
    *,
    patients: Sequence[str] | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> Gain:
    """`Gain` of the probabilities `first` (nets, seeds, N, K) over `second`, on N test images with labels (N,).

    Nets, seeds and patients are drawn independently and each draw is the mean over what was drawn (Owen 2007, "The
    pigeonhole bootstrap"): somewhat too wide where a net and a seed go well together by chance. Of fewer than `FEW` nets
    it spans too little, so that the interval is no narrower than Student's over the means of the nets.
    """
    if first.shape != second.shape or first.shape[0] != len(nets) or first.shape[2] != len(label):
        raise BadInput(f"utility: cells of shapes {first.shape} and {second.shape}", "Compare the same nets and seeds.")
    generator = np.random.default_rng(seed)
    right = (first.argmax(axis=3) == label).astype(np.float64) - (second.argmax(axis=3) == label)
    groups = np.asarray([str(i) for i in range(len(label))] if patients is None else list(patients))
    of_patients = _by_patient(right, label, groups, draws, generator)  # (nets, seeds, draws)
    here = _mean_over_classes(right, label, np.ones((1, len(label))))[:, :, 0]  # (nets, seeds)
    of_nets, of_seeds = (_shares(n, draws, generator) for n in here.shape)  # (draws, nets), (draws, seeds)
    drawn = np.einsum("dn,nsd,ds->d", of_nets, of_patients, of_seeds)
    training = np.einsum("dn,ns,ds->d", of_nets, here, of_seeds)
    by_net = []
    for index, name in enumerate(nets):
        mine = np.einsum("sd,ds->d", of_patients[index], of_seeds)
        by_net.append(ByNet(name, float(here[index].mean()), *_ends(mine)))
    better, worse, p = mcnemar(first.mean(axis=(0, 1)), second.mean(axis=(0, 1)), label)
    low, high = _ends(drawn)
    if 1 < len(nets) < FEW:
        lower, upper = _student(here.mean(axis=1))
        low, high = min(low, lower), max(high, upper)
    return Gain(
        arm,
        against,
        float(here.mean()),
        low,
        high,
        *_ends(training),
        tuple(by_net),
        here.shape[1],
        better,
        worse,
        p,
    )


def mcnemar(first: Array, second: Array, label: Labels) -> tuple[int, int, float]:
    """(images right under `first` alone, under `second` alone, exact two-sided p) of probabilities (N,K) (McNemar 1947)."""
    from scipy.stats import binomtest

    one, other = first.argmax(axis=1) == label, second.argmax(axis=1) == label
    better, worse = int((one & ~other).sum()), int((other & ~one).sum())
    p = float(binomtest(better, better + worse, 0.5).pvalue) if better + worse else 1.0
    return better, worse, p


def _by_patient(
    right: Array, label: Labels, groups: NDArray[np.str_], draws: int, generator: np.random.Generator
) -> Array:
    """(nets, seeds, draws) the mean over classes of right (nets, seeds, N) when patients are drawn again."""
    names, which = np.unique(groups, return_inverse=True)
    times = generator.multinomial(len(names), np.full(len(names), 1.0 / len(names)), draws)
    return _mean_over_classes(right, label, times[:, which].astype(np.float64))


def _mean_over_classes(right: Array, label: Labels, times: Array) -> Array:
    """(nets, seeds, draws): right (nets, seeds, N) averaged within each class that a draw holds, then over those classes."""
    total, there = np.zeros((*right.shape[:2], len(times))), np.zeros(len(times))
    for k in np.unique(label):
        mine = label == k
        weight = times[:, mine].sum(axis=1)
        total += np.where(weight > 0, right[:, :, mine] @ times[:, mine].T / np.maximum(weight, 1.0), 0.0)
        there += weight > 0
    return np.asarray(total / np.maximum(there, 1.0))


def _shares(n: int, draws: int, generator: np.random.Generator) -> Array:
    """(draws, n) the share of each of n in a draw of n with replacement."""
    return np.asarray(generator.multinomial(n, np.full(n, 1.0 / n), draws) / n)


def _student(values: Array) -> tuple[float, float]:
    """Interval of the mean of what single nets (N,) say, N at least 2."""
    from scipy.stats import t

    half = float(t.ppf((1 + LEVEL) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return float(values.mean()) - half, float(values.mean()) + half


def _ends(drawn: Array) -> tuple[float, float]:
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
