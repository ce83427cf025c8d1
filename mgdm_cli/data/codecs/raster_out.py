"""PNG and TIFF files of synthetic images: deterministic bytes, the mark inside."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO

import numpy as np

from mgdm_cli.data.codecs import marks
from mgdm_cli.data.codecs.base import Array, quantised, rows_last
from mgdm_cli.data.codecs.raster_png import PNG_MAGIC
from mgdm_cli.data.image import Image, Mark


def png_file(image: Image, mark: Mark) -> bytes:
    """A PNG of 8 or 16 bits, grey or RGB (W3C PNG): IHDR, iTXt XMP, tEXt facts, IDAT with filter Up, IEND."""
    array = rows_last(quantised(image))
    height, width = array.shape[:2]
    depth, kind = 8 * array.dtype.itemsize, 0 if array.ndim == 2 else 2
    body = [PNG_MAGIC, _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))]
    body.append(_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + marks.xmp(mark)))
    for key, value in marks.facts(mark).items():
        body.append(_text(key, value))
    body.append(_chunk(b"IDAT", zlib.compress(_filtered(array), 6)))
    body.append(_chunk(b"IEND", b""))
    return b"".join(body)


def _text(key: str, value: str) -> bytes:
    """A text chunk: Latin-1 as tEXt, which every reader knows, anything else as iTXt, which is UTF-8."""
    try:
        return _chunk(b"tEXt", key.encode("latin-1") + b"\0" + value.encode("latin-1"))
    except UnicodeEncodeError:
        return _chunk(b"iTXt", key.encode("latin-1") + b"\0\0\0\0\0" + value.encode("utf-8"))


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def _filtered(array: Array) -> bytes:
    """Big-endian scanlines, each minus the one above it (filter type 2)."""
    height = array.shape[0]
    lines = array.astype(array.dtype.newbyteorder(">")).view(np.uint8).reshape(height, -1)
    out = np.empty((height, lines.shape[1] + 1), dtype=np.uint8)
    out[:, 0] = 2
    out[0, 1:] = lines[0]
    out[1:, 1:] = lines[1:] - lines[:-1]
    return out.tobytes()


def tiff_file(image: Image, mark: Mark) -> bytes:
    """A little-endian, deflated TIFF of any Form.dtype, with XMP in tag 700 and the facts in ImageDescription."""
    import tifffile

    array = rows_last(quantised(image))
    packet = marks.xmp(mark)
    buffer = BytesIO()
    tifffile.imwrite(
        buffer,
        array,
        byteorder="<",
        photometric="minisblack" if array.ndim == 2 else "rgb",
        compression="zlib",
        description="; ".join(f"{key}={value}" for key, value in marks.facts(mark).items()).encode(),
        metadata=None,
        software=False,
        extratags=[(700, 1, len(packet), packet, True)],
    )
    return buffer.getvalue()
