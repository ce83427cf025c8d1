"""`mgdm inspect`: the document, the lines, the exit code."""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mgdm_cli.commands.inspect import run
from mgdm_cli.commands.reading import Source
from mgdm_cli.console import finish
from mgdm_cli.data.folder import scan
from mgdm_cli.errors import BadInput, MissingInput

KEYS = {
    "data", "images", "files", "formats", "depths", "sizes", "modalities", "classes", "unlabelled", "patients", "holdout",
    "values", "intensity", "blank", "duplicates", "conflicts", "refused", "notes", "series", "unfit", "fingerprint", "decoded",
    "usable",
}  # fmt: skip


@pytest.fixture
def eyes(tmp_path: Path) -> Path:
    """40 normal and 10 ill eyes, two a patient, and 6 in a test folder."""
    from PIL import Image as Pillow

    rng = np.random.default_rng(0)
    names = [f"train/normal/P{i // 2:02d}_{i}.png" for i in range(40)]
    names += [f"train/ill/P{50 + i // 2}_{i}.png" for i in range(10)]
    names += [f"test/normal/P{80 + i}_x.png" for i in range(6)]
    for name in names:
        path = tmp_path / "eyes" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Pillow.fromarray(rng.integers(0, 256, (16, 16)).astype(np.uint8)).save(path)
    return tmp_path / "eyes"


def text(lines: tuple[Any, ...]) -> str:
    from rich.console import Console

    console = Console(width=120)
    with console.capture() as captured:
        for line in lines:
            console.print(line, markup=False, highlight=False)
    return captured.get()


def test_a_good_folder(eyes: Path) -> None:
    result = run(Source(eyes, patient_regex=r"(P\d+)_"))
    found = result.document
    assert result.exit_code == 0
    assert set(found) == KEYS
    assert (found["data"], found["images"], found["formats"], found["sizes"]) == (
        "eyes",
        56,
        {"png": 56},
        {"16x16": 56},
    )
    assert found["classes"]["normal"] == {"train": 40, "val": 0, "test": 6, "total": 46}
    assert found["patients"] == {"known": True, "count": 31, "unknown_images": 0, "in_two_splits": 0}
    assert found["holdout"] == 10
    assert found["intensity"] == {"kind": "linear", "lo": 0.0, "hi": 255.0, "note": ""}
    json.dumps(found, allow_nan=False)
    shown = text(result.lines)
    assert "normal" in shown
    assert shown.rstrip().endswith("usable")
    assert str(eyes.parent) not in shown + json.dumps(found)


def test_names_are_shown_as_they_are(eyes: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    (eyes / "train/normal").rename(eyes / "train/[i]größer 2 cm")
    (eyes / "test/normal").rename(eyes / "test/[i]gro\u0308ßer 2 cm")  # as macOS writes it: the same class
    (eyes / "train/ill/kaputt ü.png").write_bytes(b"nothing")
    result = run(Source(eyes, skip_bad=True))
    assert result.document["classes"]["[i]größer 2 cm"] == {"train": 40, "val": 0, "test": 6, "total": 46}
    finish(result)
    told = capfdbinary.readouterr().out.decode()
    assert "[i]größer 2 cm" in told
    assert "train/ill/kaputt ü.png: is not a PNG" in told
    with pytest.raises(BadInput, match=r"train/ill/kaputt ü\.png: is not a PNG"):
        scan(eyes)


def test_a_table_can_be_shown_where_umlauts_cannot(eyes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (eyes / "train/normal").rename(eyes / "train/größer")
    shown = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", shown)
    finish(run(Source(eyes), quick=True))
    assert b"gr\\xf6\\xdfer" in shown.buffer.getvalue()


def test_bad_files_are_listed_and_end_in_65(eyes: Path) -> None:
    (eyes / "train/ill/broken.png").write_bytes(b"nothing")
    result = run(Source(eyes))
    assert result.exit_code == 65
    assert [r["path"] for r in result.document["refused"]] == ["train/ill/broken.png"]
    assert "train/ill/broken.png: is not a PNG" in text(result.lines)
    assert run(Source(eyes, skip_bad=True)).exit_code == 0
    assert run(Source(eyes, skip_bad=True, max_skip=0.001)).exit_code == 65


def test_what_only_decoding_shows(eyes: Path) -> None:
    from PIL import Image as Pillow

    picture = Pillow.fromarray(np.dstack([np.full((16, 16), 9, dtype=np.uint8), np.zeros((16, 16), dtype=np.uint8)]))
    picture.save(eyes / "train/ill/glass.png")
    for i in range(4):
        Pillow.fromarray(np.full((16, 16), i, dtype=np.uint8)).save(eyes / f"train/ill/blank{i}.png")
    quick = run(Source(eyes), quick=True)
    assert quick.exit_code == 0
    assert not quick.document["decoded"]
    assert quick.document["values"] is None
    result = run(Source(eyes))
    assert result.exit_code == 65
    assert [r["why"].partition(" (")[0] for r in result.document["refused"]] == ["has transparent pixels"]
    assert len(result.document["blank"]) == 4


def test_a_patient_in_train_and_test_is_refused(eyes: Path) -> None:
    (eyes / "test/normal/P80_x.png").rename(eyes / "test/normal/P03_x.png")
    result = run(Source(eyes, patient_regex=r"(P\d+)_"), quick=True)
    assert result.document["patients"]["in_two_splits"] == 1
    assert result.exit_code == 65
    (why,) = result.document["unfit"]
    told = r"patient [0-9a-f]{16} is in test \(test/normal/P03_x\.png\) and train \(train/normal/P03_6\.png\)"
    assert re.fullmatch(told, why)
    assert why in text(result.lines)


def images(root: Path, *names: str, size: int = 16) -> Path:
    from PIL import Image as Pillow

    for seed, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng([seed, size]).integers(0, 256, (size, size)).astype(np.uint8)
        Pillow.fromarray(pixels).save(root / name)
    return root


@pytest.mark.parametrize(
    ("names", "flags", "told"),
    [
        (("1.png", "2.png"), {}, ("2 images without a label: 1.png, 2.png", "--labels or --label-tag")),
        (("a/1.png", "a/2.png"), {}, ("all images are of one class, a",)),
        (("a/1.png", "a/2.png", "b/3.png"), {}, ("class b: has one patient to learn from, or one image",)),
        (
            ("a/P1_1.png", "a/P1_2.png", "b/P2_3.png", "b/P3_4.png"),
            {"patient_regex": r"P\d"},
            ("class a: has one patient", "--patient-regex"),
        ),
        (("test/a/1.png", "test/b/2.png"), {}, ("no training images",)),
        (
            ("a/1.png", "a/2.png", "b/3.png", "b/4.png"),
            {"size": "24"},
            ("a/1.png: is 16x16, smaller than --size 24x24",),
        ),
    ],
    ids=["no labels", "one class", "one image", "one patient", "no training", "small"],
)
def test_what_train_refuses_is_not_usable(
    names: tuple[str, ...], flags: dict[str, Any], told: tuple[str, ...], tmp_path: Path
) -> None:
    from mgdm_cli.commands.modelling import prepare

    source = Source(images(tmp_path, *names), **flags)
    result = run(source, quick=True)
    assert result.exit_code == 65
    assert result.document["usable"] is False
    (why,) = result.document["unfit"]
    assert all(words in why for words in told)
    with pytest.raises(BadInput, match=re.escape(told[0].partition(":")[0])):
        prepare(source, seed=0)


def test_mixed_sizes_are_usable_with_a_size(tmp_path: Path) -> None:
    images(tmp_path, "a/1.png", "a/2.png", "b/3.png", "b/4.png")
    images(tmp_path, "a/5.png", size=32)
    result = run(Source(tmp_path))
    assert result.exit_code == 65
    assert result.document["unfit"] == [
        "the images have 2 sizes: 4 of 16x16; 1 of 32x32. Give --size, for example --size 16."
    ]
    assert run(Source(tmp_path, size="16")).exit_code == 0


def test_a_folder_of_nothing_but_bad_files(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no")
    result = run(Source(tmp_path))
    assert result.exit_code == 65
    assert result.document["images"] == 0
    with pytest.raises(MissingInput):
        run(Source(tmp_path / "nowhere"))


def test_nothing_is_written(eyes: Path) -> None:
    before = sorted(eyes.rglob("*"))
    run(Source(eyes))
    assert sorted(eyes.rglob("*")) == before


@pytest.mark.data
def test_a_real_series(shared_data: Path) -> None:
    result = run(Source(shared_data / "dicom" / "torchio_tests"))
    assert result.document["refused"] == []
    assert result.exit_code == 65  # there are no classes
    assert result.document["modalities"] == {"CT": 17}
    assert "ID" not in json.dumps(result.document["patients"])
