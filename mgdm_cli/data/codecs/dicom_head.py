"""The header of a DICOM file, read without its pixels and held against their length before anything is decoded."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from mgdm_cli.data.codecs.base import MAX_BYTES, check_size, file_bytes
from mgdm_cli.data.codecs.dicom_terms import (
    BODY_PARTS,
    DEFLATED,
    KINDS,
    MEDIA_DIRECTORY,
    MODALITIES,
    NATIVE,
    PACKED,
    PREAMBLES,
    directions,
    known,
)
from mgdm_cli.data.image import Form
from mgdm_cli.errors import BadInput

_PIXELS = {0x7FE00008: "float", 0x7FE00009: "double", 0x7FE00010: "whole"}
_UNDEFINED = 0xFFFFFFFF
_END_OF_SEQUENCE = b"\xfe\xff\xdd\xe0"  # (FFFE,E0DD), PS3.5 A.4


@dataclass(frozen=True)
class Header:
    """A parsed data set, up to its pixel data, and what is known of those."""

    dataset: Any
    syntax: str
    rows: int
    columns: int
    samples: int
    frames: int
    pixels: str  # "whole", "float", "double"


def header(path: Path) -> Header:
    """Header of a file; BadInput where it is unsafe, unsupported, or does not fit its own pixel data."""
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise BadInput(f"holds {size} bytes; the limit is {MAX_BYTES}")
    dataset, syntax, tag, length, room = _parsed(path)
    if tag is None:
        raise BadInput("has no pixel data")
    for name in ("Rows", "Columns"):
        if not isinstance(dataset.get(name), int):
            raise BadInput("has no image size")
    samples = int(dataset.get("SamplesPerPixel", 1) or 1)
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    frames = max(1, int(dataset.get("NumberOfFrames", 1) or 1))
    check_size(rows, columns, samples)
    found = Header(dataset, syntax, rows, columns, samples, frames, _PIXELS[tag])
    _check_length(found, length, room)
    return found


def whole(path: Path) -> Any:
    """The data set with its pixel data, for decoding. Call `header` first."""
    import pydicom

    head = path.open("rb").read(132 + 1024)
    if DEFLATED.encode() + b"\0" in head or head.find(DEFLATED.encode()) > 0:
        return _inflated(path)
    return pydicom.dcmread(path)


def form_of(head: Header, frame: int) -> Form:
    """How a frame is stored: the dtype is that of the rescaled values."""
    dataset = head.dataset
    channels = 3 if head.samples == 3 or dataset.get("PhotometricInterpretation") == "PALETTE COLOR" else 1
    spacing = _spacing(dataset, frame)
    dtype = _dtype(head, frame)
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
        modality=known(dataset.get("Modality"), MODALITIES),
        body_part=known(dataset.get("BodyPartExamined"), BODY_PARTS),
        orientation=directions(dataset.get("PatientOrientation")),
        storage=KINDS.get(str(dataset.get("SOPClassUID", ""))),
    )


def rescale(dataset: Any, frame: int) -> tuple[float, float]:
    """(slope, intercept) of a frame, from the data set or from its functional groups."""
    item = _functional(dataset, frame, "PixelValueTransformationSequence")
    source = item if item is not None else dataset
    slope, intercept = source.get("RescaleSlope"), source.get("RescaleIntercept")
    slope = 1.0 if slope in (None, "") else float(slope)
    intercept = 0.0 if intercept in (None, "") else float(intercept)
    if not (np.isfinite(slope) and np.isfinite(intercept)) or slope == 0:
        raise BadInput("has an impossible rescale slope or intercept")
    return slope, intercept


def _parsed(path: Path) -> tuple[Any, str, int | None, int, int]:
    """(data set, transfer syntax, tag of the pixel data, its stated length, bytes that are there)."""
    from pydicom.filereader import read_file_meta_info, read_partial

    with path.open("rb") as file:
        if not file.read(132).startswith(PREAMBLES):
            raise BadInput("starts with a program header or unknown bytes before its DICM mark; refused")
    syntax = _syntax(read_file_meta_info(path))
    hit: list[tuple[int, int, int]] = []

    def stop(tag: Any, vr: str | None, length: int) -> bool:
        if int(tag) in _PIXELS:
            hit.append((int(tag), length, 8 if vr is None else 12))  # bytes of the element's own head, PS3.5 7.1
        return int(tag) >= 0x7FE00008

    if syntax == DEFLATED:
        dataset = _inflated(path)
        element = next((tag for tag in _PIXELS if tag in dataset), None)
        length = 0 if element is None else len(dataset[element].value)
        return dataset, syntax, element, length, length
    with path.open("rb") as file:
        dataset = read_partial(file, stop_when=stop)
        tag, length, own = hit[0] if hit else (None, 0, 0)
        room = path.stat().st_size - file.tell() - own
        if length == _UNDEFINED and file.read().rfind(_END_OF_SEQUENCE) < 0:
            raise BadInput("is cut short: its compressed pixel data have no end mark")
    return dataset, syntax, tag, length, room


def _syntax(meta: Any) -> str:
    if str(meta.get("MediaStorageSOPClassUID", "")) == MEDIA_DIRECTORY:
        raise BadInput("is a DICOMDIR, an index without images")
    syntax = str(meta.get("TransferSyntaxUID", ""))
    if syntax not in NATIVE and syntax not in PACKED and syntax != DEFLATED:
        raise BadInput("its transfer syntax is not supported", "Convert it to explicit VR little endian.")
    if syntax in PACKED:
        from pydicom.pixels.decoders.base import get_decoder

        if not get_decoder(syntax).is_available:
            raise BadInput(f"no decoder for {PACKED[syntax]} is installed", _remedy(syntax))
    return syntax


def _remedy(syntax: str) -> str:
    if PACKED[syntax].startswith("JPEG lossless"):  # the only Python decoders are under the GPL
        return "Unpack the files first, for example with dcmdjpeg."
    return "Install mgdm[codecs], or unpack the files."


def _inflated(path: Path) -> Any:
    """The data set of a deflated file, never more than MAX_BYTES of it."""
    from pydicom.filereader import read_dataset, read_file_meta_info

    meta = read_file_meta_info(path)
    data = file_bytes(path)
    start = 132 + 12 + int(meta.FileMetaInformationGroupLength)
    engine = zlib.decompressobj(-zlib.MAX_WBITS)
    plain = engine.decompress(data[start:], MAX_BYTES)
    if engine.unconsumed_tail:
        raise BadInput(f"would unpack to more than {MAX_BYTES} bytes")
    if not engine.eof:
        raise BadInput("is cut short: its compressed data have no end")
    dataset = read_dataset(BytesIO(plain), is_implicit_VR=False, is_little_endian=True)
    dataset.file_meta = meta
    return dataset


def _check_length(head: Header, length: int, room: int) -> None:
    if head.syntax in PACKED:
        if length != _UNDEFINED:
            raise BadInput("has compressed pixel data of a defined length, which DICOM does not allow")
        return
    bits = {"float": 32, "double": 64}.get(head.pixels) or int(head.dataset.get("BitsAllocated", 0) or 0)
    if bits not in (1, 8, 16, 32, 64):
        raise BadInput(f"has {bits} bits per value, which is not read")
    samples = 2 if head.dataset.get("PhotometricInterpretation") == "YBR_FULL_422" else head.samples
    needed = (head.frames * head.rows * head.columns * samples * bits + 7) // 8
    if length == _UNDEFINED:
        raise BadInput("has native pixel data without a length")
    if length < needed:
        raise BadInput(f"header says {head.rows}x{head.columns} ({needed} bytes), its pixel data hold {length}")
    if room < needed:
        raise BadInput(f"is cut short: {max(room, 0)} of {needed} pixel bytes")


def _dtype(head: Header, frame: int) -> str:
    """The narrowest Form.dtype for the rescaled values that the header allows."""
    dataset = head.dataset
    if head.pixels != "whole" or "ModalityLUTSequence" in dataset:
        return "float32" if head.pixels != "whole" else "uint16"
    if dataset.get("PhotometricInterpretation") == "PALETTE COLOR":
        return "uint8"
    allocated = int(dataset.get("BitsAllocated", 16))
    bits = min(int(dataset.get("BitsStored", allocated) or allocated), allocated)
    signed = int(dataset.get("PixelRepresentation", 0) or 0) == 1
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


def _functional(dataset: Any, frame: int, name: str) -> Any:
    """The item of a functional group macro for a frame (enhanced multi-frame objects), or None."""
    shared = dataset.get("SharedFunctionalGroupsSequence")
    own = dataset.get("PerFrameFunctionalGroupsSequence")
    for groups in ([own[frame]] if own is not None and frame < len(own) else []) + list(shared or []):
        items = groups.get(name)
        if items:
            return items[0]
    return None


def _spacing(dataset: Any, frame: int) -> tuple[float, float] | None:
    measures = _functional(dataset, frame, "PixelMeasuresSequence")
    for source, name in (
        (measures, "PixelSpacing"),
        (dataset, "PixelSpacing"),
        (dataset, "ImagerPixelSpacing"),
        (dataset, "NominalScannedPixelSpacing"),
    ):
        value = source.get(name) if source is not None else None
        if value is not None and not isinstance(value, str) and len(value) == 2:
            rows, columns = float(value[0]), float(value[1])
            if 0 < rows < 1e3 and 0 < columns < 1e3:
                return rows, columns
    return None


def _affine(dataset: Any, frame: int, spacing: tuple[float, float] | None) -> tuple[tuple[float, ...], ...] | None:
    """(column, row, slice) -> mm RAS+, from PS3.3 C.7.6.2.1.1 (which is LPS+)."""
    where = _functional(dataset, frame, "PlanePositionSequence")
    turned = _functional(dataset, frame, "PlaneOrientationSequence")
    position = (where if where is not None else dataset).get("ImagePositionPatient")
    cosines = (turned if turned is not None else dataset).get("ImageOrientationPatient")
    if spacing is None or not position or not cosines or len(position) != 3 or len(cosines) != 6:
        return None
    along, down = np.array(cosines[:3], dtype=np.float64), np.array(cosines[3:], dtype=np.float64)
    thickness = float(dataset.get("SpacingBetweenSlices") or dataset.get("SliceThickness") or 1.0)
    matrix = np.eye(4)
    matrix[:3, 0] = along * spacing[1]
    matrix[:3, 1] = down * spacing[0]
    matrix[:3, 2] = np.cross(along, down) * (thickness if thickness > 0 else 1.0)
    matrix[:3, 3] = np.array(position, dtype=np.float64)
    matrix[:2] *= -1.0
    if not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) < 1e-12:
        return None
    return tuple(tuple(float(value) for value in row) for row in matrix)
