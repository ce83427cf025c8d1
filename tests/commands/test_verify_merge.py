"""`mgdm verify` and `mgdm merge` as a person types them: exit codes, lines, one JSON document."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from mgdm_cli import app
from mgdm_cli.commands import verify
from mgdm_cli.data.checking import open_plan
from mgdm_cli.data.manifest import Entry, load
from mgdm_cli.data.plan import Plan
from mgdm_cli.errors import UsageError
from tests.data import maker


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", maker.no_fsync)


def typed(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, dict[str, Any]]:
    code = app.main([*map(str, words), "--json"])
    return code, json.loads(capsys.readouterr().out)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    maker.make(tmp_path / "out", maker.make_plan(20))
    return tmp_path / "out"


def test_verify_of_a_whole_set_is_0(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, document = typed(capsys, "verify", out)
    assert code == document["exit_code"] == 0
    assert document["ok"] is True
    assert document["images"] == 20
    assert document["classes"]["b-10"] == {"planned": 14, "made": 14}
    assert app.main(["verify", str(out)]) == 0
    assert "20 images checked: every file" in capsys.readouterr().out


def test_a_folder_that_was_passed_on_is_not_said_to_be_whole(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without .mgdm nothing tells whether papers and rows are those that were written."""
    assert typed(capsys, "verify", out)[1]["papers_checked"] is True
    shutil.rmtree(out / ".mgdm")
    code, document = typed(capsys, "verify", out)
    assert (code, document["papers_checked"]) == (0, False)
    assert app.main(["verify", str(out)]) == 0
    said = capsys.readouterr().out
    assert "as it was written" not in said
    assert "whether that is whole, nothing here tells" in said


def test_verify_finds_a_flipped_bit(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = out / load(out)[7].path
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)
    code, document = typed(capsys, "verify", out)
    assert code == 65
    assert document["problems"] == [{"path": load(out)[7].path, "what": "was changed after it was written"}]
    assert app.main(["verify", str(out), "-q"]) == 65
    assert load(out)[7].path in capsys.readouterr().out


def test_verify_of_something_else_is_66(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, document = typed(capsys, "verify", tmp_path)
    assert code == document["exit_code"] == 66


@pytest.mark.parametrize("flag", ["--model", "--data"])
def test_what_is_only_read_to_make_images_again_is_refused_without(
    out: Path, capsys: pytest.CaptureFixture[str], flag: str
) -> None:
    code, document = typed(capsys, "verify", out, flag, out)
    assert code == 2
    assert flag in document["error"]
    assert "--regenerate" in document["error"]


def test_a_long_list_is_cut_for_people_only(out: Path) -> None:
    for path in (out / "images").rglob("*.png"):
        path.write_bytes(b"x" * 10)
    found = verify.run(out)
    assert len(found.document["problems"]) > verify.SHOWN
    assert len(found.lines) <= verify.SHOWN + 5


def test_images_made_again_must_be_equal(out: Path) -> None:
    def remake(root: Path, plan: Plan, entries: Sequence[Entry]) -> Iterator[tuple[Entry, bytes]]:
        for entry in entries:
            yield entry, maker.png(entry.seed + wrong)

    wrong = 0
    assert verify.run(out, regenerate=5, remake=remake).document["made_again"] == 5
    assert verify.run(out, regenerate=5, remake=remake).exit_code == 0
    wrong = 1
    found = verify.run(out, regenerate=5, remake=remake)
    assert found.exit_code == 65
    assert len(found.document["problems"]) == 5
    assert all("by other means than made it (there cpu, AVX2" in row["what"] for row in found.document["problems"])
    assert any("made by other means" in note for note in found.document["notes"])
    with pytest.raises(UsageError):
        verify.run(out, regenerate=5)


def test_other_libraries_are_told(out: Path) -> None:
    plan = open_plan(out)
    older = plan.model_copy(update={"versions": {"torch": "1.0", "numpy": version("numpy")}})
    assert f"there torch 1.0; here {version('torch')}" in verify.elsewhere(older)
    assert "numpy" not in verify.elsewhere(older)


def test_two_shards_merged_are_one_run(out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts = [tmp_path / "part1", tmp_path / "part2"]
    for k, part in enumerate(parts, 1):
        maker.make(part, maker.make_plan(20), (k, 2))
    code, document = typed(capsys, "merge", *parts, "-o", tmp_path / "joined")
    assert (code, document["images"], document["short"]) == (0, 20, {})
    told = {"run.json", "report.html", "config.resolved.toml"}  # of the run, not of the data set
    joined = {name: digest for name, digest in maker.tree(tmp_path / "joined").items() if name not in told}
    assert joined == maker.tree(out)
    assert typed(capsys, "verify", tmp_path / "joined")[0] == 0
    assert typed(capsys, "merge", *parts, "-o", tmp_path / "joined")[0] == 0
    assert typed(capsys, "verify", tmp_path / "joined")[0] == 0, "the page was drawn again, and recorded again"
    page = tmp_path / "joined/report.html"
    page.write_bytes(page.read_bytes().replace(b"planned", b"blessed"))
    code, document = typed(capsys, "verify", tmp_path / "joined")
    assert (code, document["problems"]) == (65, [{"path": "report.html", "what": "was changed after it was written"}])
    assert typed(capsys, "merge", parts[0], "-o", tmp_path / "half")[0] == 66
    assert typed(capsys, "merge", *parts)[0] == 2
    assert not (tmp_path / "half").exists()


def test_a_merge_that_falls_short_is_5(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    maker.make(tmp_path / "part", maker.make_plan(30, max_attempts=1))
    code, document = typed(capsys, "merge", tmp_path / "part", "-o", tmp_path / "joined")
    assert code == document["exit_code"] == 5
    assert sum(document["short"].values()) == 30 - document["images"] > 0
