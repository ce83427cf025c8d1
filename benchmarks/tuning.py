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
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mgdm_cli.commands.augment import SCALE, STEPS
from mgdm_cli.commands.making import SCALE_BETWEEN
from mgdm_cli.commands.modelling import Source, prepare
from mgdm_cli.data.plan import Recipe
from mgdm_cli.engine import judging
from mgdm_cli.engine.decoding import make_block
from mgdm_cli.engine.device import make_deterministic, pick
from mgdm_cli.engine.preparing import Prepared, pictures
from mgdm_cli.engine.run import load_parts, read_settings
from mgdm_cli.engine.training import holdout_loss
from mgdm_cli.metrics.fidelity import frechet, kernel_distance, with_interval
from mgdm_cli.metrics.labels import wilson

BLOCK = 8


def drawn(folder: Path, per_class: int, scale: float, steps: int) -> tuple[torch.Tensor, np.ndarray]:
    """(x0 (N, C, H, W), label (N,)) of a run."""
    settings = read_settings(folder)
    parts, _ = load_parts(folder, settings, torch.device("cpu"))
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


def row(
    folder: Path, prepared: Prepared, found: judging.Judges, per_class: int, scale: float, steps: int
) -> dict[str, Any]:
    """One line of the table."""
    device = torch.device("cpu")
    settings = read_settings(folder)
    x0, label = drawn(folder, per_class, scale, steps)
    real, _, patients = judging.real_space(found, prepared, device)
    ours = judging.features_of(found.nets[0], x0)
    seen = judging.judged(found, x0).argmax(1) == label
    parts, _ = load_parts(folder, settings, device)
    return {
        "base": settings.base or "none",
        "seen": settings.train.seen,
        "images": len(label),
        "holdout_loss": round(holdout_loss(parts.model, pictures(prepared, prepared.splits.holdout, device)), 4),
        "class_seen": round(float(seen.mean()), 3),
        "class_seen_interval": [round(v, 3) for v in wilson(int(seen.sum()), len(seen))],
        "kernel_distance": asdict(with_interval(kernel_distance, real, ours, groups=patients)),
        "frechet": asdict(with_interval(frechet, real, ours, groups=patients)),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, write benchmarks/results/tuning_<set>.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--labels", type=Path, help="table of labels and splits, as mgdm train --labels reads it")
    parser.add_argument("--size")
    parser.add_argument("--patient-regex")
    parser.add_argument("--run", action="append", required=True, metavar="NAME=RUN")
    parser.add_argument("--per-class", type=int, default=80)
    parser.add_argument("--scale", type=float, default=SCALE)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--work", type=Path, required=True, help="folder for the judges")
    asked = parser.parse_args(arguments)
    make_deterministic()
    device = pick("cpu")
    prepared = prepare(Source(asked.data, asked.labels, patient_regex=asked.patient_regex, size=asked.size), seed=0)
    asked.work.mkdir(parents=True, exist_ok=True)
    found = next(e for e in judging.judges(asked.work, prepared, device) if isinstance(e, judging.Judges))
    rows = {}
    for name, _, folder in (text.partition("=") for text in asked.run):
        rows[name] = row(Path(folder), prepared, found, asked.per_class, asked.scale, asked.steps)
        near, far = rows[name]["kernel_distance"], rows[name]["frechet"]
        line = f"{name:12s} base {rows[name]['base']}, {rows[name]['seen']} seen: holdout loss {rows[name]['holdout_loss']}"
        line += f", class seen {rows[name]['class_seen']} {rows[name]['class_seen_interval']}"
        line += (
            f", kernel distance {near['value']:.4f} [{near['lo']:.4f}, {near['hi']:.4f}] (real {near['baseline']:.4f})"
        )
        if far["value"] is not None:
            line += f", Frechet {far['value']:.2f} [{far['lo']:.2f}, {far['hi']:.2f}] (real {far['baseline']:.2f})"
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
    path = Path(__file__).parent / "results" / f"tuning_{asked.data.name}.json"
    document = {"set": asked.data.name, "scale": asked.scale, "steps": asked.steps, "runs": rows}
    path.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")
    sys.stdout.write(f"written: {path}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
