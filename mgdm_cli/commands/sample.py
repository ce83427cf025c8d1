"""`mgdm sample`: plain class-conditional images from a trained run."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import Annotated, Any, Literal

import typer

from mgdm_cli import console
from mgdm_cli.commands import options, values
from mgdm_cli.commands.computing import device_of
from mgdm_cli.commands.reading import beside
from mgdm_cli.commands.wanted import KNOBS, SAMPLER, SCALE
from mgdm_cli.console import Result, finish
from mgdm_cli.errors import PARTIAL, UsageError

STEPS = 18


def run(
    folder: Path,
    *,
    labels: str,
    out: Path,
    sampler: str | None = None,
    steps: int | None = None,
    scale: float | None = None,
    guidance: Literal["cfg", "auto"] = "cfg",
    knobs: dict[str, float] | None = None,
    block: int | None = None,
    seed: int = 0,
    device: str = "auto",
    dry_run: bool = False,
    write_as: str | None = None,
    flags: Mapping[str, Any] | None = None,
) -> Result:
    """Write the images that `labels` ("a=200,b=800") asks for; the same call continues one that was stopped.

    `flags` go to config.resolved.toml.
    """
    from mgdm_cli.commands.completing import within_reach
    from mgdm_cli.commands.making import carry_out, summary, write_records
    from mgdm_cli.data.allotment import allot
    from mgdm_cli.data.dataset import Dataset, reserve, stored_plan
    from mgdm_cli.data.plan import SCALE_BETWEEN, Filters, Statement
    from mgdm_cli.engine import sizing
    from mgdm_cli.engine.decoding import cost
    from mgdm_cli.engine.planning import Drawing, default_block, drawing_of, plan_of, recipe_of, works_of
    from mgdm_cli.engine.run import load_parts, read_settings
    from mgdm_cli.engine.scaling import UNMEASURED, Scale, stored

    started = time.monotonic()
    where = device_of(device, begun=stored_plan(out))
    settings = read_settings(folder)
    if "=" not in labels:
        raise UsageError(
            f"--labels: {labels!r} is not class=count",
            "For example --labels " + quote(",".join(f"{c}=16" for c in settings.classes)),
        )
    allotment = allot(settings.counts, None, labels, max_per_real=1e9, force_small=True, flag="--labels")
    if scale is not None:
        suits = Scale(scale, SCALE_BETWEEN)
    else:  # what was measured is the scale of cfg
        suits = Scale(SCALE, SCALE_BETWEEN) if guidance == "auto" else stored(folder) or UNMEASURED
    drawn = drawing_of(settings, sampler, steps, scale, knobs or {}, usual=Drawing(SAMPLER, STEPS, suits.scale, KNOBS))
    suits = within_reach(suits, settings, drawn.steps) if scale is None else suits
    recipe = recipe_of(
        settings,
        guidance=guidance if drawn.scale != 1 or settings.student else "none",
        strength=0.0,
        mode="guide",
        candidates=1,
        sampler=drawn.sampler,
        steps=drawn.steps,
        scale=drawn.scale,
        between=(0.0, 0.0),
        scale_between=suits.between,
        knobs=dict(drawn.knobs),
        temperature=None,
        filters=Filters(label=False, blank=False),
    )
    parts, hashes = load_parts(folder, settings, where)
    size = block or default_block(where)
    if dry_run:
        evaluations, _ = cost(recipe, parts.model.process, parts.student)
        seconds = allotment.total * evaluations * sizing.seconds_per_evaluation(settings, where, size)
        document: dict[str, Any] = {
            "dry_run": True,
            "classes": allotment.quotas,
            "evaluations": allotment.total * evaluations,
            "seconds": round(seconds),
        }
        return Result(
            document,
            (f"would make {allotment.total} images in about {console.clock_text(seconds)}; nothing was written",),
        )
    plan = plan_of(
        settings,
        allotment,
        recipe,
        hashes=hashes,
        seed=seed,
        block=size,
        balance=labels,
        max_per_real=1e9,
        device=where,
        statement=Statement(),
        command="sample",
        write_as=write_as,
    )
    works = works_of(plan, replace(parts, guide=None), settings, None)
    with reserve(out) as lock, Dataset.open(out, plan, lock=lock) as dataset:
        work = carry_out(works, dataset)
        dataset.finish()
        code = PARTIAL if dataset.short() else 0
        document = summary(dataset, work, trained=0.0, seconds=time.monotonic() - started, code=code)
        write_records(dataset, document, flags or {})
        lines = [f"class {name}: {missing} images short" for name, missing in dataset.short().items()]
    return Result(document, (*lines, f"{document['images']} images in {console.clock_text(work.seconds)}: {out}"), code)


def command(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="Folder that train wrote.")],
    labels: Annotated[str, typer.Option("--labels", metavar="A=N,B=M", help="How many images of which class.")],
    out: options.Out = None,
    sampler: options.SamplerName = None,
    steps: options.Steps = None,
    scale: options.Scale = None,
    guidance: Annotated[
        Literal["cfg", "auto"],
        typer.Option("--guidance", help="Away from no class, or from a weaker self.", rich_help_panel=options.SAMPLING),
    ] = "cfg",
    knob: options.Knobs = None,
    batch_size: options.BatchSize = None,
    write_as: options.WriteAs = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    dry_run: options.DryRun = False,
) -> None:
    """Plain class-conditional images from a trained run or a student, without gates: to look at a model.

    Whatever it makes is written, blank images and twins too.

    \b
    mgdm sample runs/fundus --labels normal=16,glaucoma=16 -o samples
    mgdm sample runs/fundus --labels glaucoma=64 --sampler heun --steps 18 --scale 1 -o heun
    """
    flags = dict(locals())
    finish(
        run(
            run_folder,
            labels=labels,
            out=beside(run_folder, "-samples") if out is None else out,
            sampler=sampler,
            steps=steps,
            scale=scale,
            guidance=guidance,
            knobs=values.knobs_of(knob),
            block=batch_size,
            seed=seed,
            device=device,
            dry_run=dry_run,
            write_as=write_as,
            flags=flags,
        )
    )
