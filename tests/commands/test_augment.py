"""`mgdm augment` as a user meets it: balanced, marked, in the input's format; stopped, shared out, continued, verified."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from mgdm_cli import app
from mgdm_cli.commands import augment, merge, sample, verify
from mgdm_cli.commands.finding import Training
from mgdm_cli.commands.modelling import prepare
from mgdm_cli.commands.reading import Source
from mgdm_cli.commands.wanted import SCALE, Wanted
from mgdm_cli.data.checking import open_plan
from mgdm_cli.data.files import sha256_file
from mgdm_cli.data.folder import read_pixels, scan
from mgdm_cli.data.manifest import load, load_rejected
from mgdm_cli.data.plan import SCALE_BETWEEN, Filters
from mgdm_cli.engine import gates, scaling
from mgdm_cli.engine.run import SIBLINGS
from mgdm_cli.errors import PARTIAL, NeedsTraining, OtherPlan, UsageError
from tests.tiny import any_guide_will_do, tiny_run, tiny_set, tree

pytestmark = pytest.mark.usefixtures("any_guide")
WANTED = Wanted(24, guidance="uncertainty", steps=6, block=4)


def loose(wanted: Wanted = WANTED, **more: object) -> Wanted:
    """Without the gates that nets trained for a second cannot pass."""
    return replace(wanted, filters=False, **more)  # type: ignore[arg-type]


def make(ground: tuple[Source, Path], out: Path, wanted: Wanted | None = None, **more: object) -> Path:
    result = augment.run(ground[0], wanted or loose(), out=out, model=ground[1], device="cpu", **more)  # type: ignore[arg-type]
    assert result.exit_code == 0
    return out


@pytest.fixture(scope="module")
def made(ground: tuple[Source, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The main job, done; a test that changes its files works on a copy."""
    with pytest.MonkeyPatch.context() as patch:
        any_guide_will_do(patch)
        return make(ground, tmp_path_factory.mktemp("made") / "out")


def test_the_main_job_end_to_end(ground: tuple[Source, Path], made: Path) -> None:
    entries = load(made)
    assert len(entries) == 24
    classes = Counter(e.label for e in entries)
    assert max(classes.values()) - min(classes.values()) <= 1, "as many of each class, unless something else is said"
    assert set(classes) == set(prepare(ground[0], seed=0).classes)
    assert len({e.sha256 for e in entries}) == 24, "no two alike"
    assert len({e.seed for e in entries}) == 24
    assert all(e.stage == "disturbed" and e.before and e.after for e in entries)
    run = json.loads((made / "run.json").read_bytes())
    assert run["images"] == 24
    assert run["evaluations_per_image"] <= 40
    page = (made / "report.html").read_text()
    assert "grade3" in page
    assert "<script" not in page
    papers = ("images/metadata.csv", "combined.csv", "datalist.json", "croissant.json", "README.md", "card.json")
    for name in papers:
        assert (made / name).stat().st_size > 0, name
    assert verify.run(made).exit_code == 0


def test_fewer_than_asked_for_ends_partial_and_says_why(ground: tuple[Source, Path], tmp_path: Path) -> None:
    wanted = loose(n=500, max_per_real=0.1, guidance="cfg", steps=3)
    result = augment.run(ground[0], wanted, out=tmp_path / "out", model=ground[1], device="cpu", real_images=False)
    made = result.document["images"]
    assert 0 < made < 20
    assert result.exit_code == 5
    why = f"500 images were asked for and {made} planned"
    assert any(note.startswith(why) for note in result.document["notes"])
    page = (tmp_path / "out" / "report.html").read_text()
    assert why in page
    assert "; 500 were asked for" in page


def test_nothing_of_the_real_data_stands_in_the_manifest(ground: tuple[Source, Path], made: Path) -> None:
    text = (made / "manifest.jsonl").read_text() + (made / "rejected.jsonl").read_text()
    for record in scan(ground[0].data, patient_regex=ground[0].patient_regex).records:
        assert Path(record.path).stem not in text
        assert record.patient is None or record.patient not in text


def test_a_flipped_byte_is_found(made: Path, tmp_path: Path) -> None:
    out = shutil.copytree(made, tmp_path / "out")
    victim = out / load(out)[3].path
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    result = verify.run(out)
    assert result.exit_code == 65
    assert any(load(out)[3].path in problem["path"] for problem in result.document["problems"])


def test_the_same_command_again_changes_nothing_and_another_plan_is_refused(
    ground: tuple[Source, Path], made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = shutil.copytree(made, tmp_path / "out")
    before = tree(out)
    with monkeypatch.context() as patched:  # twins of images that are all there are not looked for
        patched.setattr("mgdm_cli.engine.generation.detail", lambda x0: pytest.fail("an image was read back"))
        make(ground, out)
    assert tree(out) == before
    with pytest.raises(OtherPlan):
        make(ground, out, loose(strength=0.1))
    assert tree(out) == before
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("mine")
    with pytest.raises(OtherPlan):
        make(ground, foreign)
    assert [p.name for p in foreign.iterdir()] == ["thesis.txt"]


def test_two_shards_merged_equal_one_run(ground: tuple[Source, Path], tmp_path: Path) -> None:
    wanted = loose(balance="grade1=70,grade2=4,grade3=3", n=None, guidance="cfg", steps=3)
    whole = make(ground, tmp_path / "whole", wanted)
    shards = [make(ground, tmp_path / f"shard{k}", wanted, shard=f"{k}/2") for k in (1, 2)]
    assert all(len(load(shard)) < 77 for shard in shards)
    merge.run(shards, out=tmp_path / "merged")
    assert tree(tmp_path / "merged", without=("report.html",)) == tree(whole, without=("report.html",))


def test_killed_at_any_moment_it_ends_with_the_same_bytes(ground: tuple[Source, Path], tmp_path: Path) -> None:
    whole = command(ground, tmp_path / "whole")
    assert whole.wait() == 0
    broken, rng, killed = tmp_path / "broken", random.Random(0), 0
    for _ in range(12):
        child = command(ground, broken)
        started = time.monotonic()
        while child.poll() is None and not (broken / ".mgdm" / "journal").exists() and time.monotonic() - started < 60:
            time.sleep(0.01)
        time.sleep(rng.uniform(0.0, 0.5))
        if child.poll() is None:
            child.send_signal(signal.SIGKILL)
            killed += 1
        if child.wait() == 0:
            break
    else:
        assert command(ground, broken).wait() == 0
    assert killed >= 2
    assert tree(broken) == tree(tmp_path / "whole")


def command(ground: tuple[Source, Path], out: Path) -> subprocess.Popen[bytes]:
    words = [
        "augment", "--data", ground[0].data, "--model", ground[1], "--n", 60, "--guidance", "cfg", "--no-filters", "--steps", 6,
        "--batch-size", 2, "--patient-regex", ground[0].patient_regex, "--device", "cpu", "--quiet", "-o", out,
    ]  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "-m", "mgdm_cli", *map(str, words)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


@pytest.mark.parametrize(
    ("form", "suffix", "dtype"),
    [("png16", ".png", "uint16"), ("png16grey", ".png", "uint16"), ("dicom", ".dcm", "uint16"),
     ("nifti", ".nii.gz", None), ("jpeg", ".png", "uint8")],
)  # fmt: skip
def test_the_input_format_and_depth_come_out(form: str, suffix: str, dtype: str | None, tmp_path: Path) -> None:
    source = tiny_set(tmp_path / "set", form=form)
    tiny_run(tmp_path / "run", source)
    out = make((source, tmp_path / "run"), tmp_path / "out", loose(n=8, guidance="cfg"))
    real = scan(source.data, patient_regex=source.patient_regex)
    made = scan(out / "images", allow_synthetic=True)
    assert len(made.records) == 8
    for record in made.records:
        assert record.path.endswith(suffix)
        assert record.form.channels == real.records[0].form.channels
        assert dtype is None or record.form.dtype == dtype
        assert record.form.spacing_mm == real.records[0].form.spacing_mm
        if form in ("png16", "png16grey"):
            assert len(torch.unique(torch.from_numpy(read_pixels(made, record).pixels))) > 256, (
                "more than 8 bits are used"
            )
    assert verify.run(out).exit_code == 0
    if form == "nifti":
        assert all((out / e.path.replace(".nii.gz", ".json")).is_file() for e in load(out))
        assert made.records[0].form.affine is not None
        ours, theirs = (np.array(found.records[0].form.affine) for found in (made, real))
        assert np.allclose(ours[:3, :2], theirs[:3, :2], atol=1e-6)
        middle = ours @ [(made.records[0].form.width - 1) / 2, (made.records[0].form.height - 1) / 2, 0, 1]
        assert np.allclose(middle[:2], 0, atol=1e-4), "the image lies about the origin, not where a patient lay"


def test_another_format_may_be_asked_for(ground: tuple[Source, Path], tmp_path: Path) -> None:
    """DICOM from a model that learnt from PNG: the same pixels, verified, made again, and never mixed with another format."""
    few = loose(n=6, guidance="cfg")
    plain = make(ground, tmp_path / "plain", few)
    out = make(ground, tmp_path / "out", loose(few, write_as="op"))
    pairs = list(zip(load(plain), load(out), strict=True))
    assert all(b.path == a.path.replace(".png", ".dcm") and b.sop_instance_uid for a, b in pairs)
    images = [
        {r.path.rpartition(".")[0]: read_pixels(found, r).pixels for r in found.records}
        for found in (scan(root / "images", allow_synthetic=True) for root in (plain, out))
    ]
    assert images[0].keys() == images[1].keys()
    assert all((pixels == images[1][name]).all() for name, pixels in images[0].items())
    assert (tmp_path / "out/report.html").is_file()
    again = verify.run(out, regenerate=2, remake=partial(verify.remake_with, ground[1], None))
    assert (again.exit_code, again.document["made_again"]) == (0, 2)
    assert not any("other means" in note for note in again.document["notes"])
    with pytest.raises(OtherPlan, match="form"):
        make(ground, tmp_path / "out", few)
    with pytest.raises(UsageError, match="--write-as ct: takes grey images with a pixel spacing"):
        make(ground, tmp_path / "other", loose(few, write_as="ct"))
    assert not (tmp_path / "other").exists()
    code = sample.run(ground[1], labels="grade1=2", out=tmp_path / "sampled", steps=4, write_as="tiff").exit_code
    assert code == 0
    assert len(list((tmp_path / "sampled/images/grade1").glob("*.tif*"))) == 2


def test_sample_writes_whatever_the_model_makes(
    ground: tuple[Source, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gates, "FLAT", 9.0)
    monkeypatch.setattr("mgdm_cli.engine.planning.LEAST_ACCEPTANCE", 1)
    done = sample.run(ground[1], labels="grade1=3", out=tmp_path / "all", steps=3, block=2, device="cpu")
    assert (done.exit_code, done.document["images"], done.document["rejected"]) == (0, 3, {"surplus": 1})
    assert open_plan(tmp_path / "all").recipe.filters == Filters(label=False, blank=False)
    monkeypatch.setattr(gates.Gates, "check", lambda *given: [gates.Verdict("lost", "", False, None, None)] * 2)
    done = sample.run(ground[1], labels="grade1=3", out=tmp_path / "none", steps=3, block=2, device="cpu")
    assert (done.exit_code, done.document["exit_code"]) == (PARTIAL, PARTIAL)
    assert done.lines[0] == "class grade1: 3 images short"


def test_the_settings_in_a_folder_do_the_same_again(ground: tuple[Source, Path], tmp_path: Path) -> None:
    """Every flag is there, none that was not said, and merge keeps those of its shards: the plan is the same."""

    def done(*words: object) -> int:
        return app.main([*map(str, words), "--quiet", "--device", "cpu"])

    settings = "config.resolved.toml"
    drawn = ("--sampler", "ddim", "--knob", "eta=0.5", "--steps", 3, "--batch-size", 2, "--write-as", "tiff")
    sampled = tmp_path / "sampled"
    assert done("sample", ground[1], "--labels", "grade1=3", "-o", sampled, *drawn) == 0
    assert "scale" not in tomllib.loads((sampled / settings).read_text())
    assert done("sample", "--config", sampled / settings) == 0
    read = ("--data", ground[0].data, "--patient-regex", ground[0].patient_regex, "--model", ground[1])
    job = ("augment", *read, "--guidance", "cfg", "--no-filters", "--balance", "grade1=2,grade2=2", *drawn)
    parts = [tmp_path / f"part{k}" for k in (1, 2)]
    for k, part in enumerate(parts, 1):
        assert done(*job, "--shard", f"{k}/2", "-o", part) == 0
    assert done("augment", "--config", parts[0] / settings) == 0
    merged = tmp_path / "merged"
    assert app.main(["merge", *map(str, parts), "-o", str(merged)]) == 0
    assert done("augment", "--config", merged / settings, "-o", merged) == 0


def test_autoguidance_does_not_take_the_scale_that_was_measured_for_cfg(
    ground: tuple[Source, Path], tmp_path: Path
) -> None:
    run = shutil.copytree(ground[1], tmp_path / "run")
    found = json.loads((run / scaling.FILE).read_bytes())
    (run / scaling.FILE).write_text(json.dumps({**found, "scale": 1.0, "between": [0.3, 2.0]}))
    planned = []
    for guidance in ("cfg", "auto"):
        sample.run(run, labels="grade1=1", out=tmp_path / guidance, steps=3, guidance=guidance)
        planned.append(json.loads((tmp_path / guidance / "plan.json").read_bytes())["recipe"])
    assert [(r["guidance"], r["scale"], r["scale_between"]) for r in planned] == [
        ("none", 1.0, [0.3, 2.0]),
        ("auto", SCALE, list(SCALE_BETWEEN)),
    ]


def test_without_a_model_or_a_budget_nothing_is_trained(
    ground: tuple[Source, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MGDM_CACHE", str(tmp_path / "cache"))
    with pytest.raises(NeedsTraining) as caught:
        augment.run(ground[0], WANTED, out=tmp_path / "out", device="cpu")
    assert caught.value.exit_code == 4
    assert not (tmp_path / "cache").exists()
    with pytest.raises(NeedsTraining, match="needs"):
        augment.run(ground[0], WANTED, out=tmp_path / "out", device="cpu", budget="1s")


def test_a_guide_no_better_than_chance_is_refused(
    tmp_path: Path, ground: tuple[Source, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    from mgdm_cli.engine import weights
    from mgdm_cli.engine.planning import require_skill
    from mgdm_cli.engine.run import GUIDE, JUDGE
    from mgdm_cli.errors import GateFailed

    tensors, header = weights.load(ground[1] / GUIDE)
    for name in (GUIDE, JUDGE):
        weights.save(tmp_path / name, tensors, {**header, "accuracy": [0.3, 0.2, 0.4], "chance": 0.25})
    with pytest.raises(GateFailed, match="noise"):
        require_skill(tmp_path, "uncertainty")
    assert require_skill(tmp_path, "cfg")["guide"].accuracy == 0.3


def test_gates_reject_with_reasons_and_refill(
    ground: tuple[Source, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the judge sees the class in every other candidate, the others are told, and later blocks bring as many more."""
    seen = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]])  # grade0, grade1, grade0, ...
    monkeypatch.setattr("mgdm_cli.engine.gates.logits_of", lambda judge, x0: seen.repeat(len(x0) // 2, 1))
    out = tmp_path / "out"
    result = augment.run(
        ground[0], Wanted(n=None, balance="grade0=6", guidance="none", steps=4, block=4, max_per_real=20),
        out=out, model=ground[1], device="cpu",
    )  # fmt: skip
    assert result.exit_code == 0
    assert (result.document["images"], result.document["candidates"]) == (6, 12)
    entries, rejected = load(out), load_rejected(out)
    assert [(e.block, e.row) for e in entries] == [(f"0.{k}", row) for k in range(3) for row in (0, 2)]
    assert [(r.block, r.row) for r in rejected] == [(f"0.{k}", row) for k in range(3) for row in (1, 3)]
    assert {(r.reason, r.detail) for r in rejected} == {("label-lost", "the judge sees grade1")}
    plan = open_plan(out)
    seeds = [(e.block, e.row, e.seed) for e in entries] + [(r.block, r.row, r.seed) for r in rejected]
    assert all(seed == plan.seed_of(plan.lots[0], int(block[2:]), row) for block, row, seed in seeds)
    told = "copy gate: only nearly the same picture is refused"  # so small a set cannot calibrate it
    assert told in capfd.readouterr().err
    page = (out / "report.html").read_text()
    assert "Only nearly the same pictures as training images were refused" in page
    assert "were to be expected" not in page


def test_dry_run_writes_nothing(ground: tuple[Source, Path], tmp_path: Path) -> None:
    result = augment.run(ground[0], WANTED, out=tmp_path / "out", model=ground[1], device="cpu", dry_run=True)
    assert not (tmp_path / "out").exists()
    assert result.document["images"] == 24
    assert result.document["seconds"]["generation"] >= 0


def test_dry_run_tells_of_a_run_that_was_begun(
    ground: tuple[Source, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its length is known: no budget is needed to tell it, as none is to continue it. Flips make another run."""
    monkeypatch.setenv("MGDM_CACHE", str(tmp_path / "cache"))
    tiny_run(Training().folder(prepare(ground[0], seed=0)), ground[0], trained=False, seen=80_000)
    told = augment.run(ground[0], WANTED, out=tmp_path / "out", device="cpu", dry_run=True).document
    assert told["seconds"]["training"] > 0
    with pytest.raises(NeedsTraining):
        augment.run(ground[0], WANTED, out=tmp_path / "out", device="cpu", dry_run=True, flip=True)


def test_the_guides_siblings_are_trained_once_and_belong_to_the_plan(
    ground: tuple[Source, Path], tmp_path: Path
) -> None:
    ground = ground[0], shutil.copytree(ground[1], tmp_path / "run")
    out = make(ground, tmp_path / "out", loose(n=4, guidance="disagreement"))
    siblings = [ground[1] / name for name in SIBLINGS]
    hashes = [sha256_file(path) for path in siblings]
    assert len(set(hashes)) == 2
    plan = json.loads((out / "plan.json").read_bytes())
    assert plan["recipe"]["extra"]["siblings"] == hashes
    assert all(e.before and e.before.disagreement is not None for e in load(out))
    make(ground, out, loose(n=4, guidance="disagreement"))
    assert [sha256_file(path) for path in siblings] == hashes
    again = verify.run(out, regenerate=1, remake=lambda *args: verify.remake_with(ground[1], None, *args))
    assert again.exit_code == 0
