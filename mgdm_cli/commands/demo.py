"""`mgdm demo`: the real pipeline on phantom eyes that are drawn here, and an answer to whether the grades are there."""

from __future__ import annotations

import tempfile
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mgdm_cli import console
from mgdm_cli.commands import options
from mgdm_cli.commands.computing import device_of
from mgdm_cli.commands.modelling import Length
from mgdm_cli.commands.reading import Source
from mgdm_cli.console import Result, finish

if TYPE_CHECKING:
    import torch

    from mgdm_cli.data.phantom_verdict import Agreement

FOLDER = Path("mgdm-demo")
IMAGES = 96
SEEN = 26_000  # images: four minutes on two cores; with half of them healthy eyes and few spots are hardly told apart
SIZE = 32  # pixels a side: small, so that a few minutes of training on two cores show the lesions; at 64, from a base, they did not
WIDTH = 32  # of the U-Net: phantoms are simpler than patients
Form = Literal["png8", "png16", "png16grey", "jpeg", "dicom", "nifti"]


def run(
    *,
    out: Path = FOLDER,
    form: Form = "png8",
    n: int = IMAGES,
    budget: str | None = None,
    seen: int | None = None,
    seed: int = 0,
    device: str = "auto",
    only_data: bool = False,
    dry_run: bool = False,
) -> Result:
    """Draw the set, train on it, augment it, let the phantoms' own rule judge; the same call continues."""
    begun = (out / "model" / "settings.json").is_file()  # it has its length already
    if budget is None and seen is None and not begun:
        seen = SEEN
    if dry_run:
        where = device_of(device, settled=begun)
        with tempfile.TemporaryDirectory() as folder:
            source = _drawn(Path(folder) / "phantoms", form, seed)
            length = Length(None, seen, WIDTH) if begun else Length.of(budget, seen, WIDTH)
            return _estimated(source, out / "model", n, length, seed, where)
    source = _drawn(out / "phantoms", form, seed)
    if only_data:
        drawn = {"data": source.data, "form": form, "seed": seed}
        return Result(drawn, (f"phantom eyes: {source.data}", f"Next: mgdm inspect --data {quote(str(source.data))}"))
    from mgdm_cli.commands import train

    trained = train.run(source, out=out / "model", budget=budget, seen=seen, width=WIDTH, seed=seed, device=device)
    _, lo, _ = trained.document["accuracy"]["guide"]
    able = lo > 1 / len(trained.document["classes"])  # a guide no better than chance may not guide
    if not able:
        console.say("the guide does not beat chance after so short a training: plain guidance is used")
    made = _augment(source, out, n, seed, device, guidance="uncertainty" if able else "cfg", model=out / "model")
    verdict = _verdict(out / "synthetic", form)
    document = {**made.document, "form": form, "oracle": _document(verdict)}
    return Result(document, (*made.lines[:-1], _sentence(verdict), *made.lines[-1:]), made.exit_code)


def _drawn(root: Path, form: Form, seed: int) -> Source:
    """The phantom set in `root`, written where it is not there yet."""
    from mgdm_cli.data.phantom_set import DEFAULT_COUNTS, PATIENT_REGEX, write_set

    with console.progress("draw phantom eyes", sum(DEFAULT_COUNTS.values()), "images") as bar:
        write_set(root, size=SIZE, form=form, seed=seed, tell=lambda done, total: bar.advance())
    return Source(root, patient_regex=PATIENT_REGEX)


def _augment(source: Source, out: Path, n: int, seed: int, device: str, *, guidance: str, model: Path) -> Result:
    """The main job, with the flags that a person would give it."""
    from mgdm_cli.commands import augment
    from mgdm_cli.commands.wanted import Wanted

    target = out / "synthetic"
    flags: dict[str, Any] = {"data": source.data, "patient_regex": source.patient_regex, "n": n, "out": target}
    flags |= {"guidance": guidance, "seed": seed, "device": device, "model": model}
    wanted = Wanted(n, guidance=guidance)
    return augment.run(source, wanted, out=target, model=model, seed=seed, device=device, flags=flags)


def _estimated(source: Source, model: Path, n: int, length: Length, seed: int, device: torch.device) -> Result:
    """How long it would take, and how large it would be, from where the demo's run stands."""
    from mgdm_cli.commands.augmenting import allotted
    from mgdm_cli.commands.estimating import told
    from mgdm_cli.commands.modelling import foreseen, prepare
    from mgdm_cli.commands.wanted import Wanted

    prepared, wanted = prepare(source, seed=seed), Wanted(n)
    settings, _, left = foreseen(model, prepared, length, device, seed=seed, flip=False)
    return told(prepared, allotted(prepared, wanted), wanted, settings, device, folder=model, to_train=left)


def _verdict(out: Path, form: Form) -> Agreement:
    """What the phantoms' rule sees in the images that were made."""
    from mgdm_cli.data.folder import read_pixels, scan
    from mgdm_cli.data.phantom_set import FORMS
    from mgdm_cli.data.phantom_verdict import agreement

    found = scan(out / "images", allow_synthetic=True)
    pairs = ((record.label or "", read_pixels(found, record).pixels) for record in found.records)
    return agreement(pairs, top=FORMS[form].top)


def _document(verdict: Agreement) -> dict[str, Any]:
    from mgdm_cli.data.phantom import GRADES

    rows = {
        name: dict(zip((*GRADES, "unreadable"), row, strict=True))
        for name, row in zip(GRADES, verdict.seen, strict=True)
    }
    return {"images": verdict.total, "right": verdict.right, "asked": rows}


def _sentence(verdict: Agreement) -> str:
    from mgdm_cli.data.phantom import GRADES

    shares = [(name, verdict.share(grade)) for grade, name in enumerate(GRADES)]
    told = ", ".join(f"{name} {share:.0%}" for name, share in shares if share is not None)
    return f"the phantoms' own rule sees the requested grade in {verdict.right} of {verdict.total} images ({told})"


def command(
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="Folder to write.", rich_help_panel=options.OUTPUT)
    ] = FOLDER,
    form: Annotated[
        Form, typer.Option("--form", help="Format of the phantom images.", rich_help_panel=options.INPUT)
    ] = "png8",
    n: Annotated[
        int, typer.Option("--n", min=1, metavar="N", help="Accepted images wanted.", rich_help_panel="Plan")
    ] = IMAGES,
    only_data: Annotated[
        bool, typer.Option("--only-data", help="Draw the phantom images and stop.", rich_help_panel=options.INPUT)
    ] = False,
    budget: Annotated[
        str | None,
        options.longest(
            f"Longest training: 90s, 30m, 2h. As a rule {SEEN} images are seen, which takes about four minutes."
        ),
    ] = None,
    seen: options.Seen = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    dry_run: options.DryRun = False,
) -> None:
    """The whole pipeline on phantom eyes: draw, train, generate, disturb, filter, write, report.

    The images are drawn from the seed: colour photographs of the back of the eye in four grades, many healthy and few
    ill. As their truth is known, a fixed rule then says whether the requested grade is really in each new image.

    \b
    mgdm demo
    mgdm demo --form dicom -o ./demo-dicom
    mgdm demo --only-data --form png16 -o ./phantoms
    """
    result = run(
        out=out, form=form, n=n, budget=budget, seen=seen, seed=seed, device=device, only_data=only_data, dry_run=dry_run
    )  # fmt: skip
    finish(result)
