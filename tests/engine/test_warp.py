"""Augmentation moves pictures as it says, and neither its warps nor enlarged pictures teach the net their blur."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from mgdm_cli.diffusion.model import Model
from mgdm_cli.diffusion.process import PROCESSES
from mgdm_cli.diffusion.types import WARPED_FROM, Cond
from mgdm_cli.engine.training import Pictures, TrainSettings, begin, holdout_loss, shown, train
from mgdm_cli.engine.warp import WIDTH, WarpSettings, apply, draw, told
from mgdm_cli.nets.unet import UNet, UNetSettings
from tests.tiny import drain

ALWAYS = WarpSettings(probability=1.0)
BOARD = (torch.arange(16)[:, None] + torch.arange(16)) % 2 * 2.0 - 1  # a warp of it is no longer of two values
BOARDS = Pictures(BOARD.expand(32, 1, 16, 16).clone(), torch.zeros(32, dtype=torch.int64))


class Witness(nn.Module):
    """A net that keeps what it was shown and told."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.zeros(()))
        self.met: list[tuple[Tensor, Tensor, Tensor | None]] = []

    def forward(self, x: Tensor, noise: Tensor, label: Tensor | None, warp: Tensor | None = None) -> Tensor:
        self.met.append((x.detach(), noise, warp))
        return self.gain * x


def trained(data: Pictures, warp: WarpSettings) -> list[tuple[Tensor, Tensor, Tensor | None]]:
    """What a net met in ten steps."""
    net = Witness()
    settings = replace(TrainSettings(160), check_every=1000)
    state = begin(Model(net, PROCESSES["edm"](mean=-1.6, spread=1.5)), settings)
    empty = Pictures(data.x0[:0], data.label[:0])
    drain(train(state, data, empty, settings, warp=warp))
    return net.met


def test_no_warp_leaves_a_picture_untouched_and_a_warp_moves_it() -> None:
    x = 2 * torch.rand(3, 1, 16, 24, generator=torch.Generator().manual_seed(0)) - 1
    assert torch.equal(apply(x, torch.zeros(3, WIDTH)), x)
    warp = draw(3, ALWAYS, torch.Generator().manual_seed(0))
    assert not torch.allclose(apply(x, warp), x)
    flipped = torch.zeros(3, WIDTH)
    flipped[:, -1] = 1
    assert torch.allclose(apply(x, flipped), x.flip(-1), atol=1e-5)
    assert float(draw(500, WarpSettings(), torch.Generator().manual_seed(0))[:, -1].sum()) == 0, (
        "flips are off unless asked for"
    )


def test_a_turn_keeps_its_angle_in_a_picture_that_is_not_square() -> None:
    """A disc stays a disc when turned: the aspect of the grid is taken into account."""
    rows, columns = torch.meshgrid(torch.arange(32.0), torch.arange(64.0), indexing="ij")
    disc = (((rows - 15.5) ** 2 + (columns - 31.5) ** 2) < 81).float()[None, None]
    warp = torch.zeros(1, WIDTH)
    warp[0, 2], warp[0, 3] = torch.tensor(0.6).sin(), 1 - torch.tensor(0.6).cos()
    assert float((apply(disc, warp) - disc).abs().mean()) < 0.01


def test_a_warp_keeps_most_of_the_fine_detail() -> None:
    """Moved by a third of a pixel: what is 3 to 5 pixels long keeps its power, of which a linear mean of neighbours takes a third."""
    x = 0.2 * torch.randn(8, 1, 64, 64, generator=torch.Generator().manual_seed(0)).clamp(-3, 3)
    warp = torch.zeros(8, WIDTH)
    warp[:, 4:6] = 1 / 3 / 64
    frequency = torch.fft.fftfreq(64)
    radius = (frequency[:, None].square() + frequency.square()).sqrt()
    fine = (radius > 0.2) & (radius < 0.35)
    before, after = (torch.fft.fft2(y).abs().square()[..., fine].mean() for y in (x, apply(x, warp)))
    assert 0.85 < float(after / before) < 1.15


def test_a_picture_is_warped_only_where_noise_hides_the_blur() -> None:
    """Every image is warped by at least one transform; the net hears of it from one noise level on, and below it sees none."""
    heard = [(float(noise[row]) * 4, warp[row]) for _, noise, warp in trained(BOARDS, ALWAYS) if warp is not None
            for row in range(len(noise))]  # fmt: skip
    low = [warp for level, warp in heard if level < torch.tensor(WARPED_FROM).log()]
    high = [warp for level, warp in heard if level >= torch.tensor(WARPED_FROM).log()]
    assert len(low) > 20
    assert len(high) > 20
    assert all(bool((warp == 0).all()) for warp in low)
    assert all(bool((warp != 0).any()) for warp in high)


def test_what_a_net_sees_at_little_noise_is_sharp() -> None:
    process = PROCESSES["edm"]()
    for seen, noise, _ in trained(BOARDS, ALWAYS):
        sigma = (4 * noise).exp()
        in_ = process.coefs(sigma).in_
        for row in (sigma < 0.05).nonzero()[:, 0].tolist():
            picture = seen[row, 0].float() / in_[row]
            assert float((picture.abs() - 1).abs().mean()) < 3 * float(sigma[row]) + 0.02


def test_a_usual_warp_is_heard_as_well_as_a_class_is() -> None:
    """Told as they are drawn, warps moved what the net makes of noise level and class by less than a tenth of another class."""
    torch.manual_seed(0)
    net = UNet(UNetSettings(1, 2, width=16, warp=WIDTH))
    warp = draw(64, ALWAYS, torch.Generator().manual_seed(0))
    noise, label = torch.zeros(64), torch.zeros(64, dtype=torch.int64)
    with torch.no_grad():
        plain = net.embed(noise, label, torch.zeros(64, WIDTH))
        other = float((net.embed(noise, label + 1, torch.zeros(64, WIDTH)) - plain).norm(dim=1).mean())
        heard = float((net.embed(noise, label, told(warp)) - plain).norm(dim=1).mean())
    assert 0.3 < heard / other < 3
    spread = told(draw(4000, ALWAYS, torch.Generator().manual_seed(1))).std(0)[:-1]
    assert 0.5 < float(spread.min()) <= float(spread.max()) < 2


def test_a_net_in_training_hears_the_warp_that_was_applied() -> None:
    data = Pictures(torch.zeros(4, 1, 8, 8), torch.zeros(4, dtype=torch.int64))
    warp = draw(4, ALWAYS, torch.Generator().manual_seed(0))
    assert torch.equal(shown(data, torch.arange(4), warp)[2], told(warp))
    assert bool((told(torch.zeros(1, WIDTH)) == 0).all())


@pytest.mark.parametrize("sigma", [WARPED_FROM / 2, WARPED_FROM])
def test_a_model_is_told_of_a_warp_where_it_has_learnt_of_warps(sigma: float) -> None:
    net = Witness()
    warp = draw(2, ALWAYS, torch.Generator().manual_seed(0))
    Model(net, PROCESSES["edm"]())(torch.zeros(2, 1, 8, 8), torch.full((2,), sigma), Cond(None, warp))
    heard = net.met[0][2]
    assert heard is not None
    assert torch.equal(heard, warp if sigma >= WARPED_FROM else torch.zeros_like(warp))


def test_an_enlarged_picture_teaches_only_where_noise_hides_its_blur() -> None:
    """Half of the pictures are white and teach from 0.5 on; at less noise the black ones are all that is met."""
    x0 = torch.cat([torch.full((16, 1, 8, 8), -0.8), torch.full((16, 1, 8, 8), 0.8)])
    data = Pictures(x0, torch.zeros(32, dtype=torch.int64), torch.cat([torch.zeros(16), torch.full((16,), 0.5)]))
    met = {"below": list[bool](), "above": list[bool]()}
    for seen, noise, _ in trained(data, WarpSettings(probability=0.0)):
        for picture, level in zip(seen, noise.mul(4).exp().tolist(), strict=True):
            met["below" if level < 0.5 else "above"].append(bool(picture.mean() > 0))
    assert len(met["below"]) > 20
    assert not any(met["below"])
    assert any(met["above"])
    assert not all(met["above"])


def test_the_holdout_counts_a_picture_where_it_teaches() -> None:
    """One that never does changes nothing."""
    model = Model(Witness(), PROCESSES["edm"]())
    generator = torch.Generator().manual_seed(0)
    x0, label = torch.randn(8, 1, 8, 8, generator=generator).clamp(-1, 1), torch.zeros(8, dtype=torch.int64)
    plain = holdout_loss(model, Pictures(x0, label))
    assert holdout_loss(model, Pictures(x0, label, torch.zeros(8))) == pytest.approx(plain)
    spoilt = x0.clone()
    spoilt[4:] = 1.0
    never = torch.tensor([0.0] * 4 + [1e9] * 4)
    assert holdout_loss(model, Pictures(spoilt, label, never)) == pytest.approx(
        holdout_loss(model, Pictures(x0, label, never))
    )
