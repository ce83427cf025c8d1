"""Which marks of a synthetic file are missing: read back from its bytes, independent of the code that writes them."""

from __future__ import annotations

import gzip
import struct
import warnings
import zlib
from io import BytesIO

_PNG = b"\x89PNG\r\n\x1a\n"
_SOURCE = b"digitalsourcetype/trainedAlgorithmicMedia"
_DESCRIP = {348: 148, 540: 240}  # sizeof_hdr of NIfTI-1 and -2 -> where the 80 bytes of descrip begin
_SYNTHESIZING = ("109100", "DCM")  # Purpose of Reference "Synthesizing Equipment"
_UNREADABLE = (  # what the libraries raise on damaged bytes
    struct.error,
    zlib.error,
    EOFError,
    OSError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    OverflowError,
    NotImplementedError,
    RecursionError,
)


def lacking(data: bytes) -> tuple[str, ...]:
    """The marks that are missing from a file's bytes, in words; empty when all are there.

    PNG and TIFF: XMP DigitalSourceType and Synthetic=YES. DICOM: (0008,001C) YES and Synthesizing Equipment.
    NIfTI: descrip begins with SYNTHETIC. A file of another kind, or a damaged one, lacks every mark.
    """
    try:
        if data.startswith(_PNG):
            return _png(data)
        if data[:4] in (b"II*\0", b"MM\0*"):
            return _tiff(data)
        if data[128:132] == b"DICM":
            return _dicom(data)
        return _nifti(data)
    except _UNREADABLE:
        return ("any mark: the file cannot be read",)


def _missing(**there: bool) -> tuple[str, ...]:
    return tuple(name.replace("_", " ") for name, found in there.items() if not found)


def _png(data: bytes) -> tuple[str, ...]:
    """Chunks are length, type, body, CRC (W3C PNG section 5.3)."""
    texts: list[bytes] = []
    at = len(_PNG)
    while at + 12 <= len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        if kind in (b"tEXt", b"iTXt"):
            texts.append(data[at + 8 : at + 8 + length])
        if kind in (b"IDAT", b"IEND"):
            break  # ours come before the pixels
        at += length + 12
    xmp = any(text.startswith(b"XML:com.adobe.xmp\0") and _SOURCE in text for text in texts)
    return _missing(DigitalSourceType_in_XMP=xmp, Synthetic_YES=b"Synthetic\0YES" in texts)


def _tiff(data: bytes) -> tuple[str, ...]:
    import tifffile

    with tifffile.TiffFile(BytesIO(data)) as found:
        tags = {tag.code: tag.value for tag in found.pages.first.tags}
    xmp, words = tags.get(700, b""), str(tags.get(270, ""))
    packet = xmp.encode() if isinstance(xmp, str) else bytes(xmp)
    return _missing(DigitalSourceType_in_XMP=_SOURCE in packet, Synthetic_YES="Synthetic=YES" in words)


def _dicom(data: bytes) -> tuple[str, ...]:
    import pydicom

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they quote header values
            wanted: list[int] = [0x0008001C, 0x0018A001]
            found = pydicom.dcmread(BytesIO(data), stop_before_pixels=True, specific_tags=wanted)
            codes = {
                (code.get("CodeValue"), code.get("CodingSchemeDesignator"))
                for item in found.get("ContributingEquipmentSequence", ())
                for code in item.get("PurposeOfReferenceCodeSequence", ())
            }
            value = found[0x0008001C].value if 0x0008001C in found else None
    except (pydicom.errors.InvalidDicomError, pydicom.errors.BytesLengthException) as error:
        raise ValueError(str(error)) from error
    return _missing(SyntheticData_YES=value == "YES", Synthesizing_Equipment=_SYNTHESIZING in codes)


def _nifti(data: bytes) -> tuple[str, ...]:
    head = data[:540]
    if data[:2] == b"\x1f\x8b":
        with gzip.open(BytesIO(data)) as stream:
            head = stream.read(540)
    start = next(
        (_DESCRIP[size] for order in "<>" if (size := struct.unpack(order + "i", head[:4])[0]) in _DESCRIP), None
    )
    if start is None:
        return ("any mark: the file is of no known kind",)
    return _missing(SYNTHETIC_in_descrip=head[start : start + 80].startswith(b"SYNTHETIC"))
