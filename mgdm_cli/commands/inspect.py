"""`mgdm inspect`: what a folder of images holds, and what of it cannot be used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mgdm_cli.commands import options, values
from mgdm_cli.commands.reading import LEARNING, Source, reads_images, scanned
from mgdm_cli.console import Result, finish, plain
from mgdm_cli.errors import BAD_INPUT, OK, UsageError

if TYPE_CHECKING:
    from mgdm_cli.data.folder import Scan
    from mgdm_cli.data.image import Record
    from mgdm_cli.data.intensity import Intensity

SHOWN = 20  # of a list, for people; the JSON document holds all
SPLITS = ("train", "val", "test")


def run(source: Source, *, quick: bool = False, report: Path | None = None) -> Result:
    """What the folder holds; exit code 65 when files cannot be used (with `skip_bad`: more than `max_skip` of them), or
    when `train` would refuse the set.

    `quick` reads headers only; `report` receives the document. MissingInput and BadInput (names that are no classes,
    conflicts) as in `folder.scan`.
    """
    from mgdm_cli.data import looking

    if report is not None and not report.parent.is_dir():
        raise UsageError(f"--report: {report.parent.name}: no such folder", "Make it, or name another file.")
    scan = scanned(source, skip_bad=True, max_skip=1.0, decode=not quick)
    intensity = None if quick else looking.intensity_of(scan)
    document = _document(source, scan, intensity)
    files = document["files"] + len(scan.refused)
    bad = len(scan.refused) > (source.max_skip * files if source.skip_bad else 0)
    document["usable"] = not bad and not document["unfit"] and bool(scan.records)
    if report is not None:
        from mgdm_cli.data.files import canonical, write_atomic

        write_atomic(report, canonical(plain(document), indent=2))
    wrong = "correct the files above, or give --skip-bad" if bad else "correct the above"
    if source.skip_bad and bad:
        wrong = f"{len(scan.refused)} of {files} files cannot be used, more than --max-skip {source.max_skip:g}"
    lines = (*_lines(document), "usable" if document["usable"] else f"not usable as it is: {wrong}")
    return Result(document, lines, OK if document["usable"] else BAD_INPUT)


def _document(source: Source, scan: Scan, intensity: Intensity | None) -> dict[str, Any]:
    from mgdm_cli.data import splits
    from mgdm_cli.data.fitness import lacking, unfit
    from mgdm_cli.data.folder import learnt

    seen = scan.seen
    records = scan.records
    divided = splits.split(records) if learnt(records) else None
    return {
        "data": source.data.name,
        "images": len(records),
        "files": len({record.path for record in records}),
        "formats": _counts(record.form.codec for record in records),
        "depths": _counts(f"{record.form.dtype} x {record.form.channels}" for record in records),
        "sizes": _counts(f"{record.form.height}x{record.form.width}" for record in records),
        "modalities": _counts(record.form.modality for record in records if record.form.modality),
        "classes": _classes(scan),
        "unlabelled": sum(record.label is None for record in records),
        "patients": _patients(records, len(splits.shared_patients(divided)) if divided else 0),
        "holdout": len(divided.holdout) if divided else 0,
        "values": None if seen is None else {"lowest": seen.lowest, "highest": seen.highest},
        "intensity": None if intensity is None else intensity.model_dump(),
        "blank": [] if seen is None else list(seen.blank),
        "duplicates": [{"kept": d.kept, "dropped": list(d.dropped), "label": d.label} for d in scan.duplicates],
        "conflicts": [{"paths": list(c.paths), "labels": list(c.labels)} for c in scan.conflicts],
        "refused": [{"path": r.path, "why": r.why} for r in scan.refused],
        "series": [
            {
                "first": s.order[0].path,
                "slices": s.slices,
                "distance_mm": s.distance_mm,
                "missing": s.missing,
                "faults": list(s.faults),
            }
            for s in scan.series
        ],
        "unfit": unfit(scan) + (lacking(scan, values.size_of(source.size), source.fit) if records else []),
        "notes": list(scan.notes),
        "fingerprint": splits.fingerprint(records),
        "decoded": scan.seen is not None,
    }


def _counts(values: Iterable[str | None]) -> dict[str, int]:
    """Most frequent first."""
    counted = Counter(str(value) for value in values)
    return {key: counted[key] for key in sorted(counted, key=lambda k: (-counted[k], k))}


def _classes(scan: Scan) -> dict[str, dict[str, int]]:
    table: dict[str, dict[str, int]] = {}
    for name in scan.classes:
        own = Counter(record.split or "train" for record in scan.records if record.label == name)
        table[name] = {**{split: own[split] for split in SPLITS}, "total": own.total()}
    return table


def _patients(records: tuple[Record, ...], shared: int) -> dict[str, Any]:
    from mgdm_cli.data.labels import is_patient

    known = {record.patient for record in records if is_patient(record.patient)}
    missing = sum(not is_patient(record.patient) for record in records)
    return {
        "known": missing == 0 and bool(records),
        "count": len(known),
        "unknown_images": missing,
        "in_two_splits": shared,
    }


def _lines(document: dict[str, Any]) -> tuple[Any, ...]:
    from mgdm_cli.data.labels import shown
    from mgdm_cli.data.noting import several

    lines: list[Any] = [
        f"{document['data']}: {several(document['images'], 'image')} in {several(document['files'], 'file')}"
    ]
    for name in ("formats", "depths", "sizes", "modalities"):
        if document[name]:
            lines.append(f"  {name:<10} {_several(document[name])}")
    lines += _of_patients(document["patients"])
    if document["values"] is not None and document["values"]["lowest"] is not None:
        lines.append(f"  values     {document['values']['lowest']:g} to {document['values']['highest']:g}")
    if document["classes"]:
        lines.append(_table(document["classes"]))
    lines += [f"note: {note}" for note in document["notes"]]
    intensity = document["intensity"]
    lines += [f"note: {intensity['note']}"] if intensity and intensity["note"] else []
    lines += _list("same image under two labels", [" = ".join(c["paths"]) for c in document["conflicts"]])
    copies = [f"{d['kept']} = {', '.join(d['dropped'])}" for d in document["duplicates"]]
    lines += _list("copies (the first is kept)", copies)
    lines += _list("blank images", document["blank"])
    lines += _list("cannot be used", [f"{shown(r['path'])}: {r['why']}" for r in document["refused"]])
    lines += [f"not usable: {why}" for why in document["unfit"]]
    return tuple(lines)


def _several(counts: dict[str, int]) -> str:
    first = list(counts.items())[:6]
    rest = f", and {len(counts) - 6} more" if len(counts) > 6 else ""
    return ", ".join(f"{key} ({count})" for key, count in first) + rest


def _of_patients(patients: dict[str, Any]) -> list[str]:
    from mgdm_cli.data.noting import several

    text = (
        f"{patients['count']}"
        if patients["known"]
        else f"{patients['count']} known, {several(patients['unknown_images'], 'image')} without"
    )
    lines = [f"  patients   {text}"]
    return lines


def _table(classes: dict[str, dict[str, int]]) -> Any:
    from rich.table import Table
    from rich.text import Text

    columns = [split for split in SPLITS if any(row[split] for row in classes.values())]
    table = Table("class", *(c for c in columns), "total", "share", box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    whole = sum(row["total"] for row in classes.values())
    for name, row in classes.items():
        share = f"{100 * row['total'] / whole:.1f} %"
        table.add_row(Text(name), *(str(row[c]) for c in columns), str(row["total"]), share)
    return table


def _list(title: str, entries: list[str]) -> list[str]:
    if not entries:
        return []
    more = [f"  ... and {len(entries) - SHOWN} more (--json lists all)"] if len(entries) > SHOWN else []
    return [f"{title}: {len(entries)}", *(f"  {entry}" for entry in entries[:SHOWN]), *more]


@reads_images(but=LEARNING)
def command(
    source: Source,
    report: Annotated[
        Path | None,
        typer.Option(
            "--report", metavar="FILE.json", help="Also write the JSON document here.", rich_help_panel=options.OUTPUT
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Headers only; decode no pixels.", rich_help_panel=options.INPUT)
    ] = False,
) -> None:
    """What a folder of images holds: formats, sizes, classes, patients, copies; what cannot be used and why.

    \b
    mgdm inspect --data ./fundus --report input-report.json
    mgdm inspect --data ./ct --slices axial --patient-regex '(LIDC-[0-9]+)' --json
    """
    finish(run(source, quick=quick, report=report))
