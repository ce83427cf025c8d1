"""Losses of a net that knows its training images by heart tell them from others; those of one that knows none do not."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mgdm_cli.diffusion.model import Model
from mgdm_cli.diffusion.process import PROCESSES
from mgdm_cli.engine.membership import NOISES, SIGMAS, losses
from mgdm_cli.engine.training import Pictures
from mgdm_cli.metrics.leaks import membership


class ByHeart(nn.Module):
    """The best denoiser of a finite set: the mean of its images, weighted by how well each explains x (as the velocity-net of `flow`)."""

    def __init__(self, known: Tensor) -> None:
        super().__init__()
        self.register_buffer("known", known)

    def forward(self, x: Tensor, noise: Tensor, label: Tensor | None, warp: Tensor | None) -> Tensor:
        sigma = (noise / (1 - noise))[:, None, None, None]
        known, x = self.get_buffer("known").float(), x.float() * (1 + sigma)
        apart = (x[:, None] - known[None]).square().flatten(2).sum(2)
        share = torch.softmax(-apart / (2 * sigma[:, :, 0, 0] ** 2), dim=1)
        x0 = torch.einsum("bn,nchw->bchw", share, known)
        return (x - x0) / sigma - x0


def pictures(n: int, seed: int) -> Pictures:
    x0 = torch.randn((n, 1, 8, 8), generator=torch.Generator().manual_seed(seed)).clamp(-1, 1)
    return Pictures(x0, torch.zeros(n, dtype=torch.int64))


def found(model: Model, data: Pictures) -> NDArray[np.float64]:
    events = list(losses(model, data, batch=16))
    assert events[-2] == len(data.label) * len(SIGMAS) * NOISES
    last = events[-1]
    assert isinstance(last, np.ndarray)
    return last


def test_what_is_known_by_heart_is_told_apart() -> None:
    train, holdout = pictures(60, 0), pictures(100, 1)
    model = Model(ByHeart(train.x0), PROCESSES["flow"]())
    test = membership(found(model, train), found(model, holdout))
    assert test.auc > 0.99
    assert test.failed


def test_a_net_that_knows_none_of_them_is_not_accused() -> None:
    train, holdout = pictures(60, 0), pictures(100, 1)
    model = Model(ByHeart(pictures(300, 2).x0), PROCESSES["flow"]())
    test = membership(found(model, train), found(model, holdout))
    assert test.lo < 0.5 < test.hi
    assert not test.failed


def test_a_loss_does_not_depend_on_company() -> None:
    data = pictures(20, 3)
    model = Model(ByHeart(pictures(10, 4).x0), PROCESSES["flow"]())
    alone = found(model, Pictures(data.x0[7:8], data.label[7:8]))
    assert np.allclose(found(model, data)[7], alone[0], rtol=1e-4)
