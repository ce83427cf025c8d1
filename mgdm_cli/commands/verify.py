"""`mgdm verify`: is an output folder still, byte for byte, what the run wrote?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mgdm_cli.console import Result, finish, progress
from mgdm_cli.errors import BAD_INPUT, OK, OtherPlan, UsageError

if TYPE_CHECKING:
    import torch

    from mgdm_cli.data.checking import Problem, Verdict
    from mgdm_cli.data.manifest import Entry
    from mgdm_cli.data.plan import Machine, Plan
    from mgdm_cli.engine.training import Pictures

    Remake = Callable[[Path, Plan, Sequence[Entry]], Iterator[tuple[Entry, bytes]]]

SHOWN = 20  # problems in the list for people; the JSON document holds all


def run(out: Path, *, regenerate: int = 0, remake: Remake | None = None) -> Result:
    """The verdict on the output folder `out`; exit code 65 when anything is wrong.

    `regenerate` images are made again by `remake(out, plan, entries)`, which yields each entry with its new bytes.
    Raises MissingInput when `out` is no output folder, BadInput when its plan or manifest cannot be read.
    """
    from mgdm_cli.data.checking import Problem, check, choose, open_plan

    if regenerate and remake is None:
        raise UsageError("--regenerate: nothing here can make images again", "Leave it out")
    total = sum(lot.quota for lot in open_plan(out).lots)
    with progress("verify", total, "images") as bar:
        verdict = check(out, seen=bar.advance)
    problems = list(verdict.problems)
    made_again, notes = 0, verdict.notes
    if remake is not None and regenerate:
        from mgdm_cli.data.files import sha256_hex

        other = elsewhere(verdict.plan)
        why = f", by other means than made it ({other})" if other else ""
        if other:
            notes = (*notes, f"made by other means ({other}): made again here, an image may differ and be whole")
        for entry, data in remake(out, verdict.plan, choose(verdict.entries, regenerate)):
            made_again += 1
            if sha256_hex(data) != entry.sha256:
                problems.append(Problem(entry.path, f"comes out different when it is made again{why}"))
    document = _document(out, verdict, problems, made_again, notes)
    return Result(document, _lines(document, problems), BAD_INPUT if problems else OK)


def _device_like(machine: Machine) -> torch.device:
    """The device that is nearest to the machine's, used with as many threads as there."""
    from mgdm_cli.engine.device import compute_as, make_deterministic, pick

    make_deterministic()
    on_cpu = machine.device.startswith("cpu ")
    compute_as(machine.threads, machine.computes_in if on_cpu else "")
    return pick("cpu" if on_cpu else "auto")


def elsewhere(plan: Plan) -> str:
    """The machine and the versions that made the images of `plan`, and those here, where they differ; else "". Bits depend on them."""
    from mgdm_cli.engine.planning import machine_of, versions_here

    there, found = plan.machine, []
    here = machine_of(_device_like(there))
    if here != there:
        more = "" if there.device.startswith("cpu ") else f", {there.cpu_capability}, {there.threads} threads"
        found.append(f"there {there.device}{more}, {there.computes_in}; here {here.device}, {here.computes_in}")
    mine = versions_here()
    for name, made_by in plan.versions.items():
        if mine.get(name) != made_by:
            found.append(f"there {name} {made_by}; here {mine.get(name, 'none')}")
    return ", ".join(found)


def remake_with(
    model: Path | None, data: Path | None, out: Path, plan: Plan, entries: Sequence[Entry]
) -> Iterator[tuple[Entry, bytes]]:
    """Images of `plan` made again by the run `model`, or the one in the cache that made them; `data`: the real images, if from such.

    Raises OtherPlan when that is not the run that made them, or not those images; UsageError when `model` or `data` is needed.
    """
    from dataclasses import replace

    from mgdm_cli.commands.finding import made_by
    from mgdm_cli.engine.generation import remake
    from mgdm_cli.engine.planning import works_of
    from mgdm_cli.engine.run import SIBLINGS, load_parts, read_settings

    folder = model or made_by(plan, plan.inputs)
    if folder is None:
        raise UsageError("--regenerate: the model that made the images is not in the cache", "Name it with --model RUN")
    device = _device_like(plan.machine)
    settings = read_settings(folder)
    parts, hashes = load_parts(folder, settings, device)
    siblings = [digest for name, digest in hashes.items() if name in SIBLINGS]
    same = (hashes["denoiser"], hashes["guide"]) == (plan.models.denoiser, plan.models.classifier)
    if not same or plan.recipe.extra.get("siblings", siblings) != siblings:
        raise OtherPlan(f"model: {folder.name}: is not the run that made these images", "Name that one with --model")
    if plan.recipe.depth is not None:
        parts = replace(parts, real=_real(out, data, plan, device))
    yield from remake(works_of(plan, parts, settings, None), list(entries))


def _real(out: Path, data: Path | None, plan: Plan, device: torch.device) -> Pictures:
    """The real training images that `plan` was made from, read as the flags in the output folder say."""
    from mgdm_cli.commands.modelling import prepare
    from mgdm_cli.commands.reading import Source
    from mgdm_cli.config import RESOLVED, read
    from mgdm_cli.engine.preparing import pictures

    if data is None:
        raise UsageError("--regenerate: these images were made from real ones", "Name that folder with --data")
    flags = {name.replace("-", "_"): value for name, value in read(out / RESOLVED).items()}
    said = {
        name: flags[name] for name in Source.__dataclass_fields__ if name in flags and name not in ("data", "labels")
    }
    labels = Path(flags["labels"]) if "labels" in flags else None
    source = Source(data, labels, **said)
    prepared = prepare(source, seed=plan.seed)
    if prepared.fingerprint != plan.inputs:
        raise OtherPlan(f"data: {data.name}: are not the images that these were made from", "Name those with --data")
    return pictures(prepared, prepared.splits.train, device)


def _document(
    out: Path, verdict: Verdict, problems: Sequence[Problem], made_again: int, notes: Sequence[str]
) -> dict[str, Any]:
    planned = verdict.planned
    return {
        "folder": out.name,
        "ok": not problems,
        "finished": verdict.finished,
        "papers_checked": verdict.finished,  # by the hashes in .mgdm, which a folder that was passed on lacks
        "images": len(verdict.entries),
        "classes": {c: {"planned": planned[c], "made": made} for c, made in verdict.made.items()},
        "shard": f"{verdict.shard[0]}/{verdict.shard[1]}",
        "plan_sha256": verdict.plan.run,
        "made_again": made_again,
        "problems": [{"path": problem.path, "what": problem.what} for problem in problems],
        "notes": list(notes),
        "exit_code": BAD_INPUT if problems else OK,
    }


def _lines(document: dict[str, Any], problems: Sequence[Problem]) -> tuple[str, ...]:
    lines = [f"{problem.path}: {problem.what}" for problem in problems[:SHOWN]]
    if len(problems) > SHOWN:
        lines.append(f"... and {len(problems) - SHOWN} more (--json lists all)")
    for label, count in document["classes"].items():
        if count["made"] < count["planned"]:
            lines.append(f"class {label}: {count['made']} of {count['planned']} planned images")
    lines += document["notes"]
    if document["made_again"]:
        lines.append(f"{document['made_again']} images made again from the plan.")
    images = f"{document['images']} images"
    if problems:
        lines.append(f"{images} checked: {len(problems)} problems.")
    elif document["papers_checked"]:
        lines.append(f"{images} checked: every file, mark and row is as it was written.")
    else:
        lines.append(
            f"{images} checked: every file and mark is as manifest.jsonl says; whether that is whole, nothing here tells."
        )
    return tuple(lines)


def command(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Output folder of augment, sample or merge.")],
    regenerate: Annotated[
        int, typer.Option("--regenerate", min=0, metavar="K", help="Make K images again and compare the bytes.")
    ] = 0,
    model: Annotated[
        Path | None,
        typer.Option(
            "--model", metavar="RUN", help="The run that made them, for --regenerate, if it is not in the cache."
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="DIR", help="The real images, for --regenerate after --source real."),
    ] = None,
) -> None:
    """Check the files of an output folder, their marks and manifest.

    Images, papers and the report are hashed again and every mark is read back; manifest.jsonl and the folder are compared
    both ways. Exit code 65 when anything differs. run.json and config.resolved.toml, which tell of the run, have no hash.

    \b
    mgdm verify ./fundus-synthetic
    mgdm verify ./fundus-synthetic --json
    mgdm verify ./fundus-synthetic --regenerate 8
    """
    if not regenerate and (model is not None or data is not None):
        flag = "--model" if model is not None else "--data"
        raise UsageError(f"{flag}: is only read for --regenerate", "Say --regenerate K, or leave it out")
    finish(run(out, regenerate=regenerate, remake=partial(remake_with, model, data) if regenerate else None))
