"""Consistency: hops, the teacher's path, and a student that is right has no loss."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mgdm_cli.diffusion.consistency import along, consistency_loss, hop, hops_at, pseudo_huber
from mgdm_cli.diffusion.process import PROCESSES, edm

SPREAD = 0.5


def teacher(x: Tensor, sigma: Tensor) -> Tensor:
    """E[x0 | x] for x0 from N(0, SPREAD^2)."""
    s = sigma[:, None, None, None]
    return SPREAD**2 * x / (SPREAD**2 + s**2)


def end(x: Tensor, sigma: Tensor) -> Tensor:
    """Where the teacher's path from x ends: on N(0, SPREAD^2 + sigma^2) the ODE keeps the quantile."""
    return SPREAD * x / (SPREAD**2 + sigma[:, None, None, None] ** 2).sqrt()


def test_hops_double_as_training_goes_on() -> None:
    assert [hops_at(share, 8, 32) for share in (0.0, 0.3, 0.34, 0.5, 0.7, 0.99, 1.0)] == [8, 8, 16, 16, 32, 32, 32]
    assert hops_at(0.5, 10, 10) == 10


@pytest.mark.parametrize("name", PROCESSES)
def test_a_hop_goes_down_a_share_of_the_clock(name: str) -> None:
    clock = PROCESSES[name]().clock
    sigma, to = hop(clock, torch.tensor([1.0, 0.5, 0.05]), 10)
    assert bool((sigma > to).all())
    assert float(sigma[0]) == pytest.approx(80, rel=1e-3)
    assert float(to[1]) == pytest.approx(float(clock(torch.tensor(0.4, dtype=torch.float64))), rel=1e-5)
    assert float(to[2]) == 0, "below the last level there is the picture"


def test_the_path_is_followed_to_second_order() -> None:
    clock = edm().clock
    x, errors = torch.randn(64, 1, 1, 1, generator=torch.Generator().manual_seed(0)), []
    for hops in (8, 16, 32):
        at = torch.full((64,), 0.6)
        sigma, to = hop(clock, at, hops)
        there = along(teacher, x * sigma[:, None, None, None], sigma, to)
        exact = end(x * sigma[:, None, None, None], sigma) / SPREAD * (SPREAD**2 + to[:, None, None, None] ** 2).sqrt()
        errors.append(float((there - exact).abs().mean()))
    assert errors[0] / errors[1] > 5, "a step of Heun: third order each, so second order in all"
    assert errors[1] / errors[2] > 5


def test_rows_that_end_at_0_take_the_answer_itself() -> None:
    x, sigma = torch.randn(3, 1, 2, 2), torch.tensor([0.3, 0.2, 0.1])
    assert torch.allclose(along(teacher, x, sigma, torch.zeros(3)), teacher(x, sigma), atol=1e-6)


def test_the_right_student_has_hardly_any_loss_and_the_teacher_itself_has() -> None:
    clock = edm().clock
    at = torch.linspace(0.1, 1, 256)
    sigma, to = hop(clock, at, 32)
    level = sigma[:, None, None, None]
    x = SPREAD * torch.randn(256, 1, 4, 4) + level * torch.randn(256, 1, 4, 4)
    right = float(consistency_loss(end, teacher, x, sigma, to).mean())
    wrong = float(consistency_loss(teacher, teacher, x, sigma, to).mean())
    assert right < 0.1 * wrong


def test_the_target_gets_no_gradient() -> None:
    gain = torch.ones((), requires_grad=True)
    met: list[bool] = []

    def student(x: Tensor, sigma: Tensor) -> Tensor:
        met.append(torch.is_grad_enabled())
        return gain * end(x, sigma)

    sigma, to = torch.tensor([1.0]), torch.tensor([0.5])
    consistency_loss(student, teacher, torch.randn(1, 1, 2, 2), sigma, to).sum().backward()  # type: ignore[no-untyped-call]
    assert met == [False, True]
    assert gain.grad is not None


def test_each_image_pulls_alike_whatever_its_distance() -> None:
    away = torch.randn(2, 1, 8, 8) * torch.tensor([1.0, 10.0])[:, None, None, None]
    away.requires_grad_(True)
    pseudo_huber(away).sum().backward()  # type: ignore[no-untyped-call]
    assert away.grad is not None
    size = away.grad.square().flatten(1).sum(1).sqrt()
    assert torch.allclose(size, torch.ones(2), atol=1e-3)
    assert pseudo_huber(torch.zeros(1, 1, 2, 2)).item() == 0
