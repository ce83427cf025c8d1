"""A synthetic image as a DICOM object that says so in at least four places.

Built from nothing: no header of a real file is copied. SyntheticData (0008,001C) is of DICOM 2024b; ImageType DERIVED
and value 4 SYNTHETIC, ConversionType SYN and the Contributing Equipment item (109100, DCM, "Synthesizing Equipment")
survive common de-identifiers. The same image and mark give the same bytes: UIDs come from the plan, dates from the
model.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mgdm_cli.data.codecs import marks
from mgdm_cli.data.codecs.base import Array, Floats, quantised, rows_last
from mgdm_cli.data.codecs.dicom_classes_out import PLACED, classify, coded, decimal, written_form
from mgdm_cli.data.codecs.dicom_label import tell, told
from mgdm_cli.data.codecs.dicom_terms import SECONDARY_CAPTURE, STORAGE
from mgdm_cli.data.image import Form, Image, Mark

_EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
_TIME = "000000"


def uid(run: str, role: str, index: int) -> str:
    """2.25.<UUIDv8 as an integer> (PS3.5 B.2, RFC 9562 5.8) from sha256(run|role|index)."""
    digest = bytearray(hashlib.sha256(f"{run}|{role}|{index}".encode()).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x80
    digest[8] = digest[8] & 0x3F | 0x80
    return f"2.25.{uuid.UUID(bytes=bytes(digest)).int}"


@dataclass(frozen=True)
class _Slice:
    """What is an object's own within its series."""

    instance: str  # SOP Instance UID
    number: int  # from 1
    position: NDArray[np.float64] | None  # (3,) mm RAS+ of the first pixel
    ends: tuple[float, float]  # lowest and highest value of the series


def dicom_file(image: Image, mark: Mark) -> bytes:
    """The bytes of an object that is a study of its own: explicit VR little endian, 128 zero bytes of preamble."""
    form = written_form(told(image.form, mark))
    position = np.array(form.affine)[:3, 3] if form.affine is not None else None
    own = _Slice(uid(mark.run, "instance", mark.index), 1, position, _ends([image]))
    return _object(image.pixels, form, mark, own)


def dicom_series(images: Sequence[Image], mark: Mark) -> tuple[bytes, ...]:
    """The files of a CT or MR series, one per slice, in the order given; one study, one frame of reference.

    The slices keep their places relative to each other (`form.affine`); the middle of the series is the origin.
    Raises ValueError where the images are not slices of one volume of such a class.
    """
    forms = [written_form(told(image.form, mark)) for image in images]
    alike = {replace(form, affine=None) for form in forms}
    if len(alike) != 1 or forms[0].storage not in PLACED:
        raise ValueError("a series needs CT or MR slices of one size, type and spacing")
    corners = [_corners(image.form) for image in images]
    middle = (corners[0].mean(axis=0) + corners[-1].mean(axis=0)) / 2
    ends = _ends(images)
    files = []
    for k, (image, form, corner) in enumerate(zip(images, forms, corners, strict=True)):
        own = _Slice(uid(mark.run, f"slice-{k}", mark.index), k + 1, corner[0] - middle, ends)
        files.append(_object(image.pixels, form, mark, own))
    return tuple(files)


def settled(image: Image) -> Floats:
    """(C,H,W) float32: the values that a reader of the written file gets; fractions take 65,536 steps."""
    if image.form.dtype != "float32":
        return quantised(image).astype(np.float32)
    levels, slope, intercept = _stored(image, _ends([image]))
    return (levels.astype(np.float64) * float(slope) + float(intercept)).astype(np.float32)


def _ends(images: Sequence[Image]) -> tuple[float, float]:
    return float(min(image.pixels.min() for image in images)), float(max(image.pixels.max() for image in images))


def _corners(form: Form) -> NDArray[np.float64]:
    """(2, 3) mm RAS+: the centres of the first and of the last pixel of a slice."""
    ends = np.array([[0.0, 0, 0, 1], [form.width - 1, form.height - 1, 0, 1]])
    places: NDArray[np.float64] = (ends @ np.asarray(form.affine, dtype=np.float64).T)[:, :3]
    return places


def _object(pixels: Array, form: Form, mark: Mark, own: _Slice) -> bytes:
    from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
    from pydicom.uid import UID

    sop_class = STORAGE[form.storage] if form.storage else SECONDARY_CAPTURE
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(sop_class)
    meta.MediaStorageSOPInstanceUID = UID(own.instance)
    meta.TransferSyntaxUID = UID(_EXPLICIT_LITTLE)
    meta.ImplementationClassUID = UID(uid("mgdm", "implementation", 1))
    meta.ImplementationVersionName = f"MGDM_{mark.version}"[:16]
    dataset = FileDataset("", Dataset(), file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, own.instance
    dataset.InstanceNumber = own.number
    _identify(dataset, mark)
    _describe(dataset, form, mark)
    classify(dataset, form, own.position, uid(mark.run, "frame", mark.index))
    tell(dataset, mark)
    _fill(dataset, Image(pixels, form), own.ends)
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _identify(dataset: Any, mark: Mark) -> None:
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.StudyInstanceUID = uid(mark.run, "study", mark.index)
    dataset.SeriesInstanceUID = uid(mark.run, "series", mark.index)
    dataset.PatientName = "SYNTHETIC^MGDM"
    dataset.PatientID = f"SYN-{mark.run[:8]}-{mark.index:06d}"
    dataset.PatientBirthDate = ""
    dataset.PatientSex = ""
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = (  # LO: 64 characters
        "Derived from a real image, may resemble that patient; by mgdm"
        if mark.derived
        else "Synthetic: no real patient is depicted; generated by mgdm"
    )
    dataset.ReferringPhysicianName = ""
    dataset.AccessionNumber = ""
    dataset.StudyID = "1"
    dataset.SeriesNumber = 1
    for name in ("Study", "Content"):
        setattr(dataset, f"{name}Date", mark.date)
        setattr(dataset, f"{name}Time", _TIME)


def _describe(dataset: Any, form: Form, mark: Mark) -> None:
    from pydicom.dataset import Dataset

    dataset.add_new(0x0008001C, "CS", "YES")  # SyntheticData
    dataset.Modality = form.modality or "OT"
    dataset.StudyDescription = marks.NOTICE
    dataset.SeriesDescription = "Synthetic image (mgdm)"
    facts = marks.facts(mark)
    dataset.DerivationDescription = "; ".join(
        f"{key}={facts[key]}" for key in ("Software", "Id", "Label", "Run", "Origin") if key in facts
    )
    dataset.BurnedInAnnotation = "NO"
    dataset.LossyImageCompression = "00"
    maker = Dataset()
    maker.ContributionDescription = f"Synthesized by diffusion model, checkpoint sha256:{mark.model_sha256}"
    maker.ContributionDateTime = mark.date + _TIME
    maker.PurposeOfReferenceCodeSequence = [coded("109100", "DCM", "Synthesizing Equipment")]
    for item in (dataset, maker):
        item.Manufacturer = "mgdm"
        item.ManufacturerModelName = "mgdm"
        item.SoftwareVersions = mark.version
    dataset.DeviceSerialNumber = mark.model_sha256
    dataset.ContributingEquipmentSequence = [maker]


def _fill(dataset: Any, image: Image, ends: tuple[float, float]) -> None:
    form = image.form
    stored, slope, intercept = _stored(image, ends)
    array = rows_last(stored)
    bits = 8 * array.dtype.itemsize
    dataset.SamplesPerPixel = form.channels
    dataset.PhotometricInterpretation = "RGB" if form.channels == 3 else "MONOCHROME2"
    if form.channels == 3:
        dataset.PlanarConfiguration = 0
    dataset.Rows, dataset.Columns = form.height, form.width
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = bits, bits, bits - 1
    dataset.PixelRepresentation = int(array.dtype.kind == "i")
    if form.channels == 1 and (bits == 16 or form.storage == "DX"):
        if form.storage != "MR":  # whose object has no modality transformation
            dataset.RescaleIntercept, dataset.RescaleSlope = intercept, slope
            dataset.RescaleType = "HU" if form.storage == "CT" else "US"
        _window(dataset, form, *ends)
    data = array.astype(array.dtype.newbyteorder("<")).tobytes()
    dataset.add_new(0x7FE00010, "OW" if bits == 16 else "OB", data + b"\0" * (len(data) % 2))


def _window(dataset: Any, form: Form, lo: float, hi: float) -> None:
    """The window from the lowest value to the highest (PS3.3 C.11.2.1.2): LINEAR counts whole numbers, both ends among them."""
    if form.dtype == "float32":
        dataset.VOILUTFunction = "LINEAR_EXACT"
        dataset.WindowCenter, dataset.WindowWidth = decimal((lo + hi) / 2), decimal(hi - lo if hi > lo else 1.0)
        return
    dataset.WindowCenter, dataset.WindowWidth = decimal((lo + hi + 1) / 2), decimal(hi - lo + 1)


def _stored(image: Image, ends: tuple[float, float]) -> tuple[Array, str, str]:
    """(C,H,W) whole numbers, and the rescale slope and intercept that lead back.

    CT and MR hold signed values as they are; elsewhere they get an offset."""
    if image.form.dtype == "int16" and image.form.storage not in PLACED:
        return (quantised(image).astype(np.int32) + 32768).astype(np.uint16), "1", "-32768"
    if image.form.dtype != "float32":
        return quantised(image), "1", "0"
    lo, hi = ends
    intercept = decimal(lo)
    slope = f"{(hi - lo) / 65535 if hi > lo else 1.0:.6g}"  # six digits: what was read back is written the same again
    levels = np.rint((image.pixels.astype(np.float64) - float(intercept)) / float(slope))
    return np.clip(levels, 0, 65535).astype(np.uint16), slope, intercept
