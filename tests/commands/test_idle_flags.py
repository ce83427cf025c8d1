"""Flags of `augment` that would do nothing beside others are refused before any work, and say why."""

from __future__ import annotations

from pathlib import Path

import pytest

from mgdm_cli.app import main


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--guidance cfg --strength 0.1", "--strength: with --guidance cfg no classifier pulls. Leave --strength out."),
        ("--guidance none --on x0", "--on: with --guidance none no classifier pulls"),
        ("--mode select --strength 3", "--strength: with --mode select nothing pulls"),
        ("--mode select --on x0", "--on: with --mode select nothing pulls"),
        ("--candidates 9", "--candidates: with --mode guide there is one seed an image"),
        ("--depth 0.3", "--depth: with --source latent images are made from noise"),
        ("--source real --knob eta=1", "--knob: with --source real the way back has no knobs"),
        ("--model RUN --seen 7", "--seen: with --model nothing is trained"),
        ("--model RUN --base grey-64", "--base: with --model nothing is trained"),
        ("--model RUN --flip", "--flip: with --model nothing is trained"),
    ],
)
def test_an_idle_flag_is_refused(flags: str, said: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["augment", "--data", str(tmp_path), "--n", "5", *flags.split()]) == 2
    assert said in capfd.readouterr().err


@pytest.mark.parametrize(
    "flags", ["--guidance cfg", "--mode select --candidates 9", "--source real --depth 0.5", "--strength 0.1 --on x0"]
)
def test_a_flag_that_acts_is_not(flags: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["augment", "--data", str(tmp_path), "--n", "5", *flags.split()]) == 66
    assert "holds no readable images" in capfd.readouterr().err
