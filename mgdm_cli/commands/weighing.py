"""The utility part of `evaluate`: which arms, which nets, how long; cells computed or found; the table of measures.

What is said of the table, and how it is shown, stands in weighed.py.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mgdm_cli import console
from mgdm_cli.commands.arming import MADE, Maker
from mgdm_cli.console import Result
from mgdm_cli.errors import UsageError

if TYPE_CHECKING:
    from mgdm_cli.engine.judging import RealTest
    from mgdm_cli.engine.preparing import Prepared
    from mgdm_cli.engine.utility import Arm, Bench, CellSettings
    from mgdm_cli.metrics.utility import Gain

CONTROLS = ("real", "dup", "classical")
OWN = "synthetic"  # the arm of the folder that --synthetic names
CELLS = "cells"
BYTES = 2_000  # a cell's file beside its logits


@dataclass(frozen=True)
class Asked:
    """What was asked for: controls, `folders` (arm -> folder, None for --synthetic), arms to be `made`, nets, limits.

    `ordered`: whether the classes are grades; None: by their names.
    """

    controls: tuple[str, ...]
    folders: tuple[tuple[str, Path | None], ...]
    nets: tuple[str, ...]
    seeds: int
    steps: int | None = None
    budget: float | None = None  # seconds
    jobs: int = 1  # processes at once
    made: tuple[str, ...] = ()
    ordered: bool | None = None

    @classmethod
    def of(
        cls,
        arms: str,
        nets: str,
        seeds: int,
        steps: int | None = None,
        budget: float | None = None,
        jobs: int = 1,
        ordered: bool | None = None,
    ) -> Asked:
        """From the flags: "real,dup,gen,guided=./out" and "quick,resnet18". Raises UsageError."""
        controls = ["real"]
        made: list[str] = []
        folders: list[tuple[str, Path | None]] = []
        for part in (piece.strip() for piece in arms.split(",") if piece.strip()):
            name, given, where = part.partition("=")
            if given and name and where and name not in CONTROLS:
                folders.append((name, Path(where)))
            elif part in CONTROLS:
                controls.append(part)
            elif part in MADE:
                made.append(part)
            elif part == OWN:
                folders.append((OWN, None))
            else:
                raise UsageError(
                    f"--arms: {part!r} is no arm",
                    f"Use {', '.join((*CONTROLS, *MADE, OWN))}, or NAME=FOLDER for a folder",
                )
        names = [*(name for name, _ in folders), *made]
        if not names or len(set(names)) < len(names):
            raise UsageError(
                "--arms: names no synthetic images, or one name twice",
                f"Add {OWN} (the folder of --synthetic), {', '.join(MADE)} (made now by the model), or NAME=FOLDER",
            )
        kept = tuple(dict.fromkeys(controls))
        return cls(kept, tuple(folders), _nets(nets), seeds, steps, budget, jobs, tuple(made), ordered)


@dataclass(frozen=True)
class Weighing:
    """What the table is made of: `maker` knows the real images, the synthetic set, the model and the output folder."""

    maker: Maker
    asked: Asked
    test: RealTest


@dataclass(frozen=True)
class Row:
    """One arm: images it adds per class, and its mean measures over nets and seeds."""

    name: str
    made: bool
    images: dict[str, int]
    measures: dict[str, float]


@dataclass(frozen=True)
class Weighed:
    """The table. `gains` has every folder's arm, and every control, against `real`; then folders against the controls, and
    the later folders against the first: whether guidance adds to plain images, say."""

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
    ordered: bool = False
    strange: tuple[str, ...] = ()  # arms of folders whose generator may have learnt from the test images

    @property
    def partial(self) -> bool:
        """Whether time ran out before all cells were there."""
        return self.done < self.cells

    @property
    def over_real(self) -> tuple[Gain, ...]:
        """What the made arms, those of folders among them, are worth over real images alone."""
        made = {row.name for row in self.rows if row.made}
        return tuple(g for g in self.gains if g.against == "real" and g.arm in made)

    @property
    def told(self) -> bool:
        """Whether the whole table is there, has the set of --synthetic in it, and could tell harm from chance."""
        return not self.partial and any(g.arm == OWN and g.able for g in self.over_real)

    @property
    def hurts(self) -> bool:
        """Whether the set of --synthetic hurts; other arms are there to compare."""
        return self.told and any(g.arm == OWN and g.verdict == "hurts" for g in self.over_real)


def weigh(task: Weighing) -> Weighed:
    """Make and train what is missing, within the budget, and compare. Raises UsageError where there is no test set."""
    import numpy as np

    from mgdm_cli.engine.utility import Table, require_nets
    from mgdm_cli.engine.utility_jobs import run_cells
    from mgdm_cli.metrics.utility import gain, measured

    asked, prepared = task.asked, task.maker.prepared
    bench, patients, notes = _bench(task)
    folder, done = task.maker.target / CELLS, 0
    if not folder.is_dir():  # before arms are made; later each net is tried that still has a cell to train
        require_nets(asked.nets, bench.shape)
    arms, more, _ = _arms(task, bench)
    folder.mkdir(parents=True, exist_ok=True)
    table = Table(folder, bench, arms, asked.nets, asked.seeds, _settings(asked, bench))
    cells = len(arms) * len(asked.nets) * asked.seeds
    begun = time.monotonic()

    def go_on(longest: float) -> bool:
        return asked.budget is None or time.monotonic() - begun + longest <= asked.budget

    with console.progress("train the classifiers", cells, "trainings") as bar:
        for event in run_cells(table, jobs=asked.jobs, go_on=go_on):
            bar.advance(1, f"{event.cell.arm}, {event.cell.net}, seed {event.cell.seed}")
            done = event.done
    found, nets = table.found()
    label = np.asarray(bench.test.label.cpu().numpy())
    ordered = _ordered(asked, prepared)
    made = [arm.name for arm in arms if arm.made]
    pairs = [(arm.name, c) for c in asked.controls for arm in arms if arm.name != c and (arm.made or c == "real")]
    gains = [
        gain(arm, against, found[arm], found[against], label, nets, patients=patients, seed=task.maker.seed)
        for arm, against in [*pairs, *((later, made[0]) for later in made[1:])]
        if found
    ]
    rows = tuple(
        Row(
            arm.name,
            arm.made,
            _named(prepared, arm.pool, bench.classes),
            measured(found[arm.name], label, ordered=ordered),
        )
        for arm in arms
        if found
    )
    seeds = next(iter(found.values())).shape[1] if found else 0
    counts = (_named(prepared, bench.test, bench.classes), _named(prepared, bench.real, bench.classes))
    said = (*notes, *more)
    return Weighed(rows, tuple(gains), nets, seeds, table.settings, *counts, done, cells, said, ordered, _strange(task))


def _strange(task: Weighing) -> tuple[str, ...]:
    """The arms of folders that do not say that their generator learnt from this training split."""
    from mgdm_cli.commands.measuring import plan_in

    maker, out = task.maker, []
    for name, where in task.asked.folders:
        plan, _ = plan_in(where or maker.synthetic, maker.prepared)
        if plan is None or plan.inputs != maker.prepared.fingerprint:
            out.append(name)
    return tuple(out)


def estimate(task: Weighing) -> Result:
    """What the utility part would cost, from measured steps; writes nothing."""
    from mgdm_cli.engine import utility

    asked, prepared = task.asked, task.maker.prepared
    bench, _, notes = _bench(task)
    arms, more, making = _arms(task, bench, dry=True)
    settings = _settings(asked, bench)
    table = utility.Table(task.maker.target / CELLS, bench, arms, asked.nets, asked.seeds, settings)
    missing = [cell for cell, path in table.paths().items() if cell.arm in making or not path.is_file()]
    pace = {}
    for net in asked.nets:
        console.say(f"measure {net}")
        pace[net] = utility.seconds_per_step(bench, net, settings)
    seconds = sum(pace[cell.net] * settings.steps for cell in missing)
    disk = len(missing) * (BYTES + 4 * bench.classes * len(bench.test.label))
    cells = len(arms) * len(asked.nets) * asked.seeds
    document: dict[str, Any] = {
        "dry_run": True,
        "arms": {arm.name: _named(prepared, arm.pool, bench.classes) for arm in arms},
        "making": {name: round(value) for name, value in making.items()},
        "nets": {net: {"seconds_per_step": round(pace[net], 4)} for net in asked.nets},
        "seeds": asked.seeds,
        "steps": settings.steps,
        "cells": cells,
        "cells_missing": len(missing),
        "seconds": round(seconds),
        "disk_bytes": disk,
        "test": _named(prepared, bench.test, bench.classes),
        "notes": [*notes, *more],
    }
    within = asked.budget is None or seconds <= asked.budget
    lines = (
        *(f"arm {name}: about {console.clock_text(value)} to make its images" for name, value in making.items()),
        f"{cells} trainings ({len(arms)} arms, {len(asked.nets)} nets, {asked.seeds} seeds), {len(missing)} of them to do",
        f"{settings.steps} steps of {settings.batch} images each; {len(bench.test.label)} test images",
        *(f"{net}: {1000 * pace[net]:.0f} ms a step" for net in asked.nets),
        f"about {console.clock_text(seconds)}, {disk / 1e6:.1f} MB; nothing was written",
        *(() if within else ("more than the budget: the table will be smaller, and the same command continues",)),
    )
    return Result(document, lines)


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


def _ordered(asked: Asked, prepared: Prepared) -> bool:
    from mgdm_cli.metrics.utility import are_grades

    return are_grades(prepared.classes) if asked.ordered is None else asked.ordered


def _bench(task: Weighing) -> tuple[Bench, tuple[str, ...], tuple[str, ...]]:
    """(bench, patients of the test images, notes)."""
    from mgdm_cli.data.splits import patient_key
    from mgdm_cli.engine import judging, utility
    from mgdm_cli.engine.preparing import pictures

    prepared, device, test = task.maker.prepared, task.maker.device, task.test
    lacking = [name for name in prepared.classes if not any(record.label == name for record in test.records)]
    if lacking:
        raise UsageError(
            f"--arms: there are no test images of class {lacking[0]}",
            "Give --test DIR, or a test folder or split column in the real set: images that nothing was learnt from",
        )
    real = pictures(prepared, (*prepared.splits.train, *prepared.splits.holdout), device)
    bench = utility.Bench(real, judging.pictures_of(test.scan, test.records, prepared, device), len(prepared.classes))
    return bench, tuple(patient_key(record) for record in test.records), test.notes


def _arms(
    task: Weighing, bench: Bench, *, dry: bool = False
) -> tuple[tuple[Arm, ...], tuple[str, ...], dict[str, float]]:
    """(arms, notes, seconds that arms not made yet would take). All arms with a pool add equally many images of a class.

    Dry, nothing is made: an arm that is not there yet stands with duplicates in its place.
    """
    import numpy as np

    from mgdm_cli.data.allotment import one_sided
    from mgdm_cli.engine import judging, utility

    maker, asked, prepared, seed = task.maker, task.asked, task.maker.prepared, task.maker.seed

    def pool(folder: Path) -> Any:
        others, found = judging.others(folder, prepared, synthetic=True)
        return judging.pictures_of(found, others, prepared, maker.device)

    pools = {name: pool(where or maker.synthetic) for name, where in asked.folders}
    sizes = [utility.counts_of(p, bench.classes) for p in pools.values() or (pool(maker.synthetic),)]
    counts = np.min(sizes, axis=0)
    wanted = dict(zip(prepared.classes, counts.tolist(), strict=True))
    making = {}
    for name in asked.made:
        there = maker.is_there(name, wanted)
        if dry and there is None:
            making[name] = maker.seconds(name, wanted)
            pools[name] = utility.duplicates(bench.real, counts, seed=seed)
        else:
            pools[name] = pool(there or maker.make(name, wanted))
    counts = np.min([utility.counts_of(p, bench.classes) for p in pools.values()], axis=0)
    notes: tuple[str, ...] = ()
    if any(len(p.label) > counts.sum() for p in pools.values()):
        notes = ("every arm adds as many images of each class as the smallest synthetic set has",)
    if counts.any() and not counts.all():
        notes = (
            *notes,
            one_sided("added to", [name for name, n in zip(prepared.classes, counts, strict=True) if not n]),
        )
    make = {"dup": utility.duplicates, "classical": utility.classical}
    arms = [
        utility.Arm(name, None if name == "real" else make[name](bench.real, counts, seed=seed))
        for name in asked.controls
    ]
    arms += [utility.Arm(name, utility.trimmed(p, counts, seed=seed), made=True) for name, p in pools.items()]
    return tuple(arms), notes, making


def _named(prepared: Prepared, data: Any, classes: int) -> dict[str, int]:
    from mgdm_cli.engine.utility import counts_of

    counts = [0] * classes if data is None else counts_of(data, classes).tolist()
    return dict(zip(prepared.classes, counts, strict=True))
