"""A plan carried out with progress, and the records and the page of what was made: shared by augment, sample and merge."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mgdm_cli import console
from mgdm_cli.errors import UsageError

if TYPE_CHECKING:
    from mgdm_cli.commands.wanted import Wanted
    from mgdm_cli.data.dataset import Dataset
    from mgdm_cli.data.plan import Recipe
    from mgdm_cli.engine.generation import Works
    from mgdm_cli.engine.run import RunSettings


STRAINED, FEWEST = 2, 8  # refused candidates for each that passed, and refused ones, above which a class is named


def recipe_by(
    settings: RunSettings,
    wanted: Wanted,
    *,
    temperature: float | None,
    threshold: float | None,
    siblings: Sequence[str] = (),
) -> Recipe:
    """How an image is made from its seed, by these flags."""
    from mgdm_cli.engine.planning import recipe_of

    said, steps = _said(settings, wanted, scale=wanted.scale, threshold=threshold)
    return recipe_of(
        settings,
        **said,
        steps=steps,
        candidates=wanted.candidates,
        between=wanted.between,
        scale_between=wanted.scale_between,
        temperature=temperature,
        on=wanted.on,
        siblings=siblings,
    )


def _said(
    settings: RunSettings | None, wanted: Wanted, *, scale: float | None, threshold: float | None = None
) -> tuple[dict[str, Any], int]:
    """(what these flags say of a recipe and `require_recipe` looks at, steps)."""
    from mgdm_cli.data.plan import Filters
    from mgdm_cli.engine.planning import drawing_of

    drawn = drawing_of(settings, wanted.sampler, wanted.steps, scale, wanted.knobs, usual=wanted.usual)
    alpha = wanted.copy_alpha if wanted.filters else None
    said = {
        "guidance": wanted.guidance,
        "strength": wanted.strength,
        "mode": wanted.mode,
        "sampler": drawn.sampler,
        "scale": drawn.scale,
        "knobs": dict(drawn.knobs),
        "filters": Filters(label=wanted.filters, copy_alpha=alpha, copy_threshold=threshold),
        "depth": wanted.depth,
    }
    return said, drawn.steps


def steps_of(settings: RunSettings, wanted: Wanted) -> int:
    """Of the decode."""
    return _said(settings, wanted, scale=wanted.scale)[1]


def require_makeable(settings: RunSettings | None, wanted: Wanted) -> None:
    """Raises UsageError for flags of which no recipe could be made: before a training is spent on them (`settings` None)."""
    from mgdm_cli.commands.wanted import SCALE
    from mgdm_cli.engine.planning import acting, require_recipe, require_usable

    numbers = {"--strength": wanted.strength, "--depth": wanted.depth, "--copy-alpha": wanted.copy_alpha}
    for flag, value in numbers.items():
        require_usable(flag, value)
    if wanted.guidance == "none" and wanted.scale not in (None, 1.0):
        raise UsageError(
            f"--scale {wanted.scale:g}: with --guidance none there is nothing to scale",
            "Leave --scale out, or use --guidance cfg.",
        )
    student = settings.student if settings else None
    if student is not None and student.steps == 1 and wanted.on != "x":
        raise UsageError(
            f"--on {wanted.on}: the student of --model has one step: its guide sees finished images anyway",
            "Leave --on out.",
        )
    measured = wanted.scale is None and wanted.depth is None  # a scale that is yet to be found suits whatever it is
    said, steps = _said(settings, wanted, scale=1.0 if measured else wanted.scale)
    require_recipe(settings, **said)
    acting(
        settings,
        guidance=wanted.guidance,
        strength=wanted.strength,
        mode=wanted.mode,
        steps=steps,
        scale=SCALE
        if measured and (settings is None or (student is None and settings.train.drop_label))
        else said["scale"],
        between=wanted.between,
        scale_between=wanted.scale_between,
        depth=wanted.depth,
    )


@dataclass
class Work:
    """What this process did: blocks made now, and the time they took."""

    blocks: int = 0
    seconds: float = 0.0


def carry_out(works: Works, dataset: Dataset) -> Work:
    """Make what is missing and show how far it is."""
    from mgdm_cli.engine.generation import carry_out as blocks

    done = sum(dataset.accepted(lot) for lot in dataset.lots)
    if done:
        console.say(f"continuing: {done} images are there and whole")
    work, started = Work(), time.monotonic()
    with console.progress("generate", sum(lot.quota for lot in dataset.lots), "images", done=done) as bar:
        for made in blocks(works, dataset):
            work.blocks += 1
            bar.advance(made.accepted, f"{made.lot.label}, {made.rejected} of the last block not kept")
    work.seconds = time.monotonic() - started
    return work


def summary(dataset: Dataset, work: Work, *, trained: float, seconds: float, code: int) -> dict[str, Any]:
    """The run record: what was made, what it cost, on what."""
    from collections import Counter

    from mgdm_cli.data.cautions import cautions

    plan = dataset.plan
    entries, rejected = dataset.entries(), dataset.rejected()
    blocks = [block for lot in dataset.lots for block in dataset.blocks(lot)]
    evaluations, gradients = (sum(getattr(block, what) for block in blocks) for what in ("evaluations", "gradients"))
    made = max(len(entries), 1)
    by_class, refused = Counter(e.label for e in entries), Counter(r.label for r in rejected if r.reason != "surplus")
    return {
        "command": plan.command,
        "out": dataset.root,
        "plan_sha256": plan.run,
        "images": len(entries),
        "asked": plan.asked,
        "classes": {
            name: {"real": plan.real.get(name, 0), "synthetic": by_class[name], "rejected": refused[name]}
            for name in plan.classes
        },
        "notes": list(cautions(plan)),
        "rejected": dict(sorted(Counter(r.reason for r in rejected).items())),
        "candidates": len(blocks) * plan.block,
        "evaluations_per_image": evaluations / made,
        "classifier_gradients_per_image": gradients / made,
        "entropy": _means(entries),
        "inputs_sha256": plan.inputs,
        "models": plan.models.model_dump(),
        "machine": plan.machine.model_dump(),
        "versions": plan.versions,
        "shard": list(dataset.shard),
        "seconds": _seconds(dataset, work, trained, seconds),
        "blocks_made_now": work.blocks,
        "exit_code": code,
    }


def strained(dataset: Dataset) -> str:
    """The classes of which the gates refused twice as many candidates as they let pass, in words; "" where there are none."""
    from collections import Counter

    passed, refused = Counter(entry.label for entry in dataset.entries()), Counter[str]()
    for row in dataset.rejected():
        (passed if row.reason == "surplus" else refused)[row.label] += 1
    return ", ".join(
        f"{name} {refused[name]} of {refused[name] + passed[name]}"
        for name in dataset.plan.classes
        if refused[name] > max(STRAINED * passed[name], FEWEST)
    )


def _seconds(dataset: Dataset, work: Work, trained: float, seconds: float) -> dict[str, float]:
    """What this process took; where it found everything made, what that took the one before, by its record."""
    import json
    from contextlib import suppress

    from mgdm_cli.data.dataset import RECORD

    if not work.blocks and not trained:
        with suppress(OSError, ValueError, KeyError):
            before = json.loads((dataset.root / RECORD).read_bytes())
            if before["plan_sha256"] == dataset.plan.run:
                return {name: float(value) for name, value in before["seconds"].items()}
    return {"training": round(trained, 1), "generation": round(work.seconds, 1), "all": round(seconds, 1)}


def _means(entries: Any) -> dict[str, float] | None:
    pairs = [(e.before.entropy, e.after.entropy) for e in entries if e.before and e.after]
    if not pairs:
        return None
    return {"before": sum(a for a, _ in pairs) / len(pairs), "after": sum(b for _, b in pairs) / len(pairs)}


def write_records(dataset: Dataset, document: dict[str, Any], flags: Mapping[str, Any]) -> None:
    """run.json and config.resolved.toml; the first holds the hash of the page, which is there by now, for `verify`."""
    import json

    from mgdm_cli.config import RESOLVED, resolved_toml
    from mgdm_cli.data.dataset import PAGE, PAGE_SHA256, RECORD
    from mgdm_cli.data.files import sha256_file

    named = {**document, "out": dataset.root.name}
    page = dataset.root / PAGE
    if page.exists():
        named[PAGE_SHA256] = sha256_file(page)
    dataset.write(RESOLVED, resolved_toml(flags).encode())
    dataset.write(RECORD, (json.dumps(console.plain(named), indent=2, sort_keys=True) + "\n").encode())
