"""What the benchmarks tell of fine detail and of one run against another, on pictures whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.distances import Gauge, detail
from mgdm_cli.engine.judging import Judges, features_of
from mgdm_cli.nets.classifier import Classifier, ClassifierSettings


def noise(n: int, seed: int) -> Tensor:
    return 0.3 * torch.randn(n, 1, 32, 32, generator=torch.Generator().manual_seed(seed))


def bright(n: int, seed: int, by: float) -> Tensor:
    return noise(n, seed) + by


@pytest.fixture(scope="module")
def gauge() -> Gauge:
    torch.manual_seed(0)
    net = Classifier(ClassifierSettings(1, 2, 0.5, width=8, widths=(1, 2))).eval()
    real = features_of(net, noise(80, 0))
    judges = Judges((net, net), ((), ()), ("", ""), 0)
    return Gauge(judges, real, np.zeros(80, dtype=np.int64), tuple(str(index // 2) for index in range(80)))


def test_detail_of_like_pictures_is_one_of_blurred_ones_less_and_of_noisy_ones_more() -> None:
    real = noise(40, 0)
    like, soft, rough = (
        detail(x, real) for x in (noise(40, 1), F.avg_pool2d(real, 3, 1, 1), real + 0.3 * noise(40, 2))
    )
    assert like["lo"] < 1 < like["hi"]
    assert soft["hi"] < 0.3
    assert rough["lo"] > 1
    assert rough["value"] == pytest.approx(1.09, abs=0.02)  # 0.3^2 of the power more


def test_detail_does_not_count_brightness_nor_the_edges_of_a_picture() -> None:
    real = noise(40, 0)
    assert detail(real + 0.4, real)["value"] == pytest.approx(1.0, abs=1e-3)
    slope = torch.linspace(-3, 3, 32)  # as a period it has a jump at its end
    assert detail(real + slope, real)["value"] == pytest.approx(1.0, abs=0.05)


def test_a_run_that_lies_farther_off_is_told_from_one_that_does_not(gauge: Gauge) -> None:
    away = gauge.farther(bright(60, 1, 0.3), noise(60, 2))
    alike = gauge.farther(noise(60, 3), noise(60, 2))
    assert 0 < away["lo"] < away["value"] < away["hi"]
    assert alike["lo"] <= 0 <= alike["hi"]
    back = gauge.farther(noise(60, 2), bright(60, 1, 0.3))
    assert back["value"] == -away["value"]
