"""What an image costs: against the number of images (time and peak memory of `mgdm augment`), resolution, classes and workers.

    mgdm train --data ../shared/data/pneumoniamnist --base none --budget 8m -o RUN
    python -m benchmarks.cost --model RUN --data ../shared/data/pneumoniamnist

The rows over n and over workers are whole `mgdm augment` commands in processes of their own, with gates, writing and report; peak memory
is the largest resident set that the system saw. Workers are shards that run at once, with the cores (or OMP_NUM_THREADS)
shared out among them. The rows over resolution and classes time blocks of one recipe in nets of fresh weights, which cost what trained
ones do; they take turns.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.distances import add_source
from benchmarks.keeping import keep
from mgdm_cli.commands.wanted import BETWEEN, KNOBS, SAMPLER, SCALE, STEPS, STRENGTH
from mgdm_cli.data.plan import SCALE_BETWEEN, Filters, Recipe
from mgdm_cli.diffusion.model import Model
from mgdm_cli.diffusion.process import PROCESSES
from mgdm_cli.engine.decoding import Parts, make_block
from mgdm_cli.engine.device import make_deterministic, pick
from mgdm_cli.engine.warp import WIDTH
from mgdm_cli.errors import PARTIAL
from mgdm_cli.nets.classifier import Classifier, ClassifierSettings
from mgdm_cli.nets.layers import patch_of
from mgdm_cli.nets.unet import UNet, UNetSettings

SIZES, CLASSES = (32, 64, 96, 128), (2, 4, 8, 16)
BLOCK, MEGABYTE = 8, 1024  # ru_maxrss counts kilobytes


def parts_of(size: int, classes: int) -> Parts:
    """Nets as `train` would make them for grey images of this size, untrained."""
    patch = patch_of((size, size))
    net = UNet(UNetSettings(1, classes, patch=patch, warp=WIDTH)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    torch.nn.init.normal_(net.out.weight, std=0.02)  # not the zeros it begins with
    guide = Classifier(ClassifierSettings(1, classes, 0.5, patch=patch)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model = Model(net, PROCESSES["edm"](sigma_data=0.5)).requires_grad_(False).eval()
    return Parts(model, guide.eval(), guide, (1, size, size), 0.5, torch.device("cpu"))


def in_blocks(rounds: int) -> dict[str, dict[str, Any]]:
    """Seconds a candidate by resolution and by classes."""
    recipe = Recipe(
        process="edm", sampler=SAMPLER, knobs=KNOBS, steps=STEPS, scale=SCALE, scale_between=SCALE_BETWEEN,
        guidance="uncertainty", strength=STRENGTH, between=BETWEEN, filters=Filters(label=False),
    )  # fmt: skip
    arms = {f"{size} px": parts_of(size, 3) for size in SIZES} | {f"{k} classes": parts_of(64, k) for k in CLASSES}
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for turn in range(rounds + 1):
        for name, parts in arms.items():
            started = time.perf_counter()
            made = make_block(parts, recipe, run_seed=0, lot=0, attempt=turn, block=BLOCK, class_index=0)
            if turn:  # the first one pays for what is only done once
                seconds[name].append((time.perf_counter() - started) / len(made.after))
    return {
        name: {
            "seconds_median": round(statistics.median(row), 4),
            "seconds_min_max": [round(min(row), 4), round(max(row), 4)],
        }
        for name, row in seconds.items()
    }


def command(asked: argparse.Namespace, out: Path, n: int, *more: str) -> list[str]:
    """The `mgdm augment` that makes n images."""
    said = [sys.executable, "-m", "mgdm_cli", "augment", "--data", str(asked.data), "--model", str(asked.model)]
    said += ["--n", str(n), "-o", str(out), "--quiet", "--guidance", asked.guidance, *more]
    for flag, value in (("--size", asked.size), ("--labels", asked.labels), ("--patient-regex", asked.patient_regex)):
        said += [flag, str(value)] if value else []
    return said + (["--skip-bad"] if asked.skip_bad else [])


def whole(asked: argparse.Namespace, n: int, workers: int, *more: str) -> dict[str, Any]:
    """n images by `workers` shards at once, each a process: time an image, and the largest peak memory of one.

    `more`: further flags of `mgdm augment`.
    """
    with tempfile.TemporaryDirectory() as folder:
        threads = max(int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1) // workers, 1)
        outs = [Path(folder) / f"part{k}" for k in range(workers)]
        started, peaks = time.monotonic(), []
        running = [
            subprocess.Popen(
                command(asked, out, n, "--shard", f"{k + 1}/{workers}", *more),
                env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            )
            for k, out in enumerate(outs)
        ]
        for process in running:
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode not in (0, PARTIAL):
                raise RuntimeError(f"augment ended with {process.returncode}")
            peaks.append(used.ru_maxrss / MEGABYTE)
        wall = time.monotonic() - started
        runs = [json.loads((out / "run.json").read_bytes()) for out in outs]
    images, candidates = (sum(run[what] for run in runs) for what in ("images", "candidates"))
    generation = max(run["seconds"]["generation"] for run in runs)
    return {
        "images": images,
        "candidates": candidates,
        "workers": workers,
        "threads_each": threads,
        "seconds_generation": generation,
        "seconds_wall": round(wall, 1),
        "ms_a_candidate": round(1000 * generation / candidates, 2),
        "ms_an_image": round(1000 * generation / images, 2),
        "evaluations_an_image": runs[0]["evaluations_per_image"],
        "peak_memory_mb": round(max(peaks), 1),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables, write benchmarks/results/cost.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    add_source(parser, judges=False)
    parser.add_argument("--guidance", default="uncertainty")
    parser.add_argument("--n", default="64,256,1024")
    parser.add_argument("--workers", default="1,2")
    parser.add_argument("--rounds", type=int, default=5, help="blocks of each resolution and number of classes")
    asked = parser.parse_args(arguments)
    make_deterministic()
    pick("cpu")
    found: dict[str, Any] = {
        "set": asked.data.name,
        "threads": torch.get_num_threads(),
        "blocks": in_blocks(asked.rounds),
    }
    for name, row in found["blocks"].items():
        sys.stdout.write(f"{name:12s} {1000 * row['seconds_median']:8.1f} ms a candidate {row['seconds_min_max']}\n")
    counts = [int(n) for n in asked.n.split(",")]
    jobs = [(n, 1) for n in counts] + [
        (counts[1 % len(counts)], int(k)) for k in asked.workers.split(",") if int(k) > 1
    ]
    found["runs"] = []
    for n, workers in jobs:
        found["runs"].append(line := whole(asked, n, workers))
        sys.stdout.write(f"n {n:6d}, {workers} worker(s): {line}\n")
        sys.stdout.flush()
    keep("cost", found)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
