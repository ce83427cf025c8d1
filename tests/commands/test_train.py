"""`mgdm train` on a run that was begun: it keeps its settings, and says so."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mgdm_cli.commands import train
from mgdm_cli.commands.reading import Source
from mgdm_cli.engine.run import read_settings
from mgdm_cli.errors import OtherPlan
from tests.tiny import tiny_run


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"seen": 64}, "--seen 96"),
        ({"width": 16}, "--width 8"),
        ({"base": "eyes"}, "--base none"),
        ({"flip": True}, "no --flip"),
        ({"process": "vp"}, "--process edm"),
    ],
)
def test_a_flag_that_differs_from_the_run_is_refused(
    ground: tuple[Source, Path], more: dict[str, object], told: str, dry_run: bool
) -> None:
    with pytest.raises(OtherPlan, match=told):
        train.run(ground[0], out=ground[1], device="cpu", dry_run=dry_run, **more)  # type: ignore[arg-type]


def test_the_same_command_again_is_no_other(ground: tuple[Source, Path], tmp_path: Path) -> None:
    run = shutil.copytree(ground[1], tmp_path / "run")
    again = train.run(ground[0], out=run, device="cpu", budget="1h", seen=96, width=8, base="none", process="edm")
    assert again.document["seen"] == 96


def test_a_dry_run_tells_of_the_run_that_was_begun(
    ground: tuple[Source, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = list[int]()
    tiny_run(tmp_path / "begun", ground[0], trained=False, seen=80_000)
    before = sorted(path.name for path in (tmp_path / "begun").iterdir())
    with monkeypatch.context() as patch:
        patch.setattr("torch.get_num_threads", lambda: 9)  # here now, not where the run was begun
        patch.setattr("torch.set_num_threads", lambda threads: used.append(threads))
        told = train.run(ground[0], out=tmp_path / "begun", device="cpu", dry_run=True).document
    assert read_settings(tmp_path / "begun").threads in used  # at its pace, as it will go on
    assert told["seen"] == 80_000
    assert told["seconds"] > 0
    assert sorted(path.name for path in (tmp_path / "begun").iterdir()) == before
    trained = train.run(ground[0], out=ground[1], device="cpu", dry_run=True).document
    assert (trained["seen"], trained["seconds"]) == (96, 0)
