"""Two decodes of one noise: the replay is exact, strength 0 changes no bit, the label index stays, costs are counted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mgdm_cli.commands.reading import Source
from mgdm_cli.data.plan import Filters, Recipe
from mgdm_cli.diffusion import guidance
from mgdm_cli.diffusion.process import edm
from mgdm_cli.diffusion.samplers import SAMPLERS
from mgdm_cli.engine import decoding
from mgdm_cli.engine.classifying import logits_of
from mgdm_cli.engine.decoding import Candidates, Parts, cost, make_block
from mgdm_cli.engine.run import load_parts, read_settings
from tests.tiny import CPU

RECIPE = Recipe(
    process="edm",
    sampler="dpmpp_2m",
    steps=8,
    scale=1.5,
    scale_between=(0.3, 5.0),
    guidance="uncertainty",
    strength=0.3,
    between=(0.15, 3.0),
    filters=Filters(label=False),
)


@pytest.fixture(scope="module")
def parts(ground: tuple[Source, Path]) -> Parts:
    return load_parts(ground[1], read_settings(ground[1]), CPU)[0]


def block(
    parts: Parts, recipe: Recipe = RECIPE, *, class_index: int = 1, attempt: int = 0, size: int = 4
) -> Candidates:
    return make_block(parts, recipe, run_seed=5, lot=2, attempt=attempt, block=size, class_index=class_index)


def test_the_same_numbers_give_the_same_bits(parts: Parts) -> None:
    assert torch.equal(block(parts).after, block(parts).after)
    assert not torch.equal(block(parts).after, block(parts, attempt=1).after)


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_the_replayed_stage_equals_a_full_second_decode(
    parts: Parts, sampler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    knobs = {"inner": 2.0} if sampler == "langevin" else {}
    recipe = RECIPE.model_copy(update={"sampler": sampler, "knobs": knobs})
    short = block(parts, recipe)
    monkeypatch.setattr(guidance.Recorded, "replay", lambda self, rows, then: then)
    full = block(parts, recipe)
    assert torch.equal(short.after, full.after)
    assert short.count.evaluations < full.count.evaluations


def test_a_pull_of_no_strength_is_no_second_stage(parts: Parts) -> None:
    weak = block(parts, RECIPE.model_copy(update={"strength": 0.0}))
    assert weak.before is None
    assert weak.count.gradients == 0
    plain = block(parts, RECIPE.model_copy(update={"guidance": "cfg", "strength": 0.0}))
    assert torch.equal(weak.after, plain.after)
    tiny = block(parts, RECIPE.model_copy(update={"strength": 1e-9}))
    assert tiny.before is not None
    assert torch.equal(tiny.before, plain.after)


def test_the_second_stage_raises_the_measure_it_follows(parts: Parts) -> None:
    assert parts.guide is not None
    made = block(parts, RECIPE.model_copy(update={"strength": 0.5}), size=8)
    assert made.before is not None
    before = [m["entropy"] for m in decoding.measures(parts, made.before, 1, "entropy")]
    after = [m["entropy"] for m in decoding.measures(parts, made.after, 1, "entropy")]
    assert sum(after) > sum(before)


def test_disagreement_is_followed_through_all_members(parts: Parts) -> None:
    assert parts.guide is not None
    assert parts.judge is not None
    recipe = RECIPE.model_copy(update={"guidance": "disagreement", "strength": 0.5})
    with pytest.raises(ValueError, match="siblings"):
        block(parts, recipe)
    three = replace(parts, members=(parts.guide, parts.judge, parts.guide))  # a stand-in for siblings
    made = block(three, recipe, size=8)
    assert made.before is not None
    assert cost(recipe, parts.model.process) == (made.count.evaluations // 8, made.count.gradients // 8)
    before, after = (
        sum(m["disagreement"] for m in decoding.measures(three, x0, 1, "disagreement"))
        for x0 in (made.before, made.after)
    )
    assert after > before


def test_an_image_without_its_label_is_not_disturbed(parts: Parts) -> None:
    """The judge looks first, and no second decode is spent on what it would reject."""
    assert parts.judge is not None
    kept_at_all = lost_at_all = 0
    for class_index in range(4):
        whole = block(parts, class_index=class_index)
        made = block(parts, RECIPE.model_copy(update={"filters": Filters()}), class_index=class_index)
        assert made.before is not None
        assert whole.before is not None
        assert torch.equal(made.before, whole.before)
        kept = (logits_of(parts.judge, made.before).argmax(-1) == class_index).nonzero()[:, 0].tolist()
        assert made.hopeless == set(range(4)) - set(kept)
        assert [bool(torch.equal(made.before[row], made.after[row])) for row in range(4)] == [
            row not in kept for row in range(4)
        ]
        assert made.count.gradients == whole.count.gradients // 4 * len(kept)
        assert torch.allclose(made.after[kept], whole.after[kept], atol=2e-2)
        kept_at_all, lost_at_all = kept_at_all + len(kept), lost_at_all + len(made.hopeless)
    assert kept_at_all
    assert lost_at_all


def test_every_class_is_conditioned_by_its_own_index(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Making only class 1 conditions on class 1, in both stages (the reference re-derives the index from folders)."""
    met: set[int] = set()
    whole = parts.model.bind

    def watch(cond: object) -> object:
        met.update(cond.label.tolist())  # type: ignore[attr-defined]
        return whole(cond)  # type: ignore[arg-type]

    monkeypatch.setattr(parts.model, "bind", watch)
    block(parts, class_index=3)
    assert met == {3, -1}


def test_selection_takes_the_hardest_preview_that_keeps_the_label(parts: Parts) -> None:
    made = block(parts, RECIPE.model_copy(update={"mode": "select", "candidates": 3}))
    assert len(set(made.seeds)) == 4
    assert made.count.gradients == 0
    assert made.before is not None


def test_the_hardest_of_two_previews_is_taken(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """The quantile above which a preview is an artefact says nothing of so few."""
    recipe = RECIPE.model_copy(update={"mode": "select", "candidates": 2, "sampler": "ddpm", "guidance": "entropy"})
    monkeypatch.setattr(decoding, "logits_of", lambda net, x0: torch.tensor([[0.0, 1.0]]).repeat(len(x0), 1))
    light = []
    for sign in (1, -1):
        monkeypatch.setattr(decoding, "_measured", lambda parts, name, x0, label, s=sign: s * x0.mean((1, 2, 3)))
        light.append(float(block(parts, recipe, size=1).after.mean()))
    assert light[0] > light[1]


def test_previews_rank_by_label_then_by_what_is_no_artefact_then_by_hardness() -> None:
    hard, none = torch.rand(4, 10, generator=torch.Generator().manual_seed(0)), torch.zeros(4, 10, dtype=torch.bool)
    hard[1, 0], hard[2, 0], hard[3, 1] = 5.0, 1.0 + 1e-6, 6.0
    assert decoding._hardest(hard, ~none)[0] == 2, "the two hardest of forty are artefacts"
    assert decoding._hardest(hard[:2, :10], ~none[:2])[0] == 1, "of twenty it is not"
    one = none.clone()
    one[1, 0] = True
    assert decoding._hardest(hard, one)[0] == 1, "an artefact of the class, before one that has lost it"
    assert decoding._hardest(hard, none)[0] == 2, "as if all had kept it"
    close = torch.tensor([[0.25], [0.25 + 1e-6]])
    assert decoding._hardest(close, none[:2, :1]) == [1]


def test_where_steps_change_the_picture_the_preview_is_the_picture(parts: Parts) -> None:
    recipe = RECIPE.model_copy(update={"mode": "select", "candidates": 3, "sampler": "dpmpp_2m_sde"})
    made, plain = (
        block(parts, each) for each in (recipe, recipe.model_copy(update={"guidance": "cfg", "mode": "guide"}))
    )
    assert made.count.evaluations == 3 * plain.count.evaluations
    for row, seed in enumerate(plain.seeds):
        if seed in made.seeds:
            assert torch.equal(made.after[made.seeds.index(seed)], plain.after[row])
    assert made.before is not None
    assert torch.equal(made.before, plain.after)


def test_cost_is_what_a_block_really_does(parts: Parts) -> None:
    for update in (
        {},
        {"guidance": "cfg"},
        {"guidance": "class"},
        {"guidance": "none"},
        {"mode": "select", "candidates": 3},
        {"sampler": "heun"},
    ):
        recipe = RECIPE.model_copy(update=update)
        made = block(parts, recipe)
        assert cost(recipe, edm(sigma_data=parts.spread, mean=-0.8, spread=1.4)) == (
            made.count.evaluations // 4,
            made.count.gradients // 4,
        )


def test_values_that_are_not_finite_stop_the_run(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts.model, "bind", lambda cond: lambda x, sigma: x * float("nan"))
    with pytest.raises(FloatingPointError):
        block(parts)
