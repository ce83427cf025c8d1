"""Autoguidance and pulls on x0 in a real run: the weak model is kept in training, pinned by its hash, and used."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mgdm_cli.commands.reading import Source
from mgdm_cli.data.plan import Filters, Recipe
from mgdm_cli.engine import weights
from mgdm_cli.engine.decoding import Candidates, Parts, cost, make_block
from mgdm_cli.engine.planning import recipe_of
from mgdm_cli.engine.run import DENOISER, WEAK, RunSettings, load_parts, read_settings
from mgdm_cli.errors import BadInput, UsageError
from tests.tiny import CPU

RECIPE = Recipe(
    process="edm", sampler="unipc", steps=6, scale=2.0, scale_between=(0.3, 5.0), guidance="auto",
    filters=Filters(label=False),
)  # fmt: skip


@pytest.fixture(scope="module")
def trained(ground: tuple[Source, Path]) -> tuple[Path, RunSettings]:
    return ground[1], read_settings(ground[1])


@pytest.fixture(scope="module")
def parts(trained: tuple[Path, RunSettings]) -> Parts:
    return load_parts(*trained, CPU)[0]


def block(parts: Parts, **update: object) -> Candidates:
    recipe = RECIPE.model_copy(update=update)
    return make_block(parts, recipe, run_seed=5, lot=0, attempt=0, block=2, class_index=1)


def test_training_keeps_an_early_average(trained: tuple[Path, RunSettings], parts: Parts) -> None:
    early, header = weights.load(trained[0] / WEAK)
    late, pins = weights.load(trained[0] / DENOISER)
    assert early.keys() == late.keys()
    assert any(not torch.equal(early[name], late[name]) for name in early)
    assert 0 < header["seen"] < trained[1].train.seen
    assert len(pins["weak"]) == 64
    assert parts.weak is not None


def test_auto_asks_both_models_inside_its_interval(parts: Parts) -> None:
    plain, auto = block(parts, guidance="none"), block(parts)
    inside = sum(0.3 <= sigma <= 5.0 for sigma in parts.model.process.grid(6))
    assert inside
    assert auto.count.evaluations == plain.count.evaluations + 2 * inside
    assert cost(RECIPE, parts.model.process) == (auto.count.evaluations // 2, 0)
    assert not torch.equal(auto.after, plain.after)
    assert torch.equal(block(parts, scale=1.0).after, plain.after)


def test_another_runs_weak_model_is_refused(trained: tuple[Path, RunSettings], tmp_path: Path) -> None:
    run = shutil.copytree(trained[0], tmp_path / "run")
    tensors, header = weights.load(run / WEAK)
    weights.save(run / WEAK, {name: tensor + 1 for name, tensor in tensors.items()}, header)
    with pytest.raises(BadInput, match="not the one this denoiser"):
        load_parts(run, trained[1], CPU)
    (run / WEAK).unlink()
    assert load_parts(run, trained[1], CPU)[0].weak is None


def test_auto_needs_no_null_class_and_knobs_are_checked(trained: tuple[Path, RunSettings]) -> None:
    without = trained[1].model_copy(update={"train": replace(trained[1].train, drop_label=0.0)})
    words = {
        "guidance": "auto", "strength": 0.1, "mode": "guide", "candidates": 1, "sampler": "churn", "steps": 4, "scale": 2.0,
        "between": (0.0, 1.0), "scale_between": (0.0, 9.0), "temperature": None, "filters": Filters(), "on": "x0",
    }  # fmt: skip
    made = recipe_of(without, knobs={"churn": 10.0}, **words)  # type: ignore[arg-type]
    assert (made.scale, made.strength, made.on) == (2.0, 0.0, "x")
    with pytest.raises(UsageError, match="churn has no knob 'eta'"):
        recipe_of(without, knobs={"eta": 1.0}, **words)  # type: ignore[arg-type]


def test_uncertainty_on_x0_is_another_second_stage_at_the_same_cost(parts: Parts) -> None:
    staged = {"guidance": "uncertainty", "strength": 0.3, "between": (0.15, 3.0), "scale": 1.0}
    on_x, on_x0 = block(parts, **staged), block(parts, on="x0", **staged)
    assert on_x0.before is not None
    assert on_x.before is not None
    assert torch.equal(on_x.before, on_x0.before)
    assert not torch.equal(on_x.after, on_x0.after)
    assert on_x.count == on_x0.count
