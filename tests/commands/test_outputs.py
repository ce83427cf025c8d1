"""Where outputs may lie, and what a command that failed leaves: nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from mgdm_cli.app import main
from mgdm_cli.commands.reading import Source, beside
from mgdm_cli.data.phantom_set import write_set
from mgdm_cli.engine.sizing import Pace
from tests.tiny import COUNTS, tiny_set


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    return tiny_set(tmp_path_factory.mktemp("ground") / "set")


def names(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*"))


@pytest.mark.parametrize("verb", ["train", "augment", "evaluate", "distill"])
def test_no_output_lies_in_the_input(verb: str, source: Source, capfd: pytest.CaptureFixture[str]) -> None:
    before, data = names(source.data.parent), str(source.data)
    beside = str(source.data.parent / "made")
    words = {
        "train": ["train", "--data", data, "--seen", "9"],
        "augment": ["augment", "--data", data, "--n", "4"],
        "evaluate": ["evaluate", "--real", data, "--synthetic", beside],
        "distill": ["distill", beside, "--data", data, "--seen", "9"],
    }[verb]
    for out in (source.data, source.data / "grade0/run", source.data.parent / "other/../set/run"):
        assert main([*words, "-o", str(out)]) == 2
        assert "lies in the input folder set" in capfd.readouterr().err
    assert names(source.data.parent) == before


def test_the_default_output_lies_beside_the_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "eyes/deep").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "eyes/deep")
    assert beside(Path("../../eyes"), "-synthetic") == Path("../../eyes-synthetic")
    assert beside(Path(), "-synthetic") == tmp_path / "eyes/deep-synthetic"
    assert beside(Path(".."), "-synthetic") == tmp_path / "eyes-synthetic"


def test_the_pages_of_evaluate_lie_in_no_folder_of_images(source: Source, tmp_path: Path) -> None:
    (tmp_path / "made/images/a").mkdir(parents=True)
    words = ["evaluate", "--real", str(source.data), "--synthetic", str(tmp_path / "made")]
    assert main([*words, "-o", str(tmp_path / "made/images/page")]) == 2
    assert main([*words, "--test", str(tmp_path), "-o", str(tmp_path / "page")]) == 2


def test_what_failed_leaves_nothing(
    source: Source,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    new = tmp_path_factory.mktemp("test")
    write_set(new, counts=dict.fromkeys(COUNTS, 2), size=32, form="png8", seed=9)
    monkeypatch.setenv("MGDM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("mgdm_cli.engine.sizing.measure", lambda *_: Pace(10.0, 100.0))
    data = ["--data", str(source.data), "--base", "none"]
    assert main(["train", *data, "-o", str(tmp_path / "runs/r"), "--budget", "1s"]) == 4
    assert "too short" in capfd.readouterr().err
    assert main(["augment", *data, "--n", "4", "-o", str(tmp_path / "deep/out"), "--budget", "1s"]) == 4
    assert main(["augment", *data, "--n", "4", "-o", str(tmp_path / "out")]) == 4
    words = [
        "evaluate",
        "--real",
        str(source.data),
        "--synthetic",
        str(source.data),
        "--arms",
        "gen",
        "--test",
        str(new),
    ]
    assert main([*words, "-o", str(tmp_path / "page")]) == 4
    assert names(tmp_path) == []


def test_a_report_goes_into_a_folder_that_is_there(
    source: Source, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["inspect", "--data", str(source.data), "--quick", "--report"]
    assert main([*words, str(tmp_path / "nowhere/x.json")]) == 2
    assert "nowhere: no such folder" in capfd.readouterr().err
    assert names(tmp_path) == []
    assert main([*words, str(tmp_path / "x.json")]) == 0


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ((), "colour-64"),
        (("--width", "32"), "scratch (no base fits: width 32)"),
        (("--base", "none"), "scratch"),
        (("--process", "flow"), "process flow)"),
    ],
    ids=["base", "width", "none", "process"],
)
def test_a_training_says_what_it_starts_from_and_why(
    flags: tuple[str, ...],
    told: str,
    source: Source,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mgdm_cli.engine.sizing.measure", lambda *_: Pace(10.0, 100.0))
    monkeypatch.setattr("mgdm_cli.engine.pretraining.pretrain", stopped)
    assert main(["train", "--data", str(source.data), "-o", str(tmp_path / "run"), "--seen", "64", *flags]) == 130
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("training from ")]
    assert [f"{told}: 64 images seen" in line for line in lines] == [True]
