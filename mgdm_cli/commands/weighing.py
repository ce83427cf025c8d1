"""The utility part of `evaluate`: which arms, which nets, how long; cells computed or found; the table and its verdicts."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mgdm_cli import console
from mgdm_cli.console import Result
from mgdm_cli.errors import UsageError

if TYPE_CHECKING:
    import torch

    from mgdm_cli.data.folder import Scan
    from mgdm_cli.data.image import Record
    from mgdm_cli.engine.preparing import Prepared
    from mgdm_cli.engine.utility import Arm, Bench, CellSettings
    from mgdm_cli.metrics.utility import Gain
    from mgdm_cli.report.content import Tone, Utility, Verdict

CONTROLS = ("real", "dup", "classical")
OWN = "synthetic"  # the arm of the folder that --synthetic names
CELLS = "cells"
WHAT = {
    "real": "real images alone",
    "dup": "real images and as many duplicates of them",
    "classical": "real images and as many turned, moved and re-toned ones",
}
BYTES = 2_000  # a cell's file beside its logits


@dataclass(frozen=True)
class Asked:
    """What was asked for: `folders` (arm -> folder, None for --synthetic), controls, nets, seeds, limits."""

    controls: tuple[str, ...]
    folders: tuple[tuple[str, Path | None], ...]
    nets: tuple[str, ...]
    seeds: int
    steps: int | None = None
    budget: float | None = None  # seconds
    jobs: int = 1  # processes at once

    @classmethod
    def of(
        cls, arms: str, nets: str, seeds: int, steps: int | None = None, budget: float | None = None, jobs: int = 1
    ) -> Asked:
        """From the flags: "real,dup,guided=./out" and "quick,resnet18". Raises UsageError."""
        controls = ["real"]
        folders: list[tuple[str, Path | None]] = []
        for part in (piece.strip() for piece in arms.split(",") if piece.strip()):
            name, given, where = part.partition("=")
            if given and name and where and name not in CONTROLS:
                folders.append((name, Path(where)))
            elif part in CONTROLS:
                controls.append(part)
            elif part == OWN:
                folders.append((OWN, None))
            else:
                raise UsageError(
                    f"--arms: {part!r} is no arm", f"Use {', '.join((*CONTROLS, OWN))}, or NAME=FOLDER for a folder"
                )
        names = [name for name, _ in folders]
        if not folders or len(set(names)) < len(names):
            raise UsageError(
                "--arms: names no folder, or one name twice", f"Add {OWN} (the folder of --synthetic) or NAME=FOLDER"
            )
        return cls(tuple(dict.fromkeys(controls)), tuple(folders), _nets(nets), seeds, steps, budget, jobs)


@dataclass(frozen=True)
class Row:
    """One arm: images it adds per class, and its mean measures over nets and seeds."""

    name: str
    made: bool
    images: dict[str, int]
    measures: dict[str, float]


@dataclass(frozen=True)
class Weighed:
    """The table. `gains` has every folder's arm, and every control, against `real`; then folders against the controls."""

    rows: tuple[Row, ...]
    gains: tuple[Gain, ...]
    nets: tuple[str, ...]
    seeds: int
    settings: CellSettings
    test: dict[str, int]
    real: dict[str, int]
    done: int
    cells: int
    notes: tuple[str, ...]

    @property
    def partial(self) -> bool:
        """Whether time ran out before all cells were there."""
        return self.done < self.cells


def weigh(
    prepared: Prepared,
    asked: Asked,
    synthetic: Path,
    test: Path | None,
    target: Path,
    device: torch.device,
    *,
    seed: int,
) -> Weighed:
    """Train what is missing, within the budget, and compare. Raises UsageError where there is no test set."""
    import numpy as np

    from mgdm_cli.engine import utility
    from mgdm_cli.engine.utility_jobs import run_cells_with
    from mgdm_cli.metrics.utility import gain, measured

    bench, arms, patients, notes = _set_up(prepared, asked, synthetic, test, device, seed)
    settings = _settings(asked, bench)
    folder, done = target / CELLS, 0
    folder.mkdir(exist_ok=True)
    cells = utility.planned(arms, asked.nets, asked.seeds)
    begun = time.monotonic()

    def go_on(longest: float) -> bool:
        return asked.budget is None or time.monotonic() - begun + longest <= asked.budget

    with console.progress("train the classifiers", len(cells), "cells") as bar:
        for event in run_cells_with(asked.jobs, folder, bench, arms, cells, settings, go_on=go_on):
            bar.advance(1, f"{event.cell.arm}, {event.cell.net}, seed {event.cell.seed}")
            done = event.done
    found, nets = utility.table(folder, bench, arms, asked.nets, asked.seeds, settings)
    label = np.asarray(bench.test.label.cpu().numpy())
    gains = [
        gain(arm.name, control, found[arm.name], found[control], label, nets, patients=patients, seed=seed)
        for control in asked.controls
        for arm in arms
        if found and arm.name != control and (arm.made or control == "real")
    ]
    rows = tuple(
        Row(arm.name, arm.made, _named(prepared, arm.pool, bench.classes), measured(found[arm.name], label))
        for arm in arms
        if found
    )
    seeds = next(iter(found.values())).shape[1] if found else 0
    counts = (_named(prepared, bench.test, bench.classes), _named(prepared, bench.real, bench.classes))
    return Weighed(rows, tuple(gains), nets, seeds, settings, *counts, done, len(cells), notes)


def estimate(
    prepared: Prepared,
    asked: Asked,
    synthetic: Path,
    test: Path | None,
    target: Path,
    device: torch.device,
    *,
    seed: int,
) -> Result:
    """What the utility part would cost, from measured steps; writes nothing."""
    from mgdm_cli.engine import utility

    bench, arms, _, notes = _set_up(prepared, asked, synthetic, test, device, seed)
    settings = _settings(asked, bench)
    cells = utility.planned(arms, asked.nets, asked.seeds)
    missing = [
        cell
        for cell, path in zip(cells, utility.paths_of(target / CELLS, bench, arms, cells, settings), strict=True)
        if not path.is_file()
    ]
    pace = {}
    for net in asked.nets:
        console.say(f"measure {net}")
        pace[net] = utility.seconds_per_step(bench, net, settings)
    seconds = sum(pace[cell.net] * settings.steps for cell in missing)
    disk = len(missing) * (BYTES + 4 * bench.classes * len(bench.test.label))
    document: dict[str, Any] = {
        "dry_run": True,
        "arms": {arm.name: _named(prepared, arm.pool, bench.classes) for arm in arms},
        "nets": {net: {"seconds_per_step": round(pace[net], 4)} for net in asked.nets},
        "seeds": asked.seeds,
        "steps": settings.steps,
        "cells": len(cells),
        "cells_missing": len(missing),
        "seconds": round(seconds),
        "disk_bytes": disk,
        "test": _named(prepared, bench.test, bench.classes),
        "notes": list(notes),
    }
    within = asked.budget is None or seconds <= asked.budget
    lines = (
        f"{len(cells)} cells ({len(arms)} arms, {len(asked.nets)} nets, {asked.seeds} seeds), {len(missing)} of them missing",
        f"{settings.steps} steps of {settings.batch} images each; {len(bench.test.label)} test images",
        *(f"{net}: {1000 * pace[net]:.0f} ms a step" for net in asked.nets),
        f"about {console.clock_text(seconds)}, {disk / 1e6:.1f} MB; nothing was written",
        *(() if within else ("more than the budget: the table will be smaller, and the same command continues",)),
    )
    return Result(document, lines)


def document_of(weighed: Weighed) -> dict[str, Any]:
    """Everything as plain values."""
    return {
        "arms": {row.name: {"images": row.images, "folder": row.made, **row.measures} for row in weighed.rows},
        "gains": [{**asdict(g), "verdict": g.verdict} for g in weighed.gains],
        "nets": list(weighed.nets),
        "seeds": weighed.seeds,
        "settings": asdict(weighed.settings),
        "test": weighed.test,
        "real": weighed.real,
        "cells": {"done": weighed.done, "of": weighed.cells},
        "notes": list(weighed.notes),
    }


def page_part(weighed: Weighed) -> Utility:
    """The part of the page."""
    from mgdm_cli.report import content

    arms = tuple(
        content.Arm(
            row.name, WHAT.get(row.name, "real images and those of a folder"), sum(row.images.values()), **row.measures
        )
        for row in weighed.rows
    )
    gains = tuple(
        content.Gain(
            g.arm, g.against, g.value, g.lo, g.hi, g.verdict, tuple((n.net, n.value, n.lo, n.hi) for n in g.nets),
            g.better, g.worse, g.p,
        )
        for g in weighed.gains
    )  # fmt: skip
    each = ", ".join(f"{n} {name}" for name, n in weighed.test.items())
    how = weighed.settings
    note = f"{len(weighed.nets)} nets, {weighed.seeds} seeds, {how.steps} steps of {how.batch} images; test images: {each}."
    if weighed.partial:
        note += f" Time ran out after {weighed.done} of {weighed.cells} trainings; the same command continues."
    return content.Utility(arms, gains, " ".join((note, *(f"{n[0].upper()}{n[1:]}." for n in weighed.notes))))


def verdicts_of(weighed: Weighed) -> list[Verdict]:
    """One line an arm from a folder: over real images alone, and whether it beats the controls too."""
    from mgdm_cli.report.content import Verdict
    from mgdm_cli.report.page import points

    if not weighed.rows:
        return [
            Verdict(
                "caution", "What the images are worth is not known yet.", "Time ran out; the same command continues."
            )
        ]
    tones: dict[str, Tone] = {"helps": "good", "no evidence": "plain", "hurts": "bad"}
    lines = {
        "helps": "Helps: with {} classifiers are better than with real images alone.",
        "no evidence": "No evidence that {} makes classifiers better or worse.",
        "hurts": "Hurts: with {} classifiers are worse than with real images alone.",
    }
    out = []
    made = {row.name for row in weighed.rows if row.made}
    for g in weighed.gains:
        if g.against != "real" or g.arm not in made:
            continue
        said = f"{points(g.value)} points of balanced accuracy [{points(g.lo)}, {points(g.hi)}] over "
        said += f"{len(g.nets)} nets and {g.seeds} seeds."
        rest = [o for o in weighed.gains if o.arm == g.arm and o.against != "real"]
        said += "".join(f" Over {o.against}: {points(o.value)} [{points(o.lo)}, {points(o.hi)}]." for o in rest)
        if g.seeds < 2:
            said += " A single seed cannot tell an effect from chance in training."
        tone = tones[g.verdict]
        if g.verdict == "helps" and any(o.lo <= 0 for o in rest):
            tone, said = "plain", said + " Not shown to be better than the controls: they may do as well."
        out.append(Verdict(tone, lines[g.verdict].format(g.arm), said))
    return out


def _nets(text: str) -> tuple[str, ...]:
    """Names of nets, groups written out."""
    from mgdm_cli.nets.zoo import GROUPS, NETS

    out: list[str] = []
    for part in (piece.strip() for piece in text.split(",") if piece.strip()):
        if part not in NETS and part not in GROUPS:
            raise UsageError(f"--nets: {part!r} is no net", f"Use {', '.join((*GROUPS, *NETS))}")
        out += GROUPS.get(part, (part,))
    if not out:
        raise UsageError("--nets: names no net", f"Use {', '.join(GROUPS)}, or names")
    return tuple(dict.fromkeys(out))


def _settings(asked: Asked, bench: Bench) -> CellSettings:
    from mgdm_cli.engine.utility import CellSettings, steps_for

    return CellSettings(asked.steps or steps_for(len(bench.real.label)))


def _set_up(
    prepared: Prepared, asked: Asked, synthetic: Path, test: Path | None, device: torch.device, seed: int
) -> tuple[Bench, tuple[Arm, ...], tuple[str, ...], tuple[str, ...]]:
    """(bench, arms, patients of the test images, notes). All arms with a pool add equally many images of each class."""
    import numpy as np

    from mgdm_cli.data.splits import patient_key
    from mgdm_cli.engine import judging, utility
    from mgdm_cli.engine.preparing import pictures

    records, scan, notes = _test(prepared, test)
    real = pictures(prepared, (*prepared.splits.train, *prepared.splits.holdout), device)
    bench = utility.Bench(real, judging.pictures_of(scan, records, prepared, device), len(prepared.classes))
    pools = {}
    for name, where in asked.folders:
        others, found = judging.others(where or synthetic, prepared, synthetic=True)
        pools[name] = judging.pictures_of(found, others, prepared, device)
    counts = np.min([utility.counts_of(pool, bench.classes) for pool in pools.values()], axis=0)
    if any(len(pool.label) > counts.sum() for pool in pools.values()):
        notes = (*notes, "every arm adds as many images of each class as the smallest folder has")
    make = {"dup": utility.duplicates, "classical": utility.classical}
    arms = [
        utility.Arm(name, None if name == "real" else make[name](real, counts, seed=seed)) for name in asked.controls
    ]
    arms += [utility.Arm(name, utility.trimmed(pool, counts, seed=seed), made=True) for name, pool in pools.items()]
    return bench, tuple(arms), tuple(patient_key(record) for record in records), notes


def _test(prepared: Prepared, test: Path | None) -> tuple[tuple[Record, ...], Scan, tuple[str, ...]]:
    """(test records, their scan, notes): the folder named, else the input's own test split; never a training image."""
    from mgdm_cli.engine import judging

    if test is not None:
        records, scan = judging.others(test, prepared, synthetic=False)
    else:
        records, scan = prepared.splits.test, prepared.scan
    learnt = (*prepared.splits.train, *prepared.splits.holdout)
    known = {(record.sha256, record.part) for record in learnt}
    patients = {record.patient for record in learnt if record.patient is not None}
    new = tuple(r for r in records if (r.sha256, r.part) not in known and r.patient not in patients)
    notes = () if len(new) == len(records) else (
        f"{len(records) - len(new)} test images are, or show patients of, training images and were left out",
    )  # fmt: skip
    lacking = [name for name in prepared.classes if not any(record.label == name for record in new)]
    if lacking:
        raise UsageError(
            f"--arms: there are no test images of class {lacking[0]}",
            "Give --test DIR, or a test folder or split column in the real set: images that nothing was learnt from",
        )
    return new, scan, notes


def _named(prepared: Prepared, data: Any, classes: int) -> dict[str, int]:
    from mgdm_cli.engine.utility import counts_of

    counts = [0] * classes if data is None else counts_of(data, classes).tolist()
    return dict(zip(prepared.classes, counts, strict=True))
