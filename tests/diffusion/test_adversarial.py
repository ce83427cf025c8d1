"""Denoising diffusion GANs: the paper's chain, its steps up and down, and what both sides of the critic undergo."""

from __future__ import annotations

import math

import pytest
import torch

from mgdm_cli.diffusion.adversarial import (
    changed,
    critic_loss,
    draw_change,
    few,
    fooling_loss,
    forward_pair,
    posterior,
    steepness,
)
from mgdm_cli.diffusion.samplers import ddpm


def test_the_chain_of_four_is_the_papers() -> None:
    """abar .522, .0787, .00343, 4.3e-5 (Xiao et al. 2022, appendix B)."""
    abar = [1 / (1 + sigma**2) for sigma in few(4, 1e9)[:-1]]
    assert abar == pytest.approx([4.3e-5, 0.00343, 0.0787, 0.522], rel=0.02)
    assert few(4, 80.0)[0] == 80
    assert few(1, 80.0) == [80.0, 0.0]
    for steps in (1, 2, 4, 8):
        grid = few(steps, 80.0)
        assert len(grid) == steps + 1
        assert grid == sorted(grid, reverse=True)
    with pytest.raises(ValueError, match="at least one"):
        few(0, 80.0)


def test_a_step_down_undoes_a_step_up() -> None:
    """x at sigma from x0, then q(x_to | x, x0), has the law of x at `to`, also beside x: both are the chain's."""
    generator = torch.Generator().manual_seed(0)
    x0 = torch.full((200_000, 1, 1, 1), 0.7)
    sigma, to = torch.full_like(x0, 2.0), torch.full_like(x0, 0.5)
    noise = [torch.randn(x0.shape, generator=generator) for _ in range(3)]
    near, x = forward_pair(x0, sigma, to, noise[0], noise[1])
    again = posterior(x0, x, sigma, to, noise[2])
    for found in (near, again):
        assert float(found.mean()) == pytest.approx(0.7, abs=0.01)
        assert float(found.std()) == pytest.approx(0.5, rel=0.01)
        both = torch.stack([found.flatten(), x.flatten()])
        assert float(torch.corrcoef(both)[0, 1]) == pytest.approx(0.25, abs=0.01)
    assert float(x.std()) == pytest.approx(2.0, rel=0.01)


def test_the_sampler_of_students_takes_the_same_step() -> None:
    """What the generator is trained to make is what `ddpm` makes of its answers."""
    x, noise = torch.randn(4, 1, 8, 8), torch.randn(4, 1, 8, 8)
    x0 = torch.randn(4, 1, 8, 8)
    there = next(iter(ddpm(lambda x, sigma: x0, x, [3.0, 1.0], randn_like=lambda x: noise)))
    s, t = torch.full((4, 1, 1, 1), 3.0), torch.full((4, 1, 1, 1), 1.0)
    assert torch.allclose(there, posterior(x0, x, s, t, noise), atol=1e-5)
    at_once = posterior(x0, x, s, torch.zeros_like(t), noise)
    assert torch.equal(at_once, x0), "the last step is the answer, without noise"


def test_the_losses_are_those_of_the_density_ratio() -> None:
    """At the critic's best logit, log(p / q), the loss is 2 log 2 - 2 JS; the generator's falls as its logit rises."""
    p, q = torch.tensor([0.7, 0.3]), torch.tensor([0.4, 0.6])
    best = (p / q).log().requires_grad_(True)
    loss = (p * torch.nn.functional.softplus(-best)).sum() + (q * torch.nn.functional.softplus(best)).sum()
    (grad,) = torch.autograd.grad(loss, best)
    assert float(grad.abs().max()) < 1e-6
    assert float(critic_loss(torch.zeros(4), torch.zeros(4))) == pytest.approx(2 * math.log(2))
    assert fooling_loss(torch.ones(2)) < fooling_loss(torch.zeros(2))


def test_steepness_is_the_squared_gradient_an_image() -> None:
    x = torch.randn(5, 1, 3, 3, requires_grad=True)
    found = steepness((2 * x).sum((1, 2, 3)), x)
    assert float(found) == pytest.approx(4 * 9)


def test_a_change_is_one_for_both_pictures_of_a_pair_and_lets_gradients_through() -> None:
    generator = torch.Generator().manual_seed(1)
    change = draw_change(6, generator)
    x = torch.randn(6, 1, 16, 16, requires_grad=True)
    pair = changed(torch.cat([x, x], 1), change)
    assert torch.equal(pair[:, 0], pair[:, 1])
    assert not torch.equal(pair[:, :1], x), "something is changed"
    pair.sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert 0.3 < float((x.grad != 0).float().mean()) < 1
    none = changed(x, torch.tensor([[0.0, 0.0, 0.0, 9.0, 9.0]]).expand(6, 5))
    assert torch.equal(none, x), "no shift, no light, a hole outside: the picture itself"
    one = changed(torch.eye(16)[None, None], torch.tensor([[2 / 16, 0.0, 0.0, 9.0, 9.0]]))
    assert torch.equal(one[0, 0, 1:, :-1].diagonal(), torch.ones(15)), "moved by whole pixels"


CENTRES = torch.tensor([[float(i), float(j)] for i in range(-2, 3) for j in range(-2, 3)])
SPREAD = 0.05


def covered(steps: int, *, draws: bool) -> tuple[int, float]:
    """(of 25 normals how many are found, share of good samples) by the chain of `steps`, with an exact answer at every step.

    `draws`: the answer is drawn from the law of x0 given x, as a perfect student's; else it is its mean, as a perfect denoiser's.
    """
    generator = torch.Generator().manual_seed(0)

    def noise(x: torch.Tensor) -> torch.Tensor:
        return torch.randn(x.shape, generator=generator)

    def answer(x: torch.Tensor, sigma: float) -> torch.Tensor:
        total, at = SPREAD**2 + sigma**2, x[:, :, 0, 0]
        share = (-(at[:, None] - CENTRES).square().sum(-1) / (2 * total)).softmax(-1)
        mean = (SPREAD**2 * at[:, None] + sigma**2 * CENTRES) / total
        if not draws:
            return (share[:, :, None] * mean).sum(1)[:, :, None, None]
        which = torch.multinomial(share, 1, generator=generator)[:, 0]
        found = mean[torch.arange(len(at)), which]
        return (found + SPREAD * sigma / math.sqrt(total) * noise(found))[:, :, None, None]

    grid = few(steps, 80.0)
    *_, x = ddpm(answer, noise(torch.zeros(2000, 2, 1, 1)) * grid[0], grid, randn_like=noise)
    away, nearest = (x[:, None, :, 0, 0] - CENTRES).norm(dim=2).min(1)
    good = away < 4 * SPREAD
    found = torch.bincount(nearest[good], minlength=25) >= 20
    return int(found.sum()), float(good.float().mean())


def test_a_student_that_draws_covers_every_mode_in_few_steps_and_a_mean_does_not() -> None:
    """Why a step is drawn (Xiao et al. 2022, section 4): over a large step the law of x0 given x has many modes."""
    for steps in (1, 4):
        modes, good = covered(steps, draws=True)
        assert modes == 25
        assert good > 0.98
    modes, good = covered(4, draws=False)
    assert good < 0.5
    assert covered(1, draws=False)[0] <= 1, "one mean for all"
