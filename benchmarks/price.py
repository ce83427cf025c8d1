"""The price of one accepted disturbed image: this tool, and the published recipe written with the same parts, on one model.

    python -m benchmarks.price --model RUN --data ../shared/data/busi_128 --size 64 --per-class 8

Published recipe (MGDM, TPAMI 2024, as its reference code runs it): generate with 250 DDIM steps under the gradient of a noise-aware
classifier for the class, encode the image back to noise with 250 explicit DDIM steps, decode it again with 250 steps under the gradient of
the classifier's entropy: 750 U-Net evaluations and 500 classifier gradients. Both arms pull with the same normalised strength, pass the
same label gate, and are judged by the same three outside classifiers (trained on the real training split): share that sees the class asked
for, and rise of their entropy over the same image before its disturbance. The kernel distance (unbiased, so that few images will do) is
taken in the first judge's features, to held-out real images, as many of each class. The arms take turns, block by block.
With `--student` a distilled student of the model stands there as a third arm.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.distances import add_source, evenly, source_of
from benchmarks.keeping import keep
from benchmarks.main_job import gain_interval, judged, judges_of
from mgdm_cli.commands.wanted import BETWEEN, KNOBS, SAMPLER, STEPS, STRENGTH
from mgdm_cli.data.plan import SCALE_BETWEEN, Recipe, seed_of
from mgdm_cli.data.splits import patient_key
from mgdm_cli.diffusion.guidance import TERMS, Pull, guided
from mgdm_cli.diffusion.noise import Noise
from mgdm_cli.diffusion.samplers import SAMPLERS
from mgdm_cli.diffusion.types import Cond, Denoise
from mgdm_cli.engine.classifying import logits_of
from mgdm_cli.engine.decoding import Count, Parts, make_block
from mgdm_cli.engine.device import bf16, make_deterministic, pick
from mgdm_cli.engine.judging import features_of
from mgdm_cli.engine.preparing import pictures
from mgdm_cli.engine.run import load_parts, read_settings
from mgdm_cli.engine.scaling import UNMEASURED, Scale, stored
from mgdm_cli.engine.student import SAMPLER as STUDENTS
from mgdm_cli.metrics.fidelity import kernel_distance, with_interval
from mgdm_cli.metrics.labels import wilson

PUBLISHED_STEPS = 250
BLOCK = 8


def published(parts: Parts, strength: float, seeds: Sequence[int], class_index: int) -> tuple[Tensor, Tensor, Count]:
    """(image, disturbed image, work): generate, encode, decode."""
    count = Count()
    label = torch.full((len(seeds),), class_index)
    bound, guide = parts.model.bind(Cond(label)), parts.guide
    assert guide is not None

    def denoise(x: Tensor, sigma: float) -> Tensor:
        count.evaluations += len(x)
        with bf16(parts.device):
            return bound(x, sigma).clamp(-1, 1)

    def pull(term: str) -> Pull:
        def score(x: Tensor, sigma: float) -> Tensor:
            count.gradients += len(x)
            return TERMS[term](guide(x, x.new_full((len(x),), sigma)), label)

        return Pull(score, strength, spread=parts.spread)

    grid = parts.model.process.grid(PUBLISHED_STEPS)
    noise = Noise(seeds, parts.shape, parts.device)
    before = _decode(guided(denoise, pull("class")), noise.draw() * grid[0], grid, noise)
    # Encoding: explicit Euler steps of the same equation, upwards; the image counts as noisy by the smallest sigma.
    up = [sigma for sigma in reversed(grid) if sigma > 0]
    x = before
    for low, high in itertools.pairwise(up):
        x0 = denoise(x, low)
        x = x0 + (x - x0) * (high / low)
    after = _decode(guided(denoise, pull("entropy")), x, grid, noise)
    return before, after, count


def _decode(denoise: Denoise, x: Tensor, grid: list[float], noise: Noise) -> Tensor:
    for step in SAMPLERS["ddim"](denoise, x, grid, randn_like=noise.like):
        x = step
    return x.clamp(-1, 1)


def _asked(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    add_source(parser, judges=False)
    parser.add_argument("--student", type=Path, help="a student that mgdm distill made of the model")
    parser.add_argument("--per-class", type=int, default=8, help="candidates of the published recipe for each class")
    parser.add_argument("--more", type=int, default=4, help="times as many candidates of ours, which are cheap")
    parser.add_argument("--strength", type=float, default=STRENGTH)
    parser.add_argument(
        "--scale", type=float, help="of our classifier-free guidance; the one measured for the run if left out"
    )
    parser.add_argument(
        "--published-strength", type=float, help="of the published arm, to match the gain; else the same"
    )
    parser.add_argument("--seen", type=int, default=20_000, help="training images that each outside judge sees")
    return parser.parse_args(arguments)


def _ours(asked: argparse.Namespace, process: str) -> Recipe:
    """As `augment` makes an image where nothing but the strength is said."""
    suits = stored(asked.model) or UNMEASURED
    if asked.scale is not None:
        suits = Scale(asked.scale, SCALE_BETWEEN)
    return Recipe(
        process=process, sampler=SAMPLER, knobs=KNOBS, steps=STEPS, scale=suits.scale, scale_between=suits.between,
        guidance="uncertainty", strength=asked.strength, between=BETWEEN,
    )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run both arms, print the table, write benchmarks/results/price_<set>.json."""
    asked = _asked(arguments)
    make_deterministic()
    pick("cpu")
    settings = read_settings(asked.model)
    parts, _ = load_parts(asked.model, settings, torch.device("cpu"))
    prepared = source_of(asked)
    nets, right = judges_of(prepared, asked.model, asked.seen)
    ours = _ours(asked, settings.process)
    cheap = {"mgdm": (parts, ours)}
    if asked.student is not None:
        own = read_settings(asked.student)
        assert own.student is not None
        theirs = ours.model_copy(update={"sampler": STUDENTS, "knobs": {}, "steps": own.student.steps})
        cheap["student"] = load_parts(asked.student, own, torch.device("cpu"))[0], theirs
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in (*cheap, "published")}
    for class_index in range(len(settings.classes)):
        for turn in range(max(asked.per_class // BLOCK, 1)):
            for more, (name, (mine, recipe)) in itertools.product(range(asked.more), cheap.items()):
                started = time.perf_counter()
                made = make_block(
                    mine, recipe, run_seed=1, lot=class_index, attempt=turn * asked.more + more, block=BLOCK,
                    class_index=class_index,
                )  # fmt: skip
                spent = time.perf_counter() - started
                kept = [row not in made.hopeless for row in range(BLOCK)]
                before = made.after if made.before is None else made.before
                rows[name].append(_row(mine, nets, before, made.after, made.count, spent, class_index, kept))
            seeds = [seed_of(2, class_index, turn, row) for row in range(BLOCK)]
            started = time.perf_counter()
            before, after, count = published(parts, asked.published_strength or asked.strength, seeds, class_index)
            spent = time.perf_counter() - started
            rows["published"].append(_row(parts, nets, before, after, count, spent, class_index, [True] * BLOCK))
    holdout = prepared.splits.holdout
    data = pictures(prepared, holdout, torch.device("cpu"))
    even = evenly(data.label.numpy(), len(prepared.classes))
    real = features_of(nets[0], data.x0[torch.from_numpy(even)])
    patients = [patient_key(holdout[row]) for row in even]
    strengths = {
        "scale": ours.scale,
        "scale_between": ours.scale_between,
        "strength": asked.strength,
        "published_strength": asked.published_strength or asked.strength,
    }
    found = {"set": asked.data.name, **strengths, "judges_on_holdout": [round(r, 3) for r in right]}
    document: dict[str, Any] = {
        **found,
        "arms": {name: _summary(blocks, real, patients) for name, blocks in rows.items()},
    }
    per = {name: arm["seconds_per_accepted"] for name, arm in document["arms"].items()}
    document["times_dearer"] = {name: round(per["published"] / per[name], 1) for name in cheap if per[name]}
    sys.stdout.write(json.dumps(document, indent=1) + "\n")
    keep(f"price_{asked.data.name}", document)
    return 0


def _row(
    parts: Parts, nets: Sequence[Any], before: Tensor, after: Tensor, count: Count, seconds: float, class_index: int,
    kept: list[bool],
) -> dict[str, Any]:  # fmt: skip
    assert parts.judge is not None
    passed = (logits_of(parts.judge, after).argmax(-1) == class_index) & torch.tensor(kept)
    label = torch.full((int(passed.sum()),), class_index)
    agrees, entropy = judged(nets, after[passed], label)
    return {
        "candidates": len(after), "accepted": int(passed.sum()), "seconds": seconds,
        "evaluations": count.evaluations, "gradients": count.gradients,
        "agrees": agrees, "gain": entropy - judged(nets, before[passed], label)[1],
        "features": features_of(nets[0], after[passed]),
    }  # fmt: skip


def _summary(blocks: list[dict[str, Any]], real: np.ndarray, patients: Sequence[str]) -> dict[str, Any]:
    total = {key: sum(block[key] for block in blocks) for key in ("candidates", "accepted", "evaluations", "gradients")}
    accepted, seconds = total["accepted"], [block["seconds"] / block["candidates"] for block in blocks]
    if not accepted:
        return {**total, "seconds_per_accepted": None}
    agrees = np.concatenate([block["agrees"] for block in blocks], 1)
    gain = np.concatenate([block["gain"] for block in blocks], 1)
    features = np.concatenate([block["features"] for block in blocks])
    return {
        **total,
        "evaluations_per_accepted": round(total["evaluations"] / accepted, 1),
        "gradients_per_accepted": round(total["gradients"] / accepted, 1),
        "seconds_per_accepted": round(sum(block["seconds"] for block in blocks) / accepted, 3),
        "seconds_per_candidate_min_median_max": [round(float(q), 3) for q in np.quantile(seconds, [0, 0.5, 1])],
        "agreement": round(float(agrees.mean()), 3),
        "agreement_interval": [round(v, 3) for v in wilson(round(float(agrees.mean()) * accepted), accepted)],
        "entropy_gain": round(float(gain.mean()), 3),
        "entropy_gain_interval": [round(v, 3) for v in gain_interval(gain)],
        "kernel_distance": asdict(with_interval(kernel_distance, real, features, groups=patients)),
    }


if __name__ == "__main__":
    raise SystemExit(main())
