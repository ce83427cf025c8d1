"""`mgdm merge`: the shards of one plan become one output folder, its data set the same as if one run had made it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from mgdm_cli.commands import options
from mgdm_cli.config import RESOLVED
from mgdm_cli.console import Result, finish, progress
from mgdm_cli.errors import OK, PARTIAL, UsageError


def run(outs: Sequence[Path], *, out: Path) -> Result:
    """Join the finished shard folders `outs` into `out`; exit code 5 when a class fell short of its quota.

    Raises MissingInput or BadInput when a shard is missing, unfinished or changed, OtherPlan, FolderInUse, IoFailed.
    """
    from mgdm_cli.data.shards import gather, merge

    shards = gather(outs)
    plan = shards[0].plan
    made = dict.fromkeys(plan.classes, 0)
    with progress("merge", sum(plan.quotas.values()), "images") as bar:
        for block in merge(shards, out):
            for entry in block.accepted:
                made[entry.label] += 1
            bar.advance(len(block.accepted))
    short = {label: quota - made[label] for label, quota in plan.quotas.items() if made[label] < quota}
    code = PARTIAL if short or plan.unplanned else OK
    _records(out, _flags(shards[0].root), code)
    document = {
        "folder": out.name,
        "shards": len(shards),
        "images": sum(made.values()),
        "classes": {label: {"planned": plan.quotas[label], "made": count} for label, count in made.items()},
        "short": short,
        "plan_sha256": plan.run,
        "exit_code": code,
    }
    lines = [f"class {label}: {count} images short of the plan" for label, count in short.items()]
    if plan.unplanned:
        lines.append(
            f"{plan.unplanned} of the {plan.asked} images that were asked for were not planned (--max-per-real)"
        )
    lines.append(f"{len(shards)} shards joined: {sum(made.values())} images in {out}.")
    return Result(document, tuple(lines), code)


def _flags(shard: Path) -> dict[str, Any]:
    """The flags of the command that made the shard, for the whole of it."""
    from mgdm_cli.config import read

    told = shard / RESOLVED
    flags = read(told) if told.is_file() else {}
    return {name: value for name, value in flags.items() if name not in ("shard", "out")}


def _records(out: Path, flags: Mapping[str, Any], code: int) -> None:
    """The page and the run record of the merged folder; no real image is on this page, for none is at hand."""
    from mgdm_cli.commands.making import Work, summary, write_records
    from mgdm_cli.commands.reporting import augment_report
    from mgdm_cli.data.dataset import INPUTS, PAGE, Dataset, stored_plan
    from mgdm_cli.data.manifest import InputRow, from_lines

    plan = stored_plan(out)
    assert plan is not None
    inputs = from_lines((out / INPUTS).read_bytes(), InputRow, name=INPUTS)
    with Dataset.open(out, plan, inputs=inputs) as dataset:
        document = summary(dataset, Work(), trained=0.0, seconds=0.0, code=code)
        if plan.command == "augment":
            dataset.write(PAGE, augment_report(dataset, document))
        write_records(dataset, document, flags)


def command(
    outs: Annotated[list[Path], typer.Argument(metavar="OUT...", help="The folders of all shards.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="Folder to write.", rich_help_panel=options.OUTPUT)
    ] = None,
) -> None:
    """Join the shards of one plan into one folder.

    Each shard was made by the same command with --shard k/n and its own output folder, by one model, on machines of one
    kind with as many threads. The data set is byte for byte what one run would have made; report.html, run.json and
    config.resolved.toml tell of the merge.

    \b
    mgdm merge ./part1 ./part2 -o ./fundus-synthetic
    """
    if out is None:
        raise UsageError("no folder to write", "Name it with -o")
    finish(run(outs, out=out))
