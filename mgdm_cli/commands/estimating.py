"""What `augment --dry-run` says: counts, evaluations, time and disk, from measured steps; nothing is written."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mgdm_cli import console
from mgdm_cli.commands.completing import known_scale
from mgdm_cli.commands.finding import found, length_of, require_time
from mgdm_cli.commands.modelling import foreseen
from mgdm_cli.console import Result

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from mgdm_cli.commands.finding import Training
    from mgdm_cli.commands.wanted import Wanted
    from mgdm_cli.data.allotment import Allotment
    from mgdm_cli.engine.preparing import Prepared
    from mgdm_cli.engine.run import RunSettings

ALONE = 700_000_000  # bytes of a process beside its images: interpreter, libraries, nets, a batch (520 to 740 MB were measured)
PASSING = 0.6  # share of candidates that pass the gates, for want of a better guess


def memory_of(prepared: Prepared) -> int:
    """Bytes that a training or a generation takes at its peak: what stands apart from the images, and each twice in float32."""
    height, width = prepared.frame.net_size
    return ALONE + 2 * 4 * sum(prepared.counts.values()) * prepared.frame.form.channels * height * width


def estimate(
    prepared: Prepared, allotment: Allotment, wanted: Wanted, training: Training, device: torch.device
) -> Result:
    """What `augment` would do, from measured steps; writes nothing."""
    from mgdm_cli.engine.run import is_trained

    folder, begun = training.folder(prepared), found(training, prepared)
    if begun is not None and is_trained(folder):
        settings, to_train = begun, 0.0
    else:
        length = length_of(training, begun)
        settings, _, to_train = foreseen(folder, prepared, length, device, seed=training.seed, flip=training.flip)
        if begun is not None:
            require_time(training, folder, to_train)
    return told(prepared, allotment, wanted, settings, device, folder=folder, to_train=to_train)


def told(
    prepared: Prepared,
    allotment: Allotment,
    wanted: Wanted,
    settings: RunSettings,
    device: torch.device,
    *,
    folder: Path,
    to_train: float,
) -> Result:
    """What making the images by the run in `folder` would take, after `to_train` seconds of its training."""
    from mgdm_cli.commands.making import recipe_by
    from mgdm_cli.engine import sizing
    from mgdm_cli.engine.decoding import cost
    from mgdm_cli.engine.planning import default_block
    from mgdm_cli.engine.run import SETTINGS, is_trained, process_of

    suits = known_scale(folder, settings) if is_trained(folder) else None
    if wanted.scale is None and suits is not None:
        wanted = replace(wanted, scale=suits.scale, scale_between=suits.between)
    made_by = recipe_by(settings, wanted, temperature=None, threshold=None)
    evaluations, gradients = cost(made_by, process_of(settings), settings.student)
    each = sizing.seconds_per_evaluation(settings, device, wanted.block or default_block(device))
    seconds = allotment.total / PASSING * (evaluations + gradients) * each
    size = settings.size[0] * settings.size[1] * settings.form.channels * (1 if settings.form.dtype == "uint8" else 2)
    document: dict[str, Any] = {
        "dry_run": True,
        "images": allotment.total,
        "classes": {
            name: {"real": prepared.counts[name], "synthetic": more} for name, more in allotment.quotas.items()
        },
        "model": folder if is_trained(folder) else None,
        "evaluations": round(allotment.total / PASSING * evaluations),
        "seconds": {"training": round(to_train), "generation": round(seconds)},
        "disk_bytes": allotment.total * size + 2_000_000,
        "memory_bytes": memory_of(prepared),
    }
    lines = (
        *(f"{name}: {prepared.counts[name]} real + {more} synthetic" for name, more in allotment.quotas.items()),
        f"training: {console.clock_text(to_train)}" + f", continuing {folder}" * (folder / SETTINGS).is_file()
        if to_train
        else f"model: {folder}, trained on {settings.train.seen} images seen",
        f"generation: about {document['evaluations']} U-Net evaluations, {console.clock_text(seconds)}, "
        f"if {PASSING:.0%} of the candidates pass the gates",
        f"disk: {document['disk_bytes'] / 1e6:.0f} MB at most; memory: about {document['memory_bytes'] / 1e9:.1f} GB; nothing was written",
    )
    return Result(document, lines)
