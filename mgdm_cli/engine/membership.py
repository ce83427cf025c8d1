"""How well a run denoises given images: the figure by which a membership test tells those that it learnt from."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mgdm_cli.diffusion.loss import denoising_loss
from mgdm_cli.diffusion.model import Model
from mgdm_cli.diffusion.types import Cond

from .device import bf16
from .training import Pictures

# t = 0.2, 0.3 and 0.4 of DDPM's linear schedule: noise enough to hide the detail, little enough to leave the picture.
SIGMAS = (0.72, 1.23, 2.02)
NOISES = 4  # fixed draws of noise at each


def losses(model: Model, data: Pictures, *, batch: int = 32) -> Iterator[int | NDArray[np.float64]]:
    """Mean denoising loss (N,) of each image over `SIGMAS` and the same `NOISES` for all; yields progress, then the result.

    Progress is the number of net evaluations of single images done so far, of N * len(SIGMAS) * NOISES.
    """
    total = torch.zeros(len(data.label), dtype=torch.float64)
    noises = _noises(data.x0)
    done = 0
    model.eval()
    for sigma in SIGMAS:
        for eps in noises:
            for at in range(0, len(total), batch):
                to = slice(at, min(at + batch, len(total)))
                x0 = data.x0[to]
                with torch.no_grad(), bf16(x0.device):
                    level = x0.new_full((len(x0),), sigma)
                    found = denoising_loss(model, x0, level, eps.expand_as(x0), Cond(data.label[to]))
                total[to] += found.cpu().double()
                done += len(x0)
                yield done
    yield np.asarray((total / (len(SIGMAS) * NOISES)).numpy())


def _noises(x0: Tensor) -> list[Tensor]:
    """The same few noises (C,H,W) for every image, so that images differ by themselves alone."""
    generator = torch.Generator().manual_seed(11)
    return [torch.randn(x0.shape[1:], generator=generator).to(x0.device) for _ in range(NOISES)]
