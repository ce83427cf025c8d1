"""The papers of a finished data set, as bytes: tables, lists for other tools, the Croissant record and the card.

Pure functions of the plan and its rows, so that merged shards and resumed runs give the same bytes. CSV is RFC 4180
with LF, UTF-8, and no cell begins with = + - @ (a spreadsheet would run it).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from mgdm_cli.data.card import card, readme
from mgdm_cli.data.codecs import marks
from mgdm_cli.data.files import canonical, sha256_hex
from mgdm_cli.data.image import Mark
from mgdm_cli.data.manifest import Entry, InputRow, Rejected
from mgdm_cli.data.plan import NOT_STATED, Plan

SPLIT = "train-synthetic"  # what our images are, whatever they are mixed with
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_MEDIA = {".png": "image/png", ".tif": "image/tiff", ".tiff": "image/tiff", ".dcm": "application/dicom"}
_METADATA = (
    "file_name",
    "label",
    "class_index",
    "id",
    "split",
    "synthetic",
    "seed",
    "guidance",
    "entropy_before",
    "entropy_after",
    "copy_score",
    "width",
    "height",
    "depth",
    "dtype",
    "modality",
    "sop_instance_uid",
    "sha256",
)


def all_papers(
    plan: Plan,
    entries: Sequence[Entry],
    rejected: Sequence[Rejected],
    inputs: Sequence[InputRow],
    *,
    manifest: bytes,
) -> dict[str, bytes]:
    """Relative path -> bytes of every paper but the manifests; `manifest` is the bytes of manifest.jsonl."""
    table = metadata_csv(plan, entries)
    content = card(plan, entries, rejected)
    return sidecars(plan, entries) | {
        "images/metadata.csv": table,
        "combined.csv": combined_csv(plan, entries, inputs),
        "datalist.json": datalist(plan, entries),
        "croissant.json": croissant(plan, entries, table=table, manifest=manifest),
        "card.json": canonical(content, indent=1),
        "README.md": readme(content).encode("utf-8"),
    }


def sidecar_path(path: str) -> str | None:
    """The JSON file that belongs beside an image (only NIfTI has one), both relative to the data set."""
    stem = path.removesuffix(".nii.gz")
    return None if stem == path else f"{stem}.json"


def sidecars(plan: Plan, entries: Sequence[Entry]) -> dict[str, bytes]:
    """The JSON beside each NIfTI image, which says that it is synthetic; nothing for other formats."""
    found = {}
    for entry in entries:
        name = sidecar_path(entry.path)
        if name is not None:
            mark = Mark(
                entry.id, entry.label, plan.run, entry.index, entry.model_sha256, plan.versions["mgdm"], plan.date,
                derived=plan.recipe.depth is not None,
            )  # fmt: skip
            found[name] = canonical(marks.sidecar(mark), indent=1)
    return found


def cell(value: str | int | float | None) -> str:
    """One CSV cell: quoted where needed, text that looks like a formula behind an apostrophe, None empty."""
    text = "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
    if isinstance(value, str) and text.startswith(_FORMULA):
        text = "'" + text
    if any(c in text for c in '",\r\n'):
        text = '"' + text.replace('"', '""') + '"'
    return text


def path_cell(path: str) -> str:
    """A CSV cell that holds a relative path and still opens it: "-a.png" becomes "./-a.png"."""
    return cell("./" + path if path.startswith((*_FORMULA, "'")) else path)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> bytes:
    return "".join(",".join(row) + "\n" for row in (header, *rows)).encode("utf-8")


def metadata_csv(plan: Plan, entries: Sequence[Entry]) -> bytes:
    """images/metadata.csv: `file_name` relative to images/, so that the folder loads as a Hugging Face imagefolder."""

    def row(entry: Entry) -> list[str]:
        values: tuple[str | int | float | None, ...] = (
            entry.path.removeprefix("images/"),
            entry.label,
            entry.class_index,
            entry.id,
            SPLIT,
            entry.synthetic,
            entry.seed,
            entry.guidance,
            _positive(entry.before.entropy if entry.before else None),
            _positive(entry.after.entropy if entry.after else None),
            _positive(entry.copy_score),
            entry.width,
            entry.height,
            entry.depth,
            entry.dtype,
            plan.form.modality,
            entry.sop_instance_uid,
            entry.sha256,
        )
        return [path_cell(str(values[0])), *(cell(value) for value in values[1:])]

    return _table(_METADATA, (row(entry) for entry in entries))


def _positive(value: float | None) -> float | None:
    """A number that is never negative, without the rounding error that says it is."""
    return None if value is None else max(float(value), 0.0)


def combined_csv(plan: Plan, entries: Sequence[Entry], inputs: Sequence[InputRow]) -> bytes:
    """Real and synthetic rows for training. Real paths are relative to the input folder, synthetic ones to this one."""
    index = {label: number for number, label in enumerate(plan.classes)}
    real = (
        [path_cell(r.path), cell(r.part), cell(r.label), cell(index.get(r.label)), cell(r.split), "NO"] for r in inputs
    )
    synth = ([path_cell(e.path), "", cell(e.label), cell(e.class_index), SPLIT, "YES"] for e in entries)
    return _table(("path", "part", "label", "class_index", "split", "synthetic"), (*real, *synth))


def datalist(plan: Plan, entries: Sequence[Entry]) -> bytes:
    """datalist.json as MONAI and the Medical Segmentation Decathlon read it: "training" rows of image and label."""
    document: dict[str, Any] = {
        "name": plan.statement.name,
        "description": "Synthetic images made by mgdm; not for clinical use.",
        "licence": plan.statement.licence,
        "tensorImageSize": "2D",
        "modality": {"0": plan.form.modality or plan.form.codec},
        "labels": {str(number): label for number, label in enumerate(plan.classes)},
        "numTraining": len(entries),
        "numTest": 0,
        "training": [{"image": e.path, "label": e.class_index, "synthetic": e.synthetic} for e in entries],
        "test": [],
    }
    return canonical(document, indent=1)


_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}


def croissant(plan: Plan, entries: Sequence[Entry], *, table: bytes, manifest: bytes) -> bytes:
    """croissant.json: MLCommons Croissant 1.0 with the responsible-AI fields that say: synthetic, from what, why."""
    statement = plan.statement
    stated = statement.name != NOT_STATED
    date = f"{plan.date[:4]}-{plan.date[4:6]}-{plan.date[6:]}"
    document: dict[str, Any] = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": ["http://mlcommons.org/croissant/1.0", "http://mlcommons.org/croissant/RAI/1.0"],
        "name": f"synthetic-{statement.name if stated else plan.run[:12]}",
        "description": f"{len(entries)} synthetic medical images in {len(plan.classes)} classes. Not for clinical use.",
        "license": statement.licence,
        "url": f"urn:sha256:{plan.run}",
        "version": "1.0.0",
        "datePublished": date,
        "citeAs": f"Synthetic images made by mgdm {plan.versions['mgdm']}, plan sha256 {plan.run}.",
        "creator": {"@type": "sc:Organization", "name": statement.contact},
        **_rai(plan),
        "distribution": [
            _file("metadata.csv", "images/metadata.csv", "text/csv", table),
            _file("manifest.jsonl", "manifest.jsonl", "application/jsonlines", manifest),
            {
                "@type": "cr:FileSet",
                "@id": "image-files",
                "name": "image-files",
                "description": "The images; each carries the mark of a synthetic image inside the file.",
                "encodingFormat": _MEDIA.get(plan.suffix, "application/octet-stream"),
                "includes": f"images/*/*{plan.suffix}",
            },
        ],
        "recordSet": [_classes(plan), _images()],
    }
    return canonical(document, indent=1)


def _file(name: str, path: str, media: str, data: bytes) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": name,
        "name": name,
        "contentUrl": path,
        "contentSize": f"{len(data)} B",
        "encodingFormat": media,
        "sha256": sha256_hex(data),
    }


def _rai(plan: Plan) -> dict[str, Any]:
    recipe, statement = plan.recipe, plan.statement
    drawn = recipe.depth is None
    return {
        "rai:hasSyntheticData": True,
        "rai:dataCollectionType": ["Synthetic"],
        "rai:dataCollection": (
            f"{'Drawn from' if drawn else 'Derived from real images by'} a diffusion model "
            f"({recipe.process}, {recipe.sampler}, {recipe.steps} steps, guidance {recipe.guidance}) "
            f"that was trained on real images. Source of these: {statement.source}. "
            f"Consent or approval: {statement.consent}."
        ),
        "rai:dataLimitations": (
            f"{'No image shows a patient' if drawn else 'Each image may resemble the patient that it was derived from'}, "
            "and none may serve a diagnosis. What the real images lack, these lack too. "
            "With a guidance other than none they are harder than real images on purpose."
        ),
        "rai:dataUseCases": "Training and stress-testing of image classifiers, beside real images.",
        "rai:dataBiases": "Those of the real images, and the class balance that the plan asked for.",
        "rai:personalSensitiveInformation": (
            "None is written on purpose. A model can repeat parts of its training images; the copy filter lowers that "
            "risk and does not exclude it."
        ),
    }


def _classes(plan: Plan) -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet",
        "@id": "classes",
        "name": "classes",
        "dataType": "sc:Enumeration",
        "key": {"@id": "classes/label"},
        "field": [
            {"@type": "cr:Field", "@id": "classes/label", "name": "label", "dataType": "sc:Text"},
            {"@type": "cr:Field", "@id": "classes/class_index", "name": "class_index", "dataType": "sc:Integer"},
        ],
        "data": [{"classes/label": label, "classes/class_index": number} for number, label in enumerate(plan.classes)],
    }


def _images() -> dict[str, Any]:
    kinds = {"class_index": "sc:Integer", "seed": "sc:Integer", "width": "sc:Integer", "height": "sc:Integer"}

    def field(column: str) -> dict[str, Any]:
        found: dict[str, Any] = {
            "@type": "cr:Field",
            "@id": f"images/{column}",
            "name": column,
            "dataType": kinds.get(column, "sc:Text"),
            "source": {"fileObject": {"@id": "metadata.csv"}, "extract": {"column": column}},
        }
        if column == "label":
            found["references"] = {"field": {"@id": "classes/label"}}
        return found

    columns = ("file_name", "label", "class_index", "id", "synthetic", "seed", "width", "height", "sha256")
    return {
        "@type": "cr:RecordSet",
        "@id": "images",
        "name": "images",
        "key": {"@id": "images/id"},
        "field": [field(column) for column in columns],
    }
