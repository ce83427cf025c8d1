"""Distillation: a trained run teaches a student that needs one or a few answers an image. A run folder like any other comes out."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from mgdm_cli.diffusion.types import Cond
from mgdm_cli.errors import NeedsTraining
from mgdm_cli.nets.critic import Critic, CriticSettings, Head

from . import weights
from .device import kind_to_keep, step_seed
from .lessons import ALONE, BINS, Batch, Learner, State, Teacher, pool_for, take
from .preparing import Prepared, pictures
from .pretraining import Event, forget_checkpoints, kept
from .run import DENOISER, GUIDE, JUDGE, RunSettings, denoiser_header, new_model, read_settings
from .sizing import OVERHEAD, typical
from .student import StudentSettings
from .training import TICK, Pictures, Tick, class_weights, drawn, undisturbed

LEAST_SEEN = 2_000  # training images below which a student is not worth its name


def settings_of(teacher: RunSettings, student: StudentSettings, device: torch.device) -> RunSettings:
    """A student's run: its teacher's settings, with its own beside them, and how it is computed here."""
    unet = replace(teacher.unet, latent=student.latent, dropout=0.0)
    here = {"threads": torch.get_num_threads(), "computes_in": kind_to_keep(device)}
    return teacher.model_copy(update={"student": student, "unet": unet, **here})


def load_teacher(folder: Path, student: StudentSettings, device: torch.device) -> Teacher:
    """The teacher of `student` in its run folder."""
    settings = read_settings(folder)
    model = new_model(settings, device)
    model.net.load_state_dict(
        weights.load(folder / DENOISER)[0]
    )  # in full precision: students begin with these weights
    model.requires_grad_(False).eval()
    return Teacher(model, student.scale, student.between)


def begin(settings: RunSettings, teacher: Teacher, device: torch.device) -> State:
    """Nets and optimizers before the first step: the student has its teacher's weights, unless it starts from scratch."""
    student = _student(settings)
    model = new_model(settings, device)
    if not student.scratch:
        model.net.load_state_dict({**model.net.state_dict(), **teacher.model.net.state_dict()})
    model.eval()  # no dropout: two answers on one path may differ by their place on it alone
    average = {k: v.detach().clone() for k, v in model.net.state_dict().items()}
    learners = {"student": _learner(model.net, student.rate, student)}
    learners["student"].average = average
    torch.manual_seed(student.seed + 1)
    if student.method == "paths":
        return State(model, learners, pool_for(settings.shape))
    if student.method == "fdistill":
        fake = copy.deepcopy(teacher.model.net).requires_grad_(True)
        head = Head(settings.unet.width * settings.unet.widths[-1], settings.unet.classes).to(device)
        learners |= {
            "fake": _learner(fake, student.rate, student),
            "critic": _learner(head, student.critic_rate, student),
        }
        return State(model, learners, {"ratio": torch.ones(BINS)})
    if student.method == "ddgan":
        unet = settings.unet
        critic = Critic(CriticSettings(unet.channels, unet.classes, settings.sigma_data, patch=unet.patch))
        critic = critic.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        learners["critic"] = _learner(critic, student.critic_rate, student)
    return State(model, learners)


def _learner(net: nn.Module, rate: float, student: StudentSettings) -> Learner:
    """Adam with the short memory that opponents need, and a longer one where there are none."""
    betas = (0.9, 0.99) if student.method in ("paths", "consistency") else (0.5, 0.99)
    return Learner(net, torch.optim.AdamW(net.parameters(), lr=rate, betas=betas, weight_decay=0.0), rate)


def lessons(
    state: State, teacher: Teacher, data: Pictures, settings: RunSettings, *, tick_every: int = TICK
) -> Iterator[Tick]:
    """Train until the student's images are seen; yields every `tick_every` steps. The draw of step s depends on (seed, s) alone."""
    student = _student(settings)
    draw_from = class_weights(data.label, student.balance)
    started, losses = time.monotonic(), list[torch.Tensor]()
    while state.step < student.training_steps:
        with undisturbed(state):
            loss = take(state, _batch(data, draw_from, settings, state.step), teacher, student)
            losses += [] if loss is None else [loss]
        if state.step % tick_every == 0 or state.step == student.training_steps:
            mean = float(torch.stack(losses).mean()) if losses else None
            if mean is not None and not math.isfinite(mean):
                raise FloatingPointError(f"the loss is {mean} at step {state.step}")
            yield Tick(state.step * student.batch, mean, None, time.monotonic() - started)
            losses = []


def _batch(data: Pictures, draw_from: torch.Tensor, settings: RunSettings, step: int) -> Batch:
    student = _student(settings)
    generator = torch.Generator().manual_seed(step_seed(student.seed, step))
    x0, label, told = drawn(data, draw_from, student.batch, settings.warp, generator)
    return Batch(x0, Cond(label, told), generator)


def distill(
    folder: Path,
    source: Path,
    prepared: Prepared,
    settings: RunSettings,
    device: torch.device,
    *,
    save_every: float = 300.0,
) -> Iterator[Event]:
    """Make the student in `folder` from the run in `source`. The same settings give the same weights, however often interrupted."""
    student = _student(settings)
    for name in (GUIDE, JUDGE):
        weights.copied(source / name, folder / name)
    teacher = load_teacher(source, student, device)
    state = begin(settings, teacher, device)
    data = pictures(prepared, prepared.splits.train, device)
    ticks = lessons(state, teacher, data, settings)
    yield from kept(folder, "student", state, ticks, student, save_every=save_every)
    header = denoiser_header(settings, teacher=student.teacher, weak=None)
    weights.save(folder / DENOISER, state.learners["student"].average, header)
    forget_checkpoints(folder)


def pace(settings: RunSettings, teacher: Teacher, data: Pictures, device: torch.device, *, steps: int = 6) -> float:
    """Training images a second, measured on a few true steps of a student that is thrown away: past the ones its critic takes alone."""
    state = begin(settings, teacher, device)
    state.step = math.ceil(_student(settings).training_steps * ALONE)
    ticks = lessons(state, teacher, data, settings, tick_every=3)
    return 3 * _student(settings).batch / typical(lambda: next(ticks), max(steps // 3, 1))


def within(student: StudentSettings, images_per_second: float, seconds: float) -> StudentSettings:
    """The student's settings for a training of `seconds`. Raises NeedsTraining where that is too short."""
    seen = int(images_per_second * seconds / OVERHEAD)
    if seen < LEAST_SEEN:
        minutes = math.ceil(LEAST_SEEN / images_per_second * OVERHEAD / 60)
        raise NeedsTraining(
            f"distill: {seconds:.0f} seconds are too short: {images_per_second:.0f} images a second here",
            f"Say --budget {minutes}m or more.",
        )
    return replace(student, seen=seen)


def _student(settings: RunSettings) -> StudentSettings:
    assert settings.student is not None
    return settings.student
