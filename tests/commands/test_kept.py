"""What commands keep beside their results, and whom they let into a folder: settings, the lock, earlier work."""

from __future__ import annotations

import json
import shutil
import tomllib
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from mgdm_cli.app import main
from mgdm_cli.commands import evaluate, sample, train, verify
from mgdm_cli.commands.finding import Training
from mgdm_cli.commands.modelling import prepare
from mgdm_cli.commands.reading import Source
from mgdm_cli.data.files import Lock
from mgdm_cli.errors import FolderInUse, OtherPlan, UsageError
from tests.tiny import tiny_run


def typed(capfd: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    code = main([str(word) for word in words])
    return code, capfd.readouterr().err


def test_train_names_its_folder_and_keeps_its_settings(
    ground: tuple[Source, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Without -o the run lies beside the set; its settings are those of the command, and start it again."""
    asked: list[Path] = []
    monkeypatch.setattr(train, "run", lambda source, *, out, **more: asked.append(out))
    monkeypatch.setattr("mgdm_cli.commands.train.finish", lambda result: None)
    assert main(["train", "--data", str(tmp_path / "set")]) == 0
    assert asked == [tmp_path / "set-run"]
    monkeypatch.undo()
    shutil.copytree(ground[1], tmp_path / "run")
    words = [
        "train",
        "--data",
        ground[0].data,
        "--patient-regex",
        ground[0].patient_regex,
        "-o",
        tmp_path / "run",
        "--width",
        "8",
    ]
    code, err = typed(capfd, *words)
    assert code == 0, err
    kept = tomllib.loads((tmp_path / "run/config.resolved.toml").read_text())
    assert (kept["width"], kept["patient-regex"]) == (8, ground[0].patient_regex)
    code, err = typed(capfd, "train", "--config", tmp_path / "run/config.resolved.toml", "-o", tmp_path / "run")
    assert code == 0, err


def test_images_are_made_again_by_the_run_in_the_cache(
    ground: tuple[Source, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MGDM_CACHE", str(tmp_path / "cache"))
    sample.run(ground[1], labels="grade1=2", out=tmp_path / "out", steps=3, device="cpu")
    again = partial(verify.remake_with, None, None)
    with pytest.raises(UsageError, match="not in the cache"):
        verify.run(tmp_path / "out", regenerate=1, remake=again)
    cached = Training().folder(prepare(ground[0], seed=0))
    shutil.copytree(ground[1], cached.with_name(cached.name + "-none"))
    tiny_run(cached, ground[0], seen=64)  # another of the same set
    found = verify.run(tmp_path / "out", regenerate=1, remake=again)
    assert (found.exit_code, found.document["made_again"]) == (0, 1)


def test_evaluate_shares_its_folder_with_nobody(
    ground: tuple[Source, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither with another process nor with an evaluation against other real images; its settings are kept."""
    shutil.copytree(ground[0].data, tmp_path / "made")
    for path in sorted((tmp_path / "made").rglob("*.png")):
        with Image.open(path) as picture:
            picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(path)
    out = tmp_path / "out"
    out.mkdir()
    with Lock(out / "lock"), pytest.raises(FolderInUse):
        evaluate.run(ground[0], tmp_path / "made", out=out, seen=32, device="cpu")
    flags = ["--real", ground[0].data, "--patient-regex", ground[0].patient_regex, "--synthetic", tmp_path / "made"]
    assert main(["evaluate", *map(str, flags), "--seen", "32", "-o", str(out), "--device", "cpu"]) in (0, 3)
    kept = tomllib.loads((out / "config.resolved.toml").read_text())
    assert (kept["real"], kept["seen"]) == (str(ground[0].data), 32)
    assert main(["evaluate", "--config", str(out / "config.resolved.toml"), "--arms", "strange"]) == 2
    assert "'strange' is no arm" in capfd.readouterr().err
    document = json.loads((out / "evaluation.json").read_bytes())
    (out / "evaluation.json").write_text(json.dumps({**document, "inputs_sha256": "0" * 64}))
    with pytest.raises(OtherPlan, match="other real images"):
        evaluate.run(ground[0], tmp_path / "made", out=out, seen=32, device="cpu")
