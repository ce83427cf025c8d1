"""The EDM process, and the claim that one coordinate holds them all."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from mgdm_cli.diffusion.exact import gaussian
from mgdm_cli.diffusion.model import Model
from mgdm_cli.diffusion.process import PROCESSES, edm
from mgdm_cli.diffusion.types import Cond


def test_edm_coefficients_are_those_of_the_paper() -> None:
    """Karras et al. 2022, table 1, at sigma_data 0.5 and sigma 0.5: skip 1/2, out sqrt(2)/4, in sqrt(2), noise ln(1/2)/4."""
    coefs = edm(sigma_data=0.5).coefs(torch.tensor([0.5], dtype=torch.float64))
    wanted = (0.5, 2**0.5 / 4, 2**0.5, -0.17328679513998632)
    assert [float(c) for c in coefs] == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("name", sorted(PROCESSES))
def test_a_grid_falls_from_the_largest_sigma_to_zero(name: str) -> None:
    process = PROCESSES[name]()
    for steps in (1, 2, 7, 40):
        grid = process.grid(steps)
        assert len(grid) == steps + 1
        assert grid[-1] == 0.0
        assert all(a > b for a, b in pairwise(grid))
    with pytest.raises(ValueError, match="at least one step"):
        process.grid(0)


def test_an_exact_net_gives_the_exact_x0_through_the_preconditioning() -> None:
    """A net that answers (x0 - skip x) / out makes the model give x0 itself, whatever the process."""
    process, truth = edm(sigma_data=0.4), gaussian(0.2, 0.3)

    class Exact(torch.nn.Module):
        def forward(self, x: torch.Tensor, noise: torch.Tensor, label: object, warp: object) -> torch.Tensor:
            sigma = float((4 * noise[0]).exp())
            skip, out, in_, _ = process.coefs(torch.tensor(sigma, dtype=torch.float64))
            noisy = x.double() / in_
            return (truth(noisy, sigma) - skip * noisy) / out

    model = Model(Exact(), process)
    x = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    for sigma in (0.05, 1.0, 20.0):
        found = model.bind(Cond())(x, sigma)
        assert torch.allclose(found.double(), truth(x.double(), sigma), atol=1e-5)


def test_training_sigmas_are_log_normal() -> None:
    drawn = edm(mean=-1.0, spread=1.0, lo=1e-6, hi=1e6).draw(20_000, torch.Generator().manual_seed(0)).log()
    assert float(drawn.mean()) == pytest.approx(-1.0, abs=0.03)
    assert float(drawn.std()) == pytest.approx(1.0, abs=0.03)
