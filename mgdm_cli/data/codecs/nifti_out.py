"""A synthetic image as a one-slice .nii.gz that says so in its header and in an extension."""

from __future__ import annotations

import gzip
import json

import numpy as np

from mgdm_cli.data.codecs import marks
from mgdm_cli.data.codecs.base import quantised
from mgdm_cli.data.image import Image, Mark


def nifti_file(image: Image, mark: Mark) -> bytes:
    """(C,H,W) -> a gzipped NIfTI-1 of shape (W, H, 1) with the form's affine; no clock and no name in the packing."""
    import nibabel

    array = quantised(image)
    if array.shape[0] == 3:
        rgb = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
        voxels = np.ascontiguousarray(np.moveaxis(array, 0, -1)).view(rgb)[..., 0].T[..., None]
    else:
        voxels = array[0].T[..., None]
    form = image.form
    spacing = form.spacing_mm or (1.0, 1.0)
    affine = np.array(form.affine, dtype=np.float64) if form.affine is not None else None
    header = nibabel.Nifti1Header()
    header.set_data_dtype(voxels.dtype)
    header.set_data_shape(voxels.shape)
    picture = nibabel.Nifti1Image(voxels, affine, header)
    if affine is None:
        picture.header.set_zooms((spacing[1], spacing[0], 1.0))
    else:
        picture.set_qform(affine, code=1)
        picture.set_sform(affine, code=1)
    picture.header.set_xyzt_units("mm", "sec")
    picture.header.set_slope_inter(1.0, 0.0)
    picture.header["descrip"] = f"SYNTHETIC mgdm {mark.version}".encode()[:79]
    text = json.dumps(marks.facts(mark), sort_keys=True).encode()
    picture.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", text))
    return gzip.compress(picture.to_bytes(), 6, mtime=0)
