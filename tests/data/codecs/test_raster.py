"""PNG, JPEG and TIFF as other programs write them: every kind read pixel for pixel."""

from __future__ import annotations

import shutil
import struct
import subprocess
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from mgdm_cli.data import codecs
from mgdm_cli.data.codecs import raster
from mgdm_cli.data.image import Form, Image, Mark
from mgdm_cli.errors import BadInput

GREY = np.arange(12 * 7, dtype=np.uint8).reshape(12, 7) * 3
RGB = np.stack([GREY, GREY.T.reshape(12, 7), 255 - GREY], axis=-1)
File = Callable[[bytes], Path]


def saved(picture: Pillow.Image, kind: str, **options: Any) -> bytes:
    buffer = BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(path: Path, part: int | None = None) -> Any:
    """(H,W) or (H,W,C) as read; the header must have said the same form."""
    image = raster.read(path, part)
    assert image.form == raster.parts(path)[part or 0].form
    return image.pixels[0] if len(image.pixels) == 1 else np.moveaxis(image.pixels, 0, -1)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("L", GREY), ("RGB", RGB), ("1", (GREY > 127) * 255)],
)
def test_png_modes(mode: str, expected: Any, png: File) -> None:
    picture = Pillow.fromarray(RGB if mode == "RGB" else GREY)
    if mode == "1":
        picture = picture.point(lambda v: 255 * (v > 127)).convert("1")
    np.testing.assert_array_equal(pixels(png(saved(picture, "PNG"))), expected)


@pytest.mark.parametrize("bits", [2, 4])
def test_png_of_few_bits_fills_the_byte(bits: int, png: File) -> None:
    levels = np.arange(1 << bits, dtype=np.uint8)
    rows = b"".join(
        b"\0" + np.packbits(np.unpackbits(levels[:, None], axis=1)[:, 8 - bits :].ravel()).tobytes() for _ in "ab"
    )
    head = struct.pack(">IIBBBBB", len(levels), 2, bits, 0, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    )
    np.testing.assert_array_equal(pixels(png(data))[0], levels.astype(int) * 255 // ((1 << bits) - 1))


def test_png_palettes_are_looked_up_and_grey_ones_stay_grey(png: File) -> None:
    coloured = Pillow.fromarray(RGB).quantize(256)
    np.testing.assert_array_equal(pixels(png(saved(coloured, "PNG"))), np.asarray(coloured.convert("RGB")))
    grey = Pillow.fromarray(GREY).convert("P")
    np.testing.assert_array_equal(pixels(png(saved(grey, "PNG"))), GREY)


def test_png_16_bits_keep_every_bit(png: File) -> None:
    import png as pypng

    deep = np.random.default_rng(0).integers(0, 65536, (9, 5, 3)).astype(np.uint16)
    buffer = BytesIO()
    pypng.Writer(5, 9, greyscale=False, bitdepth=16).write(buffer, deep.reshape(9, 15).tolist())
    np.testing.assert_array_equal(pixels(png(buffer.getvalue())), deep)
    np.testing.assert_array_equal(pixels(png(saved(Pillow.fromarray(deep[..., 0]), "PNG"))), deep[..., 0])


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_alpha_is_dropped_only_where_it_hides_nothing(kind: str, png: File) -> None:
    opaque = Pillow.fromarray(np.dstack([RGB, np.full_like(GREY, 255)]), "RGBA")
    np.testing.assert_array_equal(pixels(png(saved(opaque, kind))), RGB)
    with pytest.raises(BadInput, match="transparent"):
        raster.read(png(saved(Pillow.fromarray(np.dstack([RGB, GREY]), "RGBA"), kind)))
    two = Pillow.fromarray(np.dstack([GREY, np.full_like(GREY, 255)]), "LA")
    np.testing.assert_array_equal(pixels(png(saved(two, kind))), GREY)


def test_animated_png_and_tiff_pages_are_parts(png: File) -> None:
    frames = [Pillow.fromarray(GREY), Pillow.fromarray(255 - GREY), Pillow.fromarray(GREY // 2)]
    for kind in ("PNG", "TIFF"):
        path = png(saved(frames[0], kind, save_all=True, append_images=frames[1:]))
        assert [part.index for part in raster.parts(path)] == [0, 1, 2]
        np.testing.assert_array_equal(pixels(path, 1), 255 - GREY)


def test_a_png_chunk_that_fails_its_checksum_is_refused(png: File) -> None:
    data = bytearray(saved(Pillow.fromarray(GREY), "PNG"))
    data[data.index(b"IDAT") + 6] ^= 1
    with pytest.raises(BadInput, match="checksum"):
        raster.parts(png(bytes(data)))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_kind_is_turned_upright(orientation: int, png: File) -> None:
    from PIL import ImageOps

    picture = Pillow.fromarray(RGB).resize((16, 24), Pillow.Resampling.NEAREST)
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    jpeg = saved(picture, "JPEG", exif=exif, quality=95)
    with Pillow.open(BytesIO(jpeg)) as opened:
        np.testing.assert_array_equal(pixels(png(jpeg)), np.asarray(ImageOps.exif_transpose(opened)))
    deep = Pillow.fromarray(np.arange(24 * 16, dtype=np.uint16).reshape(24, 16) * 150)
    for source, compression in ((picture, "raw"), (picture, "tiff_lzw"), (picture, "jpeg"), (deep, "tiff_lzw")):
        tiff = saved(source, "TIFF", tiffinfo={274: orientation}, compression=compression)
        with Pillow.open(BytesIO(tiff)) as opened:
            np.testing.assert_array_equal(pixels(png(tiff)), np.asarray(ImageOps.exif_transpose(opened)))
    for source in (picture, deep):
        data = saved(source, "PNG", exif=exif)
        with Pillow.open(BytesIO(data)) as opened:
            np.testing.assert_array_equal(pixels(png(data)), np.asarray(ImageOps.exif_transpose(opened)))
        (part,) = raster.parts(png(data))
        assert (part.form.height, part.form.width) == pixels(png(data)).shape[:2]


def test_jpeg_cmyk_becomes_rgb(png: File) -> None:
    picture = Pillow.fromarray(RGB).convert("CMYK")
    data = saved(picture, "JPEG")
    with Pillow.open(BytesIO(data)) as opened:
        np.testing.assert_array_equal(pixels(png(data)), np.asarray(opened.convert("RGB")))


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_deflate", "packbits"])
@pytest.mark.parametrize("mode", ["L", "RGB", "I;16"])
def test_tiff_compressions(compression: str, mode: str, png: File) -> None:
    array: Any = {"L": GREY, "RGB": RGB, "I;16": GREY.astype(np.uint16) * 257}[mode]
    np.testing.assert_array_equal(pixels(png(saved(Pillow.fromarray(array), "TIFF", compression=compression))), array)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("planes", ["contig", "separate", None])
def test_tiff_depths_byte_orders_and_planes(dtype: str, order: str, planes: str | None, png: File) -> None:
    import tifffile

    array = np.random.default_rng(1).integers(0, 120, (9, 6, 3)).astype(dtype) * (1 if dtype == "uint8" else 200)
    buffer = BytesIO()
    if planes is None:
        array = array[..., 0]
        tifffile.imwrite(buffer, array, byteorder=order, photometric="minisblack")
    else:
        plane = np.moveaxis(array, -1, 0) if planes == "separate" else array
        tifffile.imwrite(buffer, plane, byteorder=order, photometric="rgb", planarconfig=planes)
    np.testing.assert_array_equal(pixels(png(buffer.getvalue())), array)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_tiff_min_is_white_is_inverted(dtype: str, png: File) -> None:
    import tifffile

    array = GREY.astype(dtype) * (257 if dtype == "uint16" else 1)
    buffer = BytesIO()
    tifffile.imwrite(buffer, array, photometric="miniswhite")
    np.testing.assert_array_equal(pixels(png(buffer.getvalue())), np.iinfo(dtype).max - array)


def test_tiff_palette(png: File) -> None:
    picture = Pillow.fromarray(RGB).quantize(256)
    np.testing.assert_array_equal(pixels(png(saved(picture, "TIFF"))), np.asarray(picture.convert("RGB")))


def test_a_bomb_is_refused_by_its_header(png: File) -> None:
    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in ((b"IHDR", head), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b""))
    )
    with pytest.raises(BadInput, match="60000x60000"):
        raster.parts(png(data))


@pytest.mark.external("exiftool")
@pytest.mark.parametrize("codec", ["png", "tiff"])
def test_exiftool_reads_the_mark(codec: str, tmp_path: Path, draw: Callable[[Form], Image], mark: Mark) -> None:
    path = tmp_path / f"marked.{codec}"
    path.write_bytes(codecs.encode(draw(Form(codec, "uint16", 3, 20, 30)), mark))
    tool = shutil.which("exiftool")
    assert tool is not None
    told = subprocess.run([tool, "-a", "-u", "-G1", str(path)], capture_output=True, text=True, check=True).stdout
    assert "trainedAlgorithmicMedia" in told
    assert "Synthetic" in told
    assert "Warning" not in told
    assert "Error" not in told


def test_the_mark_names_nothing_of_the_machine(draw: Callable[[Form], Image], mark: Mark) -> None:
    import getpass
    import socket

    for codec in ("png", "tiff", "dicom", "nifti"):
        data = codecs.encode(draw(Form(codec, "uint8", 1, 20, 30)), mark)
        for secret in (socket.gethostname(), getpass.getuser(), str(Path.cwd())):
            assert len(secret) < 4 or secret.encode() not in data
