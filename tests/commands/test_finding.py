"""The run that `augment --model` names, and why it may not be the one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mgdm_cli.commands.finding import Training, found_or_trained
from mgdm_cli.commands.modelling import prepare
from mgdm_cli.errors import OtherPlan
from tests.tiny import CPU, one_thread, tiny_run, tiny_set

__all__ = ["one_thread"]


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
