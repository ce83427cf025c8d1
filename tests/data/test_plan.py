"""Lots, seeds, shards, and a plan that is one text."""

from __future__ import annotations

import itertools
import json
import re

import pytest

from mgdm_cli.data.allotment import allot
from mgdm_cli.data.files import canonical
from mgdm_cli.data.image import Form
from mgdm_cli.data.plan import (
    Lot,
    Machine,
    Models,
    Plan,
    Recipe,
    cut,
    differences,
    parse_shard,
    read_plan,
    seed_of,
)
from mgdm_cli.errors import OtherPlan, UsageError

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


def test_a_plan_from_before_a_field_keeps_its_bytes() -> None:
    """Else every set that was made before could neither be verified nor continued nor merged."""
    before = make_plan().model_dump(mode="json")
    for name in ("label_tag", "patients_known", "skill"):
        del before[name]
    del before["machine"]["computes_in"]
    assert make_plan().to_bytes() == canonical(before, indent=1)
    assert read_plan(canonical(before, indent=1)) == make_plan()
    other = make_plan(machine=Machine(device="cpu", cpu_capability="AVX2", threads=1, computes_in="float32"))
    assert json.loads(other.to_bytes())["machine"]["computes_in"] == "float32"


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
