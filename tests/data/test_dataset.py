"""A data set killed, damaged and continued in every way ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mgdm_cli.data.dataset import Dataset, picture_path, reserve, stored_plan
from mgdm_cli.data.manifest import InputRow, load, load_rejected
from mgdm_cli.errors import BadInput, FolderInUse, OtherPlan
from tests.data import maker

HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", maker.no_fsync)
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("whole") / "out"
    maker.make(root, maker.make_plan())
    return root


def harness(mode: str, tmp_path: Path, stride: int) -> dict[str, Any]:
    """What maker.py prints."""
    environment = os.environ | {"PYTHONPATH": str(HERE.parents[1]), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, str(HERE / "maker.py"), mode, str(tmp_path), "1", str(stride)]
    done = subprocess.run(words, env=environment, capture_output=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_killed_at_its_calls_it_continues_to_the_same_bytes(tmp_path: Path) -> None:
    """SIGKILL inside open, write (torn in half), fsync, rename, ...: nothing torn is ever visible, the end is equal."""
    found = harness("points", tmp_path, 5)
    assert found["tried"] >= 40
    assert (found["unequal"], found["unsound"]) == (0, 0)


def test_killed_at_random_moments_it_continues_to_the_same_bytes(tmp_path: Path) -> None:
    found = harness("moments", tmp_path, 1)
    assert found["tried"] == 12
    assert (found["unequal"], found["unsound"]) == (0, 0)


def test_a_full_or_broken_disk_ends_with_74_and_the_same_bytes_later(tmp_path: Path) -> None:
    found = harness("errors", tmp_path, 5)
    assert found["tried"] >= 30
    assert (found["unequal"], found["unsound"], found["wrong_code"]) == (0, 0, 0)


def test_the_harness_catches_files_written_in_place(tmp_path: Path) -> None:
    found = harness("careless", tmp_path, 3)
    assert found["unsound"] >= 2


def test_the_journal_line_comes_after_the_files(tmp_path: Path) -> None:
    """And after the fsync of their folders: a line must never outlive a file in a power cut."""
    plan = maker.make_plan(20)
    log: list[str] = []

    def before(name: str, original: object, arguments: tuple[object, ...]) -> None:
        log.append(name)

    with Dataset.open(tmp_path / "out", plan) as dataset, maker.intercepted(before):
        maker.fill(dataset, 1)
    line = log.index("pwrite")
    assert "replace" in log[:line]
    assert "replace" not in log[line:]
    assert "fsync" in log[len(log) - 1 - log[::-1].index("replace") : line]
    assert log.count("pwrite") == 1  # one block, one line
    assert "fsync" in log[line:]


def test_the_result_is_what_the_plan_says(whole: Path) -> None:
    plan = maker.make_plan()
    entries = load(whole)
    assert [entry.index for entry in entries] == list(range(60))
    assert {c: sum(e.label == c for e in entries) for c in plan.classes} == plan.quotas
    assert {e.path for e in entries} == {p.relative_to(whole).as_posix() for p in whole.glob("images/*/*.png")}
    assert load_rejected(whole)
    assert stored_plan(whole) == plan


@pytest.mark.parametrize("stop", [0, 1, 3, 7])
def test_stopped_and_continued_it_is_equal(whole: Path, tmp_path: Path, stop: int) -> None:
    root = tmp_path / "out"
    for _ in range(2):
        with Dataset.open(root, maker.make_plan(), inputs=maker.INPUTS) as dataset:
            assert not dataset.done
            maker.fill(dataset, stop)
            with pytest.raises(ValueError, match="still need"):
                dataset.finish()
    maker.make(root, maker.make_plan())
    assert maker.tree(root) == maker.tree(whole)


def test_a_finished_set_is_not_made_again(whole: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*") if path.is_file()}
    assert maker.make(whole, maker.make_plan()) == 0
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "picture"])
def test_a_damaged_file_is_made_again(tmp_path: Path, damage: str) -> None:
    root, plan = tmp_path / "out", maker.make_plan(20)
    maker.make(root, plan)
    wanted = maker.tree(root)
    path = root / load(root)[5].path if damage != "picture" else next((root / ".mgdm/pictures").glob("*/*"))
    data = path.read_bytes()
    if damage == "remove":
        path.unlink()
    else:
        path.write_bytes(data[:-1] if damage == "cut" else data[:-1] + bytes([data[-1] ^ 1]))
    with Dataset.open(root, plan, inputs=maker.INPUTS) as dataset:
        assert not dataset.done  # the marker must not outlive what it vouches for
        assert dataset.unproven >= 1
    assert maker.make(root, plan) >= 1
    assert maker.tree(root) == wanted


def test_a_paper_that_was_changed_is_written_again(tmp_path: Path) -> None:
    root, plan = tmp_path / "out", maker.make_plan(20)
    maker.make(root, plan)
    wanted = maker.tree(root)
    (root / "manifest.jsonl").write_bytes(b"")
    assert maker.make(root, plan) == 0
    assert maker.tree(root) == wanted


def test_a_cut_journal_loses_only_its_tail(tmp_path: Path) -> None:
    root, plan = tmp_path / "out", maker.make_plan(40)
    maker.make(root, plan)
    wanted, journal = maker.tree(root), root / ".mgdm/journal"
    data = journal.read_bytes()
    journal.write_bytes(data[: len(data) // 2])
    lost = data.count(b"\n") - data[: len(data) // 2].count(b"\n")
    assert maker.make(root, plan) == lost
    assert maker.tree(root) == wanted


def test_images_that_no_line_vouches_for_are_swept(tmp_path: Path) -> None:
    root, plan = tmp_path / "out", maker.make_plan(20)
    with Dataset.open(root, plan, inputs=maker.INPUTS) as dataset:
        maker.fill(dataset)
        label = dataset.entries()[0].label
        orphan = root / "images" / label / f"{label}-999999.png"
        orphan.write_bytes(b"left by a killed run")
        dataset.finish()
        assert not orphan.exists()


def test_another_plan_or_a_strange_folder_is_not_touched(tmp_path: Path) -> None:
    root = tmp_path / "out"
    maker.make(root, maker.make_plan(20))
    before = maker.tree(root)
    with pytest.raises(OtherPlan, match="seed") as caught:
        Dataset.open(root, maker.make_plan(20, seed=8))
    assert caught.value.exit_code == 78
    assert maker.tree(root) == before
    strange = tmp_path / "strange"
    strange.mkdir()
    (strange / "thesis.doc").write_text("mine")
    for attempt in (lambda: Dataset.open(strange, maker.make_plan()), lambda: reserve(strange)):
        with pytest.raises(OtherPlan):
            attempt()
    (strange / "plan.json").write_text("{}")
    with pytest.raises(OtherPlan):
        reserve(strange)
    assert sorted(path.name for path in strange.iterdir()) == ["plan.json", "thesis.doc"]
    with pytest.raises(OtherPlan):
        stored_plan(strange / "thesis.doc")


def test_a_file_managers_hidden_files_leave_a_folder_empty(tmp_path: Path) -> None:
    (tmp_path / ".DS_Store").write_bytes(b"Bud1")
    assert stored_plan(tmp_path) is None


def test_one_folder_has_one_writer(tmp_path: Path) -> None:
    root, plan = tmp_path / "out", maker.make_plan(20)
    with Dataset.open(root, plan, inputs=maker.INPUTS):
        with pytest.raises(FolderInUse):
            Dataset.open(root, plan, inputs=maker.INPUTS)
        with pytest.raises(FolderInUse):
            reserve(root)
    lock = reserve(root)
    Dataset.open(root, plan, inputs=maker.INPUTS, lock=lock).close()
    Dataset.open(root, plan, inputs=maker.INPUTS).close()


def test_another_shard_does_not_continue_this_one(tmp_path: Path) -> None:
    plan = maker.make_plan(20)
    Dataset.open(tmp_path / "out", plan, shard=(1, 2)).close()
    with pytest.raises(OtherPlan, match="shard"):
        Dataset.open(tmp_path / "out", plan, shard=(2, 2))


def test_lots_that_run_dry_are_short_and_said_so(tmp_path: Path) -> None:
    plan = maker.make_plan(24, max_attempts=1)
    with Dataset.open(tmp_path / "out", plan, inputs=maker.INPUTS) as dataset:
        maker.fill(dataset)
        dataset.finish()
        short = dataset.short()
        assert sum(short.values()) == 24 - len(dataset.entries())
        assert short
        for lot in dataset.lots:
            firsts = [e.index for e in dataset.entries() if lot.first <= e.index < lot.first + lot.quota]
            assert firsts == list(range(lot.first, lot.first + len(firsts)))  # ranks count up, gaps lie between lots


def test_commit_refuses_what_would_break_the_promise(tmp_path: Path) -> None:
    plan = maker.make_plan(20)
    with Dataset.open(tmp_path / "out", plan) as dataset:
        lot = dataset.lots[0]
        files, accepted, rejected = maker.block(plan, lot, 0, 0)
        first, path = accepted[0], accepted[0].path

        def refuses(match: str, attempt: int = 0, **changes: Any) -> None:
            given = {"files": files, "accepted": accepted, "rejected": rejected} | changes
            with pytest.raises(ValueError, match=match):
                dataset.commit(lot, attempt, **given)

        refuses("not the one to make next", attempt=1)
        refuses("does not describe", files=files | {path: b"other"})
        refuses("must be", accepted=[first.model_copy(update={"path": "images/x/y.png"}), *accepted[1:]])
        refuses("another block", accepted=[first.model_copy(update={"block": "0.1"}), *accepted[1:]])
        refuses("files must be", files=files | {"images/other.png": b""})
        refuses("files must be", files=files | {".mgdm/pictures/../../up": b""})
        refuses("wants", accepted=accepted * 5)
        assert not (tmp_path / "out/images").exists()
        dataset.commit(lot, 0, files=files, accepted=accepted, rejected=rejected)
        refuses("not the one to make next")


def test_nothing_of_this_machine_or_moment_is_in_the_files(whole: Path) -> None:
    for path in whole.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            for word in (os.uname().nodename, str(whole), str(Path.home())):
                assert len(word) < 6 or word.encode() not in data, path


def test_names_that_no_table_can_hold_are_refused_at_the_start(tmp_path: Path) -> None:
    for name in ("a\nb.png", "\udce9.png", "a\x7f.png"):
        with pytest.raises(BadInput):
            Dataset.open(tmp_path / "out", maker.make_plan(), inputs=[InputRow(path=name, label="adipose")])
    assert not (tmp_path / "out").exists()


def test_pictures_have_their_own_place() -> None:
    lot = maker.make_plan().lots[1]
    assert picture_path(lot, 2, "before.png") == ".mgdm/pictures/00001-002/before.png"
