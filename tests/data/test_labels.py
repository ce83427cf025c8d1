"""Names: natural order, which may be classes, what folders say; patients only as digests."""

from __future__ import annotations

import pytest

from mgdm_cli.data.labels import is_class_name, natural, patient_digest, split_of


def test_natural_order() -> None:
    assert natural(["10", "2", "1", "b10", "b9", "B9x", "2"]) == ("1", "2", "10", "b9", "B9x", "b10")
    assert natural(["grade10", "grade2", "02", "2"]) == ("02", "2", "grade2", "grade10")


@pytest.mark.parametrize("name", ["a", "COVID-19", "grade_2", "v1.2", "0", "A" * 64])
def test_names_that_may_be_classes(name: str) -> None:
    assert is_class_name(name)


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".a", "a/b", "a b", "a\n", "a\0", "=1+1", "@x", "-o", "é", "NUL", "com1.x", "a."]
)
def test_names_that_may_not(name: str) -> None:
    assert not is_class_name(name)


@pytest.mark.parametrize(
    ("path", "split", "label"),
    [
        ("a/1.png", None, "a"),
        ("train/a/1.png", "train", "a"),
        ("VALIDATION/a/b/1.png", "val", "a"),
        ("testing/1.png", "test", None),
        ("a/train/1.png", None, "a"),
        ("1.png", None, None),
        ("test", None, None),
    ],
)
def test_what_folders_say(path: str, split: str | None, label: str | None) -> None:
    assert split_of(path) == (split, label)


def test_a_patient_is_a_digest() -> None:
    assert patient_digest("MRN-1 ") == patient_digest("MRN-1") != patient_digest("MRN-2")
    assert len(patient_digest("x")) == 16
