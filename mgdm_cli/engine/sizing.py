"""How long training and generation will take here, measured on a few real steps; and a run's settings that fit a budget."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from mgdm_cli import __version__
from mgdm_cli.diffusion.process import PROCESSES
from mgdm_cli.diffusion.types import Cond
from mgdm_cli.errors import NeedsTraining, UsageError
from mgdm_cli.nets.classifier import ClassifierSettings
from mgdm_cli.nets.layers import patch_of
from mgdm_cli.nets.unet import UNetSettings

from . import bases
from . import warp as warping
from .classifying import NOISE_AWARE, ClassifySettings, train_classifier
from .device import bf16, kind_to_keep
from .preparing import Prepared
from .pretraining import CLASSIFIER_WARP, record_key
from .run import RunSettings, for_inference, new_classifier, new_model
from .training import Pictures, TrainSettings, begin, train

LEAST_SEEN = 20_000  # training images below which a denoiser from scratch is not worth its name
BASE_PROCESS = "edm"  # of every base model that ships
LEAST_TUNED = 5_000  # the same for one that starts from a base model
PROCESS_SETTINGS = {"edm": {"mean": -0.4, "spread": 1.6}}  # where ours differ from the paper's
TUNING_RATE = 4e-3  # learning rate from a base: lower, or the first steps undo what it knows
SHORT, SMALL_BATCH = (
    16_000,
    8,
)  # a training of fewer images takes smaller batches: steps are what it lacks, more than quiet gradients
CLASSIFIER_SHARE = 0.08  # of the budget, for each of the two classifiers
CLASSIFIER_SEEN = (6_000, 40_000)
OVERHEAD = 1.06  # looks at the holdout, checkpoints, reading


@dataclass(frozen=True)
class Pace:
    """Measured images a second of each kind of training step."""

    denoiser: float
    classifier: float

    def seconds(self, seen: int, classifier_seen: int) -> float:
        """Time that a training takes."""
        return OVERHEAD * (seen / self.denoiser + 2 * classifier_seen / self.classifier)


def settings_for(
    prepared: Prepared,
    data: Pictures,
    *,
    seed: int,
    flip: bool,
    date: str,
    width: int = UNetSettings.width,
    base: str = "auto",
    process: str = "edm",
) -> RunSettings:
    """A run's settings for this set, before its length is known (`seen` is the least).

    `base`: a base model's name, "auto" for one that fits, "none". Raises UsageError where the one named does not fit, and for
    a `process` that is on no menu.
    """
    if process not in PROCESSES:
        raise UsageError(f"--process: {process!r} is not known", "Choose " + ", ".join(PROCESSES) + ".")
    frame = prepared.frame
    channels, classes = frame.form.channels, len(prepared.classes)
    patch = patch_of(frame.net_size)
    spread = float(data.x0.std())
    smallest = min(prepared.counts.values())
    unet = UNetSettings(channels, classes, width=width, patch=patch, warp=warping.WIDTH)
    start = _base(base, unet, frame.net_size, process)
    training = TrainSettings(LEAST_SEEN, seed=seed)
    if start is not None:
        training = replace(training, seen=LEAST_TUNED, rate=TUNING_RATE)
    return RunSettings(
        version=__version__,
        date=date,
        classes=prepared.classes,
        counts=prepared.counts,
        size=frame.size,
        fit=frame.fit,
        form=frame.form,
        intensity=frame.intensity,
        sigma_data=spread,
        process=process,
        process_settings=PROCESS_SETTINGS.get(process, {}),
        unet=unet,
        classifier=ClassifierSettings(channels, classes, spread, patch=patch),
        train=training,
        base=start.name if start else "",
        base_sha256=start.sha256 if start else "",
        warp=replace(warping.strong(smallest), flip=flip),
        classifier_seen=CLASSIFIER_SEEN[0],
        holdout=tuple(sorted(record_key(record) for record in prepared.splits.holdout)),
        patients_known=prepared.splits.patients_known,
        inputs=prepared.fingerprint,
        threads=torch.get_num_threads(),
        computes_in=kind_to_keep(data.x0.device),
        label_tag=prepared.scan.ask.label_tag,
    )


def _base(base: str, unet: UNetSettings, size: tuple[int, int], process: str) -> bases.Base | None:
    if base == "none" or (base == "auto" and process != BASE_PROCESS):
        return None
    if process != BASE_PROCESS:
        raise UsageError(
            f"--base {base}: base models are {BASE_PROCESS} models, and --process {process} predicts something else",
            f"Use --base none, or --process {BASE_PROCESS}.",
        )
    if base == "auto":
        return bases.fitting(unet, size)
    found = bases.named(base)
    bases.require_fit(found, unet)
    return found


def measure(settings: RunSettings, data: Pictures, device: torch.device, *, steps: int = 4) -> Pace:
    """The pace of a few true training steps of fresh networks of these settings."""
    state = begin(new_model(settings, device), settings.train)
    empty = Pictures(data.x0[:0], data.label[:0])
    ticks = train(state, data, empty, settings.train, warp=settings.warp, tick_every=1)
    denoiser = settings.train.batch / typical(lambda: next(ticks), steps)
    classify = ClassifySettings(10**6, NOISE_AWARE)
    several = train_classifier(new_classifier(settings, device, seed=0), data, classify, warp=CLASSIFIER_WARP)
    return Pace(denoiser, 10 * classify.batch / typical(lambda: next(several), 2))


def typical(step: Callable[[], object], times: int) -> float:
    """Median seconds of `times` calls after a first one, which pays for what is only done once."""
    step()
    spans = []
    for _ in range(times):
        started = time.perf_counter()
        step()
        spans.append(time.perf_counter() - started)
    return statistics.median(spans)


def fitted(
    settings: RunSettings, data: Pictures, device: torch.device, *, seconds: float | None, seen: int | None
) -> tuple[RunSettings, Pace]:
    """(settings whose training sees `seen` images, or takes `seconds`; its measured pace). Raises what `fit_to_budget` raises."""
    if seen is not None:
        found = of_length(settings, seen)
        return found, measure(_in_batches_of(found, settings), data, device)
    pace = measure(settings, data, device)
    found = fit_to_budget(settings, pace, seconds=seconds)
    if found.train.batch != settings.train.batch:  # smaller batches have a pace of their own
        settings = _in_batches_of(found, settings)
        pace = measure(settings, data, device)
        found = fit_to_budget(settings, pace, seconds=seconds)
    return found, pace


def _in_batches_of(other: RunSettings, settings: RunSettings) -> RunSettings:
    """`settings` with the batches of `other`: a training of few images may end before it is timed."""
    return settings.model_copy(update={"train": replace(settings.train, batch=other.train.batch)})


def of_length(settings: RunSettings, seen: int, classifier_seen: int | None = None) -> RunSettings:
    """Settings whose training sees `seen` images, in small batches where those are few."""
    if classifier_seen is None:
        classifier_seen = min(max(seen // 3, CLASSIFIER_SEEN[0]), CLASSIFIER_SEEN[1])
    batch = min(settings.train.batch, SMALL_BATCH) if seen < SHORT else settings.train.batch
    train = replace(settings.train, seen=seen, batch=batch)
    return settings.model_copy(update={"train": train, "classifier_seen": classifier_seen})


def fit_to_budget(settings: RunSettings, pace: Pace, *, seconds: float | None) -> RunSettings:
    """Settings whose training takes `seconds` at this pace. Raises NeedsTraining where `settings.train.seen` images would take longer."""
    if seconds is None:
        raise ValueError("either a number of images or a time is needed")
    low, high = CLASSIFIER_SEEN
    classifier_seen = min(max(int(pace.classifier * seconds * CLASSIFIER_SHARE), low), high)
    possible = int((seconds / OVERHEAD - 2 * classifier_seen / pace.classifier) * pace.denoiser)
    least = settings.train.seen
    if possible < least:
        minutes = -(-pace.seconds(least, low) // 60)
        error = NeedsTraining(
            f"training: the budget of {seconds / 60:.3g} min is too short: on this machine this set needs {minutes:.0f} min at least "
            f"(measured: {pace.denoiser:.0f} training images a second)",
            f"Say --budget {minutes:.0f}m, or choose a smaller --size.",
        )
        error.seconds = 60 * minutes
        raise error
    return of_length(settings, possible, classifier_seen)


def seconds_per_evaluation(settings: RunSettings, device: torch.device, block: int) -> float:
    """Median seconds of one U-Net evaluation of one image, in blocks, measured on fresh weights."""
    denoise = for_inference(new_model(settings, device), device).bind(
        Cond(torch.zeros(block, dtype=torch.int64, device=device))
    )
    x = torch.zeros((block, *settings.shape), device=device)

    def once() -> None:
        with bf16(device):
            denoise(x, 1.0)

    return typical(once, 3) / block
