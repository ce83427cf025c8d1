"""One row for each accepted image (`Entry`) and for each rejected one (`Rejected`).

Rows never hold a file name, a patient, a date or a path of real data.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import Field, ValidationError

from mgdm_cli.data.files import canonical
from mgdm_cli.data.plan import Frozen
from mgdm_cli.errors import BadInput, MissingInput

HASH = r"^[0-9a-f]{64}$"


class Measures(Frozen):
    """How unsure the classifier is about an image; None where a measure was not taken. Entropy and disagreement in nats."""

    entropy: float | None = None
    margin: float | None = None
    least_confidence: float | None = None
    logit_gap: float | None = None
    disagreement: float | None = None  # of the classifier's members; where the guidance follows it


class Entry(Frozen):
    """One accepted image."""

    id: str
    path: str  # relative to the output folder, POSIX style
    sha256: str = Field(pattern=HASH)
    bytes: int = Field(ge=1)
    label: str
    class_index: int = Field(ge=0)
    index: int = Field(ge=0)  # running number in the data set
    seed: int = Field(ge=0)
    block: str = Field(pattern=r"^[0-9]+\.[0-9]+$")  # "lot.attempt"
    row: int = Field(ge=0)
    model_sha256: str
    classifier_sha256: str | None = None
    process: str
    sampler: str
    steps: int
    guidance: str
    strength: float
    stage: str  # "generated", "disturbed", "selected", "derived" (from a real image)
    before: Measures | None = None
    after: Measures | None = None
    label_kept: bool | None = None
    copy_score: float | None = None
    copy_percentile: float | None = None
    width: int = Field(ge=1)
    height: int = Field(ge=1)
    depth: int = Field(default=1, ge=1)  # slices
    channels: int = Field(default=1, ge=1)
    dtype: str
    spacing_mm: tuple[float, float] | None = None
    affine: tuple[tuple[float, ...], ...] | None = None
    sop_instance_uid: str | None = None
    synthetic: Literal["YES"] = "YES"


class Rejected(Frozen):
    """One candidate that was not taken, and why."""

    block: str = Field(pattern=r"^[0-9]+\.[0-9]+$")
    row: int = Field(ge=0)
    label: str
    class_index: int = Field(ge=0)
    seed: int = Field(ge=0)
    reason: str = Field(pattern=r"^[a-z][a-z-]{1,39}$")  # "label-lost", "near-copy", "blank", "out-of-range", ...
    detail: str = ""
    before: Measures | None = None
    after: Measures | None = None
    copy_score: float | None = None
    copy_percentile: float | None = None
    picture: str | None = None  # below .mgdm/pictures, when one was kept
    synthetic: Literal["YES"] = "YES"


class InputRow(Frozen):
    """One real image as `combined.csv` names it: `path` relative to the input folder, POSIX style."""

    path: str
    label: str
    split: str = "train"
    part: int | None = None  # frame, slice or row of a file that holds several


class BlockRow(Frozen):
    """The proven result of one block: a line of the journal. `files` maps relative path -> SHA-256.

    `evaluations` of the U-Net and `gradients` of the guide are what the block cost, one each per image.
    """

    lot: int = Field(ge=0)
    attempt: int = Field(ge=0)
    evaluations: int = Field(default=0, ge=0)
    gradients: int = Field(default=0, ge=0)
    accepted: tuple[Entry, ...]
    rejected: tuple[Rejected, ...]
    files: dict[str, str]


Row = TypeVar("Row", Entry, Rejected, InputRow)


def to_lines(rows: Iterable[Entry | Rejected | InputRow]) -> bytes:
    """The rows as canonical JSON lines."""
    return b"".join(canonical(row.model_dump(mode="json")) for row in rows)


def from_lines(data: bytes, kind: type[Row], *, name: str) -> tuple[Row, ...]:
    """The rows of a manifest. `name` is what the file is called in the error. Raises BadInput with line and field."""
    rows: list[Row] = []
    for number, line in enumerate(data.splitlines(), start=1):
        try:
            rows.append(kind.model_validate_json(line))
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "the line"
            raise BadInput(f"{name}: line {number}: {where}: {first['msg']}", "Restore the file.") from error
    return tuple(rows)


def load(root: Path) -> tuple[Entry, ...]:
    """The manifest of the data set at `root`. Raises MissingInput, BadInput."""
    return from_lines(_read(root / "manifest.jsonl"), Entry, name="manifest.jsonl")


def load_rejected(root: Path) -> tuple[Rejected, ...]:
    """The rejected candidates of the data set at `root`. Raises MissingInput, BadInput."""
    return from_lines(_read(root / "rejected.jsonl"), Rejected, name="rejected.jsonl")


def schema() -> bytes:
    """The JSON Schema of a manifest row."""
    return json.dumps(Entry.model_json_schema(), sort_keys=True, indent=1).encode("utf-8")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise MissingInput(f"no {path.name} here", "Is this the output folder of a finished run?") from error
