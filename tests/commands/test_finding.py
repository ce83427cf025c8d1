"""The run that `augment --model` names, and why it may not be the one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mgdm_cli.commands.finding import Training, found, found_or_trained, with_commands
from mgdm_cli.commands.modelling import prepare
from mgdm_cli.errors import NeedsTraining, OtherPlan
from tests.tiny import CPU, tiny_run, tiny_set


def test_a_forgotten_patient_regex_is_told(tmp_path: Path) -> None:
    source = tiny_set(tmp_path / "set")
    tiny_run(tmp_path / "run", source, trained=False)
    training = Training(tmp_path / "run")
    with pytest.raises(OtherPlan, match="it knew the patients, who are not known now") as caught:
        found_or_trained(training, prepare(replace(source, patient_regex=None), seed=0), CPU)
    assert "--patient-regex" in caught.value.hint
    with pytest.raises(OtherPlan, match=r"with other flags$") as caught:
        found_or_trained(training, prepare(replace(source, patient_regex=r"(P\d+_[LR])"), seed=0), CPU)
    assert "--patient-regex" in caught.value.hint


def test_a_run_of_a_few_images_is_not_the_model_for_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was tried with --seen is found by that flag alone; how much a model saw is said."""
    monkeypatch.setenv("MGDM_CACHE", str(tmp_path / "cache"))
    source = tiny_set(tmp_path / "set")
    prepared = prepare(source, seed=0)
    few = Training(seen=64)
    tiny_run(few.folder(prepared), source, seen=64)
    assert found(few, prepared) is not None
    assert found(Training(budget="2h"), prepared) is None
    assert found_or_trained(few, prepared, CPU)[0].train.seen == 64


def test_what_is_left_of_a_begun_run_is_held_against_the_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MGDM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("mgdm_cli.commands.finding.train_into", lambda *given, **more: None)
    source = tiny_set(tmp_path / "set")
    prepared = prepare(source, seed=0)
    tiny_run(Training().folder(prepared), source, trained=False, seen=500_000)
    with pytest.raises(NeedsTraining, match="are left of the run that was begun, the budget is 10s") as caught:
        found_or_trained(Training(budget="10s"), prepared, CPU)
    assert "remove that folder" in caught.value.hint
    found_or_trained(Training(budget="10d"), prepared, CPU)
    tiny_run(Training(seen=500_000).folder(prepared), source, trained=False, seen=500_000)
    found_or_trained(Training(budget="10s", seen=500_000), prepared, CPU)  # a length that is said goes before a budget
    assert "of training are left" in capfd.readouterr().err


def test_a_budget_too_short_names_the_commands_that_do(tmp_path: Path) -> None:
    source = replace(tiny_set(tmp_path / "a set"), size="32")
    short = NeedsTraining("training: the budget is too short", "Say --budget 12m.")
    short.seconds = 660.0
    with pytest.raises(NeedsTraining) as caught, with_commands(source, Training(seed=3, base="none")):
        raise short
    images = f"--data '{tmp_path}/a set' --patient-regex '{source.patient_regex}' --size 32"
    assert f"mgdm train {images} --budget 11m --seed 3 --base none -o RUN" in caught.value.hint
