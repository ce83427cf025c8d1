"""DICOM: any single or multi-frame image object in, marked ones out.

No header text of a patient leaves this module: identities as digests, terms only from closed lists.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mgdm_cli.data.codecs.base import NOTHING, Ask, Floats, Part, as_pixels, guarded
from mgdm_cli.data.codecs.dicom_classes_out import written_form
from mgdm_cli.data.codecs.dicom_file import is_dicom
from mgdm_cli.data.codecs.dicom_head import Header, form_of, header
from mgdm_cli.data.codecs.dicom_label import label_of
from mgdm_cli.data.codecs.dicom_out import dicom_file
from mgdm_cli.data.codecs.dicom_out import settled as settled_values
from mgdm_cli.data.codecs.dicom_pixels import physical
from mgdm_cli.data.codecs.dicom_skim import value
from mgdm_cli.data.image import Form, Image, Mark
from mgdm_cli.data.labels import patient_digest, study_digest
from mgdm_cli.errors import BadInput

NAMES = ("dicom",)
SUFFIX = {"dicom": ".dcm"}
SCREENSHOTS = frozenset(["SCREEN SAVE", "SCREENSHOT", "SCREEN CAPTURE"])  # in ImageType: pictures of a monitor


def claims(head: bytes, path: Path) -> bool:
    """By the DICM mark behind the preamble, or by the first element of a file that lacks both."""
    return is_dicom(head)


def parts(path: Path, ask: Ask = NOTHING) -> list[Part]:
    """One part per frame; reads the header only."""
    with guarded("the DICOM file"):
        head = header(path, ask.max_bytes)
        label = label_of(head.dataset, ask.label_tag)
        patient = _patient(head.dataset)
        flags = _flags(head.dataset)
        forms = [form_of(head, frame, ask.voi) for frame in range(head.frames)]
        series = str(value(head.dataset, "SeriesInstanceUID") or "").strip()
        group = patient_digest(series) if series else None
        _remember(path, ask, head, forms)
    many = head.frames > 1
    return [Part(k if many else None, form, label, patient, flags=flags, group=group) for k, form in enumerate(forms)]


def read(path: Path, part: int | None = None, ask: Ask = NOTHING) -> Image:
    """One frame: rescaled to physical units; MONOCHROME1 inverted, palette and YBR turned into RGB; padding darkest."""
    with guarded("the DICOM file"):
        frame = part or 0
        head, forms = _remembered(path, ask) or (header(path, ask.max_bytes), None)
        if frame >= head.frames:
            raise BadInput(f"frame {frame} is not there")
        array = physical(head, path, frame, ask.voi)
        return Image(as_pixels(array, ask.nan), form_of(head, frame, ask.voi) if forms is None else forms[frame])


def output_form(form: Form) -> Form:
    """CR, DX, CT and MR stay what they are where the class can hold them; all else is Secondary Capture."""
    return written_form(form)


def settled(image: Image) -> Floats:
    """(C,H,W): what `read` gives back of an image in `output_form`."""
    return settled_values(image)


def encode(image: Image, mark: Mark) -> bytes:
    """A complete, marked object (see dicom_out)."""
    return dicom_file(image, mark)


_last: list[tuple[tuple[Path, int, int, Ask], Header, list[Form]]] = []


def _remember(path: Path, ask: Ask, head: Header, forms: list[Form]) -> None:
    """`read` after `parts` of the same file need not parse it again."""
    _last[:] = [(_state(path, ask), head, forms)]


def _remembered(path: Path, ask: Ask) -> tuple[Header, list[Form]] | None:
    if not _last or _last[0][0] != _state(path, ask):
        return None
    _, head, forms = _last[0]
    if head.frames == 1:  # it will not be asked for again
        _last.clear()
    return head, forms


def _state(path: Path, ask: Ask) -> tuple[Path, int, int, Ask]:
    stat = path.stat()
    return path, stat.st_mtime_ns, stat.st_size, ask


def _patient(dataset: Any) -> str | None:
    """The digest of the patient; without an identity that of the study, else of the series, whose slices belong together."""
    for keyword, digest in (
        ("PatientID", patient_digest),
        ("StudyInstanceUID", study_digest),
        ("SeriesInstanceUID", study_digest),
    ):
        if identity := str(value(dataset, keyword) or "").strip():
            return digest(identity)
    return None


def _flags(dataset: Any) -> frozenset[str]:
    stored = value(dataset, "ImageType") or []
    kinds = [str(kind).strip() for kind in ([stored] if isinstance(stored, str) else stored)]
    said = str(value(dataset, "SyntheticData", ""))
    makers = value(dataset, "ContributingEquipmentSequence") or []
    purposes = [code for maker in makers for code in value(maker, "PurposeOfReferenceCodeSequence") or []]
    codes = {str(code.get("CodeValue", "")) for code in purposes}
    synthetic = said.strip() == "YES" or "SYNTHETIC" in kinds[3:] or "109100" in codes
    burned = str(value(dataset, "BurnedInAnnotation", "")).strip() == "YES" or not SCREENSHOTS.isdisjoint(kinds)
    return frozenset({"synthetic"} if synthetic else ()) | frozenset({"burned-in"} if burned else ())
