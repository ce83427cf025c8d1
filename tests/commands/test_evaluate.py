"""`evaluate` end to end on phantoms, where the answer is known."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from mgdm_cli.commands import distill, evaluate, leaking, sample
from mgdm_cli.commands.finding import Training
from mgdm_cli.commands.modelling import prepare
from mgdm_cli.commands.reading import Source
from mgdm_cli.console import Result
from mgdm_cli.data.files import sha256_file
from mgdm_cli.data.phantom_set import PATIENT_REGEX, write_set
from mgdm_cli.engine.preparing import pictures
from mgdm_cli.errors import GATE, BadInput, MissingInput, OtherPlan, UsageError
from mgdm_cli.metrics.copies import CopyScorer
from tests.tiny import CPU, tiny_run

GRADES = ("grade0", "grade1", "grade2", "grade3")
REAL = dict(zip(GRADES, (90, 50, 30, 20), strict=True))
MADE = dict.fromkeys(GRADES, 20)
SIZE, SEEN = 32, 96


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("evaluate")
    write_set(root / "real", counts=REAL, size=SIZE, seed=0)
    write_set(root / "drawn", counts=MADE, size=SIZE, seed=5)
    for path in sorted((root / "drawn").rglob("*.png")):
        target = root / "made" / path.parent.name / f"made-{path.name}"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return root


@pytest.fixture(scope="module")
def source(folder: Path) -> Source:
    return Source(folder / "real", patient_regex=PATIENT_REGEX)


@pytest.fixture(scope="module")
def trained(folder: Path, source: Source) -> Path:
    tiny_run(folder / "run", source, seen=32)
    return folder / "run"


@pytest.fixture(scope="module")
def first(folder: Path, source: Source) -> tuple[Result, Path]:
    """The set evaluated once, and the folder of that, which holds the judges; tests that write take a copy."""
    return evaluate.run(source, folder / "made", seen=SEEN, device="cpu"), folder / "made-evaluation"


def test_a_fair_set_is_compared_and_told(folder: Path, source: Source, first: tuple[Result, Path]) -> None:
    found, out = first
    assert found.exit_code == 0
    document = json.loads((out / "evaluation.json").read_text(encoding="utf-8"))
    assert document["classes"]["grade3"] == {"real": 20, "synthetic": 20}
    assert document["kernel"]["lo"] < document["kernel"]["value"] < document["kernel"]["hi"]
    assert document["frechet"]["value"] is None  # 80 images, 128 features
    assert [row["name"] for row in document["labels"]] == ["all classes", *GRADES]
    assert document["copies"]["auditable"]
    assert not document["copies"]["failed"]
    assert set(document["copies"]["parts"]["planted"]) == {"half", "crop"}
    assert [v["line"] for v in document["verdicts"] if v["question"] == "Do they help a classifier?"] == [
        "Not asked here."
    ]
    assert document["leaks"]["auditable"]
    assert not document["leaks"]["failed"]
    assert document["leaks"]["neighbours"]["references"][1] == 40  # a fifth of 190
    assert "--model" in document["leaks"]["reasons"]["membership"]
    assert document["coverage"]["lo"] < document["coverage"]["value"] <= document["coverage"]["hi"]
    assert set(document["vendi"]) == set(document["shares_by_class"]) == set(GRADES)
    assert len(document["feature_space"]["judges_sha256"]) == 2
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.index("In short") < page.index(
        "No evidence of copying" if document["copies"]["powerful"] else "Inconclusive"
    )
    text = json.dumps(document) + page
    assert not any(
        f"/{path.name}" in text or f">{path.name}" in text for path in (folder / "real").rglob("*.png")
    )  # no real file is named


def test_what_was_learnt_is_used_again(
    folder: Path, source: Source, first: tuple[Result, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = shutil.copytree(first[1], tmp_path / "out")
    for name in (".DS_Store", ".judge-1.safetensors.part"):  # of a file manager; of a kill
        (out / name).write_bytes(b"")
    monkeypatch.delattr("mgdm_cli.engine.judging.train_classifier")
    again = evaluate.run(source, folder / "made", out=out, seen=SEEN, device="cpu")
    assert {**again.document, "out": first[1]} == first[0].document
    assert (out / "report.html").read_bytes() == (first[1] / "report.html").read_bytes()


def test_copied_images_fail_the_gate_and_real_ones_can_be_hidden(
    folder: Path, source: Source, first: tuple[Result, Path]
) -> None:
    shutil.copytree(folder / "made", folder / "stolen")
    for path in sorted((folder / "real" / "grade0").iterdir())[:30]:
        shutil.copy(path, folder / "stolen" / "grade0" / f"zz-{path.name}")
    out = folder / "hidden"
    out.mkdir()
    for name in ("judge-1.safetensors", "judge-2.safetensors"):
        shutil.copy(first[1] / name, out / name)
    found = evaluate.run(source, folder / "stolen", out=out, seen=SEEN, device="cpu", real_images=False)
    assert found.exit_code == GATE
    assert found.document["copies"]["failed"]
    assert found.document["copies"]["flagged"] >= 15  # of 30 copies, those that are not held out
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "near copies of training images" in page
    assert 'alt="nearest training image"' not in page


def test_a_test_folder_an_encoder_and_the_model_tell_more(
    folder: Path, source: Source, first: tuple[Result, Path], trained: Path, tmp_path: Path
) -> None:
    """How good the judges are; distances by a net of one's own in place of the first judge; whom the model knows."""
    write_set(folder / "test", counts=dict.fromkeys(GRADES, 6), size=SIZE, seed=8)
    for path in sorted((folder / "test").rglob("*.png")):
        path.rename(path.with_name(path.name.replace("P", "P9")))  # other patients
    judge = first[1] / "judge-2.safetensors"
    found = evaluate.run(
        source, folder / "made", out=shutil.copytree(first[1], tmp_path / "out"), test=folder / "test", seen=SEEN,
        device="cpu", encoder=judge, model=trained,
    )  # fmt: skip
    space = found.document["feature_space"]
    assert space["what"] == "judge-2.safetensors, an encoder of yours (classifier)"
    assert space["sha256"] == sha256_file(judge)
    assert found.document["judges_on_test"]["images"] == 24
    assert 0 <= found.document["judges_on_test"]["balanced_accuracy"] <= 1
    asked = found.document["leaks"]["membership"]
    assert asked["lo"] < 0.5 < asked["hi"]
    assert list(asked["n"]) == [150, 40]
    assert "99 are needed" in asked["reason"]
    assert 0 < asked["blind"] < 1


def test_an_unfinished_model_is_refused_before_anything_is_trained(
    folder: Path, source: Source, tmp_path: Path
) -> None:
    tiny_run(tmp_path / "half", source, trained=False)
    for model, kind, said in (("half", UsageError, "training has not finished"), ("none", MissingInput, "no settings")):
        with pytest.raises(kind, match=said):
            evaluate.run(source, folder / "made", out=tmp_path / "out", seen=SEEN, device="cpu", model=tmp_path / model)
    assert not (tmp_path / "out").exists()


def test_a_student_is_not_asked_at_levels_that_it_never_learnt(folder: Path, source: Source, trained: Path) -> None:
    distill.run(source, trained, out=folder / "student", method="paths", seen=64, device="cpu")
    prepared = prepare(source, seed=0)
    train = pictures(prepared, prepared.splits.train, CPU)
    made = train.array()[:2]
    scorer = CopyScorer(made)
    found = leaking.look(
        prepared, train, made, scorer, scorer.score(made), plan=None, model=folder / "student", device=CPU, seed=0
    )
    assert found.membership is None
    assert "student" in dict(found.reasons)["membership"]


def test_the_run_that_made_the_set_is_found_in_the_cache(
    folder: Path, source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside another of the same set, and where it started from a base that was asked for; of one image too."""
    monkeypatch.setenv("MGDM_CACHE", str(tmp_path / "cache"))
    usual = Training().folder(prepare(source, seed=0))
    asked = Training(base="none").folder(prepare(source, seed=0))
    tiny_run(usual, source, seen=32)
    tiny_run(asked, source, seen=64)
    sample.run(asked, labels="grade0=1", out=tmp_path / "made", steps=3, device="cpu")
    found = evaluate.run(source, tmp_path / "made", seen=32, device="cpu").document["leaks"]
    assert found["membership"] is not None
    assert "membership" not in found["reasons"]


def test_nothing_is_said_of_a_set_learnt_from_everything(folder: Path, source: Source) -> None:
    """Without a holdout there is no audit, and the page says so first."""
    prepared = prepare(source, seed=0)
    train = pictures(prepared, prepared.splits.train, CPU)
    bare = replace(prepared, splits=replace(prepared.splits, holdout=()))
    real = train.x0.numpy()
    scorer = CopyScorer(real)
    scores = scorer.score(real[:2])
    found = leaking.look(bare, train, real[:2], scorer, scores, plan=None, model=None, device=CPU, seed=0)
    assert "no images are held out" in found.unaudited
    assert not found.failed


def test_authenticity_takes_held_out_images_from_all_over(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are more of them than it looks at: the first ones here are training images, at distance 0."""
    monkeypatch.setattr(leaking, "MOST", 10)
    prepared = prepare(source, seed=0)
    train = pictures(prepared, prepared.splits.train, CPU)
    first = (*prepared.splits.train[:10], *prepared.splits.holdout)
    odd = replace(prepared, splits=replace(prepared.splits, holdout=first))
    scorer = CopyScorer(train.x0.numpy())
    made = pictures(prepared, prepared.splits.holdout, CPU).x0.numpy()
    found = leaking.look(odd, train, made, scorer, scorer.score(made), plan=None, model=None, device=CPU, seed=0)
    assert found.authenticity is not None
    assert found.authenticity.n == (10, 10)
    assert found.authenticity.ratio_holdout > 0.1


def test_other_classes_are_refused(folder: Path, source: Source) -> None:
    (folder / "strange" / "healthy").mkdir(parents=True)
    shutil.copy(next((folder / "made" / "grade0").iterdir()), folder / "strange" / "healthy")
    with pytest.raises(BadInput, match="class healthy"):
        evaluate.run(source, folder / "strange", seen=SEEN, device="cpu")


def test_a_folder_of_something_else_is_not_touched(folder: Path, source: Source) -> None:
    other = folder / "thesis"
    other.mkdir()
    (other / "chapter1.txt").write_text("mine")
    with pytest.raises(OtherPlan, match="thesis"):
        evaluate.run(source, folder / "made", out=other, seen=SEEN, device="cpu")
    assert [path.name for path in other.iterdir()] == ["chapter1.txt"]
