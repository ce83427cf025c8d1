"""The base models in the package: small, whole, with a card, and loadable into the net that every run uses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mgdm_cli.diffusion.model import Model
from mgdm_cli.diffusion.process import PROCESSES
from mgdm_cli.diffusion.types import NULL, Cond
from mgdm_cli.engine import bases
from mgdm_cli.engine.warp import WIDTH
from mgdm_cli.nets.unet import UNet, UNetSettings

ROOT = Path(__file__).parents[1]
LARGEST = 10_000_000  # bytes


@pytest.mark.parametrize("channels", [1, 3])
def test_the_usual_net_for_64_px_has_a_base(channels: int) -> None:
    base = bases.fitting(UNetSettings(channels, 5, patch=2, warp=WIDTH), (64, 64))
    assert base is not None
    assert base.size == 64


@pytest.mark.parametrize("base", bases.listing(), ids=lambda base: base.name)
def test_every_base_is_small_has_a_card_and_knows_its_pictures(base: bases.Base) -> None:
    assert base.path.stat().st_size <= LARGEST
    card = (ROOT / "models" / f"{base.name}.md").read_text()
    for source in base.sources:
        assert source in card
    assert f"{base.seen:,}" in card
    net = UNet(base.unet)
    bases.start_from(net, base, base.sha256)
    model = Model(net, PROCESSES["edm"](sigma_data=0.5)).eval()
    x = torch.zeros(2, base.unet.channels, base.size, base.size)
    out = model.bind(Cond(torch.full((2,), NULL)))(x, 0.5)
    assert bool(torch.isfinite(out).all())
    assert float(out.std()) > 0.01  # it has learnt something: a fresh net says 0
