"""`mgdm train`: denoiser, guide and judge from a folder of images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import typer

from mgdm_cli import console
from mgdm_cli.commands import options, values
from mgdm_cli.commands.completing import suited_scale
from mgdm_cli.commands.computing import device_of
from mgdm_cli.commands.estimating import memory_of
from mgdm_cli.commands.modelling import Length, foreseen, prepare, train_into
from mgdm_cli.commands.reading import Source, beside, keep_settings, reads_images, refuse_inside
from mgdm_cli.console import Result, finish


def run(
    source: Source,
    *,
    out: Path,
    budget: str | None = None,
    seen: int | None = None,
    width: int | None = None,
    base: str = "auto",
    process: str | None = None,
    seed: int = 0,
    device: str = "auto",
    flip: bool = False,
    save_every: str = options.SAVE_EVERY,
    dry_run: bool = False,
    flags: Mapping[str, Any] | None = None,
) -> Result:
    """Train a run in `out`, or continue the one there. Raises NeedsTraining when the budget is too short.

    `flags` go to config.resolved.toml.
    """
    from mgdm_cli.engine.pretraining import read_log
    from mgdm_cli.engine.run import GUIDE, JUDGE, SETTINGS
    from mgdm_cli.engine.weights import load

    refuse_inside(out, source.data)
    begun = (out / SETTINGS).is_file()  # a run that was begun has its length already
    where = device_of(device, settled=begun)
    prepared = prepare(source, seed=seed)
    length = Length(None, seen, width, base, process) if begun else Length.of(budget, seen, width, base, process)
    if dry_run:
        settings, pace, seconds = foreseen(out, prepared, length, where, seed=seed, flip=flip)
        memory = memory_of(prepared)
        document: dict[str, Any] = {
            "dry_run": True,
            "classes": prepared.counts,
            "seen": settings.train.seen,
            "images_per_second": round(pace.denoiser, 1),
            "seconds": round(seconds),
            "memory_bytes": memory,
        }
        images = f"{sum(prepared.counts.values())} images, see {settings.train.seen}"
        line = f"would train on {images}, in about {console.clock_text(seconds)} and {memory / 1e9:.1f} GB of memory"
        return Result(document, (line,))
    every = values.seconds_of(save_every) or 0.0
    settings = train_into(out, prepared, length, where, seed=seed, flip=flip, save_every=every)
    keep_settings(out, flags)
    suits = suited_scale(out, prepared, settings, where)
    skills = {name: load(out / file)[1]["accuracy"] for name, file in (("guide", GUIDE), ("judge", JUDGE))}
    log = read_log(out)
    looked = [row["holdout"] for row in log if row["holdout"] is not None]
    document = {
        "run": out,
        "classes": dict(settings.counts),
        "seen": settings.train.seen,
        "holdout": len(settings.holdout),
        "holdout_loss": looked[-1] if looked else None,
        "accuracy": skills,
        "patients_known": settings.patients_known,
        "scale": suits.scale,
    }
    lines = [f"{name}: holdout balanced accuracy {a:.2f} [{lo:.2f}, {hi:.2f}]" for name, (a, lo, hi) in skills.items()]
    return Result(
        document,
        (
            *lines,
            f"trained: {out}",
            f"Next: mgdm sample {quote(str(out))} --labels {quote(settings.classes[0] + '=16')} -o samples",
        ),
    )


@reads_images()
def command(
    source: Source,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="RUN",
            help="Folder of the run; as a rule the input folder's name with -run, beside it.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = None,
    budget: options.Budget = None,
    seen: options.Seen = None,
    width: options.Width = None,
    base: options.Base = "auto",
    process: options.ProcessName = None,
    flip: options.Flip = False,
    save_every: options.SaveEvery = options.SAVE_EVERY,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    dry_run: options.DryRun = False,
) -> None:
    """Train denoiser and classifier on a folder of images.

    The same command continues a training that was stopped, and ends with the same weights.

    \b
    mgdm train --data ./fundus --budget 30m
    mgdm train --data ./fundus -o runs/fundus --size 64 --patient-regex '(P\\d+)_'
    mgdm train --data ./fundus -o runs/flow --process flow --budget 30m
    """
    target = beside(source.data, "-run") if out is None else out
    flags = vars(source) | {name: value for name, value in locals().items() if name not in ("source", "target")}
    finish(
        run(
            source,
            out=target,
            budget=budget,
            seen=seen,
            width=width,
            base=base,
            process=process,
            seed=seed,
            device=device,
            flip=flip,
            save_every=save_every,
            dry_run=dry_run,
            flags=flags,
        )
    )
