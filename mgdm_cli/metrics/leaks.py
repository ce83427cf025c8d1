"""Whether a synthetic set, or its model, knows the training images better than images of the same kind that were held out.

Three looks beside the copy score. Each compares training images with a holdout that differs from them by chance alone, and
none of them proves that nothing leaks: each can only find something, or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mgdm_cli.errors import BadInput
from mgdm_cli.metrics.labels import clopper_pearson, most_by_chance

Array = NDArray[np.float64]
Indices = NDArray[np.int64]
Names = NDArray[np.str_]

PERMUTATIONS = 1999
CLOSEST, AT_LEAST = 0.02, 20  # share and number of the closest images that are looked at by themselves
PLANTED = (0.01, 0.02, 0.05, 0.10)  # shares of planted copies that the test is tried on
TRIES, NOTICED = 20, 0.8  # plantings of each share, and the part of them that the test must notice
REJECT = 0.01  # adjusted p below which the neighbour test fails
RATE, RARE = 0.01, 0.001  # false positives at which membership is told
MOST_AUC, MOST_TPR = 0.60, 0.03  # lower ends of the membership intervals above which the audit fails; limits of ours
BEYOND = 0.995  # level of the most hits that chance explains


@dataclass(frozen=True)
class NeighbourTest:
    """Share of synthetic images whose nearest real one was learnt from, of all and of the closest; 0.5 by chance.

    `p`: chance of shares as large when it makes no difference who was learnt from, for the two looks together.
    `power`: least share of planted copies of training images that this very test notices, four times in five at least; None where it
    does so of none of `PLANTED`.
    """

    share: float
    share_closest: float
    closest: int
    p: float
    references: tuple[int, int]  # training images, held-out images
    power: float | None
    looks: tuple[float, float] = (1.0, 1.0)  # p of all images and of the closest ones, each by itself

    @property
    def failed(self) -> bool:
        return self.p < REJECT


@dataclass(frozen=True)
class Membership:
    """How well the model's loss tells training images from held-out ones: area under the curve, and hits at few false ones.

    `tpr` and its interval are None where too few patients are held out (`reason`); `tpr_by_chance` is the most that chance
    explains, that of the loss at which it is taken too. `blind` is the same area for a classifier that sees simple statistics
    of the pictures and no model: above 0.5, the two sets differ by themselves.
    """

    auc: float
    lo: float
    hi: float
    tpr: float | None
    tpr_lo: float | None
    tpr_hi: float | None
    n: tuple[int, int]
    blind: float | None = None
    blind_lo: float | None = None
    reason: str = ""
    rare: tuple[float, float, float] | None = (
        None  # hits and interval at `RARE` false ones, from 999 held-out patients on
    )
    tpr_by_chance: float = 1.0

    @property
    def exchangeable(self) -> bool:
        """Whether training images and holdout look alike without the model: else the figures are void."""
        return self.blind_lo is None or self.blind_lo <= 0.5

    @property
    def hits(self) -> bool:
        """Whether more training images are found at few false alarms than chance explains."""
        return self.tpr is not None and (self.tpr_lo or 0.0) > MOST_TPR and self.tpr > self.tpr_by_chance

    @property
    def failed(self) -> bool:
        return self.exchangeable and (self.lo > MOST_AUC or self.hits)


@dataclass(frozen=True)
class Authenticity:
    """Share of images no nearer to their training image than that is to another patient's (Alaa et al. 2022).

    Beside it the median copy score, which is the ratio of the nearest distance to the mean of the fifty nearest.
    """

    share: float
    share_holdout: float
    ratio: float
    ratio_holdout: float
    n: tuple[int, int]  # synthetic, held out

    @property
    def low(self) -> bool:
        """Whether fewer are authentic than three standard errors below the held-out ones: worth a caution."""
        p = self.share_holdout
        spread = np.sqrt(max(p * (1 - p), 1e-4) * (1 / self.n[0] + 1 / self.n[1]))
        return bool(self.share < p - 3 * spread)


@dataclass(frozen=True)
class Leaks:
    """What the three looks found; None where one could not be taken, and `reasons` says why, by the look's name.

    `unaudited` says why nothing at all can be said of what was learnt from: no images were held out from it. `assumed`
    says what the looks take for granted where it is not known what the generator learnt from.
    """

    neighbours: NeighbourTest | None = None
    membership: Membership | None = None
    authenticity: Authenticity | None = None
    reasons: tuple[tuple[str, str], ...] = ()
    unaudited: str = ""
    assumed: str = ""

    @property
    def failed(self) -> bool:
        """Whether one of them found that training images are known better than chance explains."""
        return any(look is not None and look.failed for look in (self.neighbours, self.membership))


def neighbour_test(
    nearest: Indices,
    score: Array,
    patients: Sequence[str],
    learnt: NDArray[np.bool_],
    *,
    stratum: NDArray[np.int64] | None = None,
    training: int | None = None,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> NeighbourTest:
    """Train against holdout by nearest neighbours, with p from permuting who was learnt from among patients.

    `nearest` (S,): index of the real image nearest to each synthetic one, and `score` (S,), lower is closer, among R
    references, of which `learnt` (R,) were trained on; `patients` (R,). Patients are exchanged within a `stratum` (R,),
    their class. Images of a patient share their neighbours, so that counting images as independent (a binomial test)
    raises false alarms several times as often as it says. Of `training` images in all only those among the references can be found out;
    None: all are.
    """
    if len(learnt) != len(patients) or learnt.all() or not learnt.any():
        raise BadInput("neighbour test: the references are all of one side", "Give training and held-out images.")
    generator = np.random.default_rng(seed)
    names, who = np.unique(np.asarray(list(patients)), return_inverse=True)
    inside = np.zeros(len(names), dtype=bool)
    inside[who] = learnt
    kind = np.zeros(len(names), dtype=np.int64)
    if stratum is not None:
        kind[who] = stratum
    exchanged = _exchanged(inside, kind, permutations, generator)
    m = min(max(AT_LEAST, round(CLOSEST * len(score))), len(score))
    looks = _looks(nearest, score, who, inside, exchanged, m)
    close = np.argsort(score, kind="stable")[:m]
    of_nearest = inside[who[nearest]]
    referred = np.flatnonzero(learnt)
    chance = min(
        len(referred) / (training or len(referred)), 1.0
    )  # that a copied training image is among the references

    def noticed(share: float) -> bool:
        replaced = generator.permutation(len(score))[: max(round(share * len(score)), 1)]
        replaced = replaced[generator.random(len(replaced)) < chance]
        victims, scores = nearest.copy(), score.astype(np.float64).copy()
        victims[replaced] = generator.choice(referred, len(replaced))
        scores[replaced] = 0.0
        return _both(_looks(victims, scores, who, inside, exchanged, m)) < REJECT

    found = next((s for s in PLANTED if sum(noticed(s) for _ in range(TRIES)) >= NOTICED * TRIES), None)
    sides = (int(learnt.sum()), int((~learnt).sum()))
    shares = (float(of_nearest.mean()), float(of_nearest[close].mean()))
    return NeighbourTest(*shares, m, _both(looks), sides, found, looks)


def _exchanged(
    inside: NDArray[np.bool_], kind: NDArray[np.int64], permutations: int, generator: np.random.Generator
) -> NDArray[np.bool_]:
    """(permutations, P) who is called learnt from, shuffled within each kind of patient."""
    out = np.empty((permutations, len(inside)), dtype=bool)
    for k in np.unique(kind):
        mine = np.flatnonzero(kind == k)
        order = np.argsort(generator.random((permutations, len(mine))), axis=1)
        out[:, mine] = inside[mine][order]
    return out


def _looks(
    nearest: Indices,
    score: Array,
    who: NDArray[np.int64],
    inside: NDArray[np.bool_],
    exchanged: NDArray[np.bool_],
    closest: int,
) -> tuple[float, float]:
    """Permutation p of all images and of the closest ones."""
    found = []
    for chosen in (np.arange(len(score)), np.argsort(score, kind="stable")[:closest]):
        counts = np.bincount(who[nearest[chosen]], minlength=len(inside))
        drawn = exchanged @ counts
        found.append((1.0 + float((drawn >= counts @ inside).sum())) / (1.0 + len(exchanged)))
    return found[0], found[1]


def _both(looks: tuple[float, float]) -> float:
    """Bonferroni: twice the smaller p, for there were two looks."""
    return min(2.0 * min(looks), 1.0)


def references(
    label: NDArray[np.int64], patients: Sequence[str], holdout: NDArray[np.int64], *, seed: int = 0
) -> Indices:
    """Indices of training images, whole patients at random, about as many of each class as the `holdout` labels (H,).

    `label` (T,) and `patients` (T,) are those of the training images.
    """
    generator = np.random.default_rng(seed)
    names, who = np.unique(np.asarray(list(patients)), return_inverse=True)
    size = max(int(label.max(initial=0)), int(holdout.max(initial=0))) + 1
    wanted, taken = np.bincount(holdout, minlength=size), np.zeros(size, dtype=np.int64)
    table = np.zeros((len(names), size), dtype=np.int64)
    np.add.at(table, (who, label), 1)
    chosen = np.zeros(len(names), dtype=bool)
    for patient in generator.permutation(len(names)):
        own = table[patient]
        if np.all((taken + own <= wanted) | (own == 0)):
            chosen[patient] = True
            taken += own
    return np.flatnonzero(chosen[who]).astype(np.int64)


def membership(
    learnt: Array,
    held_out: Array,
    *,
    patients: tuple[Sequence[str], Sequence[str]] | None = None,
    draws: int = 1000,
    seed: int = 0,
) -> Membership:
    """From the model's losses on training images `learnt` (T,) and held-out ones (H,): a lower loss speaks for learnt.

    The area's interval is a bootstrap by patient; hits are counted at the loss that `RATE` of new images pass at most
    (conformal), with the interval of Clopper and Pearson of as many images as patients.
    """
    generator = np.random.default_rng(seed)
    sides = (learnt, held_out)
    groups = [
        np.asarray([str(i) for i in range(len(s))] if patients is None else list(patients[j]))
        for j, s in enumerate(sides)
    ]
    weights = [_times(g, draws, generator) for g in groups]
    wins = (learnt[:, None] < held_out[None, :]) + 0.5 * (learnt[:, None] == held_out[None, :])
    drawn = np.einsum("dt,th,dh->d", weights[0], wins, weights[1], optimize=True)
    drawn = drawn / (weights[0].sum(axis=1) * weights[1].sum(axis=1))
    low, high = np.quantile(drawn, [0.025, 0.975])
    area, n = (float(wins.mean()), float(low), float(high)), (len(learnt), len(held_out))
    own, others = (len(np.unique(names)) for names in groups)
    usual = _hits(learnt, held_out, RATE, own, others)
    if usual is None:
        why = f"{others} held-out patients; {_needed(RATE)} are needed"
        return Membership(*area, None, None, None, n, reason=why)
    most = most_by_chance(own, RATE, BEYOND, estimated_on=others) / own
    return Membership(*area, *usual, n, rare=_hits(learnt, held_out, RARE, own, others), tpr_by_chance=most)


def _needed(rate: float) -> int:
    """Held-out patients below which no loss is known that `rate` of new images reach."""
    return int(np.ceil(1 / rate)) - 1


def _hits(learnt: Array, held_out: Array, rate: float, own: int, others: int) -> tuple[float, float, float] | None:
    """(share of `learnt`, lo, hi) below the loss that `rate` of new images reach; None where too few patients are held out.

    The images are of `own` and `others` patients: the interval is that of as many images as patients.
    """
    if others < _needed(rate):
        return None
    rank = int(np.floor(rate * (len(held_out) + 1) + 1e-9))
    share = float((learnt <= np.sort(held_out)[rank - 1]).mean())
    return share, *clopper_pearson(share * own, own)


def blind(
    learnt: NDArray[np.float32],
    held_out: NDArray[np.float32],
    *,
    patients: tuple[Sequence[str], Sequence[str]],
    draws: int = 500,
    seed: int = 0,
) -> tuple[float, float]:
    """(area under the curve, lower end of its 99 % interval) of a classifier of pictures (N,C,H,W) that knows no model.

    Logistic regression on simple statistics, five-fold by patient. Membership figures mean nothing where it beats
    chance (Das, Zhang & Tramer 2024, "Blind baselines beat membership inference attacks").
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x = np.concatenate([_statistics(learnt), _statistics(held_out)])
    y = np.repeat([1, 0], [len(learnt), len(held_out)])
    groups = np.asarray([*patients[0], *(f"{name} held out" for name in patients[1])])
    scores = np.zeros(len(y))
    for fit, look in StratifiedGroupKFold(5, shuffle=True, random_state=seed).split(x, y, groups):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000, class_weight="balanced"))
        scores[look] = model.fit(x[fit], y[fit]).decision_function(x[look])
    found = membership(-scores[y == 1], -scores[y == 0], patients=patients, draws=2, seed=seed)
    spread = _times(groups, draws, np.random.default_rng(seed))
    mine, theirs = y == 1, y == 0
    wins = (scores[mine][:, None] > scores[theirs][None, :]) + 0.5 * (scores[mine][:, None] == scores[theirs][None, :])
    drawn = np.einsum("dt,th,dh->d", spread[:, mine], wins, spread[:, theirs], optimize=True)
    drawn = drawn / np.maximum(spread[:, mine].sum(axis=1) * spread[:, theirs].sum(axis=1), 1e-12)
    return found.auc, float(np.quantile(drawn, 0.005))


def authenticity(
    score: Array,
    distance: Array,
    own: Array,
    score_holdout: Array,
    distance_holdout: Array,
    own_holdout: Array,
) -> Authenticity:
    """From distances (S,) to the nearest training image and `own` (S,), that image's distance to another patient's one."""
    return Authenticity(
        float((distance > own).mean()),
        float((distance_holdout > own_holdout).mean()),
        float(np.median(score)),
        float(np.median(score_holdout)),
        (len(score), len(score_holdout)),
    )


def _times(groups: Names, draws: int, generator: np.random.Generator) -> Array:
    """(draws, N) how often each image stands in a draw of whole groups."""
    names, which = np.unique(groups, return_inverse=True)
    times = generator.multinomial(len(names), np.full(len(names), 1.0 / len(names)), draws)
    return np.asarray(times[:, which], dtype=np.float64)


def _statistics(images: NDArray[np.float32]) -> Array:
    """(N, F) mean, spread, quantiles and steepness of each channel of images (N,C,H,W)."""
    flat = images.reshape(*images.shape[:2], -1).astype(np.float64)
    quantiles = np.quantile(flat, [0.05, 0.25, 0.5, 0.75, 0.95], axis=2)
    steep = [np.abs(np.diff(images, axis=axis)).mean(axis=(2, 3)) for axis in (2, 3)]
    return np.concatenate([flat.mean(axis=2), flat.std(axis=2), *quantiles, *steep], axis=1)
