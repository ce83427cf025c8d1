"""Where an image's label, patient and split come from: folders, a table, a pattern; and which names may be classes."""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mgdm_cli.errors import BadInput, MissingInput, UsageError

SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_CLASS = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")
_RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?")
_PATH_COLUMNS = ("path", "file_name", "filename", "file", "image")


@dataclass(frozen=True)
class Row:
    """A line of a label table."""

    label: str | None
    patient: str | None
    split: str | None


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """A sort key with "2" before "10"; names that differ only in zeros or case keep a fixed order."""
    pieces = re.findall(r"\d+|\D+", name)
    key = tuple((0, int(p), "") if p.isdecimal() else (1, 0, p.casefold()) for p in pieces)
    return (*key, (-1, 0, name))


def natural(names: Iterable[str]) -> tuple[str, ...]:
    """The distinct names in natural order."""
    return tuple(sorted(set(names), key=natural_key))


def is_class_name(name: str) -> bool:
    """Whether `name` may be a class and so an output folder: [A-Za-z0-9._-]{1,64}, no leading dot, no device name."""
    if name.startswith("-") or name.endswith("."):
        return False
    return _CLASS.fullmatch(name) is not None and _RESERVED.fullmatch(name) is None


def check_classes(names: Iterable[str]) -> None:
    """Raises BadInput that lists every name which cannot be a class."""
    names = set(names)
    wrong = [name for name in natural(names) if not is_class_name(name)]
    if wrong:
        shown = ", ".join(ascii(name) for name in wrong[:8])
        raise BadInput(
            f"class names: {shown}: not usable as a folder name",
            "Use 1 to 64 of A-Z a-z 0-9 . _ - (first neither . nor -): rename the folders, or give --labels TABLE.csv.",
        )
    folded = {name.casefold() for name in names}
    if len(folded) < len(names):
        raise BadInput(
            "class names: some differ only in upper and lower case", "Give them names that differ otherwise."
        )


def split_of(path: str) -> tuple[str | None, str | None]:
    """(split, label) that the folders of a relative POSIX path say."""
    folders = PurePosixPath(path).parts[:-1]
    split = SPLITS.get(folders[0].casefold()) if folders else None
    rest = folders[1:] if split else folders
    return split, rest[0] if rest else None


def patient_digest(identity: str) -> str:
    """What stands for a patient everywhere in mgdm: the identity itself is never kept, shown or written."""
    return hashlib.sha256(b"mgdm-patient|" + identity.strip().encode("utf-8", "surrogateescape")).hexdigest()[:16]


def patient_pattern(regex: str | None) -> re.Pattern[str] | None:
    """The compiled --patient-regex."""
    if regex is None:
        return None
    try:
        return re.compile(regex)
    except re.error as fault:
        raise UsageError(
            f"--patient-regex: {regex!r}: {fault}", "Give a Python regular expression, e.g. '(P[0-9]+)_'."
        ) from fault


def patient_in(path: str, pattern: re.Pattern[str]) -> str | None:
    """The patient that `pattern` finds in a relative path: its first group, or the whole match."""
    found = pattern.search(path)
    if found is None:
        return None
    return (found.group(1) if pattern.groups else found.group(0)) or None


def read_table(table: Path) -> dict[str, Row]:
    """{relative POSIX path: Row} of a CSV (comma, semicolon or tab) with columns path, label[, patient, split]."""
    if not table.is_file():
        raise MissingInput(f"label table: {table.name}: no such file", "Give --labels an existing CSV file.")
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            delimiter = max(",;\t", key=first.count)
            file.seek(0)
            return _rows(csv.DictReader(file, delimiter=delimiter), table.name)
    except UnicodeDecodeError as fault:
        raise BadInput(f"label table: {table.name}: is not UTF-8 text", "Save it as UTF-8 CSV.") from fault
    except csv.Error as fault:
        raise BadInput(f"label table: {table.name}: {fault}", "Save it as plain CSV.") from fault


def _rows(reader: csv.DictReader[str], name: str) -> dict[str, Row]:
    columns = {(column or "").strip().casefold(): column for column in reader.fieldnames or ()}
    path_column = next((columns[c] for c in _PATH_COLUMNS if c in columns), None)
    if path_column is None or "label" not in columns:
        found = ", ".join(columns) or "none"
        raise BadInput(f"label table: {name}: columns are {found}", "It needs the columns path and label.")
    rows: dict[str, Row] = {}
    wrong: list[str] = []
    for line in reader:
        path = _inside(line[path_column] or "")
        if path is None or path in rows:
            wrong.append(
                f"line {reader.line_num}: " + ("path leaves the folder" if path is None else "path stands twice")
            )
            continue
        values = {
            key: (line.get(columns[key]) or "").strip() or None
            for key in ("label", "patient", "split")
            if key in columns
        }
        split = values.get("split")
        if split is not None and split.casefold() not in SPLITS:
            wrong.append(f"line {reader.line_num}: split is none of train, val, test")
            continue
        rows[path] = Row(values["label"], values.get("patient"), SPLITS[split.casefold()] if split else None)
    if wrong:
        raise BadInput(f"label table: {name}: " + "; ".join(wrong[:8]), f"{len(wrong)} lines to correct.")
    return rows


def _inside(path: str) -> str | None:
    """The path in POSIX form, or None where it is absolute, empty, holds control characters or climbs out."""
    path = path.strip().replace("\\", "/").removeprefix("./")
    pure = PurePosixPath(path)
    bad = (
        not path
        or pure.is_absolute()
        or ".." in pure.parts
        or any(ord(c) < 32 for c in path)
        or re.match(r"[A-Za-z]:", path)
    )
    return None if bad else str(pure)
