"""NIfTI-1 and -2 (.nii, .nii.gz): 2-D images, and volumes cut into axial, coronal or sagittal slices.

A slice's part number is 3 * k + axis, axis 0 sagittal, 1 coronal, 2 axial of the volume turned towards RAS+. Slices are
shown as radiologists look at them: axial with anterior on top and the patient's right on the left, coronal and sagittal
with the head up. Form.affine maps (column, row, slice) of the picture to mm, so a slice keeps its place in the patient.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mgdm_cli.data.codecs.base import NOTHING, Array, Ask, Floats, Part, as_pixels, check_size, guarded, stored_dtype
from mgdm_cli.data.codecs.nifti_file import checked_header, is_nifti, plain_bytes
from mgdm_cli.data.codecs.nifti_out import NUMBERS, nifti_file
from mgdm_cli.data.codecs.nifti_out import settled as settled_values
from mgdm_cli.data.geometry import about_origin
from mgdm_cli.data.image import Form, Image, Mark
from mgdm_cli.errors import BadInput

NAMES = ("nifti",)
SUFFIX = {"nifti": ".nii.gz"}
AXES = {"sagittal": 0, "coronal": 1, "axial": 2}
# per RAS axis that a slice is normal to: (RAS axis of the columns, of the rows); both run against it: to L, P and I
_PLANES = {0: (1, 2), 1: (0, 2), 2: (0, 1)}
_STANDARD = (3, 4, 5)  # codes: Talairach, MNI 152, another template
_MM = {"unknown": 1.0, "mm": 1.0, "meter": 1000.0, "micron": 0.001}


@dataclass(frozen=True)
class _Volume:
    frames: Array  # (t, i, j, k) or (t, i, j, k, 3), as stored
    affine: NDArray[np.float64] | None  # voxel -> mm; None where the file has none
    zooms: tuple[float, float, float]  # mm
    dtype: str
    slope: float
    intercept: float
    synthetic: bool
    codes: tuple[int, int]  # qform, sform
    axes: tuple[int, ...]  # for each of R, A, S: the voxel axis closest to it
    signs: tuple[int, ...]  # and whether it runs along (+1) or against it (-1)

    @property
    def voxels(self) -> Array:
        """(i, j, k) or (i, j, k, 3): the first of the frames."""
        first: Array = self.frames[0]
        return first


def claims(head: bytes, path: Path) -> bool:
    """By the header's size and magic, also through gzip."""
    return is_nifti(head)


def parts(path: Path, ask: Ask = NOTHING) -> list[Part]:
    """One part for an image, one per slice for a volume. The whole file is unpacked, so its checksum is checked."""
    with guarded("the NIfTI file"):
        volume = _volume(path, ask)
        flags = frozenset({"synthetic"}) if volume.synthetic else frozenset[str]()
        times = _times(volume, ask.frames)
        flat = _flat_axis(volume)
        if flat is not None:
            form = _form(volume, _flat_plane(volume, flat))
            return [Part(t if len(volume.frames) > 1 else None, form, flags=flags) for t in range(times)]
        if ask.slices is None:
            shape = "x".join(str(n) for n in volume.voxels.shape[:3])
            raise BadInput(f"is a volume of {shape} voxels", "Choose --slices axial, coronal or sagittal.")
        axis = AXES[ask.slices]
        count = volume.voxels.shape[volume.axes[axis]]
        forms = [_form(volume, _plane(volume, 3 * k + axis)) for k in range(count)]
        return [Part(3 * k + axis, forms[k % count], flags=flags) for k in range(times * count)]


def read(path: Path, part: int | None = None, ask: Ask = NOTHING) -> Image:
    """The image, or the slice that `part` numbers, rescaled by scl_slope and scl_inter."""
    with guarded("the NIfTI file"):
        volume = _volume(path, ask)
        flat = _flat_axis(volume)
        if flat is None and part is None:
            raise BadInput("is a volume", "Choose --slices axial, coronal or sagittal.")
        if flat is not None:
            time, turn = part or 0, _flat_plane(volume, flat)
        else:
            k, axis = divmod(part or 0, 3)
            time, k = divmod(k, volume.voxels.shape[volume.axes[axis]])
            turn = _plane(volume, 3 * k + axis)
        if time >= len(volume.frames):
            raise BadInput(f"image {part} is not there")
        array = _cut(volume.frames[time], turn)
        if (volume.slope, volume.intercept) != (1.0, 0.0):
            array = array.astype(np.float64) * volume.slope + volume.intercept
        return Image(as_pixels(array, ask.nan), _form(volume, turn))


def output_form(form: Form) -> Form:
    """NIfTI holds every Form; colour as RGB24, so 8-bit. A place in a scanner is one patient's: its middle becomes the origin."""
    if form.channels == 3:
        form = replace(form, dtype="uint8", stored=None)
    if form.affine is None:
        return form
    qform, sform = form.codes or (0, 0)
    own = sform or qform  # which of them the affine is of
    if own in _STANDARD:
        return form
    codes = None if form.codes is None else (own if qform in _STANDARD else qform, sform)
    axes = np.asarray(form.affine, dtype=np.float64)[:3, :3]
    return replace(form, affine=about_origin(axes, form.height, form.width), codes=codes)


def encode(image: Image, mark: Mark) -> bytes:
    """A one-slice .nii.gz with the mark in descrip and in a comment extension."""
    return nifti_file(Image(image.pixels, output_form(image.form)), mark)


def settled(image: Image) -> Floats:
    """(C,H,W): what `read` gives back of an image in `output_form`."""
    return settled_values(image)


def _times(volume: _Volume, frames: str | None) -> int:
    """How many volumes of a 4-D file are asked for."""
    if len(volume.frames) > 1 and frames is None:
        raise BadInput(f"has {len(volume.frames)} frames", "Choose --frames first or --frames all.")
    return len(volume.frames) if frames == "all" else 1


def _volume(path: Path, ask: Ask) -> _Volume:
    stat = path.stat()
    return _loaded(path, stat.st_mtime_ns, stat.st_size, ask.max_bytes)


@lru_cache(maxsize=2)
def _loaded(path: Path, changed_ns: int, size: int, limit: int) -> _Volume:
    plain = plain_bytes(path, limit)
    header = checked_header(plain)
    shape = tuple(int(n) for n in header.get_data_shape())
    colour = header.get_data_dtype().names is not None
    if len(shape) > 4 and max(shape[4:]) > 1:
        raise BadInput(f"has {max(shape[4:])} components per voxel, which is not a picture")
    voxels = np.ndarray(shape, header.get_data_dtype(), plain, int(header["vox_offset"]), order="F")
    voxels = voxels.reshape((*shape[:4], *(1,) * (4 - len(shape[:4]))), order="F")
    voxels = np.moveaxis(voxels, 3, 0)
    if colour:
        voxels = np.stack([voxels[name] for name in ("R", "G", "B")], axis=-1)
    slope, intercept = _scaling(header)
    whole = float(slope).is_integer() and float(intercept).is_integer()
    dtype = stored_dtype(voxels.dtype) if (slope, intercept) == (1.0, 0.0) else "float32"
    if dtype == "float32" and slope == 1.0 and whole and voxels.dtype.kind in "iu" and voxels.dtype.itemsize <= 2:
        dtype = "int16"
    known = int(header["sform_code"]) > 0 or int(header["qform_code"]) > 0
    factor = _MM.get(header.get_xyzt_units()[0], 1.0)
    affine = np.diag([factor, factor, factor, 1.0]) @ header.get_best_affine() if known else None
    zooms = [float(z) * factor for z in header.get_zooms()[:3]] + [1.0] * 3
    descrip = bytes(header["descrip"].tobytes())
    axes, signs = _turned(affine)
    marked = b"SYNTHETIC" in descrip
    codes = int(header["qform_code"]), int(header["sform_code"])
    edges = zooms[0], zooms[1], zooms[2]
    return _Volume(voxels, affine, edges, dtype, slope, intercept, marked, codes, axes, signs)


def _scaling(header: Any) -> tuple[float, float]:
    """(slope, intercept); NIfTI says that slope 0 means no scaling."""
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if np.isnan(slope) or slope == 0:
        return 1.0, 0.0
    return slope, 0.0 if np.isnan(intercept) else intercept


def _flat_axis(volume: _Volume) -> int | None:
    """The last voxel axis of length 1, of what is a picture; None for a volume."""
    return next((axis for axis in (2, 1, 0) if volume.voxels.shape[axis] == 1), None)


def _flat_plane(volume: _Volume, normal: int) -> NDArray[np.float64]:
    columns, rows = (axis for axis in range(3) if axis != normal)
    turn = np.zeros((4, 4))
    turn[columns, 0] = turn[rows, 1] = turn[normal, 2] = turn[3, 3] = 1.0
    return turn


def _turned(affine: NDArray[np.float64] | None) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """For each of R, A, S: the voxel axis closest to it, and +1 or -1."""
    from nibabel.orientations import io_orientation

    axes, signs = [0, 0, 0], [1, 1, 1]
    for axis, (world, sign) in enumerate(io_orientation(affine if affine is not None else np.eye(4))):
        axes[int(world)], signs[int(world)] = axis, int(sign)
    return tuple(axes), tuple(signs)


def _plane(volume: _Volume, part: int) -> NDArray[np.float64]:
    """4x4: (column, row, 0, 1) of the slice's picture -> voxel index."""
    k, world = divmod(part, 3)
    axes, signs = volume.axes, volume.signs
    shape = volume.voxels.shape
    if k >= shape[axes[world]]:
        raise BadInput(f"slice {k} is not there")
    turn = np.zeros((4, 4))
    turn[3, 3] = 1.0
    for column, along in enumerate(_PLANES[world]):
        voxel = axes[along]
        turn[voxel, column] = -signs[along]
        turn[voxel, 3] = shape[voxel] - 1 if signs[along] > 0 else 0
    turn[axes[world], 2] = 1.0
    turn[axes[world], 3] = k
    return turn


def _cut(voxels: Array, turn: NDArray[np.float64]) -> Array:
    """(H, W) or (H, W, 3): the picture that `turn` describes."""
    columns, rows, normal = (int(np.flatnonzero(turn[:3, i])[0]) for i in range(3))
    picture: Array = np.moveaxis(voxels, normal, 0)[int(turn[normal, 3])]
    if columns < rows:
        picture = np.swapaxes(picture, 0, 1)
    if turn[rows, 1] < 0:
        picture = picture[::-1]
    return picture[:, ::-1] if turn[columns, 0] < 0 else picture


def _form(volume: _Volume, turn: NDArray[np.float64]) -> Form:
    columns, rows = (int(np.flatnonzero(turn[:3, i])[0]) for i in range(2))
    height, width = volume.voxels.shape[rows], volume.voxels.shape[columns]
    channels = 3 if volume.voxels.ndim == 4 else 1
    check_size(height, width, channels)
    affine = None
    if volume.affine is not None:
        affine = tuple(tuple(float(v) for v in row) for row in volume.affine @ turn)
    spacing = (volume.zooms[rows], volume.zooms[columns])
    kept = spacing if min(spacing) > 0 else None
    codes = volume.codes if affine is not None else None
    return Form("nifti", volume.dtype, channels, height, width, kept, affine, codes=codes, stored=_numbers(volume))


def _numbers(volume: _Volume) -> tuple[str, float, float] | None:
    """How the file holds its values, where Form.dtype does not say it; floating point loses its slope."""
    name, scale = volume.voxels.dtype.newbyteorder("=").name, (volume.slope, volume.intercept)
    if name == volume.dtype and scale == (1.0, 0.0):
        return None
    if name not in NUMBERS or (volume.voxels.dtype.kind == "f" and scale != (1.0, 0.0)):
        return None
    return (name, *scale)
