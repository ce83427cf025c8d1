"""Gates on drawn pictures: each rejects for its own reason, and only where it is on."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mgdm_cli.engine.gates import Gates
from mgdm_cli.nets.classifier import Classifier, ClassifierSettings


@pytest.mark.parametrize("blank", [True, False])
def test_pictures_that_show_nothing_new_pass_where_their_gate_is_off(blank: bool) -> None:
    judge = Classifier(ClassifierSettings(1, 2, 0.5, width=8, widths=(1,)))
    gates = Gates(judge, ("a", "b"), label=False, blank=blank, scorer=None, calibration=None)
    drawn = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0)) - 0.5
    earlier: list[Tensor] = []
    found = gates.check(torch.cat([torch.zeros_like(drawn), drawn.sign(), drawn, drawn]), 0, earlier)
    reasons = ["blank", "out-of-range", None, "twin"] if blank else [None] * 4
    assert [verdict.reason for verdict in found] == reasons
    assert len(earlier) == (1 if blank else 0), "of what passed, where twins are looked for"
