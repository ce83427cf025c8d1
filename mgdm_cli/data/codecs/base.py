"""What every codec shares: what it is asked (`Ask`), what it answers (`Part`), its limits and its faults."""

from __future__ import annotations

import os
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mgdm_cli.data.image import Form, Image, Mark
from mgdm_cli.errors import BadInput, IoFailed, MgdmError

Array = NDArray[Any]
Floats = NDArray[np.float32]

MAX_PIXELS = 100_000_000  # of one image, over all its channels
MAX_BYTES = 1 << 30  # of one picture file, packed or unpacked
MAX_SET_BYTES = 1 << 34  # of one file that holds a whole set (npz)
DTYPES = ("uint8", "uint16", "int16", "float32")

FAULTS = (
    AttributeError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AssertionError,
    EOFError,
    ArithmeticError,
    struct.error,
    zlib.error,
    RuntimeError,  # pydicom: no decoder managed it; also RecursionError and NotImplementedError
    SyntaxError,  # Pillow's "broken PNG"
)


_DECODERS = frozenset({"pydicom", "nibabel", "PIL", "png", "tifffile", "zipfile"})  # with exceptions of their own


@dataclass(frozen=True)
class Ask:
    """What a person asked about files that hold more than one image, or their label."""

    slices: str | None = None  # "axial", "coronal", "sagittal": cut volumes
    label_tag: str | None = None  # DICOM keyword or "gggg,eeee" whose value is the label
    max_bytes: int = MAX_BYTES  # of one picture file, packed or unpacked
    nan: float | None = None  # what stands in for NaN and infinity; None: they are refused
    voi: bool = False  # DICOM: the first window of the header, as 8-bit grey
    frames: str | None = None  # "first", "all": of a file that holds several images or volumes


NOTHING = Ask()


@dataclass(frozen=True)
class Part:
    """One image inside a file, told by its header. `index` is None for a file that is one image."""

    index: int | None
    form: Form
    label: str | None = None
    patient: str | None = None  # already a digest: see `patient_digest`, `study_digest`
    split: str | None = None
    sha256: str | None = None  # where the part has bytes of its own
    flags: frozenset[str] = frozenset()  # "synthetic", "burned-in"
    group: str | None = None  # digest of the series that the image is a slice of


class Codec(Protocol):
    """A codec is a module with these names."""

    @property
    def NAMES(self) -> tuple[str, ...]: ...

    @property
    def SUFFIX(self) -> dict[str, str]: ...

    def claims(self, head: bytes, path: Path) -> bool: ...

    def parts(self, path: Path, ask: Ask = ...) -> list[Part]: ...

    def read(self, path: Path, part: int | None = None, ask: Ask = ...) -> Image: ...

    def output_form(self, form: Form) -> Form: ...

    def settled(self, image: Image) -> Floats: ...

    def encode(self, image: Image, mark: Mark) -> bytes: ...


@contextmanager
def guarded(what: str) -> Iterator[None]:
    """Turns what a decoder raises on a bad file into BadInput; its own text is dropped, for it may quote a header."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except MgdmError:
        raise
    except MemoryError as fault:
        raise BadInput(f"{what} needs more memory than one file may take") from fault
    except OSError as fault:
        if fault.errno is not None and not isinstance(fault, FileNotFoundError):
            raise IoFailed(f"{what} cannot be read: {os.strerror(fault.errno)}") from fault
        raise BadInput(f"{what} is damaged or cut short") from fault
    except ImportError as fault:
        raise BadInput(
            f"{what} needs a decoder that is not installed",
            "Install the extra codecs: pip install '.[codecs]' in a clone of mgdm.",
        ) from fault
    except FAULTS as fault:
        raise BadInput(f"{what} could not be decoded ({type(fault).__name__})") from fault
    except Exception as fault:
        if type(fault).__module__.partition(".")[0] not in _DECODERS:
            raise
        raise BadInput(f"{what} could not be decoded ({type(fault).__name__})") from fault


def file_bytes(path: Path, limit: int = MAX_BYTES) -> bytes:
    """The bytes of a file no larger than `limit`."""
    size = path.stat().st_size
    if size == 0:
        raise BadInput("is empty")
    if size > limit:
        raise too_large(f"holds {size} bytes", limit)
    return path.read_bytes()


def too_large(what: str, limit: int) -> BadInput:
    """The error of a file over its cap, packed or unpacked."""
    return BadInput(f"{what}; the limit is {limit} bytes", "--max-file-size raises it.")


def check_size(height: int, width: int, channels: int = 1) -> None:
    """Raises BadInput where the header's size is none, or too large to be decoded."""
    if min(height, width, channels) < 1:
        raise BadInput("has no image size")
    if height * width * channels > MAX_PIXELS:
        raise BadInput(f"header says {height}x{width}x{channels}; the limit is {MAX_PIXELS} values")


def stored_dtype(dtype: np.dtype[Any]) -> str:
    """The Form.dtype that holds every value of `dtype`; 32-bit and larger numbers are held as float32."""
    if dtype.kind == "b" or (dtype.kind == "u" and dtype.itemsize == 1):
        return "uint8"
    if dtype.kind == "i" and dtype.itemsize <= 2:
        return "int16"
    if dtype.kind == "u" and dtype.itemsize == 2:
        return "uint16"
    if dtype.kind in "iuf":
        return "float32"
    raise BadInput(f"holds {dtype.name} values, which is not a picture")


def as_pixels(array: Array, nan: float | None = None) -> Floats:
    """(H,W) or (H,W,C) -> (C,H,W) float32, contiguous and finite; `nan` stands in for what is not."""
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3):
        raise BadInput(f"holds an array of shape {array.shape}, not a grey or RGB picture")
    pixels = np.ascontiguousarray(np.moveaxis(array, -1, 0), dtype=np.float32)
    if array.dtype.kind == "f" and not np.isfinite(pixels).all():
        if nan is not None:
            return np.where(np.isfinite(pixels), pixels, np.float32(nan))
        wrong = int(pixels.size - np.isfinite(pixels).sum())
        raise BadInput(
            f"holds {wrong} values of {pixels.size} ({100 * wrong / pixels.size:.2g} %) that are NaN or infinite",
            "--nan fill=0 puts a number in their place.",
        )
    return pixels


def quantised(image: Image) -> Array:
    """(C,H,W) physical values -> the same shape in Form.dtype: rounded half to even, clipped to its range."""
    pixels = image.pixels
    if not np.isfinite(pixels).all():
        raise ValueError("an image to be written holds NaN or infinity")
    dtype = np.dtype(image.form.dtype)
    if dtype.kind == "f":
        return pixels.astype(dtype)
    info = np.iinfo(dtype)
    return np.clip(np.rint(pixels), info.min, info.max).astype(dtype)


def rows_last(array: Array) -> Array:
    """(C,H,W) -> (H,W) for grey, (H,W,3) for colour, contiguous."""
    return np.ascontiguousarray(array[0] if array.shape[0] == 1 else np.moveaxis(array, 0, -1))
