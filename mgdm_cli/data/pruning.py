"""Copies and contradictions among records: the same bytes twice in a class, or under two labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mgdm_cli.data.image import Record

_KEEP_FIRST = {
    "test": 0,
    "val": 1,
    "train": 2,
    None: 2,
}  # a copy in train leaves train, so that the test set stays whole


@dataclass(frozen=True)
class Duplicate:
    """The same image several times under one label: `kept` stays, `dropped` go."""

    kept: str
    dropped: tuple[str, ...]
    label: str | None
    across_splits: bool


@dataclass(frozen=True)
class Conflict:
    """The same image under several labels: none of the paths is used."""

    paths: tuple[str, ...]
    labels: tuple[str, ...]


def pruned(
    records: Iterable[Record], digests: Mapping[tuple[str, int | None], str] | None = None
) -> tuple[list[Record], tuple[Duplicate, ...], tuple[Conflict, ...]]:
    """(records with each image once and none under two labels, in their first order; what was dropped; why).

    `digests`: of the pixels, by path and part; images without one are compared by the bytes of their files.
    """
    records = list(records)
    groups: dict[tuple[str, int | None], list[Record]] = {}
    for record in records:
        own = (digests or {}).get((record.path, record.part))
        groups.setdefault((own, None) if own is not None else _identity(record), []).append(record)
    gone: set[int] = set()
    duplicates: list[Duplicate] = []
    conflicts: list[Conflict] = []
    for group in groups.values():
        if len(group) == 1:
            continue
        labels = sorted({record.label for record in group if record.label is not None})
        if len(labels) > 1:
            conflicts.append(Conflict(tuple(name_of(r) for r in group), tuple(labels)))
            gone.update(id(record) for record in group)
            continue
        kept, *dropped = sorted(group, key=lambda r: (_KEEP_FIRST[r.split], r.label is None, r.path, r.part or 0))
        across = len({_KEEP_FIRST[record.split] for record in group}) > 1
        duplicates.append(Duplicate(name_of(kept), tuple(name_of(r) for r in dropped), kept.label, across))
        gone.update(id(record) for record in dropped)
    return [record for record in records if id(record) not in gone], tuple(duplicates), tuple(conflicts)


def _identity(record: Record) -> tuple[str, int | None]:
    """The picture's bytes. A row of an npz has its own digest; a frame or slice is told by its place in the file."""
    return record.sha256, None if record.form.codec == "npz" else record.part


def name_of(record: Record) -> str:
    """Path and part, as people are told of an image."""
    return record.path if record.part is None else f"{record.path}#{record.part}"
