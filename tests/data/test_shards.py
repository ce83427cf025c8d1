"""Shards joined are one run; what does not belong together is refused."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mgdm_cli.data.dataset import Dataset
from mgdm_cli.data.manifest import InputRow
from mgdm_cli.data.shards import gather, merge
from mgdm_cli.errors import BadInput, MgdmError, MissingInput, OtherPlan, UsageError
from tests.data import maker


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", maker.no_fsync)
        yield


def shards(base: Path, count: int, **settings: int) -> list[Path]:
    roots = [base / f"part{k}" for k in range(1, count + 1)]
    for k, root in enumerate(roots, 1):
        maker.make(root, maker.make_plan(**settings), (k, count))
    return roots


@pytest.mark.parametrize("n", [1, 2, 3])
def test_shards_joined_are_one_run(tmp_path: Path, n: int) -> None:
    maker.make(tmp_path / "whole", maker.make_plan(30))
    roots = shards(tmp_path, n, n=30)
    made = [entry for block in merge(gather(roots[::-1]), tmp_path / "joined") for entry in block.accepted]
    assert len(made) == 30
    assert maker.tree(tmp_path / "joined") == maker.tree(tmp_path / "whole")
    journals = [(tmp_path / name / ".mgdm/journal").read_bytes() for name in ("joined", "whole")]
    assert journals[0] == journals[1]


def test_shards_that_ran_short_join_to_the_same_shortage(tmp_path: Path) -> None:
    maker.make(tmp_path / "whole", maker.make_plan(30, max_attempts=1))
    list(merge(gather(shards(tmp_path, 2, n=30, max_attempts=1)), tmp_path / "joined"))
    assert maker.tree(tmp_path / "joined") == maker.tree(tmp_path / "whole")


def test_an_interrupted_merge_continues(tmp_path: Path) -> None:
    maker.make(tmp_path / "whole", maker.make_plan(30))
    found = gather(shards(tmp_path, 2, n=30))
    steps = merge(found, tmp_path / "joined")
    next(steps)
    next(steps)
    steps.close()  # type: ignore[attr-defined]
    list(merge(found, tmp_path / "joined"))
    assert maker.tree(tmp_path / "joined") == maker.tree(tmp_path / "whole")


def test_what_does_not_belong_together_is_refused(tmp_path: Path) -> None:
    one, two = shards(tmp_path, 2, n=20)
    maker.make(tmp_path / "seed", maker.make_plan(20, seed=9), (2, 2))
    maker.make(tmp_path / "third", maker.make_plan(20), (2, 3))
    with Dataset.open(tmp_path / "open", maker.make_plan(20), inputs=maker.INPUTS, shard=(2, 2)):
        pass
    with Dataset.open(
        tmp_path / "real", maker.make_plan(20), inputs=[InputRow(path="x", label="b-2")], shard=(2, 2)
    ) as s:
        maker.fill(s)
        s.finish()
    cases: list[tuple[list[Path], type[MgdmError], str]] = [
        ([one], MissingInput, "2/2"),
        ([one, tmp_path / "none"], MissingInput, "none"),
        ([one, one, two], UsageError, "twice"),
        ([], UsageError, "nothing"),
        ([one, tmp_path / "seed"], OtherPlan, "seed"),
        ([one, tmp_path / "third"], OtherPlan, "shards of"),
        ([one, tmp_path / "real"], OtherPlan, "differ"),
        ([one, tmp_path / "open"], BadInput, "not finished"),
    ]
    for roots, error, match in cases:
        with pytest.raises(error, match=match):
            gather(roots)
    with pytest.raises(UsageError, match="target"):
        list(merge(gather([one, two]), two))


@pytest.mark.parametrize("damage", ["flip", "remove", "journal", "done"])
def test_a_damaged_shard_is_found(tmp_path: Path, damage: str) -> None:
    one, two = shards(tmp_path, 2, n=20)
    path = next((two / "images").glob("*/*.png"))
    match damage:
        case "flip":
            path.write_bytes(path.read_bytes()[:-1] + b"?")
        case "remove":
            path.unlink()
        case "journal":
            (two / ".mgdm/journal").write_bytes(b"")
        case _:
            (two / ".mgdm/done").write_bytes(b"[]")
    with pytest.raises(BadInput, match="part2"):
        list(merge(gather([one, two]), tmp_path / "joined"))
    assert not (tmp_path / "joined/.mgdm/done").exists()


def test_a_shard_alone_has_no_papers(tmp_path: Path) -> None:
    one, _ = shards(tmp_path, 2, n=20)
    assert {path.name for path in one.iterdir() if path.is_file()} == {"plan.json", "manifest.jsonl", "rejected.jsonl"}
