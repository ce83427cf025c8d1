"""What several benchmarks share: drawing images from a model, and how far they lie from real ones, with intervals.

Distances are taken in the features of the first of the two cross-fitted judges of `mgdm evaluate`, to real images that it never saw;
precision, recall and coverage class by class, then their mean; the share of images whose class is seen comes from both judges. The judges
are trained once and kept in a folder.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mgdm_cli.commands.modelling import prepare
from mgdm_cli.commands.reading import Source
from mgdm_cli.data.plan import seed_of
from mgdm_cli.data.splits import patient_key
from mgdm_cli.engine import judging
from mgdm_cli.engine.preparing import Prepared, pictures
from mgdm_cli.metrics import manifold
from mgdm_cli.metrics.fidelity import frechet, kernel_distance, resample, with_interval
from mgdm_cli.metrics.labels import wilson

CPU = torch.device("cpu")
FINE = 0.3  # cycles a pixel
SHARES = {"precision": manifold.precision, "recall": manifold.recall, "coverage": manifold.coverage}


@dataclass(frozen=True)
class Gauge:
    """The judges, and the features (N, F), classes (N,) and patients (N,) of the real images that the first one never saw,
    as many of each class."""

    found: judging.Judges
    real: np.ndarray
    label: np.ndarray
    patients: tuple[str, ...]

    def of(self, x0: Tensor, label: np.ndarray) -> dict[str, Any]:
        """Distances and class agreement of images x0 (N, C, H, W) of these classes (N,)."""
        ours = judging.features_of(self.found.nets[0], x0)
        seen = judging.judged(self.found, x0).argmax(1) == label
        pairs = [(self.real[self.label == k], ours[label == k]) for k in np.unique(label)]
        return {
            **{name: round(float(np.mean([share(*pair) for pair in pairs])), 3) for name, share in SHARES.items()},
            **_agreement(seen),
            "kernel_distance": asdict(with_interval(kernel_distance, self.real, ours, groups=self.patients)),
            "frechet": asdict(with_interval(frechet, self.real, ours, groups=self.patients)),
        }

    def farther(self, one: Tensor, other: Tensor, *, draws: int = 200) -> dict[str, float]:
        """Kernel distance of images `one` (N, C, H, W) less that of `other` (M, C, H, W), with a 95 % interval (basic bootstrap, as
        `with_interval`). Both are held against the same real images in every draw, so what those add to either is not counted."""
        ours, theirs = (judging.features_of(self.found.nets[0], x0) for x0 in (one, other))
        names, generator = np.asarray(self.patients), np.random.default_rng(0)
        drawn = list[float]()
        for _ in range(draws):
            real = self.real[resample(names, generator)]
            one_off, other_off = (
                kernel_distance(real, generator.choice(features, len(features))) for features in (ours, theirs)
            )
            drawn.append(one_off - other_off)
        value = kernel_distance(self.real, ours) - kernel_distance(self.real, theirs)
        low, high = np.quantile(np.array(drawn) - np.mean(drawn), [0.025, 0.975])
        return {"value": round(value, 4), "lo": round(value - float(high), 4), "hi": round(value - float(low), 4)}


def detail(x0: Tensor, real: Tensor, *, draws: int = 200) -> dict[str, float]:
    """Power of images x0 (N, C, H, W) in what is finer than `FINE` cycles a pixel, over that of real ones (M, C, H, W): below 1 they are
    blurred, above it noisy. With a 95 % interval (percentiles of a bootstrap over the images of both)."""
    ours, theirs = (_fine_power(part).numpy() for part in (x0, real))
    generator = np.random.default_rng(0)
    drawn = [
        generator.choice(ours, len(ours)).mean() / generator.choice(theirs, len(theirs)).mean() for _ in range(draws)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {
        "value": round(float(ours.mean() / theirs.mean()), 3),
        "lo": round(float(low), 3),
        "hi": round(float(high), 3),
    }


def _fine_power(x0: Tensor) -> Tensor:
    """(N,) mean power of the finest frequencies, under a Hann window, without which the edges of a picture would count as detail."""
    height, width = x0.shape[-2:]
    window = torch.hann_window(height)[:, None] * torch.hann_window(width)
    frequency = (torch.fft.fftfreq(height)[:, None].square() + torch.fft.fftfreq(width).square()).sqrt()
    found = torch.fft.fft2((x0.float() - x0.float().mean((-2, -1), keepdim=True)) * window).abs().square()
    mean: Tensor = found[..., (frequency > FINE) & (frequency <= 0.5)].mean((1, 2))
    return mean


def add_source(parser: argparse.ArgumentParser, *, judges: bool = True) -> None:
    """The options that say which real images, and where the judges are kept."""
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--labels", type=Path, help="table of labels and splits, as mgdm train --labels reads it")
    parser.add_argument(
        "--skip-bad", action="store_true", help="leave out what cannot be used, as mgdm train --skip-bad"
    )
    parser.add_argument("--size")
    parser.add_argument("--patient-regex")
    if judges:
        parser.add_argument("--work", type=Path, required=True, help="folder for the judges")


def folder_of(asked: argparse.Namespace) -> Source:
    """The folder that `add_source`'s options name, and how it is read."""
    return Source(asked.data, asked.labels, patient_regex=asked.patient_regex, size=asked.size, skip_bad=asked.skip_bad)


def source_of(asked: argparse.Namespace) -> Prepared:
    """The set in that folder."""
    return prepare(folder_of(asked), seed=0)


def gauge(prepared: Prepared, work: Path) -> Gauge:
    """Trains the judges that `work` lacks."""
    work.mkdir(parents=True, exist_ok=True)
    found = next(e for e in judging.judges(work, prepared, CPU) if isinstance(e, judging.Judges))
    records = judging.unseen(found, prepared)
    data = pictures(prepared, records, CPU)
    rows = evenly(data.label.numpy(), len(prepared.classes))
    real = judging.features_of(found.nets[0], data.x0[torch.from_numpy(rows)])
    return Gauge(found, real, data.label.numpy()[rows], tuple(patient_key(records[row]) for row in rows))


def class_seen_in_real(found: judging.Judges, prepared: Prepared) -> dict[str, Any]:
    """In how many images of the holdout, which neither judge met, they see the class: what no made image need surpass."""
    data = pictures(prepared, prepared.splits.holdout, CPU)
    return _agreement(judging.judged(found, data.x0).argmax(1) == data.label.numpy())


def _agreement(seen: np.ndarray) -> dict[str, Any]:
    """In how many of these images (N,) the judges saw the class."""
    return {
        "images": len(seen),
        "class_seen": round(float(seen.mean()), 3),
        "class_seen_interval": [round(v, 3) for v in wilson(int(seen.sum()), len(seen))],
    }


def evenly(label: np.ndarray, classes: int) -> np.ndarray:
    """Indices of as many images of each class, as are drawn: another mix of classes would be taken for a distance."""
    rng = np.random.default_rng(0)
    groups = [rng.permutation(np.flatnonzero(label == k)) for k in range(classes)]
    return np.sort(np.concatenate([group[: min(map(len, groups))] for group in groups]))


def blocks(classes: int, per_class: int, block: int) -> Iterator[tuple[int, list[int]]]:
    """(class index, seeds of one block), class by class; every benchmark draws from the same seeds."""
    for class_index in range(classes):
        for attempt in range(-(-per_class // block)):
            rows = range(min(block, per_class - attempt * block))
            yield class_index, [seed_of(3, class_index, attempt, row) for row in rows]


def told(row: dict[str, Any]) -> str:
    """Distances in a line."""
    shown = []
    for name, digits in (("kernel_distance", 4), ("frechet", 2)):
        found = row[name]
        if found["value"] is None:  # too few images for the features
            continue
        value, lo, hi = (f"{found[what]:.{digits}f}" for what in ("value", "lo", "hi"))
        base = "not known" if found["baseline"] is None else f"{found['baseline']:.{digits}f}"
        shown.append(f"{name.replace('_', ' ')} {value} [{lo}, {hi}] (real {base})")
    line = ", ".join(shown)
    line += f", precision {row['precision']}, recall {row['recall']}, coverage {row['coverage']}"
    return line + f", class seen {row['class_seen']} {row['class_seen_interval']}"
