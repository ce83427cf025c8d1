"""A folder of images -> Scan: every file looked at once; labels, patients, splits, duplicates, conflicts.

Pixels are not decoded here. Nothing is skipped silently: a file is a record, refused with a reason, or counted in a
note.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from mgdm_cli.data import walking
from mgdm_cli.data.codecs import Ask, Codec, Part, codec_of, sniff
from mgdm_cli.data.image import Image, Record
from mgdm_cli.data.labels import (
    Row,
    check_classes,
    natural,
    patient_digest,
    patient_in,
    patient_pattern,
    read_table,
    split_of,
)
from mgdm_cli.data.pruning import Conflict, Duplicate, pruned
from mgdm_cli.errors import BadInput, MgdmError, MissingInput, UsageError

__all__ = ["Conflict", "Duplicate", "Refused", "Scan", "learnt", "read", "read_pixels", "scan"]

SLICES = ("axial", "coronal", "sagittal")
FRAMES = ("first", "all")
MAX_CONFLICTS = 0.05
_NAMES = {"png": (".png",), "jpeg": (".jpg", ".jpeg", ".jpe"), "tiff": (".tif", ".tiff")}
_KNOWN_NAMES = (*(n for names in _NAMES.values() for n in names), ".dcm", ".nii", ".npz")


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


@dataclass(frozen=True)
class _Settings:
    ask: Ask
    frames: str | None
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
    tell: Callable[[int, int], None] | None = None,
) -> Scan:
    """Every image below `root` (or in the one file `root`). `tell(done, total)` hears of every file.

    MissingInput: no such folder, or nothing readable in it. BadInput: refused files, all listed (with `skip_bad` only
    when more than `max_skip` of the files are); names that cannot be classes; over 5 % of the images under two labels.
    """
    settings = _settings(labels, label_tag, patient_regex, frames, slices, allow_synthetic, allow_burned_in)
    base, files, refused, notes = _files(root, labels)
    records: list[Record] = []
    for done, path in enumerate(files):
        try:
            records += _records(base, path, settings)
        except MgdmError as fault:
            refused.append(Refused(path, fault.message + (f" ({fault.hint})" if fault.hint else "")))
        if tell is not None:
            tell(done + 1, len(files))
    refused += _rows_without_file(settings.table, files)
    _judge(refused, len(files), skip_bad, max_skip)
    kept, duplicates, conflicts = pruned(records)
    _judge_conflicts(conflicts, len(records))
    classes = natural(r.label for r in learnt(kept) if r.label is not None)
    check_classes(r.label for r in kept if r.label is not None)
    notes += _notes(base, kept, duplicates, conflicts, refused, settings, classes)
    return Scan(base, tuple(kept), tuple(refused), duplicates, conflicts, classes, tuple(notes))


def learnt(records: list[Record] | tuple[Record, ...]) -> list[Record]:
    """The records that may be learnt from: those of the train split, and all where the folder has no splits."""
    return [record for record in records if record.split in (None, "train")]


def read_pixels(scan: Scan, record: Record) -> Image:
    """The decoded image of a record of `scan`."""
    return read(scan.root, record)


def read(root: Path, record: Record) -> Image:
    """The decoded image of `record` below `root`; BadInput names the file where it cannot be decoded."""
    base = root if root.is_dir() else root.parent
    try:
        image = codec_of(record.form.codec).read(base / record.path, record.part)
    except MgdmError as fault:
        raise type(fault)(f"image: {record.path}: {fault.message}", fault.hint, exit_code=fault.exit_code) from fault
    if image.pixels.shape != (record.form.channels, record.form.height, record.form.width):
        raise BadInput(f"image: {record.path}: its pixels are not of the size that its header says", "Export it again.")
    return image


def _settings(
    labels: Path | None,
    label_tag: str | None,
    patient_regex: str | None,
    frames: str | None,
    slices: str | None,
    allow_synthetic: bool,
    allow_burned_in: bool,
) -> _Settings:
    if slices is not None and slices not in SLICES:
        raise UsageError(f"--slices: {slices!r} is not known", "Choose axial, coronal or sagittal.")
    if frames is not None and frames not in FRAMES:
        raise UsageError(f"--frames: {frames!r} is not known", "Choose first or all.")
    if labels is not None and label_tag is not None:
        raise UsageError("--labels and --label-tag exclude each other", "Give one of them.")
    table = read_table(labels) if labels is not None else None
    ask = Ask(slices, label_tag)
    return _Settings(ask, frames, patient_pattern(patient_regex), table, allow_synthetic, allow_burned_in)


def _files(root: Path, labels: Path | None) -> tuple[Path, list[str], list[Refused], list[str]]:
    """(folder, candidate files relative to it, files refused unopened, notes)."""
    if not root.exists():
        raise MissingInput(f"input: {root.name}: no such folder", "Check the path given to --data.")
    if root.is_file():
        return root.resolve().parent, [root.resolve().name], [], []
    base = root.resolve()
    found = walking.walk(base)
    own = labels.resolve() if labels is not None else None
    files = [path for path in found.files if own is None or base / path != own]
    refused = [Refused(path, why) for path, why in found.refused]
    notes = [f"{found.others} other files were left aside (texts, tables, hidden files)"] if found.others else []
    if not files and not refused:
        looked = "PNG, JPEG, TIFF, DICOM, NIfTI, npz"
        raise MissingInput(f"input: {root.name}: holds no readable images (looked for {looked})", "Check --data.")
    return base, files, refused, notes


def _records(base: Path, path: str, settings: _Settings) -> list[Record]:
    file = base / path
    codec = sniff(file)
    if codec is None:
        raise BadInput("is not a PNG, JPEG, TIFF, DICOM, NIfTI or npz file")
    parts = _chosen(codec, codec.parts(file, settings.ask), settings)
    if not settings.allow_synthetic and any("synthetic" in part.flags for part in parts):
        raise BadInput(
            "is marked as synthetic", "--allow-synthetic-input learns from generated images, and records it."
        )
    if not settings.allow_burned_in and any("burned-in" in part.flags for part in parts):
        raise BadInput("may show patient text: its header says BurnedInAnnotation YES", "--allow-burned-in accepts it.")
    row = None
    if settings.table is not None:
        row = settings.table.get(path)
        if row is None:
            raise BadInput("has no row in the label table")
    sha256 = "" if all(part.sha256 for part in parts) else _sha256(file)
    return [_record(path, part, row, settings, sha256) for part in parts]


def _chosen(codec: Codec, parts: list[Part], settings: _Settings) -> list[Part]:
    """The parts that are images of the set: all rows and slices; of frames, what --frames says."""
    if not parts:
        raise BadInput("holds no image")
    if len(parts) == 1 or codec.NAMES[0] in ("npz", "nifti"):
        return parts
    if settings.frames is None:
        raise BadInput(f"has {len(parts)} frames", "Choose --frames first or --frames all.")
    return parts if settings.frames == "all" else parts[:1]


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
    return Record(path, label, patient, split, part.form, part.sha256 or sha256, part.index)


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _rows_without_file(table: dict[str, Row] | None, files: list[str]) -> list[Refused]:
    there = set(files)
    return [Refused(path, "stands in the label table but is not there") for path in table or {} if path not in there]


def _judge(refused: list[Refused], total: int, skip_bad: bool, max_skip: float) -> None:
    if not refused:
        return
    refused.sort(key=lambda r: r.path)
    if skip_bad and len(refused) <= max_skip * max(total, 1):
        return
    shown = "\n".join(f"  {ascii(r.path)[1:-1]}: {r.why}" for r in refused)
    head = f"input: {len(refused)} of {total} files cannot be used"
    if skip_bad:
        raise BadInput(f"{head}, more than --max-skip {max_skip:g}:\n{shown}", "Correct the files or raise --max-skip.")
    raise BadInput(f"{head}:\n{shown}", "Correct or remove them, or give --skip-bad to go on without them.")


def _judge_conflicts(conflicts: tuple[Conflict, ...], images: int) -> None:
    count = sum(len(conflict.paths) for conflict in conflicts)
    if count > MAX_CONFLICTS * max(images, 1):
        shown = "\n".join("  " + " = ".join(conflict.paths) for conflict in conflicts[:20])
        raise BadInput(
            f"labels: {count} of {images} images stand under two labels:\n{shown}",
            "Correct the labels of these images.",
        )


def _notes(
    base: Path,
    records: list[Record],
    duplicates: tuple[Duplicate, ...],
    conflicts: tuple[Conflict, ...],
    refused: list[Refused],
    settings: _Settings,
    classes: tuple[str, ...],
) -> list[str]:
    notes: list[str] = []
    if refused:
        notes.append(f"{len(refused)} files were skipped because they cannot be read")
    if duplicates:
        notes.append(f"{sum(len(d.dropped) for d in duplicates)} copies of other images were left out")
    leaks = sum(d.across_splits for d in duplicates)
    if leaks:
        notes.append(f"{leaks} images stood in train and in val or test: they are kept outside train")
    if conflicts:
        notes.append(f"{len(conflicts)} images stand under two labels and were left out of every class")
    unlabelled = sum(record.label is None for record in records)
    if unlabelled and classes:
        notes.append(f"{unlabelled} images have no label")
    if settings.pattern is not None:
        missed = sum(patient_in(record.path, settings.pattern) is None for record in records)
        notes += [f"--patient-regex finds no patient in {missed} paths"] if missed else []
    if records and any(record.patient is None for record in records):
        notes.append(
            "patients are not known for every image: each such file counts as a patient, leakage cannot be excluded"
        )
    seen = {record.split for record in records}
    if None in seen and len(seen) > 1:
        notes.append("some images lie outside the train, val and test folders: they are learnt from")
    strange = natural(r.label for r in records if r.label is not None and r.label not in classes)
    if strange:
        notes.append("classes without a training image: " + ", ".join(strange))
    misnamed = Counter(r.form.codec for r in records if _misnamed(r))
    notes += [
        f"{count} files are {kind.upper()} under another format's name" for kind, count in sorted(misnamed.items())
    ]
    sizes = {(r.form.height, r.form.width) for r in records}
    notes += [f"images differ in size ({len(sizes)} sizes): give --size"] if len(sizes) > 1 else []
    kinds = {(r.form.dtype, r.form.channels) for r in records}
    notes += [f"images differ in depth or channels ({len(kinds)} kinds)"] if len(kinds) > 1 else []
    return notes


def _misnamed(record: Record) -> bool:
    suffix = PurePosixPath(record.path).suffix.casefold()
    return suffix in _KNOWN_NAMES and record.form.codec in _NAMES and suffix not in _NAMES[record.form.codec]


def without(scan: Scan, refused: list[Refused]) -> Scan:
    """`scan` without the records of files that were refused later, when they were decoded."""
    gone = {r.path for r in refused}
    records = tuple(record for record in scan.records if record.path not in gone)
    return replace(scan, records=records, refused=(*scan.refused, *refused))
