"""PNG, JPEG and TIFF at full depth: 8 and 16 bit, grey and RGB; floating point and signed in TIFF.

PNG headers and checksums are read here, so that a cut file is found without decoding it. Pillow decodes what it keeps
exact; pypng decodes 16-bit colour PNG and tifffile deep TIFF, which Pillow would cut to 8 bits. No colour management:
values are taken as stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from mgdm_cli.data.codecs import marks
from mgdm_cli.data.codecs.base import (
    NOTHING,
    Array,
    Ask,
    Floats,
    Part,
    as_pixels,
    check_size,
    file_bytes,
    guarded,
    quantised,
    stored_dtype,
)
from mgdm_cli.data.codecs.raster_out import png_file, tiff_file
from mgdm_cli.data.codecs.raster_png import PNG_MAGIC, PngHead, png_head
from mgdm_cli.data.codecs.raster_tiff import is_tiff, tiff_array, tiff_heads, upright
from mgdm_cli.data.image import Form, Image, Mark
from mgdm_cli.errors import BadInput

NAMES = ("png", "jpeg", "tiff")
SUFFIX = {"png": ".png", "tiff": ".tif", "jpeg": ".png"}
_JPEG_MAGIC = b"\xff\xd8\xff"


def claims(head: bytes, path: Path) -> bool:
    """By magic bytes."""
    return _kind(head) is not None


def parts(path: Path, ask: Ask = NOTHING) -> list[Part]:
    """One part per frame or page; headers only, but PNG checksums and the ends of JPEG and TIFF data are checked."""
    data = file_bytes(path, ask.max_bytes)
    kind = _kind(data)
    with guarded(_name(kind)):
        forms = _png_forms(data) if kind == "png" else _jpeg_forms(data) if kind == "jpeg" else _tiff_forms(data)
    flags = frozenset({"synthetic"}) if marks.traced(data) else frozenset[str]()
    many = len(forms) > 1
    return [Part(index if many else None, form, flags=flags) for index, form in enumerate(forms)]


def read(path: Path, part: int | None = None, ask: Ask = NOTHING) -> Image:
    """The picture in stored units, RGB or grey; EXIF orientation applied, opaque alpha dropped."""
    data = file_bytes(path, ask.max_bytes)
    kind = _kind(data)
    frame = part or 0
    with guarded(_name(kind)):
        if kind == "png":
            array = _png_array(data, frame)
        elif kind == "jpeg":
            array = _jpeg_array(data)
        else:
            array = tiff_array(data, frame)
        form = _form(kind or "png", array)
        return Image(as_pixels(array, ask.nan), form)


def output_form(form: Form) -> Form:
    """PNG for PNG and JPEG (a lossy file would not hold the generated image); TIFF for what PNG cannot hold."""
    codec = "png" if form.codec != "tiff" and form.dtype in ("uint8", "uint16") else "tiff"
    return Form(codec, form.dtype, form.channels, form.height, form.width)


def settled(image: Image) -> Floats:
    """(C,H,W): what `read` gives back of an image in `output_form`."""
    return quantised(image).astype(np.float32)


def encode(image: Image, mark: Mark) -> bytes:
    """A PNG or TIFF file with XMP DigitalSourceType and Synthetic=YES inside."""
    image = Image(image.pixels, output_form(image.form))
    return tiff_file(image, mark) if image.form.codec == "tiff" else png_file(image, mark)


def _kind(head: bytes) -> str | None:
    if head.startswith(PNG_MAGIC):
        return "png"
    if head.startswith(_JPEG_MAGIC):
        return "jpeg"
    return "tiff" if is_tiff(head) else None


def _name(kind: str | None) -> str:
    return {"png": "the PNG", "jpeg": "the JPEG", "tiff": "the TIFF"}.get(kind or "", "the file")


def _form(kind: str, array: Array) -> Form:
    channels = 1 if array.ndim == 2 else array.shape[2]
    return Form(kind, stored_dtype(array.dtype), channels, array.shape[0], array.shape[1])


# PNG


def _png_forms(data: bytes) -> list[Form]:
    head = png_head(data)
    size = (head.width, head.height) if head.orientation in (5, 6, 7, 8) else (head.height, head.width)
    form = Form("png", "uint16" if head.depth == 16 else "uint8", head.channels, *size)
    return [form] * head.frames


def _png_array(data: bytes, frame: int) -> Array:
    head = png_head(data)
    return upright(_png_stored(data, head, frame), head.orientation)


def _png_stored(data: bytes, head: PngHead, frame: int) -> Array:
    from PIL import Image as Pillow

    if frame and (frame >= head.frames or head.depth == 16):
        raise BadInput(f"frame {frame} cannot be read")
    if head.depth == 16 and head.kind != 0:
        return _png_deep_colour(data, head)
    with Pillow.open(BytesIO(data), formats=("PNG",)) as picture:
        if frame:
            picture.seek(frame)
        picture.load()
        if head.depth == 16:
            return np.asarray(picture, dtype=np.uint16)
        return _opaque(picture, head)


def _opaque(picture: Any, head: PngHead) -> Array:
    """(H,W) or (H,W,3) uint8 of a picture whose alpha, where it has one, is 255 everywhere."""
    if head.alpha:
        whole = np.asarray(picture.convert("RGBA"))
        _refuse_transparency(whole[..., 3], 255)
        colour = whole[..., :3]
        return colour[..., 0] if head.channels == 1 else colour
    return np.asarray(picture.convert("L" if head.channels == 1 else "RGB"))


def _png_deep_colour(data: bytes, head: PngHead) -> Array:
    import png

    width, height, rows, info = png.Reader(bytes=data).read()
    planes = int(info["planes"])
    array = np.vstack([np.frombuffer(row, dtype=np.uint16) for row in rows]).reshape(height, width, planes)
    if planes in (2, 4):
        _refuse_transparency(array[..., -1], 65535)
    return array[..., 0] if head.channels == 1 else array[..., :3]


def _refuse_transparency(alpha: Array, opaque: int) -> None:
    if (alpha != opaque).any():
        raise BadInput("has transparent pixels", "Save it without an alpha channel.")


# JPEG


@dataclass(frozen=True)
class _JpegHead:
    height: int
    width: int
    channels: int


def _jpeg_head(picture: Any) -> _JpegHead:
    turned = picture.getexif().get(0x0112, 1) in (5, 6, 7, 8)
    width, height = picture.size[::-1] if turned else picture.size
    if picture.mode not in ("L", "RGB", "CMYK"):
        raise BadInput(f"holds {picture.mode} pixels, which are not read")
    channels = 1 if picture.mode == "L" else 3
    check_size(height, width, channels)
    return _JpegHead(height, width, channels)


def _jpeg_forms(data: bytes) -> list[Form]:
    from PIL import Image as Pillow

    if data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda"):
        raise BadInput("is cut short: the JPEG has no end marker")
    with Pillow.open(BytesIO(data), formats=("JPEG",)) as picture:
        head = _jpeg_head(picture)
    return [Form("jpeg", "uint8", head.channels, head.height, head.width)]


def _jpeg_array(data: bytes) -> Array:
    from PIL import Image as Pillow
    from PIL import ImageOps

    with Pillow.open(BytesIO(data), formats=("JPEG",)) as picture:
        head = _jpeg_head(picture)
        upright = ImageOps.exif_transpose(picture)
        return np.asarray(upright if head.channels == 1 else upright.convert("RGB"))


# TIFF


def _tiff_forms(data: bytes) -> list[Form]:
    return [Form("tiff", head.dtype, head.channels, head.height, head.width) for head in tiff_heads(data)]
