"""Tables, lists, Croissant and card: what other tools read, and what no paper may hold."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest

from mgdm_cli.data.card import card, readme
from mgdm_cli.data.manifest import Entry, InputRow, Rejected, schema, to_lines
from mgdm_cli.data.papers import all_papers, cell, path_cell
from mgdm_cli.data.plan import Plan, Statement
from tests.data import maker

KEYS = {"pretty_name", "license", "license_name", "task_categories", "tags"}


def content(plan: Plan) -> tuple[list[Entry], list[Rejected]]:
    entries: list[Entry] = []
    rejected: list[Rejected] = []
    for lot in plan.lots:
        start, attempt = 0, 0
        while start < lot.quota:
            _, accepted, turned = maker.block(plan, lot, attempt, start)
            entries += accepted
            rejected += turned
            start, attempt = start + len(accepted), attempt + 1
    return entries, rejected


def papers(plan: Plan, inputs: tuple[InputRow, ...] = maker.INPUTS) -> dict[str, bytes]:
    entries, rejected = content(plan)
    return all_papers(plan, entries, rejected, inputs, manifest=to_lines(entries))


def rows(data: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(data.decode("utf-8"), newline="")))


def test_a_json_file_stands_beside_every_nifti_and_beside_nothing_else() -> None:
    assert not [name for name in papers(maker.make_plan(12)) if name.endswith(".json") and name.startswith("images/")]
    plan = maker.make_plan(12, suffix=".nii.gz")
    entries, _ = content(plan)
    made = {
        name: json.loads(data) for name, data in papers(plan).items() if name.startswith("images/") and ".json" in name
    }
    assert set(made) == {entry.path.replace(".nii.gz", ".json") for entry in entries}
    for entry in entries:
        told = made[entry.path.replace(".nii.gz", ".json")]
        assert (told["SyntheticData"], told["Id"], told["Label"]) == ("YES", entry.id, entry.label)
        assert "trainedAlgorithmicMedia" in told["DigitalSourceType"]
        assert told["ImageType"][0] == "DERIVED"


def test_metadata_lists_every_image_relative_to_its_own_folder() -> None:
    plan = maker.make_plan(30)
    entries, _ = content(plan)
    table = rows(papers(plan)["images/metadata.csv"])
    assert [f"images/{row['file_name']}" for row in table] == [entry.path for entry in entries]
    assert {(row["synthetic"], row["split"]) for row in table} == {("YES", "train-synthetic")}
    assert [int(row["seed"]) for row in table] == [entry.seed for entry in entries]


def test_combined_holds_real_and_synthetic_rows() -> None:
    plan = maker.make_plan(30)
    table = rows(papers(plan)["combined.csv"])
    assert [row["synthetic"] for row in table] == ["NO"] * len(maker.INPUTS) + ["YES"] * 30
    assert {row["label"]: row["class_index"] for row in table} == {"adipose": "0", "b-2": "1", "b-10": "2"}
    assert table[0]["path"] == maker.INPUTS[0].path


@pytest.mark.parametrize("lead", ["=", "+", "-", "@", "\t"])
def test_no_cell_begins_like_a_formula(lead: str) -> None:
    assert cell(f"{lead}cmd") == f"'{lead}cmd"
    assert path_cell(f"{lead}a.png") == f"./{lead}a.png"
    inputs = (InputRow(path=f'{lead}a,"b".png', label="adipose"),)
    (row, *_) = rows(papers(maker.make_plan(10), inputs)["combined.csv"])
    assert row["path"] == f'./{lead}a,"b".png'


def test_tables_are_rfc_4180_with_line_feeds() -> None:
    for name, data in papers(maker.make_plan(10)).items():
        assert b"\r" not in data
        assert data.endswith(b"\n"), name
    assert cell('say "a", b') == '"say ""a"", b"'
    assert [cell(value) for value in (None, 3, 0.5, 1e-9)] == ["", "3", "0.5", "1e-09"]


def test_the_datalist_is_as_monai_reads_it() -> None:
    plan = maker.make_plan(30)
    found = json.loads(papers(plan)["datalist.json"])
    assert found["labels"] == {"0": "adipose", "1": "b-2", "2": "b-10"}
    assert found["numTraining"] == len(found["training"]) == 30
    assert set(found["training"][0]) == {"image", "label", "synthetic"}


def test_croissant_says_synthetic_and_hashes_what_it_names() -> None:
    from mgdm_cli.data.files import sha256_hex

    plan = maker.make_plan(30)
    found = papers(plan)
    document = json.loads(found["croissant.json"])
    assert document["rai:hasSyntheticData"] is True
    assert document["rai:dataCollectionType"] == ["Synthetic"]
    files = {entry["@id"]: entry for entry in document["distribution"]}
    assert files["metadata.csv"]["sha256"] == sha256_hex(found["images/metadata.csv"])
    header = found["images/metadata.csv"].decode().splitlines()[0].split(",")
    images = next(entry for entry in document["recordSet"] if entry["@id"] == "images")
    assert {field["source"]["extract"]["column"] for field in images["field"]} <= set(header)


def test_the_card_has_the_seven_headings_and_counts_what_is_there() -> None:
    plan = maker.make_plan(30)
    entries, rejected = content(plan)
    text = readme(card(plan, entries, rejected))
    for heading in (
        "Congruence",
        "Coverage",
        "Constraint",
        "Completeness",
        "Compliance",
        "Comprehension",
        "Consistency",
    ):
        assert f"**{heading}**" in text
    assert "NOT FOR CLINICAL USE" in text
    assert "| b-10 | 12 | 19 | 19 | 31 |" in text
    assert f"label-lost {len(rejected)}" in text
    assert "Source: not stated" in text
    short = readme(card(plan, entries[:-4], rejected))
    assert "missing from the plan: b-10 4" in short


def test_the_card_never_calls_the_data_private() -> None:
    plan = maker.make_plan(10)
    text = readme(card(plan, *content(plan))).lower()
    for word in ("anonymous", "gdpr", "safe", "no patient data", "guarantee"):
        assert word not in text


def test_what_a_user_states_cannot_break_the_card() -> None:
    evil = 'x"\n---\n# <script>alert(1)</script> | `a` [b](c)'
    plan = maker.make_plan(10, statement=Statement(name=evil, source=evil, licence=evil))
    found = papers(plan)
    text = found["README.md"].decode()
    assert text.count("\n---\n") == 1
    front, _, body = text.partition("\n---\n")
    assert all(line.split(":")[0] in KEYS or line.startswith("- ") for line in front.splitlines()[1:])
    assert "<script" not in body.replace("\\<script", "")
    json.loads(found["croissant.json"])


def test_an_empty_set_has_papers_too() -> None:
    plan = maker.make_plan(10)
    found = all_papers(plan, [], [], [], manifest=b"")
    assert "0 images" in found["README.md"].decode()
    assert rows(found["images/metadata.csv"]) == []


def test_rows_of_the_manifest_are_pinned() -> None:
    fields: dict[str, Any] = json.loads(schema())["properties"]
    names = (
        "id path sha256 bytes label class_index index seed block row model_sha256 classifier_sha256 process sampler "
        "steps guidance strength stage before after label_kept copy_score copy_percentile width height depth channels "
        "dtype spacing_mm affine sop_instance_uid synthetic"
    )
    assert sorted(fields) == sorted(names.split())


def test_the_record_of_derived_images_says_whom_they_may_resemble() -> None:
    plan = maker.make_plan(10)
    recipe = plan.recipe.model_copy(update={"extra": {"depth": 0.6}})
    derived = json.loads(papers(plan.model_copy(update={"recipe": recipe}))["croissant.json"])
    assert "may resemble the patient" in derived["rai:dataLimitations"]
    assert derived["rai:dataCollection"].startswith("Derived from real images")
    assert json.loads(papers(plan)["croissant.json"])["rai:dataLimitations"].startswith("No image shows a patient")
