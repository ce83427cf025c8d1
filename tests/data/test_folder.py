"""What a folder is taken for: labels, splits, patients, copies, contradictions, and what is refused and why."""

from __future__ import annotations

import os
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mgdm_cli.data import codecs, folder
from mgdm_cli.data.fitness import require_patients, unfit
from mgdm_cli.data.image import Form, Image, Mark
from mgdm_cli.data.labels import patient_digest
from mgdm_cli.data.noting import UNKNOWN_PATIENTS
from mgdm_cli.data.splits import patient_key, split
from mgdm_cli.errors import BadInput, MissingInput, UsageError
from tests.data import hostile


def picture(path: Path, seed: int, size: int = 12, kind: str = "PNG") -> None:
    from PIL import Image as Pillow

    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.random.default_rng(seed).integers(0, 256, (size, size)).astype(np.uint8)
    Pillow.fromarray(array).save(path, kind)


def made(root: Path, names: list[str]) -> Path:
    for seed, name in enumerate(names):
        picture(root / name, seed)
    return root


def told(root: Path, **settings: Any) -> str:
    with pytest.raises(BadInput) as caught:
        folder.scan(root, **settings)
    return caught.value.message


def test_sub_folders_are_classes_in_natural_order(tmp_path: Path) -> None:
    scan = folder.scan(made(tmp_path, ["10/a.png", "2/deep/er/b.png", "2/c.png", "top.png"]))
    assert scan.classes == ("2", "10")
    assert [(r.path, r.label) for r in scan.records] == [
        ("10/a.png", "10"),
        ("2/c.png", "2"),
        ("2/deep/er/b.png", "2"),
        ("top.png", None),
    ]
    assert "1 image without a label: top.png" in scan.notes
    assert folder.read_pixels(scan, scan.records[0]).pixels.shape == (1, 12, 12)


def test_split_folders_in_any_case(tmp_path: Path) -> None:
    scan = folder.scan(made(tmp_path, ["Training/a/1.png", "VALID/a/2.png", "test/b/3.png", "train/c/4.png"]))
    assert {(r.split, r.label) for r in scan.records} == {("train", "a"), ("val", "a"), ("test", "b"), ("train", "c")}
    assert scan.classes == ("a", "c")  # only what is learnt from
    assert [r.label for r in folder.learnt(scan.records)] == ["a", "c"]
    assert "classes without a training image: b" in scan.notes


def test_copies_are_kept_once_and_leave_train_not_val_or_test(tmp_path: Path) -> None:
    made(tmp_path, [f"train/a/{i}.png" for i in range(30)])
    picture(tmp_path / "train/a/again.png", 3)
    picture(tmp_path / "val/a/same.png", 5)
    scan = folder.scan(tmp_path)
    kept = {d.kept: (d.dropped, d.across_splits) for d in scan.duplicates}
    assert kept == {
        "train/a/3.png": (("train/a/again.png",), False),
        "val/a/same.png": (("train/a/5.png",), True),
    }
    assert len(scan.records) == 30
    assert any("stood in train and in val or test" in note for note in scan.notes)


def test_one_image_in_two_classes_is_in_none(tmp_path: Path) -> None:
    made(tmp_path, [f"a/{i}.png" for i in range(50)])
    picture(tmp_path / "b/x.png", 99)
    picture(tmp_path / "b/wrong.png", 7)
    scan = folder.scan(tmp_path)
    assert [c.paths for c in scan.conflicts] == [("a/7.png", "b/wrong.png")]
    assert len(scan.records) == 50
    assert scan.classes == ("a", "b")
    assert any("under two labels" in note for note in scan.notes)


def test_many_contradictions_stop_the_work(tmp_path: Path) -> None:
    made(tmp_path, [f"a/{i}.png" for i in range(20)])
    picture(tmp_path / "b/wrong.png", 7)
    assert "2 of 21 images stand under two labels" in told(tmp_path)


def test_all_bad_files_are_told_at_once(tmp_path: Path) -> None:
    made(tmp_path, [f"a/{i}.png" for i in range(30)])
    (tmp_path / "a/empty.png").touch()
    (tmp_path / "a/words.png").write_text("hello")
    whole = (tmp_path / "a/1.png").read_bytes()
    (tmp_path / "a/cut.png").write_bytes(whole[: len(whole) // 2])
    message = told(tmp_path)
    assert "3 of 33 files cannot be used" in message
    for name in ("empty.png", "words.png", "cut.png"):
        assert name in message
    assert str(tmp_path) not in message

    with pytest.raises(BadInput, match="more than --max-skip"):
        folder.scan(tmp_path, skip_bad=True)
    scan = folder.scan(tmp_path, skip_bad=True, max_skip=0.1)
    assert [r.path for r in scan.refused] == ["a/cut.png", "a/empty.png", "a/words.png"]
    assert len(scan.records) == 30
    assert "3 files cannot be used" in scan.notes


def test_bytes_decide_and_a_wrong_name_is_noted(tmp_path: Path) -> None:
    picture(tmp_path / "a/really.png", 1, kind="JPEG")
    picture(tmp_path / "a/plain", 2)
    scan = folder.scan(tmp_path)
    assert [r.form.codec for r in scan.records] == ["png", "jpeg"]
    assert "1 file is JPEG, not PNG as its name says: a/really.png" in scan.notes


def test_texts_and_hidden_files_are_left_aside_but_counted(tmp_path: Path) -> None:
    made(tmp_path, ["a/1.png"])
    for name in ("README.md", ".DS_Store", "a/._1.png", "LICENSE", "a/table.csv", ".git/x"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("text")
    scan = folder.scan(tmp_path)
    assert len(scan.records) == 1
    assert any(note.startswith("6 other files") for note in scan.notes)


def test_missing_and_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match="no such folder"):
        folder.scan(tmp_path / "nowhere")
    with pytest.raises(MissingInput, match="no readable images"):
        folder.scan(tmp_path)


def test_links_that_leave_and_things_that_are_no_files(tmp_path: Path) -> None:
    root = made(tmp_path / "in", ["a/1.png"])
    picture(tmp_path / "outside.png", 5)
    (root / "a/link.png").symlink_to(tmp_path / "outside.png")
    (root / "a/loop.png").symlink_to(root / "a/loop.png")
    (root / "b").symlink_to(root / "a")
    os.mkfifo(root / "a/pipe.png")
    message = told(root)
    for said in (
        "a/link.png: is a link that leaves",
        "a/loop.png: is a broken link",
        "b: is a link to a folder",
        "a/pipe.png: is not a",
    ):
        assert said in message
    for path in ("a/link.png", "a/loop.png", "a/pipe.png", "b"):
        (root / path).unlink()
    (root / "a/inside.png").symlink_to(root / "a/1.png")
    assert len(folder.scan(root).duplicates) == 1


def test_names_that_are_not_text(tmp_path: Path) -> None:
    made(tmp_path, ["a/1.png"])
    odd = os.fsencode(tmp_path) + b"/a/caf\xe9.png"
    with open(odd, "wb") as file:
        file.write((tmp_path / "a/1.png").read_bytes())
    message = told(tmp_path)
    assert "not UTF-8" in message
    message.encode("utf-8")  # can be printed anywhere


@pytest.mark.parametrize("name", ["=SUM(A1)", "-rf", "a" * 65, "con", "x.", " x"])
def test_what_is_no_class_is_refused(name: str, tmp_path: Path) -> None:
    assert "class names" in told(made(tmp_path, [f"{name}/1.png", "good/2.png"]))


def test_a_table_gives_label_patient_and_split(tmp_path: Path) -> None:
    root = made(tmp_path / "in", ["x/1.png", "x/2.png", "3.png"])
    table = tmp_path / "t.csv"
    table.write_text("\ufeffPath;Label;patient;split\nx/1.png;ill;P1;train\n./x/2.png;well;P2;Testing\n3.png;ill;P1;\n")
    scan = folder.scan(root, labels=table)
    assert {(r.path, r.label, r.patient, r.split) for r in scan.records} == {
        ("x/1.png", "ill", patient_digest("P1"), "train"),
        ("x/2.png", "well", patient_digest("P2"), "test"),
        ("3.png", "ill", patient_digest("P1"), None),
    }


def test_a_table_finds_names_as_macos_writes_them(tmp_path: Path) -> None:
    root = made(tmp_path / "in", [unicodedata.normalize("NFD", "Größe.png"), "2.png"])
    table = tmp_path / "t.csv"
    table.write_text(unicodedata.normalize("NFC", "path,label\nGröße.png,groß\n2.png,klein\n"))
    assert sorted(str(record.label) for record in folder.scan(root, labels=table).records) == ["groß", "klein"]


def test_a_table_and_a_folder_that_differ(tmp_path: Path) -> None:
    root = made(tmp_path / "in", ["1.png", "2.png"])
    table = tmp_path / "t.csv"
    table.write_text("path,label\n1.png,a\ngone.png,b\n")
    message = told(root, labels=table)
    assert "2.png: has no row" in message
    assert "gone.png: stands in the label table but is not there" in message


@pytest.mark.parametrize(
    "text",
    [
        "name,label\n1.png,a\n",
        "path,label\n../1.png,a\n",
        "path,label\n1.png,a\n1.png,b\n",
        "path,label,split\n1.png,a,maybe\n",
    ],
)
def test_a_bad_table_is_refused(text: str, tmp_path: Path) -> None:
    root = made(tmp_path / "in", ["1.png"])
    table = tmp_path / "t.csv"
    table.write_text(text)
    assert "label table" in told(root, labels=table)


def test_patients_in_file_names(tmp_path: Path) -> None:
    root = made(tmp_path, ["a/P01_L.png", "a/P01_R.png", "a/P02_L.png", "a/x.png"])
    scan = folder.scan(root, patient_regex=r"(P\d+)_")
    assert [r.patient for r in scan.records] == [patient_digest("P01")] * 2 + [patient_digest("P02"), None]
    assert "--patient-regex finds no patient in 1 path" in scan.notes
    with pytest.raises(UsageError, match="patient-regex"):
        folder.scan(root, patient_regex="(")
    for nobody in ("(Q[0-9]+)_", "P()"):
        with pytest.raises(UsageError, match=r"finds no patient in any path, such as a/P01_L\.png") as caught:
            folder.scan(root, patient_regex=nobody)
        assert caught.value.exit_code == 2


def test_without_a_patient_the_slices_of_a_study_stay_together(tmp_path: Path) -> None:
    """The study, or else the series, stands for the patient, who is not called known."""
    for i in range(30):
        tags: dict[str, Any] = {"StudyInstanceUID": f"1.2.{i // 10}"} if i < 20 else {"SeriesInstanceUID": "1.3.9"}
        hostile.dicom(tmp_path / f"a/{i}.dcm", without=("PatientID",), InstanceNumber=i, **tags)
    scan = folder.scan(tmp_path)
    assert len({patient_key(record) for record in scan.records}) == 3
    splits = split(scan.records)
    assert {patient_key(r) for r in splits.train}.isdisjoint(patient_key(r) for r in splits.holdout)
    assert not splits.patients_known
    assert UNKNOWN_PATIENTS in scan.notes
    assert "30 images without a patient in the header, told apart by study only" in scan.notes
    one = [record for record in scan.records if record.patient == scan.records[0].patient]
    with pytest.raises(BadInput, match="class a: has one patient") as fault:
        require_patients([*one, replace(one[0], label="b")])
    assert "a study counts as one" in fault.value.hint


def test_images_of_other_scales_are_told(tmp_path: Path) -> None:
    for name, spacing in (("1", 0.5), ("2", 0.505), ("3", 0.75)):
        hostile.dicom(tmp_path / f"a/{name}.dcm", PixelSpacing=[spacing, spacing])
    told = "the longer sides of the images are 32 to 48 mm: made images say the median pixel spacing"
    assert told in folder.scan(tmp_path).notes
    (tmp_path / "a/3.dcm").unlink()
    assert not any("longer sides" in note for note in folder.scan(tmp_path).notes)


def test_a_study_in_two_splits_is_refused(tmp_path: Path) -> None:
    for side in ("train", "test"):
        hostile.dicom(tmp_path / side / f"a/{side}.dcm", without=("PatientID",), StudyInstanceUID="1.2.3")
    assert "is in test (test/a/test.dcm) and train" in unfit(folder.scan(tmp_path))[0]


def test_frames_are_a_choice(tmp_path: Path) -> None:
    from PIL import Image as Pillow

    frames = [Pillow.fromarray(np.full((8, 8), v, dtype=np.uint8)) for v in (1, 2, 3)]
    frames[0].save(tmp_path / "m.tif", save_all=True, append_images=frames[1:])
    assert "has 3 frames (Choose --frames" in told(tmp_path)
    assert [r.part for r in folder.scan(tmp_path, frames="first").records] == [0]
    scan = folder.scan(tmp_path, frames="all")
    assert [folder.read_pixels(scan, r).pixels.max() for r in scan.records] == [1, 2, 3]
    with pytest.raises(UsageError):
        folder.scan(tmp_path, frames="some")


def test_synthetic_and_burned_in_input_is_refused_unless_allowed(tmp_path: Path) -> None:
    mark = Mark("a-1", "a", "0" * 64, 1, "1" * 64, "0.1.0", "20260101")
    image = Image(np.arange(64, dtype=np.float32).reshape(1, 8, 8), Form("dicom", "uint8", 1, 8, 8))
    for codec in ("png", "tiff", "dicom", "nifti"):
        root = tmp_path / codec
        (root / "a").mkdir(parents=True)
        form = Form(codec, "uint8", 1, 8, 8)
        (root / "a" / ("1" + codecs.suffix(form))).write_bytes(codecs.encode(Image(image.pixels, form), mark))
        assert "marked as synthetic" in told(root)
        assert len(folder.scan(root, allow_synthetic=True).records) == 1
    path = tmp_path / "dicom/a/1.dcm"
    import pydicom

    made = pydicom.dcmread(path)
    made.BurnedInAnnotation = "YES"
    made.save_as(path)
    assert "may show patient text" in told(tmp_path / "dicom", allow_synthetic=True)
    folder.scan(tmp_path / "dicom", allow_synthetic=True, allow_burned_in=True)


def test_an_npz_alone_is_a_set(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 6, 6)).astype(np.uint8)
    path = tmp_path / "set.npz"
    np.savez(path, train_images=images, train_labels=np.array([[0], [1], [1], [10]]))
    scan = folder.scan(path)
    assert (len(scan.records), scan.classes, scan.root) == (4, ("0", "1", "10"), tmp_path)
    np.testing.assert_array_equal(folder.read(path, scan.records[2]).pixels[0], images[2])


def test_the_order_of_the_disk_does_not_matter(tmp_path: Path) -> None:
    names = [f"c{i % 3}/{i}.png" for i in range(9)]
    first = folder.scan(made(tmp_path / "one", names))
    for seed, name in reversed(list(enumerate(names))):
        picture(tmp_path / "two" / name, seed)
    assert folder.scan(tmp_path / "two").records == first.records


def test_a_file_that_changes_later_is_named(tmp_path: Path) -> None:
    scan = folder.scan(made(tmp_path, ["a/1.png"]))
    picture(tmp_path / "a/1.png", 2, size=20)
    with pytest.raises(BadInput, match=r"a/1\.png"):
        folder.read_pixels(scan, scan.records[0])


@pytest.mark.data
def test_the_image_that_stands_in_two_classes_of_busi(shared_data: Path) -> None:
    scan = folder.scan(shared_data / "busi_128")
    assert scan.classes == ("benign", "malignant", "normal")
    assert len(scan.conflicts) == 1
    assert len(scan.records) == 437 + 210 + 133 - 2


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "settings", "images", "classes"),
    [
        ("bccd_cells_64", {}, 2733, 3),
        ("pneumoniamnist", {}, 5002, 2),
        ("dicom/cxr_nih6", {}, 6, 0),
        ("dicom/torchio_tests", {}, 17, 1),
    ],
)
def test_real_sets(name: str, settings: dict[str, Any], images: int, classes: int, shared_data: Path) -> None:
    scan = folder.scan(shared_data / name, **settings)
    assert (len(scan.records), len(scan.classes)) == (images, classes)
    for record in scan.records[:: max(1, images // 20)]:
        assert folder.read_pixels(scan, record).form == record.form
