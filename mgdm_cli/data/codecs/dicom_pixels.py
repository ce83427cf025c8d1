"""The pixels of a DICOM frame in physical units: decoded, padded, rescaled, looked up or windowed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mgdm_cli.data.codecs.base import Array
from mgdm_cli.data.codecs.dicom_file import with_pixels
from mgdm_cli.data.codecs.dicom_head import Header, functional, rescale
from mgdm_cli.data.codecs.dicom_skim import full, has, value
from mgdm_cli.data.codecs.dicom_terms import JPEG_LOSSLESS, LITTLE, PACKED
from mgdm_cli.errors import BadInput


def physical(head: Header, path: Path, frame: int, voi: bool = False) -> Array:
    """(H,W) or (H,W,3) of a frame; with `voi` grey is 0 to 255 through the first window of the header."""
    dataset = head.dataset
    array = _plain(head, path, frame) if _is_plain(head) else _stored(head, path, frame)
    kind = str(value(dataset, "PhotometricInterpretation", ""))
    if kind == "PALETTE COLOR":
        from pydicom.pixels.processing import apply_color_lut

        return _eight_bits(np.asarray(apply_color_lut(array, full(dataset))))
    if array.ndim == 3:
        return array
    dark_is_high = kind == "MONOCHROME1" and head.pixels == "whole"
    array = _without_padding(array, dataset, dark_is_high)
    if voi:
        grey = windowed(_rescaled(head, array, dataset, frame), dataset, frame)
        return 255 - grey if dark_is_high else grey
    if dark_is_high and value(dataset, "ModalityLUTSequence"):  # its input are the values as they are stored
        found = _rescaled(head, array, dataset, frame)
        return np.iinfo(found.dtype).max - found
    return _rescaled(head, _inverted(array, dataset) if dark_is_high else array, dataset, frame)


def _stored(head: Header, path: Path, frame: int) -> Array:
    """The stored values of a frame; YBR turned into RGB."""
    dataset = with_pixels(full(head.dataset), head.place, path)
    if head.syntax in JPEG_LOSSLESS:
        from pydicom.encaps import get_frame

        from mgdm_cli.data.codecs.jpeg_lossless import decode

        array = decode(get_frame(dataset.PixelData, frame, number_of_frames=head.frames))
        if array.shape != ((head.rows, head.columns) if head.samples == 1 else (head.rows, head.columns, head.samples)):
            raise BadInput("its pixels are not of the size that its header says", "Export it again.")
        return _as_declared(array, dataset)
    from pydicom.pixels.utils import pixel_array

    try:
        return np.asarray(pixel_array(dataset, index=frame))
    except RuntimeError as fault:
        if head.syntax not in PACKED:
            raise
        raise BadInput(
            f"no installed decoder can unpack its {PACKED[head.syntax]} data",
            f"Unpack the file with another program, for example {_unpacker(PACKED[head.syntax])}.",
        ) from fault


def _unpacker(kind: str) -> str:
    """A program that unpacks such data."""
    if kind.startswith("JPEG-LS"):
        return "dcmdjpls"
    if kind == "RLE":
        return "dcmdrle"
    return "gdcmconv --raw" if "2000" in kind or "J2K" in kind else "dcmdjpeg"


def _is_plain(head: Header) -> bool:
    """Whether the pixel data is nothing but grey numbers, one after the other: no need of pydicom's machinery."""
    little = head.syntax in LITTLE and head.pixels == "whole" and head.place.head > 0
    return little and head.samples == 1 and value(head.dataset, "BitsAllocated") in (8, 16)


def _plain(head: Header, path: Path, frame: int) -> Array:
    """(H,W) of a frame; bits that are not stored are no part of the number (PS3.5 8.1.1)."""
    bits, stored = (int(value(head.dataset, f"Bits{what}")) for what in ("Allocated", "Stored"))
    signed = int(value(head.dataset, "PixelRepresentation", 0) or 0) == 1
    kind = np.dtype(f"<{'i' if signed else 'u'}{bits // 8}")
    count = head.rows * head.columns
    with path.open("rb") as file:
        file.seek(head.place.at + head.place.head + frame * count * kind.itemsize)
        array = np.frombuffer(file.read(count * kind.itemsize), kind, count).reshape(head.rows, head.columns)
    unused = bits - stored
    return (array << unused) >> unused if 0 < unused < bits else array


def _as_declared(array: Array, dataset: Any) -> Array:
    """Unsigned samples of a JPEG as the header declares them: signed values are in two's complement (PS3.5 8.2.1)."""
    if str(value(dataset, "PhotometricInterpretation", "")).startswith("YBR"):
        from pydicom.pixels.processing import convert_color_space

        return np.asarray(convert_color_space(array, "YBR_FULL", "RGB"))
    if int(value(dataset, "PixelRepresentation", 0) or 0) != 1:
        return array
    bits = int(value(dataset, "BitsStored"))
    values = array.astype(np.int32) & ((1 << bits) - 1)
    return np.where(values >> (bits - 1) & 1 == 1, values - (1 << bits), values).astype(np.int16)


def _rescaled(head: Header, array: Array, dataset: Any, frame: int) -> Array:
    if head.pixels != "whole":
        return array
    if has(dataset, "ModalityLUTSequence"):
        from pydicom.pixels.processing import apply_modality_lut

        return np.asarray(apply_modality_lut(array, full(dataset)))
    slope, intercept = rescale(dataset, frame)
    return array if (slope, intercept) == (1.0, 0.0) else array.astype(np.float64) * slope + intercept


def _eight_bits(colours: Array) -> Array:
    """Palette colours as uint8: the high byte, or the value where 8-bit entries fill 16 bits (PS3.3 C.7.6.3.1.6)."""
    wide = colours.dtype.itemsize > 1 and int(colours.max()) > 255
    return (colours >> 8 if wide else colours).astype(np.uint8)


def _inverted(array: Array, dataset: Any) -> Array:
    """MONOCHROME1 -> MONOCHROME2: mirrored inside the stored range, so that the type's limits hold."""
    bits = int(value(dataset, "BitsStored"))
    signed = int(value(dataset, "PixelRepresentation", 0) or 0) == 1
    top = -1 if signed else (1 << bits) - 1
    return top - array.astype(np.int64)


def _without_padding(array: Array, dataset: Any, dark_is_high: bool) -> Array:
    """Pixel padding (PS3.3 C.7.5.1.1.2) is no measurement: it becomes the darkest value that was measured."""
    low, high = (_stored_number(dataset, name) for name in ("PixelPaddingValue", "PixelPaddingRangeLimit"))
    if low is None or array.dtype.kind not in "iu":
        return array
    ends = sorted((low, low if high is None else high))
    padding = (array >= ends[0]) & (array <= ends[1])
    if not padding.any() or padding.all():
        return array
    measured = array[~padding]
    return np.where(padding, measured.max() if dark_is_high else measured.min(), array)


def _stored_number(dataset: Any, keyword: str) -> int | None:
    """A number that pixels are compared with; of a signed image some writers store it as if it had no sign."""
    number = value(dataset, keyword)
    if not isinstance(number, int):
        return None
    bits = int(value(dataset, "BitsAllocated", 16))
    signed = int(value(dataset, "PixelRepresentation", 0) or 0) == 1
    return number - (1 << bits) if signed and number >= 1 << (bits - 1) else number


def windowed(values: Array, dataset: Any, frame: int) -> NDArray[np.uint8]:
    """Modality values -> 0..255 through the first VOI window or table (PS3.3 C.11.2.1.2 and C.11.2.1.3)."""
    item = functional(dataset, frame, "FrameVOILUTSequence")
    source = dataset if item is None else item
    centre, width = _first(value(source, "WindowCenter")), _first(value(source, "WindowWidth"))
    if centre is None or width is None:
        if not has(source, "VOILUTSequence"):
            raise BadInput("has no window in its header", "Give --window CENTRE,WIDTH.")
        return _looked_up(values, source)
    law = str(value(source, "VOILUTFunction") or "LINEAR").strip()
    x = values.astype(np.float64)
    if law == "SIGMOID" and width > 0:
        with np.errstate(over="ignore"):
            unit = 1.0 / (1.0 + np.exp(-4.0 * (x - centre) / width))
    elif law == "LINEAR_EXACT" and width > 0:
        unit = (x - centre) / width + 0.5
    elif law == "LINEAR" and width >= 1:
        steep = max(width - 1.0, 1e-9)
        unit = (x - (centre - 0.5)) / steep + 0.5
    else:
        raise BadInput("has an impossible window in its header", "Give --window CENTRE,WIDTH.")
    return np.rint(np.clip(unit, 0.0, 1.0) * 255.0).astype(np.uint8)


def _looked_up(values: Array, source: Any) -> NDArray[np.uint8]:
    from pydicom.pixels.processing import apply_voi

    bits = int(full(source).VOILUTSequence[0].LUTDescriptor[2])
    table = np.asarray(apply_voi(np.rint(values).astype(np.int32), full(source))).astype(np.float64)
    return np.rint(np.clip(table / ((1 << bits) - 1), 0.0, 1.0) * 255.0).astype(np.uint8)


def _first(value: Any) -> float | None:
    """The first of one or several numbers, or None."""
    if value is None or value == "":
        return None
    if not isinstance(value, (int, float)):
        value = value[0] if len(value) else None
    number = None if value is None else float(value)
    return number if number is not None and np.isfinite(number) else None
