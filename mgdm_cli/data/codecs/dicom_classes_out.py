"""What each DICOM storage class asks for beyond what every object carries: CR, DX, CT, MR, Secondary Capture.

The attributes are those of PS3.3 A.2 (CR), A.3 (CT), A.4 (MR), A.8 (SC) and A.26 (DX); what cannot be known of a picture
that no machine took is left empty where the standard allows it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mgdm_cli.data.codecs.dicom_terms import PAIRED, REGIONS, STORAGE, UNPAIRED
from mgdm_cli.data.geometry import about_origin
from mgdm_cli.data.image import Form

PLACED = ("CT", "MR")  # classes whose images lie in the patient


def storage_of(form: Form) -> str | None:
    """The class in which an image of `form` is written; None is Secondary Capture, which holds everything.

    A class is kept only where its image module allows the values: all are grey; CT and MR need spacing and a place; MR
    has no rescale, so no fractions; DX has spacing, a direction, and neither signs nor fractions.
    """
    if form.channels != 1 or form.storage not in STORAGE:
        return None
    whole = form.dtype != "float32"
    measured = form.spacing_mm is not None
    allowed = {
        "CR": True,
        "DX": measured and form.orientation is not None and form.dtype in ("uint8", "uint16"),
        "CT": measured and form.affine is not None,
        "MR": measured and form.affine is not None and whole,
    }
    return form.storage if allowed[form.storage] else None


def written_form(form: Form) -> Form:
    """The form that a written file has. CT and MR are 16-bit; no place but that of a real scan's direction is kept."""
    storage = storage_of(form)
    placed = storage in PLACED
    return replace(
        form,
        dtype="uint16" if placed and form.dtype == "uint8" else form.dtype,
        affine=centred(form) if placed else None,
        orientation=None if placed else form.orientation,
        modality=storage or form.modality or "OT",
        storage=storage,
    )


def centred(form: Form) -> tuple[tuple[float, ...], ...]:
    """The form's affine with the middle of the picture at the origin: direction and thickness stay, the patient goes."""
    assert form.affine is not None
    assert form.spacing_mm is not None
    given = np.asarray(form.affine, dtype=np.float64)[:3, :3]
    along, down = (given[:, i] / np.linalg.norm(given[:, i]) for i in (0, 1))
    matrix = np.eye(3)
    matrix[:, 0], matrix[:, 1] = along * form.spacing_mm[1], down * form.spacing_mm[0]
    # in LPS+ slices are counted along the cross product of row and column direction (PS3.3 C.7.6.2.1.1)
    flip = np.array([-1.0, -1.0, 1.0])
    normal = np.cross(along * flip, down * flip) * flip
    matrix[:, 2] = normal * np.linalg.norm(given[:, 2])
    return about_origin(matrix, form.height, form.width)


def classify(dataset: Any, form: Form, position: NDArray[np.float64] | None, frame_uid: str) -> None:
    """Add what the class of `form` (from `written_form`) asks for. `position` is (3,) mm RAS+ of the first pixel."""
    _body(dataset, form)
    if form.storage is None:
        _secondary(dataset, form)
    elif form.storage in PLACED:
        assert position is not None
        _place(dataset, form, position, frame_uid)
        (_ct if form.storage == "CT" else _mr)(dataset)
    else:
        _radiograph(dataset, form)


def _body(dataset: Any, form: Form) -> None:
    """Body part from a closed list; of parts that come in pairs the side is unknown."""
    if form.body_part in UNPAIRED | PAIRED:
        dataset.BodyPartExamined = form.body_part
    if form.body_part not in UNPAIRED:
        dataset.ImageLaterality = "U"


def _direct(dataset: Any, form: Form) -> None:
    dataset.PatientOrientation = list(form.orientation) if form.orientation is not None else ""


def _secondary(dataset: Any, form: Form) -> None:
    dataset.ImageType = ["DERIVED", "SECONDARY", "", "SYNTHETIC"]
    dataset.ConversionType = "SYN"
    dataset.SecondaryCaptureDeviceManufacturer = "mgdm"
    _direct(dataset, form)
    if form.spacing_mm is not None:
        dataset.PixelSpacing = [decimal(value) for value in form.spacing_mm]


def _radiograph(dataset: Any, form: Form) -> None:
    dataset.ImageType = ["DERIVED", "PRIMARY", "", "SYNTHETIC"]
    _direct(dataset, form)
    if form.spacing_mm is not None:  # at the detector: nothing is known of the beam's geometry
        dataset.ImagerPixelSpacing = [decimal(value) for value in form.spacing_mm]
    dataset.BodyPartExamined = form.body_part or ""
    dataset.ViewPosition = ""
    if form.storage == "CR":
        return
    dataset.PresentationIntentType = "FOR PRESENTATION"
    dataset.ImageLaterality = "U"
    dataset.AnatomicRegionSequence = [coded(*REGIONS[form.body_part])] if form.body_part in REGIONS else []
    dataset.PixelIntensityRelationship, dataset.PixelIntensityRelationshipSign = "LOG", 1
    dataset.PresentationLUTShape = "IDENTITY"
    dataset.DetectorType = ""
    dataset.PositionerType = ""
    dataset.AcquisitionContextSequence = []


def _place(dataset: Any, form: Form, position: NDArray[np.float64], frame_uid: str) -> None:
    """Image plane (PS3.3 C.7.6.2) in LPS+, and a frame of reference of the run's own."""
    assert form.affine is not None
    assert form.spacing_mm is not None
    lps = np.array([-1.0, -1.0, 1.0])
    matrix = np.asarray(form.affine, dtype=np.float64)
    cosines = [matrix[:3, i] * lps / np.linalg.norm(matrix[:3, i]) for i in (0, 1)]
    dataset.FrameOfReferenceUID = frame_uid
    dataset.PositionReferenceIndicator = ""
    dataset.ImagePositionPatient = [decimal(value) for value in position * lps]
    dataset.ImageOrientationPatient = [decimal(value) for value in np.concatenate(cosines)]
    dataset.PixelSpacing = [decimal(value) for value in form.spacing_mm]
    dataset.SliceThickness = decimal(float(np.linalg.norm(matrix[:3, 2])))
    dataset.PatientPosition = "HFS"
    dataset.AcquisitionNumber = None


def _ct(dataset: Any) -> None:
    """Value 4 SYNTHETIC of ImageType is a defined term nowhere, and of CT alone a validator complains about it."""
    dataset.ImageType = ["DERIVED", "PRIMARY", "AXIAL"]
    dataset.KVP = None


def _mr(dataset: Any) -> None:
    """Scanning sequence RM: research mode, since no scanner made it."""
    dataset.ImageType = ["DERIVED", "PRIMARY", "OTHER", "SYNTHETIC"]
    dataset.ScanningSequence, dataset.SequenceVariant = "RM", "NONE"
    for name in ("ScanOptions", "MRAcquisitionType"):
        setattr(dataset, name, "")
    for name in ("RepetitionTime", "EchoTime", "EchoTrainLength"):
        setattr(dataset, name, None)


def coded(value: str, scheme: str, meaning: str) -> Any:
    """A code sequence item (PS3.3 8.8)."""
    from pydicom.dataset import Dataset

    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, scheme, meaning
    return code


def decimal(value: float) -> str:
    """A DICOM decimal string (at most 16 characters) as close to `value` as fits."""
    for digits in range(16, 0, -1):
        text = f"{value + 0.0:.{digits}g}"
        if len(text) <= 16:
            return text
    return "0"
