"""A picture comes back from its noise: exactly where the denoiser is exact, with CFG++ too, and far better than the explicit way."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mgdm_cli.diffusion.exact import gaussian, mixture
from mgdm_cli.diffusion.guidance import cfg
from mgdm_cli.diffusion.inversion import decode, invert, psnr
from mgdm_cli.diffusion.process import edm
from mgdm_cli.diffusion.samplers import SAMPLERS
from mgdm_cli.diffusion.types import Denoise

GRID = edm().grid(25)
MEANS, WEIGHTS, SPREAD = torch.tensor([-0.6, 0.5]), torch.tensor([0.3, 0.7]), 0.1


def picture(of: str) -> Tensor:
    """(3, 1, 16, 16) drawn from the law that the denoiser of that name knows."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(3, 1, 16, 16, generator=generator)
    if of == "gaussian":
        return 0.2 + 0.3 * noise
    return torch.where(torch.rand(noise.shape, generator=generator) < 0.3, -0.6, 0.5) + SPREAD * noise


DENOISERS: dict[str, Denoise] = {"gaussian": gaussian(0.2, 0.3), "mixture": mixture(MEANS, SPREAD, WEIGHTS)}


def there_and_back(
    denoise: Denoise, x0: Tensor, *, iterations: int, renoise: Denoise | None = None, grid: list[float] = GRID
) -> float:
    """PSNR in dB of the worst picture."""
    *_, (x, _) = invert(denoise, x0, grid, renoise=renoise, iterations=iterations)
    *_, found = decode(denoise, x, grid, renoise=renoise)
    return float(psnr(found, x0).min())


@pytest.mark.parametrize("name", sorted(DENOISERS))
def test_the_round_trip_is_exact_in_25_steps(name: str) -> None:
    explicit = there_and_back(DENOISERS[name], picture(name), iterations=0)
    solved = there_and_back(DENOISERS[name], picture(name), iterations=30)
    assert explicit < 35  # the reference's way, about 27 dB
    assert solved > 80


def test_the_noise_that_is_found_is_the_noise_of_the_law() -> None:
    """Not any x that decodes into the picture: on N(m, s^2) data the ODE makes x - m of (x0 - m), sigma / s times as wide."""
    grid = edm().grid(200)
    path = list(invert(DENOISERS["gaussian"], picture("gaussian"), grid))
    assert max(float(missed.max()) for _, missed in path) < 2e-5
    assert float(path[-1][0].std()) == pytest.approx(grid[0], rel=0.05)


def test_cfgpp_makes_guided_decoding_invertible() -> None:
    """Guided towards one mode: with the unconditional answer for the noise the picture comes back, at the same cost as any DDIM."""
    left, both = gaussian(-0.6, SPREAD), mixture(MEANS, SPREAD, WEIGHTS)
    x0 = -0.6 + SPREAD * torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    mixed = cfg(left, both, 0.4)  # CFG++'s lambda, within [0, 1]
    assert there_and_back(mixed, x0, iterations=60, renoise=both) > 60


def test_a_partial_inversion_decodes_from_where_it_stopped() -> None:
    x0, denoise = picture("mixture"), DENOISERS["mixture"]
    levels = list(reversed(GRID))[1:]
    stopped = next((x, at) for (x, _), at in zip(invert(denoise, x0, GRID), levels, strict=True) if at > 0.5)
    *_, found = decode(denoise, stopped[0], [s for s in GRID if s <= stopped[1]])
    assert float(psnr(found, x0).min()) > 80


def test_a_rows_inversion_does_not_feel_its_neighbours() -> None:
    x0 = picture("mixture").double()

    def found(rows: Tensor) -> Tensor:
        *_, (x, _) = invert(DENOISERS["mixture"], rows, GRID, iterations=4, tolerance=0.0)
        return x

    assert torch.allclose(found(x0)[1], found(x0[1:2])[0], rtol=1e-9)


def test_decode_is_ddim() -> None:
    x = 80 * torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    ours = list(decode(DENOISERS["mixture"], x, GRID))
    theirs = list(SAMPLERS["ddim"](DENOISERS["mixture"], x, GRID, randn_like=torch.randn_like))
    assert all(torch.allclose(a, b, atol=1e-5, rtol=1e-5) for a, b in zip(ours, theirs, strict=True))
