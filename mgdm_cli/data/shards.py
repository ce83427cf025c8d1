"""Shards of one plan, each finished in a folder of its own, joined into one data set."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from mgdm_cli.data.dataset import DONE, INPUTS, JOURNAL, SHARD, Dataset, stored_plan
from mgdm_cli.data.files import Journal, sha256_hex
from mgdm_cli.data.manifest import BlockRow, InputRow, from_lines
from mgdm_cli.data.plan import Plan, differences
from mgdm_cli.errors import BadInput, MissingInput, OtherPlan, UsageError


@dataclass(frozen=True)
class Shard:
    """A finished shard: what its folder says about itself."""

    root: Path
    plan: Plan
    k: int
    n: int
    inputs: tuple[InputRow, ...]
    blocks: dict[tuple[int, int], BlockRow]


def read_shard(root: Path) -> Shard:
    """The shard at `root`, its journal read and nothing hashed yet. Raises MissingInput, BadInput, OtherPlan."""
    plan = stored_plan(root) if root.is_dir() else None
    if plan is None:
        raise MissingInput(f"{root.name}: holds no plan of mgdm", "Give the output folders of --shard runs.")
    try:
        k, n = json.loads((root / SHARD).read_bytes())["shard"]
        done = dict(json.loads((root / DONE).read_bytes()))
        inputs = from_lines((root / INPUTS).read_bytes(), InputRow, name=f"{root.name}/{INPUTS}")
    except FileNotFoundError as error:
        raise BadInput(f"{root.name}: this shard is not finished", "Give its command again, then merge.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{root.name}: the records in .mgdm are damaged", "Make this shard again.") from error
    if (done.get("plan"), done.get("shard")) != (plan.run, [k, n]):
        raise BadInput(f"{root.name}: the done marker belongs to another plan", "Make this shard again.")
    return Shard(root, plan, k, n, inputs, _blocks(root))


def _blocks(root: Path) -> dict[tuple[int, int], BlockRow]:
    try:
        rows = [BlockRow.model_validate(line) for line in Journal(root / JOURNAL).read()]
    except ValidationError as error:
        raise BadInput(
            f"{root.name}: the journal is not of this version", "Merge with the version that made it."
        ) from error
    return {(row.lot, row.attempt): row for row in rows}  # a block made again comes later and counts


def gather(roots: Sequence[Path]) -> tuple[Shard, ...]:
    """The shards at `roots` in the order of k: one plan, every k of n once. Raises what `read_shard` raises."""
    shards = sorted((read_shard(root) for root in roots), key=lambda shard: shard.k)
    if not shards:
        raise UsageError("nothing to merge", "Give the output folders of all shards.")
    first = shards[0]
    for shard in shards[1:]:
        if shard.plan.to_bytes() != first.plan.to_bytes():
            names = ", ".join(differences(first.plan, shard.plan)[:6])
            raise OtherPlan(f"{shard.root.name} and {first.root.name} hold different plans (other: {names})", _ONE_PLAN)
        if shard.n != first.n or shard.inputs != first.inputs:
            what = f"shards of {first.n} and of {shard.n}" if shard.n != first.n else "lists of real images that differ"
            raise OtherPlan(f"{first.root.name} and {shard.root.name} are {what}", _ONE_PLAN)
    found = [shard.k for shard in shards]
    missing = sorted(set(range(1, first.n + 1)) - set(found))
    if missing:
        names = ", ".join(f"{k}/{first.n}" for k in missing)
        raise MissingInput(f"shard {names} is not among the folders", "Give the output folders of all shards.")
    if len(found) > first.n:
        raise UsageError("a shard is given twice", "Give each output folder once.")
    return tuple(shards)


_ONE_PLAN = "Merge shards that ran with the same command on the same data."


def merge(shards: Sequence[Shard], target: Path) -> Iterator[BlockRow]:
    """Copy the blocks of `shards` (from `gather`) into `target`, in order, and finish it; yields each block.

    Every file is hashed on the way. A merge that was interrupted continues. Raises BadInput when a file of a shard is
    missing or changed, OtherPlan, FolderInUse, IoFailed.
    """
    plan, n = shards[0].plan, shards[0].n
    if any(target.resolve() == shard.root.resolve() for shard in shards):
        raise UsageError("the target is one of the shards", "Give a new folder to -o.")
    with Dataset.open(target, plan, inputs=shards[0].inputs) as found:
        for lot in found.lots:
            shard = shards[lot.index % n]
            yield from found.blocks(lot)
            while found.wants(lot):
                attempt = len(found.blocks(lot))
                row = shard.blocks.get((lot.index, attempt))
                if row is None:
                    raise BadInput(f"{shard.root.name}: block {lot.index}.{attempt} is missing", _RUN_AGAIN)
                files = {name: _proven(shard, name, digest) for name, digest in row.files.items()}
                yield found.commit(
                    lot, attempt, files=files, accepted=row.accepted, rejected=row.rejected,
                    evaluations=row.evaluations, gradients=row.gradients,
                )  # fmt: skip
        found.finish()


_RUN_AGAIN = "Give the command of that shard again, then merge."


def _proven(shard: Shard, name: str, digest: str) -> bytes:
    try:
        data = (shard.root / name).read_bytes()
    except FileNotFoundError as error:
        raise BadInput(f"{shard.root.name}: {name} is missing", _RUN_AGAIN) from error
    if sha256_hex(data) != digest:
        raise BadInput(f"{shard.root.name}: {name} was changed after it was written", _RUN_AGAIN)
    return data
