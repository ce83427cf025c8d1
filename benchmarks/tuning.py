"""Runs of one set side by side: for example from scratch, and from a base model with a quarter of the images seen.

    mgdm train --data ../shared/data/busi_128 --size 64 --base none --seen 80000 -o /tmp/scratch
    mgdm train --data ../shared/data/busi_128 --size 64 --seen 20000 -o /tmp/tuned
    python -m benchmarks.tuning --data ../shared/data/busi_128 --size 64 --run scratch=/tmp/scratch --run tuned=/tmp/tuned

Each run draws the same number of images of each class, from the same seeds, with plain classifier-free guidance and no gates. Distances
to real images that the features' net never saw, with bootstrap intervals by patient, beside the distance between two halves of the real
ones. The features, and the share of images whose class is seen, come from the two cross-fitted judges of `mgdm evaluate`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.distances import CPU, Gauge, add_source, gauge, keep, source_of, told
from mgdm_cli.commands.wanted import SCALE, STEPS
from mgdm_cli.data.plan import SCALE_BETWEEN, Recipe
from mgdm_cli.engine.decoding import make_block
from mgdm_cli.engine.device import make_deterministic, pick
from mgdm_cli.engine.preparing import Prepared, pictures
from mgdm_cli.engine.run import load_parts, read_settings
from mgdm_cli.engine.training import holdout_loss

BLOCK = 8


def drawn(folder: Path, per_class: int, scale: float, steps: int) -> tuple[torch.Tensor, np.ndarray]:
    """(x0 (N, C, H, W), label (N,)) of a run."""
    settings = read_settings(folder)
    parts, _ = load_parts(folder, settings, CPU)
    recipe = Recipe(
        process=settings.process, sampler="dpmpp_2m", steps=steps, scale=scale, scale_between=SCALE_BETWEEN,
        guidance="cfg" if scale != 1 else "none", strength=0.0,
    )  # fmt: skip
    made, label = [], []
    for class_index in range(len(settings.classes)):
        for attempt in range(-(-per_class // BLOCK)):
            block = make_block(
                parts, recipe, run_seed=3, lot=class_index, attempt=attempt, block=BLOCK, class_index=class_index
            )
            made.append(block.after)
            label += [class_index] * BLOCK
    return torch.cat(made), np.array(label)


def row(folder: Path, prepared: Prepared, measure: Gauge, per_class: int, scale: float, steps: int) -> dict[str, Any]:
    """One line of the table."""
    settings = read_settings(folder)
    x0, label = drawn(folder, per_class, scale, steps)
    parts, _ = load_parts(folder, settings, CPU)
    return {
        "base": settings.base or "none",
        "seen": settings.train.seen,
        "holdout_loss": round(holdout_loss(parts.model, pictures(prepared, prepared.splits.holdout, CPU)), 4),
        **measure.of(x0, label),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, write benchmarks/results/tuning_<set>.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_source(parser)
    parser.add_argument("--run", action="append", required=True, metavar="NAME=RUN")
    parser.add_argument("--per-class", type=int, default=80)
    parser.add_argument("--scale", type=float, default=SCALE)
    parser.add_argument("--steps", type=int, default=STEPS)
    asked = parser.parse_args(arguments)
    make_deterministic()
    pick("cpu")
    prepared = source_of(asked)
    measure, rows = gauge(prepared, asked.work), {}
    for name, _, folder in (text.partition("=") for text in asked.run):
        rows[name] = line = row(Path(folder), prepared, measure, asked.per_class, asked.scale, asked.steps)
        head = f"{name:12s} base {line['base']}, {line['seen']} seen: holdout loss {line['holdout_loss']}"
        sys.stdout.write(f"{head}, {told(line)}\n")
        sys.stdout.flush()
    document = {"set": asked.data.name, "scale": asked.scale, "steps": asked.steps, "runs": rows}
    keep(f"tuning_{asked.data.name}", document)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
