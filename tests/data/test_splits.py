"""Splits: by patient, every class on both sides, the same whatever the order; folds; the fingerprint."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mgdm_cli.data.image import Form, Record
from mgdm_cli.data.splits import Splits, fingerprint, folds, patient_key, shared_patients, split
from mgdm_cli.errors import BadInput, UsageError

FORM = Form("png", "uint8", 1, 8, 8)


def record(i: int, label: str | None, patient: str | None, of: str | None = None) -> Record:
    return Record(f"{label}/{i}.png", label, patient, of, FORM, f"{i:064x}")


def eyes(counts: dict[str, int], each: int = 2) -> list[Record]:
    """`each` images of one patient after another, class by class."""
    made: list[Record] = []
    for label, n in counts.items():
        made += [record(len(made) + i, label, f"{label}{i // each}") for i in range(n)]
    return made


def check(splits: Splits) -> None:
    assert {patient_key(r) for r in splits.train}.isdisjoint(patient_key(r) for r in splits.holdout)
    assert {r.label for r in splits.holdout} <= {r.label for r in splits.train}


@pytest.mark.parametrize(("n", "wanted"), [(4000, 400), (800, 100), (300, 60), (40, 8)])
def test_the_size_of_the_holdout(n: int, wanted: int) -> None:
    """10 %, at least 100 images, never more than 20 % of the training images."""
    splits = split(eyes({"a": n // 2, "b": n // 2}))
    check(splits)
    assert abs(len(splits.holdout) - wanted) <= 2
    assert len(splits.train) + len(splits.holdout) == n
    assert splits.patients_known


def test_every_class_is_held_out_in_its_share() -> None:
    splits = split(eyes({"common": 900, "rare": 100, "tiny": 6}))
    check(splits)
    held = Counter(r.label for r in splits.holdout)
    assert 80 <= held["common"] <= 100
    assert 8 <= held["rare"] <= 14
    assert held["tiny"] >= 1


@pytest.mark.parametrize("patients", [1, 2])
def test_a_class_keeps_a_patient_for_the_guide_and_one_for_the_judge(patients: int) -> None:
    lonely = [record(900 + i, "lonely", f"few{i % patients}") for i in range(2 * patients)]
    splits = split([*eyes({"a": 200}), *lonely])
    assert Counter(r.label for r in splits.train)["lonely"] == 2 * patients


@pytest.mark.parametrize("seed", range(20))
def test_a_large_patient_does_not_take_its_class_along(seed: int) -> None:
    large = [record(1000 + i, "a", "large") for i in range(300)]
    splits = split([*eyes({"b": 500}), *large, *eyes({"a": 200}, each=5)], seed=seed)
    assert Counter(r.label for r in splits.holdout)["a"] <= 2 * 50


def test_where_all_patients_are_large_the_smallest_is_held_out() -> None:
    sizes = {"one": 190, "two": 160, "three": 180}
    large = [record(1000 + i, "a", name) for name, n in sizes.items() for i in range(n)]
    splits = split([*eyes({"b": 200}), *large])
    assert {r.patient for r in splits.holdout if r.label == "a"} == {"two"}


def test_a_patient_with_two_classes_stays_whole() -> None:
    records = [record(i, "ab"[i % 2], f"p{i // 4}") for i in range(400)]
    check(split(records))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 15)), min_size=1, max_size=80), st.integers(0, 5))
def test_any_set_is_split_by_patient(rows: list[tuple[str, int]], seed: int) -> None:
    records = [record(i, label, f"p{patient}") for i, (label, patient) in enumerate(rows)]
    splits = split(records, seed=seed)
    check(splits)
    assert sorted(map(repr, splits.train + splits.holdout)) == sorted(map(repr, records))
    assert splits.train


def test_order_does_not_matter_and_the_seed_does() -> None:
    records = eyes({"a": 300, "b": 200})
    first = split(records, seed=1)
    shuffled = records.copy()
    random.Random(0).shuffle(shuffled)
    assert split(shuffled, seed=1) == first
    assert split(records, seed=2).holdout != first.holdout


def test_one_more_patient_moves_few_others() -> None:
    """Hashes decide: a set that grows keeps most of its holdout, and so the figures remain comparable."""
    before = {r.path for r in split(eyes({"a": 2000})).holdout}
    after = {r.path for r in split([*eyes({"a": 2000}), record(5000, "a", "new")]).holdout}
    assert len(before - after) <= 2


def test_only_train_is_learnt_from() -> None:
    records = [replace(r, split=of) for r, of in zip(eyes({"a": 300}), ["train", "test", "val"] * 100, strict=True)]
    splits = split(records)
    assert {r.split for r in splits.train + splits.holdout} == {"train"}
    assert (len(splits.test), len(splits.val)) == (100, 100)
    assert shared_patients(splits)
    with pytest.raises(BadInput, match="no training images"):
        split([replace(r, split="test") for r in records])


def test_patients_of_the_own_test_set_are_not_held_out() -> None:
    train = eyes({"a": 400})
    test = [record(1000 + i, "a", f"a{i}", "test") for i in range(100)]
    held = {r.patient for r in split(train + test).holdout}
    assert held.isdisjoint(r.patient for r in test)


def test_unknown_patients_are_files_and_slices_stay_together() -> None:
    nifti = replace(FORM, codec="nifti")
    slices = [Record(f"v{v}.nii.gz", "a", None, None, nifti, f"{v:064x}", 3 * k) for v in range(30) for k in range(10)]
    splits = split(slices)
    assert not splits.patients_known
    assert {r.path for r in splits.train}.isdisjoint(r.path for r in splits.holdout)
    npz = replace(FORM, codec="npz")
    rows = [Record("set.npz", "a", None, None, npz, f"{k:064x}", k) for k in range(300)]
    assert len(split(rows).holdout) == 60


def test_no_holdout_on_request() -> None:
    assert split(eyes({"a": 50}), holdout=0).holdout == ()
    with pytest.raises(UsageError, match="holdout"):
        split(eyes({"a": 50}), holdout=0.9)


@pytest.mark.parametrize("k", [2, 3, 5])
def test_folds_are_even_in_every_class_and_disjoint_by_patient(k: int) -> None:
    records = eyes({"a": 600, "b": 90, "c": 30})
    parts = folds(records, k, seed=4)
    assert sorted(map(repr, (r for part in parts for r in part))) == sorted(map(repr, records))
    keys = [{patient_key(r) for r in part} for part in parts]
    assert sum(map(len, keys)) == len(set().union(*keys))
    for label, n in (("a", 600), ("b", 90), ("c", 30)):
        counts = [sum(r.label == label for r in part) for part in parts]
        assert max(counts) - min(counts) <= 2, (label, counts)
        assert min(counts) >= n // k - 2
    assert folds(list(reversed(records)), k, seed=4) == parts
    assert folds(records, k, seed=5) != parts


def test_folds_with_patients_of_many_sizes() -> None:
    records = [record(i, "ab"[i % 3 == 0], f"p{int(i**0.5)}") for i in range(400)]
    sizes = [len(part) for part in folds(records, 4)]
    assert max(sizes) - min(sizes) <= 40


def test_the_fingerprint_is_of_contents_not_of_names_or_order() -> None:
    records = eyes({"a": 20, "b": 20})
    print_ = fingerprint(records)
    assert fingerprint(list(reversed(records))) == print_
    assert fingerprint([replace(r, path="x/" + r.path) for r in records]) == print_
    for change in ({"label": "c"}, {"patient": "q"}, {"split": "test"}, {"sha256": "f" * 64}, {"part": 3}):
        assert fingerprint([replace(records[0], **change), *records[1:]]) != print_
    assert fingerprint(records[:-1]) != print_
    assert len(print_) == 64
