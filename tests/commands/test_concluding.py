"""What is said follows from what was measured, and never says more."""

from __future__ import annotations

import re

import pytest

from mgdm_cli.commands.concluding import leak_verdicts
from mgdm_cli.commands.weighed import verdicts_of
from mgdm_cli.commands.weighing import Row, Weighed
from mgdm_cli.engine.utility import CellSettings
from mgdm_cli.metrics.leaks import Authenticity, Leaks, Membership, NeighbourTest
from mgdm_cli.metrics.utility import MEASURES, Gain

CALM = NeighbourTest(0.5, 0.5, 20, 0.6, (100, 100), 0.02)
LOUD = NeighbourTest(0.7, 1.0, 20, 0.001, (100, 100), 0.02)
FAIR = Membership(0.51, 0.46, 0.56, 0.01, 0.0, 0.03, (300, 120), 0.5, 0.42)
KNOWN = Membership(0.9, 0.85, 0.95, 0.4, 0.3, 0.5, (300, 120), 0.5, 0.42)


def said(leaks: Leaks) -> list[tuple[str, str]]:
    return [(v.tone, v.line) for v in leak_verdicts(leaks)]


def test_nothing_found_is_no_evidence_and_only_with_power() -> None:
    assert said(Leaks(CALM, FAIR)) == [("good", "No evidence that training images are known.")]
    blunt = NeighbourTest(0.5, 0.5, 20, 0.6, (20, 20), None)
    assert said(Leaks(blunt)) == [("plain", "Too few images to say whether training images are known.")]
    assert said(Leaks(blunt, FAIR))[0][0] == "good"
    assert said(Leaks()) == []


@pytest.mark.parametrize(
    ("leaks", "line"),
    [
        (Leaks(LOUD, FAIR), "The synthetic images lie nearer to training images than to held-out ones."),
        (Leaks(CALM, KNOWN), "The model knows training images from held-out ones."),
    ],
)
def test_what_fails_is_a_problem_and_hides_no_evidence_elsewhere(leaks: Leaks, line: str) -> None:
    assert leaks.failed
    assert said(leaks) == [("bad", line)]


def test_membership_is_void_where_the_sets_differ_by_themselves() -> None:
    void = Membership(0.9, 0.85, 0.95, 0.4, 0.3, 0.5, (300, 120), 0.8, 0.7)
    assert not Leaks(CALM, void).failed
    assert ("caution", "Membership cannot be judged: training images and holdout differ.") in said(Leaks(CALM, void))


def test_few_authentic_images_are_a_caution() -> None:
    low = Authenticity(0.4, 0.8, 0.7, 0.9, (300, 120))
    assert [tone for tone, _ in said(Leaks(CALM, FAIR, low))] == ["caution", "good"]


def weighed(*gains: Gain) -> Weighed:
    measures = dict.fromkeys(MEASURES, 0.5)
    rows = tuple(Row(name, name == "made", {"a": 5}, measures) for name in ("real", "dup", "made"))
    return Weighed(rows, gains, ("x", "y"), gains[0].seeds, CellSettings(9), {"a": 9}, {"a": 9}, 1, 1, ())


def gain(against: str, lo: float, hi: float, seeds: int = 3) -> Gain:
    return Gain("made", against, (lo + hi) / 2, lo, hi, lo, hi, (), seeds, 3, 1, 0.6)


@pytest.mark.parametrize(
    ("gains", "tone", "begins"),
    [
        ((gain("real", 0.01, 0.05), gain("dup", 0.01, 0.02)), "good", "Helps"),
        ((gain("real", 0.01, 0.05), gain("dup", -0.01, 0.02)), "plain", "Helps"),  # the control may do as well
        ((gain("real", -0.01, 0.05), gain("dup", 0.01, 0.02)), "plain", "No evidence"),
        ((gain("real", -0.05, -0.01), gain("dup", -0.01, 0.02)), "bad", "Hurts"),
        ((gain("real", 0.01, 0.05, seeds=1),), "plain", "No evidence"),
    ],
)
def test_the_verdict_of_an_arm_counts_the_controls(gains: tuple[Gain, ...], tone: str, begins: str) -> None:
    found = verdicts_of(weighed(*gains))
    assert len(found) == 1
    assert found[0].tone == tone
    assert found[0].line.startswith(begins)
    if begins == "Helps":
        assert ("may do as well" in found[0].detail) is (tone == "plain")


def test_no_verdict_promises_too_much() -> None:
    every = [
        *leak_verdicts(Leaks(CALM, FAIR)),
        *leak_verdicts(Leaks(LOUD, KNOWN)),
        *verdicts_of(weighed(gain("real", 1, 2))),
    ]
    for v in every:
        assert not re.search(r"\bprivate\b|anonym|GDPR|proves?\b", f"{v.line} {v.detail}", re.IGNORECASE)
