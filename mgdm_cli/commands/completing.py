"""What a trained run is given when it is first asked for: the scale of guidance that suits it, the guide's siblings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mgdm_cli import console
from mgdm_cli.commands.modelling import as_begun, show

if TYPE_CHECKING:
    import torch

    from mgdm_cli.engine.preparing import Prepared
    from mgdm_cli.engine.run import RunSettings
    from mgdm_cli.engine.scaling import Scale


def add_siblings(folder: Path, prepared: Prepared, settings: RunSettings, device: torch.device) -> None:
    """Train what the run lacks of the guide's siblings, which only a guidance by their disagreement needs."""
    from mgdm_cli.data.files import Lock
    from mgdm_cli.engine.pretraining import add_siblings as events
    from mgdm_cli.engine.run import SIBLINGS

    if all((folder / name).is_file() for name in SIBLINGS):
        return
    with Lock(folder / "lock"), as_begun(settings):
        show(events(folder, prepared, settings, device))


def known_scale(folder: Path, settings: RunSettings) -> Scale | None:
    """What `suited_scale` answers where it has nothing to measure; None where it has."""
    from mgdm_cli.data.plan import SCALE_BETWEEN
    from mgdm_cli.engine.scaling import Scale, stored

    if settings.train.drop_label == 0 or settings.student is not None:
        return Scale(1.0, SCALE_BETWEEN)  # there is no other
    return stored(folder)


def within_reach(suits: Scale, settings: RunSettings, steps: int) -> Scale:
    """What was measured, in the usual interval where none of so few steps ends in its own; says so."""
    from dataclasses import replace

    from mgdm_cli.data.plan import SCALE_BETWEEN
    from mgdm_cli.engine.planning import reaches

    if suits.scale == 1 or reaches(settings, steps, suits.between):
        return suits
    (lo, hi), usual = suits.between, SCALE_BETWEEN
    console.say(
        f"scale: no step of {steps} lies between sigma {lo:g} and {hi:g}: it acts from {usual[0]:g} to {usual[1]:g}"
    )
    return replace(suits, between=usual)


def suited_scale(folder: Path, prepared: Prepared, settings: RunSettings, device: torch.device) -> Scale:
    """The classifier-free guidance that suits the run: what was measured for it before, or is measured now, in a minute or so."""
    from mgdm_cli.commands.wanted import KNOBS, SAMPLER, STEPS
    from mgdm_cli.engine import scaling
    from mgdm_cli.engine.run import load_parts

    found = known_scale(folder, settings)
    if found is None:
        parts, _ = load_parts(folder, settings, device)
        total = scaling.images(len(settings.classes))
        with console.progress("find the scale of guidance", total, "images") as bar:
            done = 0
            for event in scaling.measure(folder, parts, settings, prepared, sampler=SAMPLER, steps=STEPS, knobs=KNOBS):
                if isinstance(event, scaling.Scale):
                    found = event
                else:
                    bar.advance(event - done)
                    done = event
    assert found is not None
    console.say(f"scale: {found.scale:g} suits this model (--scale says another)")
    return found
