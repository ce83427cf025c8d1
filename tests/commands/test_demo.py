"""`mgdm demo`: how its parts are joined. The pipeline itself is tested where it lives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mgdm_cli.commands import demo, modelling
from mgdm_cli.commands.modelling import Length
from mgdm_cli.console import Result
from mgdm_cli.data import phantom_set
from mgdm_cli.data.phantom import GRADES, draw
from mgdm_cli.data.phantom_verdict import agreement
from mgdm_cli.engine.run import write_settings
from mgdm_cli.errors import OtherPlan
from tests.tiny import COUNTS

SMALL = {"grade0": 4, "grade1": 2, "grade2": 2, "grade3": 2}


@pytest.fixture(autouse=True)
def _small_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phantom_set, "DEFAULT_COUNTS", SMALL)


@pytest.fixture
def guide_skill() -> list[float]:
    """Balanced accuracy of the guide that the stand-in for `train` reports, with its interval; chance is 0.25."""
    return [0.8, 0.7, 0.9]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, guide_skill: list[float]) -> list[tuple[str, dict[str, Any]]]:
    """What `demo` asks of `train` and `augment`; the stand-in for `augment` writes phantoms, one under a wrong label."""
    from mgdm_cli.commands import augment, train

    made: list[tuple[str, dict[str, Any]]] = []

    def trained(source: Any, **asked: Any) -> Result:
        made.append(("train", {"source": source, **asked}))
        return Result({"classes": list(GRADES), "accuracy": {"guide": guide_skill}})

    def augmented(source: Any, wanted: Any, **asked: Any) -> Result:
        made.append(("augment", {"source": source, "wanted": wanted, **asked}))
        root = phantom_set.write_set(asked["out"] / "images", counts=SMALL, seed=9)
        first = next((root / "grade3").iterdir())
        first.rename(root / "grade1" / first.name)
        return Result({"images": 10}, ("grade0: 4", str(asked["out"] / "report.html")))

    monkeypatch.setattr(train, "run", trained)
    monkeypatch.setattr(augment, "run", augmented)
    return made


def test_draws_trains_augments_and_judges(tmp_path: Path, calls: list[tuple[str, dict[str, Any]]]) -> None:
    result = demo.run(out=tmp_path, n=10, budget="20s", seed=4)
    (first, train), (second, augment) = calls
    assert (first, second) == ("train", "augment")
    assert train["source"] == augment["source"]
    assert train["source"].data == tmp_path / "phantoms"
    assert (train["budget"], train["seed"], augment["seed"]) == ("20s", 4, 4)
    assert train["seen"] is None
    assert train["out"] == augment["model"] == tmp_path / "model"
    assert augment["wanted"].n == 10
    assert sum(1 for _ in (tmp_path / "phantoms").rglob("*.png")) == 10
    oracle = result.document["oracle"]
    assert (oracle["images"], oracle["right"]) == (10, 9)
    assert oracle["asked"]["grade1"] == {"grade0": 0, "grade1": 2, "grade2": 0, "grade3": 1, "unreadable": 0}
    assert "9 of 10" in str(result.lines[-2])
    assert str(result.lines[-1]).endswith("report.html")


@pytest.mark.parametrize(("guide_skill", "guidance"), [([0.8, 0.7, 0.9], "uncertainty"), ([0.26, 0.2, 0.3], "cfg")])
def test_a_guide_no_better_than_chance_does_not_guide(
    tmp_path: Path, calls: list[tuple[str, dict[str, Any]]], guidance: str
) -> None:
    demo.run(out=tmp_path, n=10, seen=100)
    assert calls[1][1]["wanted"].guidance == guidance


def test_only_data_stops_there(tmp_path: Path, calls: list[tuple[str, dict[str, Any]]]) -> None:
    demo.run(out=tmp_path, form="nifti", only_data=True)
    assert not calls
    assert sum(1 for _ in (tmp_path / "phantoms").rglob("*.nii.gz")) == 10


def test_dry_run_tells_of_the_demos_own_net_and_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phantom_set, "DEFAULT_COUNTS", COUNTS)
    asked: list[Length] = []
    measure = modelling.measured

    def heard(prepared: Any, length: Length, *rest: Any, **more: Any) -> Any:
        asked.append(length)
        return measure(prepared, length, *rest, **more)

    monkeypatch.setattr(modelling, "measured", heard)
    found = demo.run(out=tmp_path / "demo", n=8, seen=64, device="cpu", dry_run=True)
    assert [(length.width, length.seen) for length in asked] == [(demo.WIDTH, 64)]
    assert found.document["dry_run"] is True
    assert found.document["seconds"]["training"] > 0
    assert list(tmp_path.iterdir()) == []


def test_dry_run_of_a_demo_that_was_begun_refuses_another_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(phantom_set, "DEFAULT_COUNTS", COUNTS)
    out = tmp_path / "demo"
    source = demo._drawn(out / "phantoms", "png8", 0)
    length = Length(None, 64, demo.WIDTH)
    settings, _ = modelling.measured(modelling.prepare(source, seed=0), length, torch.device("cpu"), seed=0, flip=False)
    (out / "model").mkdir()
    write_settings(out / "model", settings)
    told = demo.run(out=out, n=8, device="cpu", dry_run=True).document
    assert told["seconds"]["training"] > 0
    with pytest.raises(OtherPlan, match="--seen 64"):
        demo.run(out=out, n=8, seen=65, device="cpu", dry_run=True)


def test_agreement_counts_by_asked_and_seen_grade() -> None:
    pictures = [(GRADES[grade], draw(60 + grade, grade).pixels * 255) for grade in range(4)]
    pictures.append(("grade0", draw(70, 3).pixels * 255))
    verdict = agreement(pictures, top=255)
    assert (verdict.total, verdict.right) == (5, 4)
    assert verdict.share(0) == 0.5
    assert verdict.seen[0][3] == 1
    noise = np.random.default_rng(0).uniform(size=(3, 64, 64))
    assert agreement([("grade2", noise)]).seen[2] == (0, 0, 0, 0, 1)
    assert agreement([], top=1).share(2) is None
    with pytest.raises(ValueError, match="not in tuple"):
        agreement([("cataract", np.zeros((3, 64, 64)))])
