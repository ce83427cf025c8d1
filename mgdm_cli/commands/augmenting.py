"""The steps of `augment` between its model and its result: the run completed, the plan made, page and lines of what came out."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mgdm_cli import console
from mgdm_cli.commands.completing import add_siblings, suited_scale, within_reach
from mgdm_cli.commands.making import steps_of, strained
from mgdm_cli.errors import OtherPlan, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from mgdm_cli.commands.finding import Training
    from mgdm_cli.commands.making import Work
    from mgdm_cli.commands.wanted import Wanted
    from mgdm_cli.data.allotment import Allotment
    from mgdm_cli.data.dataset import Dataset
    from mgdm_cli.data.plan import Plan
    from mgdm_cli.engine.generation import Works
    from mgdm_cli.engine.preparing import Prepared
    from mgdm_cli.engine.run import RunSettings


def require_named(wanted: Wanted, base: str) -> None:
    """Raises UsageError for a number that is missing, and for a format or a base model that is on no menu."""
    from mgdm_cli.data.codecs.chosen import require_kind
    from mgdm_cli.engine import bases

    if wanted.n is None and "=" not in wanted.balance:
        raise UsageError("--n is missing", "Give the number of accepted images wanted.")
    if wanted.write_as is not None:
        require_kind(wanted.write_as)
    if base not in ("auto", "none"):
        bases.named(base)


def require_same(target: Path, stored: Plan | None, prepared: Prepared, wanted: Wanted, seed: int) -> None:
    """Raises OtherPlan where the output folder was made in another way, as far as that is known before there is a model."""
    from mgdm_cli.data.plan import ANOTHER_FOLDER

    if stored is None:
        return
    if stored.inputs != prepared.fingerprint:
        raise OtherPlan(f"{target.name}: was made from other images, or from these read in another way", ANOTHER_FOLDER)
    pairs: dict[str, tuple[object, object]] = {
        "--n": (stored.asked, stored.asked if wanted.n is None else wanted.n),
        "--balance": (stored.balance, wanted.balance),
        "--guidance": (stored.recipe.guidance, wanted.guidance),
        "--mode": (stored.recipe.mode, wanted.mode),
        "--seed": (stored.seed, seed),
    }
    other = [f"{flag} {was}, not {now}" for flag, (was, now) in pairs.items() if was != now]
    if other:
        raise OtherPlan(f"{target.name}: was made with {', '.join(other)}", ANOTHER_FOLDER)


def allotted(prepared: Prepared, wanted: Wanted) -> Allotment:
    """How many images each class gets; says it, and what is odd about it. Raises UsageError, BadInput."""
    from mgdm_cli.data.allotment import allot

    found = allot(
        prepared.counts, wanted.n, wanted.balance, max_per_real=wanted.max_per_real, force_small=wanted.force_small
    )
    for note in found.notes:
        console.say(note)
    console.say("plan: " + ", ".join(f"{name} {prepared.counts[name]} + {more}" for name, more in found.quotas.items()))
    return found


def require_guidable(prepared: Prepared, wanted: Wanted) -> None:
    """Raises UsageError where a classifier is to pull, and images of one class alone are held out to say whether it beats chance."""
    from mgdm_cli.engine.decoding import UNSTAGED

    held = {record.label for record in prepared.splits.holdout}
    if wanted.guidance in UNSTAGED or len(held) > 1:
        return
    lacking = next(name for name in prepared.classes if name not in held)
    raise UsageError(
        f"--guidance {wanted.guidance}: no image of {lacking} could be held out, so that nothing would say whether the guide "
        "beats chance",
        "It takes images of three patients of two classes; or use --guidance cfg.",
    )


def completed(
    training: Training, prepared: Prepared, settings: RunSettings, wanted: Wanted, device: torch.device
) -> Wanted:
    """What is wanted, with the scale that suits the run where none was said; trains the siblings that a guidance needs."""
    folder = training.folder(prepared)
    if wanted.guidance == "disagreement":
        add_siblings(folder, prepared, settings, device)
    if wanted.scale is not None or wanted.depth is not None or wanted.guidance in ("none", "auto"):
        return wanted
    suits = suited_scale(folder, prepared, settings, device)
    suits = within_reach(suits, settings, steps_of(settings, wanted))
    return replace(wanted, scale=suits.scale, scale_between=suits.between)


def works_for(
    training: Training,
    settings: RunSettings,
    prepared: Prepared,
    allotment: Allotment,
    wanted: Wanted,
    device: torch.device,
) -> Works:
    """The plan, and all that it takes to carry it out. Raises BadInput or GateFailed where guide or gates cannot do their part."""
    from mgdm_cli.commands.making import recipe_by
    from mgdm_cli.data.plan import Statement
    from mgdm_cli.engine import planning
    from mgdm_cli.engine.preparing import pictures
    from mgdm_cli.engine.run import SIBLINGS, load_parts

    folder = training.folder(prepared)
    # how the images are stored and told is not learnt: a run may be of the same images told in another way
    now: dict[str, Any] = {"form": prepared.frame.form, "label_tag": prepared.scan.ask.label_tag}
    settings = settings.model_copy(update=now)
    skill = planning.require_skill(folder, wanted.guidance)
    for name, able in skill.items():
        console.say(f"{name}: {able}")
    parts, hashes = load_parts(folder, settings, device)
    gate = planning.copy_gate(prepared, alpha=wanted.copy_alpha) if wanted.filters else None
    if gate and gate[1].threshold.value is None:
        console.say(f"copy gate: only nearly the same picture is refused, for there are {gate[1].threshold.reason}")
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
        skill=skill,
    )
    if wanted.depth is not None:
        planning.require_copy_gate(gate)
        parts = replace(parts, real=pictures(prepared, prepared.splits.train, device))
    return planning.works_of(plan, parts, settings, gate)


def write_page(dataset: Dataset, works: Works, prepared: Prepared | None, document: dict[str, Any]) -> None:
    """report.html, but of a shard among several; with `prepared` real images stand on it."""
    if dataset.shard[1] == 1:  # of several it comes with the merge
        from mgdm_cli.commands.reporting import augment_report
        from mgdm_cli.data.dataset import PAGE

        page = augment_report(dataset, document, prepared=prepared, calibration=works.gates.calibration)
        dataset.write(PAGE, page)


def lines_of(dataset: Dataset, work: Work, document: dict[str, Any]) -> tuple[str, ...]:
    """What is said at the end."""
    lines = [
        f"{name}: {count['real']} real + {count['synthetic']} synthetic ({count['rejected']} rejected)"
        for name, count in document["classes"].items()
    ]
    for name, missing in dataset.short().items():
        lines.append(
            f"class {name}: {missing} images short: too few candidates passed the gates; a model that was trained longer may do"
        )
    if many := strained(dataset):
        lines.append(f"most candidates were refused ({many}): a model that was trained longer loses fewer")
    cost = f"{document['evaluations_per_image']:.1f} U-Net evaluations an accepted image"
    lines.append(f"{document['images']} images, {cost}, {console.clock_text(work.seconds)} to generate")
    lines += [f"caution: {caution}" for caution in document["notes"]]
    k, n = dataset.shard
    lines.append(
        str(dataset.root / "report.html") if n == 1 else f"shard {k} of {n} is done; join them with mgdm merge"
    )
    return tuple(lines)
