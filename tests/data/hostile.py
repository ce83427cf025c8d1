"""Bad and hostile files of every kind, made on the spot; each maker takes the folder or file that it fills."""

from __future__ import annotations

import gzip
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from PIL import Image as Pillow
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID

from mgdm_cli.data import codecs
from mgdm_cli.data.image import Form, Image, Mark

SECRET = "DOE^JOHN^SECRET"
IMPLICIT, EXPLICIT, BIG, DEFLATED, RLE = (
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.5",
)


def noise(seed: int = 0, size: int = 16, dtype: str = "uint8") -> Any:
    info = np.iinfo(dtype)
    return np.random.default_rng(seed).integers(info.min, info.max, (size, size), endpoint=True).astype(dtype)


def png(path: Path, seed: int = 0, size: int = 16, kind: str = "PNG") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Pillow.fromarray(noise(seed, size)).save(path, kind)
    return path


def dicom(path: Path, syntax: str = EXPLICIT, *, without: tuple[str, ...] = (), **tags: Any) -> Path:
    """A 64x64 16-bit image of a patient with a name."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID("1.2.840.10008.5.1.4.1.1.7")
    meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID = UID("1.2.3.4"), UID(syntax)
    made = Dataset()
    made.file_meta, made.preamble = meta, b"\0" * 128
    made.SOPClassUID, made.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    made.PatientName, made.PatientID, made.Modality = SECRET, "MRN-4711", "CT"
    made.Rows = made.Columns = 64
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.BitsAllocated = made.BitsStored = 16
    made.HighBit, made.PixelRepresentation = 15, 0
    made.add_new(0x7FE00010, "OW", noise(hash(path.name) % 1000, 64, "uint16").astype("<u2").tobytes())
    for name, value in tags.items():
        setattr(made, name, value)
    for name in without:
        delattr(made, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    made.save_as(path, enforce_file_format=True)
    return path


def nifti(path: Path, array: Any = None, *, edit: Callable[[bytearray], None] | None = None) -> Path:
    """A 2-D NIfTI-1; `edit` changes its plain bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = noise(3).astype(np.int16)[..., None] if array is None else array
    plain = bytearray(nibabel.Nifti1Image(array, np.eye(4)).to_bytes())
    if edit is not None:
        edit(plain)
    path.write_bytes(gzip.compress(bytes(plain)) if path.suffix == ".gz" else bytes(plain))
    return path


def put(at: int, form: str, *values: Any) -> Callable[[bytearray], None]:
    return lambda plain: struct.pack_into(form, plain, at, *values)


def patched(path: Path, old: bytes, new: bytes) -> None:
    assert old in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(old, new))


def cut(path: Path, keep: int) -> None:
    path.write_bytes(path.read_bytes()[:keep])


def good(root: Path, count: int = 2) -> None:
    for index in range(count):
        png(root / "a" / f"good{index}.png", 100 + index)


def png_chunks(width: int, height: int, data: bytes) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def cut_dicom(root: Path) -> None:
    path = dicom(root / "a/x.dcm")
    cut(path, path.stat().st_size - 3000)


def nested(depth: int) -> Callable[[Path], None]:
    """A sequence in a sequence in a sequence ..., of undefined length (PS3.5 7.5)."""

    def make(root: Path) -> None:
        path = dicom(root / "a/x.dcm")
        data = path.read_bytes()
        deep = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff" * depth
        deep += b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0" * depth
        at = data.index(b"\x10\x00\x10\x00PN")
        path.write_bytes(data[:at] + deep + data[at:])

    return make


def frames(path: Path, kind: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    first, *rest = (Pillow.fromarray(noise(seed)) for seed in range(3))
    first.save(path, kind, save_all=True, append_images=rest)


def synthetic(root: Path, codec: str) -> None:
    mark = Mark("a-1", "a", "0" * 64, 1, "1" * 64, "0.1.0", "20260101")
    form = Form(codec, "uint8", 1, 16, 16)
    write(root / "a" / ("x" + codecs.suffix(form)), codecs.encode(Image(noise()[None].astype(np.float32), form), mark))


def same_pixels(root: Path, label: str, count: int) -> None:
    """A PNG and a TIFF of the same pixels, beside `count` other images."""
    good(root, count)
    array = noise(100)
    (root / label).mkdir(exist_ok=True)
    Pillow.fromarray(array).save(root / label / "again.tif", "TIFF")


def linked(root: Path) -> None:
    good(root)
    outside = png(root.parent / "outside.png", 9)
    (root / "a/link.png").symlink_to(outside)


def blank(root: Path) -> None:
    good(root, 3)
    for value in range(2):
        Pillow.fromarray(np.full((16, 16), value, np.uint8)).save(root / "a" / f"blank{value}.png")


def split_patients(root: Path) -> None:
    for seed, name in enumerate(("train/a/P1_x.png", "train/a/P2_x.png", "test/a/P1_y.png")):
        png(root / name, seed)


def unlabelled(root: Path) -> None:
    good(root)
    png(root / "alone.png", 7)


def table(text: str) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        good(root)
        (root / "table.csv").write_text(text)

    return make


def not_utf8(root: Path) -> None:
    good(root)
    with open(os.fsencode(root) + b"/a/caf\xe9.png", "wb") as file:
        file.write((root / "a/good0.png").read_bytes())


def mkdir(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def flipped(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))


def append(path: Path, more: bytes) -> None:
    path.write_bytes(path.read_bytes() + more)


def holes(root: Path) -> None:
    array = noise(3).astype(np.float32)[..., None]
    array[0, :3, 0] = np.nan, np.inf, -np.inf
    nifti(root / "a/x.nii", array)


def preamble(root: Path, start: bytes) -> None:
    path = dicom(root / "a/x.dcm")
    path.write_bytes(start + path.read_bytes()[len(start) :])


def overfull_png(root: Path) -> None:
    """Behind the rows that the header promises there are 40 MB more."""
    rows = b"".join(b"\0" + row.tobytes() for row in noise(5))
    write(root / "a/x.png", png_chunks(16, 16, zlib.compress(rows + bytes(40_000_000), 9)))


def two_sizes(root: Path) -> None:
    good(root)
    png(root / "a/x.png", size=24)


def one_too_small(root: Path) -> None:
    good(root)
    png(root / "a/x.png", size=12)


def two_kinds(root: Path) -> None:
    good(root)
    dicom(root / "a/x.dcm")


def two_bad(root: Path) -> None:
    good(root, 25)
    write(root / "a/bad.png", b"no")
    write(root / "a/bad2.png", b"")
