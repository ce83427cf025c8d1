"""Workers: what kills, hangs or starves a decoder is one bad file, and nothing else is lost."""

from __future__ import annotations

import sys
import threading
import time
import zlib
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from mgdm_cli.data import folder
from mgdm_cli.data.codecs import Ask
from mgdm_cli.data.proving import Proof, Wish, answer, proof_of, prove
from mgdm_cli.data.workers import Limits, proofs
from mgdm_cli.errors import BadInput, IoFailed, MgdmError, UsageError
from tests.data.hostile import dicom, good, nested, nifti, png, png_chunks, write

GREEDY = 9_990  # pixels a side: just below the limit of what is decoded at all


@pytest.fixture
def greedy(tmp_path: Path) -> Path:
    """A folder of ten good images and one of 100 kB that unpacks to 100 million pixels, 400 MB as they are learnt from."""
    root = tmp_path / "in"
    good(root, 10)
    row = b"\0" + bytes(range(250)) * 40
    engine = zlib.compressobj(1)
    data = b"".join(engine.compress(row[: GREEDY + 1]) for _ in range(GREEDY)) + engine.flush()
    write(root / "a/greedy.png", png_chunks(GREEDY, GREEDY, data))
    return root


def workers() -> list[psutil.Process]:
    """The processes that read images for this one."""
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            found += [child] if "mgdm_cli.data.worker" in child.cmdline() else []
    return found


def scanned(root: Path, limits: Limits) -> folder.Scan:
    return folder.scan(root, decode=True, limits=limits, skip_bad=True, max_skip=1.0)


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        (Limits(seconds=0.0), "could not be read safely: it took too long"),
        (Limits(memory=0), "the PNG needs more memory than one file may take"),
        (Limits(wait=0.01), "could not be read safely: it took longer than 0.01 s"),
    ],
    ids=["processor", "memory", "patience"],
)
def test_a_greedy_file_is_one_bad_file(greedy: Path, limits: Limits, says: str) -> None:
    alone = limits != Limits(memory=0)  # a slow machine may not load its decoders in so short a time
    if alone:
        for path in greedy.glob("a/good*"):
            path.unlink()
    scan = scanned(greedy, limits)
    assert [r.path for r in scan.refused] == ["a/greedy.png"]
    assert says in scan.refused[0].why
    assert len(scan.records) == (0 if alone else 10)
    assert not workers()


def test_the_files_behind_a_deadly_one_are_looked_at(greedy: Path) -> None:
    """The worker dies with more files before it: another one takes them over, in their order."""
    files = sorted((greedy / "a").iterdir())
    bad = next(k for k, path in enumerate(files) if path.name == "greedy.png")
    order = [files[bad], *files[:bad], *files[bad + 1 :]]

    def kill_the_first() -> None:
        while not (found := workers()):
            time.sleep(0.01)
        found[0].kill()  # it cannot be done with the greedy file yet

    killer = threading.Thread(target=kill_the_first)
    killer.start()
    first, *rest = proofs(order, Wish(decode=True), Limits())
    killer.join()
    assert isinstance(first, BadInput)
    assert "its decoder died (SIGKILL)" in first.message
    for path, found in zip(order[1:], rest, strict=True):
        assert found == prove(path, Wish(decode=True))


def test_a_worker_says_what_this_process_would_say(tmp_path: Path) -> None:
    files = [
        png(tmp_path / "1.png"),
        dicom(tmp_path / "2.dcm"),
        nifti(tmp_path / "3.nii.gz"),
        write(tmp_path / "4", b"x"),
    ]
    nested(1200)(tmp_path)
    files.append(tmp_path / "a/x.dcm")
    told: list[tuple[int, int]] = []
    wish = Wish(Ask(label_tag="Modality"), decode=True)
    found = proofs(files, wish, Limits(), tell=lambda done, total: told.append((done, total)))
    for path, there in zip(files, found, strict=True):
        try:
            here: Proof | MgdmError = prove(path, wish)
        except MgdmError as error:
            here = error
        if isinstance(here, Proof):
            assert there == here
        else:
            assert isinstance(there, MgdmError)
            assert (there.message, there.hint, there.exit_code) == (here.message, here.hint, here.exit_code)
    assert told == [(k + 1, len(files)) for k in range(len(files))]


def test_what_the_system_cannot_read_is_one_bad_file(tmp_path: Path) -> None:
    """Gone since the folder was listed, or no file at all: told with the reason, by a worker and without one."""
    (tmp_path / "folder").mkdir()
    files = [tmp_path / "gone.png", png(tmp_path / "1.png"), tmp_path / "folder", png(tmp_path / "2.png")]
    found = proofs(files, Wish(decode=True), Limits())
    for path, there, why in ((files[0], found[0], "No such file"), (files[2], found[2], "Is a directory")):
        assert isinstance(there, BadInput)
        assert there.message.startswith(f"cannot be read: {why}")
        with pytest.raises(BadInput, match=f"cannot be read: {why}"):
            prove(path, Wish())
    assert [isinstance(one, Proof) for one in found] == [False, True, False, True]


def test_a_senseless_question_ends_the_work(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="label-tag"):
        proofs([dicom(tmp_path / "1.dcm")], Wish(Ask(label_tag="PatientName")), Limits())


def test_an_installation_that_cannot_start_workers_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(IoFailed, match="could not be started"):
        proofs([png(tmp_path / "1.png")], Wish(), Limits())


def test_many_files_go_through_several_workers_in_order(tmp_path: Path) -> None:
    files = [png(tmp_path / f"{k}.png", k, size=8) for k in range(150)]
    found = proofs(files, Wish(decode=True), Limits())
    digests = [one.sights[0].digest for one in found if isinstance(one, Proof) and one.sights]
    assert digests == [prove(path, Wish(decode=True)).sights[0].digest for path in files]  # type: ignore[index]
    assert len(set(digests)) == 150


def test_a_proof_survives_its_way_as_json(tmp_path: Path) -> None:
    for path in (dicom(tmp_path / "1.dcm", PixelSpacing=[0.5, 0.25]), nifti(tmp_path / "2.nii.gz")):
        assert proof_of(answer(path, Wish(decode=True))) == prove(path, Wish(decode=True))
