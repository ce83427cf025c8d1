"""`mgdm augment`: plan, model, generate, disturb, filter, write, report."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from mgdm_cli import console
from mgdm_cli.commands import options, values
from mgdm_cli.commands.augmenting import (
    allotted,
    completed,
    lines_of,
    require_guidable,
    require_named,
    require_same,
    works_for,
    write_page,
)
from mgdm_cli.commands.computing import device_of
from mgdm_cli.commands.finding import Training, found, found_or_trained, with_commands
from mgdm_cli.commands.making import carry_out, require_makeable, summary, write_records
from mgdm_cli.commands.modelling import prepare
from mgdm_cli.commands.reading import Source, beside, reads_images, refuse_inside
from mgdm_cli.commands.wanted import (
    BALANCE,
    CANDIDATES,
    DEPTH,
    FROM_REAL,
    STRENGTH,
    Wanted,
)
from mgdm_cli.console import Result, finish
from mgdm_cli.errors import OK, PARTIAL, UsageError

GUIDING, PLANNING, GATES = "Guidance", "Plan", "Gates"  # panels of the help text


def run(
    source: Source,
    wanted: Wanted,
    *,
    out: Path | None = None,
    model: Path | None = None,
    budget: str | None = None,
    seen: int | None = None,
    seed: int = 0,
    device: str = "auto",
    flip: bool = False,
    base: str = "auto",
    shard: str | None = None,
    dry_run: bool = False,
    real_images: bool = True,
    flags: Mapping[str, Any] | None = None,
) -> Result:
    """Carry out the main job; the same call continues one that was stopped. `flags` go to config.resolved.toml."""
    from mgdm_cli.data.codecs import output_form
    from mgdm_cli.data.dataset import Dataset, reserve, stored_plan
    from mgdm_cli.data.plan import parse_shard
    from mgdm_cli.engine.planning import input_rows

    started = time.monotonic()
    target = out if out is not None else beside(source.data, "-synthetic")
    refuse_inside(target, source.data)
    part = parse_shard(shard) if shard else (1, 1)
    if part[1] > 1 and model is None:
        raise UsageError("--shard: each machine would train a model of its own", "Give --model RUN, the same for all.")
    stored = stored_plan(target)  # refuses a folder that is not ours before any work
    where = device_of(device, begun=stored, settled=shard is not None)
    training = Training(model, budget, seen, seed, flip, base)
    if model is None:
        require_makeable(None, wanted)  # before the folder is looked at, which may take long
    require_named(wanted, base)
    prepared = prepare(source, seed=seed)
    require_same(target, stored, prepared, wanted, seed)
    require_guidable(prepared, wanted)
    output_form(prepared.frame.form, wanted.write_as)  # refuses what cannot be written before any work
    require_makeable(found(training, prepared), wanted)  # and what cannot be made, before a budget is spent on training
    allotment = allotted(prepared, wanted)
    if dry_run:
        from mgdm_cli.commands.estimating import estimate

        return estimate(prepared, allotment, wanted, training, where)
    with reserve(target) as lock:
        console.log_to(target / ".mgdm" / "log")
        settings, trained = found_or_trained(training, prepared, where)
        wanted = completed(training, prepared, settings, wanted, where)
        works = works_for(training, settings, prepared, allotment, wanted, where)
        with Dataset.open(target, works.plan, inputs=input_rows(prepared), shard=part, lock=lock) as dataset:
            work = carry_out(works, dataset)
            dataset.finish()
            code = PARTIAL if dataset.short() or works.plan.unplanned else OK
            document = summary(dataset, work, trained=trained, seconds=time.monotonic() - started, code=code)
            document["skipped_files"] = len(prepared.scan.refused)
            write_page(dataset, works, prepared if real_images else None, document)
            write_records(dataset, document, flags or {})
            return Result(document, lines_of(dataset, work, document), code)


@reads_images()
def command(
    folder: Source,
    n: Annotated[
        int | None, typer.Option("--n", min=1, metavar="N", help="Accepted images wanted.", rich_help_panel=PLANNING)
    ] = None,
    out: options.Out = None,
    guidance: Annotated[
        str,
        typer.Option(
            "--guidance",
            metavar="KIND",
            help="none, cfg, auto, class, uncertainty (= entropy), margin, least-confidence, gap or disagreement.",
            rich_help_panel=GUIDING,
        ),
    ] = "uncertainty",
    strength: Annotated[
        float | None,
        typer.Option(
            "--strength",
            min=0.0,
            help=f"Length of the pull; 0 is off; {STRENGTH:g} as a rule, {FROM_REAL[2]:g} from real images.",
            rich_help_panel=GUIDING,
        ),
    ] = None,
    on: Annotated[
        Literal["x", "x0"],
        typer.Option(
            "--on", help="What the guide looks at: the noisy image, or the denoised one.", rich_help_panel=GUIDING
        ),
    ] = "x",
    source: Annotated[
        Literal["latent", "real"],
        typer.Option("--source", help="Make images from noise, or from the real images.", rich_help_panel=GUIDING),
    ] = "latent",
    depth: Annotated[
        float | None,
        typer.Option(
            "--depth",
            min=0.05,
            max=0.95,
            help=f"How far a real image is taken back towards noise, with --source real; {DEPTH:g} as a rule.",
            rich_help_panel=GUIDING,
        ),
    ] = None,
    mode: Annotated[
        Literal["guide", "select"],
        typer.Option(
            "--mode", help="Disturb each image, or choose the hardest of several seeds.", rich_help_panel=GUIDING
        ),
    ] = "guide",
    candidates: Annotated[
        int | None,
        typer.Option(
            "--candidates",
            min=2,
            help=f"Seeds to choose from, with --mode select; {CANDIDATES} as a rule.",
            rich_help_panel=GUIDING,
        ),
    ] = None,
    balance: Annotated[
        str,
        typer.Option(
            "--balance",
            metavar="HOW",
            help="equal, fill (the smallest first), proportional, or class=500,other=20.",
            rich_help_panel=PLANNING,
        ),
    ] = BALANCE,
    max_per_real: Annotated[
        float,
        typer.Option("--max-per-real", help="Most synthetic images per real one of a class.", rich_help_panel=PLANNING),
    ] = 20.0,
    force_small: Annotated[
        bool, typer.Option("--force-small", help="Use classes of fewer than 10 images.", rich_help_panel=PLANNING)
    ] = False,
    model: Annotated[
        Path | None,
        typer.Option("--model", metavar="RUN", help="Folder of a trained run.", rich_help_panel=options.RUN),
    ] = None,
    budget: options.Budget = None,
    seen: options.Seen = None,
    base: options.Base = "auto",
    sampler: options.SamplerName = None,
    steps: options.Steps = None,
    scale: options.Scale = None,
    knob: options.Knobs = None,
    copy_alpha: Annotated[
        float,
        typer.Option(
            "--copy-alpha",
            min=0.0001,
            max=0.5,
            help="Share of new images the copy gate may refuse.",
            rich_help_panel=GATES,
        ),
    ] = 0.01,
    filters: Annotated[
        bool, typer.Option("--filters/--no-filters", help="Label and copy gates.", rich_help_panel=GATES)
    ] = True,
    batch_size: options.BatchSize = None,
    shard: Annotated[
        str | None,
        typer.Option(
            "--shard",
            metavar="K/N",
            help="Make this share of the lots, with one --model RUN for all shares, on machines of one kind and number of threads.",
            rich_help_panel=options.RUN,
        ),
    ] = None,
    real_images: options.RealImages = True,
    write_as: options.WriteAs = None,
    name: options.SetName = None,
    contact: options.Contact = None,
    data_source: options.DataSource = None,
    consent: options.Consent = None,
    licence: options.Licence = None,
    flip: options.Flip = False,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    dry_run: options.DryRun = False,
) -> None:
    """Fill a class-unbalanced folder up with new, hard, labelled and marked synthetic images.

    Plans how many images each class gets, finds or trains a model, generates each image and disturbs it towards what a
    classifier is unsure of, keeps those that hold their label and copy nobody, and writes them in the input's own
    format with a manifest and a report. Stopped at any moment, the same command continues.

    --model may name a student. Where it takes one step there is none to disturb between: its starting noise is moved.

    \b
    mgdm augment --data ./fundus --guidance uncertainty --n 5000
    mgdm augment --data ./fundus --n 500 --budget 30m -o ./more --patient-regex '(P\\d+)_'
    mgdm augment --data ./fundus --n 500 --dry-run --budget 1h
    mgdm augment --data ./fundus --n 100 --source real --depth 0.8
    mgdm augment --data ./ct --label-tag BodyPartExamined --slices axial --size 64 --balance equal --n 300
    """
    # As they were given: a default that is filled in below would be an idle flag beside another one.
    flags = vars(folder) | {flag: value for flag, value in locals().items() if flag != "folder"}
    real, pulls = source == "real", _pulls(guidance) and mode == "guide"
    _refuse_idle(
        {
            f"--guidance {guidance} no classifier pulls" if mode == "guide" else f"--mode {mode} nothing pulls": {
                "--strength": strength is not None and not pulls,
                "--on": on != "x" and not pulls,
            },
            f"--mode {mode} there is one seed an image": {"--candidates": candidates is not None and mode == "guide"},
            "--source latent images are made from noise": {"--depth": depth is not None and not real},
            "--source real the way back has no knobs": {"--knob": bool(knob) and real},
            "--model nothing is trained": {
                "--seen": model is not None and seen is not None,
                "--base": model is not None and base != "auto",
                "--flip": model is not None and flip,
            },
        }
    )
    if real:
        sampler, scale = sampler or FROM_REAL[0], FROM_REAL[1] if scale is None else scale
        depth = DEPTH if depth is None else depth
    if strength is None and pulls:  # a pull from noise leaves a real image a copy of itself
        strength = FROM_REAL[2] if real else STRENGTH
    said = {"name": name, "contact": contact, "source": data_source, "consent": consent, "licence": licence}
    wanted = Wanted(
        n,
        guidance=guidance,
        strength=STRENGTH if strength is None else strength,
        mode=mode,
        candidates=candidates or CANDIDATES,
        balance=balance,
        max_per_real=max_per_real,
        force_small=force_small,
        sampler=sampler,
        steps=steps,
        scale=scale,
        knobs=values.knobs_of(knob),
        copy_alpha=copy_alpha,
        filters=filters,
        block=batch_size,
        statement={field: text for field, text in said.items() if text},
        on=on,
        write_as=write_as,
        depth=depth,
    )
    with with_commands(folder, Training(model, budget, seen, seed, flip, base)):
        result = run(
            folder,
            wanted,
            out=out,
            model=model,
            budget=budget,
            seen=seen,
            seed=seed,
            device=device,
            flip=flip,
            base=base,
            shard=shard,
            dry_run=dry_run,
            real_images=real_images,
            flags=flags,
        )
    finish(result)


def _pulls(guidance: str) -> bool:
    """Whether a classifier pulls under this guidance."""
    from mgdm_cli.engine.decoding import UNSTAGED

    return guidance not in UNSTAGED


def _refuse_idle(idle: dict[str, dict[str, bool]]) -> None:
    """Raises UsageError for flags that would do nothing: passed over in silence they would seem to be obeyed.

    `idle`: what makes them idle -> flag -> whether it was given.
    """
    for why, flags in idle.items():
        for flag, given in flags.items():
            if given:
                raise UsageError(f"{flag}: with {why}", f"Leave {flag} out.")
