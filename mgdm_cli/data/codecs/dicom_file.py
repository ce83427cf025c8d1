"""The outside of a DICOM file: preamble, transfer syntax, and a data set that was read up to its pixel data only."""

from __future__ import annotations

import os
import re
import struct
import zlib
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from mgdm_cli.data.codecs.base import MAX_BYTES, too_large
from mgdm_cli.data.codecs.dicom_terms import DEFLATED, JPEG_LOSSLESS, MEDIA_DIRECTORY, NATIVE, PACKED, PREAMBLES
from mgdm_cli.errors import BadInput

PIXELS = {0x7FE00008: "float", 0x7FE00009: "double", 0x7FE00010: "whole"}
UNDEFINED = 0xFFFFFFFF
_END_OF_SEQUENCE = b"\xfe\xff\xdd\xe0"  # (FFFE,E0DD), PS3.5 A.4
_START = 132  # preamble and "DICM", PS3.10 7.1
_LONG = frozenset(
    [b"OB", b"OW", b"UN", b"UT", b"SQ", b"OF", b"OD", b"OL", b"UC", b"UR"]
)  # 4 bytes of length, PS3.5 7.1.2
_MAX_META = 64  # elements of group 0002; the standard knows 17


@dataclass(frozen=True)
class Place:
    """Where an element of pixel data is: tag, offset in the file, stated length, bytes of its head, bytes after that."""

    tag: int
    at: int
    length: int
    head: int
    room: int = 0


@dataclass(frozen=True)
class Opened:
    """A data set without its pixel data (a deflated one has them), its transfer syntax, and where the pixels are."""

    dataset: Any
    syntax: str
    place: Place | None


def opened(path: Path, limit: int = MAX_BYTES) -> Opened:
    """Reads all in front of the pixel data. BadInput for program headers, unknown or undecodable transfer syntaxes."""
    from pydicom.filereader import read_partial

    found: list[Place] = []

    def stop(tag: Any, vr: str | None, length: int) -> bool:
        if int(tag) in PIXELS:
            found.append(Place(int(tag), 0, length, 8 if vr is None else 12))  # PS3.5 7.1
        return int(tag) >= 0x7FE00008

    with path.open("rb") as file:
        if not file.read(_START).startswith(PREAMBLES):
            raise BadInput("starts with a program header or unknown bytes before its DICM mark; refused")
        syntax, behind = _syntax(file)
        if syntax == DEFLATED:
            return _inflated(file, behind, limit)
        file.seek(0)
        dataset = read_partial(file, stop_when=stop)
        if not found:
            return Opened(dataset, syntax, None)
        at = file.tell()
        place = replace(found[0], at=at, room=file.seek(0, os.SEEK_END) - at - found[0].head)
        if place.length == UNDEFINED:
            file.seek(at)
            if file.read().rfind(_END_OF_SEQUENCE) < 0:
                raise BadInput("is cut short: its compressed pixel data have no end mark")
    return Opened(dataset, syntax, place)


def with_pixels(dataset: Any, place: Place, path: Path) -> Any:
    """The data set with the one element of pixel data that `place` names, read from the file where it lacks it."""
    from pydicom.filereader import read_dataset

    if place.tag not in dataset:
        implicit, little = dataset.original_encoding
        with path.open("rb") as file:
            file.seek(place.at)
            rest = read_dataset(file, implicit, little, stop_when=lambda tag, vr, length: int(tag) > place.tag)
        dataset[place.tag] = rest[place.tag]
    return dataset


def _syntax(file: BinaryIO) -> tuple[str, int]:
    """(transfer syntax, offset behind the file meta information), read without unpacking anything (PS3.10 7.1)."""
    values: dict[int, bytes] = {}
    at = _START
    for _ in range(_MAX_META):
        file.seek(at)
        head = file.read(12)
        if len(head) < 8:
            raise BadInput("is cut short: it ends inside its file header")
        group, element, kind, length = struct.unpack_from("<HH2sH", head)
        if group != 2:
            break
        skip = 8
        if kind in _LONG:
            if len(head) < 12:
                raise BadInput("is cut short: it ends inside its file header")
            skip, (length,) = 12, struct.unpack_from("<I", head, 8)
        if length <= 64:
            file.seek(at + skip)
            values[element] = file.read(length)
        at += skip + length
    if _uid(values.get(0x0002)) == MEDIA_DIRECTORY:
        raise BadInput("is a DICOMDIR, an index without images")
    syntax = _uid(values.get(0x0010))
    if syntax not in NATIVE and syntax not in PACKED and syntax != DEFLATED:
        named = f"transfer syntax {syntax}" if re.fullmatch(r"[0-9.]{1,64}", syntax) else "its transfer syntax"
        raise BadInput(f"{named} is not supported", "Convert it to explicit VR little endian.")
    if syntax in PACKED and syntax not in JPEG_LOSSLESS:
        from pydicom.pixels.decoders.base import get_decoder

        if not get_decoder(syntax).is_available:  # type: ignore[no-untyped-call,unused-ignore]
            raise BadInput(
                f"transfer syntax {syntax} ({PACKED[syntax]}) needs a decoder that is not installed",
                "Install mgdm[codecs], or unpack the files.",
            )
    return syntax, at


def _uid(value: bytes | None) -> str:
    return (value or b"").rstrip(b"\0 ").decode("ascii", "replace")


def _inflated(file: BinaryIO, start: int, limit: int) -> Opened:
    """The data set of a deflated file (PS3.5 A.5), never more than `limit` bytes of it."""
    from pydicom.filereader import read_dataset

    file.seek(start)
    engine = zlib.decompressobj(-zlib.MAX_WBITS)
    plain = engine.decompress(file.read(), limit)
    if engine.unconsumed_tail:
        raise too_large(f"would unpack to {limit} bytes or more", limit)
    if not engine.eof:
        raise BadInput("is cut short: its compressed data has no end")
    dataset = read_dataset(BytesIO(plain), is_implicit_VR=False, is_little_endian=True)
    meta = type(dataset)()
    meta.TransferSyntaxUID = DEFLATED
    dataset.file_meta = meta
    tag = next((tag for tag in PIXELS if tag in dataset), None)
    if tag is None:
        return Opened(dataset, DEFLATED, None)
    length = len(dataset[tag].value)
    return Opened(dataset, DEFLATED, Place(tag, 0, length, 0, length))
