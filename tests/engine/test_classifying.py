"""Classifiers learn textures from a few images, are calibrated on the holdout, and their exposure jitter is off at 0."""

from __future__ import annotations

from copy import deepcopy
from functools import lru_cache

import pytest
import torch

from mgdm_cli.engine.classifying import (
    NEARLY_CLEAN,
    NOISE_AWARE,
    ClassifySettings,
    calibrate,
    exposed,
    logits_of,
    sigmas,
    skill,
    train_classifier,
)
from mgdm_cli.engine.training import Pictures
from mgdm_cli.engine.warp import WarpSettings
from mgdm_cli.nets.classifier import Classifier, ClassifierSettings


def textures(n: int, seed: int) -> Pictures:
    """Two classes of noise of one mean: weak and strong. Their only difference is how strong the texture is."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.arange(n) % 2
    strength = torch.tensor([0.1, 0.3])[label][:, None, None, None]
    return Pictures((strength * torch.randn(n, 1, 16, 16, generator=generator)).clamp(-1, 1), label)


@lru_cache
def trained(between: tuple[float, float]) -> Classifier:
    torch.manual_seed(0)
    net = Classifier(ClassifierSettings(1, 2, 0.2, width=8, widths=(1, 2)))
    for _ in train_classifier(net, textures(64, 0), ClassifySettings(1600, between), warp=WarpSettings()):
        pass
    return net


def learnt(between: tuple[float, float]) -> Classifier:
    """A net that was trained on textures between two noise levels; a test's own, for its calibration changes it."""
    return deepcopy(trained(between))


@pytest.mark.parametrize("between", [NEARLY_CLEAN, NOISE_AWARE])
def test_how_strong_a_texture_is_can_be_learnt(between: tuple[float, float]) -> None:
    net = learnt(between)
    unseen = textures(64, 1)
    assert 0.19 < calibrate(net, unseen) < 20.1
    able = skill(net, unseen)
    assert able.accuracy > 0.95
    assert able.lo > able.chance


def test_a_holdout_without_a_mistake_does_not_ask_for_certainty() -> None:
    net = learnt(NEARLY_CLEAN)
    unseen = textures(64, 1)
    temperature = calibrate(net, unseen)
    assert skill(net, unseen).accuracy == 1.0
    assert temperature > 0.3
    sure = logits_of(net, unseen.x0).softmax(-1).amax(-1).mean()
    assert 0.9 < float(sure) < 0.999


def test_a_few_pictures_seen_rightly_make_no_certainty() -> None:
    net = learnt(NEARLY_CLEAN)
    few, many = skill(net, textures(8, 1)), skill(net, textures(200, 1))
    assert few.accuracy == few.hi == 1.0
    assert 0.5 < few.lo < 0.8
    assert many.lo > 0.95


def test_skill_is_of_the_classes_that_are_there() -> None:
    """One class alone tells nothing: whatever always says it would be right."""
    net = Classifier(ClassifierSettings(1, 2, 0.2, width=8, widths=(1, 2)))
    unseen = textures(8, 1)
    one = skill(net, Pictures(unseen.x0[::2], unseen.label[::2]))
    assert one.lo <= one.chance
    none = skill(net, Pictures(unseen.x0[:0], unseen.label[:0]))
    assert none.lo <= none.chance


def test_no_exposure_is_the_picture_itself_and_more_is_brighter() -> None:
    x0 = textures(4, 0).x0
    none = torch.zeros(3, 4, 1, 1, 1)
    assert torch.allclose(exposed(x0, none), x0, atol=1e-6)
    bright = none.clone()
    bright[2] = 1.0
    assert torch.allclose(exposed(x0, bright), x0 + 0.2, atol=1e-6)


def test_half_of_the_noise_levels_are_the_lowest() -> None:
    drawn = sigmas(4000, (0.01, 3.0), torch.Generator().manual_seed(0))
    assert 0.45 < float((drawn == 0.01).float().mean()) < 0.55
    assert float(drawn.max()) <= 3.0
