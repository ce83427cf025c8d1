"""Guide, judge and denoiser of a run, one after the other; each is kept when finished, the denoiser also on the way."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from mgdm_cli.data.files import canonical, sha256_file, write_atomic
from mgdm_cli.data.image import Record
from mgdm_cli.data.splits import folds
from mgdm_cli.errors import BadInput

from . import weights
from .classifying import (
    NEARLY_CLEAN,
    NOISE_AWARE,
    ClassifySettings,
    calibrate,
    save_classifier,
    skill,
    train_classifier,
)
from .preparing import Prepared, pictures
from .run import (
    DENOISER,
    GUIDE,
    JUDGE,
    LOG,
    SIBLINGS,
    WEAK,
    RunSettings,
    denoiser_header,
    first_weights,
    new_classifier,
)
from .training import TICK, Tick, TrainState, begin, finished, train
from .warp import WarpSettings

CLASSIFIER_WARP = WarpSettings(probability=0.5)
SIBLING_SALT = 1009  # keeps their seeds apart from the guide's and the judge's
KEEP = 2  # checkpoints
WEAK_SHARE = 1 / 8  # of the training: when the weak model is put aside
_CHECKPOINT = re.compile(r"checkpoint-(\d{9})\.safetensors")


@dataclass(frozen=True)
class Event:
    """Something that happened while a run was trained: `what` is "guide", "judge", a sibling, "denoiser", "student" or "note".

    Without a loss and a note: training begins, and `seen` were consumed before.
    """

    what: str
    seen: int = 0
    of: int = 0
    loss: float | None = None
    holdout: float | None = None
    note: str = ""


def record_key(record: Record) -> str:
    """What names a record in a run's holdout: content, never a file name."""
    return f"{record.sha256}#{'' if record.part is None else record.part}"


def pretrain(
    folder: Path, prepared: Prepared, settings: RunSettings, device: torch.device, *, save_every: float = 300.0
) -> Iterator[Event]:
    """Train what the run still lacks. The same settings give the same weights, however often this was interrupted."""
    for index, (name, file, between) in enumerate((("guide", GUIDE, NOISE_AWARE), ("judge", JUDGE, NEARLY_CLEAN))):
        if not (folder / file).is_file():
            seed = settings.train.seed + 11 * (index + 1)
            classify = ClassifySettings(settings.classifier_seen, between, seed=seed, told=name == "guide")
            yield from _classifier(folder / file, name, prepared, settings, device, classify, half=index)
    if not (folder / DENOISER).is_file():
        yield from _denoiser(folder, prepared, prepared.splits.train, settings, device, save_every)


def add_siblings(folder: Path, prepared: Prepared, settings: RunSettings, device: torch.device) -> Iterator[Event]:
    """Train what the run lacks of the guide's siblings: the same net on the same half of the patients, from other seeds.

    Only `--guidance disagreement` asks for them (deep ensemble: Lakshminarayanan et al. 2017). Masks of the one guide's dropout would cost
    nothing, but on held-out ultrasound their disagreement told its mistakes no better than chance.
    """
    for index, file in enumerate(SIBLINGS, start=1):
        if not (folder / file).is_file():
            seed = settings.train.seed + 11 + SIBLING_SALT * index
            classify = ClassifySettings(settings.classifier_seen, NOISE_AWARE, seed=seed)
            yield from _classifier(
                folder / file, f"guide's sibling {index}", prepared, settings, device, classify, half=0
            )


def _classifier(
    path: Path, name: str, prepared: Prepared, settings: RunSettings, device: torch.device, classify: ClassifySettings, *, half: int
) -> Iterator[Event]:  # fmt: skip
    """One classifier of half the training patients, calibrated and tested on the holdout, and saved."""
    records = folds(prepared.splits.train, 2, seed=settings.train.seed)[half]
    data, holdout = pictures(prepared, records, device), pictures(prepared, prepared.splits.holdout, device)
    net = new_classifier(settings, device, seed=classify.seed)
    for tick in train_classifier(net, data, classify, warp=CLASSIFIER_WARP):
        yield Event(name, tick.seen, settings.classifier_seen, tick.loss)
    temperature, able = calibrate(net, holdout), skill(net, holdout)
    save_classifier(path, net, {"accuracy": [able.accuracy, able.lo, able.hi], "chance": able.chance})
    note = (
        f"holdout balanced accuracy {able.accuracy:.2f} [{able.lo:.2f}, {able.hi:.2f}], temperature {temperature:.2f}"
    )
    yield Event(name, settings.classifier_seen, settings.classifier_seen, note=note)


def _denoiser(
    folder: Path,
    prepared: Prepared,
    records: Sequence[Record],
    settings: RunSettings,
    device: torch.device,
    save_every: float,
) -> Iterator[Event]:
    data, holdout = pictures(prepared, records, device), pictures(prepared, prepared.splits.holdout, device)
    model = first_weights(settings, device)
    state = begin(model, settings.train)
    ticks = train(state, data, holdout, settings.train, warp=settings.warp)
    weak = partial(_keep_weak, folder, state, settings)
    yield from kept(folder, "denoiser", state, ticks, settings.train, save_every=save_every, each=weak)
    if state.stopped:
        yield Event(
            "note",
            note=f"holdout loss turned up: stopped at {state.step * settings.train.batch} images, the best average is kept",
        )
    curve = [[seen, round(loss, 6)] for seen, loss in state.history]
    weights.save(
        folder / DENOISER,
        finished(state, settings.train),
        denoiser_header(
            settings,
            holdout_curve=curve,
            stopped=state.stopped,
            weak=sha256_file(folder / WEAK) if (folder / WEAK).is_file() else None,
        ),
    )
    forget_checkpoints(folder)


def _keep_weak(folder: Path, state: TrainState, settings: RunSettings) -> None:
    """Put the average aside at the first tick past an eighth of the training: the weak model of autoguidance costs nothing."""
    if state.step >= settings.train.steps * WEAK_SHARE and not (folder / WEAK).is_file():
        seen = state.step * settings.train.batch
        weights.save(folder / WEAK, state.ema, denoiser_header(settings, seen=seen, weak=None))


def kept(
    folder: Path,
    what: str,
    state: Resumable,
    ticks: Iterator[Tick],
    length: Length,
    *,
    save_every: float,
    each: Callable[[], None] | None = None,
) -> Iterator[Event]:
    """The training behind `ticks`, which have not begun, from the newest checkpoint on; saved every so often, and when it is stopped.

    `each` is called after every tick, and where a training that was stopped at one goes on.
    """
    for note in resume(folder, state):
        yield Event("note", note=note)
    if each is not None and (state.step % TICK == 0 or state.step * length.batch >= length.seen):
        each()
    saved = time.monotonic()
    yield Event(what, state.step * length.batch, length.seen)
    try:
        for tick in ticks:
            yield Event(what, tick.seen, length.seen, tick.loss, tick.holdout)
            log_tick(folder, tick)
            if each is not None:
                each()
            if time.monotonic() - saved > save_every:
                save_checkpoint(folder, state)
                saved = time.monotonic()
    except FloatingPointError:
        raise  # what was learnt since the newest checkpoint is spoilt
    except BaseException:
        # Stopped on the way (a signal, a full disk, a closed generator): what was learnt is kept where it can be.
        if state.whole:
            save_checkpoint(folder, state)
        raise


def forget_checkpoints(folder: Path) -> None:
    """Remove them: the training has ended."""
    for path in _checkpoints(folder):
        path.unlink()
        path.with_suffix(".sha256").unlink(missing_ok=True)


class Length(Protocol):
    """How long a training is: images a step, and images in all."""

    @property
    def batch(self) -> int: ...
    @property
    def seen(self) -> int: ...


class Resumable(Protocol):
    """What a checkpoint holds, of a training that is at `step`; `whole` where it is not within one."""

    step: int
    whole: bool

    def tensors(self) -> dict[str, Tensor]: ...
    def header(self) -> dict[str, object]: ...
    def restore(self, tensors: dict[str, Tensor], header: dict[str, object]) -> None: ...


def save_checkpoint(folder: Path, state: Resumable) -> None:
    """A new file, then its hash, then the older ones beyond `KEEP` go: the last good one is never overwritten.

    Raises FloatingPointError, and saves nothing, where a weight is not finite.
    """
    path, tensors = folder / f"checkpoint-{state.step:09d}.safetensors", state.tensors()
    spoilt = next((name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())), None)
    if spoilt is not None:
        raise FloatingPointError(f"{spoilt} is not finite at step {state.step}")
    digest = weights.save(path, tensors, {"kind": "checkpoint", **state.header()})
    write_atomic(path.with_suffix(".sha256"), digest.encode())
    for old in _checkpoints(folder)[KEEP:]:
        old.unlink()
        old.with_suffix(".sha256").unlink(missing_ok=True)


def resume(folder: Path, state: Resumable) -> Iterator[str]:
    """Restore the newest whole checkpoint; says what it did."""
    for path in _checkpoints(folder):
        try:
            if path.with_suffix(".sha256").read_text() != hashlib.sha256(path.read_bytes()).hexdigest():
                raise BadInput(f"{path.name}: its hash does not match")
            tensors, header = weights.load(path)
            state.restore(tensors, header)
        except (BadInput, OSError, KeyError) as error:
            yield f"{path.name} is damaged ({error}); the one before it is used"
            continue
        yield f"continuing at step {state.step}"
        return


def _checkpoints(folder: Path) -> list[Path]:
    """Newest first."""
    return sorted((path for path in folder.iterdir() if _CHECKPOINT.fullmatch(path.name)), reverse=True)


def log_tick(folder: Path, tick: Tick) -> None:
    """One line for whoever draws the curve later; not part of the result."""
    row: dict[str, Any] = {
        "seen": tick.seen,
        "loss": None if tick.loss is None else round(tick.loss, 6),
        "holdout": tick.holdout,
        "seconds": round(tick.seconds, 1),
    }
    with (folder / LOG).open("ab") as file:
        file.write(canonical(row))


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The rows of the training log; lines cut short by a kill are left out."""
    rows = []
    for line in (folder / LOG).read_bytes().splitlines() if (folder / LOG).is_file() else ():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows
