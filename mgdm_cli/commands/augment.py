"""`mgdm augment`: plan, model, generate, disturb, filter, write, report."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mgdm_cli import console
from mgdm_cli.commands import options
from mgdm_cli.commands.finding import Training, found, found_or_trained
from mgdm_cli.commands.making import Work, carry_out, require_makeable, summary, write_records
from mgdm_cli.commands.modelling import add_siblings, prepare, suited_scale
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
from mgdm_cli.errors import PARTIAL, UsageError

if TYPE_CHECKING:
    import torch

    from mgdm_cli.data.allotment import Allotment
    from mgdm_cli.data.dataset import Dataset
    from mgdm_cli.engine.generation import Works
    from mgdm_cli.engine.preparing import Prepared
    from mgdm_cli.engine.run import RunSettings

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
    from mgdm_cli.data.allotment import allot
    from mgdm_cli.data.codecs import output_form
    from mgdm_cli.data.dataset import Dataset, reserve, stored_plan
    from mgdm_cli.data.plan import parse_shard
    from mgdm_cli.engine.device import make_deterministic, pick
    from mgdm_cli.engine.planning import input_rows

    started = time.monotonic()
    make_deterministic()
    where = pick(device)
    target = out if out is not None else beside(source.data, "-synthetic")
    refuse_inside(target, source.data)
    part = parse_shard(shard) if shard else (1, 1)
    stored_plan(target)  # refuses a folder that is not ours before any work
    training = Training(model, budget, seen, seed, flip, base)
    prepared = prepare(source, seed=seed)
    output_form(prepared.frame.form, wanted.write_as)  # refuses what cannot be written before any work
    require_makeable(found(training, prepared), wanted)  # and what cannot be made, before a budget is spent on training
    allotment = allot(
        prepared.counts, wanted.n, wanted.balance, max_per_real=wanted.max_per_real, force_small=wanted.force_small
    )
    for note in allotment.notes:
        console.say(note)
    shares = (f"{name} {prepared.counts[name]} + {more}" for name, more in allotment.quotas.items())
    console.say("plan: " + ", ".join(shares))
    if dry_run:
        from mgdm_cli.commands.estimating import estimate

        return estimate(prepared, allotment, wanted, training, where)
    with reserve(target) as lock:
        console.log_to(target / ".mgdm" / "log")
        settings, trained = found_or_trained(training, prepared, where)
        if wanted.guidance == "disagreement":
            add_siblings(training.folder(prepared), prepared, settings, where)
        if wanted.scale is None and wanted.depth is None and wanted.guidance not in ("none", "auto"):
            suits = suited_scale(training.folder(prepared), prepared, settings, where)
            wanted = replace(wanted, scale=suits.scale, scale_between=suits.between)
        works = _works(training, settings, prepared, allotment, wanted, where)
        with Dataset.open(target, works.plan, inputs=input_rows(prepared), shard=part, lock=lock) as dataset:
            work = carry_out(works, dataset)
            dataset.finish()
            code = PARTIAL if dataset.short() else 0
            document = summary(dataset, work, trained=trained, seconds=time.monotonic() - started, code=code)
            _page(dataset, works, prepared if real_images else None, document)
            write_records(dataset, document, flags or {})
            return Result(document, _lines(dataset, work, document), code)


def _works(
    training: Training,
    settings: RunSettings,
    prepared: Prepared,
    allotment: Allotment,
    wanted: Wanted,
    device: torch.device,
) -> Works:
    from mgdm_cli.commands.making import recipe_by
    from mgdm_cli.data.plan import Statement
    from mgdm_cli.engine import planning
    from mgdm_cli.engine.preparing import pictures
    from mgdm_cli.engine.run import SIBLINGS, load_parts

    folder = training.folder(prepared)
    # how the images are stored and told is not learnt: a run may be of the same images told in another way
    now: dict[str, Any] = {"form": prepared.frame.form, "label_tag": prepared.scan.ask.label_tag}
    settings = settings.model_copy(update=now)
    accuracy, lo, hi = planning.require_skill(folder, wanted.guidance)
    console.say(f"guide: holdout balanced accuracy {accuracy:.2f} [{lo:.2f}, {hi:.2f}]")
    parts, hashes = load_parts(folder, settings, device)
    gate = planning.copy_gate(prepared, alpha=wanted.copy_alpha) if wanted.filters else None
    if gate and gate[1].threshold.value is None:
        console.say(f"copy gate: off, {gate[1].threshold.reason}")
    temperature = float(parts.guide.get_buffer("temperature")) if parts.guide else None
    threshold = gate[1].threshold.value if gate else None
    siblings = [digest for name, digest in hashes.items() if name in SIBLINGS]
    plan = planning.plan_of(
        settings,
        allotment,
        recipe_by(settings, wanted, temperature=temperature, threshold=threshold, siblings=siblings),
        hashes=hashes,
        seed=training.seed,
        block=wanted.block or planning.default_block(device),
        balance=wanted.balance,
        max_per_real=wanted.max_per_real,
        device=device,
        statement=Statement(**dict(wanted.statement)),
        write_as=wanted.write_as,
    )
    if wanted.depth is not None:
        planning.require_copy_gate(gate)
        parts = replace(parts, real=pictures(prepared, prepared.splits.train, device))
    return planning.works_of(plan, parts, settings, gate)


def _page(dataset: Dataset, works: Works, prepared: Prepared | None, document: dict[str, Any]) -> None:
    if dataset.shard[1] == 1:  # of a shard among several the page comes with the merge
        from mgdm_cli.commands.reporting import augment_report
        from mgdm_cli.data.dataset import PAGE

        page = augment_report(dataset, document, prepared=prepared, calibration=works.gates.calibration)
        dataset.write(PAGE, page)


def _lines(dataset: Dataset, work: Work, document: dict[str, Any]) -> tuple[str, ...]:
    lines = [
        f"{name}: {count['real']} real + {count['synthetic']} synthetic ({count['rejected']} rejected)"
        for name, count in document["classes"].items()
    ]
    for name, missing in dataset.short().items():
        lines.append(
            f"class {name}: {missing} images short: too few candidates passed the gates; a model that was trained longer may do"
        )
    cost = f"{document['evaluations_per_image']:.1f} U-Net evaluations an accepted image"
    lines.append(f"{document['images']} images, {cost}, {console.clock_text(work.seconds)} to generate")
    k, n = dataset.shard
    lines.append(
        str(dataset.root / "report.html") if n == 1 else f"shard {k} of {n} is done; join them with mgdm merge"
    )
    return tuple(lines)


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
        float,
        typer.Option(
            "--depth",
            min=0.05,
            max=0.95,
            help="How far a real image is taken back towards noise, with --source real.",
            rich_help_panel=GUIDING,
        ),
    ] = DEPTH,
    mode: Annotated[
        Literal["guide", "select"],
        typer.Option(
            "--mode", help="Disturb each image, or choose the hardest of several seeds.", rich_help_panel=GUIDING
        ),
    ] = "guide",
    candidates: Annotated[
        int,
        typer.Option("--candidates", min=2, help="Seeds to choose from, with --mode select.", rich_help_panel=GUIDING),
    ] = CANDIDATES,
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
    batch_size: Annotated[
        int | None,
        typer.Option(
            "--batch-size", min=1, help="Candidates in a block; part of the plan.", rich_help_panel=options.RUN
        ),
    ] = None,
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
    real = source == "real"
    if real:
        sampler, scale = sampler or FROM_REAL[0], FROM_REAL[1] if scale is None else scale
    _refuse_unpulled(guidance, {"--strength": strength is not None, "--on": on != "x"})
    if strength is None and _pulls(guidance):  # a pull from noise leaves a real image a copy of itself
        strength = FROM_REAL[2] if real else STRENGTH
    flags = vars(folder) | {name: value for name, value in locals().items() if name not in ("folder", "real")}
    said = {"source": data_source, "consent": consent, "licence": licence}
    wanted = Wanted(
        n,
        guidance=guidance,
        strength=STRENGTH if strength is None else strength,
        mode=mode,
        candidates=candidates,
        balance=balance,
        max_per_real=max_per_real,
        force_small=force_small,
        sampler=sampler,
        steps=steps,
        scale=scale,
        knobs=options.knobs_of(knob),
        copy_alpha=copy_alpha,
        filters=filters,
        block=batch_size,
        statement={name: text for name, text in said.items() if text},
        on=on,
        write_as=write_as,
        depth=depth if real else None,
    )
    finish(
        run(
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
    )


def _pulls(guidance: str) -> bool:
    """Whether a classifier pulls under this guidance."""
    from mgdm_cli.engine.decoding import UNSTAGED

    return guidance not in UNSTAGED


def _refuse_unpulled(guidance: str, given: dict[str, bool]) -> None:
    """Raises UsageError for flags of a pull where nothing pulls: passed over in silence they would seem to be obeyed."""
    for flag, said in given.items():
        if said and not _pulls(guidance):
            raise UsageError(
                f"{flag}: with --guidance {guidance} no classifier pulls",
                "Leave it out, or use --guidance uncertainty.",
            )
