"""A phantom set and a run with nets small enough to train in seconds: what the engine's and the commands' tests work on."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mgdm_cli.commands.modelling import prepare
from mgdm_cli.commands.reading import Source
from mgdm_cli.data.files import canonical, sha256_file, write_atomic
from mgdm_cli.data.phantom_set import PATIENT_REGEX, write_set
from mgdm_cli.data.plan import SCALE_BETWEEN
from mgdm_cli.engine import preparing, scaling, sizing
from mgdm_cli.engine.preparing import Prepared
from mgdm_cli.engine.pretraining import pretrain
from mgdm_cli.engine.run import DENOISER, RunSettings, write_settings

CPU = torch.device("cpu")
COUNTS = {"grade0": 30, "grade1": 14, "grade2": 12, "grade3": 12}


def tiny_set(root: Path, *, form: str = "png8", size: int = 32) -> Source:
    """A phantom set of 68 images; its grades are too small to see at this size, which no test minds."""
    write_set(root, counts=COUNTS, size=size, form=form)
    return Source(root, patient_regex=PATIENT_REGEX)


def tiny_settings(prepared: Prepared, *, seen: int = 96, base: str = "none") -> RunSettings:
    """Settings with nets of a few thousand weights; the denoiser of a base model is as large as it is."""
    data = preparing.pictures(prepared, prepared.splits.train, CPU)
    settings = sizing.settings_for(prepared, data, seed=0, flip=False, date="20260101", base=base)
    small = replace(settings.unet, width=8, widths=(1, 2), blocks=1, attention=(False, True))
    return settings.model_copy(
        update={
            "unet": small if base == "none" else settings.unet,
            "classifier": replace(settings.classifier, width=8, widths=(1, 2)),
            "train": replace(settings.train, seen=seen, batch=8, check_every=5, warm_up=2),
            "classifier_seen": 96,
        }
    )


def tiny_run(
    folder: Path, source: Source, *, trained: bool = True, seen: int = 96, base: str = "none"
) -> tuple[Prepared, RunSettings]:
    """A run in `folder`: its settings, and its weights unless `trained` is False."""
    prepared = prepare(source, seed=0)
    settings = tiny_settings(prepared, seen=seen, base=base)
    folder.mkdir(parents=True, exist_ok=True)
    write_settings(folder, settings)
    if trained:
        drain(pretrain(folder, prepared, settings, CPU))
        # Measuring it would take longer than such a training; tests/engine/test_scaling.py does.
        suits = {"denoiser": sha256_file(folder / DENOISER), "scale": 2.5, "between": SCALE_BETWEEN}
        write_atomic(folder / scaling.FILE, canonical(suits))
    return prepared, settings


def measuring_little() -> None:
    """Have a training end with a scale that was measured on four images of each class: quicker than the training, not slower."""
    scaling.IMAGES = scaling.LEAST = scaling.BLOCK = 4


def mgdm(*words: str) -> list[str]:
    """The command line of `mgdm` in a process of its own that measures little; without this module, for that loads pytest too."""
    code = "from mgdm_cli.engine import scaling; scaling.IMAGES = scaling.LEAST = scaling.BLOCK = 4"
    return [sys.executable, "-c", f"import sys; {code}; from mgdm_cli.app import main; sys.exit(main())", *words]


def any_guide_will_do(patch: pytest.MonkeyPatch) -> None:
    """Nets trained for a second do not beat chance; that refusal has a test of its own in commands/test_augment.py."""
    patch.setattr("mgdm_cli.engine.planning.require_skill", lambda folder, guidance: {})


def drain(events: Iterator[object]) -> list[object]:
    """All that an engine yields."""
    return list(events)


def tree(root: Path, *, without: tuple[str, ...] = ()) -> dict[str, bytes]:
    """Relative path -> bytes of a data set: all but `.mgdm`, and what holds times or the folder's own name."""
    skipped = {"run.json", "config.resolved.toml", *without}
    files = (path for path in sorted(root.rglob("*")) if path.is_file())
    return {
        name: path.read_bytes()
        for path in files
        if not (name := path.relative_to(root).as_posix()).startswith(".mgdm") and name not in skipped
    }
