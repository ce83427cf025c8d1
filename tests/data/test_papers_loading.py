"""A finished set is read by the tools that its papers are for: mlcroissant, Hugging Face datasets, MONAI's decathlon loader.

Each tool runs in a process of its own: their imports are slow, warn, and change settings for everybody.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.data import maker

IMAGES = 30
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}

CROISSANT = """
import json, sys
import mlcroissant
found = mlcroissant.Dataset(sys.argv[1])
issues, told = found.metadata.ctx.issues, found.metadata.to_json()
print(json.dumps({
    "errors": sorted(issues.errors), "warnings": sorted(issues.warnings),
    "images": [{k.split("/")[-1]: v.decode() if isinstance(v, bytes) else v for k, v in row.items()}
               for row in found.records("images")],
    "classes": [row["classes/label"] for row in found.records("classes")],
    "rai": sorted(name for name in told if name.startswith("rai:")),
}))
"""
HUGGING_FACE = """
import json, sys
import datasets
found = datasets.load_dataset("imagefolder", data_dir=sys.argv[1], cache_dir=sys.argv[2])["train"]
print(json.dumps([{"file": row["id"], "label": row["label"], "synthetic": row["synthetic"], "seed": row["seed"],
                   "size": row["image"].size, "mode": row["image"].mode} for row in found]))
"""
MONAI = """
import json, sys
from monai.data.decathlon_datalist import load_decathlon_datalist, load_decathlon_properties
rows = load_decathlon_datalist(sys.argv[1], True, "training", base_dir=sys.argv[2])
print(json.dumps({"rows": rows, **load_decathlon_properties(sys.argv[1], ["labels", "modality", "numTraining"])}))
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("papers") / "set"
    maker.make(made, maker.make_plan(IMAGES))
    return made


def asked(module: str, script: str, *arguments: Path) -> Any:
    """What the script prints last, as JSON; skipped where the tool is not installed."""
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed (extra: test)")
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, **OFFLINE},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def manifest(root: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (root / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]


def test_mlcroissant_finds_the_record_valid_and_reads_every_image(root: Path) -> None:
    found = asked("mlcroissant", CROISSANT, root / "croissant.json")
    assert (found["errors"], found["warnings"]) == ([], [])
    rows = manifest(root)
    assert [row["file_name"] for row in found["images"]] == [row["path"].removeprefix("images/") for row in rows]
    assert [row["seed"] for row in found["images"]] == [row["seed"] for row in rows]
    assert {row["synthetic"] for row in found["images"]} == {"YES"}
    assert found["classes"] == ["adipose", "b-2", "b-10"]
    assert {
        "rai:dataBiases",
        "rai:dataCollection",
        "rai:dataCollectionType",
        "rai:dataLimitations",
        "rai:dataUseCases",
        "rai:personalSensitiveInformation",
    } <= set(found["rai"])


def test_mlcroissant_refuses_a_table_that_was_changed(root: Path, tmp_path: Path) -> None:
    """The record holds its hash: the check above is one that can fail."""
    if importlib.util.find_spec("mlcroissant") is None:
        pytest.skip("mlcroissant is not installed (extra: test)")
    (tmp_path / "images").mkdir()
    (tmp_path / "croissant.json").write_bytes((root / "croissant.json").read_bytes())
    (tmp_path / "manifest.jsonl").write_bytes((root / "manifest.jsonl").read_bytes())
    (tmp_path / "images/metadata.csv").write_bytes((root / "images/metadata.csv").read_bytes() + b"\n")
    with pytest.raises(AssertionError, match="Hash"):
        asked("mlcroissant", CROISSANT, tmp_path / "croissant.json")


def test_hugging_face_loads_the_images_with_their_columns(root: Path, tmp_path: Path) -> None:
    found = asked("datasets", HUGGING_FACE, root / "images", tmp_path)
    rows = {row["id"]: row for row in manifest(root)}
    assert len(found) == IMAGES
    assert {row["file"] for row in found} == set(rows)
    for row in found:
        own = rows[row["file"]]
        assert (row["label"], row["seed"], row["synthetic"]) == (own["label"], own["seed"], "YES")
        assert (row["size"], row["mode"]) == ([4, 4], "L")


@pytest.mark.slow  # importing MONAI alone takes ten seconds
def test_monais_decathlon_loader_reads_the_list(root: Path) -> None:
    found = asked("monai", MONAI, root / "datalist.json", root)
    rows = manifest(root)
    assert [(row["image"], row["label"]) for row in found["rows"]] == [
        (str(root / row["path"]), row["class_index"]) for row in rows
    ]
    assert all(Path(row["image"]).is_file() for row in found["rows"])
    assert found["labels"] == {"0": "adipose", "1": "b-2", "2": "b-10"}
    assert found["numTraining"] == IMAGES
