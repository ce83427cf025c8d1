"""Train a base model that ships in models/ (seconds or hours, as --seen says); the same command continues.

    python -m benchmarks.train_base grey-64 --data ../shared/data --seen 120000 --work /tmp/grey
    python -m benchmarks.train_base colour-64 --data ../shared/data --seen 80000 --work /tmp/colour

Only sets whose licence lets trained weights be shared are used; phantom eyes are drawn by the package itself. Half of each set's
classes' weight goes by count, as in every run; each set is met as often as the others. Breast ultrasound is left out on purpose:
it is what fine-tuning is tested on.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from mgdm_cli.commands.modelling import prepare
from mgdm_cli.commands.reading import Source
from mgdm_cli.data.phantom_set import PATIENT_REGEX, write_set
from mgdm_cli.diffusion.model import Model
from mgdm_cli.diffusion.process import PROCESSES
from mgdm_cli.engine import bases, sizing
from mgdm_cli.engine.device import make_deterministic, pick
from mgdm_cli.engine.preparing import pictures
from mgdm_cli.engine.pretraining import resume, save_checkpoint
from mgdm_cli.engine.training import Pictures, TrainSettings, begin, finished, train
from mgdm_cli.engine.warp import WIDTH, WarpSettings
from mgdm_cli.nets.unet import UNet, UNetSettings

SIZE = 64
PHANTOMS = {"grade0": 500, "grade1": 400, "grade2": 400, "grade3": 400}
PHANTOM_SEED = 424_242  # the demo's phantoms come from small seeds: none of them is met here
BLURRED = 0.3  # the noise level that hides the blur of enlarged pictures: below it they do not teach
CLIP = 4  # a set counts at most this many times as much per image as its largest neighbour


@dataclass(frozen=True)
class Part:
    """One set: pictures to learn from, pictures held out, what its classes are called."""

    data: Pictures
    holdout: Pictures
    classes: tuple[str, ...]
    told: str
    licence: str


def folder_part(path: Path, told: str, licence: str, *, patient_regex: str | None = None) -> Part:
    """A folder of images with a sub-folder for each class."""
    prepared = prepare(Source(path, patient_regex=patient_regex, size=str(SIZE)), seed=0)
    cpu = torch.device("cpu")
    return Part(
        pictures(prepared, prepared.splits.train, cpu), pictures(prepared, prepared.splits.holdout, cpu),
        prepared.classes, told, licence,
    )  # fmt: skip


def pneumonia(path: Path) -> Part:
    """PneumoniaMNIST, 28 px, enlarged: blurred, yet it has the anatomy."""
    with np.load(path, allow_pickle=False) as rows:
        halves = [(rows[f"{name}_images"], rows[f"{name}_labels"]) for name in ("train", "val")]
    made = []
    for images, labels in halves:
        x0 = torch.from_numpy(images).float()[:, None] / 127.5 - 1
        x0 = F.interpolate(x0, size=(SIZE, SIZE), mode="bicubic", align_corners=False).clamp(-1, 1)
        label = torch.from_numpy(labels.astype(np.int64)).reshape(-1)
        made.append(Pictures(x0, label, torch.full((len(label),), BLURRED)))
    return Part(
        made[0], made[1], ("normal", "pneumonia"), "PneumoniaMNIST (Kermany et al. 2018; MedMNIST v2)", "CC BY 4.0"
    )


def phantoms() -> Part:
    """Phantom eyes of a seed of their own."""
    with tempfile.TemporaryDirectory() as folder:
        write_set(Path(folder), counts=PHANTOMS, size=SIZE, seed=PHANTOM_SEED)
        return folder_part(Path(folder), "phantom eyes drawn by mgdm", "Apache-2.0", patient_regex=PATIENT_REGEX)


RECIPES: dict[str, Callable[[Path], list[Part]]] = {
    "grey-64": lambda data: [
        folder_part(data / "brain_tumor_mri_64", "brain tumour MRI (Kaggle, M. Nickparvar)", "CC0"),
        pneumonia(data / "pneumoniamnist" / "pneumoniamnist.npz"),
    ],
    "colour-64": lambda data: [
        folder_part(data / "bccd_cells_64", "BCCD blood cells", "MIT", patient_regex=r"BloodImage_(\d+)"),
        phantoms(),
    ],
}


def joined(parts: Sequence[Part], which: Callable[[Part], Pictures]) -> Pictures:
    """All sets in one, classes numbered through; small sets are repeated so that each is met about equally often."""
    most = max(len(which(part).label) for part in parts)
    images, labels, least, first = [], [], [], 0
    for part in parts:
        own = which(part)
        times = min(max(round(most / len(own.label)), 1), CLIP)
        images.append(own.x0.repeat(times, 1, 1, 1))
        labels.append((own.label + first).repeat(times))
        least.append((torch.zeros(len(own.label)) if own.least is None else own.least).repeat(times))
        first += len(part.classes)
    return Pictures(torch.cat(images), torch.cat(labels), torch.cat(least))


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, then write models/NAME.safetensors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=sorted(RECIPES))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seen", type=int, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder of checkpoints")
    asked = parser.parse_args(arguments)
    make_deterministic()
    pick("cpu")
    parts = RECIPES[asked.name](asked.data)
    data, holdout = joined(parts, lambda part: part.data), joined(parts, lambda part: part.holdout)
    classes = tuple(name for part in parts for name in part.classes)
    spread = float(data.x0.std())
    unet = UNetSettings(data.x0.shape[1], len(classes), patch=2, warp=WIDTH)
    torch.manual_seed(0)
    net = UNet(unet).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model = Model(
        net, PROCESSES[sizing.BASE_PROCESS](sigma_data=spread, **sizing.PROCESS_SETTINGS[sizing.BASE_PROCESS])
    )
    settings = replace(TrainSettings(asked.seen), check_every=1000, drop_label=0.2)
    state = begin(model, settings)
    asked.work.mkdir(parents=True, exist_ok=True)
    for note in resume(asked.work, state):
        sys.stdout.write(note + "\n")
    saved = time.monotonic()
    for tick in train(state, data, holdout, settings, warp=WarpSettings()):
        if tick.holdout is not None:
            sys.stdout.write(f"{tick.seen} of {asked.seen} seen, holdout {tick.holdout:.4f}, {tick.seconds:.0f} s\n")
            sys.stdout.flush()
        if time.monotonic() - saved > 300:
            save_checkpoint(asked.work, state)
            saved = time.monotonic()
    path = bases.root() / f"{asked.name}.safetensors"
    path.parent.mkdir(exist_ok=True)
    bases.save(
        path, finished(state, settings), unet, size=SIZE, seen=state.step * settings.batch,
        licence="Apache-2.0", sources=tuple(f"{part.told}, {part.licence}" for part in parts), classes=classes,
        spread=spread, holdout_curve=[[seen, round(loss, 5)] for seen, loss in state.history],
    )  # fmt: skip
    sys.stdout.write(f"{path}: {path.stat().st_size / 1e6:.1f} MB\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
