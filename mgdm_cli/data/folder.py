"""A folder of images -> Scan: every file looked at once; labels, patients, splits, duplicates, conflicts.

Nothing is skipped silently: a file is a record, refused with a reason, or counted in a note. Files that strangers may
have made are looked at by `workers`; without them, in this process.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mgdm_cli.data import walking
from mgdm_cli.data.codecs import Ask, Part, codec_of
from mgdm_cli.data.codecs.base import MAX_BYTES, NOTHING
from mgdm_cli.data.image import Image, Record
from mgdm_cli.data.labels import (
    Row,
    check_classes,
    composed,
    matched,
    natural,
    patient_digest,
    patient_in,
    patient_pattern,
    read_table,
    require_found,
    shown,
    split_of,
)
from mgdm_cli.data.noting import notes as noted
from mgdm_cli.data.proving import Proof, Sight, Wish, check_shape, prove
from mgdm_cli.data.pruning import Conflict, Duplicate, name_of, pruned
from mgdm_cli.data.series import Series, series_notes, series_of
from mgdm_cli.data.workers import Limits, proofs
from mgdm_cli.errors import BadInput, MgdmError, MissingInput, UsageError

__all__ = ["Conflict", "Duplicate", "Refused", "Scan", "learnt", "read", "read_pixels", "scan"]

SLICES = ("axial", "coronal", "sagittal")
FRAMES = ("first", "all")
MAX_CONFLICTS = 0.05


@dataclass(frozen=True)
class Refused:
    """A file that cannot be used. `path` is relative to the input."""

    path: str
    why: str


@dataclass(frozen=True)
class Scan:
    """What a folder holds. `classes` are those of the images that are learnt from, in natural order."""

    root: Path
    records: tuple[Record, ...]
    refused: tuple[Refused, ...]
    duplicates: tuple[Duplicate, ...]
    conflicts: tuple[Conflict, ...]
    classes: tuple[str, ...]
    notes: tuple[str, ...]
    ask: Ask = NOTHING  # how its files are read
    series: tuple[Series, ...] = ()
    seen: Seen | None = None  # None where nothing was decoded


@dataclass(frozen=True)
class Seen:
    """What decoding showed: images of a single value; the lowest and the highest value, in physical units."""

    blank: tuple[str, ...]
    lowest: float
    highest: float


@dataclass(frozen=True)
class _Settings:
    ask: Ask
    pattern: re.Pattern[str] | None
    table: dict[str, Row] | None
    allow_synthetic: bool
    allow_burned_in: bool


def scan(
    root: Path,
    *,
    labels: Path | None = None,
    label_tag: str | None = None,
    patient_regex: str | None = None,
    frames: str | None = None,
    slices: str | None = None,
    skip_bad: bool = False,
    max_skip: float = 0.05,
    allow_synthetic: bool = False,
    allow_burned_in: bool = False,
    max_file_size: int = MAX_BYTES,
    nan: float | None = None,
    voi: bool = False,
    decode: bool = False,
    require_match: bool = True,
    limits: Limits | None = None,
    tell: Callable[[int, int], None] | None = None,
) -> Scan:
    """Every image below `root` (or in the one file `root`). `tell(done, total)` hears of every file.

    `decode` proves that every image can be decoded, and finds copies by their pixels; `limits` has the files looked at
    in processes of their own. MissingInput: no such folder, or nothing readable in it. BadInput: refused files, all
    listed (with `skip_bad` only when more than `max_skip` of the files are); names that cannot be classes; over 5 % of
    the images under two labels, or blank. UsageError: a `patient_regex` that finds nobody, if `require_match`.
    """
    ask = Ask(slices, label_tag, max_file_size, nan, voi, frames)
    settings = _settings(ask, labels, patient_regex, allow_synthetic, allow_burned_in)
    base, files, refused, notes = _files(root, labels)
    if settings.table is not None and labels is not None:
        table = matched(settings.table, files)
        require_found(labels.name, list(table), files)
        settings = replace(settings, table=table)
    if require_match:
        _require_match(settings.pattern, files)
    records: list[Record] = []
    sights: dict[tuple[str, int | None], Sight] = {}
    groups: list[tuple[str, Record]] = []
    for path, found in zip(files, _proofs(base, files, Wish(ask, decode), limits, tell), strict=True):
        try:
            if isinstance(found, MgdmError):
                raise found
            own = _records(path, found, settings)
        except UsageError:
            raise
        except MgdmError as fault:
            refused.append(Refused(path, fault.message + (f" ({fault.hint})" if fault.hint else "")))
            continue
        records += own
        sights |= {(path, record.part): sight for record, sight in zip(own, found.sights or (), strict=False)}
        groups += [(part.group, record) for record, part in zip(own, found.parts, strict=True) if part.group]
    refused += _rows_without_file(settings.table, files)
    _judge(refused, len(files), skip_bad, max_skip)
    kept, duplicates, conflicts = pruned(records, {k: s.digest for k, s in sights.items() if not s.blank})
    _judge_conflicts(conflicts, len(records))
    seen = _seen(kept, sights) if decode and kept else None
    classes = natural(r.label for r in learnt(kept) if r.label is not None)
    check_classes(r.label for r in kept if r.label is not None)
    series = series_of(groups)
    notes += noted(kept, duplicates, conflicts, len(refused), classes, settings.pattern) + series_notes(series)
    return Scan(base, tuple(kept), tuple(refused), duplicates, conflicts, classes, tuple(notes), ask, series, seen)


def _proofs(
    base: Path, files: list[str], wish: Wish, limits: Limits | None, tell: Callable[[int, int], None] | None
) -> Sequence[Proof | MgdmError]:
    if limits is not None:
        return proofs([base / path for path in files], wish, limits, tell=tell)
    found: list[Proof | MgdmError] = []
    for path in files:
        try:
            found.append(prove(base / path, wish))
        except MgdmError as fault:
            found.append(fault)
        if tell is not None:
            tell(len(found), len(files))
    return found


def _seen(records: list[Record], sights: dict[tuple[str, int | None], Sight]) -> Seen:
    own = [(record, sights[record.path, record.part]) for record in records]
    blank = tuple(name_of(record) for record, sight in own if sight.blank)
    return Seen(blank, min(sight.low for _, sight in own), max(sight.high for _, sight in own))


def learnt(records: list[Record] | tuple[Record, ...]) -> list[Record]:
    """The records that may be learnt from: those of the train split, and all where the folder has no splits."""
    return [record for record in records if record.split in (None, "train")]


def read_pixels(scan: Scan, record: Record) -> Image:
    """The decoded image of a record of `scan`."""
    return read(scan.root, record, scan.ask)


def read(root: Path, record: Record, ask: Ask = NOTHING) -> Image:
    """The decoded image of `record` below `root`; BadInput names the file where it cannot be decoded."""
    base = root if root.is_dir() else root.parent
    try:
        image = codec_of(record.form.codec).read(base / record.path, record.part, ask)
        check_shape(image, record.form)
    except MgdmError as fault:
        raise type(fault)(f"image: {record.path}: {fault.message}", fault.hint, exit_code=fault.exit_code) from fault
    return image


def _settings(
    ask: Ask, labels: Path | None, patient_regex: str | None, allow_synthetic: bool, allow_burned_in: bool
) -> _Settings:
    if ask.slices is not None and ask.slices not in SLICES:
        raise UsageError(f"--slices: {ask.slices!r} is not known", "Choose axial, coronal or sagittal.")
    if ask.frames is not None and ask.frames not in FRAMES:
        raise UsageError(f"--frames: {ask.frames!r} is not known", "Choose first or all.")
    if labels is not None and ask.label_tag is not None:
        raise UsageError("--labels and --label-tag exclude each other", "Give one of them.")
    table = read_table(labels) if labels is not None else None
    return _Settings(ask, patient_pattern(patient_regex), table, allow_synthetic, allow_burned_in)


def _require_match(pattern: re.Pattern[str] | None, files: list[str]) -> None:
    """A pattern that finds nobody is a slip: without patients, what looks like a split by them is none."""
    if pattern is not None and files and not any(patient_in(path, pattern) for path in files):
        raise UsageError(
            f"--patient-regex: {pattern.pattern!r} finds no patient in any path, such as {shown(files[0])}",
            "Paths are looked at as they lie below the folder. Correct the expression, or leave it out.",
        )


def _files(root: Path, labels: Path | None) -> tuple[Path, list[str], list[Refused], list[str]]:
    """(folder, candidate files relative to it, files refused unopened, notes)."""
    if not root.exists():
        raise MissingInput(f"input: {root.name}: no such folder", "Check the path given to --data.")
    if root.is_file():
        if walking.is_archive(root):
            raise UsageError(
                f"input: {root.name}: is an archive, which is not opened", "Unpack it, and give the folder."
            )
        return root.resolve().parent, [root.resolve().name], [], []
    base = root.resolve()
    found = walking.walk(base)
    own = labels.resolve() if labels is not None else None
    files = [path for path in found.files if own is None or base / path != own]
    refused = [Refused(path, why) for path, why in found.refused]
    notes = (
        [f"{found.others} other files were left aside (texts, tables, hidden files and folders)"]
        if found.others
        else []
    )
    if not files and not refused:
        looked = "PNG, JPEG, TIFF, DICOM, NIfTI, npz"
        raise MissingInput(f"input: {root.name}: holds no readable images (looked for {looked})", "Check --data.")
    return base, files, refused, notes


def _records(path: str, proof: Proof, settings: _Settings) -> list[Record]:
    if not settings.allow_synthetic and any("synthetic" in part.flags for part in proof.parts):
        raise BadInput(
            "is marked as synthetic", "--allow-synthetic-input learns from generated images, and records it."
        )
    if not settings.allow_burned_in and any("burned-in" in part.flags for part in proof.parts):
        raise BadInput("may show patient text: its header says so", "--allow-burned-in accepts it.")
    row = None
    if settings.table is not None:
        row = settings.table.get(path)
        if row is None:
            raise BadInput("has no row in the label table")
    return [_record(path, part, row, settings, proof.sha256) for part in proof.parts]


def _record(path: str, part: Part, row: Row | None, settings: _Settings, sha256: str) -> Record:
    split, label = split_of(path)
    patient = part.patient
    if settings.pattern is not None:
        found = patient_in(path, settings.pattern)
        patient = patient_digest(found) if found is not None else patient
    if settings.ask.label_tag is not None or part.label is not None:
        label = part.label
    split = part.split or split
    if row is not None:
        label, split = row.label, row.split or split
        patient = patient_digest(row.patient) if row.patient else patient
    if label is not None:
        label = composed(label)
    return Record(path, label, patient, split, part.form, part.sha256 or sha256, part.index)


def _rows_without_file(table: dict[str, Row] | None, files: list[str]) -> list[Refused]:
    there = set(files)
    return [Refused(path, "stands in the label table but is not there") for path in table or {} if path not in there]


def _judge(refused: list[Refused], total: int, skip_bad: bool, max_skip: float) -> None:
    if not refused:
        return
    refused.sort(key=lambda r: r.path)
    if skip_bad and len(refused) <= max_skip * max(total, 1):
        return
    told = "\n".join(f"  {shown(r.path)}: {r.why}" for r in refused)
    head = f"input: {len(refused)} of {total} files cannot be used"
    if skip_bad:
        raise BadInput(f"{head}, more than --max-skip {max_skip:g}:\n{told}", "Correct the files or raise --max-skip.")
    raise BadInput(f"{head}:\n{told}", "Correct or remove them, or give --skip-bad to go on without them.")


def _judge_conflicts(conflicts: tuple[Conflict, ...], images: int) -> None:
    count = sum(len(conflict.paths) for conflict in conflicts)
    if count > MAX_CONFLICTS * max(images, 1):
        told = "\n".join("  " + " = ".join(conflict.paths) for conflict in conflicts[:20])
        raise BadInput(
            f"labels: {count} of {images} images stand under two labels:\n{told}",
            "Correct the labels of these images.",
        )
