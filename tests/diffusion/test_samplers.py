"""Samplers against exact denoisers: order of convergence for the ODE ones, the data's law for the stochastic ones."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mgdm_cli.diffusion.exact import gaussian, mixture
from mgdm_cli.diffusion.process import edm
from mgdm_cli.diffusion.samplers import SAMPLERS
from mgdm_cli.diffusion.types import Denoise

MEAN, SPREAD = 0.2, 0.5


def drain(name: str, denoise: Denoise, x: Tensor, grid: list[float], **knobs: float) -> Tensor:
    generator = torch.Generator().manual_seed(1)

    def randn_like(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator, dtype=like.dtype)

    for step in SAMPLERS[name](denoise, x, grid, randn_like=randn_like, **knobs):
        x = step
    return x


def geometric(steps: int, hi: float = 20.0, lo: float = 0.05) -> list[float]:
    return [hi * (lo / hi) ** (i / steps) for i in range(steps + 1)]


@pytest.mark.parametrize(("name", "order"), [("euler", 1), ("ddim", 1), ("heun", 2), ("dpmpp_2m", 2)])
def test_order_of_convergence(name: str, order: int) -> None:
    """For data N(m, s^2) the ODE from x at sigma a to sigma b is exact: (x - m) scales with sqrt(s^2 + sigma^2)."""
    x = torch.linspace(-30, 30, 8, dtype=torch.float64).reshape(1, 1, 2, 4)
    hi, lo = 20.0, 0.05
    exact = MEAN + (x - MEAN) * math.sqrt((SPREAD**2 + lo**2) / (SPREAD**2 + hi**2))
    steps = (40, 80, 160, 320)
    errors = [float((drain(name, gaussian(MEAN, SPREAD), x, geometric(n)) - exact).abs().max()) for n in steps]
    slope = math.log(errors[0] / errors[-1]) / math.log(steps[-1] / steps[0])
    assert slope == pytest.approx(order, abs=0.15), errors


@pytest.mark.parametrize(
    ("name", "knobs"), [("ddpm", {}), ("ddim", {"eta": 0.5}), ("ddim", {}), ("heun", {}), ("dpmpp_2m", {})]
)
def test_the_law_of_a_mixture_is_reproduced(name: str, knobs: dict[str, float]) -> None:
    means, weights, spread = torch.tensor([-0.6, 0.5]), torch.tensor([0.3, 0.7]), 0.1
    denoise = mixture(means, spread, weights)
    grid = edm(sigma_data=0.5, hi=20.0).grid(60 if name != "ddpm" else 150)
    x = grid[0] * torch.randn(1, 1, 100, 200, generator=torch.Generator().manual_seed(3))
    x0 = drain(name, denoise, x, grid, **knobs)
    mean = float((means * weights).sum())
    var = float((weights * (means**2 + spread**2)).sum()) - mean**2
    assert float(x0.mean()) == pytest.approx(mean, abs=0.02)
    assert float(x0.std()) == pytest.approx(var**0.5, abs=0.02)
    assert float((x0 < 0).float().mean()) == pytest.approx(0.3, abs=0.02)


def test_ddim_with_eta_one_is_the_ddpm_posterior() -> None:
    """One step against the closed form of q(x_to | x, x0) (Ho et al. 2020, equations 6 and 7), to 1e-12."""
    sigma, to = 1.7, 0.6
    x, x0 = torch.tensor([[[[0.9]]]], dtype=torch.float64), torch.tensor([[[[0.25]]]], dtype=torch.float64)
    noise = torch.tensor([[[[0.7]]]], dtype=torch.float64)
    step = next(iter(SAMPLERS["ddpm"](lambda *_: x0, x, [sigma, to], randn_like=lambda _: noise)))
    ab, ab_to = 1 / (1 + sigma**2), 1 / (1 + to**2)
    alpha = ab / ab_to
    mean = (ab_to**0.5 * (1 - alpha) * x0 + alpha**0.5 * (1 - ab_to) * (ab**0.5 * x)) / (1 - ab)
    spread = ((1 - ab_to) / (1 - ab) * (1 - alpha)) ** 0.5
    assert torch.allclose(step * ab_to**0.5, mean + spread * noise, atol=1e-12)


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_every_sampler_yields_each_step_and_ends_in_the_denoised_image(name: str) -> None:
    x0 = torch.full((2, 1, 4, 4), 0.3)
    steps = list(SAMPLERS[name](lambda x, s: x0, torch.randn(2, 1, 4, 4), [5.0, 1.0, 0.0], randn_like=torch.randn_like))
    assert len(steps) == 2
    assert torch.allclose(steps[-1], x0, atol=1e-6)
