"""The scale of guidance: the entry of the menu that is chosen, kept for its denoiser, used where none is said."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mgdm_cli.commands import augment, sample, train
from mgdm_cli.commands.completing import suited_scale
from mgdm_cli.commands.modelling import prepare
from mgdm_cli.commands.reading import Source
from mgdm_cli.commands.wanted import Wanted
from mgdm_cli.data.checking import open_plan
from mgdm_cli.data.files import sha256_file
from mgdm_cli.engine import scaling
from mgdm_cli.engine.run import DENOISER, load_parts, read_settings
from tests.tiny import CPU, tiny_run


@pytest.fixture
def run(ground: tuple[Source, Path], tmp_path: Path) -> tuple[Source, Path]:
    """A copy of the run, for its scale is measured anew."""
    return ground[0], shutil.copytree(ground[1], tmp_path / "run")


def test_the_chosen_entry_is_kept_for_its_denoiser(run: tuple[Source, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "IMAGES", 16)
    monkeypatch.setattr(scaling, "LEAST", 4)
    monkeypatch.setattr(scaling, "BLOCK", 4)
    source, folder = run
    (folder / scaling.FILE).unlink()
    prepared, settings = prepare(source, seed=0), read_settings(folder)
    parts, _ = load_parts(folder, settings, CPU)
    *counts, best = scaling.measure(folder, parts, settings, prepared, sampler="dpmpp_2m", steps=2, knobs={})
    assert counts[-1] == scaling.images(len(settings.classes))
    document = json.loads((folder / scaling.FILE).read_bytes())
    rows = document["menu"]
    assert [(row["scale"], tuple(row["between"])) for row in rows] == list(scaling.MENU)
    taken = next(row for row in rows if scaling.Scale(row["scale"], tuple(row["between"])) == best)
    nearest = min(rows, key=lambda row: row["distance"])
    assert nearest["error"] == 0
    assert max(taken["distance"], 0) - max(nearest["distance"], 0) <= taken["error"]
    assert all(0 <= row["label_kept"] <= 1 and row["error"] >= 0 for row in rows)
    assert scaling.stored(folder) == best == suited_scale(folder, prepared, settings, CPU)
    (folder / scaling.FILE).write_text(json.dumps(document | {"denoiser": "0" * 64}))
    assert scaling.stored(folder) is None, "another denoiser's"
    (folder / scaling.FILE).write_text("{")
    assert scaling.stored(folder) is None


def row(at: int, distance: float, error: float, kept: float) -> scaling._Row:
    return scaling._Row(*scaling.MENU[at], distance, error, np.arange(100) < 100 * kept)


@pytest.mark.parametrize(
    ("rows", "chosen"),
    [
        # as near and as well labelled: the weakest, though a stronger one is nearest by luck
        ([(0.012, 0.004, 1.0), (0.011, 0.003, 1.0), (0.010, 0.0, 1.0)], 0),
        # clearly farther: out, however well labelled
        ([(0.030, 0.004, 0.7), (0.011, 0.003, 0.8), (0.010, 0.0, 0.8), (0.030, 0.004, 1.0)], 1),
        # alike in distance: the one whose labels hold
        ([(0.013, 0.004, 0.6), (0.012, 0.003, 0.7), (0.010, 0.0, 0.9)], 2),
        # below nothing there is no nearer
        ([(0.000, 0.0005, 0.9), (-0.020, 0.0, 0.9)], 0),
    ],
)
def test_of_entries_that_are_alike_the_better_labelled_then_the_weakest_is_taken(
    rows: list[tuple[float, float, float]], chosen: int
) -> None:
    assert scaling._chosen([row(at, *values) for at, values in enumerate(rows)]) == chosen


def test_a_scale_that_no_step_would_meet_acts_in_the_usual_interval(
    run: tuple[Source, Path], tmp_path: Path, any_guide: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """It was measured with more steps than are asked for now: nobody said the flag that would be refused."""
    source, folder = run
    document = {"denoiser": sha256_file(folder / DENOISER), "scale": 2.5, "between": [0.3, 2.0]}
    (folder / scaling.FILE).write_text(json.dumps(document))
    wanted = Wanted(2, guidance="cfg", steps=3, block=2, filters=False)
    augment.run(source, wanted, out=tmp_path / "few", model=folder, device="cpu")
    assert "no step of 3 lies between sigma 0.3 and 2" in capsys.readouterr().err
    augment.run(source, replace(wanted, steps=6), out=tmp_path / "more", model=folder, device="cpu")
    sample.run(folder, labels=f"{read_settings(folder).classes[0]}=2", out=tmp_path / "sampled", steps=3, device="cpu")
    found = [open_plan(tmp_path / name).recipe.scale_between for name in ("few", "more", "sampled")]
    assert found == [(0.3, 5.0), (0.3, 2.0), (0.3, 5.0)]


def test_without_two_unseen_images_of_any_class_nothing_is_measured(run: tuple[Source, Path]) -> None:
    source, folder = run
    (folder / scaling.FILE).unlink()
    prepared, settings = prepare(source, seed=0), read_settings(folder)
    few = replace(prepared, splits=replace(prepared.splits, train=prepared.splits.train[:1], holdout=()))
    parts, _ = load_parts(folder, settings, CPU)
    assert list(scaling.measure(folder, parts, settings, few, sampler="dpmpp_2m", steps=2, knobs={})) == [
        scaling.UNMEASURED
    ]
    assert scaling.stored(folder) is None


def test_training_ends_with_it(ground: tuple[Source, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("IMAGES", 4), ("LEAST", 4), ("BLOCK", 4)):
        monkeypatch.setattr(scaling, name, value)
    tiny_run(tmp_path / "run", ground[0], trained=False)
    for _ in range(2):
        told = train.run(ground[0], out=tmp_path / "run", device="cpu").document["scale"]
        found = scaling.stored(tmp_path / "run")
        assert found is not None
        assert told == found.scale


def test_it_is_used_where_none_is_said(run: tuple[Source, Path], tmp_path: Path, any_guide: None) -> None:
    source, folder = run
    document = {"denoiser": sha256_file(folder / DENOISER), "scale": 1.5, "between": [0.4, 4.0]}
    (folder / scaling.FILE).write_text(json.dumps(document))
    wanted = Wanted(4, guidance="cfg", steps=3, block=4, filters=False)
    augment.run(source, wanted, out=tmp_path / "suited", model=folder, device="cpu")
    augment.run(source, replace(wanted, scale=2.0), out=tmp_path / "said", model=folder, device="cpu")
    sample.run(folder, labels=f"{read_settings(folder).classes[0]}=2", out=tmp_path / "sampled", steps=3, device="cpu")
    found = [open_plan(tmp_path / name).recipe for name in ("suited", "said", "sampled")]
    assert [(recipe.scale, recipe.scale_between) for recipe in found] == [
        (1.5, (0.4, 4.0)),
        (2.0, (0.3, 5.0)),
        (1.5, (0.4, 4.0)),
    ]
