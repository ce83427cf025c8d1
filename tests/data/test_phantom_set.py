"""Phantom folders: exact counts, patients with two eyes, every format with its pixels, the same bytes every time."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mgdm_cli.data.phantom import GRADES, draw
from mgdm_cli.data.phantom_set import DEFAULT_COUNTS, FORMS, PATIENT_REGEX, Eyeball, members, roster, write_set
from mgdm_cli.errors import BadInput, UsageError

SMALL = {"grade0": 5, "grade1": 3, "grade2": 2, "grade3": 1}


def tree(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def picture(eyeball: Eyeball) -> np.ndarray:
    style = (eyeball.seed // 2) * 2  # both eyes of the patient
    return draw(eyeball.seed, eyeball.grade, eye=eyeball.eye, style=style).pixels


def written(root: Path, form: str) -> tuple[Path, np.ndarray]:
    """One file of a small set in `form`, and its (3, 64, 64) pixels in 0..1 as they were drawn."""
    path, eyeball = next(iter(members(write_set(root, counts=SMALL, form=form), counts=SMALL, form=form)))
    return path, picture(eyeball)


def test_counts_are_exact_and_patients_have_two_eyes() -> None:
    eyes = roster(DEFAULT_COUNTS)
    assert Counter(GRADES[eyeball.grade] for eyeball in eyes) == DEFAULT_COUNTS
    assert len({eyeball.name for eyeball in eyes}) == len({eyeball.seed for eyeball in eyes}) == len(eyes)
    by_patient: dict[int, list[Eyeball]] = {}
    for eyeball in eyes:
        by_patient.setdefault(eyeball.patient, []).append(eyeball)
    single = [pair for pair in by_patient.values() if len(pair) == 1]
    assert len(single) == len(eyes) % 2
    assert all({eyeball.eye for eyeball in pair} == {"left", "right"} for pair in by_patient.values() if len(pair) == 2)
    alike = [pair[0].grade == pair[1].grade for pair in by_patient.values() if len(pair) == 2]
    assert 0.8 < np.mean(alike) < 1.0  # mostly of one grade, as fellow eyes are, but not always


def test_split_is_by_patient_and_holds_every_grade() -> None:
    eyes = roster(DEFAULT_COUNTS, split=True)
    train = {eyeball.patient for eyeball in eyes if eyeball.split == "train"}
    test = {eyeball.patient for eyeball in eyes if eyeball.split == "test"}
    assert not train & test
    assert 0.15 < len(test) / (len(train) + len(test)) < 0.25
    assert {eyeball.grade for eyeball in eyes if eyeball.split == "test"} == {0, 1, 2, 3}


def test_same_arguments_same_bytes_and_nothing_rewritten(tmp_path: Path) -> None:
    first = write_set(tmp_path / "a", counts=SMALL, seed=3)
    second = write_set(tmp_path / "b", counts=SMALL, seed=3)
    assert tree(first) == tree(second)
    assert tree(first) != tree(write_set(tmp_path / "c", counts=SMALL, seed=4))
    assert len(tree(first)) == len(set(tree(first).values())) == 11
    times = {path: path.stat().st_mtime_ns for path in first.rglob("*.png")}
    spoilt = next(iter(times))
    spoilt.write_bytes(b"half a fi")
    write_set(first, counts=SMALL, seed=3)
    assert tree(first) == tree(second)
    assert all(path.stat().st_mtime_ns == times[path] for path in times if path != spoilt)


def test_folders_are_the_labels_and_names_hold_the_patient(tmp_path: Path) -> None:
    import re

    root = write_set(tmp_path / "set", counts=SMALL, split=True)
    for name in tree(root):
        split, grade, file = name.split("/")
        assert split in {"train", "test"}
        assert grade in GRADES
        assert re.search(PATIENT_REGEX, file)
    assert {path.relative_to(root).as_posix() for path, _ in members(root, counts=SMALL, split=True)} == set(tree(root))


def test_other_files_in_the_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(BadInput, match="other files"):
        write_set(tmp_path, counts=SMALL)
    assert tree(tmp_path) == {"mine.txt": b"keep"}


@pytest.mark.parametrize("counts", [{"grade9": 1}, {"grade0": -1}])
def test_unknown_grades_and_counts_are_refused(tmp_path: Path, counts: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        write_set(tmp_path / "set", counts=counts)


def test_unknown_form_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="bmp"):
        write_set(tmp_path / "set", counts=SMALL, form="bmp")


def test_eight_bit_files(tmp_path: Path) -> None:
    from PIL import Image as Picture

    path, drawn = written(tmp_path / "png", "png8")
    with Picture.open(path) as opened:
        assert opened.mode == "RGB"
        assert np.array_equal(np.asarray(opened).transpose(2, 0, 1), np.round(drawn * 255).astype(np.uint8))
    path, drawn = written(tmp_path / "jpeg", "jpeg")
    with Picture.open(path) as opened:
        assert opened.format == "JPEG"
        assert np.abs(np.asarray(opened).transpose(2, 0, 1) / 255 - drawn).mean() < 0.01


@pytest.mark.parametrize(("form", "planes"), [("png16", 3), ("png16grey", 1)])
def test_sixteen_bit_png(tmp_path: Path, form: str, planes: int) -> None:
    import png

    path, drawn = written(tmp_path / form, form)
    width, height, rows, facts = png.Reader(bytes=path.read_bytes()).read()
    assert (width, height, facts["bitdepth"], facts["planes"]) == (64, 64, 16, planes)
    got = np.stack([np.asarray(row) for row in rows]).reshape(64, 64, planes)
    wanted = drawn if planes == 3 else drawn[1:2]
    assert np.array_equal(got, np.round(wanted.astype(np.float64) * 65535).transpose(1, 2, 0))
    assert len(np.unique(got)) > 1500  # real depth, not 256 levels spread out


def test_dicom(tmp_path: Path) -> None:
    import pydicom

    root = write_set(tmp_path / "dicom", counts=SMALL, form="dicom")
    read = [(pydicom.dcmread(path), eyeball) for path, eyeball in members(root, counts=SMALL, form="dicom")]
    assert len({ds.SOPInstanceUID for ds, _ in read}) == len(read)
    assert len({ds.StudyInstanceUID for ds, _ in read}) == len({ds.PatientID for ds, _ in read}) == 6
    for ds, eyeball in read:
        assert str(ds.PatientName) == "PHANTOM^MGDM"
        assert ds.PatientID == f"P{eyeball.patient:04d}"
        assert ds.ImageLaterality == eyeball.eye[0].upper()
        assert "SyntheticData" not in ds
        assert ds.pixel_array.dtype == np.uint16
        assert np.array_equal(ds.pixel_array, np.round(picture(eyeball)[1].astype(np.float64) * 65535))


def test_nifti(tmp_path: Path) -> None:
    import nibabel

    path, drawn = written(tmp_path / "nifti", "nifti")
    image: Any = nibabel.load(path)
    array = np.asanyarray(image.dataobj)
    assert array.shape == (64, 64)
    assert array.dtype == np.int16
    assert np.array_equal(array.T, np.round(drawn[1].astype(np.float64) * 4095))
    assert image.header.get_xyzt_units()[0] == "mm"
    columns, rows = image.affine[:3, 0], image.affine[:3, 1]
    assert columns[0] == rows[1] < 0.0  # to the patient's left, and backwards


@pytest.mark.parametrize("form", FORMS)
def test_the_reader_finds_every_form(tmp_path: Path, form: str) -> None:
    """The set goes in by the front door: classes, patients and pixels are those that were written."""
    from mgdm_cli.data.folder import read_pixels, scan

    root = write_set(tmp_path / form, counts=SMALL, form=form)
    found = scan(root, patient_regex=PATIENT_REGEX)
    assert not found.refused
    assert found.classes == GRADES
    truth = {path.relative_to(root).as_posix(): eyeball for path, eyeball in members(root, counts=SMALL, form=form)}
    assert {record.path for record in found.records} == set(truth)
    patients: dict[str, set[int]] = {}  # the reader shows them as a digest
    for record in found.records:
        eyeball = truth[record.path]
        assert record.label == GRADES[eyeball.grade]
        patients.setdefault(str(record.patient), set()).add(eyeball.patient)
        pixels = read_pixels(found, record).pixels
        drawn = picture(eyeball) if len(pixels) == 3 else picture(eyeball)[1:2]
        top = FORMS[form].top
        limit = 0.01 if form == "jpeg" else 0.5001 / top
        assert np.abs(pixels / top - drawn).mean() <= limit
    assert sorted(map(len, patients.values())) == [1] * len({eyeball.patient for eyeball in truth.values()})
