"""The format that a person chose for synthetic images, where it is not to be that of the real ones."""

from __future__ import annotations

from dataclasses import replace

from mgdm_cli.data.codecs.dicom_classes_out import storage_of
from mgdm_cli.data.codecs.dicom_terms import STORAGE
from mgdm_cli.data.image import Form
from mgdm_cli.errors import UsageError

PLAIN = ("png", "tiff", "nifti")
CAPTURES = {"sc": None, "op": "OP"}  # Secondary Capture, and its modality where that is known
KINDS = (*PLAIN, *CAPTURES, *(name.lower() for name in STORAGE))
_NEEDS = {
    "CR": "grey images",
    "DX": "grey images of unsigned whole numbers with a pixel spacing and a patient orientation",
    "CT": "grey images with a pixel spacing and a place in the patient",
    "MR": "grey images of whole numbers with a pixel spacing and a place in the patient",
}


def require_kind(kind: str) -> None:
    """UsageError where `kind` is none of KINDS."""
    if kind not in KINDS:
        dicom = (
            " DICOM is written as sc, the secondary capture, or as op, cr, dx, ct or mr."
            if kind in ("dicom", "dcm")
            else ""
        )
        raise UsageError(f"--write-as: {kind!r} is not known", f"Choose {', '.join(KINDS)}.{dicom}")


def form_as(form: Form, kind: str) -> Form:
    """`form`, written as `kind` (one of KINDS). UsageError where that format cannot hold such images."""
    require_kind(kind)
    if kind in PLAIN:
        return _plain(form, kind)
    own = replace(form, codec="dicom", codes=None, stored=None, storage=None)
    if kind in CAPTURES:
        modality = CAPTURES[kind]
        return replace(own, modality=modality or form.modality, body_part="EYE" if modality == "OP" else form.body_part)
    storage = kind.upper()
    own = replace(own, storage=storage, modality=storage)
    if storage_of(own) is None:
        raise UsageError(f"--write-as {kind}: takes {_NEEDS[storage]}", "--write-as sc holds every image.")
    return own


def _plain(form: Form, kind: str) -> Form:
    if kind == "png" and form.dtype not in ("uint8", "uint16"):
        raise UsageError(f"--write-as png: holds no {form.dtype} values", "--write-as tiff or nifti does.")
    if kind == "nifti":
        kept = form if form.codec == "nifti" else replace(form, codes=None, stored=None)
        return replace(kept, codec="nifti", modality=None, body_part=None, orientation=None, storage=None)
    return Form(kind, form.dtype, form.channels, form.height, form.width)
