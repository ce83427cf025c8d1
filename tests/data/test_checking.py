"""`check` finds a flipped bit, a lost mark, a stranger, a forged row; and nothing in what is whole."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from mgdm_cli.data.checking import check, choose
from mgdm_cli.data.dataset import Dataset
from mgdm_cli.data.files import sha256_hex
from mgdm_cli.data.manifest import load
from mgdm_cli.data.plan import cut
from mgdm_cli.errors import BadInput, MissingInput
from tests.data import maker


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", maker.no_fsync)
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("whole") / "out"
    maker.make(root, maker.make_plan(20))
    return root


@pytest.fixture
def out(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "out"))


def wrong(root: Path) -> dict[str, str]:
    return {problem.path: problem.what for problem in check(root).problems}


def test_what_is_whole_has_no_problems(out: Path) -> None:
    counted: list[int] = []
    verdict = check(out, seen=counted.append)
    assert (verdict.problems, verdict.notes, verdict.finished) == ((), (), True)
    assert verdict.made == verdict.planned == maker.make_plan(20).quotas
    assert sum(counted) == 20


def test_classes_keep_their_names_in_a_set_of_plain_paths(tmp_path: Path) -> None:
    counts = {"Glioma größer 2 cm": 9, "[T1] a, b | c": 5, "a=b": 4}
    classes = tuple(counts)
    plan = maker.make_plan(18, classes=classes, real=counts, lots=cut(counts, classes, largest=8))
    maker.make(tmp_path / "out", plan)
    assert check(tmp_path / "out").problems == ()
    entries = load(tmp_path / "out")
    assert Counter(entry.label for entry in entries) == counts
    assert all(re.fullmatch(r"[A-Za-z0-9/._-]+", entry.path) for entry in entries)
    table = csv.DictReader((tmp_path / "out/images/metadata.csv").read_text("utf-8").splitlines())
    assert [(row["label"], f"images/{row['file_name']}") for row in table] == [(e.label, e.path) for e in entries]
    told = (tmp_path / "out/README.md").read_text("utf-8")
    assert "| Glioma größer 2 cm | 9 | 9 | 9 | 18 |" in told
    assert r"| \[T1\] a, b \| c | 5 |" in told


def test_images_that_no_line_vouches_for_go_from_such_folders(tmp_path: Path) -> None:
    counts = {"[a] b": 3}
    plan = maker.make_plan(3, classes=("[a] b",), real=counts, lots=cut(counts, ("[a] b",), largest=8))
    left = tmp_path / "out" / plan.image_path(plan.lots[0], 900)
    left.parent.mkdir(parents=True)
    maker.make(tmp_path / "first", plan)
    shutil.copytree(tmp_path / "first", tmp_path / "out", dirs_exist_ok=True)
    left.write_bytes(b"torn")
    (tmp_path / "out/.mgdm/done").unlink()
    maker.make(tmp_path / "out", plan)
    assert wrong(tmp_path / "out") == {}


def test_extra_files_of_a_run_are_no_problem(out: Path) -> None:
    (out / "report.html").write_text("x")
    (out / ".mgdm/log").write_text("x")
    assert wrong(out) == {}


def test_the_page_is_held_against_the_record_of_the_run(out: Path) -> None:
    (out / "report.html").write_text("x")
    (out / "run.json").write_text("{}")
    assert wrong(out) == {}, "made before the record had a hash"
    (out / "run.json").write_text(json.dumps({"report_sha256": sha256_hex(b"x")}))
    assert wrong(out) == {}
    (out / "report.html").write_text("y")
    assert wrong(out) == {"report.html": "was changed after it was written"}
    (out / "run.json").write_text("[")
    assert wrong(out) == {"run.json": "is damaged"}
    shutil.rmtree(out / ".mgdm")
    (out / "report.html").unlink()
    assert wrong(out) == {}, "passed on as the card says, without the page and the house"


def test_every_flipped_byte_of_an_image_is_found(out: Path) -> None:
    path = next((out / "images").glob("*/*.png"))
    name, data = path.relative_to(out).as_posix(), path.read_bytes()
    for at in range(0, len(data), 7):
        path.write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
        assert name in wrong(out)
    path.write_bytes(data)
    assert wrong(out) == {}


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "combined.csv",
        "croissant.json",
        "card.json",
        "datalist.json",
        "images/metadata.csv",
        "rejected.jsonl",
    ],
)
def test_a_changed_or_missing_paper_is_found(out: Path, name: str) -> None:
    with (out / name).open("ab") as stream:
        stream.write(b" ")
    assert wrong(out) == {name: "was changed after it was written"}
    (out / name).unlink()
    assert wrong(out) == {name: "is missing"}


def test_missing_strange_and_linked_files_are_found(out: Path) -> None:
    one, two = (out / entry.path for entry in load(out)[:2])
    data = one.read_bytes()
    one.unlink()
    two.unlink()
    (out / "elsewhere.png").write_bytes(data)
    two.symlink_to(out / "elsewhere.png")
    stranger = one.with_name("mine.png")
    stranger.write_bytes(b"x")
    one.with_name(".DS_Store").write_bytes(b"left by a file manager")
    found = {Path(name).name: what for name, what in wrong(out).items()}
    assert found == {
        one.name: "is missing",
        two.name: "is a link, not a file",
        "mine.png": "is not in manifest.jsonl",
    }


def forge(out: Path, number: int, **changes: object) -> str:
    """Change one row of the manifest, and the hash in the done marker with it; the path of its image."""
    lines = (out / "manifest.jsonl").read_bytes().splitlines()
    row = json.loads(lines[number]) | changes
    lines[number] = json.dumps(row).encode()
    data = b"\n".join(lines) + b"\n"
    (out / "manifest.jsonl").write_bytes(data)
    done = json.loads((out / ".mgdm/done").read_bytes())
    done["files"]["manifest.jsonl"] = sha256_hex(data)
    (out / ".mgdm/done").write_text(json.dumps(done))
    return str(row["path"])


def test_a_forged_row_is_found(out: Path) -> None:
    path = forge(out, 3, copy_score=0.99)
    assert "journal" in wrong(out)[path]
    (out / ".mgdm/journal").unlink()
    assert wrong(out) == {}  # nothing left to compare with
    forge(out, 3, label="adipose", class_index=0)
    assert "another label" in wrong(out)[path]
    forge(out, 4, index=999_999)
    assert any("not of this plan" in what for what in wrong(out).values())


def test_a_mark_taken_out_is_found_even_with_a_forged_hash(out: Path) -> None:
    entry = load(out)[0]
    data = (out / entry.path).read_bytes().replace(b"Synthetic\0YES", b"Synthetic\0NO!")
    (out / entry.path).write_bytes(data)
    forge(out, 0, sha256=sha256_hex(data), bytes=len(data))
    shutil.rmtree(out / ".mgdm")
    assert wrong(out) == {entry.path: "lacks Synthetic YES"}


def test_twins_are_found(out: Path) -> None:
    one, two = load(out)[:2]
    data = (out / one.path).read_bytes()
    (out / two.path).write_bytes(data)
    forge(out, 1, sha256=sha256_hex(data), bytes=len(data))
    assert any(f"byte for byte {one.path}" in problem.what for problem in check(out).problems)


def test_an_unfinished_set_is_said_to_be_so(tmp_path: Path) -> None:
    with Dataset.open(tmp_path / "out", maker.make_plan(20)) as dataset:
        maker.fill(dataset, 2)
    assert set(wrong(tmp_path / "out")) == {".mgdm/done", "manifest.jsonl"}


def test_a_set_passed_on_without_its_house_can_be_checked(out: Path) -> None:
    shutil.rmtree(out / ".mgdm")
    verdict = check(out)
    assert verdict.problems == ()
    assert verdict.notes
    assert not verdict.finished


def test_pictures_are_checked_and_may_be_gone_as_a_whole(out: Path) -> None:
    picture = next((out / ".mgdm/pictures").glob("*/*"))
    picture.write_bytes(b"x")
    assert wrong(out) == {picture.relative_to(out).as_posix(): "was changed after it was written"}
    shutil.rmtree(out / ".mgdm/pictures")
    assert wrong(out) == {}
    assert any("pictures" in note for note in check(out).notes)


def test_pictures_that_never_were_are_not_missed(tmp_path: Path) -> None:
    with Dataset.open(tmp_path / "out", maker.make_plan(20)) as dataset:
        for lot in dataset.lots:
            while dataset.wants(lot):
                attempt = len(dataset.blocks(lot))
                files, accepted, _ = maker.block(dataset.plan, lot, attempt, dataset.accepted(lot))
                images = {name: data for name, data in files.items() if name.startswith("images/")}
                dataset.commit(lot, attempt, files=images, accepted=accepted)
        dataset.finish()
    verdict = check(tmp_path / "out")
    assert (verdict.problems, verdict.notes) == ((), ())


def test_damaged_records_are_bad_input_not_a_crash(out: Path, tmp_path: Path) -> None:
    (out / ".mgdm/done").write_bytes(b"{}")
    assert wrong(out) == {".mgdm/done": "is damaged"}
    (out / "manifest.jsonl").write_bytes(b'{"id": 3}\n')
    with pytest.raises(BadInput, match=r"line 1: \w+"):
        check(out)
    (out / "plan.json").write_bytes(b"{}")
    with pytest.raises(BadInput, match="plan"):
        check(out)
    for nothing in (tmp_path / "nowhere", out / "README.md"):
        with pytest.raises(MissingInput):
            check(nothing)


def test_a_shard_is_checked_against_its_own_lots(tmp_path: Path) -> None:
    maker.make(tmp_path / "out", maker.make_plan(20), (2, 2))
    verdict = check(tmp_path / "out")
    assert (verdict.problems, verdict.shard) == ((), (2, 2))
    assert verdict.made == verdict.planned
    assert sum(verdict.made.values()) < 20


def test_who_is_made_again_cannot_be_picked(out: Path) -> None:
    entries = load(out)
    assert choose(entries, 3) == choose(entries[::-1], 3)
    assert len(choose(entries, 99)) == 20
