"""Written DICOM: in the class it came from, without a complaint of independent validators, marked, the same each time."""

from __future__ import annotations

import math
import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from mgdm_cli.data import codecs
from mgdm_cli.data.codecs import Ask, dicom
from mgdm_cli.data.codecs.dicom_classes_out import storage_of
from mgdm_cli.data.codecs.dicom_out import dicom_series
from mgdm_cli.data.codecs.dicom_terms import KINDS, REGIONS, SECONDARY_CAPTURE, STORAGE
from mgdm_cli.data.image import Form, Image, Mark

Draw = Callable[[Form], Image]
AXIAL = ((-0.5, 0.0, 0.0, 40.0), (0.0, -0.75, 0.0, 30.0), (0.0, 0.0, 2.5, -7.0), (0.0, 0.0, 0.0, 1.0))
OBLIQUE = ((-0.4, 0.0, -1.5, 4.0), (0.0, -0.75, 0.0, 3.0), (-0.3, 0.0, 2.0, -7.0), (0.0, 0.0, 0.0, 1.0))
NEWER_THAN_THE_VALIDATOR = {  # (0008,001C) is of DICOM 2024b
    "Warning - </(0008,001c)> - Unrecognized tag - assuming explicit value representation OK [CS]",
    "Error - </(0008,001c)> - Attribute with an even group number is not a recognized standard attribute",
    "Warning - </(0008,001c)> - Attribute is not present in standard DICOM IOD",
}


def form(storage: str, dtype: str, body_part: str | None = "CHEST", affine: Any = None) -> Form:
    place = (affine or AXIAL) if storage in ("CT", "MR") else None
    orientation = ("L", "F") if storage == "DX" else None
    return Form("dicom", dtype, 1, 16, 14, (0.75, 0.5), place, storage, body_part, orientation, storage)


HELD = {
    "CR": ("uint8", "uint16", "int16", "float32"),
    "DX": ("uint8", "uint16"),
    "CT": ("uint8", "uint16", "int16", "float32"),
    "MR": ("uint8", "uint16", "int16"),
}
FORMS = [
    *(form(storage, dtype) for storage, dtypes in HELD.items() for dtype in dtypes),
    *(form(storage, "uint16", part) for storage in HELD for part in ("HAND", None)),
    form("CT", "int16", "HEAD", affine=OBLIQUE),
    form("MR", "uint16", "BRAIN", affine=OBLIQUE),
]


def ids(given: Form) -> str:
    return f"{given.storage}-{given.dtype}-{given.body_part}"


def told(path: Path) -> set[str]:
    """What dciodvfy says beyond the lines that every object with SyntheticData gets. Its exit code says little."""
    run = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True, text=True, check=False)
    said = {line.strip() for line in run.stderr.splitlines() if re.match(r"\s*(Error|Warning)", line)}
    assert said >= NEWER_THAN_THE_VALIDATOR, run.stderr
    return said - NEWER_THAN_THE_VALIDATOR


@pytest.mark.parametrize("given", FORMS, ids=ids)
def test_the_class_stays_and_every_value_comes_back(given: Form, tmp_path: Path, draw: Draw, mark: Mark) -> None:
    image = draw(given)
    path = tmp_path / "out.dcm"
    path.write_bytes(codecs.encode(image, mark))
    back, wanted = dicom.read(path), codecs.output_form(given)
    assert wanted.storage == given.storage == back.form.modality
    assert pydicom.dcmread(path).SOPClassUID == STORAGE[str(given.storage)]
    assert replace(back.form, affine=None, spacing_mm=None) == replace(wanted, affine=None, spacing_mm=None)
    assert back.form.spacing_mm is not None
    assert wanted.spacing_mm is not None
    np.testing.assert_allclose(back.form.spacing_mm, wanted.spacing_mm, rtol=1e-9)
    step = float(np.ptp(image.pixels)) / 65535 / 2 * 1.001 if given.dtype == "float32" else 0.0
    np.testing.assert_allclose(back.pixels, image.pixels, rtol=0, atol=step)
    if given.affine is not None:
        assert back.form.affine is not None
        assert wanted.affine is not None
        np.testing.assert_allclose(back.form.affine, wanted.affine, atol=1e-6)
        turned, stored = np.array(given.affine)[:3, :3], np.array(back.form.affine)[:3, :3]
        np.testing.assert_allclose(stored[:, :2], turned[:, :2], atol=1e-6)
        middle = np.array(back.form.affine) @ [(given.width - 1) / 2, (given.height - 1) / 2, 0, 1]
        np.testing.assert_allclose(middle[:3], 0.0, atol=1e-6)
    assert codecs.output_form(wanted) == wanted


@pytest.mark.parametrize("given", [given for given in FORMS if given.dtype != "uint8"], ids=ids)
@pytest.mark.parametrize("size", [0.8, 1.0, 200.0])
def test_the_window_shows_the_lowest_value_black_and_the_highest_white(
    given: Form, size: float, tmp_path: Path, mark: Mark
) -> None:
    pixels = np.linspace(0.0, size, given.height * given.width, dtype=np.float32).reshape(1, given.height, given.width)
    if given.dtype != "float32":
        pixels = np.ceil(pixels)
    path = tmp_path / "out.dcm"
    path.write_bytes(codecs.encode(Image(pixels, given), mark))
    shown = dicom.read(path, None, Ask(voi=True)).pixels
    np.testing.assert_allclose(shown, pixels / pixels.max() * 255, atol=0.51)


@pytest.mark.external("dciodvfy")
@pytest.mark.parametrize("given", FORMS, ids=ids)
def test_dciodvfy_has_nothing_to_say(given: Form, tmp_path: Path, draw: Draw, mark: Mark) -> None:
    path = tmp_path / "out.dcm"
    path.write_bytes(codecs.encode(draw(given), mark))
    assert told(path) == set()


@pytest.mark.external("dciodvfy")
def test_dciodvfy_would_find_a_fault(tmp_path: Path, draw: Draw, mark: Mark) -> None:
    path = tmp_path / "out.dcm"
    made = pydicom.dcmread(BytesIO(codecs.encode(draw(form("CT", "int16")), mark)))
    del made.FrameOfReferenceUID
    made.save_as(path, enforce_file_format=True)
    assert any("FrameOfReferenceUID" in line for line in told(path))


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (replace(form("CT", "int16"), affine=None), "no place"),
        (replace(form("MR", "int16"), spacing_mm=None), "no spacing"),
        (form("MR", "float32"), "MR has no rescale"),
        (replace(form("DX", "uint8"), spacing_mm=None), "DX needs spacing"),
        (replace(form("DX", "uint8"), orientation=None), "DX needs a direction"),
        (form("DX", "int16"), "DX has no signs"),
        (replace(form("CR", "uint8"), channels=3), "colour"),
        (replace(form("CR", "uint8"), storage=None), "of no class that is written"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_the_class_cannot_hold_is_a_secondary_capture(
    given: Form, why: str, tmp_path: Path, draw: Draw, mark: Mark
) -> None:
    assert storage_of(given) is None, why
    path = tmp_path / "out.dcm"
    path.write_bytes(codecs.encode(draw(given), mark))
    made = pydicom.dcmread(path)
    assert (made.SOPClassUID, made.ConversionType) == (SECONDARY_CAPTURE, "SYN")
    assert made.Modality == given.modality
    assert dicom.parts(path)[0].form.affine is None


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        (["L", "F"], ("L", "F")),
        (["AR", "HLA"], ("AR", "HLA")),
        (["L"], None),
        (["LR", "F"], None),
        (["DOE", "F"], None),
        ("", None),
    ],
)
def test_directions_come_from_a_closed_list(
    said: Any, kept: tuple[str, str] | None, tmp_path: Path, draw: Draw, mark: Mark
) -> None:
    made = pydicom.dcmread(BytesIO(codecs.encode(draw(form("CR", "uint8")), mark)))
    made.PatientOrientation = said
    made.save_as(tmp_path / "in.dcm", enforce_file_format=True)
    given = dicom.parts(tmp_path / "in.dcm")[0].form
    assert given.orientation == kept
    written = pydicom.dcmread(BytesIO(codecs.encode(draw(given), mark)))
    assert tuple(written.PatientOrientation or ()) == (kept or ())


def test_kin_are_read_as_the_kind_they_are_written_as(tmp_path: Path, draw: Draw, mark: Mark) -> None:
    """Enhanced CT frames become CT images, DX for processing becomes DX; a mammogram is of no kind that is written."""
    made = pydicom.dcmread(BytesIO(codecs.encode(draw(form("CR", "uint16")), mark)))
    for uid, kind in {**KINDS, "1.2.840.10008.5.1.4.1.1.1.2": None}.items():
        made.SOPClassUID = uid
        made.save_as(tmp_path / "in.dcm", enforce_file_format=True)
        assert dicom.parts(tmp_path / "in.dcm")[0].form.storage == kind


def test_four_marks_in_every_class(draw: Draw, mark: Mark) -> None:
    for given in FORMS:
        made = pydicom.dcmread(BytesIO(codecs.encode(draw(given), mark)))
        assert made[0x0008001C].value == "YES"
        assert made.ImageType[0] == "DERIVED"
        assert given.storage == "CT" or made.ImageType[3] == "SYNTHETIC"
        (maker,) = made.ContributingEquipmentSequence
        (code,) = maker.PurposeOfReferenceCodeSequence
        assert (code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning) == (
            "109100", "DCM", "Synthesizing Equipment",
        )  # fmt: skip
        assert made.ManufacturerModelName == maker.ManufacturerModelName == "mgdm"  # dcm2niix takes it from inside
        assert made.StudyDescription == "SYNTHETIC DATA - NOT FOR CLINICAL USE"
        assert (made.PatientName, made.PatientIdentityRemoved) == ("SYNTHETIC^MGDM", "YES")
        assert "113100" not in str(made)  # no claim that a profile was applied to a real header


# A second opinion: the module tables of the standard, as highdicom ships them


def lacking(made: Any) -> list[str]:
    """Attributes of type 1 and 2 of mandatory modules that are not there, and those that are in no module."""
    import highdicom._standard_utils as tables

    iod = tables.get_sop_class_iod_map()[str(made.SOPClassUID)]
    faults, known = [], set()
    for module in tables.get_iod_module_map()[iod]:
        for attribute in tables.get_module_attribute_map()[module["key"]]:
            if attribute["path"]:
                continue
            known.add(attribute["keyword"])
            needed = module["usage"] == "M" and attribute["type"] in ("1", "2")
            if needed and (
                attribute["keyword"] not in made
                or (attribute["type"] == "1" and made[attribute["keyword"]].value in (None, ""))
            ):
                faults.append(f"{module['key']}: {attribute['keyword']}")
    return faults + [f"unexpected {element.keyword}" for element in made if element.keyword not in known]


@pytest.mark.parametrize("given", [*FORMS, replace(FORMS[0], storage=None)], ids=ids)
def test_the_tables_of_the_standard_agree(given: Form, draw: Draw, mark: Mark) -> None:
    pytest.importorskip("highdicom", reason="highdicom's module tables are not installed (extra: test)")
    assert lacking(pydicom.dcmread(BytesIO(codecs.encode(draw(given), mark)))) == []


def test_the_tables_would_find_a_fault(draw: Draw, mark: Mark) -> None:
    pytest.importorskip("highdicom", reason="highdicom's module tables are not installed (extra: test)")
    made = pydicom.dcmread(BytesIO(codecs.encode(draw(form("CT", "int16")), mark)))
    del made.FrameOfReferenceUID
    made.ConversionType = "SYN"
    assert lacking(made) == ["frame-of-reference: FrameOfReferenceUID", "unexpected ConversionType"]


def test_region_codes_are_those_of_the_standard() -> None:
    tables = pytest.importorskip("highdicom._standard_utils", reason="highdicom is not installed (extra: test)")
    known = tables.get_anatomic_region_map()
    for part, (code, scheme, meaning) in REGIONS.items():
        theirs = known[part][0]
        assert (theirs.value, theirs.scheme_designator, theirs.meaning) == (code, scheme, meaning)


# A series


def slices(storage: str, dtype: str, draw: Draw, count: int = 5, affine: Any = AXIAL) -> list[Image]:
    """`count` slices of one volume, each with a place and pixels of its own."""
    made = []
    for k in range(count):
        matrix = np.array(affine)
        matrix[:3, 3] += k * matrix[:3, 2]
        image = draw(replace(form(storage, dtype), affine=tuple(tuple(float(v) for v in row) for row in matrix)))
        made.append(replace(image, pixels=np.roll(image.pixels, k, axis=2)))
    return made


@pytest.mark.parametrize(("storage", "dtype"), [("CT", "int16"), ("CT", "float32"), ("MR", "uint16")])
def test_a_series_is_one_volume(storage: str, dtype: str, tmp_path: Path, draw: Draw, mark: Mark) -> None:
    images = slices(storage, dtype, draw)
    files = dicom_series(images, mark)
    made = [pydicom.dcmread(BytesIO(data)) for data in files]
    for name in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "PatientID", "WindowCenter"):
        assert len({str(one[name].value) for one in made}) == 1
    assert len({one.SOPInstanceUID for one in made}) == len(made)
    assert [one.InstanceNumber for one in made] == [1, 2, 3, 4, 5]
    places = np.array([[float(v) for v in one.ImagePositionPatient] for one in made])
    np.testing.assert_allclose(np.diff(places, axis=0), [[0.0, 0.0, 2.5]] * 4, atol=1e-9)
    for image, data in zip(images, files, strict=True):
        path = tmp_path / "slice.dcm"
        path.write_bytes(data)
        step = float(np.ptp(image.pixels)) / 65535 / 2 * 1.001 if dtype == "float32" else 0.0
        np.testing.assert_allclose(dicom.read(path).pixels, image.pixels, rtol=0, atol=step)
    assert dicom_series(images, mark) == files


def test_what_is_no_volume_is_no_series(draw: Draw, mark: Mark) -> None:
    with pytest.raises(ValueError, match="series"):
        dicom_series([draw(form("CR", "uint8"))] * 2, mark)
    with pytest.raises(ValueError, match="series"):
        dicom_series([draw(form("CT", "int16")), draw(form("CT", "uint16"))], mark)


@pytest.mark.external("dciodvfy", "dcentvfy")
@pytest.mark.parametrize("storage", ["CT", "MR"])
def test_dcentvfy_finds_a_series_consistent(storage: str, tmp_path: Path, draw: Draw, mark: Mark) -> None:
    paths = [tmp_path / f"{k}.dcm" for k in range(5)]
    for path, data in zip(paths, dicom_series(slices(storage, "int16", draw), mark), strict=True):
        path.write_bytes(data)
        assert told(path) == set()
    words = ["dcentvfy", *map(str, paths)]
    run = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    broken = pydicom.dcmread(paths[2])
    broken.PatientName = "OTHER"
    broken.save_as(paths[2], enforce_file_format=True)
    assert "PatientName" in subprocess.run(words, capture_output=True, text=True, check=False).stderr


@pytest.mark.external("dcm2niix")
@pytest.mark.parametrize(("storage", "dtype"), [("CT", "int16"), ("CT", "float32"), ("MR", "uint16")])
def test_dcm2niix_makes_one_volume(storage: str, dtype: str, tmp_path: Path, draw: Draw, mark: Mark) -> None:
    """Spacing, values and order of the slices survive a converter that knows nothing of us."""
    import nibabel

    images = slices(storage, dtype, draw)
    (tmp_path / "in").mkdir()
    for k, data in enumerate(dicom_series(images, mark)):
        (tmp_path / "in" / f"{k}.dcm").write_bytes(data)
    words = ["dcm2niix", "-z", "n", "-f", "out", "-o", str(tmp_path), str(tmp_path / "in")]
    subprocess.run(words, capture_output=True, text=True, check=True)
    (found,) = tmp_path.glob("*.nii")
    volume = nibabel.load(found)
    assert volume.shape == (14, 16, 5)
    np.testing.assert_allclose(volume.header.get_zooms(), (0.5, 0.75, 2.5), rtol=1e-6)
    values = np.asarray(volume.get_fdata())
    for k, image in enumerate(images):  # NIfTI counts rows from below
        step = float(np.ptp(image.pixels)) / 65535 if dtype == "float32" else 0.0
        np.testing.assert_allclose(values[:, ::-1, k].T, image.pixels[0], rtol=1e-6, atol=step)
    assert "DERIVED" in (tmp_path / "out.json").read_text()


def test_a_decimal_string_fits_and_is_close() -> None:
    from mgdm_cli.data.codecs.dicom_classes_out import decimal

    for value in (0.0, -0.0, 1 / 3, -1 / 3, 1e-12 / 7, 123456789.123456789, -2.5e20 / 3):
        text = decimal(value)
        assert len(text) <= 16
        assert math.isclose(float(text), value, rel_tol=1e-9)
    assert decimal(-0.0) == "0"
