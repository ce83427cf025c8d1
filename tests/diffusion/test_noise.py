"""Noise belongs to a seed, not to a batch."""

from __future__ import annotations

import pytest
import torch

from mgdm_cli.diffusion.noise import Noise

CPU = torch.device("cpu")


def test_a_row_depends_on_its_seed_alone() -> None:
    shape = (1, 5, 7)
    together = Noise([3, 9, 27], shape, CPU)
    alone = Noise([9], shape, CPU)
    for _ in range(3):
        assert torch.equal(together.draw()[1], alone.draw()[0])


def test_a_wrong_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot serve"):
        Noise([1], (1, 4, 4), CPU).like(torch.zeros(2, 1, 4, 4))
