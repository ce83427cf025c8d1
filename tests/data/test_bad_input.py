"""The table of bad and hostile input, row by row: what `mgdm` says, and the exit code, through the command itself."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image

from mgdm_cli.app import main
from mgdm_cli.commands.modelling import prepare
from mgdm_cli.commands.reading import Source
from mgdm_cli.errors import BadInput
from tests.data.hostile import (
    DEFLATED,
    EXPLICIT,
    append,
    blank,
    cut,
    cut_dicom,
    dicom,
    flipped,
    frames,
    good,
    holes,
    linked,
    mkdir,
    nested,
    nifti,
    not_utf8,
    one_too_small,
    overfull_png,
    patched,
    png,
    png_chunks,
    preamble,
    put,
    same_pixels,
    split_patients,
    synthetic,
    table,
    two_bad,
    two_kinds,
    two_sizes,
    unlabelled,
    write,
)


@pytest.fixture(scope="module", autouse=True)
def scans_here() -> None:
    """Not here: as a user's folders are looked at, in processes of their own that a bad file may kill."""


@dataclass(frozen=True)
class Row:
    """A line of the table: what makes the folder, what is said, the exit code, and more words for the command."""

    name: str
    make: Callable[[Path], Any]
    says: str
    code: int = 65
    words: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.name


LABELS = ("--labels", "{root}/table.csv")
BOMB = zlib.compress(b"\0" * 40_000_000, 9)
D = "a/x.dcm"
TWO_SIDES = "is in test (test/a/P1_y.png) and train (train/a/P1_x.png)"
READ = "not usable: all images are of one class, a"  # the file is one that can be read
ROWS = [
    Row("missing folder", lambda root: root.rmdir(), "no such folder", 66),
    Row("empty folder", lambda root: None, "no readable images (looked for", 66),
    Row("another kind of file", lambda root: write(root / "a/x.png", b"GIF89a" + bytes(50)), "is not a PNG, JPEG,"),
    Row("JPEG named .png", lambda root: png(root / "a/x.png", kind="JPEG"), "1 file is JPEG, not PNG"),
    Row("empty file", lambda root: write(root / "a/x.png", b""), "a/x.png: is empty"),
    Row("cut header", lambda root: cut(dicom(root / D), 200), "a/x.dcm: is cut short"),
    Row("300 bytes", lambda root: cut(dicom(root / D), 300), "a/x.dcm: is cut short"),
    Row("cut pixels", cut_dicom, "is cut short: 5192 of 8192 pixel bytes"),
    Row("cut PNG", lambda root: cut(png(root / "a/x.png"), 90), "is cut short"),
    Row("cut NIfTI", lambda root: nifti(root / "a/x.nii", edit=lambda p: p.__delitem__(slice(500, None))), "is cut short"),
    Row("no pixel data", lambda root: dicom(root / D, without=("PixelData",)), "has no pixel data"),
    Row("no rows", lambda root: dicom(root / D, without=("Rows",)), "has no image size"),
    Row("rows of zero", lambda root: dicom(root / D, Rows=0), "has no image size"),
    Row(
        "size that lies",
        lambda root: dicom(root / D, Rows=65535, Columns=65535),
        "header says 65535x65535 (8589672450 bytes), its pixel data holds 8192 bytes",
    ),
    Row(
        "unknown transfer syntax",
        lambda root: patched(dicom(root / D), b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.9.9\0"),
        "transfer syntax 1.2.840.10008.1.9.9 is not supported",
    ),
    Row(
        "transfer syntax that lies",
        lambda root: patched(dicom(root / D), b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.2\0"),
        "a/x.dcm: ",
    ),
    Row("deflate bomb", lambda root: dicom(root / D, DEFLATED), "(--max-file-size raises it.)", 65, ("--max-file-size", "1K")),
    Row(
        "gzip bomb",
        lambda root: nifti(root / "a/x.nii.gz", np.zeros((400, 400, 60), np.int16)),
        "would unpack to 1048576 bytes or more; the limit is 1048576 bytes (--max-file-size",
        65,
        ("--max-file-size", "1M"),
    ),
    Row("PNG bomb", lambda root: write(root / "a/x.png", png_chunks(40_000, 40_000, BOMB)), "header says 40000x40000x1; the limit"),
    Row("PNG that holds more", overfull_png, READ),
    Row("large file", lambda root: png(root / "a/x.png", size=64), "the limit is 1024 bytes", 65, ("--max-file-size", "1K")),
    *(
        Row(f"preamble {start!r}", partial(preamble, start=start), "starts with a program header")
        for start in (b"MZ\x90", b"\x7fELF", b"\xfe\xed\xfa\xcf", b"#!/bin/sh\n")
    ),
    Row("deep nesting", nested(2000), "a/x.dcm: "),
    Row("checksum of gzip", lambda root: flipped(nifti(root / "a/x.nii.gz"), -6), "its compressed data fails its checksum"),
    Row("behind gzip", lambda root: append(nifti(root / "a/x.nii.gz"), b"more"), "behind the end of its compressed data"),
    Row("NIfTI dim 0", lambda root: nifti(root / "a/x.nii", edit=put(42, "<h", 0)), "field dim holds 0"),
    Row("NIfTI dim < 0", lambda root: nifti(root / "a/x.nii", edit=put(42, "<h", -3)), "field dim holds -3"),
    Row("NIfTI dim[0]", lambda root: nifti(root / "a/x.nii", edit=put(40, "<h", 1)), "field dim[0] is 1"),
    Row("NIfTI size", lambda root: nifti(root / "a/x.nii", edit=put(42, "<hhh", 32767, 32767, 32767)), "header says 32767x32767x32767"),
    Row("NIfTI datatype", lambda root: nifti(root / "a/x.nii", edit=put(70, "<h", 4096)), "unknown datatype 4096"),
    Row("NIfTI vox_offset", lambda root: nifti(root / "a/x.nii", edit=put(108, "<f", np.nan)), "field vox_offset is nan"),
    Row("NIfTI slope", lambda root: nifti(root / "a/x.nii", edit=put(112, "<f", np.inf)), "field scl_slope is inf"),
    Row("NIfTI affine 0", lambda root: nifti(root / "a/x.nii", edit=put(280, "<12f", *[0.0] * 12)), "field sform"),
    Row("NIfTI affine NaN", lambda root: nifti(root / "a/x.nii", edit=put(280, "<f", np.nan)), "field sform"),
    Row("NaN voxels", holes, "holds 3 values of 256 (1.2 %) that are NaN or infinite (--nan fill=0"),
    Row("NaN voxels filled", holes, READ, 65, ("--nan", "fill=-5")),
    Row("frames of a TIFF", lambda root: frames(mkdir(root / "a/x.tif"), "TIFF"), "has 3 frames (Choose --frames first or --frames all"),
    Row("frames of a PNG", lambda root: frames(mkdir(root / "a/x.png"), "PNG"), "has 3 frames"),
    Row("frames of a DICOM", lambda root: dicom(root / D, NumberOfFrames=2, Rows=32), "has 2 frames"),
    Row("frames chosen", lambda root: dicom(root / D, NumberOfFrames=2, Rows=32), READ, 65, ("--frames", "all")),
    Row("4-D NIfTI", lambda root: nifti(root / "a/x.nii", np.zeros((8, 8, 8, 3), np.int16)), "has 3 frames", 65, ("--slices", "axial")),
    Row("volume", lambda root: nifti(root / "a/x.nii", np.zeros((8, 9, 7), np.int16)), "is a volume of 8x9x7 voxels (Choose --slices"),
    Row("mixed sizes", two_sizes, "not usable: the images have 2 sizes: 2 of 16x16; 1 of 24x24. Give --size, for example --size 16"),
    Row("mixed depths", two_kinds, "not usable: the images are stored in different ways"),
    Row("blank images", blank, "2 of 5 images are blank: a/blank0.png, a/blank1.png"),
    Row("same pixels in a class", lambda root: same_pixels(root, "a", 2), "a/again.tif = a/good0.png"),
    Row("same pixels in two classes", lambda root: same_pixels(root, "b", 2), "images stand under two labels"),
    Row("few in two classes", lambda root: same_pixels(root, "b", 60), "same image under two labels: 1"),
    Row("label missing", unlabelled, "not usable: 1 image without a label: alone.png. Put images in a sub-folder per class"),
    Row("row missing", table("path,label\na/good0.png,x\n"), "a/good1.png: has no row in the label table", 65, LABELS),
    Row("image missing", table("path,label\na/good0.png,x\na/good1.png,y\ngone.png,x\n"), "gone.png: stands in the", 65, LABELS),
    Row("row that stands twice", table("path,label\na/good0.png,x\na/good0.png,y\n"), "good0.png stands twice. 1 line", 65, LABELS),
    Row("table that leaves", table("path,label\n../x.png,x\n"), "line 2: path leaves the folder", 65, LABELS),
    Row(
        "label with a comma",
        table("path,label\na/good0.png,viral, mild\na/good1.png,viral, severe\n"),
        "line 2: has more cells than the header (quote what holds the separator); line 3", 65, LABELS,
    ),
    Row("table with an absolute path", table("path,label\n/etc/passwd,x\n"), "path leaves the folder", 65, LABELS),
    Row("label that climbs", table("path,label\na/good0.png,../x\na/good1.png,y\n"), "class names: '../x'", 65, LABELS),
    *(
        Row(f"label {start!r}", table(f"path;label\na/good0.png;{start}SUM(A1)\na/good1.png;y\n"), "class names", 65, LABELS)
        for start in "=+-@"
    ),
    Row("long label", table(f"path,label\na/good0.png,{'x' * 65}\na/good1.png,y\n"), "class names", 65, LABELS),
    Row("folder of a device", lambda root: png(root / "con/x.png"), "class names: 'con'"),
    Row("patient in two splits", split_patients, TWO_SIDES, 65, ("--patient-regex", r"(P\d+)_")),
    Row("link that leaves", linked, "a/link.png: is a link that leaves the input folder"),
    Row("loop", lambda root: mkdir(root / "a/x.png").symlink_to(root / "a/x.png"), "is a broken link"),
    Row("pipe", lambda root: os.mkfifo(mkdir(root / "a/x.png")), "is not a regular file"),
    Row("archive in the folder", lambda root: write(root / "a/x.zip", b"PK\3\4"), "is an archive; unpack it"),
    Row("name that is not UTF-8", not_utf8, "caf\\udce9.png: has a name that is not UTF-8"),
    Row("burned in", lambda root: dicom(root / D, BurnedInAnnotation="YES"), "may show patient text"),
    Row("screenshot", lambda root: dicom(root / D, ImageType=["DERIVED", "SECONDARY", "SCREEN SAVE"]), "may show patient text"),
    Row("burned in, allowed", lambda root: dicom(root / D, BurnedInAnnotation="YES"), READ, 65, ("--allow-burned-in",)),
    *(
        Row(f"synthetic {codec}", partial(synthetic, codec=codec), "is marked as synthetic (--allow-synthetic-input")
        for codec in ("png", "tiff", "dicom", "nifti")
    ),
]  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_each_row_of_the_table(row: Row, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "in"
    root.mkdir()
    row.make(root)
    words = [word.format(root=root) for word in row.words]
    assert main(["inspect", "--data", str(root), *words]) == row.code
    out, err = capfd.readouterr()
    assert row.says in out + err
    assert "Traceback" not in out + err
    assert str(tmp_path) not in out + err
    for secret in ("DOE", "4711"):
        assert secret not in out + err


def test_archives_are_no_input(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for name, data in (
        ("x.zip", b"PK\3\4" + bytes(40)),
        ("x.bin", bytes(257) + b"ustar" + bytes(300)),
        ("x.7z", b"7z"),
    ):
        write(tmp_path / name, data)
        assert main(["inspect", "--data", str(tmp_path / name)]) == 2
        assert f"{name}: is an archive, which is not opened" in capfd.readouterr().err


def test_bad_files_are_left_out_up_to_a_limit_and_all_are_reported(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "in"
    good(root, 30)
    for k in range(2):
        png(root / f"b/{k}.png", k)
        write(root / f"a/bad{k}.png", b"nothing")
    report = tmp_path / "input-report.json"
    assert main(["inspect", "--data", str(root), "--report", str(report)]) == 65
    document = json.loads(report.read_text())
    assert [row["path"] for row in document["refused"]] == ["a/bad0.png", "a/bad1.png"]
    assert document["usable"] is False
    assert main(["inspect", "--data", str(root), "--skip-bad"]) == 65
    told = capfd.readouterr()
    assert "2 of 34 files cannot be used, more than --max-skip 0.05" in told.out + told.err
    assert main(["inspect", "--data", str(root), "--skip-bad", "--max-skip", "0.07", "--json"]) == 0
    assert len(json.loads(capfd.readouterr().out.partition("{")[1] + _last_document(report))["refused"]) == 2


def _last_document(report: Path) -> str:
    return report.read_text().partition("{")[2]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (two_sizes, "the images have 2 sizes: 2 of 16x16; 1 of 24x24"),
        (one_too_small, "16 pixels a side are the least: leave smaller ones out"),
        (two_bad, "2 of 27 files"),
        (blank, "2 of 5 images are blank"),
        (split_patients, TWO_SIDES),
        (holes, "NaN or infinite"),
    ],
    ids=["sizes", "too small", "bad files", "blank", "patients", "nan"],
)  # fmt: skip
def test_training_refuses_them_before_any_work(
    make: Callable[[Path], Any], says: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path / "in")
    words = [
        "--data",
        str(tmp_path / "in"),
        "-o",
        str(tmp_path / "run"),
        "--budget",
        "1m",
        *(["--patient-regex", r"(P\d+)_"] if make is split_patients else []),
    ]
    assert main(["train", *words]) == 65
    assert says in capfd.readouterr().err
    assert not (tmp_path / "run").exists()


def test_other_peoples_checkpoints_are_no_models(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "model.pt", b"\x80\x02}q\0.")
    assert main(["sample", str(tmp_path / "model.pt"), "--labels", "a=1", "-o", str(tmp_path / "out")]) in (65, 66)
    assert "Traceback" not in capfd.readouterr().err


def test_a_folder_that_is_not_ours_is_not_touched(tmp_path: Path) -> None:
    good(tmp_path / "in")
    write(tmp_path / "out/notes.txt", b"mine")
    words = ["--data", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--n", "4", "--budget", "1m"]
    assert main(["augment", *words]) == 78
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["notes.txt"]


def test_what_is_stored_in_other_ways_is_the_same_picture(tmp_path: Path) -> None:
    """Big-endian, MONOCHROME1, signed and palette files decode to the pixels of their plain twin."""
    from mgdm_cli.data import folder

    plain = pydicom.dcmread(dicom(tmp_path / "plain/a/1.dcm"))
    stored = plain.pixel_array
    twins = {
        "big": {"PixelData": stored.astype(">u2").tobytes()},
        "mono1": {"PhotometricInterpretation": "MONOCHROME1", "PixelData": (65535 - stored).astype("<u2").tobytes()},
        "rescaled": {"RescaleSlope": 2, "RescaleIntercept": 0, "PixelData": (stored >> 1).astype("<u2").tobytes()},
    }
    want = folder.scan(tmp_path / "plain", decode=True)
    for name, tags in twins.items():
        syntax = "1.2.840.10008.1.2.2" if name == "big" else EXPLICIT
        dicom(tmp_path / name / "a/1.dcm", syntax, **tags)
        scan = folder.scan(tmp_path / name, decode=True)
        array = folder.read_pixels(scan, scan.records[0]).pixels[0]
        np.testing.assert_array_equal(array, stored if name != "rescaled" else stored >> 1 << 1)
    assert len(want.records) == 1


@pytest.mark.parametrize(("classes", "each", "told"), [(1, 9, "of one class"), (2, 1, "one patient")])
def test_guide_and_judge_need_two_classes_and_two_patients_of_each(
    classes: int, each: int, told: str, tmp_path: Path
) -> None:
    for name in "ab"[:classes]:
        (tmp_path / name).mkdir()
        for i in range(each if name == "b" or classes == 1 else 9):
            pixels = np.random.default_rng([ord(name), i]).integers(0, 255, (32, 32), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{i}.png")
    with pytest.raises(BadInput, match=told):
        prepare(Source(tmp_path), seed=0)
