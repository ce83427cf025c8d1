"""A run folder is used as it was trained or not at all: no mismatched, missing or untrained network guides in silence."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from mgdm_cli.commands.modelling import prepare
from mgdm_cli.commands.reading import Source
from mgdm_cli.data.plan import Filters
from mgdm_cli.data.splits import folds, patient_key
from mgdm_cli.engine import weights
from mgdm_cli.engine.planning import recipe_of
from mgdm_cli.engine.run import DENOISER, GUIDE, RunSettings, load_parts, read_settings
from mgdm_cli.errors import BadInput, MissingInput, UsageError
from tests.tiny import CPU


def test_settings_come_back_as_they_were(ground: tuple[Source, Path]) -> None:
    settings = read_settings(ground[1])
    assert RunSettings.model_validate_json(settings.model_dump_json()) == settings
    assert settings.classes == ("grade0", "grade1", "grade2", "grade3")


def test_weights_of_another_net_are_refused(ground: tuple[Source, Path], tmp_path: Path) -> None:
    """The reference prints "yes" and goes on from scratch (fault 4)."""
    run = shutil.copytree(ground[1], tmp_path / "run")
    settings = read_settings(run)
    other = settings.model_copy(update={"unet": replace(settings.unet, width=16)})
    with pytest.raises(BadInput, match="other settings"):
        load_parts(run, other, CPU)


def test_a_missing_classifier_is_an_error_not_a_random_one(ground: tuple[Source, Path], tmp_path: Path) -> None:
    """Fault 5."""
    run = shutil.copytree(ground[1], tmp_path / "run")
    (run / GUIDE).unlink()
    with pytest.raises(BadInput, match="not finished"):
        load_parts(run, read_settings(run), CPU)
    with pytest.raises(MissingInput):
        read_settings(tmp_path / "nowhere")


def test_a_cut_file_is_told(ground: tuple[Source, Path], tmp_path: Path) -> None:
    run = shutil.copytree(ground[1], tmp_path / "run")
    (run / DENOISER).write_bytes((run / DENOISER).read_bytes()[:1000])
    with pytest.raises(BadInput, match="damaged"):
        load_parts(run, read_settings(run), CPU)


def test_classifier_free_guidance_needs_a_trained_null_class(ground: tuple[Source, Path]) -> None:
    """Fault 6: the reference extrapolates from a branch that was never trained."""
    settings = read_settings(ground[1])
    without = settings.model_copy(update={"train": replace(settings.train, drop_label=0.0)})
    for scale, allowed in ((1.0, True), (2.0, False)):
        words = {
            "guidance": "cfg", "strength": 0.0, "mode": "guide", "candidates": 1, "sampler": "heun", "steps": 4, "scale": scale,
            "between": (0.0, 1.0), "scale_between": (0.0, 9.0), "knobs": {}, "temperature": None, "filters": Filters(),
        }  # fmt: skip
        if allowed:
            assert recipe_of(without, **words).scale == 1.0  # type: ignore[arg-type]
        else:
            with pytest.raises(UsageError, match="null class"):
                recipe_of(without, **words)  # type: ignore[arg-type]


def test_guide_and_judge_never_share_a_patient(ground: tuple[Source, Path]) -> None:
    """Fault 22: the network that guides is not the one that judges, nor has it seen the same eyes."""
    prepared = prepare(ground[0], seed=0)
    halves = [{patient_key(record) for record in half} for half in folds(prepared.splits.train, 2, seed=0)]
    held = {patient_key(record) for record in prepared.splits.holdout}
    assert not halves[0] & halves[1]
    assert not held & (halves[0] | halves[1])
    assert weights.load(ground[1] / GUIDE)[1]["kind"] == "classifier"
