"""Samplers against exact denoisers: order of convergence for the ODE ones, the data's law for the stochastic ones."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mgdm_cli.diffusion.exact import gaussian, mixture
from mgdm_cli.diffusion.noise import Noise
from mgdm_cli.diffusion.process import edm
from mgdm_cli.diffusion.samplers import SAMPLERS, draws
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


@pytest.mark.parametrize(
    ("name", "order", "knobs"),
    [
        ("euler", 1, {}),
        ("ddim", 1, {}),
        ("heun", 2, {}),
        ("churn", 2, {"churn": 0.0}),
        ("dpmpp_2m", 2, {}),
        ("dpmpp_2m_sde", 2, {"eta": 0.0}),
        ("unipc", 2, {"order": 1}),
        ("unipc", 3, {}),
    ],
)
def test_order_of_convergence(name: str, order: int, knobs: dict[str, float]) -> None:
    """For data N(m, s^2) the ODE from x at sigma a to sigma b is exact: (x - m) scales with sqrt(s^2 + sigma^2)."""
    x = torch.linspace(-30, 30, 8, dtype=torch.float64).reshape(1, 1, 2, 4)
    hi, lo = 20.0, 0.05
    exact = MEAN + (x - MEAN) * math.sqrt((SPREAD**2 + lo**2) / (SPREAD**2 + hi**2))
    steps = (40, 80, 160, 320)
    errors = [float((drain(name, gaussian(MEAN, SPREAD), x, geometric(n), **knobs) - exact).abs().max()) for n in steps]
    slope = math.log(errors[0] / errors[-1]) / math.log(steps[-1] / steps[0])
    assert slope == pytest.approx(order, abs=0.15), errors


def variance_at_the_end(name: str, steps: int, knobs: dict[str, float]) -> float:
    """Exactly, without one random number: on N(0, s^2) data a chain is a linear sum of its start and its draws.

    Pixel 0 starts at one standard deviation, pixel k meets noise 1 at the k-th draw alone: their squares are what each adds.
    """
    draw = iter(range(1, steps + 2))
    x = torch.zeros(1, 1, 1, steps + 1, dtype=torch.float64)
    x[..., 0] = math.sqrt(SPREAD**2 + 20.0**2)

    def one_at_a_time(like: Tensor) -> Tensor:
        out = torch.zeros_like(like)
        out[..., next(draw)] = 1
        return out

    for step in SAMPLERS[name](gaussian(0.0, SPREAD), x, geometric(steps), randn_like=one_at_a_time, **knobs):
        x = step
    return float(x.square().sum())


@pytest.mark.parametrize(
    ("name", "order", "knobs"),
    [
        ("sde", 1, {}),
        ("ddpm", 1, {}),
        ("ddim", 1, {"eta": 0.5}),
        ("dpmpp_2m_sde", 2, {}),
        ("dpmpp_2m_sde", 2, {"eta": 0.5}),
        ("dpmpp_2m_sde", 2, {"lo": 1.0}),
        ("churn", 2, {"churn": 10.0, "noise": 1.0}),
    ],
)
def test_order_of_convergence_of_the_variance(name: str, order: int, knobs: dict[str, float]) -> None:
    exact, steps = SPREAD**2 + 0.05**2, (40, 80, 160, 320)
    errors = [abs(variance_at_the_end(name, n, knobs) - exact) for n in steps]
    slope = math.log(errors[0] / errors[-1]) / math.log(steps[-1] / steps[0])
    assert slope == pytest.approx(order, abs=0.15), errors


@pytest.mark.parametrize("name", ["sde", "ddpm", "dpmpp_2m_sde"])
def test_the_mean_of_a_gaussian_is_exact_at_any_number_of_steps(name: str) -> None:
    """The reverse SDE takes it from sigma a to b by (s^2 + b^2) / (s^2 + a^2)."""
    x = torch.linspace(-30, 30, 8, dtype=torch.float64).reshape(1, 1, 2, 4)
    exact = MEAN + (x - MEAN) * (SPREAD**2 + 0.05**2) / (SPREAD**2 + 20.0**2)
    last = x
    for step in SAMPLERS[name](gaussian(MEAN, SPREAD), x, geometric(7), randn_like=torch.zeros_like):
        last = step
    assert torch.allclose(last, exact, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "knobs", "steps"),
    [
        ("ddpm", {}, 150),
        ("ddim", {"eta": 0.5}, 60),
        ("ddim", {}, 60),
        ("heun", {}, 60),
        ("dpmpp_2m", {}, 60),
        ("unipc", {}, 60),
        ("sde", {}, 300),
        ("churn", {}, 60),
        ("dpmpp_2m_sde", {}, 60),
        ("dpmpp_2m_sde", {"eta": 0.5}, 60),
        ("dpmpp_2m_sde", {"lo": 1.0}, 60),
        ("langevin", {}, 60),
        ("pc", {}, 150),
    ],
)
def test_the_law_of_a_mixture_is_reproduced(name: str, knobs: dict[str, float], steps: int) -> None:
    means, weights, spread = torch.tensor([-0.6, 0.5]), torch.tensor([0.3, 0.7]), 0.1
    denoise = mixture(means, spread, weights)
    grid = edm(sigma_data=0.5, hi=20.0).grid(steps)
    x = grid[0] * torch.randn(1, 1, 100, 200, generator=torch.Generator().manual_seed(3))
    x0 = drain(name, denoise, x, grid, **knobs)
    mean = float((means * weights).sum())
    var = float((weights * (means**2 + spread**2)).sum()) - mean**2
    assert float(x0.mean()) == pytest.approx(mean, abs=0.02)
    assert float(x0.std()) == pytest.approx(var**0.5, abs=0.02)
    assert float((x0 < 0).float().mean()) == pytest.approx(0.3, abs=0.02)
    apart = torch.where(x0 < 0, x0 + 0.6, x0 - 0.5)
    assert float(apart.std()) == pytest.approx(spread, abs=0.015)  # the width of a mode, not only of the whole


@pytest.mark.parametrize(
    ("name", "knobs"), [("langevin", {"inner": 300, "step": 0.2}), ("pc", {"correct": 200, "snr": 0.2})]
)
def test_langevin_steps_find_the_law_of_their_level_from_anywhere(name: str, knobs: dict[str, float]) -> None:
    """At one sigma the chain forgets where it began: mean, spread and skew of the noised mixture, from one point far outside."""
    means, weights, spread, sigma = torch.tensor([-0.6, 0.5]), torch.tensor([0.3, 0.7]), 0.1, 0.5
    start = torch.full((1, 1, 100, 200), 2.0)
    generator = torch.Generator().manual_seed(4)
    grid = [sigma, 0.1] if name == "langevin" else [sigma * 1.0001, sigma]
    x = next(
        iter(
            SAMPLERS[name](
                mixture(means, spread, weights),
                start,
                grid,
                randn_like=lambda like: torch.randn(like.shape, generator=generator),
                **knobs,
            )
        )
    )
    mean = float((means * weights).sum())
    var = float((weights * (means**2 + spread**2)).sum()) - mean**2 + sigma**2
    third = float((weights * ((means - mean) ** 3)).sum())
    assert float(x.mean()) == pytest.approx(mean, abs=0.02)
    assert float(x.std()) == pytest.approx(var**0.5, rel=0.03)
    assert float((x - mean).pow(3).mean()) == pytest.approx(third, abs=0.035)


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_a_row_does_not_feel_its_neighbours(name: str) -> None:
    """In float64, where a batch of one and a batch of three give the same sums: no norm or mean runs over the batch."""
    denoise = mixture(torch.tensor([-0.6, 0.5]), 0.1, torch.tensor([0.3, 0.7]))
    seeds, grid = [3, 9, 27], edm().grid(4)

    def made(rows: list[int]) -> Tensor:
        noise = Noise(rows, (1, 4, 4), torch.device("cpu"))
        x = grid[0] * noise.draw().double()
        for step in SAMPLERS[name](denoise, x, grid, randn_like=lambda like: noise.like(like).double()):
            x = step
        return x

    assert torch.allclose(made(seeds)[1], made([9])[0], atol=1e-12)


@pytest.mark.parametrize(
    ("name", "evaluations"), [("euler", 5), ("heun", 9), ("dpmpp_2m", 5), ("unipc", 5), ("churn", 9), ("pc", 9)]
)
def test_what_five_steps_cost(name: str, evaluations: int) -> None:
    asked = []

    def denoise(x: Tensor, sigma: float) -> Tensor:
        asked.append(sigma)
        return gaussian(MEAN, SPREAD)(x, sigma)

    drain(name, denoise, torch.randn(1, 1, 4, 4), edm().grid(5))
    assert len(asked) == evaluations


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


@pytest.mark.parametrize("lo", [0.0, 0.3, 1.0, 9.0])
def test_noise_comes_only_with_steps_that_end_at_the_lowest_level_or_above(lo: float) -> None:
    grid, drawn = [8.0, 3.0, 1.0, 0.3, 0.1, 0.0], []
    x, plain = torch.randn(1, 1, 4, 4) * 8, gaussian(0.0, 0.5)

    def like(x: Tensor) -> Tensor:
        drawn.append(1)
        return torch.randn_like(x)

    steps = list(SAMPLERS["dpmpp_2m_sde"](plain, x, grid, randn_like=like, lo=lo))
    assert len(drawn) == sum(to >= lo for to in grid[1:-1])
    if not drawn:
        assert torch.equal(steps[-1], list(SAMPLERS["dpmpp_2m"](plain, x, grid, randn_like=like))[-1])


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_it_is_known_which_samplers_draw_fresh_noise(name: str) -> None:
    for knobs in ({}, {"eta": 0.0}, {"eta": 0.5}):
        if knobs and name not in ("ddim", "dpmpp_2m_sde"):
            continue
        drawn: list[int] = []

        def like(x: Tensor, drawn: list[int] = drawn) -> Tensor:
            drawn.append(1)
            return torch.randn_like(x)

        x = torch.randn(1, 1, 4, 4) * 5
        list(SAMPLERS[name](gaussian(0.0, 0.5), x, [5.0, 0.4, 0.1, 0.0], randn_like=like, **knobs))
        assert draws(name, knobs) == bool(drawn)
