"""TIFF pages at full depth (TIFF 6.0, BigTIFF): tifffile decodes what it can, Pillow the packed 8-bit and grey rest."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np

from mgdm_cli.data.codecs.base import Array, check_size, stored_dtype
from mgdm_cli.errors import BadInput

_MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB, _PALETTE, _YCBCR = 0, 1, 2, 3, 6


@dataclass(frozen=True)
class TiffHead:
    """One page as it will be read."""

    height: int
    width: int
    channels: int
    dtype: str


def is_tiff(head: bytes) -> bool:
    """By magic bytes."""
    return head.startswith(_MAGICS)


def tiff_heads(data: bytes) -> list[TiffHead]:
    """Every full-resolution page; raises BadInput where pixel data would lie behind the end of the file."""
    with _opened(data) as file:
        return [_head(page, len(data)) for page in _pages(file)]


def tiff_array(data: bytes, index: int) -> Array:
    """(H,W) or (H,W,3) of one page: min-is-white inverted, palette looked up, orientation applied."""
    with _opened(data) as file:
        pages = _pages(file)
        if index >= len(pages):
            raise BadInput(f"page {index} is not there")
        page = pages[index]
        _head(page, len(data))
        return _decoded(page, data)


def _opened(data: bytes) -> Any:
    import tifffile

    return tifffile.TiffFile(BytesIO(data))


def _pages(file: Any) -> list[Any]:
    pages = [page for page in file.pages if not page.is_reduced]
    if not pages:
        raise BadInput("has no pixel data")
    return pages


def _tag(page: Any, code: int, default: int) -> int:
    tag = page.tags.get(code)
    return int(tag.value) if tag is not None else default


def _head(page: Any, size: int) -> TiffHead:
    height, width, samples = int(page.imagelength), int(page.imagewidth), int(page.samplesperpixel)
    if page.dtype is None or page.imagedepth != 1:
        raise BadInput("holds pixels of a kind that is not read")
    colour = int(page.photometric)
    if colour not in (_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB, _PALETTE, _YCBCR):
        raise BadInput(f"has TIFF photometric {colour}, which is not read")
    channels = 1 if colour in (_MIN_IS_WHITE, _MIN_IS_BLACK) else 3
    wanted = 3 if colour in (_RGB, _YCBCR) else 1
    if samples != wanted and samples != wanted + 1:
        raise BadInput(f"has {samples} samples per pixel, which is not grey, RGB or these with alpha")
    check_size(height, width, channels)
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
        if offset + count > size:
            raise BadInput(f"is cut short: pixel data ends at byte {offset + count}, the file at {size}")
    if _tag(page, 274, 1) in (5, 6, 7, 8):
        height, width = width, height
    dtype = "uint8" if colour in (_PALETTE, _YCBCR) else stored_dtype(np.dtype(page.dtype))
    return TiffHead(height, width, channels, dtype)


def _decoded(page: Any, data: bytes) -> Array:
    colour, depth = int(page.photometric), int(page.bitspersample)
    try:
        array = np.asarray(page.asarray())
    except (ValueError, ImportError, RuntimeError):  # a compression that tifffile leaves to imagecodecs
        return _by_pillow(data, page)  # which turns it upright
    if colour == _YCBCR:
        return _by_pillow(data, page)
    if int(page.planarconfig) == 2 and array.ndim == 3:
        array = np.moveaxis(array, 0, -1)
    if int(page.samplesperpixel) in (2, 4):
        array = _without_alpha(array)
    if colour == _PALETTE:
        table = np.asarray(page.colormap, dtype=np.uint16)
        eight = table >> 8 if table.max() > 255 else table
        return np.moveaxis(eight[:, array.astype(np.intp)], 0, -1).astype(np.uint8)
    if array.dtype == bool or depth < 8:
        top = (1 << depth) - 1
        array = (array.astype(np.uint16) * 255 // top).astype(np.uint8)
    if colour == _MIN_IS_WHITE and array.dtype.kind == "u":
        array = np.iinfo(array.dtype).max - array
    return upright(array, _tag(page, 274, 1))


def _without_alpha(array: Array) -> Array:
    alpha, rest = array[..., -1], array[..., :-1]
    opaque = 1.0 if array.dtype.kind == "f" else float(np.iinfo(array.dtype).max)
    if (alpha != opaque).any():
        raise BadInput("has transparent pixels", "Save it without an alpha channel.")
    return rest[..., 0] if rest.shape[-1] == 1 else rest


def _by_pillow(data: bytes, page: Any) -> Array:
    """LZW, JPEG and fax pages: only where Pillow keeps every bit (8 bits per sample, or one 16-bit grey sample)."""
    from PIL import Image as Pillow

    with Pillow.open(BytesIO(data), formats=("TIFF",)) as picture:
        picture.seek(page.index)
        depth, samples, colour = int(page.bitspersample), int(page.samplesperpixel), int(page.photometric)
        if depth > 8 and not (depth == 16 and samples == 1 and colour == _MIN_IS_BLACK):
            raise BadInput(f"TIFF compression {int(page.compression)} with {depth} bits is not read", "Save without.")
        if depth == 16:
            return np.asarray(picture).astype(page.dtype)
        if samples in (2, 4):
            return _without_alpha(np.asarray(picture.convert("LA" if samples == 2 else "RGBA")))
        return np.asarray(picture.convert("L" if colour in (_MIN_IS_WHITE, _MIN_IS_BLACK) else "RGB"))


def upright(array: Array, orientation: int) -> Array:
    """Turned by TIFF tag 274, which EXIF has too: where row 0 and column 0 lie."""
    if orientation in (5, 6, 7, 8):
        array = np.swapaxes(array, 0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return array
