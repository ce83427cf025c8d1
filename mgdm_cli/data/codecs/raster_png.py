"""The header of a PNG file, with every chunk checked (W3C PNG, third edition, section 5)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from mgdm_cli.data.codecs.base import FAULTS, check_size
from mgdm_cli.errors import BadInput

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class PngHead:
    """`kind` is the colour type: 0 grey, 2 RGB, 3 palette, 4 grey+alpha, 6 RGBA. `channels` is without alpha."""

    height: int
    width: int
    depth: int
    kind: int
    channels: int
    alpha: bool
    frames: int
    orientation: int  # of EXIF, 1 to 8


def chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """(type, body) of every chunk up to IEND; raises BadInput at a cut or damaged one."""
    view, at = memoryview(data), len(PNG_MAGIC)
    while True:
        if at + 12 > len(view):
            raise BadInput("is cut short: the PNG has no end chunk")
        (length,) = struct.unpack_from(">I", view, at)
        stop = at + 8 + length
        if stop + 4 > len(view):
            raise BadInput(f"is cut short: {len(view) - at - 8} of {length} bytes of a chunk are there")
        (expected,) = struct.unpack_from(">I", view, stop)
        if zlib.crc32(view[at + 4 : stop]) != expected:
            raise BadInput("a PNG chunk fails its checksum")
        name = bytes(view[at + 4 : at + 8])
        yield name, view[at + 8 : stop]
        if name == b"IEND":
            return
        at = stop + 4


def png_head(data: bytes) -> PngHead:
    """Size, depth, channels and number of frames."""
    grey_palette, alpha, frames, has_data, turn = False, False, 1, False, 1
    head: tuple[int, int, int, int] | None = None
    for name, body in chunks(data):
        if head is None and name != b"IHDR":
            raise BadInput("the PNG does not begin with its header")
        if name == b"IHDR":
            head = struct.unpack_from(">IIBB", body)
        elif name == b"PLTE":
            grey_palette = bytes(body[0::3]) == bytes(body[1::3]) == bytes(body[2::3])
        elif name == b"tRNS":
            alpha = True
        elif name == b"acTL":
            frames = max(1, struct.unpack_from(">I", body)[0])
        elif name == b"eXIf":
            turn = _orientation(bytes(body))
        elif name == b"IDAT":
            has_data = True
    if head is None or not has_data:
        raise BadInput("has no pixel data")
    width, height, depth, kind = head
    channels = 1 if kind in (0, 4) or (kind == 3 and grey_palette) else 3
    check_size(height, width, channels)
    return PngHead(height, width, depth, kind, channels, alpha or kind in (4, 6), frames, turn)


def _orientation(exif: bytes) -> int:
    """Tag 274 of an eXIf chunk (PNG, third edition, 11.3.4.5: a TIFF stream); 1 where it has none."""
    from PIL import Image as Pillow

    found = Pillow.Exif()
    try:
        found.load(b"Exif\0\0" + exif)
        turn = found.get(0x0112, 1)
    except FAULTS:  # what is damaged here says nothing of the picture
        return 1
    return turn if turn in range(1, 9) else 1
