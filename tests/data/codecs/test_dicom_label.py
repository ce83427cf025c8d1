"""The attribute that a label was read from: a written file says its own label there, another one's never."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest

from mgdm_cli.data import codecs
from mgdm_cli.data.codecs import Ask, dicom, marks
from mgdm_cli.data.codecs.dicom_terms import SECONDARY_CAPTURE, STORAGE
from mgdm_cli.data.image import Form, Image, Mark
from tests.data.codecs.test_dicom_out import form, told

Draw = Callable[[Form], Image]
HELD = [
    ("BodyPartExamined", "KNEE"),
    ("0018,0015", "HEAD"),
    ("BodyPartExamined", "SKIN"),
    ("ViewPosition", "AP"),
    ("PatientSex", "F"),
    ("PatientAge", "030Y"),
    ("Manufacturer", "Maker-2"),
    ("StudyDescription", "knee.left"),
    ("SeriesNumber", "3"),
    ("EchoTime", "30.5"),
    ("ImageLaterality", "R"),
    ("Laterality", "L"),
    ("Modality", "US"),
]


def written(path: Path, image: Image, mark: Mark, tag: str, label: str) -> pydicom.Dataset:
    path.write_bytes(codecs.encode(image, replace(mark, label=label, label_tag=tag)))
    return pydicom.dcmread(path)


@pytest.mark.parametrize(("tag", "label"), HELD)
@pytest.mark.parametrize("storage", ["CR", "DX", "CT", "MR"])
def test_the_label_comes_back_by_the_same_tag(
    storage: str, tag: str, label: str, tmp_path: Path, draw: Draw, mark: Mark
) -> None:
    path, image = tmp_path / "out.dcm", draw(form(storage, "uint16", "HEAD"))
    found = written(path, image, mark, tag, label)
    assert dicom.parts(path, Ask(label_tag=tag))[0].label == label
    assert (dicom.read(path).pixels == image.pixels).all()
    assert found.SyntheticData == "YES"
    assert marks.NOTICE in (found.StudyDescription, found.SeriesDescription)
    assert found.SOPClassUID == (SECONDARY_CAPTURE if tag == "Modality" else STORAGE[storage])
    if tag == "Laterality":
        assert found.get("ImageLaterality", "L") == "L"


@pytest.mark.parametrize("label", ["Knee", "A-B", "K" * 17])
@pytest.mark.parametrize("storage", ["CR", "MR"])
def test_what_the_attribute_cannot_hold_is_left_out(
    storage: str, label: str, tmp_path: Path, draw: Draw, mark: Mark
) -> None:
    found = written(tmp_path / "out.dcm", draw(form(storage, "uint16", "HEAD")), mark, "BodyPartExamined", label)
    assert not found.get("BodyPartExamined")
    assert dicom.parts(tmp_path / "out.dcm", Ask(label_tag="BodyPartExamined"))[0].label is None


@pytest.mark.parametrize(
    ("tag", "label", "kept"),
    [
        ("SyntheticData", "NO", "YES"),
        ("BurnedInAnnotation", "YES", "NO"),
        ("PatientIdentityRemoved", "NO", "YES"),
        ("Rows", "8", 16),
        ("0009,1001", "A", None),
        ("ConversionType", "DI", "SYN"),
    ],
)
def test_marks_and_what_the_pixels_need_stay(
    tag: str, label: str, kept: object, tmp_path: Path, draw: Draw, mark: Mark
) -> None:
    image = draw(replace(form("CR", "uint8"), storage=None))
    found = written(tmp_path / "out.dcm", image, mark, tag, label)
    assert found.get(pydicom.tag.Tag(int(tag.replace(",", ""), 16)) if "," in tag else tag) == kept


@pytest.mark.external("dciodvfy")
@pytest.mark.parametrize(
    ("tag", "label"), [("BodyPartExamined", "CHEST"), ("BodyPartExamined", "KNEE"), ("PatientSex", "F")]
)
@pytest.mark.parametrize("storage", ["CR", "DX", "CT", "MR"])
def test_dciodvfy_has_nothing_to_say(
    storage: str, tag: str, label: str, tmp_path: Path, draw: Draw, mark: Mark
) -> None:
    written(tmp_path / "out.dcm", draw(form(storage, "uint16", "HEAD")), mark, tag, label)
    assert told(tmp_path / "out.dcm") == set()
