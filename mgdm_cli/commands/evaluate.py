"""`mgdm evaluate`: real against synthetic: distances, labels, near copies, each with an interval and what it means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mgdm_cli import console
from mgdm_cli.commands import options, values
from mgdm_cli.commands.computing import device_of
from mgdm_cli.commands.failing import OPEN, USUAL, failed, looks_of, require_answerable, undecided
from mgdm_cli.commands.modelling import prepare, require_trained
from mgdm_cli.commands.reading import Source, alike, beside, keep_settings, reads_images, refuse_inside
from mgdm_cli.console import Result, finish
from mgdm_cli.errors import GATE, OK, PARTIAL, UsageError

if TYPE_CHECKING:
    from mgdm_cli.commands.measuring import Findings
    from mgdm_cli.commands.weighing import Asked

ALPHA = 0.01  # probability that a new image counts as a copy
UTILITY = "Utility"  # panel of the help text
PAGE, DOCUMENT, LOCK = "report.html", "evaluation.json", "lock"


def run(
    source: Source,
    synthetic: Path,
    *,
    test: Path | None = None,
    out: Path | None = None,
    seen: int | None = None,
    alpha: float = ALPHA,
    seed: int = 0,
    device: str = "auto",
    real_images: bool = True,
    model: Path | None = None,
    encoder: Path | None = None,
    asked: Asked | None = None,
    fail_on: str = USUAL,
    dry_run: bool = False,
    flags: Mapping[str, Any] | None = None,
) -> Result:
    """Compare the images below `synthetic` with the real ones of `source`; write page and document to `out`.

    Exit code 3 where a look that `fail_on` names finds something (`failing.failed`). `model` is the run that made the
    images; `encoder` a file whose features are compared in place of a judge's; `asked` adds the utility part, whose table
    may end partial (exit code 5). Raises UsageError, MissingInput, BadInput, OtherPlan, NeedsTraining.
    """
    from mgdm_cli.commands import weighing
    from mgdm_cli.commands.arming import Maker
    from mgdm_cli.commands.measuring import Question, find
    from mgdm_cli.data.files import Lock, make_dirs, missing_dirs
    from mgdm_cli.engine.judging import SEEN, images_of, real_test

    where = device_of(device)
    target = out if out is not None else beside(synthetic, "-evaluation")
    looks = looks_of(fail_on)
    require_answerable(looks, asked)
    if dry_run and asked is None:
        raise UsageError("--dry-run: tells what --arms would cost", "Give --arms, or leave it out")
    if model is not None:
        require_trained(model)
    refuse_inside(target, source.data, images_of(synthetic), *([] if test is None else [images_of(test)]))
    _refuse_foreign(target)
    prepared = prepare(source, seed=seed)
    _refuse_other(target, prepared.fingerprint)
    maker = Maker(source, prepared, synthetic, target, model, where, seed)
    tests = real_test(test, prepared, read=alike(source))
    for note in tests.scan.notes if test is not None else ():
        console.say(f"test: {note}")
    task = None if asked is None else weighing.Weighing(maker, asked, tests)
    if dry_run and task is not None:
        return weighing.estimate(task)
    question = Question(prepared, synthetic, tests, target, where, seen or SEEN, alpha, seed, model, encoder)
    question.check()
    made = missing_dirs(target)
    make_dirs(target)
    with Lock(target / LOCK, made=made):
        utility = None if task is None else weighing.weigh(task)
        found = replace(find(question), utility=utility)
        keep_settings(target, flags)
        return _told(found, looks, target, synthetic.resolve().name, real_images=real_images)


def _told(found: Findings, looks: tuple[str, ...], target: Path, name: str, *, real_images: bool) -> Result:
    """Page and document, written; the lines, and the exit code: 3 where one of `looks` found something."""
    from mgdm_cli.commands.documenting import document_of
    from mgdm_cli.commands.evaluating import lines_of, page_of
    from mgdm_cli.data.files import canonical, write_atomic

    wrong, open_ = failed(found), undecided(found)
    gated = [look for look in looks if look in wrong]
    unsaid = [look for look in looks if look in open_ and look not in wrong]
    if gated or (unsaid and OPEN in looks):
        code = GATE
    else:
        code = PARTIAL if found.utility is not None and found.utility.partial else OK
    verdict = {"failed": list(wrong), "undecided": list(open_), "fail_on": list(looks), "exit_code": code}
    document = {**document_of(found), **verdict}
    write_atomic(target / DOCUMENT, canonical(console.plain(document), indent=1))
    write_atomic(target / PAGE, page_of(found, name, real_images=real_images).encode("utf-8"))
    said = [f"failed: {', '.join(gated)}"] if gated else []
    said += [f"could not be decided: {', '.join(unsaid)}"] if unsaid else []
    return Result({**document, "out": target}, (*lines_of(found), *said, str(target / PAGE)), code)


def _refuse_foreign(target: Path) -> None:
    """Raises OtherPlan where the folder to write holds something that is not ours."""
    from mgdm_cli.commands.arming import FOLDER
    from mgdm_cli.commands.weighing import CELLS
    from mgdm_cli.config import RESOLVED
    from mgdm_cli.data.files import holds_other
    from mgdm_cli.errors import OtherPlan

    ours = (PAGE, DOCUMENT, LOCK, RESOLVED, "judge-1.safetensors", "judge-2.safetensors", CELLS, FOLDER)
    if holds_other(target, ours):
        raise OtherPlan(f"{target.name}: holds something that evaluate did not write", "Choose another --out.")


def _refuse_other(target: Path, inputs: str) -> None:
    """Raises OtherPlan where the folder to write holds the evaluation of other real images."""
    import json
    from contextlib import suppress

    from mgdm_cli.errors import OtherPlan

    with suppress(OSError, ValueError):
        before = json.loads((target / DOCUMENT).read_bytes()).get("inputs_sha256", inputs)
        if before != inputs:
            raise OtherPlan(
                f"{target.name}: holds an evaluation against other real images, or of these read in another way",
                "Choose another --out, or give the flags of before.",
            )


Real = Annotated[
    Path,
    typer.Option("--real", metavar="DIR", help="Folder of real images, as for train.", rich_help_panel=options.INPUT),
]


@reads_images(data=Real)
def command(
    source: Source,
    synthetic: Annotated[
        Path,
        typer.Option(
            "--synthetic",
            metavar="OUT",
            help="Output folder of augment, or a folder per class.",
            rich_help_panel=options.INPUT,
        ),
    ],
    test: Annotated[
        Path | None,
        typer.Option(
            "--test",
            metavar="DIR",
            help="Real images never learnt from, read by the same flags.",
            rich_help_panel=options.INPUT,
        ),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            "--model",
            metavar="RUN",
            help="The run that made the images: asked whom it knows.",
            rich_help_panel=options.INPUT,
        ),
    ] = None,
    encoder: Annotated[
        Path | None,
        typer.Option(
            "--encoder",
            metavar="FILE",
            help="Compare features of this net: TorchScript, or a judge-1.safetensors.",
            rich_help_panel=options.INPUT,
        ),
    ] = None,
    out: options.Out = None,
    seen: Annotated[
        int | None,
        typer.Option(
            "--seen",
            min=1,
            metavar="N",
            help="Training images that each judge sees; 12000 as a rule.",
            rich_help_panel=options.RUN,
        ),
    ] = None,
    copy_alpha: Annotated[
        float,
        typer.Option(
            "--copy-alpha", min=0.0001, max=0.2, help="Chance that a new image counts as a copy.", rich_help_panel="Run"
        ),
    ] = ALPHA,
    fail_on: Annotated[
        str,
        typer.Option(
            "--fail-on",
            metavar="LIST",
            callback=values.checked(looks_of),
            help="Findings that end with exit code 3: copies, leaks, labels, utility (with --arms synthetic); undecided: "
            "that one of these could not say; or none.",
            rich_help_panel=options.RUN,
        ),
    ] = USUAL,
    arms: Annotated[
        str | None,
        typer.Option(
            "--arms",
            metavar="LIST",
            help="Also ask what images are worth: real, dup, classical, synthetic, NAME=FOLDER; made now by the model: "
            "gen, select, guided, ungated.",
            rich_help_panel=UTILITY,
        ),
    ] = None,
    nets: Annotated[
        str,
        typer.Option(
            "--nets", metavar="LIST", help="quick, small, ten (with MONAI), or names of nets.", rich_help_panel=UTILITY
        ),
    ] = "quick",
    seeds: Annotated[
        int, typer.Option("--seeds", min=1, max=100, help="Trainings of each net and arm.", rich_help_panel=UTILITY)
    ] = 3,
    net_steps: Annotated[
        int | None,
        typer.Option("--net-steps", min=1, help="Steps of each training; 200 to 400 by size.", rich_help_panel=UTILITY),
    ] = None,
    jobs: Annotated[
        int, typer.Option("--jobs", min=1, max=256, help="Trainings at once, on a CPU.", rich_help_panel=UTILITY)
    ] = 1,
    ordered: Annotated[
        bool | None,
        typer.Option(
            "--ordered/--nominal",
            help="The classes are grades in this order: give kappa too. Told from names as grade0, grade1.",
            rich_help_panel=UTILITY,
            show_default=False,
        ),
    ] = None,
    budget: Annotated[
        str | None,
        options.longest("Longest time for the trainings of --arms: 90s, 30m, 2h.", UTILITY),
    ] = None,
    dry_run: options.DryRun = False,
    real_images: options.RealImages = True,
    seed: options.Seed = 0,
    device: options.Device = "auto",
) -> None:
    """Real against synthetic: fidelity, coverage, labels, copies and leaks.

    Give the flags that the set was made with (--size, --seed, --patient-regex), so that the split is the same. Two
    classifiers are trained on the real images to judge; they are kept in the output folder and used again.
    With --arms classifiers are trained on the real images alone, with duplicates, with classical augmentation and with
    synthetic images, alike in all else, and tested on real images that nothing was learnt from. The synthetic ones are
    those of --synthetic, of other folders, or made now, as many of each class, by the model (--model, else the cache):
    gen plain, select the hardest of several seeds, guided as augment does, ungated as guided but without the label
    and copy gates. All is kept; the same command continues. Exit code 5 when --budget ended before the last training.
    Exit code 3 when more images are near copies (of the whole or of a part) than chance explains, or the model knows
    training images better than held-out ones; --fail-on names other looks: labels that hold less often than in real
    images, or images of --synthetic that hurt classifiers. It goes before exit code 5; what could not be decided is told.

    \b
    mgdm evaluate --real ./fundus --synthetic ./fundus-synthetic
    mgdm evaluate --real ./fundus --synthetic ./fundus-synthetic --test ./fundus-test --no-real-images
    mgdm evaluate --real ./fundus --synthetic ./guided --arms dup,classical,synthetic,plain=./plain --budget 1h
    mgdm evaluate --real ./fundus --synthetic ./guided --test ./fundus-test --arms dup,synthetic,gen,select --nets small
    """
    from mgdm_cli.commands.weighing import Asked

    flags = {**vars(source), **locals(), "real": source.data}
    flags = {name: value for name, value in flags.items() if name not in ("source", "data", "Asked")}
    asked = None if arms is None else Asked.of(arms, nets, seeds, net_steps, values.seconds_of(budget), jobs, ordered)
    finish(
        run(
            source,
            synthetic,
            test=test,
            out=out,
            seen=seen,
            alpha=copy_alpha,
            seed=seed,
            device=device,
            real_images=real_images,
            model=model,
            encoder=encoder,
            asked=asked,
            fail_on=fail_on,
            dry_run=dry_run,
            flags=flags,
        )
    )
