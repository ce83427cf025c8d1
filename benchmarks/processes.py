"""Training curves of the five processes at one budget with one net, and how far their images lie from real ones.

    python -m benchmarks.processes --data ../shared/data/pneumoniamnist --work /tmp/processes

Every process trains the same U-Net on the same images in the same order for `--seen` images. A process's own loss cannot be compared with
another's, so the curve is one error for all: the mean over fixed noise levels of |D(x) - x0|^2 of the average weights on the holdout, each
level divided by what the data's spread leaves undecided there, s^2 sigma^2 / (s^2 + sigma^2). At the end each draws the same number of
images from the same seeds, without classifier-free guidance: by DPM-Solver++(2M), and as `augment` does where nothing else is asked for,
which is the same with fresh noise at the high levels. On the EDM model the 18 steps of Heun (35 evaluations) of Karras et al. (2022),
without and with the noise that their algorithm 2 adds on the way (`churn`), and 18 of SDE-DPM-Solver++ with noise everywhere stand beside
DDPM's thousand ancestral ones. One training says little of a process: with `--trainings 3` each is trained from three seeds, and medians
stand beside the least and the largest. Weights are kept in the work folder: a second call trains only what is missing.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.distances import CPU, Gauge, add_source, blocks, gauge, source_of, told
from benchmarks.keeping import keep, said, spread
from mgdm_cli.commands.wanted import KNOBS, SAMPLER
from mgdm_cli.diffusion.model import Model
from mgdm_cli.diffusion.noise import Noise
from mgdm_cli.diffusion.process import PROCESSES
from mgdm_cli.diffusion.samplers import SAMPLERS
from mgdm_cli.diffusion.types import Cond, Denoise
from mgdm_cli.engine import sizing
from mgdm_cli.engine.device import bf16, make_deterministic, pick
from mgdm_cli.engine.planning import Drawing
from mgdm_cli.engine.preparing import Prepared, pictures
from mgdm_cli.engine.run import RunSettings, new_model
from mgdm_cli.engine.training import Pictures, begin, train
from mgdm_cli.engine.weights import load, save

LEVELS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4)
HELD = 128  # holdout images of the curve
LOOKS = 8
BLOCK = 16
SEEN = 10_000
ODE, PLAIN = "dpmpp_2m", 1.0  # a scale of 1: no classifier-free guidance
STEPS, HEUN_STEPS, ANCESTRAL_STEPS = 18, 18, 1000


def settings_of(process: str, prepared: Prepared, data: Pictures, seen: int, seed: int) -> RunSettings:
    """What `mgdm train --base none --process NAME --seen N` trains, in batches of the usual size however few the images."""
    found = sizing.settings_for(prepared, data, seed=seed, flip=False, date="20260101", base="none", process=process)
    steps = replace(found.train, seen=seen)
    return found.model_copy(update={"train": replace(steps, check_every=max(steps.steps // LOOKS, 1), patience=LOOKS)})


@torch.no_grad()
def error(model: Model, data: Pictures, spread: float) -> float:
    """The mean over `LEVELS` of the denoising error, as a share of what is undecided there."""
    n, total = min(HELD, len(data.label)), 0.0
    generator = torch.Generator().manual_seed(11)
    model.eval()
    for sigma in LEVELS:
        noise = torch.randn(n, *data.x0.shape[1:], generator=generator)
        with bf16(CPU):
            x0 = model(data.x0[:n] + sigma * noise, torch.full((n,), sigma), Cond(data.label[:n]))
        away = float((x0 - data.x0[:n]).square().mean())
        total += away * (spread**2 + sigma**2) / (spread**2 * sigma**2)
    return total / len(LEVELS)


def trained(settings: RunSettings, data: Pictures, holdout: Pictures, work: Path) -> tuple[Model, dict[str, Any]]:
    """(the model with its average weights, curve and seconds); from the work folder where it lies there."""
    path = work / f"{settings.process}-{settings.train.seen}-{settings.train.seed}.safetensors"
    model = new_model(settings, CPU)
    if not path.is_file():
        state, curve, started = begin(model, settings.train), [], time.monotonic()
        looking = 0.0
        for tick in train(state, data, holdout, settings.train, warp=settings.warp):
            if tick.holdout is None:
                continue
            pause = time.monotonic()
            now = {k: v.clone() for k, v in model.net.state_dict().items()}
            model.net.load_state_dict(state.ema)
            curve.append([tick.seen, round(error(model, holdout, settings.sigma_data), 4)])
            model.net.load_state_dict(now)
            looking += time.monotonic() - pause
        save(path, state.ema, {"curve": curve, "seconds": round(time.monotonic() - started - looking, 1)})
    tensors, header = load(path)
    model.net.load_state_dict(tensors)
    return model.requires_grad_(False).eval(), header


def drawn(
    model: Model, way: Drawing, shape: tuple[int, int, int], classes: int, per_class: int
) -> Iterator[tuple[Tensor, int]]:
    """Images of each block and its class."""
    grid = model.process.grid(way.steps)
    for class_index, seeds in blocks(classes, per_class, BLOCK):
        bound = model.bind(Cond(torch.full((len(seeds),), class_index)))

        def denoise(x: Tensor, sigma: float, bound: Denoise = bound) -> Tensor:
            with bf16(CPU):
                return bound(x, sigma).clamp(-1, 1)

        noise = Noise(seeds, shape, CPU)
        x = noise.draw() * grid[0]
        for step in SAMPLERS[way.sampler](denoise, x, grid, randn_like=noise.like, **way.knobs):
            x = step
        yield x.clamp(-1, 1), class_index


def row(model: Model, way: Drawing, settings: RunSettings, measure: Gauge, per_class: int) -> dict[str, Any]:
    """One line of the table."""
    started = time.monotonic()
    made = list(drawn(model, way, settings.shape, len(settings.classes), per_class))
    label = np.concatenate([np.full(len(x0), class_index) for x0, class_index in made])
    line = measure.of(torch.cat([x0 for x0, _ in made]), label)
    how = {"sampler": way.sampler, "knobs": dict(way.knobs), "steps": way.steps}
    return {**line, **how, "seconds": round(time.monotonic() - started, 1)}


def arms_of(process: str, per_class: int, ancestral_per_class: int) -> dict[str, tuple[Drawing, int]]:
    """How images are drawn from a process's model, and how many of each class, by name."""
    arms = {process: (Drawing(ODE, STEPS, PLAIN), per_class)}
    arms[f"{process}, default"] = (Drawing(SAMPLER, STEPS, PLAIN, KNOBS), per_class)
    if process == "edm":
        arms["edm, Heun"] = (Drawing("heun", HEUN_STEPS, PLAIN), per_class)
        arms["edm, churn"] = (Drawing("churn", HEUN_STEPS, PLAIN), per_class)
        arms["edm, SDE"] = (Drawing("dpmpp_2m_sde", STEPS, PLAIN), per_class)
        if ancestral_per_class:
            arms["edm, ancestral"] = (Drawing("ddpm", ANCESTRAL_STEPS, PLAIN), ancestral_per_class)
    return arms


def over_trainings(lines: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """{figure: {median, least, largest}} over the trainings of one arm, of those that every line has."""
    figures = {name: [line[name] for line in lines] for name in ("recall", "coverage", "class_seen")}
    figures |= {name: [line[name]["value"] for line in lines] for name in ("kernel_distance", "frechet")}
    if all("curve" in line for line in lines):
        figures["error"] = [line["curve"][-1][1] for line in lines]
    return {name: spread(values) for name, values in figures.items() if None not in values}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, write benchmarks/results/processes_<set>[_seen<N>][_trainings<N>].json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_source(parser)
    parser.add_argument("--seen", type=int, default=SEEN)
    parser.add_argument("--trainings", type=int, default=1, help="of each process, from as many seeds")
    parser.add_argument("--per-class", type=int, default=96)
    parser.add_argument(
        "--ancestral-per-class",
        type=int,
        default=32,
        help="images of 1000 steps, of the first training alone, for they are dear; 0: none",
    )
    parser.add_argument("--processes", default=",".join(PROCESSES))
    asked = parser.parse_args(arguments)
    make_deterministic()
    pick("cpu")
    prepared = source_of(asked)
    measure = gauge(prepared, asked.work)
    data, holdout = (pictures(prepared, part, CPU) for part in (prepared.splits.train, prepared.splits.holdout))
    lines: dict[str, list[dict[str, Any]]] = {}
    for process in asked.processes.split(","):
        for seed in range(asked.trainings):
            settings = settings_of(process, prepared, data, asked.seen, seed)
            model, header = trained(settings, data, holdout, asked.work)
            arms = arms_of(process, asked.per_class, 0 if seed else asked.ancestral_per_class)
            for name, (way, per_class) in arms.items():
                line = row(model, way, settings, measure, per_class)
                lines.setdefault(name, []).append(line)
                sys.stdout.write(f"{name:16s} {seed} {way.sampler}, {way.steps} steps: {told(line)}\n")
                sys.stdout.flush()
            lines[process][-1] |= {"curve": header["curve"], "training_seconds": header["seconds"]}
            sys.stdout.write(f"{process:16s} {seed} {header['seconds']} s of training; error {header['curve']}\n")
    rows: dict[str, Any] = {
        name: {"trainings": own, "over_trainings": over_trainings(own)} for name, own in lines.items()
    }
    for name, found in rows.items():
        figures = "".join(f"  {figure} {said(at)}" for figure, at in found["over_trainings"].items())
        sys.stdout.write(f"{name:16s}{figures}\n")
    document = {"set": asked.data.name, "seen": asked.seen, "threads": torch.get_num_threads(), "rows": rows}
    name = f"processes_{asked.data.name}" + (f"_seen{asked.seen}" if asked.seen != SEEN else "")
    keep(name + (f"_trainings{asked.trainings}" if asked.trainings > 1 else ""), document)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
