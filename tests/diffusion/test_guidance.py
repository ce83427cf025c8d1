"""Guidance is the exact posterior where that is known, is nothing at all when off, and follows each term's sign."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mgdm_cli.diffusion.exact import gaussian
from mgdm_cli.diffusion.guidance import TERMS, Pull, autoguidance, cfg, disagreement, gap, guided, logit_gap
from mgdm_cli.diffusion.process import edm
from mgdm_cli.diffusion.samplers import heun
from mgdm_cli.diffusion.types import Denoise

MEAN, SPREAD = 0.1, 0.5


def test_guided_x0_is_the_exact_posterior_mean() -> None:
    """Prior N(m, s^2), observation y = x0 + N(0, r^2): guiding by log p(y | x) gives E[x0 | x, y]."""
    seen, r = 0.8, 0.3

    def log_p(x: Tensor, sigma: float) -> Tensor:
        x0 = gaussian(MEAN, SPREAD)(x, sigma)
        spread = SPREAD**2 * sigma**2 / (SPREAD**2 + sigma**2)
        return (-((seen - x0) ** 2) / (2 * (r**2 + spread))).sum((1, 2, 3))

    x = torch.linspace(-3, 3, 6, dtype=torch.float64).reshape(1, 1, 2, 3)
    for sigma in (0.1, 0.7, 4.0):
        precision = 1 / SPREAD**2 + 1 / sigma**2 + 1 / r**2
        exact = (MEAN / SPREAD**2 + x / sigma**2 + seen / r**2) / precision
        found = guided(gaussian(MEAN, SPREAD), Pull(log_p, 1.0))(x, sigma)
        assert torch.allclose(found, exact, atol=1e-12)


def test_off_is_the_denoiser_itself() -> None:
    denoise = gaussian(MEAN, SPREAD)

    def never(x: Tensor, sigma: float) -> Tensor:
        raise AssertionError("a score was asked at weight 0")

    assert guided(denoise, Pull(never, 0.0)) is denoise
    assert cfg(denoise, gaussian(0.0, 1.0), 1.0) is denoise
    outside = guided(denoise, Pull(never, 1.0, between=(0.5, 1.0)))
    x = torch.randn(1, 1, 2, 2)
    assert torch.equal(outside(x, 3.0), denoise(x, 3.0))


def test_cfg_extrapolates_only_in_its_interval() -> None:
    one, other = (lambda x, s: x * 0 + 1.0), (lambda x, s: x * 0)
    both = cfg(one, other, 2.5, (0.5, 2.0))
    x = torch.zeros(1, 1, 1, 1)
    assert float(both(x, 1.0)) == pytest.approx(2.5)
    assert float(both(x, 3.0)) == 1.0


@pytest.mark.parametrize("weight", [-1.0, 0.5, 1.0, 2.0])
def test_the_guided_mean_moves_with_the_sign_and_size_of_the_weight(weight: float) -> None:
    def bright(x: Tensor, sigma: float) -> Tensor:
        return x.mean((1, 2, 3))

    def mean(w: float) -> float:
        denoise = guided(gaussian(MEAN, SPREAD), Pull(bright, w))
        x = 10 * torch.randn(64, 1, 4, 4, generator=torch.Generator().manual_seed(0))
        for step in heun(denoise, x, edm(hi=10.0).grid(12), randn_like=torch.randn_like):
            x = step
        return float(x.mean())

    shift = mean(weight) - mean(0.0)
    assert shift * weight > 0
    assert abs(mean(2 * weight) - mean(0.0)) > abs(shift)


def test_the_normalised_step_does_not_depend_on_the_size_of_the_score_or_the_batch() -> None:
    x = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    pattern = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(1))

    def move(factor: float, images: Tensor) -> Tensor:
        pull = Pull(lambda a, s: factor * (a * pattern).sum((1, 2, 3)), 0.3, spread=0.5)
        return guided(gaussian(MEAN, SPREAD), pull)(images, 1.0) - gaussian(MEAN, SPREAD)(images, 1.0)

    assert torch.allclose(move(1.0, x), move(1000.0, x), atol=1e-6)
    assert torch.allclose(move(1.0, x)[:1], move(1.0, x[:1]), atol=1e-7)
    rms = move(1.0, x).square().mean((1, 2, 3)).sqrt()
    assert torch.allclose(rms, torch.full((4,), 0.3 * 0.5 / 1.25**0.5), atol=1e-5)


@pytest.mark.parametrize("name", ["entropy", "margin", "least-confidence", "gap"])
def test_uncertainty_is_highest_where_two_classes_tie(name: str) -> None:
    label = torch.tensor([0, 0])
    logits = torch.tensor([[1.0, 0.6, -4.0], [6.0, 0.0, -4.0]])
    near, far = TERMS[name](logits, label).tolist()
    assert near > far


def test_the_gap_keeps_the_label_and_never_goes_flat() -> None:
    label = torch.tensor([1])
    logits = torch.tensor([[0.0, 9.0]], requires_grad=True)
    assert logit_gap(logits, label).item() == 9.0
    gap(logits, label).sum().backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert float(logits.grad.abs().max()) == pytest.approx(0.5)  # entropy's would be 0.001 here
    wrong_side, aimed_at = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    assert float(gap(aimed_at, label)) > float(gap(wrong_side, label))


def test_terms_are_exact() -> None:
    p = torch.tensor([[0.5, 0.25, 0.25]])
    label = torch.tensor([1])
    assert float(TERMS["entropy"](p.log(), label)) == pytest.approx(1.0397207708399179, abs=1e-6)
    assert float(TERMS["margin"](p.log(), label)) == pytest.approx(-0.25)
    assert float(TERMS["least-confidence"](p.log(), label)) == pytest.approx(-0.5)
    assert float(TERMS["class"](p.log(), label)) == pytest.approx(-1.3862943611, abs=1e-6)


def test_autoguidance_undoes_what_a_weaker_model_does_worse() -> None:
    """Data N(m, s^2); each model believes a spread too wide, the weak one by more: at the right scale the pair is the truth."""
    x = torch.linspace(-3, 3, 6, dtype=torch.float64).reshape(1, 1, 2, 3)
    sigma = 0.8
    strong, weak = gaussian(MEAN, 1.2 * SPREAD), gaussian(MEAN, 1.6 * SPREAD)

    def pull_of(model: Denoise) -> float:
        """How much of x it keeps: linear in x, so one number."""
        return float(model(torch.ones(1), sigma) - model(torch.zeros(1), sigma))

    right = pull_of(gaussian(MEAN, SPREAD))
    scale = (right - pull_of(weak)) / (pull_of(strong) - pull_of(weak))
    assert scale > 1
    found = autoguidance(strong, weak, scale)(x, sigma)
    assert torch.allclose(found, gaussian(MEAN, SPREAD)(x, sigma), atol=1e-6)
    assert autoguidance(strong, weak, 1.0) is strong
    outside = autoguidance(strong, weak, scale, (1.0, 2.0))
    assert torch.equal(outside(x, sigma), strong(x, sigma))


def test_a_pull_on_x0_never_asks_the_denoiser_for_a_gradient() -> None:
    """The score sees the denoised image and is differentiated there: the step is sigma^2 times its gradient at x0."""
    seen: list[Tensor] = []

    def denoise(x: Tensor, sigma: float) -> Tensor:
        assert not x.requires_grad
        return gaussian(MEAN, SPREAD)(x, sigma)

    def score(image: Tensor, sigma: float) -> Tensor:
        seen.append(image.detach())
        return -(image - 0.7).square().sum((1, 2, 3))

    x, sigma = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0)), 0.6
    x0 = gaussian(MEAN, SPREAD)(x, sigma)
    found = guided(denoise, Pull(score, 0.5, on="x0"))(x, sigma)
    assert torch.equal(seen[0], x0)
    assert torch.allclose(found, x0 + 0.5 * sigma**2 * -2 * (x0 - 0.7), atol=1e-6)
    on_x = guided(denoise, Pull(score, 0.5, on="x"))(x, sigma)
    assert not torch.allclose(found, on_x)


def test_disagreement_is_what_the_members_would_tell_each_other() -> None:
    """Sure of different classes: ln 2. Alike, however unsure: 0. In between: entropy of the mean less the mean entropy."""
    label = torch.zeros(3, dtype=torch.int64)
    one = torch.tensor([[50.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
    other = torch.tensor([[0.0, 50.0], [0.0, 0.0], [0.0, 2.0]])
    found = disagreement(torch.stack([one, other]), label)
    assert float(found[0]) == pytest.approx(0.6931, abs=1e-4)
    assert float(found[1]) == pytest.approx(0.0, abs=1e-6)
    p = torch.stack([one, other]).softmax(-1)[:, 2]

    def entropy(q: Tensor) -> Tensor:
        return -(q * q.log()).sum(-1)

    assert float(found[2]) == pytest.approx(float(entropy(p.mean(0)) - entropy(p).mean()), abs=1e-6)
