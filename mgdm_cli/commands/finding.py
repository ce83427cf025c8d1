"""Where the model of `augment` comes from: a run that was named, one in the cache that fits the set, or one trained now."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mgdm_cli import console
from mgdm_cli.commands import values
from mgdm_cli.commands.modelling import DEFAULT_BUDGET, Length, cache_folder, foreseen, require_trained, train_into
from mgdm_cli.errors import NeedsTraining, OtherPlan

if TYPE_CHECKING:
    import torch

    from mgdm_cli.commands.reading import Source
    from mgdm_cli.data.plan import Plan
    from mgdm_cli.engine.preparing import Prepared
    from mgdm_cli.engine.run import RunSettings

# The pace is measured anew, beside other work perhaps: the same command with the same budget must be let go on.
SLACK = 3.0


@dataclass(frozen=True)
class Training:
    """Where the model comes from, or how one may be trained."""

    model: Path | None = None
    budget: str | None = None
    seen: int | None = None
    seed: int = 0
    flip: bool = False
    base: str = "auto"

    def folder(self, prepared: Prepared) -> Path:
        """The run: the one named, or the one in the cache that fits this set and what was asked of its training."""
        if self.model is not None:
            return self.model
        base = "" if self.base == "auto" else f"-{self.base}"
        # A run that was tried with a few images is not the one for good.
        long = "" if self.seen is None else f"-{self.seen}"
        return _cached(prepared.fingerprint, base + "-flip" * self.flip + long)


def cached_runs(inputs: str) -> tuple[Path, ...]:
    """The trained runs in the cache of the set with the fingerprint `inputs`, whatever base they started from."""
    from mgdm_cli.engine.run import is_trained

    usual = _cached(inputs, "")
    others = sorted(usual.parent.glob(f"{usual.name}-*"))
    return tuple(folder for folder in (usual, *others) if is_trained(folder))


def made_by(plan: Plan | None, inputs: str) -> Path | None:
    """The run in the cache, of the set with the fingerprint `inputs`, that made the images of `plan`; None without a plan."""
    from mgdm_cli.data.files import sha256_file
    from mgdm_cli.engine.run import DENOISER

    if plan is None:
        return None
    return next((run for run in cached_runs(inputs) if sha256_file(run / DENOISER) == plan.models.denoiser), None)


def _cached(inputs: str, ending: str) -> Path:
    return cache_folder() / "runs" / (inputs[:16] + ending)


def found(training: Training, prepared: Prepared) -> RunSettings | None:
    """Settings of the run that makes the images, which in the cache may only have begun; None where there is none yet.

    Raises MissingInput, OtherPlan or UsageError where the run that was named cannot make them.
    """
    from mgdm_cli.engine.run import SETTINGS, read_settings

    folder = training.folder(prepared)
    if training.model is None and not (folder / SETTINGS).exists():
        return None
    settings = read_settings(folder)
    if settings.inputs != prepared.fingerprint:
        raise OtherPlan(
            f"model: {folder.name}: was trained on other images, or on these with other flags{_patients(settings, prepared)}",
            "Give the flags it was trained with (--patient-regex, --size, --fit, --window, --labels, --seed), or leave --model "
            "out to train one.",
        )
    if training.model is not None:
        require_trained(folder)
    return settings


def length_of(training: Training, begun: RunSettings | None) -> Length:
    """How long the run of the cache may take; one that was begun has its length already. Raises NeedsTraining."""
    if begun is not None:
        return Length(None, None)
    return Length.of(training.budget, training.seen, base=training.base)


@contextmanager
def with_commands(source: Source, training: Training) -> Iterator[None]:
    """Adds to a NeedsTraining the commands that train the run apart and go on with it."""
    try:
        yield
    except NeedsTraining as error:
        minutes = DEFAULT_BUDGET / 60 if error.seconds is None else -(-error.seconds // 60)
        said = [source.flags(), f"--budget {minutes:.0f}m"]
        said += [f"--seed {training.seed}"] * bool(training.seed) + ["--flip"] * training.flip
        said += [f"--base {training.base}"] * (training.base != "auto")
        error.hint += f" Or train apart: mgdm train {' '.join(said)} -o RUN; then give this command --model RUN in place of how to train"
        raise


def found_or_trained(training: Training, prepared: Prepared, device: torch.device) -> tuple[RunSettings, float]:
    """(settings of a trained run, seconds it took to train it now)."""
    from mgdm_cli.engine.run import is_trained

    folder, begun = training.folder(prepared), found(training, prepared)
    if begun is not None and is_trained(folder):
        console.say(f"model: {folder}, trained on {begun.train.seen} images seen")
        return begun, 0.0
    length = length_of(training, begun)
    console.say(f"model: {'continuing' if begun else 'none fits yet: training'} {folder}")
    if begun is not None and training.budget is not None and training.seen is None:
        left = foreseen(folder, prepared, length, device, seed=training.seed, flip=training.flip)[2]
        require_time(training, folder, left)
        console.say(f"about {console.clock_text(left)} of training are left")
    started = time.monotonic()
    settings = train_into(folder, prepared, length, device, seed=training.seed, flip=training.flip)
    return settings, time.monotonic() - started


def require_time(training: Training, folder: Path, left: float) -> None:
    """Raises NeedsTraining where the `left` seconds of a run that was begun are far above the budget; --seen goes before that."""
    budget = values.seconds_of(training.budget) if training.seen is None else None
    if budget is not None and left > SLACK * budget:
        raise NeedsTraining(
            f"training: {console.clock_text(left)} are left of the run that was begun, the budget is {training.budget}: {folder}",
            f"Say --budget {left // 60 + 1:.0f}m to go on with it, or remove that folder to begin a shorter one.",
        )


def _patients(settings: RunSettings, prepared: Prepared) -> str:
    """What a forgotten --patient-regex gives away."""
    if settings.patients_known == prepared.splits.patients_known:
        return ""
    then, now = ("knew", "are not known now") if settings.patients_known else ("did not know", "are known now")
    return f": it {then} the patients, who {now} (--patient-regex)"
