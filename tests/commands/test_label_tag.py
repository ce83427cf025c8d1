"""Labels read from a DICOM attribute: what is made says its own label there, whichever verb made it."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pydicom
import pytest

from mgdm_cli.commands import augment, merge, sample, verify
from mgdm_cli.commands.reading import Source
from mgdm_cli.commands.wanted import Wanted
from mgdm_cli.data.dataset import PLAN
from mgdm_cli.data.folder import scan
from mgdm_cli.data.plan import read_plan
from mgdm_cli.engine.run import SETTINGS
from tests.tiny import tiny_run, tiny_set

TAG = "BodyPartExamined"
PARTS = {"grade0": "HEAD", "grade1": "CHEST", "grade2": "KNEE", "grade3": "SKIN"}
WANTED = Wanted(8, guidance="cfg", steps=3, block=2, filters=False, balance="HEAD=2,CHEST=2,KNEE=2,SKIN=2")


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> tuple[Source, Path]:
    """DICOM files without folders of classes, and a run of them."""
    root = tmp_path_factory.mktemp("tagged")
    drawn = tiny_set(root / "set", form="dicom")
    for path in sorted((root / "set").rglob("*.dcm")):
        found = pydicom.dcmread(path)
        found.BodyPartExamined = PARTS[path.relative_to(root / "set").parts[-2]]
        found.save_as(path)
    source = Source(root / "set", label_tag=TAG, patient_regex=drawn.patient_regex)
    tiny_run(root / "run", source)
    return source, root / "run"


def labels(out: Path) -> dict[str, str | None]:
    """File -> label by the tag, of the made images."""
    return {r.path: r.label for r in scan(out / "images", label_tag=TAG, allow_synthetic=True).records}


def test_made_images_give_the_labels_that_were_asked_for(ground: tuple[Source, Path], tmp_path: Path) -> None:
    source, run = ground
    made = partial(augment.run, source, WANTED, model=run, device="cpu")
    made(out=tmp_path / "whole")
    for k in (1, 2):
        made(out=tmp_path / f"part{k}", shard=f"{k}/2")
    merge.run([tmp_path / "part1", tmp_path / "part2"], out=tmp_path / "merged")
    sample.run(run, labels="CHEST=2,KNEE=1", out=tmp_path / "sampled", steps=3, device="cpu")
    for name, count in (("whole", 8), ("merged", 8), ("sampled", 3)):
        found = labels(tmp_path / name)
        assert len(found) == count
        assert all(path.split("/")[0] == label for path, label in found.items()), name
        remake = partial(verify.remake_with, run, None)
        assert verify.run(tmp_path / name, regenerate=2, remake=remake).exit_code == 0


def test_runs_and_plans_made_before_are_read(ground: tuple[Source, Path], tmp_path: Path) -> None:
    source, run = ground
    settings = json.loads((run / SETTINGS).read_bytes())
    assert settings["label_tag"] == TAG
    assert settings["form"]["body_part"] is None
    old = tmp_path / "old"
    old.mkdir()
    for path in run.iterdir():
        (old / path.name).write_bytes(path.read_bytes())
    del settings["label_tag"]
    settings["form"]["body_part"] = "HEAD"
    (old / SETTINGS).write_text(json.dumps(settings))
    augment.run(source, WANTED, out=tmp_path / "out", model=old, device="cpu")
    assert set(labels(tmp_path / "out").values()) == set(PARTS.values())
    plan = read_plan((tmp_path / "out" / PLAN).read_bytes())
    assert plan.label_tag == TAG
    before = plan.model_copy(update={"label_tag": None}).to_bytes()
    assert b"label_tag" not in before
    assert read_plan(before).label_tag is None


def test_labels_from_folders_are_not_contradicted(ground: tuple[Source, Path], tmp_path: Path) -> None:
    from mgdm_cli.commands.modelling import prepare

    by_folder = prepare(Source(ground[0].data, patient_regex=ground[0].patient_regex), seed=0)
    assert by_folder.classes == tuple(PARTS)
    assert by_folder.frame.form.body_part is None
    assert by_folder.frame.form.modality is not None
