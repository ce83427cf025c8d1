"""Students beside their teacher: how far from real pictures, how much of their variety, how quick, how hard and how true.

    mgdm train --data ../shared/data/pneumoniamnist --base none --seen 30000 -o /tmp/teacher
    mgdm distill /tmp/teacher --data ../shared/data/pneumoniamnist --seen 8000 -o /tmp/one
    python -m benchmarks.distill --data ../shared/data/pneumoniamnist --teacher /tmp/teacher --student one=/tmp/one --work /tmp/judges

Every row draws the same number of images of each class from the same seeds, by the teacher with DPM-Solver++(2M) at several numbers of
steps and two scales of guidance, and by each student; what is measured is in `distances`. Then the same blocks under `--guidance
uncertainty`: how much the entropy of the judges, who took no part, rises over the same seeds undisturbed, and at what cost.
Times are of one process on the CPU; rows are timed in turn, three times, and the ratio to the slowest row's median is of the same turn.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image as Picture

from benchmarks.distances import CPU, add_source, gauge, source_of, told
from benchmarks.keeping import keep
from mgdm_cli.commands.wanted import BETWEEN, SCALE, STRENGTH
from mgdm_cli.data.plan import SCALE_BETWEEN, Recipe
from mgdm_cli.engine import judging
from mgdm_cli.engine.decoding import Count, Parts, make_block
from mgdm_cli.engine.device import make_deterministic
from mgdm_cli.engine.run import load_parts, read_settings
from mgdm_cli.engine.student import SAMPLER
from mgdm_cli.metrics.labels import entropy, wilson

BLOCK = 8
TURNS = 3


@dataclass(frozen=True)
class Arm:
    """One way to make images: a model and a recipe."""

    name: str
    folder: Path
    parts: Parts
    recipe: Recipe


def arms(teacher: Path, students: dict[str, Path], steps: Sequence[int], scales: Sequence[float]) -> list[Arm]:
    """The teacher at each number of steps, then the students."""
    device, found = CPU, []
    settings = read_settings(teacher)
    parts, _ = load_parts(teacher, settings, device)
    plain: dict[str, Any] = {"process": settings.process, "guidance": "cfg"}
    for n, scale in itertools.product(steps, scales):
        recipe = Recipe(**plain, sampler="dpmpp_2m", steps=n, scale=scale, scale_between=SCALE_BETWEEN)
        found.append(Arm(f"teacher, {n} steps, scale {scale:g}", teacher, parts, recipe))
    for name, folder in students.items():
        own = read_settings(folder)
        assert own.student is not None
        mine, _ = load_parts(folder, own, device)
        found.append(Arm(name, folder, mine, Recipe(**plain, sampler=SAMPLER, steps=own.student.steps)))
    return found


def drawn(arm: Arm, per_class: int, guidance: str | None = None, seed: int = 3) -> tuple[Any, ...]:
    """(x0 (N, C, H, W), the same before disturbance or None, label (N,), work done) of an arm."""
    recipe = arm.recipe
    if guidance is not None:
        pull = {"guidance": guidance, "strength": STRENGTH, "between": BETWEEN}
        recipe = recipe.model_copy(update=pull)
    after, before, label, count = [], [], [], Count()
    for class_index in range(len(read_settings(arm.folder).classes)):
        for attempt in range(-(-per_class // BLOCK)):
            made = make_block(
                arm.parts, recipe, run_seed=seed, lot=class_index, attempt=attempt, block=BLOCK, class_index=class_index
            )
            after.append(made.after)
            before.append(made.after if made.before is None else made.before)
            label += [class_index] * BLOCK
            count.evaluations += made.count.evaluations
            count.gradients += made.count.gradients
    return torch.cat(after), torch.cat(before), np.array(label), count


def hard(arm: Arm, per_class: int, found: judging.Judges) -> dict[str, Any]:
    """What uncertainty guidance finds, by judges that took no part: of the images that the run's judge would let pass."""
    started = time.perf_counter()
    after, before, label, count = drawn(arm, per_class, "uncertainty")
    seconds = time.perf_counter() - started
    kept = judging_kept(arm, after, label)
    gain = entropy(judging.judged(found, after)) - entropy(judging.judged(found, before))
    gain = gain[kept]
    rng = np.random.default_rng(0)
    means = [float(rng.choice(gain, len(gain)).mean()) for _ in range(2000)] if len(gain) else [0.0]
    seen = judging.judged(found, after).argmax(1)[kept] == label[kept]
    accepted = max(int(kept.sum()), 1)
    return {
        "accepted": int(kept.sum()),
        "of": len(label),
        "evaluations_per_accepted": count.evaluations / accepted,
        "gradients_per_accepted": count.gradients / accepted,
        "seconds_per_accepted": seconds / accepted,
        "entropy_gain": float(gain.mean()) if len(gain) else None,
        "entropy_gain_interval": [float(v) for v in np.quantile(means, (0.025, 0.975))],
        "class_seen": float(seen.mean()) if len(seen) else None,
        "class_seen_interval": wilson(int(seen.sum()), len(seen)) if len(seen) else None,
    }


def judging_kept(arm: Arm, x0: torch.Tensor, label: Any) -> Any:
    """(N,) whether the run's own judge still sees the class."""
    from mgdm_cli.engine.classifying import logits_of

    assert arm.parts.judge is not None
    return logits_of(arm.parts.judge, x0).argmax(-1).numpy() == label


def timed(all_arms: Sequence[Arm]) -> dict[str, list[float]]:
    """Images a second of each arm, once a turn, the arms one after the other."""
    paces: dict[str, list[float]] = {arm.name: [] for arm in all_arms}
    for _ in range(TURNS + 1):
        for arm in all_arms:
            started = time.perf_counter()
            make_block(arm.parts, arm.recipe, run_seed=1, lot=0, attempt=0, block=BLOCK, class_index=0)
            paces[arm.name].append(BLOCK / (time.perf_counter() - started))
    return {name: found[1:] for name, found in paces.items()}


def sheet(path: Path, rows: Sequence[torch.Tensor], *, columns: int = 16) -> None:
    """One picture: a row of images an arm, the same seeds below each other."""
    grid = torch.cat([torch.cat(list(x0[:columns]), -1) for x0 in rows], -2)
    pixels = ((grid.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    image = Picture.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    image.resize((image.width * 2, image.height * 2)).save(path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, write benchmarks/results/distill_<set>_width<of the teacher>.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_source(parser)
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--student", action="append", default=[], metavar="NAME=RUN")
    parser.add_argument("--steps", default="4,8,14,50", help="of the teacher")
    parser.add_argument("--scales", default=f"1,{SCALE:g}", help="of the guidance of the teacher")
    parser.add_argument("--per-class", type=int, default=80)
    parser.add_argument(
        "--hard-per-class", type=int, default=40, help="images a class under uncertainty guidance; 0 is none"
    )
    asked = parser.parse_args(arguments)
    make_deterministic()
    prepared = source_of(asked)
    measure = gauge(prepared, asked.work)
    students = {name: Path(folder) for name, _, folder in (text.partition("=") for text in asked.student)}
    scales = [float(scale) for scale in asked.scales.split(",")]
    everyone = arms(asked.teacher, students, [int(n) for n in asked.steps.split(",")], scales)
    rows, pictures = {}, []
    for arm in everyone:
        x0, _, label, count = drawn(arm, asked.per_class)
        student = read_settings(arm.folder).student
        rows[arm.name] = {
            "student": None if student is None else asdict(student),
            **measure.of(x0, label),
            "evaluations": count.evaluations / len(label),
        }
        if asked.hard_per_class and (arm.parts.student or arm.recipe.steps in (8, 9)):
            rows[arm.name]["uncertainty"] = hard(arm, asked.hard_per_class, measure.found)
        chosen = [
            i for c in range(len(prepared.classes)) for i in np.flatnonzero(label == c)[: 16 // len(prepared.classes)]
        ]
        pictures.append(x0[chosen])
        tell(arm.name, rows[arm.name])
    paces = timed(everyone)
    slowest = min(paces, key=lambda name: statistics.median(paces[name]))
    for name, found_paces in paces.items():
        ratios = [a / b for a, b in zip(found_paces, paces[slowest], strict=True)]
        rows[name]["images_per_second"] = [round(v, 2) for v in found_paces]
        rows[name]["times_the_slowest"] = [round(v, 2) for v in ratios]
        sys.stdout.write(f"{name:28s} {statistics.median(found_paces):8.2f} images a second, {ratios}\n")
    sheet(asked.work / "sheet.png", pictures)
    teacher = read_settings(asked.teacher)
    document = {
        "set": asked.data.name,
        "teacher_seen": teacher.train.seen,
        "width": teacher.unet.width,
        "arms": rows,
    }
    keep(f"distill_{asked.data.name}_width{teacher.unet.width}", document)
    return 0


def tell(name: str, found: dict[str, Any]) -> None:
    """One line of the table."""
    line = f"{name:20s} {told(found)}, {found['evaluations']:.1f} evaluations"
    if "uncertainty" in found and found["uncertainty"]["entropy_gain"] is not None:
        more = found["uncertainty"]
        lo, hi = more["entropy_gain_interval"]
        line += (
            f"; uncertainty: gain {more['entropy_gain']:.3f} [{lo:.3f}, {hi:.3f}], class seen {more['class_seen']:.2f}"
        )
        line += (
            f", {more['accepted']} of {more['of']} accepted, {more['evaluations_per_accepted']:.1f} evaluations each"
        )
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
