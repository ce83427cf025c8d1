"""The outside of a DICOM file: preamble, transfer syntax, and a data set that was read up to its pixel data only."""

from __future__ import annotations

import os
import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO, FileIO
from pathlib import Path
from typing import Any

from mgdm_cli.data.codecs.base import MAX_BYTES, too_large
from mgdm_cli.data.codecs.dicom_skim import (
    FIRST_PIXELS,
    LONG,
    PIXELS,
    SHORT,
    UNDEFINED,
    Place,
    Short,
    Skim,
    Strange,
    walk,
)
from mgdm_cli.data.codecs.dicom_terms import (
    BIG,
    DEFLATED,
    IMPLICIT,
    JPEG_LOSSLESS,
    LITTLE,
    MEDIA_DIRECTORY,
    NATIVE,
    PACKED,
    PREAMBLES,
    SKIMMED,
)
from mgdm_cli.errors import BadInput

_END_OF_SEQUENCE = b"\xfe\xff\xdd\xe0"  # (FFFE,E0DD), PS3.5 A.4
_GROUP_8 = b"\x08\x00"
_SOP_CLASS = 0x00080016
_FIRST_BARE = (0x00, 0x01, 0x05, 0x08, 0x12, 0x16, 0x18)  # elements of group 8 that a data set may begin with
_LONGEST_BARE = 1024  # bytes of such an element without a VR
_START = 132  # preamble and "DICM", PS3.10 7.1
_FIRST_READ = 16_384  # bytes: most headers are shorter
_TAIL = 4096  # bytes at the end of a file, where the end mark of compressed pixel data is looked for first
_MAX_HEADER = 1 << 26  # bytes: a longer one is left to pydicom
_MAX_META_BYTES = 1 << 20
_MAX_META = 64  # elements of group 0002; the standard knows 17


@dataclass(frozen=True)
class Opened:
    """A data set without its pixel data (a deflated one has them), its transfer syntax, and where the pixels are."""

    dataset: Any  # a Skim, or a data set of pydicom
    syntax: str
    place: Place | None


def opened(path: Path, limit: int = MAX_BYTES) -> Opened:
    """Reads all in front of the pixel data. BadInput for program headers, unknown or undecodable transfer syntaxes."""
    with path.open("rb", buffering=0) as file:
        data = _read(file, _FIRST_READ)
        size = file.seek(0, os.SEEK_END)
        start = _START if _is_marked(data) else 0
        if start and not data.startswith(PREAMBLES):
            raise BadInput("starts with a program header or unknown bytes before its DICM mark; refused")
        if not start and data.startswith(_GROUP_8):
            return _guessed(file, data, size)
        data, syntax, behind = _head(file, data, start)
        if syntax == DEFLATED:
            file.seek(behind)
            return _inflated(file.readall(), limit)
        parse = partial(_dataset, path) if start else partial(_dataset, path, (behind, syntax))
        found = _skimmed(file, data, behind, syntax, size, parse) if syntax in SKIMMED else None
        if found is None:
            found = _parsed(parse, syntax, size)
        if found.place is not None and found.place.length == UNDEFINED:
            _check_end(file, found.place.at, size)
    return found


def is_dicom(head: bytes) -> bool:
    """The DICM mark behind the preamble; or a file without both, which begins with an element of group 2 or 8."""
    if _is_marked(head) or len(head) < 8:
        return _is_marked(head)
    group, element, kind = struct.unpack_from("<HH2s", head)
    (length,) = struct.unpack_from("<I", head, 4)
    if group in (2, 8) and (kind in LONG or kind in SHORT):
        return True
    return head.startswith(_GROUP_8) and element in _FIRST_BARE and length < _LONGEST_BARE


def _is_marked(head: bytes) -> bool:
    return head[128:_START] == b"DICM"


def _guessed(file: FileIO, data: bytes, size: int) -> Opened:
    """A data set alone, which does not say its transfer syntax: read where only one of the two common ones makes sense of it."""
    path = Path(str(file.name))
    sure = []
    for syntax in sorted(LITTLE):
        found = _skimmed(file, data, 0, syntax, size, partial(_dataset, path, (0, syntax)))
        native = found is not None and found.place is not None and found.place.length != UNDEFINED
        if found is not None and native and _SOP_CLASS in found.dataset and found.dataset.is_sorted:
            sure.append(found)
    if len(sure) != 1:
        raise BadInput(
            "cannot be read, but may be DICOM without its file header",
            "Write it anew with one (dcmconv +F of DCMTK does).",
        )
    return sure[0]


def _head(file: FileIO, data: bytes, start: int) -> tuple[bytes, str, int]:
    """(the first bytes of the file, transfer syntax, offset behind the file meta information); a few of these are long."""
    try:
        return data, *_syntax(data, start)
    except Short:
        file.seek(0)
        data = _read(file, _MAX_META_BYTES)
    try:
        return data, *_syntax(data, start)
    except Short as fault:
        raise BadInput("is cut short: it ends inside its file header") from fault


def _skimmed(
    file: FileIO, data: bytes, at: int, syntax: str, size: int, parse: Callable[[], tuple[Any, Place | None]]
) -> Opened | None:
    """None where pydicom should read the file. More of it is read where the header is longer than `data`."""
    while True:
        try:
            places, pixels = walk(data, at, syntax == IMPLICIT)
        except Short:
            if len(data) >= min(size, _MAX_HEADER):
                return None
            file.seek(0)
            data = _read(file, min(size, 8 * len(data)))
            continue
        except Strange:
            return None
        break
    skim = Skim(data, places, lambda: parse()[0])
    if pixels is None:
        return Opened(skim, syntax, None)
    return Opened(skim, syntax, replace(pixels, room=size - pixels.at - pixels.head))


def _read(file: FileIO, count: int) -> bytes:
    """`count` bytes from here, or all that are left."""
    parts = []
    while count > 0 and (part := file.read(count)):
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _parsed(parse: Callable[[], tuple[Any, Place | None]], syntax: str, size: int) -> Opened:
    """What pydicom reads in front of the pixel data."""
    dataset, place = parse()
    return Opened(dataset, syntax, None if place is None else replace(place, room=size - place.at - place.head))


def _dataset(path: Path, bare: tuple[int, str] | None = None) -> tuple[Any, Place | None]:
    """The data set and the pixel data of a file; `bare`: where one without a preamble begins, and its transfer syntax."""
    from pydicom.filereader import read_dataset, read_partial

    found: list[Place] = []

    def stop(tag: Any, vr: str | None, length: int) -> bool:
        if int(tag) in PIXELS:
            found.append(Place(int(tag), 0, length, 8 if vr is None else 12))  # PS3.5 7.1
        return int(tag) >= FIRST_PIXELS

    with path.open("rb") as file:
        if bare is None:
            dataset: Any = read_partial(file, stop_when=stop)
        else:
            at, syntax = bare
            file.seek(at)
            little = syntax != BIG
            dataset = _told(read_dataset(file, syntax == IMPLICIT, little, stop_when=stop), syntax)
        return dataset, replace(found[0], at=file.tell()) if found else None


def _check_end(file: FileIO, at: int, size: int) -> None:
    """Compressed pixel data have an end mark, most often at the end of the file."""
    for start in (max(at, size - _TAIL), at):
        file.seek(start)
        if file.readall().rfind(_END_OF_SEQUENCE) >= 0:
            return
    raise BadInput("is cut short: its compressed pixel data have no end mark")


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


def _syntax(data: bytes, start: int) -> tuple[str, int]:
    """(transfer syntax, offset behind the file meta information), read without unpacking anything (PS3.10 7.1); Short."""
    values: dict[int, bytes] = {}
    at = start
    for _ in range(_MAX_META):
        head = data[at : at + 12]
        if len(head) < 8:
            raise Short
        group, element, kind, length = struct.unpack_from("<HH2sH", head)
        if group != 2:
            break
        skip = 8
        if kind not in LONG and kind not in SHORT:
            raise BadInput("is damaged: its file header holds an element of no known kind")
        if kind in LONG:
            if len(head) < 12:
                raise Short
            skip, (length,) = 12, struct.unpack_from("<I", head, 8)
        if length <= 64:
            values[element] = data[at + skip : at + skip + length]
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
                "Install the extra codecs (pip install '.[codecs]' in a clone of mgdm), or unpack the files.",
            )
    return syntax, at


def _uid(value: bytes | None) -> str:
    return (value or b"").rstrip(b"\0 ").decode("ascii", "replace")


def _told(dataset: Any, syntax: str) -> Any:
    """The data set with the file meta information that pydicom asks for when it decodes pixels."""
    dataset.file_meta = type(dataset)()
    dataset.file_meta.TransferSyntaxUID = syntax
    return dataset


def _inflated(packed: bytes, limit: int) -> Opened:
    """The data set of a deflated file (PS3.5 A.5), never more than `limit` bytes of it."""
    from pydicom.filereader import read_dataset

    engine = zlib.decompressobj(-zlib.MAX_WBITS)
    plain = engine.decompress(packed, limit)
    if engine.unconsumed_tail:
        raise too_large(f"would unpack to {limit} bytes or more", limit)
    if not engine.eof:
        raise BadInput("is cut short: its compressed data has no end")
    dataset = _told(read_dataset(BytesIO(plain), is_implicit_VR=False, is_little_endian=True), DEFLATED)
    tag = next((tag for tag in PIXELS if tag in dataset), None)
    if tag is None:
        return Opened(dataset, DEFLATED, None)
    length = len(dataset[tag].value)
    return Opened(dataset, DEFLATED, Place(tag, 0, length, 0, length))
