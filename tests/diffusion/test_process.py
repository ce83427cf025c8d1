"""The claim that one coordinate holds every process: coefficients, clocks, laws of sigma and conversions against the papers' own forms."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from mgdm_cli.diffusion.convert import PREDICTIONS
from mgdm_cli.diffusion.exact import gaussian
from mgdm_cli.diffusion.loss import denoising_loss
from mgdm_cli.diffusion.model import Model
from mgdm_cli.diffusion.process import HI, LO, PROCESSES, VE_LEAST, clocked, edm, flow, subvp, ve, vp
from mgdm_cli.diffusion.types import Cond

SIGMAS = (0.002, 0.05, 1.0, 20.0, 80.0)


def test_edm_coefficients_are_those_of_the_paper() -> None:
    """Karras et al. 2022, table 1, at sigma_data 0.5 and sigma 0.5: skip 1/2, out sqrt(2)/4, in sqrt(2), noise ln(1/2)/4."""
    coefs = edm(sigma_data=0.5).coefs(torch.tensor([0.5], dtype=torch.float64))
    wanted = (0.5, 2**0.5 / 4, 2**0.5, -0.17328679513998632)
    assert [float(c) for c in coefs] == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("t", [0.01, 0.1, 0.5, 0.9])
def test_vp_and_subvp_noise_as_their_sdes_do(t: float) -> None:
    """x_t = scale (x0 + sigma eps) has the mean and spread of the SDE's marginal on data of unit variance, and the net is told t."""
    a, data = math.cos(t * math.pi / 2), 0.3
    for make, spread in ((vp, math.sqrt(1 - a * a)), (subvp, 1 - a * a)):
        process, sigma = make(sigma_data=data), torch.tensor([data * spread / a], dtype=torch.float64)
        assert float(process.scale(sigma) * data) == pytest.approx(a, rel=1e-10)
        assert float(process.scale(sigma) * sigma) == pytest.approx(spread, rel=1e-10)
        assert float(process.coefs(sigma).noise) == pytest.approx(t, rel=1e-10)


@pytest.mark.parametrize("name", ["vp", "ve", "subvp", "edm"])
def test_the_net_sees_unit_variance_and_is_asked_for_it(name: str) -> None:
    data, generator = 0.3, torch.Generator().manual_seed(0)
    x0, eps = (torch.randn(200_000, generator=generator, dtype=torch.float64) * spread for spread in (data, 1))
    for sigma in (0.05, 0.3, 4.0):
        skip, out, in_, _ = (float(c) for c in PROCESSES[name](sigma_data=data).coefs(torch.tensor([sigma]).double()))
        x = x0 + sigma * eps
        assert float((in_ * x).std()) == pytest.approx(1, rel=0.01)
        assert float(((x0 - skip * x) / out).std()) == pytest.approx(1, rel=0.01)


def test_ddpm_with_a_thousand_cosine_steps_is_vp() -> None:
    """abar after k of 1000 steps (Nichol & Dhariwal 2021, equation 17), up to its offset of 0.008, in whose place the range begins."""
    for k in (10, 200, 500, 900):
        kept = [math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2 for t in (0.0, k / 1000)]
        abar = kept[1] / kept[0]
        sigma = torch.tensor([math.sqrt((1 - abar) / abar)], dtype=torch.float64)  # in spreads of the data
        assert float(vp(sigma_data=0.5).coefs(0.5 * sigma).noise) == pytest.approx(k / 1000, abs=0.008)


def test_ncsn_levels_are_geometric() -> None:
    steps = [a / b for a, b in pairwise(clocked(ve(), 20)[:-1])]
    assert steps == pytest.approx([(HI / LO) ** (1 / 19)] * 19, rel=1e-9)


def test_flow_is_the_straight_path() -> None:
    sigma = torch.tensor([3.0], dtype=torch.float64)
    skip, out, in_, noise = (float(c) for c in flow().coefs(sigma))
    assert (skip, out, in_, noise) == pytest.approx((0.25, -0.75, 0.25, 0.75))


@pytest.mark.parametrize("name", sorted(PROCESSES))
def test_a_grid_falls_from_the_largest_sigma_to_zero(name: str) -> None:
    process = PROCESSES[name]()
    for steps in (1, 2, 7, 40):
        for grid in (process.grid(steps), clocked(process, steps)):
            assert len(grid) == steps + 1
            assert grid[0] == pytest.approx(HI, rel=1e-6)
            assert grid[-1] == 0.0
            assert all(a > b for a, b in pairwise(grid))
    for make in (process.grid, lambda n: clocked(process, n)):
        with pytest.raises(ValueError, match="at least one step"):
            make(0)


@pytest.mark.parametrize("name", ["vp", "ve", "subvp", "flow"])
def test_training_sigmas_are_uniform_in_the_papers_time(name: str) -> None:
    process = PROCESSES[name]()
    drawn = process.draw(20_000, torch.Generator().manual_seed(0))
    least = VE_LEAST if name == "ve" else LO
    assert float(drawn.min()) >= least * 0.999
    assert float(drawn.max()) <= HI * 1.001
    noise = process.coefs(drawn).noise  # t itself, or a quarter of ln(sigma / 2): both run evenly with the paper's time
    ends = process.coefs(torch.tensor([least, HI])).noise
    share = ((noise - ends[0]) / (ends[1] - ends[0])).sort().values
    assert float((share - torch.linspace(0, 1, 20_000)).abs().max()) < 0.015


def test_training_sigmas_of_edm_are_log_normal() -> None:
    drawn = edm(mean=-1.0, spread=1.0, lo=1e-6, hi=1e6).draw(20_000, torch.Generator().manual_seed(0)).log()
    assert float(drawn.mean()) == pytest.approx(-1.0, abs=0.03)
    assert float(drawn.std()) == pytest.approx(1.0, abs=0.03)


@pytest.mark.parametrize("name", sorted(PREDICTIONS))
@pytest.mark.parametrize("sigma", SIGMAS)
def test_conversions_go_there_and_back(name: str, sigma: float) -> None:
    """In float32, relative to the size of x: subtracting x0 from a noisy x can keep no more digits than x has."""
    there, back = PREDICTIONS[name]
    generator = torch.Generator().manual_seed(0)
    x0 = torch.rand(2, 1, 8, 8, generator=generator) * 2 - 1
    eps = torch.randn(x0.shape, generator=generator)
    x = x0 + sigma * eps
    assert float((back(x, there(x, x0, sigma), sigma) - x0).abs().max()) < 1e-5 * max(1.0, sigma)
    wide = x0.double() + sigma * eps.double()
    assert float((back(wide, there(wide, x0.double(), sigma), sigma) - x0).abs().max()) < 1e-12 * max(1.0, sigma)


def test_predictions_are_what_the_papers_define() -> None:
    generator, sigma = torch.Generator().manual_seed(0), 0.7
    x0 = torch.randn(1, 1, 4, 4, generator=generator, dtype=torch.float64)
    eps = torch.randn(x0.shape, generator=generator, dtype=torch.float64)
    x, alpha = x0 + sigma * eps, 1 / math.sqrt(1 + sigma**2)
    wanted = {"eps": eps, "score": -eps / sigma, "v": alpha * eps - alpha * sigma * x0, "velocity": eps - x0}
    for name, (there, _) in PREDICTIONS.items():
        assert torch.allclose(there(x, x0, sigma), wanted[name], atol=1e-12), name


class Exact(torch.nn.Module):
    """The net that an infinitely long training of `name` would give on N(0.2, 0.3^2) data: told only what that paper's net is told."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name, self.process = name, PROCESSES[name](sigma_data=0.3)

    def forward(self, given: Tensor, noise: Tensor, label: object, warp: object) -> Tensor:
        sigma = self._sigma(float(noise[0]))
        x = given.double() / self.process.coefs(torch.tensor([sigma], dtype=torch.float64)).in_
        x0 = gaussian(0.2, 0.3)(x, sigma)
        if self.name == "edm":
            total = sigma**2 + 0.3**2
            return (x0 - 0.09 / total * x) / (sigma * 0.3 / math.sqrt(total))
        if self.name == "flow":
            return PREDICTIONS["velocity"][0](x, x0, sigma)
        return PREDICTIONS["v"][0](x / 0.3, x0 / 0.3, sigma / 0.3)

    def _sigma(self, noise: float) -> float:
        if self.name in ("edm", "ve"):
            return math.exp(4 * noise) * (1 if self.name == "edm" else 2)
        if self.name == "flow":
            return noise / (1 - noise)
        u = noise * math.pi / 2
        return 0.3 * (math.tan(u) if self.name == "vp" else math.sin(u) ** 2 / math.cos(u))


@pytest.mark.parametrize("name", sorted(PROCESSES))
def test_one_exact_denoiser_in_every_frameworks_words(name: str) -> None:
    """V-nets of unit variance, a velocity net and EDM's net, each exact: the model around each gives the same x0."""
    model = Model(Exact(name), PROCESSES[name](sigma_data=0.3)).double()
    clean = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 0.3 + 0.2
    for sigma in (0.05, 1.0, 20.0):
        x = clean + sigma * torch.randn(clean.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        coefs = model.process.coefs(torch.full((3,), sigma, dtype=torch.float64))
        raw = model.net(coefs.in_[:, None, None, None] * x, coefs.noise, None, None)
        found = coefs.skip[:, None, None, None] * x + coefs.out[:, None, None, None] * raw
        assert torch.allclose(found, gaussian(0.2, 0.3)(x, sigma), atol=1e-9)
        # Through the model itself, whose output is float32 whatever comes in:
        assert torch.allclose(model.bind(Cond())(x, sigma), gaussian(0.2, 0.3)(x, sigma), atol=1e-5 * max(1, sigma))


@pytest.mark.parametrize("name", sorted(PROCESSES))
def test_the_loss_is_the_error_of_a_flows_velocity(name: str) -> None:
    """The same weight for every process, and of a flow's own net the plain squared error of what it answers."""

    class Some(torch.nn.Module):
        def forward(self, x: Tensor, noise: Tensor, label: object, warp: object) -> Tensor:
            return 0.3 * x + 0.1

    model, generator = Model(Some(), PROCESSES[name](sigma_data=0.4)), torch.Generator().manual_seed(0)
    x0, eps = torch.randn(4, 1, 8, 8, generator=generator), torch.randn(4, 1, 8, 8, generator=generator)
    for sigma in (0.1, 2.0):
        at, x = torch.full((4,), sigma), x0 + sigma * eps
        if name == "flow":
            velocity = 0.3 * x / (1 + sigma) + 0.1
        else:
            velocity = PREDICTIONS["velocity"][0](x, model.bind(Cond())(x, sigma), sigma)
        loss = (velocity - (eps - x0)).square().mean((1, 2, 3))
        assert torch.allclose(denoising_loss(model, x0, at, eps, Cond()), loss, rtol=1e-3)


@pytest.mark.parametrize("name", sorted(PROCESSES))
def test_a_net_that_answers_0_has_a_loss_between_the_second_moment_and_1_more(name: str) -> None:
    class Nothing(torch.nn.Module):
        def forward(self, x: Tensor, noise: Tensor, label: object, warp: object) -> Tensor:
            return torch.zeros_like(x)

    model, generator = Model(Nothing(), PROCESSES[name](sigma_data=0.4)), torch.Generator().manual_seed(0)
    x0, eps = 0.4 * torch.randn(4, 1, 32, 32, generator=generator), torch.randn(4, 1, 32, 32, generator=generator)
    for sigma in (0.01, 0.16, 1.0, 50.0):
        loss = float(denoising_loss(model, x0, torch.full((4,), sigma), eps, Cond()).mean())
        assert 0.95 * 0.4**2 < loss < 1.05 * (1 + 0.4**2)
