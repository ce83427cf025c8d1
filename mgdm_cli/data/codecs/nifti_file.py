"""The bytes of a NIfTI file, unpacked and checked: nibabel alone takes bad checksums and impossible headers."""

from __future__ import annotations

import math
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from mgdm_cli.data.codecs.base import MAX_BYTES, MAX_PIXELS, file_bytes, too_large
from mgdm_cli.errors import BadInput

_GZIP = b"\x1f\x8b"
_ONE, _TWO = 348, 540


def is_nifti(head: bytes) -> bool:
    """Whether a file begins like a single-file NIfTI, packed or not."""
    if head.startswith(_GZIP):
        try:
            head = zlib.decompressobj(31).decompress(head, _TWO)
        except zlib.error:
            return False
    return _version(head) is not None


def plain_bytes(path: Path, limit: int = MAX_BYTES) -> bytes:
    """The unpacked file: never more than `limit`, its checksum right and nothing behind its end."""
    data = file_bytes(path, limit)
    if not data.startswith(_GZIP):
        return data
    engine = zlib.decompressobj(31)
    try:
        plain = engine.decompress(data, limit)
    except zlib.error as fault:
        raise BadInput("its compressed data fails its checksum") from fault
    if engine.unconsumed_tail:
        raise too_large(f"would unpack to {limit} bytes or more", limit)
    if not engine.eof:
        raise BadInput("is cut short: its compressed data has no end")
    if engine.unused_data.strip(b"\0"):
        raise BadInput("has other data behind the end of its compressed data, which no checksum covers")
    return plain


def checked_header(plain: bytes) -> Any:
    """The nibabel header of an unpacked file whose every field that is used makes sense."""
    import nibabel

    version = _version(plain[:_TWO])
    if version is None:
        raise BadInput("is not a single-file NIfTI")
    kind: Any = nibabel.Nifti1Header if version == 1 else nibabel.Nifti2Header
    length = _ONE if version == 1 else _TWO
    if len(plain) < length:
        raise BadInput(f"is cut short: {len(plain)} of {length} header bytes")
    header: Any = kind(plain[:length], check=False)
    _check_shape([int(n) for n in header["dim"]])
    try:
        dtype = header.get_data_dtype()
    except Exception as fault:  # nibabel raises HeaderDataError, KeyError or its own kinds here
        raise BadInput(f"has the unknown datatype {int(header['datatype'])}") from fault
    _check_numbers(header, length)
    voxels = math.prod(header.get_data_shape())
    needed = int(header["vox_offset"]) + voxels * dtype.itemsize
    if len(plain) < needed:
        raise BadInput(f"is cut short: {len(plain)} of {needed} bytes")
    return header


def _version(head: bytes) -> int | None:
    for order in "<>":
        if len(head) >= _ONE and struct.unpack_from(order + "i", head)[0] == _ONE and head[344:347] == b"n+1":
            return 1
        if len(head) >= 8 and struct.unpack_from(order + "i", head)[0] == _TWO and head[4:7] == b"n+2":
            return 2
    return None


def _check_shape(dim: list[int]) -> None:
    if not 2 <= dim[0] <= 7:
        raise BadInput(f"field dim[0] is {dim[0]}, not 2 to 7")
    if min(dim[1 : dim[0] + 1]) < 1:
        raise BadInput(f"field dim holds {min(dim[1 : dim[0] + 1])}")
    if math.prod(dim[1 : dim[0] + 1]) > 8 * MAX_PIXELS:
        raise BadInput(
            f"header says {'x'.join(str(n) for n in dim[1 : dim[0] + 1])} voxels; the limit is {8 * MAX_PIXELS}"
        )


def _check_numbers(header: Any, length: int) -> None:
    offset = float(header["vox_offset"])
    if not np.isfinite(offset) or offset < length or offset != int(offset):
        raise BadInput(f"field vox_offset is {offset}")
    for name in ("scl_slope", "scl_inter"):
        if np.isinf(float(header[name])):
            raise BadInput(f"field {name} is {float(header[name])}")
    if int(header["sform_code"]) > 0 or int(header["qform_code"]) > 0:
        affine = header.get_best_affine()
        if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
            name = "sform" if int(header["sform_code"]) > 0 else "qform"
            raise BadInput(f"field {name} (the affine) holds NaN, or maps the volume to a plane")
