"""The classifier-free guidance that suits a run: measured on a few images of each class, because no one scale suits every set.

Too little, and a weakly conditioned model misses the class; too much, and the images are exaggerations of it. So each entry of the menu
draws the same seeds, and the distance of its images to real ones of their class is taken: the kernel distance in the features of the
guide, to real images that it never learnt from, the mean over the classes. Entries that lie within one standard error of the nearest are
alike (the rule of Breiman et al. 1984, "Classification and Regression Trees", section 3.4.3: a minimum of noisy figures is as often as not
a stronger one's luck); of these the judge, which as a rule decides whether an image is kept, sees the class in the more images the better;
and of those alike in that too, the weakest is taken. It acts between two noise levels (Kynkaanniemi et al. 2024).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mgdm_cli.data.files import canonical, sha256_file, write_atomic
from mgdm_cli.data.image import Record
from mgdm_cli.data.plan import SCALE_BETWEEN, Recipe
from mgdm_cli.data.splits import folds, patient_key
from mgdm_cli.errors import IoFailed
from mgdm_cli.metrics.fidelity import kernel_distance, kernel_doubt

from .classifying import logits_of
from .decoding import Parts, make_block
from .judging import features_of
from .preparing import Prepared, pictures
from .run import DENOISER, RunSettings

Array = NDArray[np.float64]

FILE = "scale.json"  # in the run's folder
MENU: tuple[tuple[float, tuple[float, float]], ...] = (  # from the weakest to the strongest
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


@dataclass(frozen=True)
class _Ruler:
    """Features (N,F) of real images of a class, and whose they are (N)."""

    features: Array
    patients: tuple[str, ...]


@dataclass(frozen=True)
class _Tried:
    """What an entry drew: features (M,F) by class, and of all images, in the same order for every entry, whether the judge keeps them."""

    features: list[Array]
    kept: NDArray[np.bool_]


@dataclass(frozen=True)
class _Row:
    """An entry: its distance, the standard error of the difference to the least one, and which images the judge keeps."""

    scale: float
    between: tuple[float, float]
    distance: float
    error: float
    kept: NDArray[np.bool_]

    @property
    def document(self) -> dict[str, Any]:
        row = {"scale": self.scale, "between": list(self.between), "distance": self.distance, "error": self.error}
        return row | {"label_kept": round(float(self.kept.mean()), 4)}


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
    """Draws the menu; yields how many images there are and, last, the entry that is chosen.

    It is kept in the folder where that can be written. `UNMEASURED` where no class has two real images to hold them against.
    """
    assert parts.guide is not None
    # the guide learnt from the first half of the patients (pretraining); its features are a fair ruler on the others
    records = (*folds(prepared.splits.train, 2, seed=settings.train.seed)[1], *prepared.splits.holdout)
    rulers = [_ruler(parts, prepared, [r for r in records if r.label == name]) for name in settings.classes]
    if not any(rulers):  # no distance without two
        yield UNMEASURED
        return
    done = 0
    tried: list[_Tried] = []
    for scale, between in MENU:
        recipe = Recipe(
            process=settings.process, sampler=sampler, steps=steps, knobs=dict(knobs), scale=scale,
            scale_between=between, guidance="cfg",
        )  # fmt: skip
        features, kept = list[Array](), list[NDArray[np.bool_]]()
        for k in range(len(rulers)):
            drawn = []
            for attempt in range(_blocks(len(rulers))):
                made = make_block(
                    parts, recipe, run_seed=SEED, lot=k, attempt=attempt, block=BLOCK, class_index=k
                )  # fmt: skip
                drawn.append(made.after)
                done += BLOCK
                yield done
            x0 = torch.cat(drawn)
            features.append(features_of(parts.guide, x0))
            if parts.judge is not None:
                kept.append((logits_of(parts.judge, x0).argmax(-1) == k).cpu().numpy())
        tried.append(_Tried(features, np.concatenate(kept) if kept else np.ones(1, dtype=bool)))
    rows = _compared(rulers, tried)
    best = rows[_chosen(rows)]
    document = {
        "denoiser": sha256_file(folder / DENOISER), "sampler": sampler, "steps": steps, "knobs": dict(knobs), "images": done // len(MENU),
        "menu": [row.document for row in rows], "scale": best.scale, "between": list(best.between),
    }  # fmt: skip
    with suppress(OSError, IoFailed):  # a run on a medium that is read-only is as good
        write_atomic(folder / FILE, canonical(document, indent=1))
    yield Scale(best.scale, best.between)


def _ruler(parts: Parts, prepared: Prepared, records: list[Record]) -> _Ruler | None:
    """Of the real images of a class, `MOST_REAL` at random; None where there are fewer than two."""
    if len(records) < 2:
        return None
    assert parts.guide is not None
    order = np.random.default_rng(SEED).permutation(len(records))[:MOST_REAL]
    some = [records[i] for i in sorted(order)]
    features = features_of(parts.guide, pictures(prepared, some, parts.device).x0)
    return _Ruler(features, tuple(patient_key(record) for record in some))


def _compared(rulers: Sequence[_Ruler | None], tried: Sequence[_Tried]) -> list[_Row]:
    """The row of each entry of the menu. Its error is that of its difference to the nearest one: both drew the same seeds."""
    held = [(k, ruler) for k, ruler in enumerate(rulers) if ruler is not None]
    distance = [float(np.mean([kernel_distance(r.features, t.features[k]) for k, r in held])) for t in tried]
    best = tried[int(np.argmin(distance))]
    rows = []
    for (scale, between), entry, away in zip(MENU, tried, distance, strict=True):
        doubt = [
            0.0 if entry is best else kernel_doubt(r.features, entry.features[k], best.features[k], groups=r.patients)
            for k, r in held
        ]
        error = float(np.sqrt(np.sum(doubt)) / len(held))
        rows.append(_Row(scale, between, round(away, 6), round(error, 6), entry.kept))
    return rows


def _chosen(rows: Sequence[_Row]) -> int:
    """Which row counts: of those as near as the nearest the one whose labels hold, of those alike in both the weakest."""
    least = max(min(row.distance for row in rows), 0.0)  # the sign of a distance that is none says nothing
    near = [i for i, row in enumerate(rows) if max(row.distance, 0.0) - least <= row.error]
    most = max((rows[i] for i in near), key=lambda row: row.kept.mean())

    def alike(row: _Row) -> bool:
        gap = most.kept.astype(float) - row.kept
        return bool(gap.mean() <= gap.std() / np.sqrt(len(gap)))

    return next(i for i in near if alike(rows[i]))
