"""Water-filling, equal shares, proportions, counts that are said outright, and the caps on all of them."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from mgdm_cli.data.allotment import allot
from mgdm_cli.errors import BadInput, UsageError

REAL = {"normal": 437, "benign": 210, "malignant": 133}


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


def test_errors_call_the_flag_by_its_name() -> None:
    with pytest.raises(UsageError, match="--labels names no class of this set: 'c'"):
        allot(REAL, None, "c=3", flag="--labels")
