"""What the utility table of `evaluate` says: a document for machines, a part of the page, verdicts in words."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from mgdm_cli.commands.arming import WHAT as WHAT_IS_MADE
from mgdm_cli.commands.weighing import OWN

if TYPE_CHECKING:
    from mgdm_cli.commands.weighing import Weighed
    from mgdm_cli.report.content import Tone, Utility, Verdict

WHAT = {
    "real": "real images alone",
    "dup": "real images and as many duplicates of them",
    "classical": "real images and as many turned, moved and re-toned ones",
    **WHAT_IS_MADE,
}
FEW = 30  # test images of a class below which the page says what that means


def document_of(weighed: Weighed) -> dict[str, Any]:
    """Everything as plain values."""
    return {
        "arms": {row.name: {"images": row.images, "folder": row.made, **row.measures} for row in weighed.rows},
        "gains": [{**asdict(g), "verdict": g.verdict} for g in weighed.gains],
        "nets": list(weighed.nets),
        "seeds": weighed.seeds,
        "settings": asdict(weighed.settings),
        "test": weighed.test,
        "real": weighed.real,
        "cells": {"done": weighed.done, "of": weighed.cells},
        "classes_are_grades": weighed.ordered,
        "notes": list(weighed.notes),
        "may_have_met_the_test": list(weighed.strange),
    }


def page_part(weighed: Weighed) -> Utility:
    """The part of the page."""
    from mgdm_cli.report import content
    from mgdm_cli.report.page import several

    arms = tuple(
        content.Arm(
            row.name, WHAT.get(row.name, "real images and those of a folder"), sum(row.images.values()), **row.measures
        )
        for row in weighed.rows
    )
    gains = tuple(
        content.Gain(
            g.arm, g.against, g.value, g.lo, g.hi, g.verdict, tuple((n.net, n.value, n.lo, n.hi) for n in g.nets),
            g.better, g.worse, g.p,
        )
        for g in weighed.gains
    )  # fmt: skip
    each = ", ".join(f"{n} of {name}" for name, n in weighed.test.items())
    how = weighed.settings
    note = f"{several(len(weighed.nets), 'net')}, {several(weighed.seeds, 'seed')}, {how.steps} steps of {how.batch} images "
    note += f"each; test images: {each}."
    few = [name for name, n in weighed.test.items() if n < FEW]
    if few:
        note += f" With so few test images of {', '.join(few)} only a large effect could be seen."
    if weighed.partial:
        note += f" Time ran out after {weighed.done} of {weighed.cells} trainings; the same command continues."
    return content.Utility(arms, gains, " ".join((note, *(f"{n[0].upper()}{n[1:]}." for n in weighed.notes))))


def verdicts_of(weighed: Weighed) -> list[Verdict]:
    """One line an arm from a folder: over real images alone, and whether it beats the controls too."""
    from mgdm_cli.report.content import Verdict
    from mgdm_cli.report.page import points, several

    if not weighed.rows:
        return [
            Verdict(
                "caution", "What the images are worth is not known yet.", "Time ran out; the same command continues."
            )
        ]
    tones: dict[str, Tone] = {"helps": "good", "no evidence": "plain", "hurts": "bad"}
    lines = {
        "helps": "Helps: with {} classifiers are better than with real images alone.",
        "no evidence": "No evidence that {} make classifiers better or worse.",
        "hurts": "Hurts: with {} classifiers are worse than with real images alone.",
    }
    out = []
    for g in weighed.over_real:
        said = f"{points(g.value)} points of balanced accuracy [{points(g.lo)}, {points(g.hi)}], by "
        said += f"{several(len(g.nets), 'net')} and {several(g.seeds, 'seed')}, on {sum(weighed.test.values())} test images."
        rest = [o for o in weighed.gains if o.arm == g.arm and o.against != "real"]
        said += "".join(f" Over {o.against}: {points(o.value)} [{points(o.lo)}, {points(o.hi)}]." for o in rest)
        if g.seeds < 2:
            said += " A single seed cannot tell an effect from chance in training: give --seeds 3."
        if len(g.nets) < 2:
            said += " A single net says nothing of others: give --nets quick."
        tone = tones[g.verdict]
        if g.verdict == "helps" and any(o.lo <= 0 for o in rest):
            tone, said = "plain", said + " Not shown to be better than the controls: they may do as well."
        if g.verdict == "helps" and g.arm in weighed.strange:
            tone, said = (
                "plain",
                said + " What its generator learnt from is not known: it may have met the test images.",
            )
        figure = f"{points(g.value)} points\n[{points(g.lo)}, {points(g.hi)}]"
        name = "the synthetic images" if g.arm == OWN else f"the images of {g.arm}"
        out.append(Verdict(tone, lines[g.verdict].format(name), said, figure=figure))
    return out
