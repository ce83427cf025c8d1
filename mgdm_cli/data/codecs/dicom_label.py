"""The attribute that --label-tag names: the label is read from it, and what is written carries its own label there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from mgdm_cli.data.codecs import marks
from mgdm_cli.data.codecs.dicom_skim import full
from mgdm_cli.data.codecs.dicom_terms import BODY_PARTS, MODALITIES, known
from mgdm_cli.data.image import Form, Mark
from mgdm_cli.errors import UsageError

_NO_LABEL_VR = frozenset(["PN", "UI", "DA", "TM", "DT", "OB", "OW", "OF", "OD", "UN", "SQ", "LT", "ST", "UT"])
_MODALITY, _BODY_PART, _STUDY_DESCRIPTION = 0x00080060, 0x00180015, 0x00081030
_LATERALITY = 0x00200060
_FIXED = frozenset(  # what says how to read the object, and that it is synthetic: SpecificCharacterSet, ImageType,
    [0x00080005, 0x00080008, 0x0008001C, 0x00080064, 0x00120062, 0x00120063, 0x20500020]
)  # SyntheticData, ConversionType, PatientIdentityRemoved, DeidentificationMethod, PresentationLUTShape
_NUMBERS: dict[str, Callable[[str], object]] = {
    **dict.fromkeys(("US", "SS", "UL", "SL", "UV", "SV"), int),
    **dict.fromkeys(("FL", "FD"), float),
}


def label_of(dataset: Any, name: str | None) -> str | None:
    """The value of the attribute that --label-tag names; attributes that identify a patient are refused."""
    if name is None:
        return None
    tag, vr = _attribute(name)
    element = full(dataset).get(tag)
    if vr is None:
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


def told(form: Form, mark: Mark) -> Form:
    """`form` as the label has it, where the label is what a form holds too: the body part or the modality.

    A storage class of one modality does not hold another: such an image is Secondary Capture.
    """
    tag = None if mark.label_tag is None else _attribute(mark.label_tag)[0]
    if tag == _BODY_PART:
        return replace(form, body_part=known(mark.label, BODY_PARTS))
    if tag == _MODALITY and mark.label != form.storage:
        return replace(form, storage=None, modality=known(mark.label, MODALITIES))
    return form


def tell(dataset: Any, mark: Mark) -> None:
    """Put the label into the attribute that labels were read from; it is emptied where it cannot hold this one.

    What the object needs to be read, and what says that it is synthetic, stays as it is.
    """
    if mark.label_tag is None:
        return
    tag, vr = _attribute(mark.label_tag)
    group = tag >> 16
    if tag in _FIXED or group == 0x0028 or group % 2 or not 0x0008 <= group < 0x5000:
        return
    value = _held(tag, vr, mark.label)
    if value is None:
        if tag in dataset:
            dataset[tag].value = None
        return
    if tag == _STUDY_DESCRIPTION:
        dataset.SeriesDescription = marks.NOTICE  # which stood there
    if tag == _LATERALITY:  # excludes ImageLaterality, which DX cannot do without
        if "PresentationIntentType" in dataset:
            dataset.ImageLaterality = value
        elif "ImageLaterality" in dataset:
            del dataset.ImageLaterality
    dataset.add_new(tag, vr, value)


def _attribute(name: str) -> tuple[int, str | None]:
    """(tag, VR by the dictionary, None where that does not know it) of a keyword or "gggg,eeee"."""
    from pydicom.datadict import dictionary_VR, tag_for_keyword

    tag = tag_for_keyword(name)
    if tag is None:
        try:
            tag = int(name.strip("()").replace(",", "").replace(" ", ""), 16)
        except ValueError as fault:
            raise UsageError(f"--label-tag: {name!r} is no DICOM attribute", "Give a keyword or gggg,eeee.") from fault
    try:
        return int(tag), dictionary_VR(tag)
    except KeyError:
        return int(tag), None


def _held(tag: int, vr: str | None, label: str) -> object | None:
    """The label as a value of `vr` that is read as this label again (PS3.5 6.2); None where there is none."""
    from pydicom import config
    from pydicom.dataelem import DataElement
    from pydicom.valuerep import validate_value

    if vr is None:
        return None
    try:
        value = _NUMBERS.get(vr, str)(label)
        validate_value(vr, value, config.RAISE)
        back = str(DataElement(tag, vr, value).value)
    except (ValueError, TypeError, OverflowError):
        return None
    return value if back == label else None
