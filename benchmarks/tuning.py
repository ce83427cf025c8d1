"""Runs of one set side by side: for example from scratch, and from a base model with a quarter of the images seen.

    mgdm train --data ../shared/data/busi_128 --size 64 --base none --seen 80000 -o /tmp/scratch
    mgdm train --data ../shared/data/busi_128 --size 64 --seen 20000 -o /tmp/tuned
    python -m benchmarks.tuning --data ../shared/data/busi_128 --size 64 --run scratch=/tmp/scratch --run tuned=/tmp/tuned

Each run draws the same number of images of each class, from the same seeds, with plain classifier-free guidance: at `--scale`, or at the
scale that was measured for it. A second line is of those that the run's own judge lets pass, as `augment` does, as many of each class; a
third says how much farther off a run's images are than those of the first run, held against the same real ones. Detail is their power
above 0.3 cycles a pixel over that of the real holdout.
Distances to real images that the features' net never saw, with bootstrap intervals by patient, beside the distance between two halves of
the real ones. The features, and the share of images whose class is seen, come from the two cross-fitted judges of `mgdm evaluate`; beside
it stands the share of the real holdout, which they did not meet either.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.distances import CPU, Gauge, add_source, class_seen_in_real, detail, evenly, gauge, source_of, told
from benchmarks.keeping import keep
from mgdm_cli.commands.completing import suited_scale
from mgdm_cli.commands.values import knobs_of
from mgdm_cli.commands.wanted import KNOBS, SAMPLER, STEPS
from mgdm_cli.data.plan import SCALE_BETWEEN, Recipe
from mgdm_cli.diffusion.samplers import SAMPLERS
from mgdm_cli.engine.classifying import logits_of
from mgdm_cli.engine.decoding import make_block
from mgdm_cli.engine.device import make_deterministic, pick
from mgdm_cli.engine.preparing import Prepared, pictures
from mgdm_cli.engine.run import load_parts, read_settings
from mgdm_cli.engine.scaling import Scale
from mgdm_cli.engine.training import holdout_loss

BLOCK = 8
USUAL_SIDE = 64  # pixels: of larger images the result says their size


@dataclass(frozen=True)
class Way:
    """How images are drawn: `scale` None is the one that suits each run."""

    per_class: int
    scale: float | None
    sampler: str
    steps: int
    knobs: dict[str, float]

    @property
    def told(self) -> str:
        """What of it is not the default, for the result's name."""
        at = "" if self.scale is None else f"_scale{self.scale:g}"
        if (self.sampler, self.knobs) != (SAMPLER, KNOBS):
            at += f"_{self.sampler}" + "".join(f"_{name}{value:g}" for name, value in sorted(self.knobs.items()))
        return at + ("" if self.steps == STEPS else f"_steps{self.steps}")


def drawn(folder: Path, way: Way, suits: Scale) -> tuple[torch.Tensor, np.ndarray]:
    """(x0 (N, C, H, W), label (N,)) of a run."""
    settings = read_settings(folder)
    parts, _ = load_parts(folder, settings, CPU)
    recipe = Recipe(
        process=settings.process, sampler=way.sampler, steps=way.steps, knobs=way.knobs, scale=suits.scale,
        scale_between=suits.between, guidance="cfg" if suits.scale != 1 else "none", strength=0.0,
    )  # fmt: skip
    made, label = [], []
    for class_index in range(len(settings.classes)):
        for attempt in range(-(-way.per_class // BLOCK)):
            block = make_block(
                parts, recipe, run_seed=3, lot=class_index, attempt=attempt, block=BLOCK, class_index=class_index
            )
            made.append(block.after)
            label += [class_index] * BLOCK
    return torch.cat(made), np.array(label)


def row(folder: Path, prepared: Prepared, measure: Gauge, way: Way) -> tuple[dict[str, Any], torch.Tensor]:
    """(one run in the table, its images)."""
    settings = read_settings(folder)
    suits = suited_scale(folder, prepared, settings, CPU) if way.scale is None else Scale(way.scale, SCALE_BETWEEN)
    x0, label = drawn(folder, way, suits)
    parts, _ = load_parts(folder, settings, CPU)
    assert parts.judge is not None
    kept = np.flatnonzero(logits_of(parts.judge, x0).argmax(1).numpy() == label)
    even = kept[evenly(label[kept], len(settings.classes))]
    found = {
        "base": settings.base or "none",
        "seen": settings.train.seen,
        "scale": suits.scale,
        "holdout_loss": round(holdout_loss(parts.model, pictures(prepared, prepared.splits.holdout, CPU)), 4),
        "detail": detail(x0, pictures(prepared, prepared.splits.holdout, CPU).x0),
        **measure.of(x0, label),
        "accepted": {"share": round(len(kept) / len(label), 3), **measure.of(x0[torch.from_numpy(even)], label[even])},
    }
    return found, x0


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, write benchmarks/results/tuning_<set>[_what was asked for].json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_source(parser)
    parser.add_argument("--run", action="append", required=True, metavar="NAME=RUN")
    parser.add_argument("--per-class", type=int, default=80)
    parser.add_argument("--scale", type=float, help="of the guidance; as a rule the one that suits each run")
    parser.add_argument("--sampler", choices=SAMPLERS, help="as a rule augment's, with its knobs")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--knob", action="append", metavar="NAME=VALUE", help="of the sampler, as mgdm sample --knob")
    asked = parser.parse_args(arguments)
    make_deterministic()
    pick("cpu")
    prepared = source_of(asked)
    knobs = ({} if asked.sampler else KNOBS) | knobs_of(asked.knob)
    way = Way(asked.per_class, asked.scale, asked.sampler or SAMPLER, asked.steps, knobs)
    measure, rows = gauge(prepared, asked.work), dict[str, dict[str, Any]]()
    first: torch.Tensor | None = None
    for name, _, folder in (text.partition("=") for text in asked.run):
        line, x0 = row(Path(folder), prepared, measure, way)
        head = f"{name:12s} base {line['base']}, {line['seen']} seen, scale {line['scale']:g}: holdout loss {line['holdout_loss']}"
        head += ", detail {value} [{lo}, {hi}]".format(**line["detail"])
        sys.stdout.write(
            f"{head}, {told(line)}\n{'':12s} accepted {line['accepted']['share']:.0%}: {told(line['accepted'])}\n"
        )
        if first is None:
            first = x0
        else:
            line["farther_than_the_first"] = more = measure.farther(x0, first)
            sys.stdout.write(
                f"{'':12s} kernel distance over {next(iter(rows))}'s: {more['value']} [{more['lo']}, {more['hi']}]\n"
            )
        rows[name] = line
        sys.stdout.flush()
    real = class_seen_in_real(measure.found, prepared)
    sys.stdout.write(f"real holdout: class seen in {real['class_seen']} {real['class_seen_interval']}\n")
    document = {"set": asked.data.name, "sampler": way.sampler, "knobs": way.knobs, "steps": way.steps, "real": real}
    side = max(prepared.frame.size)
    large = f"_{side}px" if side > USUAL_SIDE else ""
    keep(f"tuning_{asked.data.name}{large}{way.told}", document | {"runs": rows})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
