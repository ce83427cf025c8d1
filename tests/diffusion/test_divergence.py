"""f-distillation: every weight is f'' r^2, and what covers modes covers them on two modes with exact scores."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mgdm_cli.diffusion.divergence import DIVERGENCES, RATIO, ratio, target, weights_of

LEVELS = torch.logspace(math.log10(0.3), math.log10(2.2), 10).tolist()
SPREAD, FAR = 0.5, 8.0


@pytest.mark.parametrize("name", DIVERGENCES)
def test_h_is_the_second_derivative_times_the_square(name: str) -> None:
    r = torch.logspace(-2, 2, 41, dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(DIVERGENCES[name].f(r).sum(), r, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), r)
    assert torch.allclose(DIVERGENCES[name].h(r.detach()), second * r.detach().square(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", DIVERGENCES)
def test_f_measures_how_far_two_laws_are_apart(name: str) -> None:
    """f(p / q) has mean 0 under q where the laws agree (up to f's constant), and more anywhere else."""
    q = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    f = DIVERGENCES[name].f
    same = f(torch.ones(3, dtype=torch.float64)) @ q
    for p in ([0.4, 0.3, 0.3], [0.1, 0.1, 0.8]):
        assert f(torch.tensor(p, dtype=torch.float64) / q) @ q > same + 1e-4


def test_no_image_has_all_the_weight() -> None:
    assert ratio(torch.tensor([-100.0, 0.0, 100.0])).tolist() == pytest.approx([RATIO[0], 1.0, RATIO[1]])
    r = torch.tensor([0.5, 1.0, 3.0, 20.0])
    for name, divergence in DIVERGENCES.items():
        weight = weights_of(divergence.h, r, torch.ones(4))
        assert float(weight.mean()) == pytest.approx(1, rel=1e-5), name


def law(means: Tensor, weights: Tensor, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    """(E[x0 | x], log density of x) for x0 from normals of spread SPREAD about `means` (M, 2), noised by sigma; x (N, 2)."""
    total = SPREAD**2 + sigma**2
    logit = weights.log() - (x[:, None] - means).square().sum(-1) / (2 * total)
    x0 = (SPREAD**2 * x + sigma**2 * (logit.softmax(-1) @ means)) / total
    return x0, logit.logsumexp(-1) - math.log(2 * math.pi * total)


def far_mass(name: str, *, steps: int = 700, n: int = 100, rate: float = 0.15) -> float:
    """The share of a student's law (n normals, all at one of the two modes at first) that has come to the other one."""
    generator = torch.Generator().manual_seed(0)
    modes, half = torch.tensor([[-FAR / 2, 0.0], [FAR / 2, 0.0]]), torch.tensor([0.5, 0.5])
    student = modes[:1] + 0.1 * torch.randn(n, 2, generator=generator)
    mean = torch.ones(len(LEVELS))
    for _ in range(steps):
        level = int(torch.randint(len(LEVELS), (1,), generator=generator))
        x = student + SPREAD * torch.randn(n, 2, generator=generator)
        noised = x + LEVELS[level] * torch.randn(n, 2, generator=generator)
        real, of_teacher = law(modes, half, noised, LEVELS[level])
        fake, of_student = law(student, torch.full((n,), 1 / n), noised, LEVELS[level])
        r = (of_teacher - of_student).clamp(-10, 7).exp()  # exact, so that the guard may be wide
        mean[level] = 0.9 * mean[level] + 0.1 * r.mean()
        weight = weights_of(DIVERGENCES[name].h, r, mean[level])
        x, real, fake = (part[:, :, None, None] for part in (x, real, fake))
        student = student + rate * (target(x, real, fake, weight) - x)[:, :, 0, 0]
    return float((student[:, 0] > 0).float().mean())


def test_forward_kl_finds_the_far_mode_before_js_and_js_before_reverse_kl() -> None:
    """Exact scores on both sides, the same steps and random numbers; only h differs (Xu et al. 2025, figure 8)."""
    rkl, js, fkl = (far_mass(name) for name in ("rkl", "js", "fkl"))
    assert rkl < 0.1 < js < fkl
    assert fkl > 0.35


def test_the_target_is_the_student_where_the_scores_agree() -> None:
    x, x0 = torch.randn(4, 1, 2, 2), torch.randn(4, 1, 2, 2)
    assert torch.equal(target(x, x0, x0, torch.ones(4)), x)
    moved = target(x, x0 + 1, x0, torch.ones(4))
    assert bool((moved > x).all()), "towards what the teacher holds for likely and the student's law does not"
