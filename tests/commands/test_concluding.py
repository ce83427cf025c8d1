"""What is said follows from what was measured, and never says more."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from mgdm_cli.commands.concluding import copies_told, copy_verdict, in_order, label_verdict, leak_verdicts, leaks_told
from mgdm_cli.commands.weighed import verdicts_of
from mgdm_cli.commands.weighing import Row, Weighed
from mgdm_cli.engine.utility import CellSettings
from mgdm_cli.metrics.audit import MUST_FIND, Agreement, Copies
from mgdm_cli.metrics.copies import Calibration, Scores, Threshold
from mgdm_cli.metrics.labels import clopper_pearson, most_by_chance, wilson
from mgdm_cli.metrics.leaks import Authenticity, Leaks, Membership, NeighbourTest
from mgdm_cli.metrics.planting import Planted
from mgdm_cli.metrics.utility import MEASURES, ByNet, Gain
from mgdm_cli.report.content import Verdict

CALM = NeighbourTest(0.5, 0.5, 20, 0.6, (100, 100), 0.02)
LOUD = NeighbourTest(0.7, 1.0, 20, 0.001, (100, 100), 0.02)
FAIR = Membership(0.51, 0.46, 0.56, 0.01, 0.0, 0.03, (300, 120), 0.5, 0.42)
KNOWN = Membership(0.9, 0.85, 0.95, 0.4, 0.3, 0.5, (300, 120), 0.5, 0.42)


HITS = Membership(0.52, 0.48, 0.56, 0.2, 0.1, 0.3, (300, 120), 0.5, 0.42, tpr_by_chance=0.06)
VOID = Membership(0.9, 0.85, 0.95, 0.4, 0.3, 0.5, (300, 120), 0.8, 0.7)
BLUNT = NeighbourTest(0.5, 0.5, 20, 0.6, (20, 20), None)


def said(leaks: Leaks) -> list[tuple[str, str]]:
    return [(v.tone, v.line) for v in leak_verdicts(leaks)]


def test_nothing_found_is_no_evidence_and_only_with_power() -> None:
    assert said(Leaks(CALM, FAIR)) == [("good", "No evidence that training images are known.")]
    assert said(Leaks(BLUNT)) == [("plain", "Too few images to say whether training images are known.")]
    assert said(Leaks(BLUNT, FAIR))[0][0] == "good"
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


def test_what_is_known_a_little_is_no_good_news() -> None:
    """An area whose interval lies above one half is some knowledge, if too little to fail."""
    little = replace(FAIR, auc=0.56, lo=0.52, hi=0.60)
    (found,) = leak_verdicts(Leaks(CALM, little))
    assert (found.tone, Leaks(CALM, little).failed) == ("caution", False)
    assert "a little" in found.line
    assert leak_verdicts(Leaks(CALM, replace(little, lo=0.49)))[0].tone == "good"


def test_hits_at_few_false_alarms_are_told_where_they_are_what_fails() -> None:
    assert HITS.failed
    assert not replace(HITS, tpr_by_chance=0.25).failed
    (found,) = leak_verdicts(Leaks(CALM, HITS))
    assert "20.0\u202f% of training images do" in found.detail


def test_membership_is_void_where_the_sets_differ_by_themselves() -> None:
    assert not Leaks(CALM, VOID).failed
    assert ("caution", "Membership cannot be judged: training images and holdout differ.") in said(Leaks(CALM, VOID))
    fair = replace(VOID, auc=0.5, lo=0.45, hi=0.55)  # an area that would calm, if it meant anything
    assert "plain" in [tone for tone, _ in said(Leaks(BLUNT, fair))]


@pytest.mark.parametrize(
    ("leaks", "told"),
    [
        (Leaks(CALM), True),
        (Leaks(BLUNT), False),
        (Leaks(BLUNT, FAIR), True),
        (Leaks(BLUNT, VOID), False),
        (Leaks(unaudited="nothing is held out"), False),
        (Leaks(LOUD), True),
    ],
)
def test_leaks_are_decided_where_a_look_could_notice_them(leaks: Leaks, told: bool) -> None:
    assert leaks_told(leaks) is told


def test_copies_are_decided_where_planted_ones_are_found() -> None:
    found = looked_at(100)
    assert copies_told(found, "")
    assert not copies_told(found, "no images are held out from training")
    blind = replace(found, planted=tuple(replace(p, found=0) for p in found.planted))
    assert not copies_told(blind, "")
    assert copies_told(replace(blind, flagged=np.ones(100, bool)), "")  # what is found is found


def test_few_authentic_images_are_a_caution() -> None:
    low = Authenticity(0.4, 0.8, 0.7, 0.9, (300, 120))
    assert [tone for tone, _ in said(Leaks(CALM, FAIR, low))] == ["caution", "good"]


def weighed(*gains: Gain) -> Weighed:
    measures = dict.fromkeys(MEASURES, 0.5)
    rows = tuple(Row(name, name == "made", {"a": 5}, measures) for name in ("real", "dup", "made"))
    return Weighed(rows, gains, ("x", "y"), gains[0].seeds, CellSettings(9), {"a": 9}, {"a": 9}, 1, 1, ())


def gain(against: str, lo: float, hi: float, seeds: int = 3, nets: int = 2) -> Gain:
    each = tuple(ByNet(str(i), lo, lo, hi) for i in range(nets))
    return Gain("made", against, (lo + hi) / 2, lo, hi, lo, hi, each, seeds, 3, 1, 0.6)


@pytest.mark.parametrize(
    ("gains", "tone", "begins"),
    [
        ((gain("real", 0.01, 0.05), gain("dup", 0.01, 0.02)), "good", "Helps"),
        ((gain("real", 0.01, 0.05), gain("dup", -0.01, 0.02)), "plain", "Helps"),  # the control may do as well
        ((gain("real", -0.01, 0.05), gain("dup", 0.01, 0.02)), "plain", "No evidence"),
        ((gain("real", -0.05, -0.01), gain("dup", -0.01, 0.02)), "bad", "Hurts"),
        ((gain("real", 0.01, 0.05, seeds=1),), "plain", "No evidence"),
        ((gain("real", 0.01, 0.05, nets=1),), "plain", "No evidence"),
    ],
)
def test_the_verdict_of_an_arm_counts_the_controls(gains: tuple[Gain, ...], tone: str, begins: str) -> None:
    found = verdicts_of(weighed(*gains))
    assert len(found) == 1
    assert found[0].tone == tone
    assert found[0].line.startswith(begins)
    if begins == "Helps":
        assert ("may do as well" in found[0].detail) is (tone == "plain")


def test_images_of_a_generator_that_may_have_met_the_test_are_no_good_news() -> None:
    found = weighed(gain("real", 0.01, 0.05), gain("dup", 0.01, 0.02))
    (said,) = verdicts_of(replace(found, strange=("made",)))
    assert said.tone == "plain"
    assert "may have met the test images" in said.detail
    assert verdicts_of(replace(found, strange=("other",)))[0].tone == "good"


def test_one_net_or_one_seed_is_told_as_such() -> None:
    one = verdicts_of(weighed(gain("real", 0.01, 0.05, seeds=1, nets=1)))[0].detail
    assert "by 1 net and 1 seed, on 9 test images" in one
    assert "single seed" in one
    assert "single net" in one


def test_without_a_plan_nothing_found_is_said_with_its_condition() -> None:
    (found,) = leak_verdicts(Leaks(CALM, assumed="Not known."))
    assert found.tone == "plain"
    assert "if the generator learnt from none of the held-out ones" in found.line


def looked_at(n: int, *, flagged: int = 0, parts: int = 0) -> Copies:
    """The copy scores of `n` synthetic images of which some count as copies, of the whole or of a part."""
    calibration = Calibration(np.ones(200), Threshold(0.5, 0.01, 200), "holdout", 0)

    def look(hits: int, kinds: tuple[str, ...]) -> Copies:
        flags = np.arange(n) < hits
        scores = Scores(np.where(flags, 0.1, 0.9), np.zeros(n, np.int64), np.ones(n))
        planted = tuple(Planted(kind, 20, 20) for kind in kinds)
        chance = most_by_chance(n, 0.01, 0.995)
        return Copies(scores, calibration, flags, clopper_pearson(hits, n), chance, planted)

    return replace(look(flagged, MUST_FIND), parts=look(parts, ("half",)))


def agreed(n: int, real: float = 0.95) -> tuple[Agreement, Agreement]:
    """All classes and one class: 95 % of `n` labels hold."""
    right = round(0.95 * n)
    row = Agreement("all classes", right / n, *wilson(right, n), n, real, 0.2, 0.2, 1000.0, real)
    return row, replace(row, name="a")


@pytest.mark.parametrize(
    ("n", "copying", "labels"),
    [(10, "plain", "plain"), (30, "plain", "plain"), (100, "good", "good"), (1000, "good", "good")],
)
def test_few_images_are_no_evidence(n: int, copying: str, labels: str) -> None:
    found = copy_verdict(looked_at(n))
    assert found.tone == copying
    assert ("too few" in found.line) is (copying == "plain")
    assert f"0 of {n}" in found.figure
    assert [v.tone for v in label_verdict(agreed(n), 2)] == [labels]


def test_a_training_image_once_more_is_a_problem_and_one_like_it_no_good_news() -> None:
    found = looked_at(200)
    lowest = np.where(np.arange(200) < 1, 0.001, found.scores.score)
    again = copy_verdict(replace(found, scores=replace(found.scores, score=lowest)))
    assert (again.tone, again.figure) == ("bad", "1 of 200")
    like = replace(found, scores=replace(found.scores, score=np.maximum(lowest, 0.1)))
    assert copy_verdict(like).tone == "caution"
    assert not copies_told(like, "")


def test_judges_that_know_one_class_alone_judge_nothing() -> None:
    """They see the made class in all images, for they see it everywhere."""
    row, own = agreed(100, real=1.0)
    assert label_verdict((replace(row, skill=0.5), own), 2)[0].tone == "caution"


def test_copies_of_parts_are_a_problem_too() -> None:
    whole, part = copy_verdict(looked_at(100, flagged=30)), copy_verdict(looked_at(100, parts=30))
    assert whole.tone == part.tone == "bad"
    assert "near copies of training images" in whole.line
    assert "repeat a part" in part.line


def test_nothing_held_out_is_not_auditable() -> None:
    found = copy_verdict(looked_at(100), "no images are held out from training")
    assert (found.tone, found.line) == ("caution", "Not auditable.")
    assert found.detail.startswith("No images are held out")


def test_judges_near_chance_judge_nothing() -> None:
    (said,) = label_verdict(agreed(100, real=0.55), 2)
    assert said.tone == "caution"
    assert "cannot be judged" in said.line


def test_problems_come_first() -> None:
    said = in_order([Verdict("good", "a"), Verdict("caution", "b"), Verdict("bad", "c"), Verdict("bad", "d")])
    assert "".join(v.line for v in said) == "cdab"


def test_no_verdict_promises_too_much() -> None:
    every = [
        *leak_verdicts(Leaks(CALM, FAIR)),
        *leak_verdicts(Leaks(LOUD, KNOWN)),
        *verdicts_of(weighed(gain("real", 1, 2))),
        *(copy_verdict(looked_at(n)) for n in (10, 100)),
        copy_verdict(looked_at(100, flagged=30)),
        *label_verdict(agreed(100), 2),
    ]
    for v in every:
        assert not re.search(r"\bprivate\b|anonym|GDPR|proves?\b", f"{v.line} {v.detail}", re.IGNORECASE)
