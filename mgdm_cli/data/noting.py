"""What a person should know of a scanned folder although it stops nothing."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from mgdm_cli.data.image import Record
from mgdm_cli.data.labels import is_patient, is_study, natural, patient_in
from mgdm_cli.data.pruning import Conflict, Duplicate

_NAMES = {"png": (".png",), "jpeg": (".jpg", ".jpeg", ".jpe"), "tiff": (".tif", ".tiff")}
_KIND = {suffix: kind for kind, suffixes in _NAMES.items() for suffix in suffixes}
_KIND |= {".dcm": "dicom", ".nii": "nifti", ".npz": "npz"}
SHOWN = 5  # of a list in one note
SAME_LENGTH = 1.02  # lengths that differ by less are no other scale
UNKNOWN_PATIENTS = "patients are not known for every image: each such file, or DICOM study, counts as a patient, leakage cannot be excluded"


def notes(
    records: Sequence[Record],
    duplicates: Sequence[Duplicate],
    conflicts: Sequence[Conflict],
    skipped: int,
    classes: Sequence[str],
    pattern: re.Pattern[str] | None = None,
) -> list[str]:
    """One line for each thing that is odd about a set."""
    found: list[str] = []
    if skipped:
        found.append(f"{several(skipped, 'file')} cannot be used")
    if duplicates:
        found.append(f"{sum(len(d.dropped) for d in duplicates)} copies of other images were left out")
    leaks = sum(d.across_splits for d in duplicates)
    if leaks:
        found.append(f"{leaks} images stood in train and in val or test: they are kept outside train")
    if conflicts:
        stand = "image stands" if len(conflicts) == 1 else "images stand"
        found.append(f"{len(conflicts)} {stand} under two labels, left out of every class")
    unlabelled = [record.path for record in records if record.label is None]
    if unlabelled and classes:
        found.append(f"{several(len(unlabelled), 'image')} without a label: {some(unlabelled)}")
    if pattern is not None:
        missed = sum(patient_in(record.path, pattern) is None for record in records)
        found += [f"--patient-regex finds no patient in {several(missed, 'path')}"] if missed else []
    if not all(is_patient(record.patient) for record in records):
        found.append(UNKNOWN_PATIENTS)
    by_study = sum(is_study(record.patient) for record in records)
    if by_study:
        found.append(f"{several(by_study, 'image')} without a patient in the header, told apart by study only")
    seen = {record.split for record in records}
    if None in seen and len(seen) > 1:
        found.append("some images lie outside the train, val and test folders: they are learnt from")
    strange = natural(r.label for r in records if r.label is not None and r.label not in classes)
    if strange:
        found.append("classes without a training image: " + ", ".join(strange))
    return found + _misnamed(records) + _mixed(records) + _compressed(records)


def _misnamed(records: Sequence[Record]) -> list[str]:
    wrong: dict[tuple[str, str], list[str]] = {}
    for record in records:
        said, true = _KIND.get(PurePosixPath(record.path).suffix.casefold()), record.form.codec
        if said is not None and said != true:
            wrong.setdefault((true, said), []).append(record.path)
    return [
        f"{several(len(paths), 'file')} {'is' if len(paths) == 1 else 'are'} {true.upper()}, not {said.upper()} as "
        f"{'its name says' if len(paths) == 1 else 'their names say'}: {some(paths)}"
        for (true, said), paths in sorted(wrong.items())
    ]


def _mixed(records: Sequence[Record]) -> list[str]:
    sizes = Counter(f"{r.form.height}x{r.form.width}" for r in records)
    kinds = Counter(f"{r.form.dtype} with {r.form.channels} channel{'s' * (r.form.channels > 1)}" for r in records)
    found = [f"images differ in size ({_table(sizes)}): give --size"] if len(sizes) > 1 else []
    found += [f"images differ in depth or channels ({_table(kinds)})"] if len(kinds) > 1 else []
    sides = [max(f.height * f.spacing_mm[0], f.width * f.spacing_mm[1]) for r in records if (f := r.form).spacing_mm]
    if sides and max(sides) > SAME_LENGTH * min(sides):
        ends = f"{min(sides):.3g} to {max(sides):.3g} mm"
        found.append(f"the longer sides of the images are {ends}: made images say the median pixel spacing")
    return found


def _compressed(records: Sequence[Record]) -> list[str]:
    """Where JPEG is mixed with what loses nothing, its blocks may tell the class."""
    lossy: dict[str | None, list[bool]] = {}
    for record in records:
        lossy.setdefault(record.label, []).append(record.form.codec == "jpeg")
    shares = [sum(own) / len(own) for own in lossy.values()]
    if not shares or max(shares) == min(shares):
        return []
    told = ", ".join(f"{sum(own)} of {len(own)} of {name}" for name, own in lossy.items())
    return [f"some images are JPEG, not alike in all classes ({told}): traces of compression may be taken for a class"]


def _table(counts: Counter[str]) -> str:
    shown = ", ".join(f"{count} of {name}" for name, count in counts.most_common(SHOWN))
    return shown + (f" and {len(counts) - SHOWN} more" if len(counts) > SHOWN else "")


def several(n: int, what: str) -> str:
    """ "1 image", "3 images"."""
    return f"{n} {what}" + ("" if n == 1 else "s")


def some(paths: Iterable[str]) -> str:
    """The first few of a list, and how many more there are."""
    paths = list(dict.fromkeys(paths))
    return ", ".join(paths[:SHOWN]) + (f" and {len(paths) - SHOWN} more" if len(paths) > SHOWN else "")
