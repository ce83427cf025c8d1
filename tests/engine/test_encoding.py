"""An encoder of the user's: TorchScript or a stored judge; what is neither is refused in words."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mgdm_cli.data.image import Form
from mgdm_cli.data.intensity import Intensity
from mgdm_cli.engine.classifying import save_classifier
from mgdm_cli.engine.encoding import open_encoder
from mgdm_cli.engine.preparing import Frame
from mgdm_cli.errors import BadInput, MissingInput
from mgdm_cli.nets.classifier import Classifier, ClassifierSettings
from tests.tiny import CPU

GREY = Frame((28, 28), "pad", Intensity(kind="linear", lo=0.0, hi=255.0), Form("png", "uint8", 1, 28, 28))
X0 = torch.randn((5, 1, 32, 32), generator=torch.Generator().manual_seed(0)).clamp(-1, 1)


def script(net: nn.Module, path: Path, channels: int = 1) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(net.eval(), torch.zeros(2, channels, 28, 28)), str(path))  # type: ignore[no-untyped-call]
    return path


class Maps(nn.Module):
    """Feature maps, which are averaged over places."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Conv2d(channels, 6, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x)
        return out


def test_torchscript_sees_the_picture_without_its_border(tmp_path: Path) -> None:
    net = Maps(1)
    found = open_encoder(script(net, tmp_path / "mine.pt"), GREY, CPU)
    assert (found.name, found.what) == ("mine.pt", "TorchScript")
    expected = net(X0[..., 2:30, 2:30]).mean((2, 3)).detach().numpy()
    assert np.allclose(found.features(X0), expected, atol=1e-5)


class Tokens(nn.Module):
    """A token a patch, which are averaged over patches."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Conv2d(1, 6, 7, stride=7)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x).flatten(2).transpose(1, 2)
        return out


def test_tokens_are_averaged(tmp_path: Path) -> None:
    net = Tokens()
    found = open_encoder(script(net, tmp_path / "vit.pt"), GREY, CPU)
    expected = net(X0[..., 2:30, 2:30]).mean(1).detach().numpy()
    assert found.features(X0).shape == (5, 6)
    assert np.allclose(found.features(X0), expected, atol=1e-5)


def test_a_net_for_colour_gets_grey_three_times(tmp_path: Path) -> None:
    net = Maps(3)
    found = open_encoder(script(net, tmp_path / "rgb.pt", 3), GREY, CPU)
    expected = net(X0[..., 2:30, 2:30].repeat(1, 3, 1, 1)).mean((2, 3)).detach().numpy()
    assert np.allclose(found.features(X0), expected, atol=1e-5)


def test_a_stored_judge_is_an_encoder(tmp_path: Path) -> None:
    net = Classifier(ClassifierSettings(1, 2, 0.5, width=8, widths=(1, 2))).eval()
    save_classifier(tmp_path / "judge-1.safetensors", net, {})
    found = open_encoder(tmp_path / "judge-1.safetensors", GREY, CPU)
    assert found.features(X0).shape == (5, net.head.in_features)
    colour = Classifier(ClassifierSettings(3, 2, 0.5, width=8, widths=(1, 2)))
    save_classifier(tmp_path / "colour.safetensors", colour, {})
    with pytest.raises(BadInput, match="takes 3 channels, the images have 1"):
        open_encoder(tmp_path / "colour.safetensors", GREY, CPU)


def test_what_is_no_encoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match="is not there"):
        open_encoder(tmp_path / "none.pt", GREY, CPU)
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(BadInput, match="neither TorchScript nor"):
        open_encoder(tmp_path / "text.pt", GREY, CPU)
    torch.save({"a": torch.zeros(2)}, tmp_path / "weights.pt")
    with pytest.raises(BadInput, match="is no TorchScript file"):
        open_encoder(tmp_path / "weights.pt", GREY, CPU)
    with pytest.raises(BadInput, match="does not take pictures of 1 x 28 x 28"):
        open_encoder(script(Maps(4), tmp_path / "four.pt", 4), GREY, CPU)
    with pytest.raises(BadInput, match="does not give one row of features"):
        open_encoder(script(nn.Flatten(0), tmp_path / "flat.pt"), GREY, CPU)
