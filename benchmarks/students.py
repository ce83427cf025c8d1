"""Ways to a student side by side, each distilled several times from other seeds: by divergence, without its adversary, by steps.

    mgdm train --data ../shared/data/pneumoniamnist --base none --seen 30000 -o /tmp/teacher
    python -m benchmarks.students --data ../shared/data/pneumoniamnist --teacher /tmp/teacher --work /tmp/students

Every student begins with the weights of the one teacher, takes over the same scale of guidance (as a rule the one that suits the teacher)
and sees as many images; its `--seed` draws the order of images and all noise. All draw the same number of images of each class from the
same seeds. Told are the median over the seeds with the least and the largest, and beside them the teacher at 18, 14 and 4 steps, drawn as
often from other seeds. Students are kept in the work folder: a second call distils only what is missing.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.distances import CPU, add_source, gauge, source_of
from benchmarks.distill import Arm, arms, drawn, timed
from benchmarks.keeping import keep, said, spread
from mgdm_cli.commands.completing import suited_scale
from mgdm_cli.commands.distill import student_of
from mgdm_cli.data.files import make_dirs
from mgdm_cli.engine import distilling
from mgdm_cli.engine.device import make_deterministic, pick
from mgdm_cli.engine.preparing import Prepared
from mgdm_cli.engine.run import RunSettings, is_trained, read_settings, write_settings
from mgdm_cli.engine.scaling import Scale
from mgdm_cli.engine.student import StudentSettings

# name: (method, steps, divergence, what else differs)
WAYS: dict[str, tuple[str, int, str | None, dict[str, Any]]] = {
    "paths": ("paths", 1, None, {}),
    "consistency": ("consistency", 1, None, {}),
    **{f"fdistill {name}": ("fdistill", 1, name, {}) for name in ("js", "fkl", "rkl")},
    **{f"fdistill {name}, no adversary": ("fdistill", 1, name, {"adversarial": 0.0}) for name in ("js", "rkl")},
    **{f"ddgan, {steps} steps": ("ddgan", steps, None, {}) for steps in (1, 2, 4, 8)},
    "ddgan, 4 steps, no latent": ("ddgan", 4, None, {"latent": 0}),
}
FIGURES = ("frechet", "kernel_distance", "recall", "coverage", "precision", "class_seen")
TEACHER_STEPS = (18, 14, 4)


def asked_for(name: str, teacher: Path, settings: RunSettings, scale: Scale, seen: int, seed: int) -> StudentSettings:
    """The student of this way and seed."""
    method, steps, divergence, more = WAYS[name]
    wanted = student_of(teacher, settings, method, steps, divergence, scale, scratch=False, seed=seed)
    return replace(wanted, seen=seen, **more)


def distilled(folder: Path, teacher: Path, prepared: Prepared, settings: RunSettings, wanted: StudentSettings) -> None:
    """The student in `folder`, distilled there unless it was before."""
    make_dirs(folder)
    if is_trained(folder):
        return
    mine = distilling.settings_of(settings, wanted, CPU)
    write_settings(folder, mine)
    for _ in distilling.distill(folder, teacher, prepared, mine, CPU):
        pass


def over_seeds(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Median, least and largest of each figure over the seeds."""
    out = {}
    for name in FIGURES:
        values = [row[name]["value"] if isinstance(row[name], dict) else row[name] for row in rows]
        if None not in values:  # a distance needs more images than features
            out[name] = spread(values)
    return out


def tell(name: str, row: dict[str, Any]) -> None:
    """One line of the table."""
    found = row["spread"]
    parts = [f"{what} {said(v, '.3f')}" for what, v in found.items()]
    sys.stdout.write(f"{name:32s} {', '.join(parts)}\n")
    sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, write benchmarks/results/students_<set>_width<of the teacher>.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_source(parser)
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--seen", type=int, default=8000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--scale", type=float, help="of the guidance; as a rule the one that suits the teacher")
    parser.add_argument("--way", action="append", choices=list(WAYS), metavar="WAY", help="as a rule all")
    parser.add_argument("--per-class", type=int, default=160)
    asked = parser.parse_args(arguments)
    make_deterministic()
    device = pick("cpu")
    prepared = source_of(asked)
    measure, settings = gauge(prepared, asked.work), read_settings(asked.teacher)
    suits = suited_scale(asked.teacher, prepared, settings, device)
    scale = suits if asked.scale is None else Scale(asked.scale, suits.between)
    rows: dict[str, Any] = {}
    timing: list[Arm] = []

    def draw(name: str, found: Sequence[Arm], *, fresh: bool) -> None:
        """The row of these arms; the seeds of the images are the arm's number where they are `fresh`."""
        timing.append(found[0])
        measured = []
        for number, arm in enumerate(found):
            x0, _, label, _ = drawn(arm, asked.per_class, seed=3 + number * fresh)
            measured.append(measure.of(x0, label))
        rows[name] = {"spread": over_seeds(measured), "seeds": measured}
        tell(name, rows[name])

    for arm in arms(asked.teacher, {}, TEACHER_STEPS, [scale.scale]):
        draw(arm.name, [arm] * asked.seeds, fresh=True)
    for name in asked.way or WAYS:
        folders = {}
        for seed in range(asked.seeds):
            wanted = asked_for(name, asked.teacher, settings, scale, asked.seen, seed)
            folder = (
                asked.work / f"{name.replace(', ', '-').replace(' ', '-')}-{wanted.teacher[:8]}-{asked.seen}-{seed}"
            )
            distilled(folder, asked.teacher, prepared, settings, wanted)
            folders[f"{name}, seed {seed}"] = folder
        draw(name, arms(asked.teacher, folders, [], []), fresh=False)
    for name, paces in timed([replace(arm, name=name) for arm, name in zip(timing, rows, strict=True)]).items():
        rows[name]["images_per_second"] = [round(pace, 2) for pace in paces]
        sys.stdout.write(f"{name:32s} {statistics.median(paces):8.2f} images a second\n")
    document = {
        "set": asked.data.name, "teacher_seen": settings.train.seen, "width": settings.unet.width, "scale": scale.scale,
        "seen": asked.seen, "per_class": asked.per_class, "rows": rows,
    }  # fmt: skip
    keep(f"students_{asked.data.name}_width{settings.unet.width}", document)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
