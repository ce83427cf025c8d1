"""A decoded picture (`Image`), how it is stored (`Form`), a line about an input file (`Record`) and the mark of a synthetic one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Form:
    """How an image is stored: what a synthetic image shares with the real ones it stands beside."""

    codec: str  # "png", "tiff", "jpeg", "dicom", "nifti", "npz"
    dtype: str  # numpy name of the stored type: "uint8", "uint16", "int16", "float32"
    channels: int  # 1 grey, 3 RGB
    height: int
    width: int
    spacing_mm: tuple[float, float] | None = None  # (between rows, between columns)
    affine: tuple[tuple[float, ...], ...] | None = None  # 4x4, voxel -> mm RAS+, of this slice
    modality: str | None = None  # DICOM Modality
    body_part: str | None = None  # DICOM BodyPartExamined
    orientation: tuple[str, str] | None = None  # DICOM PatientOrientation: where rows and columns run to, ("L", "F")
    storage: str | None = None  # DICOM storage class: "CR", "DX", "CT", "MR"; None for any other
    codes: tuple[int, int] | None = None  # NIfTI qform_code and sform_code: what the affine refers to
    stored: tuple[str, float, float] | None = None  # NIfTI numbers on disk, scl_slope, scl_inter; None: dtype as it is


@dataclass(frozen=True)
class Image:
    """`pixels` (C, H, W) float32 in physical units (rescaled, MONOCHROME2, RGB), exact for every 16-bit value."""

    pixels: NDArray[np.float32]
    form: Form


@dataclass(frozen=True)
class Record:
    """One image of the input: a file, or a part (frame, slice, row) of one. `path` is relative to the input, POSIX style."""

    path: str
    label: str | None
    patient: str | None  # a digest (`labels.patient_digest`), or that of a study where only this is known
    split: str | None  # "train", "val", "test", or None where the folder has no splits (then it is learnt from)
    form: Form
    sha256: str  # of the file's bytes; of an npz row, of its pixel bytes
    part: int | None = None


@dataclass(frozen=True)
class Mark:
    """What every synthetic file carries inside itself. No clock, host or path: the same plan gives the same bytes."""

    id: str  # "glaucoma-000012": unique in the data set, also the file's stem
    label: str
    run: str  # hex sha256 of the plan; every UID is derived from it
    index: int  # running number in the data set
    model_sha256: str
    version: str  # of mgdm
    date: str  # YYYYMMDD, from the model, never the clock
    derived: bool = False  # from a real image, not from noise: the file says that it may resemble a patient
    label_tag: str | None = None  # the DICOM attribute that labels were read from: a DICOM file carries its own there
