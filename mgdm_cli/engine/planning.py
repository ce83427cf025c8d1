"""From a set, a run and a recipe to a plan, and from a plan to the works that carry it out."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import JsonValue

from mgdm_cli import __version__
from mgdm_cli.data.allotment import Allotment
from mgdm_cli.data.codecs import output_form, suffix
from mgdm_cli.data.folder import learnt
from mgdm_cli.data.manifest import InputRow
from mgdm_cli.data.plan import LOT, Filters, Machine, Models, Plan, Recipe, Skill, Statement, cut
from mgdm_cli.data.splits import patient_key
from mgdm_cli.diffusion.guidance import OF_MEMBERS
from mgdm_cli.diffusion.process import edm
from mgdm_cli.diffusion.samplers import BOUNDS, SAMPLERS, Bound
from mgdm_cli.errors import BadInput, GateFailed, UsageError
from mgdm_cli.metrics.copies import Calibration, CopyScorer, calibrate

from . import weights
from .decoding import GUIDANCE, TERM_OF, TWO_STAGES, UNSTAGED, Parts
from .deriving import tail
from .device import describe, kind_of
from .gates import Gates
from .generation import Works
from .preparing import Prepared, pictures
from .run import GUIDE, JUDGE, RunSettings, process_of
from .student import SAMPLER

LARGEST = 1000.0  # of a scale, a strength, a knob without a bound of its own: beyond what any is good for, but a number to work with
LEAST_ACCEPTANCE = 12  # blocks a lot may take for each block that would do if every candidate passed
LIBRARIES = ("torch", "numpy", "pillow", "pydicom", "nibabel", "pypng", "tifffile")


@dataclass(frozen=True)
class Drawing:
    """How images are drawn: a sampler, its steps, the scale of guidance, the sampler's knobs."""

    sampler: str
    steps: int
    scale: float
    knobs: Mapping[str, float] = field(default_factory=dict)


def drawing_of(
    settings: RunSettings | None,
    sampler: str | None,
    steps: int | None,
    scale: float | None,
    knobs: Mapping[str, float],
    *,
    usual: Drawing,
) -> Drawing:
    """What was said, and `usual` for what was not; of a student its own grid, with the guidance that is in it already.

    The usual knobs are those of the usual sampler: one that was named has its paper's.
    `settings` is None where the run has still to be trained. Raises UsageError where a student is asked for what it was not
    distilled for.
    """
    require_usable("--scale", scale)
    student = settings.student if settings else None
    if student is not None:
        usual = Drawing(SAMPLER, student.steps, 1.0)
        if steps not in (None, student.steps):
            raise UsageError(
                f"--steps: this student makes an image in {student.steps} steps and no other number",
                "Leave --steps out, or distil another student.",
            )
        if scale not in (None, 1.0):
            raise UsageError(
                f"--scale: guidance of scale {student.scale:g} is in this student, and no more can be had",
                "Leave --scale out, or distil another student with --scale.",
            )
    return Drawing(
        usual.sampler if sampler is None else sampler,
        usual.steps if steps is None else steps,
        usual.scale if scale is None else scale,
        {**(usual.knobs if sampler is None else {}), **knobs},
    )


def recipe_of(
    settings: RunSettings,
    *,
    guidance: str,
    strength: float,
    mode: str,
    candidates: int,
    sampler: str,
    steps: int,
    scale: float,
    between: tuple[float, float],
    scale_between: tuple[float, float],
    knobs: dict[str, float],
    temperature: float | None,
    filters: Filters,
    on: Literal["x", "x0"] = "x",
    depth: float | None = None,
    siblings: Sequence[str] = (),
) -> Recipe:
    """The recipe in these words; `siblings` are the hashes of the guide's. Raises UsageError where `require_recipe` and `acting` do."""
    require_recipe(
        settings, guidance=guidance, strength=strength, mode=mode, sampler=sampler, scale=scale, knobs=knobs,
        filters=filters, depth=depth,
    )  # fmt: skip
    staged = guidance not in UNSTAGED
    between = acting(
        settings, guidance=guidance, strength=strength, mode=mode, steps=steps, scale=scale, between=between,
        scale_between=scale_between, depth=depth,
    )  # fmt: skip
    extra: dict[str, JsonValue] = {} if depth is None else {"depth": depth}
    if TERM_OF.get(guidance) in OF_MEMBERS:
        extra["siblings"] = list(siblings)
    return Recipe(
        process=settings.process, sampler=sampler, steps=steps, knobs=knobs,
        scale=1.0 if guidance == "none" else scale, scale_between=scale_between,
        guidance=guidance, strength=strength if staged else 0.0, between=between if staged else None,
        on=on if staged else "x",
        mode="select" if mode == "select" else "guide", candidates=candidates if mode == "select" else 1,
        temperature=temperature, filters=filters, extra=extra,
    )  # fmt: skip


def require_recipe(
    settings: RunSettings | None,
    *,
    guidance: str,
    strength: float,
    mode: str,
    sampler: str,
    scale: float,
    knobs: dict[str, float],
    filters: Filters,
    depth: float | None,
) -> None:
    """Raises UsageError for names that are on no menu, and for what does not go together.

    `settings` is None where the run has still to be trained: it will be no student, and have a null class.
    """
    for flag, name, menu in (("--guidance", guidance, GUIDANCE), ("--sampler", sampler, tuple(SAMPLERS))):
        if name not in menu:
            near = get_close_matches(name, menu, 1)
            meant = f"Did you mean {near[0]}?" if near else "Choose " + ", ".join(menu) + "."
            raise UsageError(f"{flag}: {name!r} is not known", meant)
    if mode == "select" and guidance not in TWO_STAGES:
        raise UsageError("--mode select needs an uncertainty to select by", "Use --guidance uncertainty.")
    student = settings is not None and settings.student is not None
    if guidance == "auto" and student:
        raise UsageError("--guidance auto: a student has no weaker self", "Leave --guidance out, or use the teacher.")
    _known_knobs(sampler, knobs)
    if guidance not in ("none", "auto") and scale != 1 and settings is not None and settings.train.drop_label == 0:
        raise UsageError("--scale: this model was trained without a null class", "Use --scale 1.")
    if depth is not None and student:
        raise UsageError(
            "--source real: a student knows no way back from a picture", "Use the run it was distilled from."
        )
    if depth is not None:
        _can_derive(guidance, strength, mode, scale, sampler, filters)


def acting(
    settings: RunSettings | None,
    *,
    guidance: str,
    strength: float,
    mode: str,
    steps: int,
    scale: float,
    between: tuple[float, float],
    scale_between: tuple[float, float],
    depth: float | None,
) -> tuple[float, float]:
    """The sigmas in which the pull acts: `between`, for a student up to its last level where that lies above.

    Raises UsageError where the pull or the scale would change nothing, as no level of the grid lies in its interval.
    `settings` is None where the run has still to be trained.
    """
    process = edm() if settings is None else process_of(settings)
    levels = (process.grid(steps) if depth is None else tail(process, steps, depth))[:-1]
    student = settings is not None and settings.student is not None
    if depth is None and guidance != "none" and scale != 1 and not _holds(scale_between, levels):
        raise UsageError(
            f"--scale {scale:g}: guidance acts at noise levels from {scale_between[0]:g} to {scale_between[1]:g}, "
            f"and with --steps {steps} none is there",
            "Use more --steps, or --scale 1.",
        )
    at_once = student and steps == 1  # the starting noise is moved then, whatever its level
    if guidance in UNSTAGED or strength == 0 or mode == "select" or at_once:
        return between
    if student:  # it has few levels, and the last of two lies a little above those that the guide learnt
        between = (between[0], max(between[1], levels[-1]))
    if not _holds(between, levels):
        way = "" if depth is None else f" and --depth {depth:g}"
        hint = "Use more --steps, or --guidance cfg." if depth is None else "Use a larger --depth, or more --steps."
        raise UsageError(
            f"--guidance {guidance}: the pull acts at noise levels from {between[0]:g} to {between[1]:g}, "
            f"and with --steps {steps}{way} none is there",
            hint,
        )
    return between


def reaches(settings: RunSettings, steps: int, between: tuple[float, float]) -> bool:
    """Whether a level of the run's grid of so many steps lies in the interval."""
    return _holds(between, process_of(settings).grid(steps)[:-1])


def _holds(between: tuple[float, float], levels: Sequence[float]) -> bool:
    return any(between[0] <= level <= between[1] for level in levels)


def _can_derive(guidance: str, strength: float, mode: str, scale: float, sampler: str, filters: Filters) -> None:
    """Raises UsageError for what does not go with images made from real ones."""
    if guidance in UNSTAGED or strength == 0:
        raise UsageError(
            "--source real: without a classifier's pull the real images themselves would come back",
            "Use --guidance uncertainty and a --strength above 0.",
        )
    if filters.copy_alpha is None or not filters.label:
        raise UsageError("--source real: the gates cannot be switched off", "Leave --no-filters out.")
    if mode == "select":
        raise UsageError("--source real: there are no seeds to select from", "Use --mode guide.")
    if scale > 1:
        raise UsageError(
            f"--scale {scale:g}: from real images the scale is that of CFG++, below 1; at 1 it is off", "Leave it out."
        )
    if sampler != "ddim":
        raise UsageError(f"--sampler {sampler}: real images are inverted and decoded by ddim", "Leave it out.")


def _known_knobs(sampler: str, knobs: dict[str, float]) -> None:
    """Raises UsageError for a knob that the sampler does not have, or a value that it cannot take."""
    words = inspect.signature(SAMPLERS[sampler]).parameters.values()
    menu = [word.name for word in words if word.kind is word.KEYWORD_ONLY and word.name != "randn_like"]
    for name, value in knobs.items():
        if name not in menu:
            hint = f"It has {', '.join(menu)}." if menu else "It has none."
            raise UsageError(f"--knob: {sampler} has no knob {name!r}", hint)
        bound = BOUNDS.get((sampler, name), Bound(0, LARGEST))
        if not bound.lo <= value <= bound.hi or (bound.whole and value != int(value)):
            hint = f"Give a {'whole ' if bound.whole else ''}number from {bound.lo:g} to {bound.hi:g}."
            raise UsageError(f"--knob {name}={value:g}: {sampler} cannot take it", hint)


def require_usable(flag: str, value: float | None) -> None:
    """Raises UsageError where the number of a flag is nan, inf or beyond all use, which the bounds of a flag let pass."""
    if value is not None and not abs(value) <= LARGEST:
        raise UsageError(f"{flag}: {value:g} cannot be worked with", f"Give a number up to {LARGEST:g}.")


def default_block(device: torch.device) -> int:
    """Candidates computed as one batch. On a CPU 16 are a little cheaper each, but of every lot up to a block is made in vain."""
    return 8 if device.type == "cpu" else 64


def versions_here() -> dict[str, str]:
    """Of this program and of the libraries that bits depend on, by name."""
    return {"mgdm": __version__, **{name: version(name) for name in LIBRARIES}}


def machine_of(device: torch.device) -> Machine:
    """This machine, as far as bits depend on it."""
    return Machine(
        device=describe(device),
        cpu_capability=torch.backends.cpu.get_cpu_capability(),
        threads=torch.get_num_threads(),
        computes_in=kind_of(device),
    )


def plan_of(
    settings: RunSettings,
    allotment: Allotment,
    recipe: Recipe,
    *,
    hashes: dict[str, str],
    seed: int,
    block: int,
    balance: str,
    max_per_real: float,
    device: torch.device,
    statement: Statement,
    command: str = "augment",
    write_as: str | None = None,
    skill: Mapping[str, Skill] | None = None,
) -> Plan:
    """The plan: everything that decides the bytes of the data set."""
    form = output_form(settings.form, write_as)
    return Plan(
        command=command,
        versions=versions_here(),
        machine=machine_of(device),
        seed=seed,
        block=block,
        max_attempts=LEAST_ACCEPTANCE * math.ceil(LOT / block),
        classes=settings.classes,
        real=settings.counts,
        asked=allotment.asked,
        balance=balance,
        max_per_real=max_per_real,
        lots=cut(allotment.quotas, settings.classes),
        form=form,
        suffix=suffix(form),
        size=settings.frame.net_size,
        intensity=settings.intensity.model_dump(mode="json"),
        models=Models(denoiser=hashes["denoiser"], classifier=hashes["guide"], judge=hashes["judge"]),
        recipe=recipe,
        inputs=settings.inputs,
        date=settings.date,
        statement=statement,
        label_tag=settings.label_tag if form.codec == "dicom" else None,
        patients_known=settings.patients_known,
        skill=dict(skill or {}),
    )


def copy_gate(prepared: Prepared, *, alpha: float) -> tuple[CopyScorer, Calibration]:
    """The copy scorer over the training split and its calibration, by the holdout where that is large enough."""
    device = torch.device("cpu")
    train = pictures(prepared, prepared.splits.train, device).x0.numpy()
    holdout = pictures(prepared, prepared.splits.holdout, device).x0.numpy()
    patients = [patient_key(record) for record in prepared.splits.train]
    scorer = CopyScorer(np.ascontiguousarray(train), groups=patients)
    return scorer, calibrate(scorer, holdout, alpha=alpha)


def require_copy_gate(gate: tuple[CopyScorer, Calibration] | None) -> None:
    """Raises BadInput where images made from real ones could not be held against them."""
    if gate is None or gate[1].threshold.value is None:
        why = gate[1].threshold.reason if gate else "it is off"
        raise BadInput(
            f"--source real: the copy gate is needed, and {why}", "Give more images, or leave --source real out."
        )


def works_of(plan: Plan, parts: Parts, settings: RunSettings, gate: tuple[CopyScorer, Calibration] | None) -> Works:
    """All that the plan needs to be carried out."""
    if parts.judge is None:
        raise ValueError("a plan needs a judge")
    if plan.recipe.guidance == "auto" and parts.weak is None:
        raise UsageError("--guidance auto: this run has no weak model beside its own", "Train it again, or use cfg.")
    scorer, calibration = gate if gate else (None, None)
    filters = plan.recipe.filters
    gates = Gates(
        parts.judge, plan.classes, label=filters.label, blank=filters.blank, scorer=scorer, calibration=calibration
    )
    return Works(plan, parts, replace(settings.frame, form=plan.form), gates)


def require_skill(folder: Path, guidance: str) -> dict[str, Skill]:
    """What guide and judge are worth on the holdout. Raises GateFailed where a guide that is followed does not beat chance.

    Below that the classifier's uncertainty is noise, and following it would be too.
    """
    found = {}
    for name, file in (("guide", GUIDE), ("judge", JUDGE)):
        header = weights.load(folder / file)[1]
        accuracy, lo, hi = (float(v) for v in header["accuracy"])
        found[name] = Skill(accuracy=accuracy, lo=lo, hi=hi, chance=float(header["chance"]))
    if guidance not in UNSTAGED and not found["guide"].beats_chance:
        raise GateFailed(
            f"guidance {guidance}: the classifier does not beat chance: {found['guide']}; its uncertainty would be noise",
            "Use --guidance cfg or none, give more images, or a model that was trained longer: mgdm train, then --model RUN.",
        )
    return found


def input_rows(prepared: Prepared) -> list[InputRow]:
    """The real rows of combined.csv."""
    return [
        InputRow(path=record.path, label=str(record.label), split=record.split or "train", part=record.part)
        for record in learnt(prepared.scan.records)
        if record.label is not None
    ]
