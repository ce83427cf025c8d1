"""What a person got wrong is said at once, by name, with what to do: before the folder is read, and before a model is trained."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from mgdm_cli.app import main
from mgdm_cli.commands import augment
from mgdm_cli.commands.making import strained
from mgdm_cli.commands.modelling import prepare
from mgdm_cli.commands.reading import Source
from mgdm_cli.commands.wanted import Wanted
from mgdm_cli.data.allotment import allot
from mgdm_cli.engine.judging import others
from mgdm_cli.errors import BadInput, OtherPlan, UsageError


def pictures(folder: Path, count: int = 4, size: int = 24) -> None:
    rng = np.random.default_rng([size, *folder.name.encode()])
    folder.mkdir(parents=True)
    for i in range(count):
        Image.fromarray(rng.integers(0, 256, (size, size)).astype(np.uint8)).save(folder / f"{i}.png")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--n 5 --guidance uncertanty", "--guidance: 'uncertanty' is not known. Did you mean uncertainty?"),
        ("--n 5 --sampler dpmpp_2n", "--sampler: 'dpmpp_2n' is not known. Did you mean dpmpp_2m?"),
        ("--n 5 --knob foo=3", "foo"),
        ("--n 5 --base grey-63", "grey-63"),
        ("--n 5 --write-as dicom", "DICOM is written as sc, the secondary capture, or as op, cr, dx, ct or mr"),
        ("", "--n is missing. Give the number"),
    ],
)
def test_a_slip_in_the_flags_is_told_before_the_folder_is_read(
    flags: str, said: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["augment", "--data", str(tmp_path / "not there"), *flags.split()]) == 2
    assert said in capfd.readouterr().err


def test_another_set_in_the_folder_is_told_before_a_model_is_trained(
    ground: tuple[Source, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MGDM_CACHE", str(tmp_path / "cache"))
    few = Wanted(2, guidance="cfg", steps=4, filters=False)
    augment.run(ground[0], few, out=tmp_path / "out", model=ground[1], device="cpu")
    with pytest.raises(OtherPlan, match=r"out: was made with --n 2, not 3, --guidance cfg, not none$"):
        augment.run(ground[0], Wanted(3, guidance="none"), out=tmp_path / "out", device="cpu", budget="1h")
    with pytest.raises(OtherPlan, match="other images, or from these read in another way"):
        augment.run(Source(ground[0].data), few, out=tmp_path / "out", device="cpu", budget="1h")
    assert not (tmp_path / "cache").exists()


def test_a_guide_that_nothing_could_prove_is_refused_before_a_model_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two images of a class one goes to the guide and one to the judge: none is left to be held out."""
    monkeypatch.setenv("MGDM_CACHE", str(tmp_path / "cache"))
    for name, count in (("many", 40), ("rare", 2)):
        pictures(tmp_path / "set" / name, count)
    source = Source(tmp_path / "set")
    wanted = Wanted(4, force_small=True)
    with pytest.raises(UsageError, match=r"uncertainty: no image of rare could be held out"):
        augment.run(source, wanted, out=tmp_path / "out", device="cpu", budget="1h")
    assert not (tmp_path / "cache").exists()
    plain = replace(wanted, guidance="cfg")
    assert augment.run(source, plain, out=tmp_path / "out", device="cpu", budget="1h", dry_run=True).exit_code == 0


@pytest.mark.parametrize(
    ("data", "path", "hint"),
    [
        ("set", "0.png", "give the folder img below it"),
        ("set/img", "img/0.png", "give the folder that holds img"),
        ("set", "elsewhere.png", "Paths count from --data, as in a/1.png."),
    ],
)
def test_a_table_of_paths_from_another_folder_is_told_as_such(
    data: str, path: str, hint: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pictures(tmp_path / "set/img")
    (tmp_path / "t.csv").write_text(f"path,label\n{path},a\n")
    assert main(["inspect", "--data", str(tmp_path / data), "--labels", str(tmp_path / "t.csv")]) == 65
    err = capfd.readouterr().err
    assert f"labels: t.csv: none of its 1 paths is there, such as {path}" in err
    assert hint in err
    assert err.count("\n") <= 2


def test_a_folder_one_level_too_high_is_told(tmp_path: Path) -> None:
    for name in ("a", "b"):
        pictures(tmp_path / "set/classes" / name)
    with pytest.raises(BadInput, match="all images are of one class, classes") as caught:
        prepare(Source(tmp_path / "set"), seed=0)
    assert "If its folders a, b are the classes, give that folder to --data." in caught.value.hint
    pictures(tmp_path / "flat/a")
    with pytest.raises(BadInput, match="all images are of one class, a") as caught:
        prepare(Source(tmp_path / "flat"), seed=0)
    assert "give that folder" not in caught.value.hint


def test_dicom_without_a_file_header_is_told_from_other_files(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pictures(tmp_path / "set/a")
    (tmp_path / "set/a/headless.dcm").write_bytes(b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 100" + bytes(200))
    (tmp_path / "set/a/other.dcm").write_bytes(b"\x08\x00 no such thing" + bytes(200))
    assert main(["inspect", "--data", str(tmp_path / "set")]) == 65
    told = capfd.readouterr().out
    assert told.count("but may be DICOM without its file header") == 1


def test_smaller_images_of_another_set_are_named(tmp_path: Path) -> None:
    for name in ("a", "b"):
        pictures(tmp_path / "real" / name)
        pictures(tmp_path / "made" / name, size=16)
    prepared = prepare(Source(tmp_path / "real"), seed=0)
    with pytest.raises(BadInput, match=r"made: a/0.png: is 16x16, smaller than the 24x24 of the real images") as caught:
        others(tmp_path / "made", prepared, synthetic=True)
    assert "--size 16" in caught.value.hint


def test_a_plan_that_leaves_classes_unequal_says_what_would_level_them() -> None:
    notes = allot({"a": 60, "b": 40, "c": 24}, 12, "equal").notes
    assert any("stay unequal (a 64, b 44, c 28)" in note and "--balance fill --n 56" in note for note in notes)
    level = allot({"a": 60, "b": 40, "c": 24}, 56, "fill")
    assert {real + level.quotas[name] for name, real in (("a", 60), ("b", 40), ("c", 24))} == {60}
    assert not any("stay unequal" in note for note in (*level.notes, *allot({"a": 30, "b": 30}, 4, "equal").notes))


def test_an_unfinished_set_is_told_when_it_is_evaluated(ground: tuple[Source, Path], tmp_path: Path) -> None:
    from mgdm_cli.commands.measuring import plan_in

    augment.run(
        ground[0],
        Wanted(2, guidance="cfg", steps=4, filters=False),
        out=tmp_path / "out",
        model=ground[1],
        device="cpu",
    )
    prepared = prepare(ground[0], seed=0)
    assert plan_in(tmp_path / "out", prepared)[1] == ()
    (tmp_path / "out/.mgdm/done").unlink()
    assert plan_in(tmp_path / "out", prepared)[1][0].startswith("the set is not finished: 2 images were planned")
    shutil.rmtree(tmp_path / "out/.mgdm")  # left out, as the card advises, when a set is passed on
    assert plan_in(tmp_path / "out", prepared)[1] == ()


def test_a_class_of_which_most_candidates_were_refused_is_named() -> None:
    """What passed and was not needed any more counts as passed."""
    rows = {"a": (4, 2, 0), "b": (4, 28, 0), "c": (0, 9, 0), "d": (2, 7, 0), "e": (4, 13, 40)}

    def of(label: str, reason: str = "") -> SimpleNamespace:
        return SimpleNamespace(label=label, reason=reason)

    made = [of(name) for name, (count, _, _) in rows.items() for _ in range(count)]
    gone = [of(name, "label-lost") for name, (_, count, _) in rows.items() for _ in range(count)]
    gone += [of(name, "surplus") for name, (_, _, count) in rows.items() for _ in range(count)]
    found = SimpleNamespace(plan=SimpleNamespace(classes=tuple(rows)), entries=lambda: made, rejected=lambda: gone)
    assert strained(found) == "b 28 of 32, c 9 of 9"  # type: ignore[arg-type]
