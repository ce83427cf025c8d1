"""`mgdm evaluate`: real against synthetic: distances, labels, near copies, each with an interval and what it means."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mgdm_cli import console
from mgdm_cli.commands import options
from mgdm_cli.commands.modelling import Source, prepare
from mgdm_cli.console import Result, finish
from mgdm_cli.errors import GATE, OK, PARTIAL, UsageError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from mgdm_cli.commands.weighing import Asked, Weighed
    from mgdm_cli.data.image import Record
    from mgdm_cli.data.plan import Plan
    from mgdm_cli.engine.judging import Judges
    from mgdm_cli.engine.preparing import Prepared
    from mgdm_cli.engine.training import Pictures
    from mgdm_cli.metrics.audit import Agreement, Copies, Fidelity
    from mgdm_cli.metrics.copies import CopyScorer
    from mgdm_cli.metrics.leaks import Leaks

ALPHA = 0.01  # probability that a new image counts as a copy
DRAWS = 200  # of each bootstrap
UTILITY = "Utility"  # panel of the help text
PAGE, DOCUMENT = "report.html", "evaluation.json"


@dataclass(frozen=True)
class Findings:
    """All that was found out, for the page and the document."""

    prepared: Prepared
    records: tuple[Record, ...]  # synthetic
    synthetic: Pictures
    train: Pictures
    judges: Judges
    fidelity: Fidelity
    labels: tuple[Agreement, ...]
    test: dict[str, Any] | None
    copies: Copies
    leaks: Leaks
    notes: tuple[str, ...]
    seed: int
    utility: Weighed | None = None

    @property
    def failed(self) -> bool:
        """Whether the privacy audit found something: exit code 3."""
        return self.copies.failed or self.leaks.failed


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
    asked: Asked | None = None,
    dry_run: bool = False,
) -> Result:
    """Compare the images below `synthetic` with the real ones of `source`; write page and document to `out`.

    Exit code 3 when more images count as copies than chance explains, or training images are known better than held-out
    ones. `model` is the run that made the images; `asked` adds the utility part, whose table may end partial (exit
    code 5). Raises UsageError, MissingInput, BadInput, OtherPlan.
    """
    from dataclasses import replace

    from mgdm_cli.commands import weighing
    from mgdm_cli.commands.evaluating import document_of, lines_of, page_of
    from mgdm_cli.data.files import canonical, write_atomic
    from mgdm_cli.engine.device import make_deterministic, pick
    from mgdm_cli.engine.judging import SEEN

    make_deterministic()
    where = pick(device)
    target = out if out is not None else synthetic.with_name(synthetic.resolve().name + "-evaluation")
    if dry_run:
        if asked is None:
            raise UsageError("--dry-run: tells what --arms would cost", "Give --arms, or leave it out")
        prepared = prepare(source, seed=seed)
        return weighing.estimate(prepared, asked, synthetic, test, target, where, seed=seed)
    _own(target)
    prepared = prepare(source, seed=seed)
    utility = weighing.weigh(prepared, asked, synthetic, test, target, where, seed=seed) if asked else None
    found = _find(prepared, synthetic, test, target, where, seen=seen or SEEN, alpha=alpha, seed=seed, model=model)
    found = replace(found, utility=utility)
    code = GATE if found.failed else PARTIAL if utility is not None and utility.partial else OK
    document = {**document_of(found), "exit_code": code}
    write_atomic(target / DOCUMENT, canonical(console.plain(document), indent=1))
    write_atomic(target / PAGE, page_of(found, synthetic.resolve().name, real_images=real_images).encode("utf-8"))
    lines = (*lines_of(found), str(target / PAGE))
    return Result({**document, "out": target}, lines, code)


def _own(target: Path) -> None:
    """The folder to write, made where it is not there. Raises OtherPlan where it holds something else."""
    from mgdm_cli.commands.weighing import CELLS
    from mgdm_cli.data.files import make_dirs
    from mgdm_cli.errors import OtherPlan

    ours = (PAGE, DOCUMENT, "judge-1.safetensors", "judge-2.safetensors", CELLS)
    if target.is_dir() and any(path.name not in ours for path in target.iterdir()):
        raise OtherPlan(f"{target.name}: holds something that evaluate did not write", "Choose another --out.")
    make_dirs(target)


def _find(
    prepared: Prepared,
    root: Path,
    test: Path | None,
    target: Path,
    device: torch.device,
    *,
    seen: int,
    alpha: float,
    seed: int,
    model: Path | None,
) -> Findings:
    """Everything that is measured, step by step."""
    from mgdm_cli.commands import leaking
    from mgdm_cli.engine import judging
    from mgdm_cli.engine.preparing import pictures
    from mgdm_cli.metrics.audit import Judged, Space, agreements, fidelity

    records, scan = judging.others(root, prepared, synthetic=True)
    synthetic = judging.pictures_of(scan, records, prepared, device)
    label = synthetic.label.cpu().numpy()
    judges = _judges(target, prepared, device, seen=seen, seed=seed)
    console.say("compare the sets")
    space = Space(judging.features_of(judges.nets[0], synthetic.x0), label)
    near = fidelity(Space(*judging.real_space(judges, prepared, device)), space, prepared.classes, seed=seed)
    labels = agreements(
        Judged(*judging.real_judged(judges, prepared, device)),
        Judged(judging.judged(judges, synthetic.x0), label),
        prepared.classes,
    )
    train = pictures(prepared, prepared.splits.train, device)
    plan, notes = _plan(root, prepared)
    scorer, copied = _copies(prepared, train, synthetic, device, alpha=alpha, seed=seed)
    leaks = leaking.look(
        prepared, train, _array(synthetic), scorer, copied.scores, plan=plan, model=model, device=device, seed=seed
    )
    return Findings(
        prepared,
        records,
        synthetic,
        train,
        judges,
        near,
        labels,
        _on_test(judges, prepared, test, device),
        copied,
        leaks,
        (*scan.notes, *notes),
        seed,
    )


def _judges(target: Path, prepared: Prepared, device: torch.device, *, seen: int, seed: int) -> Judges:
    from mgdm_cli.engine import judging

    found: Judges | None = None
    done = [0, 0]
    with console.progress("train the judges", 2 * seen, "images") as bar:
        for event in judging.judges(target, prepared, device, seen=seen, seed=seed):
            if isinstance(event, judging.Judges):
                found = event
            else:
                bar.advance(event.seen - done[event.judge])
                done[event.judge] = event.seen
    assert found is not None
    return found


def _on_test(judges: Judges, prepared: Prepared, test: Path | None, device: torch.device) -> dict[str, Any] | None:
    """How good the judges are on real images of a test folder, or of the input's own test split."""
    from mgdm_cli.engine import judging
    from mgdm_cli.metrics.labels import balanced_accuracy, macro_auroc

    if test is not None:
        records, scan = judging.others(test, prepared, synthetic=False)
    else:
        records, scan = prepared.splits.test, prepared.scan
    if not records:
        return None
    data = judging.pictures_of(scan, records, prepared, device)
    shares, label = judging.judged(judges, data.x0), data.label.cpu().numpy()
    return {
        "images": len(records),
        "balanced_accuracy": balanced_accuracy(shares.argmax(axis=1), label),
        "macro_auroc": macro_auroc(shares, label),
    }


def _copies(
    prepared: Prepared, train: Pictures, synthetic: Pictures, device: torch.device, *, alpha: float, seed: int
) -> tuple[CopyScorer, Copies]:
    from mgdm_cli.data.splits import patient_key
    from mgdm_cli.engine.preparing import pictures
    from mgdm_cli.metrics.audit import copies
    from mgdm_cli.metrics.copies import CopyScorer

    holdout = _array(pictures(prepared, prepared.splits.holdout, device))
    real = _array(train)
    scorer = CopyScorer(real, groups=[patient_key(record) for record in prepared.splits.train])
    console.say("look for copies")
    return scorer, copies(scorer, real, holdout if len(holdout) else None, _array(synthetic), alpha=alpha, seed=seed)


def _array(data: Pictures) -> NDArray[np.float32]:
    found: NDArray[np.float32] = data.x0.cpu().float().numpy()
    return found


def _plan(root: Path, prepared: Prepared) -> tuple[Plan | None, tuple[str, ...]]:
    """The synthetic set's own plan, and a note where it says that it was learnt from other images than these."""
    from mgdm_cli.data.checking import open_plan
    from mgdm_cli.errors import MissingInput

    try:
        plan = open_plan(root)
    except MissingInput:
        return None, ("the folder holds no plan: which images the generator learnt from is not known",)
    if plan.inputs == prepared.fingerprint:
        return plan, ()
    return plan, (
        "the generator learnt from another split than this one (other images, --size or --seed): images counted as "
        "unseen here may have been learnt from",
    )


def command(
    real: Annotated[
        Path,
        typer.Option(
            "--real", metavar="DIR", help="Folder of real images, as for train.", rich_help_panel=options.INPUT
        ),
    ],
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
        typer.Option("--test", metavar="DIR", help="Real images never learnt from.", rich_help_panel=options.INPUT),
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
    out: options.Out = None,
    seen: options.Seen = None,
    copy_alpha: Annotated[
        float,
        typer.Option(
            "--copy-alpha", min=0.0001, max=0.2, help="Chance that a new image counts as a copy.", rich_help_panel="Run"
        ),
    ] = ALPHA,
    arms: Annotated[
        str | None,
        typer.Option(
            "--arms",
            metavar="LIST",
            help="Also ask what the images are worth: real, dup, classical, synthetic, NAME=FOLDER.",
            rich_help_panel=UTILITY,
        ),
    ] = None,
    nets: Annotated[
        str,
        typer.Option("--nets", metavar="LIST", help="quick, small, ten, or names of nets.", rich_help_panel=UTILITY),
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
    budget: options.Budget = None,
    dry_run: options.DryRun = False,
    size: options.Size = None,
    fit: options.Fit = "pad",
    window: options.Window = None,
    labels: options.Labels = None,
    label_tag: options.LabelTag = None,
    patient_regex: options.PatientRegex = None,
    require_patient_id: options.RequirePatientId = False,
    frames: options.Frames = None,
    slices: options.Slices = None,
    skip_bad: options.SkipBad = False,
    max_skip: options.MaxSkip = 0.05,
    allow_synthetic_input: options.AllowSynthetic = False,
    real_images: Annotated[
        bool,
        typer.Option(
            "--real-images/--no-real-images", help="Show real images in the report.", rich_help_panel=options.OUTPUT
        ),
    ] = True,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    config: options.Config = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Real against synthetic: fidelity, coverage, labels, copies and leaks.

    Give the flags that the set was made with (--size, --seed, --patient-regex), so that the split is the same. Two
    classifiers are trained on the real images to judge; they are kept in the output folder and used again.
    With --arms classifiers are trained on the real images alone, with duplicates, with classical augmentation and with
    the synthetic images, alike in all else, and tested on real images that nothing was learnt from. Each is kept; the
    same command continues. Exit code 5 when --budget ended before the last.
    Exit code 3 when more images are near copies than chance explains, or the model knows training images better
    than held-out ones.

    \b
    mgdm evaluate --real ./fundus --synthetic ./fundus-synthetic
    mgdm evaluate --real ./fundus --synthetic ./fundus-synthetic --test ./fundus-test --no-real-images
    mgdm evaluate --real ./fundus --synthetic ./guided --arms real,dup,classical,synthetic,plain=./plain --budget 1h
    """
    from mgdm_cli.commands.weighing import Asked

    asked = None if arms is None else Asked.of(arms, nets, seeds, net_steps, options.seconds_of(budget), jobs)
    source = Source(
        real,
        labels,
        label_tag,
        patient_regex,
        frames,
        slices,
        skip_bad,
        max_skip,
        allow_synthetic_input,
        size,
        fit,
        window,
        require_patient_id,
    )
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
            asked=asked,
            dry_run=dry_run,
        )
    )
