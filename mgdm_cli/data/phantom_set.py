"""A folder of phantom eyes in any input format: long-tailed over the grades, two eyes to a patient, a folder per grade.

These files play the part of real input. They carry no synthetic mark, so that the tools accept them as such, and
PatientName PHANTOM^MGDM where the format has one, so that nobody takes them for a person.
"""

from __future__ import annotations

import gzip
import hashlib
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mgdm_cli.data.phantom import GRADES, Eye, Phantom, draw
from mgdm_cli.errors import BadInput, UsageError

DEFAULT_COUNTS: dict[str, int] = {"grade0": 220, "grade1": 100, "grade2": 50, "grade3": 30}
PATIENT_REGEX = r"(P\d+)_"
TEST_SHARE = 0.2  # of the patients, where a split is asked for
NIFTI_TOP = 4095  # 12 bits in int16
FIELD_MM = 13.0  # what a 45 degree photograph shows of the back of the eye


@dataclass(frozen=True)
class Kind:
    """A format of the set: its suffix, the level that stands for full light, and its writer."""

    suffix: str
    top: int
    encode: Callable[[Phantom, Eyeball], bytes]


@dataclass(frozen=True)
class Eyeball:
    """One picture of the set before it is drawn; `name` has no suffix, `split` is None where the set has none."""

    name: str
    patient: int
    eye: Eye
    grade: int
    seed: int
    split: str | None


def roster(counts: Mapping[str, int], *, seed: int = 0, split: bool = False) -> tuple[Eyeball, ...]:
    """Who is in the set: exactly `counts` pictures of each grade, two eyes to a patient, mostly of one grade.

    The last patient has a single eye where the number is odd. With `split`, one patient in five goes to "test".
    Raises UsageError for a grade that does not exist or a negative count.
    """
    unknown = [name for name, count in counts.items() if name not in GRADES or count < 0]
    if unknown:
        known = ", ".join(GRADES)
        raise UsageError(f"phantom set: no such grade or count: {', '.join(unknown)}", f"Use {known}, counts from 0 up")
    rng = np.random.default_rng([21, seed])
    grades = np.repeat(np.arange(len(GRADES)), [counts.get(name, 0) for name in GRADES])
    strays = np.where(rng.uniform(size=grades.size) < 0.1, rng.uniform(-1.4, 1.4, grades.size), 0.0)
    grades = grades[np.argsort(grades + strays, kind="stable")]
    patients = (grades.size + 1) // 2
    numbers = rng.permutation(patients) + 1
    every = np.linspace(0, patients - 1, round(TEST_SHARE * patients) if split else 0).astype(int)
    held = set(numbers[every].tolist())
    eyes: list[Eyeball] = []
    for index, grade in enumerate(grades.tolist()):
        patient = int(numbers[index // 2])
        eye: Eye = "right" if index % 2 == 0 else "left"
        part = ("test" if patient in held else "train") if split else None
        name = f"P{patient:04d}_{eye[0].upper()}"
        eyes.append(Eyeball(name, patient, eye, grade, _stream(seed, patient) + index % 2, part))
    return tuple(eyes)


def _stream(seed: int, patient: int) -> int:
    """A number of its own for each patient of each set."""
    return 2 * (seed * 1_000_003 + patient)


def write_set(
    root: Path | str,
    *,
    counts: Mapping[str, int] | None = None,
    size: int = 64,
    form: str = "png8",
    seed: int = 0,
    split: bool = False,
    tell: Callable[[int, int], None] | None = None,
) -> Path:
    """The folder `root` with `counts` phantom eyes of each grade, written as `form` (a key of FORMS); returns `root`.

    The same arguments give the same bytes. Files that are there already with these bytes are left alone; a folder that
    holds anything else raises BadInput. Unknown forms and grades raise UsageError. `tell(done, total)` hears of each
    file.
    """
    root = Path(root)
    if form not in FORMS:
        raise UsageError(f"phantom set: no form {form!r}", f"Use one of {', '.join(FORMS)}")
    eyes = roster(DEFAULT_COUNTS if counts is None else counts, seed=seed, split=split)
    kind = FORMS[form]
    targets = {_target(root, eyeball, kind.suffix): eyeball for eyeball in eyes}
    strangers = [path for path in root.rglob("*") if path.is_file() and path not in targets] if root.exists() else []
    if strangers:
        raise BadInput(f"phantom set: {root.name}: the folder holds other files", "Name an empty folder or a new one")
    for number, (path, eyeball) in enumerate(targets.items(), start=1):
        if tell is not None:
            tell(number, len(targets))
        style = _stream(seed, eyeball.patient)
        data = kind.encode(draw(eyeball.seed, eyeball.grade, eye=eyeball.eye, size=size, style=style), eyeball)
        if path.is_file() and path.read_bytes() == data:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.part")
        part.write_bytes(data)
        part.replace(path)
    return root


def members(
    root: Path, *, counts: Mapping[str, int] | None = None, form: str = "png8", seed: int = 0, split: bool = False
) -> Iterator[tuple[Path, Eyeball]]:
    """The files that `write_set` makes for these arguments, each with what is true about it."""
    for eyeball in roster(DEFAULT_COUNTS if counts is None else counts, seed=seed, split=split):
        yield _target(Path(root), eyeball, FORMS[form].suffix), eyeball


def _target(root: Path, eyeball: Eyeball, suffix: str) -> Path:
    folder = root / eyeball.split if eyeball.split else root
    return folder / GRADES[eyeball.grade] / (eyeball.name + suffix)


# --- the formats ----------------------------------------------------------------------------------


def _levels(pixels: NDArray[np.float32], top: int) -> NDArray[np.uint16]:
    """0..1 as whole levels 0..`top`."""
    return np.round(np.clip(pixels.astype(np.float64), 0.0, 1.0) * top).astype(np.uint16)


def _green(phantom: Phantom, top: int) -> NDArray[np.uint16]:
    """(H, W) the green channel, which shows blood best: what a red-free photograph is."""
    return _levels(phantom.pixels[1], top)


def _pillow(phantom: Phantom, kind: str, **options: object) -> bytes:
    from PIL import Image as Picture

    buffer = io.BytesIO()
    Picture.fromarray(_levels(phantom.pixels, 255).astype(np.uint8).transpose(1, 2, 0)).save(buffer, kind, **options)
    return buffer.getvalue()


def _png8(phantom: Phantom, eyeball: Eyeball) -> bytes:
    return _pillow(phantom, "PNG")


def _jpeg(phantom: Phantom, eyeball: Eyeball) -> bytes:
    return _pillow(phantom, "JPEG", quality=95, subsampling=0)


def _png16(phantom: Phantom, eyeball: Eyeball) -> bytes:
    return _png(_levels(phantom.pixels, 65535).transpose(1, 2, 0), greyscale=False)


def _png16grey(phantom: Phantom, eyeball: Eyeball) -> bytes:
    return _png(_green(phantom, 65535)[:, :, None], greyscale=True)


def _png(rows: NDArray[np.uint16], *, greyscale: bool) -> bytes:
    """A 16-bit PNG of (H, W, C)."""
    import png

    buffer = io.BytesIO()
    height, width, _ = rows.shape
    png.Writer(width, height, greyscale=greyscale, bitdepth=16).write(buffer, rows.reshape(height, -1).tolist())
    return buffer.getvalue()


def _uid(*parts: object) -> str:
    """A UID under 2.25 that depends on `parts` alone (PS3.5 B.2), version and variant bits of a UUIDv8 set."""
    raw = bytearray(hashlib.sha256("|".join(map(str, parts)).encode()).digest()[:16])
    raw[6], raw[8] = raw[6] & 0x0F | 0x80, raw[8] & 0x3F | 0x80
    return f"2.25.{int.from_bytes(raw, 'big')}"


def _dicom(phantom: Phantom, eyeball: Eyeball) -> bytes:
    """A 16-bit grey photograph (Secondary Capture), explicit VR little endian."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import UID, ExplicitVRLittleEndian, SecondaryCaptureImageStorage

    rows = _green(phantom, 65535)
    spacing = f"{FIELD_MM / rows.shape[0]:.6g}"
    ds, meta = Dataset(), FileMetaDataset()
    ds.SOPClassUID = SecondaryCaptureImageStorage
    ds.SOPInstanceUID = _uid("phantom-image", eyeball.seed, eyeball.name, rows.shape)
    ds.StudyInstanceUID = _uid("phantom-study", eyeball.seed - eyeball.seed % 2, eyeball.patient)
    ds.SeriesInstanceUID = _uid("phantom-series", eyeball.seed, eyeball.name)
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = "PHANTOM^MGDM", f"P{eyeball.patient:04d}", "", ""
    ds.StudyDate, ds.StudyTime, ds.StudyID = "20200101", "120000", "1"
    ds.AccessionNumber, ds.ReferringPhysicianName = "", ""
    ds.Modality, ds.ConversionType, ds.BodyPartExamined = "OP", "DI", "EYE"
    ds.ImageLaterality = eyeball.eye[0].upper()
    ds.SeriesNumber, ds.InstanceNumber, ds.PatientOrientation = "1", "1", ["", ""]
    ds.SeriesDescription, ds.ImageComments = "Red-free photograph of a phantom", GRADES[eyeball.grade]
    ds.PixelSpacing, ds.NominalScannedPixelSpacing = [spacing, spacing], [spacing, spacing]
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 0
    ds.Rows, ds.Columns = rows.shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 16, 15
    ds.WindowCenter, ds.WindowWidth = "20000", "40000"
    ds.PixelData = rows.astype("<u2").tobytes()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    meta.TransferSyntaxUID, meta.ImplementationClassUID = ExplicitVRLittleEndian, UID(_uid("mgdm-phantom"))
    ds.file_meta = meta
    buffer = io.BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _nifti(phantom: Phantom, eyeball: Eyeball) -> bytes:
    """A 2-D grey .nii.gz, int16, 0..4095; x runs to the patient's left and y backwards, as an axial slice is shown."""
    import nibabel as nib

    rows = _green(phantom, NIFTI_TOP)
    step = FIELD_MM / rows.shape[0]
    make: Any = nib.Nifti1Image  # nibabel has no type hints
    image = make(rows.T.astype(np.int16), np.diag([-step, -step, step, 1.0]))
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = b"phantom eye"
    return gzip.compress(image.to_bytes(), compresslevel=6, mtime=0)


FORMS: dict[str, Kind] = {
    "png8": Kind(".png", 255, _png8),
    "png16": Kind(".png", 65535, _png16),
    "png16grey": Kind(".png", 65535, _png16grey),
    "jpeg": Kind(".jpg", 255, _jpeg),
    "dicom": Kind(".dcm", 65535, _dicom),
    "nifti": Kind(".nii.gz", NIFTI_TOP, _nifti),
}
