"""The header of a DICOM file, read without its pixels and held against their length before anything is decoded."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mgdm_cli.data.codecs.base import MAX_BYTES, check_size, too_large
from mgdm_cli.data.codecs.dicom_file import opened
from mgdm_cli.data.codecs.dicom_skim import PIXELS, UNDEFINED, Place, has, value
from mgdm_cli.data.codecs.dicom_terms import (
    BODY_PARTS,
    KINDS,
    MODALITIES,
    PACKED,
    directions,
    known,
)
from mgdm_cli.data.image import Form
from mgdm_cli.errors import BadInput

MAX_FRAMES = 65_536  # of one file


@dataclass(frozen=True)
class Header:
    """A data set up to its pixel data, and what is known of those."""

    dataset: Any  # for `value`; `full` makes one of pydicom's of it
    syntax: str
    rows: int
    columns: int
    samples: int
    frames: int
    place: Place
    pixels: str  # "whole", "float", "double"


def header(path: Path, limit: int = MAX_BYTES) -> Header:
    """Header of a file; BadInput where it is unsafe, unsupported, or does not fit its own pixel data."""
    size = path.stat().st_size
    if size > limit:
        raise too_large(f"holds {size} bytes", limit)
    found = opened(path, limit)
    dataset, place = found.dataset, found.place
    if place is None:
        raise BadInput("has no pixel data")
    for name in ("Rows", "Columns"):
        if not isinstance(value(dataset, name), int):
            raise BadInput("has no image size")
    samples = int(value(dataset, "SamplesPerPixel", 1) or 1)
    rows, columns = (int(value(dataset, name)) for name in ("Rows", "Columns"))
    frames = max(1, int(value(dataset, "NumberOfFrames", 1) or 1))
    if min(rows, columns) < 1:
        raise BadInput("has no image size")
    if frames > MAX_FRAMES:
        raise BadInput(f"header says {frames} frames; the limit is {MAX_FRAMES}")
    head = Header(dataset, found.syntax, rows, columns, samples, frames, place, PIXELS[place.tag])
    _check_length(head)
    _check_low_end(head)
    check_size(rows, columns, samples)
    return head


def form_of(head: Header, frame: int, voi: bool = False) -> Form:
    """How a frame is stored: the dtype is that of the rescaled values; of windowed ones 8-bit grey, of no class."""
    dataset = head.dataset
    channels = 3 if head.samples == 3 or value(dataset, "PhotometricInterpretation") == "PALETTE COLOR" else 1
    spacing = _spacing(dataset, frame)
    windowed = voi and channels == 1
    dtype = "uint8" if windowed else _dtype(head, frame)
    if channels == 3 and dtype not in ("uint8", "uint16"):
        raise BadInput("has colours of more than 16 bits, which are not read")
    return Form(
        "dicom",
        dtype,
        channels,
        head.rows,
        head.columns,
        spacing_mm=spacing,
        affine=_affine(dataset, frame, spacing),
        modality=known(value(dataset, "Modality"), MODALITIES),
        body_part=known(value(dataset, "BodyPartExamined"), BODY_PARTS),
        orientation=directions(value(dataset, "PatientOrientation")),
        storage=None if windowed else KINDS.get(str(value(dataset, "SOPClassUID", ""))),
    )


def rescale(dataset: Any, frame: int) -> tuple[float, float]:
    """(slope, intercept) of a frame, from the data set or from its functional groups."""
    item = functional(dataset, frame, "PixelValueTransformationSequence")
    source = item if item is not None else dataset
    slope, intercept = value(source, "RescaleSlope"), value(source, "RescaleIntercept")
    slope = 1.0 if slope in (None, "") else float(slope)
    intercept = 0.0 if intercept in (None, "") else float(intercept)
    if not (np.isfinite(slope) and np.isfinite(intercept)) or slope == 0:
        raise BadInput("has an impossible rescale slope or intercept")
    return slope, intercept


def _check_length(head: Header) -> None:
    length, room = head.place.length, head.place.room
    if head.syntax in PACKED:
        if length != UNDEFINED:
            raise BadInput("has compressed pixel data of a defined length, which DICOM does not allow")
        return
    bits = {"float": 32, "double": 64}.get(head.pixels) or int(value(head.dataset, "BitsAllocated", 0) or 0)
    if bits not in (1, 8, 16, 32, 64):
        raise BadInput(f"has {bits} bits per value, which is not read")
    samples = 2 if value(head.dataset, "PhotometricInterpretation") == "YBR_FULL_422" else head.samples
    needed = (head.frames * head.rows * head.columns * samples * bits + 7) // 8
    if length == UNDEFINED:
        raise BadInput("has native pixel data without a length")
    if length < needed:
        raise BadInput(f"header says {head.rows}x{head.columns} ({needed} bytes), its pixel data holds {length} bytes")
    if room < needed:
        raise BadInput(f"is cut short: {max(room, 0)} of {needed} pixel bytes")


def _check_low_end(head: Header) -> None:
    """Values that fill the upper bits of their words, which PS3.5 8.1.1 retired, would be read as others; a JPEG has no such bits."""
    high, stored = (value(head.dataset, name) for name in ("HighBit", "BitsStored"))
    words = head.pixels == "whole" and PACKED.get(head.syntax, "RLE") == "RLE"
    if words and isinstance(high, int) and isinstance(stored, int) and high >= stored:
        raise BadInput(
            "its values are not stored in the low bits", "Export it again, or convert it with another program."
        )


def _dtype(head: Header, frame: int) -> str:
    """The narrowest Form.dtype for the rescaled values that the header allows."""
    dataset = head.dataset
    if head.pixels != "whole" or has(dataset, "ModalityLUTSequence"):
        return "float32" if head.pixels != "whole" else "uint16"
    if value(dataset, "PhotometricInterpretation") == "PALETTE COLOR":
        return "uint8"
    allocated = int(value(dataset, "BitsAllocated", 16))
    bits = min(int(value(dataset, "BitsStored", allocated) or allocated), allocated)
    signed = int(value(dataset, "PixelRepresentation", 0) or 0) == 1
    slope, intercept = rescale(dataset, frame)
    lo, hi = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    ends = sorted((lo * slope + intercept, hi * slope + intercept))
    if not (slope.is_integer() and intercept.is_integer()):
        return "float32"
    if ends[0] >= 0 and ends[1] <= 255:
        return "uint8"
    if ends[0] >= 0 and ends[1] <= 65535:
        return "uint16"
    # 16 stored bits and an offset (CT): the values that occur fit, although the type's ends would not
    return (
        "int16" if abs(slope) == 1 and bits <= 16 else "int16" if ends[0] >= -32768 and ends[1] <= 32767 else "float32"
    )


def functional(dataset: Any, frame: int, name: str) -> Any:
    """The item of a functional group macro for a frame (enhanced multi-frame objects), or None."""
    if not (has(dataset, "SharedFunctionalGroupsSequence") or has(dataset, "PerFrameFunctionalGroupsSequence")):
        return None
    shared = value(dataset, "SharedFunctionalGroupsSequence")
    own = value(dataset, "PerFrameFunctionalGroupsSequence")
    for groups in ([own[frame]] if own is not None and frame < len(own) else []) + list(shared or []):
        items = value(groups, name)
        if items:
            return items[0]
    return None


def _spacing(dataset: Any, frame: int) -> tuple[float, float] | None:
    measures = functional(dataset, frame, "PixelMeasuresSequence")
    for source, name in (
        (measures, "PixelSpacing"),
        (dataset, "PixelSpacing"),
        (dataset, "ImagerPixelSpacing"),
        (dataset, "NominalScannedPixelSpacing"),
    ):
        pair = value(source, name) if source is not None else None
        if pair is not None and not isinstance(pair, str) and len(pair) == 2:
            rows, columns = float(pair[0]), float(pair[1])
            if 0 < rows < 1e3 and 0 < columns < 1e3:
                return rows, columns
    return None


def _affine(dataset: Any, frame: int, spacing: tuple[float, float] | None) -> tuple[tuple[float, ...], ...] | None:
    """(column, row, slice) -> mm RAS+, from PS3.3 C.7.6.2.1.1 (which is LPS+)."""
    where = functional(dataset, frame, "PlanePositionSequence")
    turned = functional(dataset, frame, "PlaneOrientationSequence")
    position = value(where if where is not None else dataset, "ImagePositionPatient")
    cosines = value(turned if turned is not None else dataset, "ImageOrientationPatient")
    if spacing is None or not position or not cosines or len(position) != 3 or len(cosines) != 6:
        return None
    along, down = [float(v) for v in cosines[:3]], [float(v) for v in cosines[3:]]
    normal = [along[i - 2] * down[i - 1] - along[i - 1] * down[i - 2] for i in range(3)]
    thickness = _thickness(dataset, frame)
    volume = sum(n * n for n in normal) * spacing[0] * spacing[1] * thickness  # the determinant
    rows = []
    for i, sign in enumerate((-1.0, -1.0, 1.0)):
        row = (along[i] * spacing[1], down[i] * spacing[0], normal[i] * thickness, float(position[i]))
        rows.append(tuple(sign * v for v in row))
    if not all(math.isfinite(v) for row in rows for v in row) or not volume > 1e-12:
        return None
    return (*rows, (0.0, 0.0, 0.0, 1.0))


def _thickness(dataset: Any, frame: int) -> float:
    """mm from slice to slice, 1 where nothing says it; the sign of the spacing (PS3.3 C.8.22.7.1) tells the order alone."""
    for source in (functional(dataset, frame, "PixelMeasuresSequence"), dataset):
        for name in ("SpacingBetweenSlices", "SliceThickness"):
            said = value(source, name) if source is not None else None
            if isinstance(said, (int, float)) and 0 < abs(said) < 1e3:
                return abs(float(said))
    return 1.0
