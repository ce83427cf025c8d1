"""Sums in float64 are taken on the CPU: the GPU of a Mac (MPS) has no such type."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from mgdm_cli.data.image import Form
from mgdm_cli.data.intensity import Intensity
from mgdm_cli.diffusion.model import Model
from mgdm_cli.diffusion.process import edm
from mgdm_cli.engine import classifying, judging
from mgdm_cli.engine.classifying import save_classifier
from mgdm_cli.engine.encoding import open_encoder
from mgdm_cli.engine.membership import losses
from mgdm_cli.engine.preparing import Frame
from mgdm_cli.engine.training import Pictures
from mgdm_cli.nets.classifier import Classifier, ClassifierSettings
from tests.tiny import CPU

FRAME = Frame((32, 32), "pad", Intensity(kind="linear", lo=0.0, hi=255.0), Form("png", "uint8", 1, 32, 32))


class Far(Tensor):
    """A tensor on a device that refuses float64, and all that is computed from it."""

    def double(self) -> Tensor:
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype")

    def cpu(self, memory_format: torch.memory_format = torch.preserve_format) -> Tensor:
        return self.as_subclass(Tensor)


class Half(torch.nn.Module):
    """A net without weights."""

    def forward(self, x: Tensor, noise: Tensor, label: Tensor | None, warp: Tensor | None) -> Tensor:
        return x / 2


@pytest.fixture
def far() -> Pictures:
    x0 = torch.randn((4, 1, 32, 32), generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    return Pictures(x0.as_subclass(Far), torch.tensor([0, 1, 0, 1]).as_subclass(Far))


def test_no_device_is_asked_for_float64(far: Pictures, tmp_path: Path) -> None:
    net = Classifier(ClassifierSettings(1, 2, 0.5, width=8, widths=(1, 2))).eval()
    save_classifier(tmp_path / "judge-1.safetensors", net, {})
    near = replace(far, x0=far.x0.cpu(), label=far.label.cpu())
    mine = open_encoder(tmp_path / "judge-1.safetensors", FRAME, CPU)
    for function in (mine.features, partial(judging.features_of, net), partial(judging._logits, net)):
        assert np.array_equal(function(far.x0), function(near.x0))
    assert classifying.skill(net, far) == classifying.skill(net, near)
    model = Model(Half(), edm())
    *_, there = losses(model, far)
    *_, here = losses(model, near)
    assert np.array_equal(there, here)
