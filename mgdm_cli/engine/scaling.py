"""The classifier-free guidance that suits a run: measured on a few images of each class, because no one scale suits every set.

Too little, and a weakly conditioned model misses the class; too much, and the images are exaggerations of it. So each entry of the menu
draws the same seeds, and the one counts whose images lie nearest to real ones of their class: the kernel distance in the features of the
guide, to real images that it never learnt from, the mean over the classes. It acts between two noise levels (Kynkaanniemi et al. 2024).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mgdm_cli.data.files import canonical, sha256_file, write_atomic
from mgdm_cli.data.plan import SCALE_BETWEEN, Recipe
from mgdm_cli.data.splits import folds
from mgdm_cli.errors import IoFailed
from mgdm_cli.metrics.fidelity import kernel_distance

from .decoding import Parts, make_block
from .judging import features_of
from .preparing import Prepared, pictures
from .run import DENOISER, RunSettings

FILE = "scale.json"  # in the run's folder
MENU: tuple[tuple[float, tuple[float, float]], ...] = (
    (1.0, SCALE_BETWEEN),
    (1.5, SCALE_BETWEEN),
    (2.5, (0.3, 2.0)),
    (2.5, SCALE_BETWEEN),
    (4.0, SCALE_BETWEEN),
)
IMAGES = 96  # drawn for an entry, over all classes
LEAST = 12  # of them for each class
MOST_REAL = 200  # of each class
BLOCK = 12
SEED = 977  # of the images: never those of a data set


@dataclass(frozen=True)
class Scale:
    """Classifier-free guidance: its scale, 1 is off, and the noise levels in which it acts."""

    scale: float
    between: tuple[float, float]


UNMEASURED = Scale(1.5, SCALE_BETWEEN)  # where nothing was, or nothing could be


def images(classes: int) -> int:
    """How many are drawn in all."""
    return len(MENU) * classes * _blocks(classes) * BLOCK


def _blocks(classes: int) -> int:
    return -(-max(LEAST, IMAGES // classes) // BLOCK)


def stored(folder: Path) -> Scale | None:
    """What was measured for this very denoiser; None where nothing was."""
    try:
        found = json.loads((folder / FILE).read_bytes())
        if found["denoiser"] == sha256_file(folder / DENOISER):
            return Scale(float(found["scale"]), (float(found["between"][0]), float(found["between"][1])))
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        pass
    return None


def measure(
    folder: Path,
    parts: Parts,
    settings: RunSettings,
    prepared: Prepared,
    *,
    sampler: str,
    steps: int,
    knobs: Mapping[str, float],
) -> Iterator[int | Scale]:
    """Draws the menu; yields how many images there are and, last, the entry whose images come nearest.

    It is kept in the folder where that can be written. `UNMEASURED` where no class has two real images to hold them against.
    """
    assert parts.guide is not None
    # the guide learnt from the first half of the patients (pretraining); its features are a fair ruler on the others
    records = (*folds(prepared.splits.train, 2, seed=settings.train.seed)[1], *prepared.splits.holdout)
    data = pictures(prepared, records, parts.device)
    classes = range(len(settings.classes))
    real = [features_of(parts.guide, data.x0[data.label == k][:MOST_REAL]) for k in classes]
    if all(len(features) < 2 for features in real):  # no distance without two
        yield UNMEASURED
        return
    done = 0
    rows: list[dict[str, Any]] = []
    for scale, between in MENU:
        recipe = Recipe(
            process=settings.process, sampler=sampler, steps=steps, knobs=dict(knobs), scale=scale,
            scale_between=between, guidance="cfg",
        )  # fmt: skip
        distances = []
        for k in classes:
            drawn = []
            for attempt in range(_blocks(len(real))):
                made = make_block(
                    parts, recipe, run_seed=SEED, lot=k, attempt=attempt, block=BLOCK, class_index=k
                )  # fmt: skip
                drawn.append(made.after)
                done += BLOCK
                yield done
            if len(real[k]) > 1:
                distances.append(kernel_distance(real[k], features_of(parts.guide, torch.cat(drawn))))
        rows.append({"scale": scale, "between": list(between), "distance": round(float(np.mean(distances)), 6)})
    best = min(rows, key=lambda row: row["distance"])
    document = {
        "denoiser": sha256_file(folder / DENOISER), "sampler": sampler, "steps": steps, "knobs": dict(knobs), "images": done // len(MENU),
        "menu": rows, "scale": best["scale"], "between": best["between"],
    }  # fmt: skip
    with suppress(OSError, IoFailed):  # a run on a medium that is read-only is as good
        write_atomic(folder / FILE, canonical(document, indent=1))
    yield Scale(best["scale"], (best["between"][0], best["between"][1]))
