"""How images are drawn where a part of it is not said."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from mgdm_cli.commands.wanted import BETWEEN, KNOBS, SAMPLER, Wanted
from mgdm_cli.data.plan import SCALE_BETWEEN, Filters, Recipe
from mgdm_cli.diffusion.process import edm
from mgdm_cli.engine.planning import Drawing, drawing_of, recipe_of
from mgdm_cli.engine.student import StudentSettings, grid_of
from mgdm_cli.errors import UsageError

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


def recipe(student: StudentSettings | None = None, **said: Any) -> Recipe:
    """The recipe in these words, of a teacher or of this student."""
    settings: Any = SimpleNamespace(
        process="edm", process_settings={}, sigma_data=0.5, student=student, train=SimpleNamespace(drop_label=0.1)
    )
    words = {
        "guidance": "uncertainty", "strength": 0.03, "mode": "guide", "candidates": 1, "sampler": "ddim", "steps": 13,
        "scale": 1.0, "between": BETWEEN, "scale_between": SCALE_BETWEEN, "knobs": {}, "temperature": None,
        "filters": Filters(copy_alpha=0.01),
    }  # fmt: skip
    return recipe_of(settings, **{**words, **said})


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"steps": 2}, "--guidance uncertainty: .* with --steps 2 none"),
        ({"steps": 1, "guidance": "class"}, "--guidance class"),
        ({"depth": 0.05}, "with --steps 13 and --depth 0.05 none"),
        ({"depth": 0.7, "steps": 1}, "with --steps 1 and --depth 0.7 none"),
        ({"steps": 2, "guidance": "cfg", "scale": 2.5}, "--scale 2.5: .* with --steps 2 none"),
        ({"steps": 1, "guidance": "auto", "scale": 2.5}, "--scale 2.5"),
        ({"steps": 2, "mode": "select", "scale": 2.5}, "--scale 2.5"),
    ],
)
def test_guidance_that_would_act_at_no_step_is_refused(said: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        recipe(**said)


@pytest.mark.parametrize(
    ("sampler", "knob", "bad", "good"),
    [
        ("unipc", "order", (0.0, 2.5, 4.0, 1000.0), (1.0, 3.0)),
        ("ddim", "eta", (1.01, 500.0, -0.1), (0.0, 1.0)),
        ("langevin", "inner", (0.0, 0.5, 2.5, 1e9), (1.0, 8.0)),
        ("langevin", "step", (0.0, 4.1), (0.4,)),
        ("pc", "correct", (0.5, 1001.0), (0.0, 2.0)),
        ("pc", "snr", (1.5,), (0.16,)),
        ("dpmpp_2m_sde", "eta", (-1.0,), (0.0, 1.5)),
    ],
)
def test_a_knob_that_gives_no_pictures_is_refused(
    sampler: str, knob: str, bad: tuple[float, ...], good: tuple[float, ...]
) -> None:
    for value in bad:
        with pytest.raises(UsageError, match=f"--knob {knob}=.*: {sampler} cannot take it"):
            recipe(sampler=sampler, knobs={knob: value})
    for value in good:
        assert recipe(sampler=sampler, knobs={knob: value}).knobs == {knob: value}


@pytest.mark.parametrize(
    "said",
    [
        {"steps": 3, "scale": 2.5},
        {"steps": 2, "strength": 0.0},
        {"steps": 2, "mode": "select"},
        {"steps": 2, "guidance": "cfg"},
        {"steps": 1, "guidance": "none", "scale": 2.5},
        {"depth": 0.7},
        {"depth": 0.3, "steps": 6, "scale": 0.6},
    ],
)
def test_what_acts_or_is_off_is_allowed_at_few_steps(said: dict[str, Any]) -> None:
    assert recipe(**said).between in (BETWEEN, None)


@pytest.mark.parametrize("method", ["consistency", "ddgan"])
@pytest.mark.parametrize("steps", [1, 2, 4])
def test_the_pull_reaches_the_last_step_of_every_student(method: str, steps: int) -> None:
    """A student of one step is not pulled on its way: its noise is moved."""
    student = StudentSettings(method, grid_of(method, steps, edm()), "", 1.5, SCALE_BETWEEN, 1)
    made = recipe(student, sampler="ddpm", steps=steps)
    assert made.between is not None
    assert made.between[0] == BETWEEN[0]
    wide = steps > 1 and student.grid[-2] > BETWEEN[1]
    assert made.between[1] == (student.grid[-2] if wide else BETWEEN[1])
    assert wide == (method == "ddgan" and steps == 2)
