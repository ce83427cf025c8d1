"""Synthetic images as .nii.gz that say so in their header, in an extension and in a JSON file beside them.

Numbers, slope, affine and the codes that say what the affine refers to are those of the form (NIfTI-1, Cox et al. 2004).
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mgdm_cli.data.codecs import marks
from mgdm_cli.data.codecs.base import Array, Floats, quantised
from mgdm_cli.data.image import Form, Image, Mark

NUMBERS = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float64")  # that `Form.stored` may name
_SCANNER = (1, 1)  # codes where a form has an affine and says nothing of them


def nifti_file(image: Image, mark: Mark) -> bytes:
    """(C,H,W) -> a gzipped NIfTI-1 of shape (W, H, 1) with the form's affine; no clock and no name in the packing."""
    affine = np.array(image.form.affine, dtype=np.float64) if image.form.affine is not None else None
    return _packed(_voxels(image)[:, :, None], affine, image.form, mark)


def nifti_volume(images: Sequence[Image], mark: Mark) -> bytes:
    """Slices, in order, -> one gzipped NIfTI-1 of shape (W, H, slices) in which every pixel keeps its place in mm.

    Raises ValueError where the slices do not lie on one grid or differ in anything but their place.
    """
    forms = [image.form for image in images]
    if len({replace(form, affine=None) for form in forms}) != 1 or forms[0].affine is None:
        raise ValueError("a volume needs slices of one form, each with its place")
    matrices = np.array([form.affine for form in forms], dtype=np.float64)
    affine = matrices[0].copy()
    if len(forms) > 1:
        affine[:3, 2] = (matrices[-1] - matrices[0])[:3, 3] / (len(forms) - 1)
    grid = np.repeat(affine[None], len(forms), axis=0)
    grid[:, :3, 3] += np.arange(len(forms))[:, None] * affine[:3, 2]
    if not np.allclose(grid[:, :3, [0, 1, 3]], matrices[:, :3, [0, 1, 3]], atol=1e-3):
        raise ValueError("the slices of a volume must be parallel and equally far apart")
    return _packed(np.stack([_voxels(image) for image in images], axis=2), affine, forms[0], mark)


def settled(image: Image) -> Floats:
    """(C,H,W) float32: the values that a reader of the written file gets."""
    if image.form.stored is None:
        return quantised(image).astype(np.float32)
    _, slope, intercept = image.form.stored
    raw = _raw(image)
    scaled = raw if (slope, intercept) == (1.0, 0.0) else raw.astype(np.float64) * slope + intercept
    return scaled.astype(np.float32)


def _raw(image: Image) -> Array:
    """(C,H,W) numbers as they stand on the disk: (value - intercept) / slope, rounded and clipped to the type."""
    if image.form.stored is None:
        return quantised(image)
    name, slope, intercept = image.form.stored
    if not np.isfinite(image.pixels).all():
        raise ValueError("an image to be written holds NaN or infinity")
    values = (image.pixels.astype(np.float64) - intercept) / slope
    dtype = np.dtype(name)
    if dtype.kind == "f":
        return values.astype(dtype)
    info = np.iinfo(dtype)
    return np.clip(np.rint(values), info.min, info.max).astype(dtype)


def _voxels(image: Image) -> Array:
    """(W, H): columns first, colours as RGB24."""
    array = _raw(image)
    if array.shape[0] == 3:
        rgb = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
        array = np.ascontiguousarray(np.moveaxis(array, 0, -1)).view(rgb)[None, ..., 0]
    flat: Array = array[0].T
    return flat


def _packed(voxels: Array, affine: NDArray[np.float64] | None, form: Form, mark: Mark) -> bytes:
    import nibabel

    header = nibabel.Nifti1Header()
    header.set_data_dtype(voxels.dtype)
    header.set_data_shape(voxels.shape)
    picture = nibabel.Nifti1Image(voxels, affine, header)
    spacing = form.spacing_mm or (1.0, 1.0)
    if affine is None:
        picture.header.set_zooms((spacing[1], spacing[0], 1.0))
    else:
        _locate(picture, affine, form.codes or _SCANNER)
    _, slope, intercept = form.stored or ("", 1.0, 0.0)
    picture.header.set_slope_inter(slope, intercept)
    picture.header.set_xyzt_units("mm", "sec")
    picture.header["descrip"] = f"SYNTHETIC mgdm {mark.version}".encode()[:79]
    text = json.dumps(marks.facts(mark), sort_keys=True).encode()
    picture.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", text))
    return gzip.compress(picture.to_bytes(), 6, mtime=0)


def _locate(picture: Any, affine: NDArray[np.float64], codes: tuple[int, int]) -> None:
    """The affine under both codes; a code of 0 says that its form is not to be used."""
    qform, sform = codes if max(codes) > 0 else _SCANNER
    picture.set_qform(affine, code=qform)
    picture.set_sform(affine, code=sform)
