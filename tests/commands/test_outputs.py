"""Where outputs may lie, and what a command that failed leaves: nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from mgdm_cli.app import main
from mgdm_cli.commands.reading import Source, beside
from tests.tiny import one_thread, tiny_set

__all__ = ["one_thread"]


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
