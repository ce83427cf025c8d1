"""What `augment` cannot make is refused before a training, by the flag that asks for it."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from mgdm_cli import app
from mgdm_cli.commands import augment
from mgdm_cli.commands.reading import Source
from mgdm_cli.commands.wanted import Wanted
from mgdm_cli.errors import UsageError

WANTED = Wanted(24, guidance="uncertainty", steps=6, block=4, filters=False)


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"guidance": "entropie"}, "--guidance"),
        ({"sampler": "plms"}, "--sampler"),
        ({"knobs": {"order": 2.0}}, "--knob"),
        ({"guidance": "cfg", "mode": "select"}, "--mode"),
        ({"depth": 0.5, "sampler": "ddim", "scale": 1.0}, "--source real"),
        ({"sampler": "ddim", "knobs": {"eta": math.nan}}, "--knob eta"),
        ({"sampler": "dpmpp_2m_sde", "knobs": {"eta": -1000.0}}, "--knob eta"),
        ({"sampler": "langevin", "knobs": {"step": 5.0}}, "--knob step"),
        ({"strength": math.inf}, "--strength"),
        ({"strength": 1e30}, "--strength"),
        ({"guidance": "cfg", "scale": 1e30}, "--scale"),
        ({"sampler": "langevin", "knobs": {"inner": 1e9}}, "--knob inner"),
        ({"guidance": "none", "scale": 3.0}, "--scale 3: with --guidance none"),
        ({"guidance": "cfg", "scale": math.nan}, "--scale"),
    ],
)
def test_what_cannot_be_made_is_refused_before_a_training(
    ground: tuple[Source, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, object],
    says: str,
    dry_run: bool,
) -> None:
    """There is no model and no budget either: that would be told next, as NeedsTraining."""
    monkeypatch.setenv("MGDM_CACHE", str(tmp_path / "cache"))
    wanted = replace(WANTED, **change)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=says):
        augment.run(ground[0], wanted, out=tmp_path / "out", device="cpu", dry_run=dry_run)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words", [["--strength", "0.1"], ["--on", "x0"]])
@pytest.mark.parametrize("guidance", ["cfg", "none"])
def test_flags_of_a_pull_are_refused_where_nothing_pulls(
    ground: tuple[Source, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str], guidance: str, words: list[str]
) -> None:
    out = tmp_path / "out"
    assert app.main(["augment", "-d", str(ground[0].data), "-o", str(out), "--guidance", guidance, *words]) == 2
    assert words[0] in capfd.readouterr().err
    assert not out.exists()
