"""DICOM: any single or multi-frame image object in, marked ones out.

No header text of a patient leaves this module: identities as digests, terms only from closed lists.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mgdm_cli.data.codecs.base import NOTHING, Array, Ask, Floats, Part, as_pixels, guarded
from mgdm_cli.data.codecs.dicom_classes_out import written_form
from mgdm_cli.data.codecs.dicom_head import Header, form_of, header, rescale, whole
from mgdm_cli.data.codecs.dicom_out import dicom_file
from mgdm_cli.data.codecs.dicom_out import settled as settled_values
from mgdm_cli.data.image import Form, Image, Mark
from mgdm_cli.data.labels import patient_digest
from mgdm_cli.errors import BadInput, UsageError

NAMES = ("dicom",)
SUFFIX = {"dicom": ".dcm"}
_NO_LABEL_VR = frozenset(["PN", "UI", "DA", "TM", "DT", "OB", "OW", "OF", "OD", "UN", "SQ", "LT", "ST", "UT"])


def claims(head: bytes, path: Path) -> bool:
    """By the DICM mark behind the preamble."""
    return head[128:132] == b"DICM"


def parts(path: Path, ask: Ask = NOTHING) -> list[Part]:
    """One part per frame; reads the header only."""
    with guarded("the DICOM file"):
        head = header(path)
        label = _label(head.dataset, ask.label_tag)
        identity = str(head.dataset.get("PatientID") or "").strip()
        patient = patient_digest(identity) if identity else None
        flags = _flags(head.dataset)
        forms = [form_of(head, frame) for frame in range(head.frames)]
    many = head.frames > 1
    return [Part(k if many else None, form, label, patient, flags=flags) for k, form in enumerate(forms)]


def read(path: Path, part: int | None = None) -> Image:
    """One frame: rescaled to physical units; MONOCHROME1 inverted, palette and YBR turned into RGB."""
    with guarded("the DICOM file"):
        head = header(path)
        frame = part or 0
        if frame >= head.frames:
            raise BadInput(f"frame {frame} is not there")
        array = _decoded(head, whole(path), frame)
        return Image(as_pixels(array), form_of(head, frame))


def output_form(form: Form) -> Form:
    """CR, DX, CT and MR stay what they are where the class can hold them; all else is Secondary Capture."""
    return written_form(form)


def settled(image: Image) -> Floats:
    """(C,H,W): what `read` gives back of an image in `output_form`."""
    return settled_values(image)


def encode(image: Image, mark: Mark) -> bytes:
    """A complete, marked object (see dicom_out)."""
    return dicom_file(image, mark)


def _decoded(head: Header, dataset: Any, frame: int) -> Array:
    """(H,W) or (H,W,3) physical values of a frame."""
    from pydicom.pixels.processing import apply_color_lut, apply_modality_lut
    from pydicom.pixels.utils import pixel_array

    array = np.asarray(pixel_array(dataset, index=frame))
    kind = str(dataset.get("PhotometricInterpretation", ""))
    if kind == "PALETTE COLOR":
        return _eight_bits(np.asarray(apply_color_lut(array, dataset)))
    if array.ndim == 3 or head.pixels != "whole":
        return array
    if kind == "MONOCHROME1":
        array = _inverted(array, dataset)
    if "ModalityLUTSequence" in dataset:
        return np.asarray(apply_modality_lut(array, dataset))
    slope, intercept = rescale(dataset, frame)
    return array if (slope, intercept) == (1.0, 0.0) else array.astype(np.float64) * slope + intercept


def _eight_bits(colours: Array) -> Array:
    """Palette colours as uint8: the high byte, or the value where 8-bit entries fill 16 bits (PS3.3 C.7.6.3.1.6)."""
    wide = colours.dtype.itemsize > 1 and int(colours.max()) > 255
    return (colours >> 8 if wide else colours).astype(np.uint8)


def _inverted(array: Array, dataset: Any) -> Array:
    """MONOCHROME1 -> MONOCHROME2: mirrored inside the stored range, so that the type's limits hold."""
    bits = int(dataset.BitsStored)
    signed = int(dataset.get("PixelRepresentation", 0) or 0) == 1
    top = -1 if signed else (1 << bits) - 1
    return top - array.astype(np.int64)


def _flags(dataset: Any) -> frozenset[str]:
    kinds = [str(value) for value in dataset.get("ImageType") or []]
    said = str(dataset.get((0x0008, 0x001C)).value) if (0x0008, 0x001C) in dataset else ""
    makers = dataset.get("ContributingEquipmentSequence") or []
    purposes = [code for maker in makers for code in maker.get("PurposeOfReferenceCodeSequence") or []]
    codes = {str(code.get("CodeValue", "")) for code in purposes}
    synthetic = said.strip() == "YES" or "SYNTHETIC" in kinds[3:] or "109100" in codes
    burned = str(dataset.get("BurnedInAnnotation", "")).strip() == "YES"
    return frozenset({"synthetic"} if synthetic else ()) | frozenset({"burned-in"} if burned else ())


def _label(dataset: Any, name: str | None) -> str | None:
    """The value of the attribute that --label-tag names; attributes that identify a patient are refused."""
    if name is None:
        return None
    from pydicom.datadict import dictionary_VR, tag_for_keyword

    text = name.strip("()").replace(",", "").replace(" ", "")
    tag = tag_for_keyword(name)
    if tag is None:
        try:
            tag = int(text, 16)
        except ValueError as fault:
            raise UsageError(f"--label-tag: {name!r} is no DICOM attribute", "Give a keyword or gggg,eeee.") from fault
    element = dataset.get(tag)
    try:
        vr = dictionary_VR(tag)
    except KeyError:
        vr = element.VR if element is not None else "LO"
    person = tag >> 16 == 0x0010 and tag not in (
        0x00100040,
        0x00101010,
        0x00102160,
    )  # sex, age, ethnic group may be classes
    if vr in _NO_LABEL_VR or person or tag == 0x00080050:
        raise UsageError(f"--label-tag: {name} identifies a patient or is free text", "Choose a coded attribute.")
    value = "" if element is None or element.value is None else str(element.value).strip()
    return value or None
