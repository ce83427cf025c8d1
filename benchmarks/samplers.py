"""Quality and speed over 4 to 50 evaluations: our samplers, and diffusers' schedulers driving the same weights on the same sigmas.

    pip install -e '.[bench]'
    mgdm train --data ../shared/data/pneumoniamnist --base none --budget 8m -o RUN
    python -m benchmarks.samplers --model RUN --data ../shared/data/pneumoniamnist --work /tmp/judges

Rivals: `DDIMScheduler`, `DPMSolverMultistepScheduler` (DPM-Solver++, order 2) and `UniPCMultistepScheduler` (order 2) of diffusers, told x0
at every step by our denoiser. The first gets a schedule whose alphas are our grid, the others our sigmas, so that all stand on one grid.
Every arm starts from the same noise, without classifier-free guidance. Reference: our DDIM in 250 steps. Beside the distance to real
images stands how near each image is to the reference's of the same noise (PSNR; for the samplers that add no noise). Arms take turns,
block by block; seconds are medians over the blocks. Rows of an earlier call on the same run are kept: a long table can be made in parts.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.distances import CPU, Gauge, add_source, blocks, gauge, source_of, told
from benchmarks.keeping import keep, kept
from mgdm_cli.data.files import sha256_file
from mgdm_cli.diffusion.inversion import psnr
from mgdm_cli.diffusion.noise import Noise
from mgdm_cli.diffusion.samplers import SAMPLERS
from mgdm_cli.diffusion.types import Cond, Denoise
from mgdm_cli.engine import judging
from mgdm_cli.engine.decoding import Parts
from mgdm_cli.engine.device import bf16, make_deterministic, pick
from mgdm_cli.engine.run import DENOISER, load_parts, read_settings
from mgdm_cli.engine.weights import load, save
from mgdm_cli.metrics.fidelity import frechet

EVALUATIONS = (4, 8, 14, 20, 50)
REFERENCE = 250
BLOCK = 8
OURS = ("ddim", "dpmpp_2m", "unipc", "heun", "dpmpp_2m_sde")
THEIRS = ("diffusers DDIM", "diffusers DPM-Solver++", "diffusers UniPC")
NOISY = ("dpmpp_2m_sde",)  # their images are others, not nearer or farther ones

Draw = Callable[[Denoise, Tensor, list[float], Noise], Tensor]


def ours(name: str) -> Draw:
    """One of our samplers, drained."""

    def draw(denoise: Denoise, x: Tensor, grid: list[float], noise: Noise) -> Tensor:
        for step in SAMPLERS[name](denoise, x * grid[0], grid, randn_like=noise.like):
            x = step
        return x

    return draw


def theirs(name: str) -> Draw:
    """One of diffusers' schedulers in its own loop: its sample is x / sqrt(1 + sigma^2), and it is told x0."""

    def draw(denoise: Denoise, x: Tensor, grid: list[float], noise: Noise) -> Tensor:
        scheduler = scheduler_of(name, grid)
        sample: Tensor = x * grid[0] / (1 + grid[0] ** 2) ** 0.5
        for at, sigma in zip(scheduler.timesteps, grid[:-1], strict=True):
            x0 = denoise(sample * (1 + sigma**2) ** 0.5, sigma)
            sample = scheduler.step(x0, at, sample).prev_sample
        return sample

    return draw


def scheduler_of(name: str, grid: list[float]) -> Any:
    """The scheduler on exactly these sigmas, the last of which is 0."""
    warnings.simplefilter("ignore")
    import diffusers as untyped

    diffusers: Any = untyped
    steps, sigmas = len(grid) - 1, torch.tensor(grid)
    if name == "diffusers DDIM":
        kept = 1 / (1 + torch.tensor(list(reversed(grid[:-1])), dtype=torch.float64).square())
        betas = (1 - kept / torch.cat([torch.ones(1, dtype=torch.float64), kept[:-1]])).numpy()
        scheduler: Any = diffusers.DDIMScheduler(
            num_train_timesteps=steps,
            trained_betas=betas,
            prediction_type="sample",
            clip_sample=False,
            set_alpha_to_one=True,
        )
        scheduler.set_timesteps(steps)
        return scheduler
    kind = {
        "diffusers DPM-Solver++": diffusers.DPMSolverMultistepScheduler,
        "diffusers UniPC": diffusers.UniPCMultistepScheduler,
    }[name]
    scheduler = kind(prediction_type="sample", solver_order=2, use_karras_sigmas=True, final_sigmas_type="zero")
    scheduler.set_timesteps(steps)
    scheduler.sigmas = sigmas
    scheduler.timesteps = torch.arange(steps, 0, -1)  # only to tell the steps apart
    scheduler.num_inference_steps = steps
    return scheduler


def steps_of(name: str, evaluations: int) -> int:
    """Heun looks twice at every step but the last; it gets no more evaluations than the others."""
    return (evaluations + 1) // 2 if name == "heun" else evaluations


def bound(parts: Parts, class_index: int, rows: int, count: list[int]) -> Denoise:
    """The model as the tool binds it, counting evaluations."""
    denoise = parts.model.bind(Cond(torch.full((rows,), class_index)))

    def counted(x: Tensor, sigma: float) -> Tensor:
        count[0] += 1
        with bf16(CPU):
            return denoise(x, sigma).clamp(-1, 1)

    return counted


def drawn(
    parts: Parts, arms: dict[tuple[str, int], Draw], classes: int, per_class: int
) -> tuple[dict[tuple[str, int], dict[str, Any]], np.ndarray]:
    """((arm, evaluations) -> images, seconds an image by block, evaluations), label (N,). The arms take turns."""
    found: dict[tuple[str, int], dict[str, Any]] = {key: {"x0": [], "seconds": [], "evaluations": 0} for key in arms}
    label: list[int] = []
    for class_index, seeds in blocks(classes, per_class, BLOCK):
        label += [class_index] * len(seeds)
        for key, draw in arms.items():
            count, noise = [0], Noise(seeds, parts.shape, CPU)
            grid = parts.model.process.grid(steps_of(*key))
            started = time.perf_counter()
            x0 = draw(bound(parts, class_index, len(seeds), count), noise.draw(), grid, noise).clamp(-1, 1)
            found[key]["seconds"].append((time.perf_counter() - started) / len(seeds))
            found[key]["x0"].append(x0)
            found[key]["evaluations"] = count[0]
    return {key: {**row, "x0": torch.cat(row["x0"])} for key, row in found.items()}, np.array(label)


def reference_of(asked: argparse.Namespace, parts: Parts, classes: int, digest: str) -> dict[str, Any]:
    """The images of 250 steps, kept in the work folder for the next call."""
    path = asked.work / f"ddim-{REFERENCE}-{digest[:12]}-{asked.per_class}.safetensors"
    if not path.is_file():
        key = ("ddim", REFERENCE)
        made = drawn(parts, {key: ours("ddim")}, classes, asked.per_class)[0][key]
        save(path, {"x0": made["x0"]}, {"seconds": made["seconds"], "evaluations": made["evaluations"]})
    tensors, header = load(path)
    return {**tensors, **header}


def over_reference(measure: Gauge, x0: Tensor, reference: Tensor, draws: int = 200) -> dict[str, float]:
    """Frechet distance over the reference's, with the 95 % bootstrap interval over seeds (of both alike)."""
    mine, theirs = (judging.features_of(measure.found.nets[0], images) for images in (x0, reference))
    rng = np.random.default_rng(0)
    ratio = frechet(measure.real, mine) / frechet(measure.real, theirs)
    picks = rng.integers(0, len(mine), (draws, len(mine)))
    spread = [frechet(measure.real, mine[pick]) / frechet(measure.real, theirs[pick]) for pick in picks]
    low, high = np.quantile(np.array(spread) - np.mean(spread), [0.025, 0.975])
    return {"value": round(ratio, 3), "lo": round(ratio - float(high), 3), "hi": round(ratio - float(low), 3)}


def row(name: str, made: dict[str, Any], label: np.ndarray, measure: Gauge, reference: Tensor) -> dict[str, Any]:
    """One line of the table."""
    low, high = np.quantile(made["seconds"], [0.1, 0.9])
    near = None if name in NOISY else round(float(psnr(made["x0"], reference).median()), 2)
    return {
        **measure.of(made["x0"], label),
        "evaluations": made["evaluations"],
        "frechet_over_reference": over_reference(measure, made["x0"], reference),
        "images_per_second": round(1 / statistics.median(made["seconds"]), 2),
        "images_per_second_interval": [round(1 / float(high), 2), round(1 / float(low), 2)],
        "psnr_to_reference": near,
    }


def asked_for(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    add_source(parser)
    parser.add_argument("--per-class", type=int, default=80)
    parser.add_argument("--evaluations", default=",".join(map(str, EVALUATIONS)))
    parser.add_argument("--arms", default=",".join((*OURS, *THEIRS)))
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, write benchmarks/results/samplers_<set>.json."""
    asked = asked_for(arguments)
    make_deterministic()
    pick("cpu")
    settings = read_settings(asked.model)
    parts, _ = load_parts(asked.model, settings, CPU)
    measure, digest = gauge(source_of(asked), asked.work), sha256_file(asked.model / DENOISER)
    reference = reference_of(asked, parts, len(settings.classes), digest)
    arms = {
        (name, int(evaluations)): ours(name) if name in OURS else theirs(name)
        for evaluations in asked.evaluations.split(",")
        for name in asked.arms.split(",")
    }
    made, label = drawn(parts, arms, len(settings.classes), asked.per_class)
    head = {"set": asked.data.name, "denoiser": digest, "per_class": asked.per_class}
    table = f"samplers_{asked.data.name}"
    earlier = kept(table)
    rows = earlier["rows"] if all(earlier.get(key) == value for key, value in head.items()) else {}
    for (name, evaluations), found in {("ddim", REFERENCE): reference, **made}.items():
        rows[f"{name}, {evaluations}"] = line = row(name, found, label, measure, reference["x0"])
        over = line["frechet_over_reference"]
        sys.stdout.write(
            f"{name:24s} {evaluations:4d}: {line['images_per_second']:7.2f} images/s, {told(line)}, "
            f"over the reference's {over['value']} [{over['lo']}, {over['hi']}], PSNR {line['psnr_to_reference']}\n"
        )
        sys.stdout.flush()
    keep(table, {**head, "threads": torch.get_num_threads(), "rows": rows})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
