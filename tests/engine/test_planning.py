"""How images are drawn where a part of it is not said."""

from __future__ import annotations

import pytest

from mgdm_cli.commands.wanted import KNOBS, SAMPLER, Wanted
from mgdm_cli.engine.planning import Drawing, drawing_of

USUAL = Drawing("dpmpp_2m_sde", 12, 2.5, {"lo": 1.0})


@pytest.mark.parametrize(
    ("sampler", "said", "knobs"),
    [
        (None, {}, {"lo": 1.0}),
        (None, {"eta": 0.5}, {"lo": 1.0, "eta": 0.5}),
        (None, {"lo": 0.2}, {"lo": 0.2}),
        ("dpmpp_2m_sde", {}, {}),  # named, it is the paper's
        ("unipc", {"order": 2.0}, {"order": 2.0}),
    ],
)
def test_the_usual_knobs_go_with_the_usual_sampler_alone(
    sampler: str | None, said: dict[str, float], knobs: dict[str, float]
) -> None:
    drawn = drawing_of(None, sampler, None, None, said, usual=USUAL)
    assert drawn == Drawing(sampler or USUAL.sampler, 12, 2.5, knobs)


def test_augment_draws_noise_at_the_high_levels_alone() -> None:
    assert (Wanted().usual.sampler, Wanted().usual.knobs) == (SAMPLER, KNOBS) == ("dpmpp_2m_sde", {"lo": 1.0})
