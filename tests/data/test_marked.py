"""The marks of every format are read back from the bytes; a mark taken out is missed."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest

from mgdm_cli.data import codecs
from mgdm_cli.data.image import Form, Image, Mark
from mgdm_cli.data.marked import lacking

MARK = Mark(id="a-000001", label="a", run="e" * 64, index=1, model_sha256="d" * 64, version="0.1.0", date="20260102")
AFFINE = ((0.5, 0.0, 0.0, 0.0), (0.0, 0.5, 0.0, 0.0), (0.0, 0.0, 2.0, 0.0), (0.0, 0.0, 0.0, 1.0))


def made(codec: str, dtype: str, channels: int, mark: Mark = MARK, *, derived: bool = False) -> bytes:
    form = Form(codec, dtype, channels, 16, 24, spacing_mm=(0.5, 0.5), affine=AFFINE if codec == "nifti" else None)
    pixels = np.arange(channels * 16 * 24, dtype=np.float32).reshape(channels, 16, 24) % 200
    return codecs.encode(Image(pixels, codecs.output_form(form)), replace(mark, derived=derived))


CASES = [
    ("png", "uint8", 1),
    ("png", "uint16", 3),
    ("jpeg", "uint8", 3),
    ("tiff", "uint8", 1),
    ("tiff", "uint16", 3),
    ("dicom", "uint16", 1),
    ("dicom", "uint8", 3),
    ("nifti", "int16", 1),
    ("nifti", "float32", 1),
]


@pytest.mark.parametrize(("codec", "dtype", "channels"), CASES)
def test_what_the_codecs_write_carries_every_mark(codec: str, dtype: str, channels: int) -> None:
    assert lacking(made(codec, dtype, channels)) == ()


@pytest.mark.parametrize("label", ["Glioma größer 2 cm", "正常", "a; b=c, [d]", "ł" * 64])
@pytest.mark.parametrize("codec", ["png", "tiff", "dicom", "nifti"])
def test_any_class_name_is_read_back_by_other_programs(codec: str, label: str, tmp_path: Path) -> None:
    data = made(codec, "uint16", 1, replace(MARK, label=label))
    assert lacking(data) == ()
    if codec == "png":
        from PIL import Image as Pillow

        assert Pillow.open(BytesIO(data)).info["Label"] == label
    elif codec == "tiff":
        import tifffile

        assert f"Label={label}; Run=" in tifffile.TiffFile(BytesIO(data)).pages.first.tags[270].value
    elif codec == "dicom":
        import pydicom

        said = pydicom.dcmread(BytesIO(data)).DerivationDescription
        assert f"Label={label}; Run=" in said
        assert len(said) <= 1024  # VR ST
    else:
        import nibabel

        (tmp_path / "a.nii.gz").write_bytes(data)
        told = nibabel.load(tmp_path / "a.nii.gz").header.extensions[0].get_content()
        assert json.loads(told)["Label"] == label


@pytest.mark.parametrize(
    ("codec", "old", "new", "told"),
    [
        ("png", b"trainedAlgorithmicMedia", b"digitalCapture_________", "DigitalSourceType in XMP"),
        ("png", b"Synthetic\0YES", b"Synthetic\0NO ", "Synthetic YES"),
        ("tiff", b"trainedAlgorithmicMedia", b"digitalCapture_________", "DigitalSourceType in XMP"),
        ("tiff", b"Synthetic=YES", b"Synthetic=NO ", "Synthetic YES"),
        ("dicom", b"\x08\x00\x1c\x00CS\x04\x00YES ", b"\x08\x00\x1c\x00CS\x04\x00NO  ", "SyntheticData YES"),
        ("dicom", b"109100", b"109101", "Synthesizing Equipment"),
        ("nifti", b"SYNTHETIC mgdm", b"real!!!!! mgdm", "SYNTHETIC in descrip"),
    ],
)
def test_a_mark_taken_out_is_missed(codec: str, old: bytes, new: bytes, told: str) -> None:
    data = made(codec, "uint16", 1)
    packed = data.startswith(b"\x1f\x8b")
    plain = gzip.decompress(data) if packed else data
    assert old in plain
    changed = plain.replace(old, new)
    assert told in lacking(gzip.compress(changed) if packed else changed)


@pytest.mark.parametrize(("codec", "dtype", "channels"), CASES)
def test_a_cut_or_foreign_file_lacks_marks_and_never_crashes(codec: str, dtype: str, channels: int) -> None:
    data = made(codec, dtype, channels)
    for cut in (0, 1, 4, 8, 60, 131, 132, 200):
        assert lacking(data[:cut])
    assert lacking(b"GIF89a" + data)
    for at in range(0, min(len(data), 600), 23):
        lacking(data[:at] + b"\xff" + data[at + 1 :])


@pytest.mark.parametrize(("codec", "dtype", "channels"), CASES)
def test_a_file_derived_from_a_real_image_says_so(codec: str, dtype: str, channels: int) -> None:
    data = made(codec, dtype, channels, derived=True)
    assert lacking(data) == ()
    plain = gzip.decompress(data) if codec == "nifti" else data
    assert b"derived from a real image and may resemble that patient" in plain
    assert b"no real patient" not in plain
    if codec == "dicom":
        found = pydicom.dcmread(BytesIO(data))
        assert "may resemble that patient" in found.DeidentificationMethod
        assert len(found.DeidentificationMethod) <= 64
        assert "may resemble that patient" in found.DerivationDescription
    assert b"resemble" not in made(codec, dtype, channels)
