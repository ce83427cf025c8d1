"""Distillation: every method learns, resumes bit for bit, and starts where it says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mgdm_cli.commands.distill import student_of
from mgdm_cli.commands.modelling import prepare
from mgdm_cli.commands.reading import Source
from mgdm_cli.diffusion.types import Cond
from mgdm_cli.engine import distilling, lessons
from mgdm_cli.engine.preparing import pictures
from mgdm_cli.engine.pretraining import log_tick, read_log, resume, save_checkpoint
from mgdm_cli.engine.run import RunSettings, load_parts, read_settings
from mgdm_cli.engine.scaling import Scale
from mgdm_cli.engine.student import METHODS, StudentSettings, grid_of
from mgdm_cli.engine.training import Pictures
from mgdm_cli.errors import UsageError
from tests.tiny import CPU, drain


@pytest.fixture(scope="module")
def taught(ground: tuple[Source, Path]) -> tuple[Path, Pictures]:
    """A teacher, and the pictures it was taught with."""
    prepared = prepare(ground[0], seed=0)
    return ground[1], pictures(prepared, prepared.splits.train, CPU)


def lesson(
    taught: tuple[Path, Pictures], method: str, **more: object
) -> tuple[lessons.State, lessons.Teacher, RunSettings]:
    """A student of the teacher, before its first step."""
    said: dict[str, object] = {
        "steps": None,
        "divergence": None,
        "guidance": Scale(2.5, (0.3, 5.0)),
        "scratch": False,
        "seed": 0,
    }
    said |= {name: value for name, value in more.items() if name in said}
    asked: StudentSettings = student_of(taught[0], read_settings(taught[0]), method, **said)  # type: ignore[arg-type]
    rest = {k: v for k, v in more.items() if k not in said}
    student = replace(asked, **{"seen": 48, "batch": 4, **rest})  # type: ignore[arg-type]
    settings = distilling.settings_of(read_settings(taught[0]), student, torch.device("cpu"))
    teacher = distilling.load_teacher(taught[0], student, CPU)
    return distilling.begin(settings, teacher, CPU), teacher, settings


@pytest.mark.parametrize("method", METHODS)
def test_a_resumed_distillation_equals_an_uninterrupted_one(
    taught: tuple[Path, Pictures], tmp_path: Path, method: str
) -> None:
    state, teacher, settings = lesson(taught, method)
    drain(distilling.lessons(state, teacher, taught[1], settings))
    cut, _, _ = lesson(taught, method)
    for _ in distilling.lessons(cut, teacher, taught[1], settings, tick_every=1):
        if cut.step == 5:
            break
    save_checkpoint(tmp_path, cut)
    again, _, _ = lesson(taught, method)
    assert list(resume(tmp_path, again)) == ["continuing at step 5"]
    drain(distilling.lessons(again, teacher, taught[1], settings))
    whole, found = state.tensors(), again.tensors()
    assert whole.keys() == found.keys()
    assert all(torch.equal(whole[name], found[name]) for name in whole)


@pytest.mark.parametrize("method", METHODS)
def test_a_student_begins_as_its_teacher_and_moves_away(taught: tuple[Path, Pictures], method: str) -> None:
    state, teacher, settings = lesson(taught, method)
    x, sigma, label = torch.randn(4, 3, 32, 32), torch.tensor([0.3, 1.0, 5.0, 70.0]), torch.tensor([0, 1, 2, 3])
    x = x * sigma[:, None, None, None]
    student = settings.student
    assert student is not None
    latent = torch.randn(4, student.latent) if student.latent else None
    with torch.no_grad():
        before = state.model(x, sigma, Cond(label, latent=latent))
        assert torch.allclose(before, teacher.model(x, sigma, Cond(label)), atol=1e-4)
    drain(distilling.lessons(state, teacher, taught[1], settings))
    with torch.no_grad():
        assert not torch.allclose(before, state.model(x, sigma, Cond(label, latent=latent)), atol=1e-4)
    assert all(bool(torch.isfinite(v).all()) for v in state.tensors().values())


def test_from_scratch_is_not_from_the_teacher(taught: tuple[Path, Pictures]) -> None:
    state, teacher, _ = lesson(taught, "ddgan", scratch=True)
    mine, theirs = state.model.net.state_dict(), teacher.model.net.state_dict()
    assert not torch.equal(mine["stem.weight"], theirs["stem.weight"])


def test_consistency_brings_the_ends_of_one_path_together(taught: tuple[Path, Pictures]) -> None:
    state, teacher, settings = lesson(taught, "consistency", seen=240)
    ticks = [tick.loss or 0.0 for tick in distilling.lessons(state, teacher, taught[1], settings, tick_every=15)]
    assert 0 < ticks[-1] < 0.7 * ticks[0]


def test_a_look_after_steps_of_opponents_alone_has_no_loss(taught: tuple[Path, Pictures], tmp_path: Path) -> None:
    state, teacher, settings = lesson(taught, "fdistill", seen=44)  # the eleventh step is not the student's
    ticks = list(distilling.lessons(state, teacher, taught[1], settings))
    assert [tick.loss is None for tick in ticks] == [False, True]
    for tick in ticks:
        log_tick(tmp_path, tick)
    assert [row["loss"] is None for row in read_log(tmp_path)] == [False, True]


def test_a_loss_of_the_student_that_is_not_finite_is_a_fault(taught: tuple[Path, Pictures]) -> None:
    state, teacher, settings = lesson(taught, "consistency")
    next(state.model.net.parameters()).data.fill_(torch.nan)
    with pytest.raises(FloatingPointError):
        drain(distilling.lessons(state, teacher, taught[1], settings))


def test_the_opponents_learn_between_the_students_steps(taught: tuple[Path, Pictures]) -> None:
    """One step in three is the student's; in the others its score and its critic learn, and it stays as it is."""
    state, teacher, settings = lesson(taught, "fdistill")
    ticks = distilling.lessons(state, teacher, taught[1], settings, tick_every=1)
    for turn in ("theirs", "theirs", "its"):
        before = {name: next(learner.net.parameters()).clone() for name, learner in state.learners.items()}
        loss = next(ticks).loss
        moved = {
            name: not torch.equal(before[name], next(learner.net.parameters()))
            for name, learner in state.learners.items()
        }
        assert moved == {"student": turn == "its", "fake": turn == "theirs", "critic": turn == "theirs"}
        assert (loss is not None) == (turn == "its"), "no step of the student, no loss of it"


def test_a_step_that_is_not_finite_is_left_out() -> None:
    net = torch.nn.Linear(1, 1)
    learner = lessons.Learner(net, torch.optim.AdamW(net.parameters()), 1e-3)
    before = net.weight.clone()
    learner.learn(net(torch.full((1, 1), torch.inf)).sum())
    assert torch.equal(net.weight, before)
    learner.learn(net(torch.ones(1, 1)).sum())
    assert not torch.equal(net.weight, before)


def test_the_guided_teacher_is_what_augment_draws_from(taught: tuple[Path, Pictures]) -> None:
    """Guidance in its interval, row by row, clipped as in decoding."""
    from mgdm_cli.data.plan import Recipe
    from mgdm_cli.engine.decoding import Count, _plain

    settings = read_settings(taught[0])
    parts, _ = load_parts(taught[0], settings, CPU)
    recipe = Recipe(process="edm", sampler="ddpm", steps=4, scale=2.5, scale_between=(0.3, 5.0), guidance="cfg")
    teacher = lessons.Teacher(parts.model, 2.5, (0.3, 5.0))
    x, label = torch.randn(3, 3, 32, 32), torch.tensor([0, 1, 2])
    levels = torch.tensor([0.1, 1.0, 20.0])
    mixed = teacher.answer(x * levels[:, None, None, None], levels, Cond(label))
    for row, sigma in enumerate(levels.tolist()):
        alone = _plain(parts, recipe, label, [1, 2, 3], Count())(x * sigma, sigma)
        assert torch.allclose(mixed[row], alone[row], atol=0.02), "a batch's rows differ by bfloat16 alone"


def test_grids(taught: tuple[Path, Pictures]) -> None:
    process = load_parts(taught[0], read_settings(taught[0]), CPU)[0].model.process
    assert grid_of("consistency", 1, process) == grid_of("fdistill", 1, process) == (process.grid(1)[0], 0.0)
    for method, steps in (("consistency", 4), ("fdistill", 2), ("ddgan", 8)):
        grid = grid_of(method, steps, process)
        assert len(grid) == steps + 1
        assert list(grid) == sorted(grid, reverse=True)
        assert grid[-1] == 0
    with pytest.raises(UsageError, match="3 steps"):
        grid_of("fdistill", 3, process)
    student = lesson(taught, "fdistill", steps=2)[2].student
    assert student is not None
    assert student.own(2) == list(student.grid)
    with pytest.raises(ValueError, match="takes 2 steps"):
        student.own(5)
