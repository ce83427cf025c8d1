"""Classifiers trained on real images and an arm's images, alike in all but the images: what is each arm worth?

Every cell of a table of arms, nets and seeds takes the same number of optimiser steps of the same size. A batch is drawn with
the classes in equal shares; under an arm with a pool, each image comes from the pool or from the real images with even
chances (from the real ones where the pool lacks the class). Net and seed fix the first weights, the classes, the coins and the
augmentation, so that cells of two arms differ by the images alone. A cell ends as its logits on the test images, in a file
that is named by what it depends on (`Table.paths`): cells that exist are not computed again.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from mgdm_cli.errors import BadInput, UsageError
from mgdm_cli.metrics.labels import softmax
from mgdm_cli.nets.zoo import Shape, new_net, try_net

from . import warp as warping
from . import weights
from .device import bf16, seeded, step_seed
from .training import Pictures
from .warp import WarpSettings

STANDARD = WarpSettings(probability=0.5, log_scale=0.08, log_stretch=0.05, angle_rad=0.12, shift=0.04)
CLASSICAL = WarpSettings(probability=0.9, log_scale=0.15, log_stretch=0.10, angle_rad=0.26, shift=0.08)
TONE, GRAIN = 0.15, 0.04  # of the classical arm: spread of log contrast and brightness; of noise, in units of [-1, 1]
EPOCHS, LEAST, MOST = 10, 200, 400  # steps of a cell: ten passes over the real images, within these
FORMAT = "mgdm-cell-1"


@dataclass(frozen=True)
class Arm:
    """A way to train: real images alone (`pool` None), or beside the images of `pool`. `made`: from a folder."""

    name: str
    pool: Pictures | None
    made: bool = False


@dataclass(frozen=True)
class Bench:
    """The real images that every arm learns from, and the test images that no arm, generator or filter saw."""

    real: Pictures
    test: Pictures
    classes: int

    @property
    def shape(self) -> Shape:
        channels, height, width = self.real.x0.shape[1:]
        return Shape(channels, self.classes, (height, width))


@dataclass(frozen=True)
class CellSettings:
    """The same for every cell."""

    steps: int
    batch: int = 32
    rate: float = 1e-3
    decay: float = 0.05
    warp: WarpSettings = STANDARD


@dataclass(frozen=True)
class Cell:
    """One net from one seed on one arm."""

    arm: str
    net: str
    seed: int


@dataclass(frozen=True)
class Progress:
    """`done` of `cells` are there; `seconds` the last one took, 0 where it was found."""

    cell: Cell
    done: int
    cells: int
    seconds: float


def steps_for(real: int, batch: int = 32) -> int:
    """Optimiser steps of a cell for this many real images."""
    return min(max(math.ceil(EPOCHS * real / batch), LEAST), MOST)


def duplicates(real: Pictures, counts: NDArray[np.int64], *, seed: int = 0) -> Pictures:
    """Real images again, `counts` (K,) of each class: every image as often as any other, up to one."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for k, wanted in enumerate(counts.tolist()):
        mine = (real.label.cpu() == k).nonzero()[:, 0]
        if len(mine) and wanted:
            rounds = [mine[torch.randperm(len(mine), generator=generator)] for _ in range(-(-wanted // len(mine)))]
            rows.append(torch.cat(rounds)[:wanted])
    picked = torch.cat(rows) if rows else torch.zeros(0, dtype=torch.int64)
    return Pictures(real.x0[picked], real.label[picked])


def classical(real: Pictures, counts: NDArray[np.int64], *, seed: int = 0) -> Pictures:
    """`counts` (K,) of each class: real images turned, moved, stretched, with other contrast and a little noise."""
    base = duplicates(real, counts, seed=seed)
    generator = torch.Generator().manual_seed(seed + 1)
    n = len(base.label)
    x0 = warping.apply(base.x0, warping.draw(n, CLASSICAL, generator)) if n else base.x0
    contrast = (TONE * torch.randn(n, 1, 1, 1, generator=generator)).exp().to(x0.device)
    light = (TONE * torch.randn(n, 1, 1, 1, generator=generator)).to(x0.device)
    grain = GRAIN * torch.randn(x0.shape, generator=generator).to(x0.device)
    return Pictures((contrast * x0 + light + grain).clamp(-1, 1), base.label)


def counts_of(data: Pictures, classes: int) -> NDArray[np.int64]:
    """(K,) images of each class."""
    return np.bincount(data.label.cpu().numpy(), minlength=classes)


def trimmed(data: Pictures, counts: NDArray[np.int64], *, seed: int = 0) -> Pictures:
    """`counts` (K,) images of each class at random, all where there are fewer."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for k, wanted in enumerate(counts.tolist()):
        mine = (data.label.cpu() == k).nonzero()[:, 0]
        rows.append(mine[torch.randperm(len(mine), generator=generator)[:wanted]].sort().values)
    picked = torch.cat(rows)
    return Pictures(data.x0[picked], data.label[picked])


@dataclass(frozen=True)
class Table:
    """Every arm with every net from every seed, and the folder in which their cells lie."""

    folder: Path
    bench: Bench
    arms: tuple[Arm, ...]
    nets: tuple[str, ...]
    seeds: int
    settings: CellSettings

    def arm(self, name: str) -> Arm:
        return next(arm for arm in self.arms if arm.name == name)

    def paths(self) -> dict[Cell, Path]:
        """Cell -> its file, named by everything that decides its logits but for their last bits; an arm's name does not.

        Those hang on the threads and the device too, which are left out: another --jobs continues the same table.
        Whole seeds come first: what is there when time runs out is a smaller table, not a torn one.
        """
        bench, settings = self.bench, self.settings
        common = [FORMAT, torch.__version__, asdict(settings), digest(bench.real), digest(bench.test), bench.classes]
        pools = {arm.name: None if arm.pool is None else digest(arm.pool) for arm in self.arms}
        out = {}
        for cell in (Cell(a.name, net, seed) for seed in range(self.seeds) for net in self.nets for a in self.arms):
            key = json.dumps([*common, pools[cell.arm], cell.net, cell.seed], sort_keys=True, default=str)
            name = f"{cell.net}-{cell.seed}-{hashlib.sha256(key.encode()).hexdigest()[:24]}.safetensors"
            out[cell] = self.folder / name
        return out

    def found(self) -> tuple[dict[str, NDArray[np.float64]], tuple[str, ...]]:
        """(arm -> probabilities (nets, seeds, N, K), the nets): the largest full table among the cells that are there.

        Seeds that some cell lacks are left out; where no seed is complete, nets that the first one lacks are. Empty where
        nothing can be compared.
        """
        there = {cell: path for cell, path in self.paths().items() if path.is_file()}

        def whole(net: str, seed: int) -> bool:
            return all(Cell(arm.name, net, seed) in there for arm in self.arms)

        nets, seeds = self.nets, [s for s in range(self.seeds) if all(whole(net, s) for net in self.nets)]
        if not seeds:
            nets, seeds = tuple(net for net in self.nets if whole(net, 0)), [0]
        if not nets:
            return {}, ()
        found = {
            arm.name: np.stack([[_probabilities(there[Cell(arm.name, net, s)]) for s in seeds] for net in nets])
            for arm in self.arms
        }
        return found, nets


def compute(table: Table, cell: Cell, path: Path) -> float:
    """Train one cell and write its logits to `path`; returns the seconds it took."""
    begun = time.monotonic()
    logits = trained(table.bench, table.arm(cell.arm), cell.net, cell.seed, table.settings)
    weights.save(path, {"logits": logits.float()}, {"kind": FORMAT, "net": cell.net, "seed": cell.seed})
    return time.monotonic() - begun


def trained(bench: Bench, arm: Arm, net: str, seed: int, settings: CellSettings) -> Tensor:
    """Logits (N, K) on the test images of one cell, trained from scratch."""
    device = bench.real.x0.device
    model = _net(net, bench.shape, seed).to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    _fit(model, bench, arm, seed, settings, settings.steps)
    model.eval()
    with torch.no_grad():
        return torch.cat([model(part).float() for part in torch.split(bench.test.x0, 128)])


def seconds_per_step(bench: Bench, net: str, settings: CellSettings, *, steps: int = 4) -> float:
    """Measured on a few true steps after one that warms up."""
    require_nets((net,), bench.shape)
    model = _net(net, bench.shape, 0).to(bench.real.x0.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    short = replace(settings, steps=steps + 1)
    _fit(model, bench, Arm("real", None), 0, short, 1)
    begun = time.monotonic()
    _fit(model, bench, Arm("real", None), 0, short, steps)
    return (time.monotonic() - begun) / steps


def digest(data: Pictures) -> str:
    """Hex sha256 of pictures and labels."""
    found = hashlib.sha256(np.ascontiguousarray(data.x0.cpu().float().numpy()).tobytes())
    found.update(np.ascontiguousarray(data.label.cpu().numpy()).tobytes())
    return found.hexdigest()


def require_nets(names: Iterable[str], shape: Shape) -> None:
    """Raises UsageError for a net that does not take images of this shape, and BadInput where MONAI is missing."""
    for name in names:
        try:
            try_net(name, shape)
        except ImportError as error:
            raise _lacking(name, error) from error
        except (RuntimeError, ValueError) as error:
            height, width = shape.size
            raise UsageError(
                f"--nets {name}: this net does not take images of {width} x {height} pixels",
                "Leave it out of --nets, or give a larger --size.",
            ) from error


def _net(name: str, shape: Shape, seed: int) -> nn.Module:
    try:
        return new_net(name, shape, seed=seed)
    except ImportError as error:
        raise _lacking(name, error) from error


def _lacking(name: str, error: ImportError) -> BadInput:
    return BadInput(
        f"net {name}: needs MONAI, which is not installed whole ({error.name or 'import failed'})",
        "Install mgdm with its extra monai, or choose --nets small.",
    )


def _fit(model: nn.Module, bench: Bench, arm: Arm, seed: int, settings: CellSettings, steps: int) -> None:
    """AdamW, cosine rate after a short rise, in place."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.rate, weight_decay=settings.decay)
    device, whole = bench.real.x0.device, settings.steps
    draw = _Draw(bench, arm)
    model.train()
    for step in range(steps):
        rise = min((step + 1) / max(whole // 20, 1), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = settings.rate * rise * (1 + math.cos(math.pi * step / whole)) / 2
        generator = torch.Generator().manual_seed(step_seed(seed, step))
        x0, label = draw(settings.batch, generator)
        x0 = warping.apply(x0, warping.draw(settings.batch, settings.warp, generator).to(device))
        with seeded(step_seed(seed, step), device), bf16(device):
            logits = model(x0.to(memory_format=torch.channels_last))
        loss = F.cross_entropy(logits.float(), label)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()


class _Draw:
    """Batches with the classes in equal shares; the same random numbers choose under every arm."""

    def __init__(self, bench: Bench, arm: Arm) -> None:
        self.sets = (bench.real, arm.pool)
        self.rows = [
            [] if data is None else [(data.label.cpu() == k).nonzero()[:, 0] for k in range(bench.classes)]
            for data in self.sets
        ]
        self.known = [k for k in range(bench.classes) if len(self.rows[0][k])]

    def __call__(self, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """(x0 (B,C,H,W), label (B,)); the classes take turns, beginning anywhere."""
        begin = int(torch.randint(len(self.known), (1,), generator=generator))
        label = [self.known[(begin + i) % len(self.known)] for i in range(batch)]
        coin = (torch.rand(batch, generator=generator) < 0.5).tolist()
        place = torch.rand(batch, generator=generator).tolist()
        images = []
        for k, pool, where in zip(label, coin, place, strict=True):
            side = 1 if pool and self.rows[1] and len(self.rows[1][k]) else 0
            rows, data = self.rows[side][k], self.sets[side]
            assert data is not None
            images.append(data.x0[rows[min(int(where * len(rows)), len(rows) - 1)]])
        x0 = torch.stack(images)
        return x0, torch.tensor(label, device=x0.device)


def _probabilities(path: Path) -> NDArray[np.float64]:
    tensors, header = weights.load(path)
    if header.get("kind") != FORMAT:
        raise BadInput(f"{path.name}: is no cell of evaluate", "Remove it.")
    return softmax(np.asarray(tensors["logits"].double().numpy()))
