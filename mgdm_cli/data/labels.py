"""Where an image's label, patient and split come from: folders, a table, a pattern; and which names may be classes."""

from __future__ import annotations

import csv
import hashlib
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mgdm_cli.errors import BadInput, MissingInput, UsageError

SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
LONGEST = 64  # characters of a class name, and of its folder
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_FIRST = "=+-@"  # what a spreadsheet runs, or a command line takes for a flag
_RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?")
_STUDY = "study:"
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
    """Whether `name` may be a class: 1 to 64 printable characters of any language, no slash, no device name.

    It neither begins with a dot or one of = + - @ nor ends with a dot, and has no space at either end.
    """
    if not name.isprintable() or name != name.strip() or not 1 <= len(name) <= LONGEST:
        return False
    if name[0] in "." + _FIRST or name[-1] == "." or "/" in name or "\\" in name:
        return False
    return _RESERVED.fullmatch(name) is None


def folder_of(name: str) -> str:
    """The folder of a class's images, and how their names begin: [A-Za-z0-9._-]{1,64}.

    A plain name is its own folder. Of another one the plain characters stay, and a digest keeps it apart from names like it.
    """
    if _PLAIN.fullmatch(name):
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return re.sub(r"[^A-Za-z0-9-]+", "_", name)[: LONGEST - 9] + f"-{digest}"


def shown(text: str) -> str:
    """A name or path of the input as it is, but for characters that cannot be printed: those as escapes."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def check_classes(names: Iterable[str]) -> None:
    """Raises BadInput that lists every name which cannot be a class."""
    names = set(names)
    wrong = [name for name in natural(names) if not is_class_name(name)]
    if wrong:
        told = ", ".join(f"'{shown(name)}'" for name in wrong[:8])
        raise BadInput(
            f"class names: {told}: not usable as a class",
            f"Use 1 to {LONGEST} printable characters, no slashes, first none of . = + - @, last no dot; no names of devices. "
            "Rename the folders, or the labels where a table or a tag gives them.",
        )
    if min(len({name.casefold() for name in names}), len({folder_of(name).casefold() for name in names})) < len(names):
        raise BadInput(
            "class names: some differ only in upper and lower case", "Give them names that differ otherwise."
        )


def counts_in(balance: str) -> Iterator[tuple[str, str]]:
    """(class, count) of each part of "a=500,b=20". A name may hold = and , itself: a part ends with the first =count."""
    rest = composed(balance).strip()
    while rest:
        found = re.match(r"\s*([^\s,].*?)\s*=\s*([0-9]+)\s*(?:,|$)", rest)
        if found is None:
            part = rest.partition(",")[0].strip()
            raise UsageError(f"--balance {part!r}: not class=count", "Write it as class=500,other=20.")
        yield found[1], found[2]
        rest = rest[found.end() :]


def composed(text: str) -> str:
    """`text` with an umlaut as one character: macOS writes it into names of files and folders as two."""
    return unicodedata.normalize("NFC", text)


def split_of(path: str) -> tuple[str | None, str | None]:
    """(split, label) that the folders of a relative POSIX path say."""
    folders = PurePosixPath(path).parts[:-1]
    split = SPLITS.get(folders[0].casefold()) if folders else None
    rest = folders[1:] if split else folders
    return split, rest[0] if rest else None


def patient_digest(identity: str) -> str:
    """What stands for a patient everywhere in mgdm: the identity itself is never kept, shown or written."""
    return hashlib.sha256(b"mgdm-patient|" + composed(identity.strip()).encode("utf-8", "surrogateescape")).hexdigest()[
        :16
    ]


def study_digest(uid: str) -> str:
    """What stands for a patient where only the study of an image is known: its images stay together."""
    return _STUDY + patient_digest(uid)


def is_patient(digest: str | None) -> bool:
    """Whether a digest is that of a patient: not of a study, nor of nobody."""
    return digest is not None and not is_study(digest)


def is_study(digest: str | None) -> bool:
    """Whether a digest is that of a study."""
    return digest is not None and digest.startswith(_STUDY)


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
        surplus = [cell for cell in line.pop(None, None) or () if cell.strip()]
        if not surplus and not any((cell or "").strip() for cell in line.values()):
            continue  # spreadsheets leave lines of mere separators
        if surplus:
            wrong.append(f"line {reader.line_num}: has more cells than the header (quote what holds the separator)")
            continue
        path = _inside(line[path_column] or "")
        if path is None or path in rows:
            wrong.append(
                f"line {reader.line_num}: "
                + ("path leaves the folder" if path is None else f"{shown(path)} stands twice")
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
        raise BadInput(
            f"label table: {name}: " + "; ".join(wrong[:8]),
            f"{len(wrong)} line{'' if len(wrong) == 1 else 's'} to correct.",
        )
    return rows


def matched(table: Mapping[str, Row], files: Iterable[str]) -> dict[str, Row]:
    """The table with the names that the files have, where these differ in how characters are composed.

    What is there as it is written comes first; a name that two files could be meant by stays as it is, and so is not found."""
    there = set(files)
    alike: dict[str, list[str]] = defaultdict(list)
    for file in there - table.keys():
        alike[composed(file)].append(file)
    rows: dict[str, Row] = {}
    for path, row in table.items():
        meant = [] if path in there else alike.pop(composed(path), [])
        rows[meant[0] if len(meant) == 1 else path] = row
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


LOOKED = 20  # rows of a table that a folder is looked for by


def require_found(table: str, paths: Sequence[str], files: Sequence[str]) -> None:
    """Raises BadInput where a label table names none of the files: its paths then count from another folder."""
    there = set(files)
    if not files or not paths or any(path in there for path in paths):
        return
    hint = "Paths count from --data, as in a/1.png."
    for path in paths[:LOOKED]:
        longer = next((file for file in files if file.endswith("/" + path)), None)
        shorter = next((file for file in files if path.endswith("/" + file)), None)
        if longer is not None:
            folder = shown(longer.removesuffix("/" + path))
            hint = f"Paths count from --data: give the folder {folder} below it, or put it before the paths."
        elif shorter is not None:
            folder = shown(path.removesuffix("/" + shorter))
            hint = f"Paths count from --data: give the folder that holds {folder}, or take it off the paths."
        if longer or shorter:
            break
    raise BadInput(f"labels: {table}: none of its {len(paths)} paths is there, such as {shown(paths[0])}", hint)
