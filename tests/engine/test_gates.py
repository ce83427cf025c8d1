"""Each gate refuses what it is for, with its reason, where it is on, and lets the rest pass."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from mgdm_cli.engine.gates import Gates, Verdict
from mgdm_cli.metrics.copies import CopyScorer, calibrate

CLASSES = ("dark", "bright")


@dataclass(frozen=True)
class Two:
    """What `logits_of` asks of a classifier's settings."""

    classes: int = 2


class Brightness(nn.Module):
    """A judge that needs no training: pictures brighter than the middle grey are of the second class."""

    settings = Two()

    def forward(self, x0: Tensor, sigma: Tensor) -> Tensor:
        mean = x0.flatten(1).mean(1)
        return torch.stack([-mean, mean], 1)


def pictures(n: int, *, seed: int = 0, mean: float = 0.2) -> Tensor:
    """(n, 1, 24, 24): soft spots of fine detail around a mean grey, all different."""
    rough = torch.randn(n, 1, 12, 12, generator=torch.Generator().manual_seed(seed))
    fine = nn.functional.interpolate(rough, size=(24, 24), mode="bilinear")
    return (0.2 * (fine - fine.mean((1, 2, 3), keepdim=True)) + mean).clamp(-0.9, 0.9)


def gates(*, label: bool = True, blank: bool = True, train: Tensor | None = None, held: Tensor | None = None) -> Gates:
    scorer = CopyScorer(train.numpy()) if train is not None else None
    holdout = held.numpy() if held is not None else None
    return Gates(
        Brightness(),  # type: ignore[arg-type]
        CLASSES,
        label=label,
        blank=blank,
        scorer=scorer,
        calibration=calibrate(scorer, holdout, alpha=0.1) if scorer is not None else None,
    )


def reasons(verdicts: list[Verdict]) -> list[str | None]:
    return [verdict.reason for verdict in verdicts]


def test_new_pictures_of_their_class_pass() -> None:
    found = gates().check(pictures(4), 1, [])
    assert reasons(found) == [None] * 4
    assert all(verdict.kept and not verdict.detail and verdict.copy_score is None for verdict in found)


@pytest.mark.parametrize(("contrast", "reason"), [(0.019, "blank"), (0.021, None)])
def test_a_picture_without_contrast_is_blank(contrast: float, reason: str | None) -> None:
    x0 = pictures(3)
    x0[1] = 0.2 + contrast * (x0[1] - x0[1].mean()) / x0[1].std()
    assert reasons(gates().check(x0, 1, [])) == [None, reason, None]


@pytest.mark.parametrize(("inside", "reason"), [(0.01, "out-of-range"), (0.03, None)])
def test_a_picture_at_the_ends_of_the_range_is_out_of_it(inside: float, reason: str | None) -> None:
    x0 = pictures(3)
    ends = torch.where(x0[1] > x0[1].quantile(0.3), 1.0, -1.0).flatten()
    ends[: round(inside * ends.numel())] = 0.5
    x0[1] = ends.view_as(x0[1])
    found = gates().check(x0, 1, [])
    assert reasons(found) == [None, reason, None]
    assert ("at the ends of the range" in found[1].detail) == (reason is not None)


def test_another_class_than_the_one_asked_for_is_a_lost_label() -> None:
    x0 = torch.cat([pictures(2, mean=0.2), pictures(2, seed=1, mean=-0.2)])
    found = gates().check(x0, 1, [])
    assert reasons(found) == [None, None, "label-lost", "label-lost"]
    assert found[2].detail == "the judge sees dark"
    assert reasons(gates().check(x0, 0, [])) == ["label-lost", "label-lost", None, None]
    off = gates(label=False).check(x0, 1, [])
    assert reasons(off) == [None] * 4, "with the gate off it is told, and no reason"
    assert [verdict.kept for verdict in off] == [True, True, False, False]


def test_what_had_lost_its_label_before_the_disturbance_has_lost_it() -> None:
    found = gates().check(pictures(3), 1, [], hopeless={1})
    assert reasons(found) == [None, "label-lost", None]
    assert [verdict.kept for verdict in found] == [True, False, True]


def test_the_same_picture_again_is_a_twin_in_its_block_and_in_its_lot() -> None:
    x0, earlier = pictures(3), list[Tensor]()
    x0[2] = 1.1 * x0[0] - 0.05  # another exposure of the first
    assert reasons(gates().check(x0, 1, earlier)) == [None, None, "twin"]
    assert len(earlier) == 2
    assert reasons(gates().check(torch.cat([x0[1:2], pictures(1, seed=2)]), 1, earlier)) == ["twin", None]
    assert len(earlier) == 3


def test_a_refused_picture_has_no_twins() -> None:
    """The second of two may be taken where the first was not."""
    x0 = pictures(2)
    x0[1] = x0[0]
    assert reasons(gates().check(x0, 1, [], hopeless={0})) == ["label-lost", None]


def test_a_copy_of_a_training_image_is_refused_with_its_score() -> None:
    train, x0 = pictures(12, seed=3), pictures(3)
    x0[1] = train[7]
    found = gates(train=train, held=pictures(12, seed=4)).check(x0, 1, [])
    assert reasons(found) == [None, "near-copy", None]
    scores = [verdict.copy_score for verdict in found]
    shares = [verdict.copy_percentile for verdict in found]
    assert scores[1] == pytest.approx(0, abs=1e-3)
    assert shares[1] == 0
    assert all(score is not None and score > 0.25 for score in (scores[0], scores[2]))


def test_where_too_few_calibrate_it_only_the_same_picture_is_a_copy() -> None:
    train, x0 = pictures(4, seed=3), pictures(3)
    x0[1] = train[2]
    found = gates(train=train).check(x0, 1, [])
    assert reasons(found) == [None, "near-copy", None]
    assert all(verdict.copy_score is not None for verdict in found)


@pytest.mark.parametrize("blank", [True, False])
def test_pictures_that_show_nothing_new_pass_where_their_gate_is_off(blank: bool) -> None:
    drawn = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0)) - 0.5
    earlier: list[Tensor] = []
    x0 = torch.cat([torch.zeros_like(drawn), drawn.sign(), drawn, drawn])
    found = gates(label=False, blank=blank).check(x0, 0, earlier)
    assert reasons(found) == (["blank", "out-of-range", None, "twin"] if blank else [None] * 4)
    assert len(earlier) == (1 if blank else 0), "of what passed, where twins are looked for"
