"""`mgdm distill`: a student of a trained run, which makes an image in one or a few steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mgdm_cli import console
from mgdm_cli.commands import options, values
from mgdm_cli.commands.completing import known_scale, suited_scale
from mgdm_cli.commands.computing import device_of
from mgdm_cli.commands.modelling import as_begun, prepare, require_trained
from mgdm_cli.commands.reading import Source, keep_settings, reads_images, refuse_inside
from mgdm_cli.console import Result, finish
from mgdm_cli.errors import NeedsTraining, OtherPlan, UsageError

if TYPE_CHECKING:
    import torch

    from mgdm_cli.engine.preparing import Prepared
    from mgdm_cli.engine.pretraining import Event
    from mgdm_cli.engine.run import RunSettings
    from mgdm_cli.engine.scaling import Scale
    from mgdm_cli.engine.student import StudentSettings

Method = Literal["paths", "consistency", "fdistill", "ddgan"]
METHOD: Method = "paths"
DEFAULT_BUDGET = 600.0  # seconds, where a person watches
STUDENT = "Student"  # panel of the help text


def run(
    source: Source,
    teacher: Path,
    *,
    out: Path,
    method: str = METHOD,
    steps: int | None = None,
    divergence: str | None = None,
    scale: float | None = None,
    scratch: bool = False,
    budget: str | None = None,
    seen: int | None = None,
    seed: int = 0,
    device: str = "auto",
    save_every: str = options.SAVE_EVERY,
    dry_run: bool = False,
    flags: Mapping[str, Any] | None = None,
) -> Result:
    """Distil a student of `teacher` into `out`, or continue the one there. Raises NeedsTraining, OtherPlan, UsageError.

    `flags` go to config.resolved.toml.
    """
    from mgdm_cli.data.plan import SCALE_BETWEEN
    from mgdm_cli.engine.run import SETTINGS, read_settings
    from mgdm_cli.engine.scaling import UNMEASURED, Scale

    refuse_inside(out, source.data)
    where = device_of(device, settled=(out / SETTINGS).is_file())
    settings = read_settings(teacher)
    if settings.student is not None:
        raise UsageError(f"{teacher.name}: is a student itself", "Name the run it was distilled from.")
    # Refuses what is on no menu before the set is read and a scale is measured.
    said = Scale(1.0 if scale is None else scale, SCALE_BETWEEN)
    asked = student_of(teacher, settings, method, steps, divergence, said, scratch, seed)
    height, width = settings.size
    framed = replace(source, size=f"{height}x{width}", fit=settings.fit)
    prepared = prepare(framed, seed=settings.train.seed)
    if prepared.fingerprint != settings.inputs:
        raise OtherPlan(
            f"model: {teacher.name}: was trained on other images, or on images read in another way",
            "Give the --data, and the flags for reading it, that it was trained with.",
        )
    if scale is None:
        if dry_run:  # writes nothing, so it measures nothing
            suits = known_scale(teacher, settings) or UNMEASURED
        else:
            suits = suited_scale(teacher, prepared, settings, where)
        asked = replace(asked, scale=suits.scale, between=suits.between)
    told = _told(out, asked)
    if told is None:
        student, seconds = _fitted(teacher, settings, asked, prepared, where, budget, seen)
        if dry_run:
            return _foreseen(student, seconds)
        console.say(f"distilling: {student.seen} images seen, about {console.clock_text(seconds)}")
    else:
        student = told
        if dry_run:
            return Result({"dry_run": True, "seen": student.seen}, (f"would continue the student in {out}",))
    trained = _into(out, teacher, prepared, settings, student, where, values.seconds_of(save_every) or 0.0)
    keep_settings(out, flags)
    return _made(out, trained)


def student_of(
    teacher: Path,
    settings: RunSettings,
    method: str,
    steps: int | None,
    divergence: str | None,
    guidance: Scale,
    scratch: bool,
    seed: int,
) -> StudentSettings:
    """What these flags ask for, its length not yet known. Raises UsageError for what is on no menu."""
    from mgdm_cli.data.files import sha256_file
    from mgdm_cli.diffusion.divergence import DIVERGENCES
    from mgdm_cli.engine import student as students
    from mgdm_cli.engine.planning import require_usable
    from mgdm_cli.engine.run import DENOISER, process_of

    require_usable("--scale", guidance.scale)
    require_trained(teacher)
    if method not in students.METHODS:
        raise UsageError(f"--method: {method!r} is not known", "Choose " + ", ".join(students.METHODS) + ".")
    if divergence is not None and (method != "fdistill" or divergence not in DIVERGENCES):
        raise UsageError(
            f"--divergence: {divergence!r} is not known to {method}",
            "With --method fdistill choose " + ", ".join(DIVERGENCES) + ".",
        )
    if scratch and method != "ddgan":
        raise UsageError(f"--from-scratch: {method} starts from its teacher", "Use it with --method ddgan.")
    if guidance.scale != 1 and not settings.train.drop_label:
        raise UsageError("--scale: this model was trained without a null class", "Use --scale 1.")
    grid = students.grid_of(method, steps or students.USUAL_STEPS[method], process_of(settings))
    asked = students.StudentSettings(
        method, grid, sha256_file(teacher / DENOISER), guidance.scale, guidance.between, 0, scratch=scratch, seed=seed
    )
    if method == "fdistill":
        return replace(asked, divergence=divergence or students.DIVERGENCE)
    return replace(asked, latent=students.LATENT) if method == "ddgan" else asked


def _told(out: Path, asked: StudentSettings) -> StudentSettings | None:
    """The student that was begun in `out`, if one was. Raises OtherPlan where the folder holds anything else."""
    from mgdm_cli.data.files import holds_other
    from mgdm_cli.engine.run import SETTINGS, read_settings

    if not (out / SETTINGS).exists():
        if holds_other(out, ("lock",)):
            raise OtherPlan(f"{out.name}: is not empty and is no student of mgdm", "Choose another folder.")
        return None
    student = read_settings(out).student
    if student is None or replace(student, seen=0) != asked:
        raise OtherPlan(f"{out.name}: holds a run, or a student distilled in another way", "Choose another folder.")
    return student


def _fitted(
    teacher: Path,
    settings: RunSettings,
    asked: StudentSettings,
    prepared: Prepared,
    device: torch.device,
    budget: str | None,
    seen: int | None,
) -> tuple[StudentSettings, float]:
    """(the student with its length, seconds that takes here), from measured steps."""
    import sys

    from mgdm_cli.engine import distilling
    from mgdm_cli.engine.preparing import pictures

    seconds = values.seconds_of(budget)
    if seconds is None and seen is None:
        if not sys.stderr.isatty():
            raise NeedsTraining("distill: no --budget says how long it may take", "Say --budget 10m.")
        seconds = DEFAULT_BUDGET
    long = replace(asked, seen=10**6)
    data = pictures(prepared, prepared.splits.train, device)
    pace = distilling.pace(
        distilling.settings_of(settings, long, device),
        distilling.load_teacher(teacher, long, device),
        data,
        device,
    )
    if seen is not None:
        return replace(asked, seen=seen), seen / pace
    assert seconds is not None
    return distilling.within(asked, pace, seconds), seconds


def _into(
    out: Path,
    teacher: Path,
    prepared: Prepared,
    settings: RunSettings,
    student: StudentSettings,
    device: torch.device,
    save_every: float,
) -> RunSettings:
    """Begin or continue the student in `out` until it is done; its settings."""

    from mgdm_cli.data.files import Lock, make_dirs
    from mgdm_cli.engine import distilling
    from mgdm_cli.engine.run import SETTINGS, is_trained, read_settings, write_settings

    make_dirs(out)
    with Lock(out / "lock"):
        if (out / SETTINGS).exists():
            mine = read_settings(out)
        else:
            mine = distilling.settings_of(settings, student, device)
            write_settings(out, mine)
        if not is_trained(out):
            with as_begun(mine):
                _drain(distilling.distill(out, teacher, prepared, mine, device, save_every=save_every))
    return mine


def _drain(events: Iterator[Event]) -> None:
    """Say what happens: notes first, then where the training begins, then how it goes."""
    first = next(events)
    while first.what == "note":
        console.say(first.note)
        first = next(events)
    at = min(first.seen, first.of)
    with console.progress("distil the student", first.of, "images", done=at) as bar:
        for event in events:
            now = min(event.seen, event.of)
            bar.advance(now - at, "" if event.loss is None else f"loss {event.loss:.4f}")
            at = now


def _foreseen(student: StudentSettings, seconds: float) -> Result:
    document: dict[str, Any] = {
        "dry_run": True,
        "method": student.method,
        "steps": student.steps,
        "seen": student.seen,
        "seconds": round(seconds),
    }
    return Result(
        document, (f"would see {student.seen} images in about {console.clock_text(seconds)}; nothing was written",)
    )


def _made(out: Path, settings: RunSettings) -> Result:
    student = settings.student
    assert student is not None
    document = {
        "run": out,
        "method": student.method,
        "divergence": student.divergence or None,
        "steps": student.steps,
        "scale": student.scale,
        "seen": student.seen,
        "teacher_sha256": student.teacher,
    }
    return Result(
        document,
        (
            f"distilled: {out}, {student.steps} step{'s' * (student.steps > 1)} an image",
            f"Next: mgdm sample {quote(str(out))} --labels {quote(settings.classes[0] + '=16')} -o samples, or mgdm augment "
            f"--model {quote(str(out))}",
        ),
    )


@reads_images(but=("size", "fit", "require_patient_id"))
def command(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="Folder that train wrote: the teacher.")],
    source: Source,
    out: Annotated[
        Path,
        typer.Option("--out", "-o", metavar="STUDENT", help="Folder of the student.", rich_help_panel=options.OUTPUT),
    ],
    method: Annotated[
        Method,
        typer.Option(
            "--method",
            help="By the ends of the teacher's paths; by neighbours on them; by matching its law; by an adversary a step.",
            rich_help_panel=STUDENT,
        ),
    ] = METHOD,
    steps: Annotated[
        int | None,
        typer.Option(
            "--steps",
            min=1,
            help="Steps an image: paths 1; consistency and fdistill 1, 2 or 4, as a rule 1; ddgan 1, 2, 4 or 8, as a rule 4.",
            rich_help_panel=STUDENT,
        ),
    ] = None,
    divergence: Annotated[
        str | None,
        typer.Option(
            "--divergence",
            metavar="NAME",
            help="Of fdistill: js (as a rule), fkl, rkl, srkl, sh, jeffreys or neyman.",
            rich_help_panel=STUDENT,
        ),
    ] = None,
    scale: Annotated[
        float | None,
        typer.Option(
            "--scale",
            min=0.0,
            help="Scale of the classifier-free guidance that the student takes over; 1 is off; as a rule the one that suits the run.",
            rich_help_panel=STUDENT,
        ),
    ] = None,
    scratch: Annotated[
        bool,
        typer.Option(
            "--from-scratch", help="Begin with fresh weights, not the teacher's (ddgan).", rich_help_panel=STUDENT
        ),
    ] = False,
    budget: options.Budget = None,
    seen: options.Seen = None,
    save_every: options.SaveEvery = options.SAVE_EVERY,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    dry_run: options.DryRun = False,
) -> None:
    """A student of a trained run: sample and augment use it with the same flags, in one or a few steps an image.

    The same command continues a distillation that was stopped, and ends with the same weights. --data is the set that the
    run was trained on; size and fit come from the run.

    \b
    mgdm distill runs/fundus --data ./fundus --budget 10m -o runs/fundus-fast
    mgdm distill runs/fundus --data ./fundus --method ddgan --budget 20m -o runs/fundus-four
    mgdm augment --data ./fundus --model runs/fundus-fast --n 5000
    """
    flags = vars(source) | {name: value for name, value in locals().items() if name != "source"}
    finish(
        run(
            source,
            run_folder,
            out=out,
            method=method,
            steps=steps,
            divergence=divergence,
            scale=scale,
            scratch=scratch,
            budget=budget,
            seen=seen,
            seed=seed,
            device=device,
            save_every=save_every,
            dry_run=dry_run,
            flags=flags,
        )
    )
