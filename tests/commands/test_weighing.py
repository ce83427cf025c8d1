"""The utility part of `evaluate` on phantoms: flags, controls, the page, what is kept, what is refused."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from mgdm_cli.commands import evaluate
from mgdm_cli.commands.arming import Maker
from mgdm_cli.commands.finding import Training
from mgdm_cli.commands.modelling import prepare
from mgdm_cli.commands.reading import Source, alike
from mgdm_cli.commands.wanted import Wanted
from mgdm_cli.commands.weighed import verdicts_of
from mgdm_cli.commands.weighing import Asked, Weighing, estimate, weigh
from mgdm_cli.data.checking import open_plan
from mgdm_cli.data.files import sha256_file
from mgdm_cli.data.phantom_set import PATIENT_REGEX, write_set
from mgdm_cli.data.plan import Recipe
from mgdm_cli.engine.judging import real_test
from mgdm_cli.engine.preparing import Prepared
from mgdm_cli.engine.run import DENOISER
from mgdm_cli.errors import PARTIAL, NeedsTraining, UsageError
from tests.tiny import CPU, tiny_run, tree

GRADES = ("grade0", "grade1", "grade2", "grade3")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("weighing")
    write_set(root / "real", counts=dict(zip(GRADES, (24, 14, 10, 9), strict=True)), size=32, seed=0)
    write_set(root / "test", counts=dict.fromkeys(GRADES, 6), size=32, seed=7)
    for name, counts, seed in (("made", (2, 8, 12, 12), 5), ("plain", (2, 8, 10, 14), 6)):
        write_set(root / name, counts=dict(zip(GRADES, counts, strict=True)), size=32, seed=seed)
        for path in sorted((root / name).rglob("*.png")):
            path.rename(path.with_name(f"{name}-{path.name}"))
    for path in sorted((root / "test").rglob("*.png")):
        path.rename(path.with_name(path.name.replace("P", "P9")))  # other patients
    return root


@pytest.fixture(scope="module")
def prepared(folder: Path) -> Prepared:
    return prepare(Source(folder / "real", patient_regex=PATIENT_REGEX), seed=0)


def asked(folder: Path, *, nets: str = "lenet", seeds: int = 2, budget: float | None = None) -> Asked:
    return Asked.of(f"dup,classical,synthetic,plain={folder / 'plain'}", nets, seeds, 2, budget)


def task(
    folder: Path, prepared: Prepared, out: Path, asked: Asked, *, test: Path | None, model: Path | None = None
) -> Weighing:
    source = Source(folder / "real", patient_regex=PATIENT_REGEX)
    tests = real_test(test, prepared, read=alike(source))
    return Weighing(Maker(source, prepared, folder / "made", out, model, CPU, 0), asked, tests)


def test_arms_add_equally_many_images_and_the_table_is_kept(folder: Path, prepared: Prepared, tmp_path: Path) -> None:
    whole = task(folder, prepared, tmp_path, asked(folder), test=folder / "test")
    found = weigh(whole)
    added = {row.name: list(row.images.values()) for row in found.rows}
    assert added["real"] == [0, 0, 0, 0]
    assert added["dup"] == added["classical"] == added["synthetic"] == added["plain"] == [2, 8, 10, 12]
    assert (found.done, found.cells, found.partial) == (10, 10, False)
    assert sum(found.test.values()) == 24
    assert sum(found.real.values()) == 57
    assert [(g.arm, g.against) for g in found.gains] == [
        *((name, "real") for name in ("dup", "classical", "synthetic", "plain")),
        *((name, control) for control in ("dup", "classical") for name in ("synthetic", "plain")),
        ("plain", "synthetic"),
    ]
    assert len(verdicts_of(found)) == 2
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cells").iterdir()}
    assert len(before) == 10
    assert weigh(whole) == found
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cells").iterdir()} == before


def test_evaluate_tells_it_and_ends_partial_without_time(folder: Path, tmp_path: Path) -> None:
    source = Source(folder / "real", patient_regex=PATIENT_REGEX)
    more: dict[str, Any] = {"test": folder / "test", "out": tmp_path / "out", "seen": 32, "device": "cpu"}
    none = evaluate.run(source, folder / "made", asked=asked(folder, budget=0.0), **more)
    assert none.exit_code == PARTIAL
    assert none.document["utility"]["cells"]["done"] <= 1
    assert "the same command continues" in str(none.lines)
    found = evaluate.run(source, folder / "made", asked=asked(folder), **more)
    assert found.exit_code == 0
    assert {g["verdict"] for g in found.document["utility"]["gains"]} <= {"helps", "no evidence", "hurts"}
    assert set(found.document["utility"]["arms"]) == {"real", "dup", "classical", "synthetic", "plain"}
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "What the images are worth" in page
    assert "all nets" in page


def test_a_dry_run_writes_nothing(folder: Path, prepared: Prepared, tmp_path: Path) -> None:
    found = estimate(task(folder, prepared, tmp_path, asked(folder), test=folder / "test"))
    assert found.document["cells"] == found.document["cells_missing"] == 10
    assert found.document["nets"]["lenet"]["seconds_per_step"] > 0
    assert list(tmp_path.iterdir()) == []


def test_an_arm_is_made_by_the_model_once(
    folder: Path, prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, any_guide: None
) -> None:
    """As many images of each class as the synthetic set has, by the recipe of the arm; a dry run says what it would take.

    Of a class of nine real images too, which augment by itself would not fill up.
    """
    tiny_run(tmp_path / "run", Source(folder / "real", patient_regex=PATIENT_REGEX), seen=32)
    one = Asked.of("dup,synthetic,ungated", "lenet", 1, 2)
    whole = task(folder, prepared, tmp_path, one, test=folder / "test", model=tmp_path / "run")
    told = estimate(whole).document
    assert told["making"]["ungated"] >= 0
    assert told["cells_missing"] == 4
    assert not (tmp_path / "arms").exists()
    found = weigh(whole)
    assert {row.name: list(row.images.values()) for row in found.rows}["ungated"] == [2, 8, 12, 12]
    (made,) = (tmp_path / "arms").iterdir()
    plan = open_plan(made)
    assert (plan.recipe.guidance, plan.recipe.mode, plan.recipe.filters.label) == ("uncertainty", "guide", False)
    assert plan.recipe.filters.copy_alpha is None
    before = tree(made)
    assert weigh(whole) == found
    assert tree(made) == before
    assert estimate(whole).document["making"] == {}
    # Without --model, of the runs in the cache it is the one that made the set which stands beside the arm.
    monkeypatch.setenv("MGDM_CACHE", str(tmp_path / "cache"))
    usual = Training().folder(prepared)
    tiny_run(usual, whole.maker.source, seen=64)
    shutil.copytree(tmp_path / "run", usual.with_name(f"{usual.name}-none"))
    unnamed = replace(whole.maker, synthetic=made, model=None, target=tmp_path / "more")
    assert open_plan(unnamed.make("gen", {"grade2": 1})).models.denoiser == plan.models.denoiser


def test_an_arm_takes_over_how_its_model_made_the_set_from_noise(
    folder: Path, prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Strength, sampler and scale for real images are other ones than those for noise, and a student's other ones than its teacher's."""
    monkeypatch.setenv("MGDM_CACHE", str(tmp_path / "cache"))
    maker = task(folder, prepared, tmp_path, asked(folder), test=None).maker
    recipe = Recipe(
        process="edm", sampler="ddim", steps=7, knobs={"eta": 0.5}, scale=0.6, scale_between=(0.1, 9.0),
        guidance="uncertainty", strength=0.4,
    )  # fmt: skip
    run = Training().folder(prepared)
    tiny_run(run, maker.source, seen=32)
    own = sha256_file(run / DENOISER)
    for depth, denoiser, same in ((None, own, True), (0.7, own, False), (None, "0" * 64, False)):
        extra: dict[str, Any] = {} if depth is None else {"depth": depth}
        plan = SimpleNamespace(
            recipe=recipe.model_copy(update={"extra": extra}),
            inputs=prepared.fingerprint,
            models=SimpleNamespace(denoiser=denoiser),
        )
        monkeypatch.setattr(Maker, "_plan", lambda self, plan=plan: plan)
        usual = Wanted()
        if same:
            usual = replace(usual, sampler="ddim", steps=7, knobs={"eta": 0.5}, strength=0.4, scale=0.6)
        for one in (maker, replace(maker, model=run)):
            found = one._wanted("guided", {"grade2": 1})
            for what in ("sampler", "steps", "knobs", "strength", "scale"):
                assert getattr(found, what) == getattr(usual, what), what


def test_without_a_model_no_arm_is_made(
    folder: Path, prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MGDM_CACHE", str(tmp_path / "cache"))
    whole = task(folder, prepared, tmp_path / "out", Asked.of("gen", "lenet", 1, 2), test=folder / "test")
    for look in (weigh, estimate):
        with pytest.raises(NeedsTraining, match="made by a model"):
            look(whole)


def test_training_images_in_the_test_set_are_left_out(folder: Path, prepared: Prepared, tmp_path: Path) -> None:
    shutil.copytree(folder / "test", tmp_path / "test")
    for path in sorted((folder / "real" / "grade0").iterdir())[:5]:
        shutil.copy(path, tmp_path / "test" / "grade0" / f"zz{path.name}")
    one = asked(folder, seeds=1)
    found = weigh(task(folder, prepared, tmp_path, one, test=tmp_path / "test"))
    assert sum(found.test.values()) == 24
    assert any(note.startswith("5 test images") for note in found.notes)
    assert all(g.verdict == "no evidence" for g in found.gains)  # one seed


def test_other_images_of_training_patients_are_left_out(folder: Path, prepared: Prepared, tmp_path: Path) -> None:
    """A test folder is read by the flags of the real one: its patients too. Of those that the pattern misses it is told."""
    source = Source(folder / "real", patient_regex=PATIENT_REGEX)
    shutil.copytree(folder / "test", tmp_path / "test")
    for path in sorted((folder / "real" / "grade0").iterdir())[:5]:
        with Image.open(path) as picture:
            picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "test" / "grade0" / f"{path.stem}_7.png")
    found = real_test(tmp_path / "test", prepared, read=alike(source))
    assert len(found.records) == 24
    assert any(note.startswith("5 test images are, or show patients of") for note in found.notes)
    for path in sorted((tmp_path / "test").rglob("*.png")):
        path.rename(path.with_name(path.name.replace("P", "x")).with_suffix(".jpg"))
    found = real_test(tmp_path / "test", prepared, read=alike(source))
    assert len(found.records) == 29
    assert any(note.startswith("the patients of 29 test images are not known") for note in found.notes)
    assert any("as their names say: grade0/" in note for note in found.scan.notes)
    assert not any("grade0/" in note for note in found.notes), "no name of a real file goes into the record"


def test_of_the_sets_own_test_split_only_what_is_learnt_is_asked(folder: Path, tmp_path: Path) -> None:
    """A class that train lacks and an image without a label are left out, of the judges' figures and of the table."""
    shutil.copytree(folder / "real", tmp_path / "set" / "train")
    shutil.copytree(folder / "test", tmp_path / "set" / "test")
    write_set(tmp_path / "more", counts={"grade0": 3}, size=32, seed=11)
    one, *others = sorted((tmp_path / "more").rglob("*.png"))
    (tmp_path / "set" / "test" / "grade9").mkdir()
    shutil.copy(one, tmp_path / "set" / "test" / "P990_0.png")
    for i, path in enumerate(others):
        shutil.copy(path, tmp_path / "set" / "test" / "grade9" / f"P99{i + 1}_0.png")
    source = Source(tmp_path / "set", patient_regex=PATIENT_REGEX)
    arms = Asked.of("synthetic", "lenet", 1, 2)
    found = evaluate.run(source, folder / "made", out=tmp_path / "out", seen=32, device="cpu", asked=arms).document
    assert found["judges_on_test"]["images"] == sum(found["utility"]["test"].values()) == 24
    for notes in (found["notes"], found["utility"]["notes"]):
        assert any(note.startswith("3 test images without a label, or of a class") for note in notes)


def test_a_class_without_added_images_is_told(folder: Path, prepared: Prepared, tmp_path: Path) -> None:
    """Then the look of added images marks the other classes."""
    shutil.copytree(folder / "plain", tmp_path / "some")
    shutil.rmtree(tmp_path / "some" / "grade0")
    for name, told in ((folder / "plain", False), (tmp_path / "some", True)):
        one = Asked.of(f"plain={name}", "lenet", 1, 2)
        found = weigh(task(folder, prepared, tmp_path, one, test=folder / "test"))
        assert any(note.startswith("no image is added to grade0") for note in found.notes) == told


def test_without_test_images_there_is_no_table(folder: Path, prepared: Prepared, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no test images of class grade0"):
        weigh(task(folder, prepared, tmp_path, asked(folder), test=None))


@pytest.mark.parametrize(
    ("arms", "nets", "said"),
    [
        ("real,dup", "quick", "names no synthetic images"),
        ("dup,strange", "quick", "'strange' is no arm"),
        ("a=x,a=y", "quick", "one name twice"),
        ("real=x", "quick", "no arm"),
        ("synthetic", "resnet,alexnet9", "'alexnet9' is no net"),
        ("synthetic", ",", "names no net"),
    ],
)
def test_flags_that_make_no_sense_are_refused(arms: str, nets: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Asked.of(arms, nets, 3)


def test_groups_of_nets_are_written_out_once() -> None:
    asked = Asked.of("real,guided=./out", "quick,resnet,lenet", 3)
    assert asked.nets == ("vgg", "resnet", "densenet", "lenet")
    assert asked.controls == ("real",)
    assert asked.folders == (("guided", Path("out")),)
    assert asked.made == ()  # a folder's name wins over an arm that would be made
    assert Asked.of("gen,select", "quick", 3).made == ("gen", "select")
