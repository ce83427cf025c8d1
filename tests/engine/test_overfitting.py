"""The audit on true diffusion models: one that saw few images too often fails it, one of the same kind that saw many passes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mgdm_cli.diffusion.model import Model
from mgdm_cli.diffusion.process import PROCESSES
from mgdm_cli.diffusion.samplers import dpmpp_2m
from mgdm_cli.diffusion.types import Cond
from mgdm_cli.engine.membership import losses
from mgdm_cli.engine.training import Pictures, TrainSettings, begin, finished, train
from mgdm_cli.engine.warp import WIDTH, WarpSettings
from mgdm_cli.metrics.audit import Copies, copies
from mgdm_cli.metrics.copies import CopyScorer
from mgdm_cli.metrics.leaks import Membership, NeighbourTest, membership, neighbour_test
from mgdm_cli.metrics.parts import PartScorer
from mgdm_cli.nets.unet import UNet, UNetSettings

SIDE, HELD, MADE = 16, 120, 96
Images = NDArray[np.float32]


def drawn(n: int, seed: int) -> Images:
    """Six soft spots anywhere, light or dark: simple enough for a small net, and no two pictures alike."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    place, width = rng.uniform(0, SIDE, (n, 6, 2, 1, 1)), rng.uniform(1.2, 2.2, (n, 6, 1, 1))
    spots = np.exp(-((y - place[:, :, 0]) ** 2 + (x - place[:, :, 1]) ** 2) / (2 * width**2))
    return np.asarray(np.clip((rng.choice([-1, 1], (n, 6, 1, 1)) * spots).sum(1), -1, 1)[:, None], dtype=np.float32)


def learnt(images: Images, steps: int) -> Model:
    """A denoiser trained from scratch on the images, nothing held out and nothing stopped."""
    data = Pictures(torch.from_numpy(images), torch.zeros(len(images), dtype=torch.int64))
    torch.manual_seed(0)
    net = UNet(UNetSettings(1, 1, width=24, widths=(1, 2), blocks=1, attention=(False, True), warp=WIDTH, dropout=0.0))
    model = Model(net.to(memory_format=torch.channels_last), PROCESSES["edm"](sigma_data=float(data.x0.std())))  # type: ignore[call-overload]
    settings = TrainSettings(16 * steps, rate=3e-3, warm_up=20, drop_label=0.0)
    state = begin(model, settings)
    for _ in train(state, data, Pictures(data.x0[:0], data.label[:0]), settings, warp=WarpSettings(probability=0.0)):
        pass
    model.net.load_state_dict(finished(state, settings))
    return model.eval()


def audited(train_images: Images, steps: int) -> tuple[Copies, NeighbourTest, Membership]:
    holdout, model = drawn(HELD, 1), learnt(train_images, steps)
    zeros = torch.zeros(MADE, dtype=torch.int64)
    sigmas = model.process.grid(16)
    noise = sigmas[0] * torch.randn(MADE, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(2))
    *_, last = dpmpp_2m(model.bind(Cond(zeros)), noise, sigmas, randn_like=torch.randn_like)
    made = last.clamp(-1, 1).numpy()
    copied = copies(CopyScorer(train_images), train_images, holdout, made, parts=PartScorer(train_images))
    own = train_images[:HELD]
    near = CopyScorer(np.concatenate([own, holdout])).score(made)
    who = [str(i) for i in range(len(own) + HELD)]
    neighbours = neighbour_test(near.nearest, near.score, who, np.arange(len(who)) < len(own))
    known = []
    for images in (train_images[:HELD], holdout):
        pictures = Pictures(torch.from_numpy(images), torch.zeros(len(images), dtype=torch.int64))
        *_, loss = losses(model, pictures)
        assert isinstance(loss, np.ndarray)
        known.append(loss)
    return copied, neighbours, membership(known[0], known[1])


@pytest.mark.slow
def test_an_overfitted_model_fails_every_look() -> None:
    copied, neighbours, known = audited(drawn(10, 0), 700)
    assert copied.auditable
    assert copied.beyond_chance
    assert neighbours.failed
    assert known.failed
    assert known.auc > 0.9


@pytest.mark.slow
def test_a_healthy_model_fails_none() -> None:
    copied, neighbours, known = audited(drawn(1000, 3), 300)
    assert copied.auditable
    assert copied.powerful
    assert not copied.failed
    assert not neighbours.failed
    assert not known.failed
    assert known.lo < 0.5 < known.hi
