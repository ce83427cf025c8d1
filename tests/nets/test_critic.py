"""Critics: shapes, and that they see what they are to judge by."""

from __future__ import annotations

import torch

from mgdm_cli.nets.critic import Critic, CriticSettings, Head
from mgdm_cli.nets.unet import UNet, UNetSettings


def test_the_critic_sees_both_pictures_the_level_and_the_class() -> None:
    torch.manual_seed(0)
    critic = Critic(CriticSettings(1, 3, 0.5, width=8, widths=(1, 2), patch=2))
    near, x = torch.randn(4, 1, 16, 16), torch.randn(4, 1, 16, 16)
    to, sigma, label = torch.tensor([0.0, 1.0, 2.0, 3.0]), torch.tensor([1.0, 3.0, 17.0, 80.0]), torch.arange(4) % 3
    found = critic(near, x, to, sigma, label)
    assert found.shape == (4,)
    for other in (
        critic(near + 1, x, to, sigma, label),
        critic(near, x + 1, to, sigma, label),
        critic(near, x, to + 1, sigma, label),
        critic(near, x, to, sigma * 2, label),
        critic(near, x, to, sigma, (label + 1) % 3),
    ):
        assert not torch.allclose(found, other)
    assert critic(near[:3], x[:3], to[:3], sigma[:3], label[:3]).shape == (3,), "any batch"


def test_no_row_tells_on_another() -> None:
    torch.manual_seed(0)
    critic = Critic(CriticSettings(1, 2, 0.5, width=8, widths=(1, 2)))
    x, level, label = torch.randn(4, 1, 16, 16), torch.ones(4), torch.zeros(4, dtype=torch.int64)
    other = torch.cat([x[:1], 3 * x[1:]])
    assert torch.allclose(critic(x, x, level, 2 * level, label)[0], critic(other, x, level, 2 * level, label)[0])


def test_a_head_stands_on_the_encoder_of_a_unet_with_channels_last() -> None:
    """Its gradient reaches the picture through the frozen encoder (a norm that crashed on this layout is why it is tried)."""
    unet = UNet(UNetSettings(1, 2, width=8, widths=(1, 2), blocks=1, attention=(False, True))).requires_grad_(False)
    head = Head(16, 2, width=8)
    x = torch.randn(4, 1, 16, 16).to(memory_format=torch.channels_last).requires_grad_(True)
    label = torch.tensor([0, 1, 0, 1])
    logit = head(unet.to(memory_format=torch.channels_last).features(x, torch.zeros(4), label), label)  # type: ignore[call-overload]
    logit.sum().backward()
    assert logit.shape == (4,)
    assert x.grad is not None
    assert float(x.grad.abs().sum()) > 0


def test_a_latent_changes_the_answer_only_once_it_has_learnt_to() -> None:
    torch.manual_seed(0)
    settings = UNetSettings(1, 2, width=8, widths=(1, 2), blocks=1, attention=(False, True), latent=4)
    unet = UNet(settings).eval()
    with torch.no_grad():
        for name, weight in unet.named_parameters():
            if not name.startswith("latent"):
                weight.add_(0.1 * torch.randn_like(weight))  # a fresh net answers nothing to anything
    x, noise, label = torch.randn(2, 1, 16, 16), torch.zeros(2), torch.zeros(2, dtype=torch.int64)
    plain = unet(x, noise, label)
    assert torch.allclose(unet(x, noise, label, None, torch.randn(2, 4)), plain, atol=1e-5)
    with torch.no_grad():
        for name, weight in unet.named_parameters():
            if name.startswith("latent"):
                weight.add_(torch.randn_like(weight))
    assert not torch.allclose(unet(x, noise, label, None, torch.randn(2, 4)), plain)
