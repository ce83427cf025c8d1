"""Names: natural order, which may be classes, what folders say; patients only as digests."""

from __future__ import annotations

import itertools
import re
import unicodedata
from pathlib import Path

import pytest

from mgdm_cli.data.labels import (
    Row,
    check_classes,
    counts_in,
    folder_of,
    is_class_name,
    matched,
    natural,
    patient_digest,
    read_table,
    split_of,
)
from mgdm_cli.errors import BadInput, UsageError

SPOKEN = (
    "kein Tumor",
    "Glioma größer 2 cm",
    "T1 (links)",
    "grade=3",
    "a, b",
    "正常",
    "[ill]",
    "κ",
    "a b",
    "a_b",
    "Größe",
)


def test_natural_order() -> None:
    assert natural(["10", "2", "1", "b10", "b9", "B9x", "2"]) == ("1", "2", "10", "b9", "B9x", "b10")
    assert natural(["grade10", "grade2", "02", "2"]) == ("02", "2", "grade2", "grade10")


@pytest.mark.parametrize("name", ["a", "COVID-19", "grade_2", "v1.2", "0", "A" * 64, "é" * 64, *SPOKEN])
def test_names_that_may_be_classes(name: str) -> None:
    assert is_class_name(name)


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", ".a", "a/b", "a\\b", " a", "a ", "a\n", "a\0", "a\u2028b", "\u202ea", "a\udcff"),
        *("=1+1", "+1", "@x", "-o", "NUL", "com1.x", "a.", "a" * 65),
    ],
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


def test_every_class_has_a_plain_folder_of_its_own() -> None:
    assert folder_of("grade_2.b-1") == "grade_2.b-1"  # plain names are their own
    assert folder_of("Glioma größer 2 cm") == "Glioma_gr_er_2_cm-05e7e741"
    names = [*SPOKEN, "é" * 64, "é" * 63 + "e", "a" * 64, "kein-Tumor", "kein  Tumor", "A B", "..a"]
    folders = [folder_of(name) for name in names]
    assert all(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}", folder) for folder in folders)
    assert len({folder.casefold() for folder in folders}) == len(names)


def test_names_are_told_as_they_are_and_twins_refused() -> None:
    with pytest.raises(BadInput, match=r"'a\\n', 'größer/2'"):
        check_classes(["größer/2", "a\n", "b"])
    check_classes(SPOKEN)
    for twins in (("a", "A"), ("Größe", "größe"), ("a b", folder_of("a b"))):
        with pytest.raises(BadInput, match="differ only"):
            check_classes(twins)


def test_counts_of_classes_whatever_their_names() -> None:
    for pair in itertools.permutations(SPOKEN, 2):
        assert list(counts_in(",".join(f"{name}=5" for name in pair))) == [(name, "5") for name in pair]
    assert list(counts_in(" a = 5 , gro\u0308ßer 2=20,")) == [("a", "5"), ("größer 2", "20")]
    for wrong in ("a=x", "a=5,b", "a", "=5", "a=5,,b=2"):
        with pytest.raises(UsageError, match="not class=count"):
            list(counts_in(wrong))


def test_a_patient_is_a_digest() -> None:
    assert patient_digest("MRN-1 ") == patient_digest("MRN-1") != patient_digest("MRN-2")
    assert len(patient_digest("x")) == 16


def test_lines_of_mere_separators_are_no_rows(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text('path,label,\n1.png,"a, b",\n,,\n2.png,c,,\n,,,\n')
    assert read_table(tmp_path / "table.csv") == {"1.png": Row("a, b", None, None), "2.png": Row("c", None, None)}


def test_umlauts_are_the_same_in_one_character_and_in_two() -> None:
    one, two = unicodedata.normalize("NFC", "Größe.png"), unicodedata.normalize("NFD", "Größe.png")
    first, second = Row("a", None, None), Row("b", None, None)
    assert matched({one: first}, [two, "x.png"]) == {two: first}
    assert matched({two: first}, [one]) == {one: first}
    assert matched({one: first, two: second}, [one, two]) == {one: first, two: second}
    assert matched({one: first, two: second}, [two]) == {one: first, two: second}, "one file has no two rows"
    three = unicodedata.normalize("NFD", "ö") + "ö.png", "ö" + unicodedata.normalize("NFD", "ö.png")
    assert matched({"öö.png": first}, three) == {"öö.png": first}, "which of them is not known"
    assert patient_digest(one) == patient_digest(two)
