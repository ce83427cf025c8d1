"""`mgdm distill` as a user meets it: a student from a run, used by `sample` and `augment` with the same flags."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from mgdm_cli.commands import augment, distill, sample, train, verify
from mgdm_cli.commands.reading import Source
from mgdm_cli.commands.wanted import Wanted
from mgdm_cli.data.files import sha256_file
from mgdm_cli.data.manifest import load
from mgdm_cli.engine import scaling
from mgdm_cli.engine.run import DENOISER, GUIDE, JUDGE, read_settings
from mgdm_cli.errors import NeedsTraining, OtherPlan, UsageError
from tests.tiny import tree

pytestmark = pytest.mark.usefixtures("any_guide")
METHODS = ("paths", "consistency", "fdistill", "ddgan")


@pytest.fixture(scope="module")
def students(ground: tuple[Source, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A student of each method, barely taught."""
    root, made = tmp_path_factory.mktemp("students"), {}
    for method in METHODS:
        made[method] = root / method
        result = distill.run(ground[0], ground[1], out=made[method], method=method, seen=64, device="cpu")
        assert result.exit_code == 0
        assert result.document["method"] == method
    return made


def test_a_student_is_a_run_with_its_teachers_judges(ground: tuple[Source, Path], students: dict[str, Path]) -> None:
    for method, folder in students.items():
        student = read_settings(folder).student
        assert student is not None
        assert student.steps == (4 if method == "ddgan" else 1)
        assert student.grid[-1] == 0
        assert student.teacher == sha256_file(ground[1] / DENOISER)
        for name in (GUIDE, JUDGE):
            assert (folder / name).read_bytes() == (ground[1] / name).read_bytes()
        assert not list(folder.glob("checkpoint*"))


@pytest.mark.parametrize("method", METHODS)
def test_sample_and_augment_take_a_student(
    ground: tuple[Source, Path], students: dict[str, Path], tmp_path: Path, method: str
) -> None:
    result = sample.run(students[method], labels="grade0=3,grade1=2", out=tmp_path / "plain", device="cpu", block=2)
    assert result.document["images"] == 5
    steps = 4 if method == "ddgan" else 1
    assert result.document["evaluations_per_image"] == pytest.approx(steps * 6 / 5), "one block of two is half used"
    wanted = Wanted(balance="grade1=4,grade2=4", guidance="uncertainty", filters=False, block=4)
    done = augment.run(ground[0], wanted, out=tmp_path / "hard", model=students[method], device="cpu")
    assert done.document["images"] == 8
    assert done.document["evaluations_per_image"] <= 8
    entries = load(tmp_path / "hard")
    assert all(entry.stage == "disturbed" and entry.sampler == "ddpm" for entry in entries)
    remake = partial(verify.remake_with, students[method], None)
    assert verify.run(tmp_path / "hard", regenerate=2, remake=remake).exit_code == 0
    chosen = replace(wanted, mode="select")
    picked = augment.run(ground[0], chosen, out=tmp_path / "picked", model=students[method], device="cpu")
    assert picked.document["evaluations_per_image"] == 4 * steps
    foreseen = augment.run(
        ground[0], wanted, out=tmp_path / "dry", model=students[method], device="cpu", dry_run=True
    ).document
    assert foreseen["evaluations"] <= 8 * 8 / 0.6 + 1
    assert not (tmp_path / "dry").exists()


def test_a_student_is_asked_for_nothing_it_was_not_distilled_for(
    ground: tuple[Source, Path], students: dict[str, Path], tmp_path: Path
) -> None:
    one = students["consistency"]
    for more, flag in (({"steps": 7}, "--steps"), ({"scale": 2.0}, "--scale"), ({"guidance": "auto"}, "auto")):
        with pytest.raises(UsageError, match=flag):
            sample.run(one, labels="grade0=1", out=tmp_path / "no", device="cpu", **more)
    with pytest.raises(UsageError, match=r"--on x0.*--model"):
        augment.run(ground[0], Wanted(4, on="x0"), out=tmp_path / "no", model=one, device="cpu")
    with pytest.raises(UsageError, match="student itself"):
        distill.run(ground[0], one, out=tmp_path / "no", seen=64, device="cpu")
    with pytest.raises(UsageError, match="--divergence"):
        distill.run(ground[0], ground[1], out=tmp_path / "no", divergence="js", seen=64, device="cpu")
    with pytest.raises(UsageError, match="--steps"):
        distill.run(ground[0], ground[1], out=tmp_path / "no", steps=3, seen=64, device="cpu")
    with pytest.raises(UsageError, match="from-scratch"):
        distill.run(ground[0], ground[1], out=tmp_path / "no", scratch=True, seen=64, device="cpu")
    with pytest.raises(NeedsTraining):
        distill.run(ground[0], ground[1], out=tmp_path / "no", device="cpu")
    with pytest.raises(NeedsTraining, match="too short"):
        distill.run(ground[0], ground[1], out=tmp_path / "no", device="cpu", budget="0.001s")
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(("more", "flag"), [({"method": "copy"}, "--method"), ({"steps": 3}, "--steps")])
def test_what_is_on_no_menu_is_refused_before_a_scale_is_measured(
    ground: tuple[Source, Path], tmp_path: Path, more: dict[str, object], flag: str
) -> None:
    run = shutil.copytree(ground[1], tmp_path / "run")
    (run / scaling.FILE).unlink()
    with pytest.raises(UsageError, match=flag):
        distill.run(ground[0], run, out=tmp_path / "no", seen=64, device="cpu", **more)  # type: ignore[arg-type]
    assert not (run / scaling.FILE).exists()


def test_a_folder_that_holds_another_student_is_left_alone(
    ground: tuple[Source, Path], students: dict[str, Path]
) -> None:
    before = sha256_file(students["consistency"] / DENOISER)
    for more in ({"steps": 2}, {"method": "fdistill"}, {"scale": 1.0}, {"seed": 1}):
        asked = {"method": "consistency", **more}
        with pytest.raises(OtherPlan):
            distill.run(ground[0], ground[1], out=students["consistency"], seen=64, device="cpu", **asked)  # type: ignore[arg-type]
    with pytest.raises(OtherPlan):
        distill.run(ground[0], ground[1], out=ground[1], seen=64, device="cpu")
    with pytest.raises(OtherPlan, match="student"):
        train.run(ground[0], out=students["consistency"], seen=64, device="cpu")
    assert sha256_file(students["consistency"] / DENOISER) == before


def test_a_folder_of_hidden_files_is_nobodys(ground: tuple[Source, Path], tmp_path: Path) -> None:
    (tmp_path / ".DS_Store").write_bytes(b"")
    told = distill.run(ground[0], ground[1], out=tmp_path, seen=64, device="cpu", dry_run=True)
    assert told.document["seen"] == 64
    with pytest.raises(NeedsTraining, match="too short"):
        train.run(ground[0], out=tmp_path, budget="0.001s", device="cpu")


def test_dry_run_writes_nothing(ground: tuple[Source, Path], tmp_path: Path) -> None:
    run = shutil.copytree(ground[1], tmp_path / "run")
    (run / scaling.FILE).unlink()
    before = tree(run)
    result = distill.run(ground[0], run, out=tmp_path / "no", budget="10m", device="cpu", dry_run=True)
    assert tree(run) == before, "nor does it measure the scale"
    assert result.document["seen"] > 2000
    assert not (tmp_path / "no").exists()


@pytest.mark.slow
def test_stopped_by_a_signal_it_ends_with_the_same_weights(ground: tuple[Source, Path], tmp_path: Path) -> None:
    words = [
        sys.executable, "-m", "mgdm_cli", "distill", str(ground[1]), "--data", str(ground[0].data), "--patient-regex",
        str(ground[0].patient_regex), "--seen", "400", "--device", "cpu", "--quiet", "--json",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    whole = subprocess.run([*words, "-o", str(tmp_path / "whole")], capture_output=True, env=environment, check=True)
    assert json.loads(whole.stdout)["seen"] == 400
    child = subprocess.Popen([*words, "-o", str(tmp_path / "cut")], stdout=subprocess.DEVNULL, env=environment)
    log = tmp_path / "cut" / "log.jsonl"
    while child.poll() is None and not log.exists():
        time.sleep(0.01)
    child.send_signal(signal.SIGTERM)
    assert child.wait() == 143
    assert list((tmp_path / "cut").glob("checkpoint-*.safetensors"))
    subprocess.run([*words, "-o", str(tmp_path / "cut")], capture_output=True, env=environment, check=True)
    assert sha256_file(tmp_path / "cut" / DENOISER) == sha256_file(tmp_path / "whole" / DENOISER)


def test_the_same_seed_gives_the_same_picture_in_any_place(students: dict[str, Path]) -> None:
    """A stochastic student's latent belongs to the image too."""
    from mgdm_cli.data.plan import Recipe
    from mgdm_cli.engine.decoding import make_block
    from mgdm_cli.engine.run import load_parts

    for method, folder in students.items():
        settings = read_settings(folder)
        parts, _ = load_parts(folder, settings, torch.device("cpu"))
        steps = parts.model.process.grid(4 if method == "ddgan" else 1)
        recipe = Recipe(process="edm", sampler="ddpm", steps=len(steps) - 1)
        again = [
            make_block(parts, recipe, run_seed=5, lot=0, attempt=0, block=block, class_index=0).after
            for block in (2, 4)
        ]
        assert torch.allclose(again[0], again[1][:2], atol=0.05), "the batch's size moves a bit of bfloat16, no more"
