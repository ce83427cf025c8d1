"""Water-filling, lots, seeds, shards, and a plan that is one text."""

from __future__ import annotations

import itertools
import math
import random
import re

import pytest

from mgdm_cli.data.image import Form
from mgdm_cli.data.plan import (
    Lot,
    Machine,
    Models,
    Plan,
    Recipe,
    allot,
    cut,
    differences,
    parse_shard,
    read_plan,
    seed_of,
)
from mgdm_cli.errors import BadInput, OtherPlan, UsageError

REAL = {"normal": 437, "benign": 210, "malignant": 133}


def make_plan(**changes: object) -> Plan:
    quotas = allot(REAL, 200, "fill").quotas
    settings: dict[str, object] = {
        "versions": {"mgdm": "0.1.0"},
        "machine": Machine(device="cpu", cpu_capability="AVX2", threads=2),
        "seed": 1,
        "block": 8,
        "max_attempts": 20,
        "classes": tuple(REAL),
        "real": REAL,
        "asked": 200,
        "balance": "fill",
        "max_per_real": 20.0,
        "lots": cut(quotas, tuple(REAL)),
        "form": Form("dicom", "uint16", 1, 64, 48, spacing_mm=(0.1, 0.3), affine=((1.0, 0.0), (0.0, 1.0))),
        "suffix": ".nii.gz",
        "size": (64, 48),
        "intensity": {"kind": "linear", "lo": 0, "hi": 4095},
        "models": Models(denoiser="0" * 64),
        "recipe": Recipe(process="edm", sampler="heun", steps=12),
        "inputs": "f" * 64,
        "date": "20260102",
    }
    return Plan.model_validate(settings | changes)


def test_fill_raises_the_smallest_first() -> None:
    assert allot(REAL, 50, "fill").quotas == {"normal": 0, "benign": 0, "malignant": 50}
    assert allot(REAL, 97, "fill").quotas == {"normal": 0, "benign": 10, "malignant": 87}
    done = allot(REAL, 600, "fill")
    assert {REAL[c] + n for c, n in done.quotas.items()} == {460}
    assert (done.total, done.capped, done.notes) == (600, (), ())
    assert (
        "no image is made of normal, benign" in allot(REAL, 50, "fill").notes[0]
    )  # the look of made images then marks a class


def test_fill_is_the_best_there_is() -> None:
    """Against every other allotment: no class could be lower only by giving an image to one that is lower still."""
    dice = random.Random(3)
    for _ in range(60):
        real = {str(i): dice.randint(10, 30) for i in range(3)}
        n, cap = dice.randint(1, 40), dice.choice([0.5, 1.0, 20.0])
        caps = [int(cap * count) for count in real.values()]
        spent = min(n, sum(caps))
        best = max(
            sorted(count + more for count, more in zip(real.values(), split, strict=True))
            for split in itertools.product(*(range(min(c, n) + 1) for c in caps))
            if sum(split) == spent
        )
        found = allot(real, n, "fill", max_per_real=cap)
        assert found.total == spent
        assert sorted(real[c] + more for c, more in found.quotas.items()) == best


def test_equal_and_proportional() -> None:
    assert allot(REAL, 200, "equal").quotas == {"normal": 67, "benign": 67, "malignant": 66}
    assert allot(REAL, 780, "proportional").quotas == REAL
    shares = allot({"a": 10, "b": 10, "c": 10}, 100, "proportional").quotas
    assert shares == {"a": 34, "b": 33, "c": 33}


def test_the_caps_hold_and_are_told() -> None:
    found = allot({"a": 100, "b": 10}, 100, "fill", max_per_real=2.0)
    assert found.quotas == {"a": 80, "b": 20}
    assert found.capped == ("b",)
    over = allot({"a": 100, "b": 10}, 1000, "fill", max_per_real=2.0)
    assert (over.total, over.asked) == (220, 1000)
    assert any("1000 images were asked for; 220" in note for note in over.notes)


@pytest.mark.parametrize("cap", [math.inf, math.nan, 0.0, -1.0, 0.0001])
@pytest.mark.parametrize("balance", ["equal", "fill", "proportional", "b=3"])
def test_a_cap_that_is_no_number_or_allows_nothing_is_a_usage_error(cap: float, balance: str) -> None:
    with pytest.raises(UsageError, match="--max-per-real") as caught:
        allot({"a": 100, "b": 10}, 3, balance, max_per_real=cap)
    assert caught.value.hint


def test_explicit_counts() -> None:
    assert allot(REAL, None, "malignant=5, benign=7").quotas == {"normal": 0, "benign": 7, "malignant": 5}
    capped = allot({"a": 10, "b": 10}, None, "a=900,b=1")
    assert capped.quotas == {"a": 200, "b": 1}
    assert capped.capped == ("a",)


@pytest.mark.parametrize(
    ("balance", "n", "hint"),
    [
        ("eqal", 10, "equal"),
        ("benin=4", None, "benign"),
        ("benign=x", None, "class="),
        ("benign=1,benign=2", None, "once"),
        ("benign=0", None, "class="),
        ("benign=4", 5, "--n"),
        ("tiny=4", None, "--force-small"),
        ("fill", None, "number"),
        ("fill", 0, "number"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error(balance: str, n: int | None, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        allot(REAL | {"tiny": 3}, n, balance)
    assert hint in caught.value.hint


def test_small_classes_are_left_out_unless_forced() -> None:
    real = {"a": 100, "b": 9, "none": 0}
    found = allot(real, 50, "fill")
    assert found.quotas == {"a": 50, "b": 0, "none": 0}
    assert found.left_out == ("b", "none")
    assert allot(real, 50, "fill", force_small=True).quotas == {"a": 0, "b": 50, "none": 0}
    with pytest.raises(BadInput):
        allot({"b": 9}, 50, "equal")


def test_lots_cover_the_quotas_without_gap() -> None:
    lots = cut({"a": 130, "b": 0, "c": 64}, ("a", "b", "c"))
    assert [(lot.label, lot.class_index, lot.quota, lot.first) for lot in lots] == [
        ("a", 0, 64, 0),
        ("a", 0, 64, 64),
        ("a", 0, 2, 128),
        ("c", 2, 64, 130),
    ]
    assert [lot.index for lot in lots] == [0, 1, 2, 3]


def test_shards_share_out_every_lot_once() -> None:
    plan = make_plan(lots=cut({"normal": 500, "benign": 77}, tuple(REAL), largest=32))
    for n in (1, 2, 3, 7):
        dealt = [lot for k in range(1, n + 1) for lot in plan.share((k, n))]
        assert sorted(lot.index for lot in dealt) == [lot.index for lot in plan.lots]
    assert parse_shard("2/3") == (2, 3)
    for bad in ("0/3", "4/3", "1", "a/b", "1/0", "-1/2"):
        with pytest.raises(UsageError):
            parse_shard(bad)


def test_seeds_are_pinned_and_distinct() -> None:
    assert seed_of(0, 0, 0, 0) == 0x3A997F6922BB288C
    assert seed_of(1, 2, 3, 4) == 882938646976399772
    seeds = {seed_of(s, lot, a, r) for s, lot, a, r in itertools.product(range(4), range(6), range(6), range(8))}
    assert len(seeds) == 4 * 6 * 6 * 8
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_plan_is_one_text_and_comes_back() -> None:
    plan = make_plan()
    data = plan.to_bytes()
    assert make_plan().to_bytes() == data
    back = read_plan(data)
    assert back == plan
    assert isinstance(back.form, Form)
    assert back.form.affine == ((1.0, 0.0), (0.0, 1.0))
    assert back.run == plan.run
    assert len(plan.run) == 64


def test_a_changed_plan_is_refused() -> None:
    data = make_plan().to_bytes()
    for bad in (b"", b"{}", b"[]", b"not json", data[:-2], data.replace(b'"seed": 1', b'"seed":1'), data + b" "):
        with pytest.raises(OtherPlan) as caught:
            read_plan(bad)
        assert caught.value.exit_code == 78


def test_differences_are_named() -> None:
    other = make_plan(recipe=Recipe(process="edm", sampler="heun", steps=13), seed=2)
    assert differences(make_plan(), other) == ("recipe.steps", "seed")
    assert differences(make_plan(), make_plan()) == ()


def test_a_plan_takes_no_unknown_or_impossible_setting() -> None:
    for changes in ({"colour": "red"}, {"block": 0}, {"date": "today"}, {"max_per_real": float("nan")}):
        with pytest.raises(ValueError, match=next(iter(changes))):
            make_plan(**changes)
    for label in ("../x", ".hidden", "a\nb", "", "x" * 65):
        with pytest.raises(ValueError, match="label"):
            Lot(index=0, label=label, class_index=0, quota=1, first=0)


def test_ids_paths_and_marks_follow_from_the_plan() -> None:
    plan = make_plan()
    lot = Lot(index=3, label="benign", class_index=1, quota=4, first=17)
    assert plan.image_id(lot, 2) == "benign-000019"
    assert plan.image_path(lot, 2) == "images/benign/benign-000019.nii.gz"
    mark = plan.mark(lot, 2)
    assert (mark.id, mark.index, mark.run, mark.date) == ("benign-000019", 19, plan.run, "20260102")
    assert plan.seed_of(lot, 1, 5) == seed_of(1, 3, 1, 5)
    spoken = lot.model_copy(update={"label": "größer 2 cm"})
    assert re.fullmatch(r"images/(gr_er_2_cm-[0-9a-f]{8})/\1-000019\.nii\.gz", plan.image_path(spoken, 2))
    assert plan.mark(spoken, 2).label == "größer 2 cm"
