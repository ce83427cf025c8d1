"""What `train` and `augment` share: reading a folder into a prepared set, and training a run while showing how it goes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mgdm_cli import console
from mgdm_cli.commands import values
from mgdm_cli.commands.reading import Source, scanned
from mgdm_cli.errors import NeedsTraining

if TYPE_CHECKING:
    import torch

    from mgdm_cli.engine.preparing import Prepared
    from mgdm_cli.engine.pretraining import Event
    from mgdm_cli.engine.run import RunSettings
    from mgdm_cli.engine.sizing import Pace

DEFAULT_BUDGET = 1800.0  # seconds, where a person watches
LISTED = 20  # files that were skipped


def prepare(source: Source, *, seed: int) -> Prepared:
    """Scan, split and frame the folder; says what was noticed."""
    from mgdm_cli.data.fitness import refuse_unfit
    from mgdm_cli.data.labels import shown
    from mgdm_cli.engine import preparing
    from mgdm_cli.errors import BadInput, UsageError

    window = None
    if source.window is not None and source.window != "voi":
        try:
            centre, width = (float(part) for part in source.window.split(","))
        except ValueError:
            raise UsageError(
                f"--window: {source.window!r} is not CENTRE,WIDTH or voi", "Write it as --window 40,400."
            ) from None
        window = (centre, width)
    found = scanned(source)
    for note in found.notes:
        console.say(note)
    for refused in found.refused[:LISTED]:
        console.say(f"skipped: {shown(refused.path)}: {refused.why}")
    if len(found.refused) > LISTED:
        console.say(f"... and {len(found.refused) - LISTED} more; mgdm inspect --report FILE.json lists all")
    refuse_unfit(found)
    prepared = preparing.prepare(found, size=values.size_of(source.size), fit_how=source.fit, window=window, seed=seed)
    if not prepared.splits.patients_known and source.require_patient_id:
        raise BadInput(
            "input: the patients are not known", "Give --patient-regex, a table with a patient column, or DICOM files."
        )
    return prepared


def cache_folder() -> Path:
    """Where runs that `augment` trained are kept: $MGDM_CACHE, else ~/.cache/mgdm."""
    root = os.environ.get("MGDM_CACHE")
    if root:
        return Path(root)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mgdm"


@dataclass(frozen=True)
class Length:
    """How long a training may take: `seconds`, or `seen` training images; how wide the U-Net is, by which process; its base."""

    seconds: float | None
    seen: int | None
    width: int | None = None
    base: str = "auto"
    process: str | None = None

    @classmethod
    def of(
        cls,
        budget: str | None,
        seen: int | None,
        width: int | None = None,
        base: str = "auto",
        process: str | None = None,
    ) -> Length:
        """From the flags; half an hour where a person watches. Raises NeedsTraining where nobody does and nothing was said."""
        import sys

        seconds = values.seconds_of(budget)
        if seconds is None and seen is None:
            if not sys.stderr.isatty():
                raise NeedsTraining(
                    "training: no --budget says how long a model of this set may be trained, and there is none yet",
                    "Say --budget 30m.",
                )
            seconds = DEFAULT_BUDGET
        return cls(seconds, seen, width, base, process)


def measured(
    prepared: Prepared, length: Length, device: torch.device, *, seed: int, flip: bool
) -> tuple[RunSettings, Pace]:
    """Settings of a run that fits the budget, and the pace they were fitted by. Raises NeedsTraining."""
    from datetime import UTC, datetime

    from mgdm_cli.engine import preparing, sizing

    data = preparing.pictures(prepared, prepared.splits.train, device)
    date = datetime.now(UTC).strftime("%Y%m%d")
    wide = {} if length.width is None else {"width": length.width}
    settings = sizing.settings_for(
        prepared, data, seed=seed, flip=flip, date=date, base=length.base, process=length.process or "edm", **wide
    )
    return sizing.fitted(settings, data, device, seconds=length.seconds, seen=length.seen)


def begun(folder: Path, prepared: Prepared, length: Length, *, flip: bool) -> RunSettings | None:
    """Settings of the run that was begun in `folder`; None where none was. Raises OtherPlan where it holds anything else.

    A run keeps the settings it was begun with: a flag that was given must say the same. Of a budget that cannot be told.
    """
    from mgdm_cli.data.files import holds_other
    from mgdm_cli.engine.run import SETTINGS, read_settings
    from mgdm_cli.errors import OtherPlan

    if not (folder / SETTINGS).exists():
        if holds_other(folder, ("lock",)):
            raise OtherPlan(f"{folder.name}: is not empty and is no run of mgdm", "Choose another folder.")
        return None
    settings = read_settings(folder)
    if settings.inputs != prepared.fingerprint:
        raise OtherPlan(f"{folder.name}: holds a run on other images or settings", "Choose another folder.")
    if settings.student is not None:
        raise OtherPlan(f"{folder.name}: holds a student", "Continue it with mgdm distill, or choose another folder.")
    pairs: dict[str, tuple[object, object]] = {
        "--process": (length.process, settings.process),
        "--seen": (length.seen, settings.train.seen),
        "--width": (length.width, settings.unet.width),
        "--base": (None if length.base == "auto" else length.base, settings.base or "none"),
        "--flip": (flip or None, settings.warp.flip),
    }
    other = [
        f"no {flag}" if has is False else f"{flag} {has}"
        for flag, (said, has) in pairs.items()
        if said not in (None, has)
    ]
    if other:
        raise OtherPlan(
            f"{folder.name}: holds a run that was begun with {', '.join(other)}",
            "Give the flags it was begun with, or choose another folder.",
        )
    return settings


def foreseen(
    folder: Path, prepared: Prepared, length: Length, device: torch.device, *, seed: int, flip: bool
) -> tuple[RunSettings, Pace, float]:
    """(settings of the run in `folder`, or of one begun there now; its pace; seconds until it is trained). Writes nothing."""
    from mgdm_cli.engine import preparing, sizing
    from mgdm_cli.engine.pretraining import read_log
    from mgdm_cli.engine.run import GUIDE, JUDGE, is_trained

    settings = begun(folder, prepared, length, flip=flip)
    if settings is None:
        settings, pace = measured(prepared, length, device, seed=seed, flip=flip)
        return settings, pace, pace.seconds(settings.train.seen, settings.classifier_seen)
    with as_begun(settings):
        pace = sizing.measure(settings, preparing.pictures(prepared, prepared.splits.train, device), device)
    log = read_log(folder)
    left = 0 if is_trained(folder) else max(settings.train.seen - (log[-1]["seen"] if log else 0), 0)
    classifiers = sum(not (folder / name).is_file() for name in (GUIDE, JUDGE))
    return settings, pace, pace.seconds(left, classifiers * settings.classifier_seen // 2)


def require_trained(folder: Path) -> None:
    """Raises MissingInput where `folder` is no run, UsageError where its training has not finished."""
    from mgdm_cli.engine.run import is_trained, read_settings
    from mgdm_cli.errors import UsageError

    read_settings(folder)
    if not is_trained(folder):
        raise UsageError(
            f"model: {folder.name}: training has not finished", "Continue it with the same mgdm train command."
        )


def train_into(
    folder: Path,
    prepared: Prepared,
    length: Length,
    device: torch.device,
    *,
    seed: int,
    flip: bool,
    save_every: float = 300.0,
) -> RunSettings:
    """Begin or continue the run in `folder` until it is trained; returns its settings. Raises what `begun` raises."""
    from mgdm_cli.data.files import Lock, make_dirs, missing_dirs
    from mgdm_cli.engine.run import is_trained, write_settings

    begun(folder, prepared, length, flip=flip)
    made = missing_dirs(folder)
    make_dirs(folder)
    with Lock(folder / "lock", made=made):
        found = begun(folder, prepared, length, flip=flip)
        if found is not None:
            settings = found
        else:
            settings, pace = measured(prepared, length, device, seed=seed, flip=flip)
            seconds = pace.seconds(settings.train.seen, settings.classifier_seen)
            origin = settings.base or "scratch" + _no_base(prepared, settings, length)
            console.say(
                f"training from {origin}: {settings.train.seen} images seen at {pace.denoiser:.0f} a second, "
                f"about {console.clock_text(seconds)}"
            )
            write_settings(folder, settings)
        if not is_trained(folder):
            with as_begun(settings):
                _drain(folder, prepared, settings, device, save_every)
    return settings


def _no_base(prepared: Prepared, settings: RunSettings, length: Length) -> str:
    """Why a training that might have begun with a base does not."""
    from mgdm_cli.engine import bases, sizing

    if length.base != "auto":
        return ""
    if settings.process != sizing.BASE_PROCESS:
        return f" (no base fits: process {settings.process})"
    return f" (no base fits: {bases.why_none(settings.unet, prepared.frame.net_size)})"


@contextmanager
def as_begun(settings: RunSettings) -> Iterator[None]:
    """Compute on as many threads, and in the type, that the run began with: training's bits depend on them."""
    import torch

    from mgdm_cli.engine.device import as_before, compute_as

    with as_before():
        if settings.threads != torch.get_num_threads():
            console.say(f"threads: {settings.threads}, as the run was begun")
        compute_as(settings.threads, settings.computes_in)
        yield


def _drain(folder: Path, prepared: Prepared, settings: RunSettings, device: torch.device, save_every: float) -> None:
    from mgdm_cli.engine.pretraining import pretrain

    show(pretrain(folder, prepared, settings, device, save_every=save_every))


def show(events: Iterator[Event]) -> None:
    """Carry out a training, with a bar for each of its parts."""
    current, bars, at = "", {}, 0
    with _bars() as open_bar:
        for event in events:
            if event.what == "note":
                console.say(event.note)
                continue
            if event.what != current:
                current = event.what
                at = (
                    event.seen if event.loss is None else 0
                )  # learnt before: it counts, but not for the time that is left
                bars[current] = open_bar(f"train the {current}", event.of, at)
            note = event.note or (f"loss {event.loss:.4f}" if event.loss is not None else "")
            if event.holdout is not None:
                note = f"loss {event.loss:.4f}, holdout {event.holdout:.4f}"
            bars[current].advance(min(event.seen, event.of) - at, note)
            at = min(event.seen, event.of)
            if event.note:
                console.say(f"{current}: {event.note}")


@contextmanager
def _bars() -> Iterator[Any]:
    """Opens progress bars one after the other; closes the last one at the end."""
    from contextlib import ExitStack

    with ExitStack() as stack:

        def open_bar(title: str, total: int, done: int) -> console.Bar:
            stack.close()
            return stack.enter_context(console.progress(title, total, "images", done=done))

        yield open_bar
