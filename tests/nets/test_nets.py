"""The nets: every size divisible by 8, any channels, a null class that is learnt, per-image independence."""

from __future__ import annotations

import pytest
import torch

from mgdm_cli.nets.classifier import Classifier, ClassifierSettings
from mgdm_cli.nets.critic import Critic, CriticSettings
from mgdm_cli.nets.layers import Attention, PreservingBlock, UnitConv, patch_of, settle
from mgdm_cli.nets.unet import UNet, UNetSettings


def small(channels: int, patch: int = 1) -> UNet:
    torch.manual_seed(0)
    net = UNet(UNetSettings(channels, 3, width=8, patch=patch, warp=7)).eval()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return net


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize(("height", "width"), [(8, 8), (16, 40), (32, 24)])
@pytest.mark.parametrize("patch", [1, 2])
def test_any_size_divisible_by_8_and_any_channels(channels: int, height: int, width: int, patch: int) -> None:
    x = torch.randn(2, channels, height, width)
    assert small(channels, patch)(x, torch.zeros(2), torch.tensor([0, -1])).shape == x.shape


def test_any_width_goes_and_those_of_whole_heads_keep_them() -> None:
    for width in (49, 50, 82):
        net = UNet(UNetSettings(1, 3, width=width, blocks=1))
        assert net(torch.randn(1, 1, 16, 16), torch.zeros(1)).shape == (1, 1, 16, 16)
    heads = {channels: Attention(channels).heads for channels in (16, 48, 64, 96, 128, 192, 80, 110)}
    assert heads == {16: 1, 48: 1, 64: 2, 96: 3, 128: 4, 192: 6, 80: 2, 110: 2}


@pytest.mark.parametrize(
    "size", [(16, 16), (40, 40), *((side, side) for side in range(64, 137, 8)), (64, 24), (128, 72)]
)
def test_classifier_and_critic_take_every_size_of_the_unet(size: tuple[int, int]) -> None:
    """Halved three times behind a patch of two, every other side is odd on the way."""
    patch = patch_of(size)
    x, level = torch.randn(2, 1, *size), torch.ones(2)
    assert Classifier(ClassifierSettings(1, 3, 0.5, patch=patch))(x, level).shape == (2, 3)
    critic = Critic(CriticSettings(1, 3, 0.5, width=8, patch=patch))
    assert critic(x, x, level, 2 * level, torch.zeros(2, dtype=torch.int64)).shape == (2,)


def test_other_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="divisible by 8"):
        small(1, 2)(torch.zeros(1, 1, 12, 16), torch.zeros(1))


def test_label_noise_and_warp_are_heard_and_no_label_is_the_null_class() -> None:
    net, x, noise = small(1), torch.randn(1, 1, 16, 16), torch.zeros(1)
    base = net(x, noise, torch.tensor([1]))
    assert not torch.allclose(base, net(x, noise, torch.tensor([2])))
    assert not torch.allclose(base, net(x, noise + 1, torch.tensor([1])))
    assert not torch.allclose(base, net(x, noise, torch.tensor([1]), torch.ones(1, 7)))
    assert torch.equal(net(x, noise), net(x, noise, torch.tensor([-1])))


def test_an_image_does_not_depend_on_its_neighbours() -> None:
    net, x = small(1), torch.randn(3, 1, 16, 16)
    label = torch.tensor([0, 1, -1])
    together = net(x, torch.zeros(3), label)
    assert torch.allclose(together[1:2], net(x[1:2], torch.zeros(1), label[1:2]), atol=1e-5)


def test_one_row_for_all_is_the_same_row_for_each() -> None:
    """Then the modulation goes into the convolution's weights: another way, the same numbers."""
    net, x = small(1), torch.randn(3, 1, 16, 16)
    noise, label, warp = torch.full((3,), 0.4), torch.tensor([2, 2, 2]), torch.ones(3, 7)
    each = net(x, noise, label, warp)
    assert not torch.allclose(net(x, noise[:1], label[:1] - 1, warp[:1]), each, atol=1e-4)
    assert torch.allclose(net(x, noise[:1], label[:1], warp[:1]), each, atol=1e-5)
    with torch.no_grad():  # where activations are made in place
        assert torch.allclose(net(x, noise[:1], label[:1], warp[:1]), each, atol=1e-5)


def test_the_classifier_divides_by_its_temperature_when_judging_only() -> None:
    torch.manual_seed(0)
    net = Classifier(ClassifierSettings(1, 3, 0.5, width=8, dropout=0.0)).eval()
    x, sigma = torch.randn(2, 1, 16, 16), torch.full((2,), 0.1)
    cold = net(x, sigma)
    net.get_buffer("temperature").fill_(2.0)
    assert torch.allclose(net(x, sigma), cold / 2)
    net.training = (
        True  # the net alone: its batch norms keep to their running statistics, so that only the temperature differs
    )
    assert torch.allclose(net(x, sigma), cold)


@pytest.mark.parametrize("stored", [0.1, 7.0])
def test_a_unit_convolution_gives_its_gain_however_long_its_weights_are(stored: float) -> None:
    torch.manual_seed(0)
    conv, x = UnitConv(24, 64, 3, gain=0.5).requires_grad_(False), torch.randn(4, 24, 16, 16)
    before = conv(x)
    assert abs(float(before[..., 1:-1, 1:-1].std()) - 0.5) < 0.02
    conv.weight.mul_(stored)
    assert torch.allclose(conv(x), before, atol=1e-3)


def test_settled_weights_answer_alike_and_can_be_learnt_from_again() -> None:
    net, x = small(1), torch.randn(2, 1, 16, 16)
    before = net(x, torch.zeros(2), torch.tensor([0, 2]))
    settle(net.requires_grad_(False))
    assert torch.allclose(net(x, torch.zeros(2), torch.tensor([0, 2])), before, atol=1e-4)
    net.requires_grad_(True)  # as a student that starts with them
    with torch.no_grad():
        net.stem.weight.mul_(3)
    after = net(x, torch.zeros(2), torch.tensor([0, 2]))
    assert torch.allclose(after, before, atol=1e-3)
    after.sum().backward()
    assert net.stem.weight.grad is not None
    assert torch.isfinite(net.stem.weight.grad).all()


def test_maps_keep_their_size_through_many_blocks_without_norms() -> None:
    torch.manual_seed(0)
    x, embedding = torch.randn(4, 48, 16, 16), torch.zeros(1, 8)
    for _ in range(12):
        x = PreservingBlock(48, 48, 8, encodes=False).requires_grad_(False)(x, embedding)
    assert 0.7 < float(x.std()) < 1.3


def test_a_class_far_from_all_others_multiplies_no_map_by_hundreds() -> None:
    net = small(1)
    with torch.no_grad():
        net.label.weight[1].mul_(1e6)
        told = net.embed(torch.tensor([0.0, 50.0]), torch.tensor([1, 1]))
    assert float(told.square().mean()) <= 1
