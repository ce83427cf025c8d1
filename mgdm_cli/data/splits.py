"""Who is learnt from and who is held out: by patient, per class, decided by hashes, whatever the order or machine."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mgdm_cli.data.image import Record
from mgdm_cli.data.labels import is_patient, natural
from mgdm_cli.errors import BadInput, UsageError

MIN_HOLDOUT = 100  # images: what a copy threshold at 1 % needs (m >= 1/alpha - 1)
KEPT = 2  # patients of a class that stay in train: guide and judge share none
MAX_SHARE = 0.20  # of the training images, where 100 would be more


@dataclass(frozen=True)
class Splits:
    """`train` is learnt from, `holdout` was set aside from it; `test` and `val` are the input's own. By path."""

    train: tuple[Record, ...]
    holdout: tuple[Record, ...]
    test: tuple[Record, ...]
    val: tuple[Record, ...]
    patients_known: bool


def patient_key(record: Record) -> str:
    """What must stay on one side of a split: the patient, or the study that stands for one; else the file; of an npz, the row."""
    if record.patient is not None:
        return f"patient:{record.patient}"
    return f"file:{record.path}#{record.part}" if record.form.codec == "npz" else f"file:{record.path}"


def split(records: Iterable[Record], *, holdout: float = 0.10, seed: int = 0) -> Splits:
    """Sets aside about clamp(holdout * n, at least 100, at most 20 % of n) images of train: whole patients, by class.

    A class keeps two patients at least, one for the guide and one for the judge, and gives no more than twice its share
    unless its smallest patient is larger. BadInput where there is nothing to learn from.
    """
    if not 0.0 <= holdout <= 0.5:
        raise UsageError(f"--holdout: {holdout:g} is outside 0 to 0.5", "0.10 is usual.")
    ordered = sorted(records, key=_order)
    pool = [record for record in ordered if record.split in (None, "train")]
    if not pool:
        raise BadInput("input: no training images", "Only images outside val and test folders are learnt from.")
    outside = {patient_key(record) for record in ordered if record.split not in (None, "train")}
    aside = _held_out(pool, _target(len(pool), holdout), seed, outside) if holdout > 0 else set()
    return Splits(
        train=tuple(record for record in pool if patient_key(record) not in aside),
        holdout=tuple(record for record in pool if patient_key(record) in aside),
        test=tuple(record for record in ordered if record.split == "test"),
        val=tuple(record for record in ordered if record.split == "val"),
        patients_known=all(is_patient(record.patient) for record in pool),
    )


def folds(records: Iterable[Record], k: int = 2, *, seed: int = 0) -> list[tuple[Record, ...]]:
    """k parts, disjoint by patient, with the classes (and sizes) as even as whole patients allow."""
    if k < 2:
        raise UsageError(f"folds: {k} is fewer than 2", "Give 2 or more.")
    ordered = sorted(records, key=_order)
    groups = _patients(ordered)
    rare = Counter(record.label for record in ordered)
    counts: list[Counter[str | None]] = [Counter() for _ in range(k)]
    where: dict[str, int] = {}
    # the rarest class first and large patients before small ones: a greedy, deterministic bin packing
    for key in sorted(groups, key=lambda g: (min(rare[r.label] for r in groups[g]), -len(groups[g]), _rank(g, seed))):
        own = Counter(record.label for record in groups[key])
        loads = [(sum(n * count[c] / rare[c] for c, n in own.items()), count.total()) for count in counts]
        best = loads.index(min(loads))
        where[key] = best
        counts[best] += own
    return [tuple(record for record in ordered if where[patient_key(record)] == fold) for fold in range(k)]


def shared_patients(splits: Splits) -> tuple[str, ...]:
    """Digests of the known patients that stand in train (or holdout) and also in val or test: a leak of the input."""
    own = {record.patient for record in (*splits.train, *splits.holdout)}
    other = {record.patient for record in (*splits.test, *splits.val)}
    return tuple(sorted(patient for patient in own & other if patient is not None))


def fingerprint(records: Iterable[Record]) -> str:
    """Hex sha256 over what the records are: content, part, label, patient digest, split. Not their names or order."""
    rows = sorted(
        json.dumps([record.sha256, record.part, record.label, record.patient, record.split], ensure_ascii=True)
        for record in records
    )
    return hashlib.sha256(("mgdm-records-1\n" + "\n".join(rows)).encode()).hexdigest()


def _order(record: Record) -> tuple[str, int]:
    return record.path, -1 if record.part is None else record.part


def _rank(key: str, seed: int) -> str:
    return hashlib.sha256(f"mgdm-split|{seed}|{key}".encode("utf-8", "surrogateescape")).hexdigest()


def _target(n: int, share: float) -> int:
    return max(1, int(min(max(round(share * n), MIN_HOLDOUT), MAX_SHARE * n)))


def _patients(records: Sequence[Record]) -> dict[str, list[Record]]:
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        groups[patient_key(record)].append(record)
    return groups


def _held_out(pool: Sequence[Record], target: int, seed: int, outside: set[str]) -> set[str]:
    """Keys of the patients to set aside: each class gives its share of `target`, at least one image, never the last two patients.

    `outside`: patients of the input's own val and test; they are taken last, a holdout must be as new as a fresh image.
    """
    groups = _patients(pool)
    holders: dict[str | None, list[str]] = defaultdict(list)
    for key in sorted(groups, key=lambda g: (g in outside, _rank(g, seed))):
        for label in {record.label for record in groups[key]}:
            holders[label].append(key)
    sizes = Counter(record.label for record in pool)
    aside: set[str] = set()
    taken: Counter[str | None] = Counter()
    left = {label: len(keys) for label, keys in holders.items()}  # patients of the class that are still in train
    for label in sorted(sizes, key=lambda c: (sizes[c], natural([c or ""]))):
        wanted = max(1, round(target * sizes[label] / len(pool)))
        sized = {key: Counter(record.label for record in groups[key]) for key in holders[label]}
        smallest = min(holders[label], key=lambda g: (g in outside, sized[g][label]))
        for key in holders[label]:
            if taken[label] >= wanted:
                break
            own = sized[key]
            too_many = taken[label] + own[label] > 2 * wanted and (taken[label] > 0 or key != smallest)
            if key in aside or too_many or any(left[c] <= KEPT for c in own):
                continue
            aside.add(key)
            taken += own
            left.update({c: left[c] - 1 for c in own})
    return aside
