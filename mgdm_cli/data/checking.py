"""Is a data set what it says it is? Every file hashed, every mark read back, manifest and folder compared both ways."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from mgdm_cli.data.dataset import DONE, HOUSE, JOURNAL, PAGE, PAGE_SHA256, PLAN, RECORD
from mgdm_cli.data.files import Journal, sha256_file, sha256_hex
from mgdm_cli.data.manifest import BlockRow, Entry, load
from mgdm_cli.data.marked import lacking
from mgdm_cli.data.papers import sidecar_path
from mgdm_cli.data.plan import Lot, Plan, read_plan
from mgdm_cli.errors import BadInput, MgdmError, MissingInput

METADATA = "images/metadata.csv"


@dataclass(frozen=True)
class Problem:
    """Something that is not as it was written. `path` is relative to the data set."""

    path: str
    what: str


@dataclass(frozen=True)
class Verdict:
    """What `check` found. No problems means: byte for byte what the run wrote."""

    plan: Plan
    shard: tuple[int, int]
    finished: bool
    entries: tuple[Entry, ...]
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]

    @property
    def made(self) -> dict[str, int]:
        """Accepted images of each class, class order."""
        counts = Counter(entry.label for entry in self.entries)
        return {label: counts[label] for label in self.plan.classes}

    @property
    def planned(self) -> dict[str, int]:
        """Planned images of each class in this folder (of a shard, its own lots)."""
        counts = dict.fromkeys(self.plan.classes, 0)
        for lot in self.plan.share(self.shard):
            counts[lot.label] += lot.quota
        return counts


def open_plan(root: Path) -> Plan:
    """The plan of the data set at `root`. Raises MissingInput, BadInput."""
    try:
        return read_plan((root / PLAN).read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MissingInput(f"{root.name}: holds no {PLAN}", "Give the output folder of mgdm augment.") from error
    except MgdmError as error:
        raise BadInput(error.message, "Restore plan.json: everything else is judged by it.") from error


def check(root: Path, *, seen: Callable[[int], None] = lambda count: None) -> Verdict:
    """The verdict on the data set at `root`; `seen(1)` is called for every image. Raises MissingInput, BadInput."""
    plan = open_plan(root)
    problems, notes = [], []
    shard, finished = (1, 1), False
    if (root / DONE).exists():
        shard, found = _done(root, plan)
        problems += found
        problems += _page(root)
        finished = True
    elif (root / HOUSE).is_dir():
        problems.append(Problem(DONE, "the data set is not finished: the command that makes it continues"))
    else:
        notes.append(f"no {HOUSE} here: the papers beside the images are not checked")
    if not (root / "manifest.jsonl").exists():
        problems.append(Problem("manifest.jsonl", "is missing"))
        return Verdict(plan, shard, finished, (), tuple(problems), tuple(notes))
    entries = load(root)
    problems += _rows(plan, plan.share(shard), entries)
    for entry in entries:
        problems += _image(root, entry)
        seen(1)
    problems += _strangers(root, entries)
    problems += _journal(root, entries, notes)
    return Verdict(plan, shard, finished, entries, tuple(problems), tuple(notes))


def _done(root: Path, plan: Plan) -> tuple[tuple[int, int], list[Problem]]:
    """The shard that the done marker names, and the papers that differ from it."""
    try:
        done = json.loads((root / DONE).read_bytes())
        k, n = done["shard"]
        files = dict(done["files"])
        if done["plan"] != plan.run:
            return (k, n), [Problem(DONE, "belongs to another plan")]
    except (ValueError, KeyError, TypeError):
        return (1, 1), [Problem(DONE, "is damaged")]
    return (k, n), [problem for name, digest in files.items() for problem in _same(root, name, digest)]


def _page(root: Path) -> list[Problem]:
    """The report where it differs from the record of the run; a run without one, or made before, has no hash of it."""
    try:
        digest = json.loads((root / RECORD).read_bytes()).get(PAGE_SHA256)
    except OSError:
        return []
    except (ValueError, AttributeError):
        return [Problem(RECORD, "is damaged")]
    return [] if digest is None else _same(root, PAGE, str(digest))


def _same(root: Path, name: str, digest: str) -> list[Problem]:
    try:
        changed = sha256_file(root / name) != digest
    except OSError:
        return [Problem(name, "is missing")]
    return [Problem(name, "was changed after it was written")] if changed else []


def _rows(plan: Plan, lots: Sequence[Lot], entries: Sequence[Entry]) -> Iterator[Problem]:
    """Rows that contradict the plan or one another."""
    at = {lot.first + rank: (lot, rank) for lot in lots for rank in range(lot.quota)}
    paths: set[str] = set()
    contents: dict[str, str] = {}
    for entry in entries:
        lot, rank = at.get(entry.index, (None, 0))
        if lot is None:
            yield Problem(entry.path, "its row in manifest.jsonl is not of this plan")
        elif (entry.path, entry.id, entry.label, entry.class_index) != (
            plan.image_path(lot, rank),
            plan.image_id(lot, rank),
            lot.label,
            lot.class_index,
        ):
            yield Problem(entry.path, "its row in manifest.jsonl names another label, id or path than the plan")
        if entry.path in paths:
            yield Problem(entry.path, "stands twice in manifest.jsonl")
        elif entry.sha256 in contents:
            yield Problem(entry.path, f"is byte for byte {contents[entry.sha256]}")
        paths.add(entry.path)
        contents.setdefault(entry.sha256, entry.path)


def _image(root: Path, entry: Entry) -> Iterator[Problem]:
    path = root / entry.path
    if path.is_symlink() or not path.is_file() or not path.resolve().is_relative_to(root.resolve()):
        yield Problem(entry.path, "is missing" if not path.is_symlink() else "is a link, not a file")
        return
    data = path.read_bytes()
    if len(data) != entry.bytes:
        yield Problem(entry.path, f"has {len(data)} bytes, not {entry.bytes}")
    elif sha256_hex(data) != entry.sha256:
        yield Problem(entry.path, "was changed after it was written")
    for mark in lacking(data):
        yield Problem(entry.path, f"lacks {mark}")


def _strangers(root: Path, entries: Sequence[Entry]) -> Iterator[Problem]:
    """Files below images/ that no row names; hidden ones are a file manager's."""
    known = {entry.path for entry in entries} | {METADATA}
    known |= {name for entry in entries if (name := sidecar_path(entry.path)) is not None}
    for path in sorted((root / "images").rglob("*")):
        name = path.relative_to(root).as_posix()
        if name not in known and "/." not in name and not path.is_dir():
            yield Problem(name, "is not in manifest.jsonl")


def _journal(root: Path, entries: Sequence[Entry], notes: list[str]) -> Iterator[Problem]:
    """Where the journal is at hand: rows of the manifest that it does not hold, and extra files that changed."""
    if not (root / JOURNAL).exists():
        return
    try:
        rows = [BlockRow.model_validate(line) for line in Journal(root / JOURNAL).read()]
    except ValidationError:
        yield Problem(JOURNAL, "is damaged")
        return
    blocks = {(row.lot, row.attempt): row for row in rows}
    written = {entry.index: entry for row in blocks.values() for entry in row.accepted}
    for entry in entries:
        if written.pop(entry.index, None) != entry:
            yield Problem(entry.path, "its row in manifest.jsonl is not the one of the journal")
    for entry in written.values():
        yield Problem(entry.path, "is in the journal and not in manifest.jsonl")
    extra = [pair for row in blocks.values() for pair in row.files.items() if pair[0].startswith(f"{HOUSE}/")]
    if extra and not (root / HOUSE / "pictures").is_dir():
        notes.append("the pictures of .mgdm are gone: the report cannot be drawn again")
        return
    for name, digest in extra:
        yield from _same(root, name, digest)


def choose(entries: Sequence[Entry], count: int) -> tuple[Entry, ...]:
    """`count` entries to make again: the ones with the smallest hashes, so that nobody picks them."""
    return tuple(sorted(entries, key=lambda entry: entry.sha256)[:count])
