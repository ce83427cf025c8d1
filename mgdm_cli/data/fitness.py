"""What a scanned set must have to be learnt from: labels, patients, one form, one size; and what mends it where it has not."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from functools import partial

from mgdm_cli.data.folder import Scan, learnt
from mgdm_cli.data.geometry import enlarges
from mgdm_cli.data.image import Record
from mgdm_cli.data.labels import is_study, natural
from mgdm_cli.data.noting import several, some
from mgdm_cli.data.pruning import name_of
from mgdm_cli.data.splits import patient_key
from mgdm_cli.errors import BadInput

MAX_BLANK = 0.05  # share of images that may be of one value
SMALLEST = 16  # pixels a side


def unfit(scan: Scan) -> list[str]:
    """Why the images that can be read are no set to learn from: blank ones, patients on both sides of a split."""
    found: list[str] = []
    blank = scan.seen.blank if scan.seen is not None else ()
    if len(blank) > MAX_BLANK * len(scan.records):
        found.append(f"{len(blank)} of {several(len(scan.records), 'image')} are blank: {some(blank)}")
    sides: dict[str, dict[str, Record]] = {}
    for record in scan.records:
        if record.patient is not None:
            sides.setdefault(record.patient, {}).setdefault(record.split or "train", record)
    both = {patient: first for patient, first in sides.items() if "train" in first and len(first) > 1}
    if both:
        found.append(some(_both(patient, both[patient]) for patient in sorted(both)))
    return found


def _both(patient: str, first: dict[str, Record]) -> str:
    """A patient is known by a digest alone, so a file of each side says who it is."""
    where = " and ".join(f"{split} ({name_of(first[split])})" for split in sorted(first))
    return f"{patient if is_study(patient) else f'patient {patient}'} is in {where}"


def refuse_unfit(scan: Scan) -> None:
    """BadInput with all that `unfit` finds."""
    found = unfit(scan)
    if found:
        raise BadInput("input: " + "; ".join(found), "Correct the folders, the table or --patient-regex.")


def lacking(scan: Scan, size: tuple[int, int] | None, fit: str) -> list[str]:
    """What training would refuse, each with what mends it; empty where it would begin."""
    records = learnt(scan.records)
    if not records:
        return ["no training images. Only images outside val and test folders are learnt from."]
    labelled = all(record.label is not None for record in records)
    checks: list[Callable[[], object]] = [
        partial(require_patients if labelled else require_labels, records),
        partial(require_one_form, records),
        partial(common_size, records, size, fit),
    ]
    found = []
    for check in checks:
        try:
            check()
        except BadInput as fault:
            found.append(f"{fault.message.removeprefix('input: ')}. {fault.hint}")
    return found


def require_labels(records: Sequence[Record]) -> None:
    """Raises BadInput that names an image without a label."""
    missing = [record.path for record in records if record.label is None]
    if missing:
        raise BadInput(
            f"input: {several(len(missing), 'image')} without a label: {some(missing)}",
            "Put images in a sub-folder per class, or give --labels or --label-tag.",
        )


def require_patients(records: Sequence[Record]) -> None:
    """Two patients of each class, of two classes at least: guide and judge share none. Raises BadInput.

    A holdout leaves a class two patients, so the answer is the same before it is set aside and after.
    """
    patients: dict[str, set[str]] = defaultdict(set)
    for record in records:
        patients[str(record.label)].add(patient_key(record))
    if len(patients) < 2:
        (only,) = patients
        below = natural({record.path.split("/")[1] for record in records if record.path.count("/") > 1})
        deeper = all(record.path.startswith(only + "/") for record in records) and len(below) > 1
        hint = f" If its folders {some(below)} are the classes, give that folder to --data." if deeper else ""
        raise BadInput(f"input: all images are of one class, {only}", "Classes are balanced: give two or more." + hint)
    studies = " Without PatientID a study counts as one; --patient-regex '(.+)' takes each file for a patient."
    for name, own in patients.items():
        if len(own) < 2:
            raise BadInput(
                f"input: class {name}: has one patient to learn from, or one image",
                "Guide and judge share no patient: give images of two or more, leave the class out, or correct "
                "--patient-regex." + studies * any(is_study(record.patient) for record in records),
            )


def require_one_form(records: Sequence[Record]) -> None:
    """One way in which all images are stored; PNG and JPEG files are alike, for both are written as PNG. Raises BadInput."""
    kinds: dict[tuple[str, str, int], list[Record]] = defaultdict(list)
    for record in records:
        codec = "png" if record.form.codec == "jpeg" else record.form.codec
        kinds[codec, record.form.dtype, record.form.channels].append(record)
    if len(kinds) > 1:
        table = "; ".join(
            f"{len(own)} {own[0].form.codec} {dtype} with {several(channels, 'channel')} ({name_of(own[0])})"
            for (_, dtype, channels), own in sorted(kinds.items(), key=lambda kind: -len(kind[1]))
        )
        raise BadInput(
            f"input: the images are stored in different ways: {table}",
            "Convert them to one form, or use --data on one kind.",
        )


def common_size(records: Sequence[Record], size: tuple[int, int] | None, fit: str) -> tuple[int, int]:
    """(height, width) of all images, or the `size` to bring them to by `fit`. Raises BadInput."""
    sizes = Counter((r.form.height, r.form.width) for r in records)
    if size is None:
        if len(sizes) > 1:
            table = "; ".join(f"{n} of {h}x{w}" for (h, w), n in sizes.most_common(5))
            smallest = min(min(pair) for pair in sizes)
            hint = f"Give --size, for example --size {smallest - smallest % 8}."
            if smallest < SMALLEST:  # nothing is made larger
                hint = f"{SMALLEST} pixels a side are the least: leave smaller ones out, then give --size."
            raise BadInput(f"input: the images have {len(sizes)} sizes: {table}", hint)
        size = next(iter(sizes))
    if size[0] < SMALLEST or size[1] < SMALLEST:
        raise BadInput(
            f"input: {size[0]}x{size[1]} is too small to learn from", f"{SMALLEST} pixels a side are the least."
        )
    small = [r for r in records if enlarges((r.form.height, r.form.width), size, fit)]
    if small:
        height, width = small[0].form.height, small[0].form.width
        more = f" ({several(len(small), 'image')} in all)" if len(small) > 1 else ""
        raise BadInput(
            f"input: {name_of(small[0])}: is {height}x{width}, smaller than --size {size[0]}x{size[1]}{more}",
            "Choose a smaller --size.",
        )
    return size
