"""MedMNIST-style .npz: {train,val,test}_images (N,H,W[,1|3]) and _labels (N[,1]); each row is an image of its own."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from mgdm_cli.data.codecs import raster
from mgdm_cli.data.codecs.base import (
    FAULTS,
    MAX_SET_BYTES,
    NOTHING,
    Array,
    Ask,
    Floats,
    Part,
    as_pixels,
    check_size,
    guarded,
    stored_dtype,
)
from mgdm_cli.data.image import Form, Image, Mark
from mgdm_cli.errors import BadInput

NAMES = ("npz",)
SUFFIX = {"npz": ".png"}
SUFFIXES = (".npz",)
_SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class _Block:
    split: str | None
    images: Array  # (N, H, W) or (N, H, W, 3)
    labels: tuple[str | None, ...]


def claims(head: bytes, path: Path) -> bool:
    """A zip archive with an array of images in it."""
    if not head.startswith(b"PK\x03\x04"):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, *FAULTS):
        return path.suffix.casefold() == ".npz"
    return any(name == "images.npy" or name.endswith("_images.npy") for name in names)


def parts(path: Path, ask: Ask = NOTHING) -> list[Part]:
    """One part per row, numbered through train, val and test."""
    with guarded("the npz file"):
        found: list[Part] = []
        for block in _blocks(path):
            form = _form(block.images)
            for row, label in zip(block.images, block.labels, strict=True):
                digest = hashlib.sha256(f"{row.shape}{row.dtype.str}".encode() + np.ascontiguousarray(row).tobytes())
                found.append(Part(len(found), form, label, split=block.split, sha256=digest.hexdigest()))
        return found


def read(path: Path, part: int | None = None, ask: Ask = NOTHING) -> Image:
    """One row."""
    with guarded("the npz file"):
        row = part or 0
        for block in _blocks(path):
            if row < len(block.images):
                return Image(as_pixels(block.images[row], ask.nan), _form(block.images))
            row -= len(block.images)
        raise BadInput(f"row {part} is not there")


def output_form(form: Form) -> Form:
    """As a file of its own: PNG; TIFF for signed and floating-point values."""
    return raster.output_form(replace(form, codec="png"))


def settled(image: Image) -> Floats:
    """(C,H,W): what `read` gives back of an image in `output_form`."""
    return raster.settled(image)


def encode(image: Image, mark: Mark) -> bytes:
    """A PNG (or TIFF) file."""
    return raster.encode(Image(image.pixels, output_form(image.form)), mark)


def _blocks(path: Path) -> tuple[_Block, ...]:
    stat = path.stat()
    return _loaded(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=2)
def _loaded(path: Path, changed_ns: int, size: int) -> tuple[_Block, ...]:
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(info.file_size for info in archive.infolist())
        if unpacked > MAX_SET_BYTES:
            raise BadInput(f"would unpack to {unpacked} bytes; the limit is {MAX_SET_BYTES}")
        blocks = _arrays(path)
    except (zipfile.BadZipFile, zlib.error) as fault:
        raise BadInput("is cut short or fails its checksum") from fault
    if not blocks:
        raise BadInput("holds no images array", "Name the arrays train_images, train_labels and so on.")
    return blocks


def _arrays(path: Path) -> tuple[_Block, ...]:
    with np.load(path, allow_pickle=False) as arrays:
        names = set(arrays.files)
        pairs = [(s, f"{s}_images", f"{s}_labels") for s in _SPLITS] + [(None, "images", "labels")]
        return tuple(
            _block(split, arrays[images], arrays[labels] if labels in names else None)
            for split, images, labels in pairs
            if images in names
        )


def _block(split: str | None, images: Array, labels: Array | None) -> _Block:
    if images.ndim == 4 and images.shape[-1] == 1:
        images = images[..., 0]
    if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[-1] != 3):
        raise BadInput(f"holds images of shape {images.shape}, not (N,H,W) or (N,H,W,3)")
    check_size(images.shape[1], images.shape[2])
    if labels is None:
        return _Block(split, images, (None,) * len(images))
    if labels.ndim == 2 and labels.shape[1] > 1:
        raise BadInput(f"has {labels.shape[1]} labels per image", "Only one label per image can be learnt.")
    flat = labels.reshape(-1)
    if len(flat) != len(images):
        raise BadInput(f"has {len(images)} images and {len(flat)} labels")
    return _Block(split, images, tuple(_name(value) for value in flat.tolist()))


def _name(value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value)


def _form(images: Array) -> Form:
    channels = 3 if images.ndim == 4 else 1
    return Form("npz", stored_dtype(images.dtype), channels, images.shape[1], images.shape[2])
