"""Whole or absent: atomic files, the lock, the journal, and the order of the calls behind them."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mgdm_cli.data import files
from mgdm_cli.data.files import Journal, Lock, canonical, holds_other, make_dirs, missing_dirs, write_all, write_atomic
from mgdm_cli.errors import BadInput, FolderInUse, IoFailed


def test_canonical_json_is_one_text_for_one_value() -> None:
    assert canonical({"b": 1, "a": [0.1, "\u00e4"]}) == '{"a":[0.1,"ä"],"b":1}\n'.encode()
    with pytest.raises(ValueError, match="JSON"):
        canonical(float("nan"))


def test_hidden_files_are_nothing_of_anybodys(tmp_path: Path) -> None:
    assert not holds_other(tmp_path / "none", ())
    for name in (".DS_Store", ".a.txt.part", "a.txt"):
        (tmp_path / name).write_bytes(b"")
    assert not holds_other(tmp_path, ("a.txt",))
    assert holds_other(tmp_path, ("b.txt",))


def test_write_atomic_replaces_and_leaves_no_part(tmp_path: Path) -> None:
    write_atomic(tmp_path / "deep" / "a.txt", b"one")
    write_atomic(tmp_path / "deep" / "a.txt", b"two")
    assert (tmp_path / "deep" / "a.txt").read_bytes() == b"two"
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.txt"]


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_failed_write_keeps_the_old_file_and_no_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    write_atomic(tmp_path / "a.txt", b"old")

    def fail(*_: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(IoFailed) as caught:
        write_all(tmp_path, {"a.txt": b"new", "b.txt": b"new"})
    monkeypatch.undo()
    assert caught.value.exit_code == 74
    assert str(tmp_path) not in caught.value.message
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a.txt": b"old"}


def test_short_writes_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write: Callable[[int, Any], int] = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, bytes(data)[:3]))
    write_atomic(tmp_path / "a.txt", b"0123456789")
    assert (tmp_path / "a.txt").read_bytes() == b"0123456789"


def test_files_are_synced_before_they_are_renamed_and_folders_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut cannot be tested here; the order of the calls that survives one can."""
    log: list[tuple[str, str]] = []
    fsync, replace = os.fsync, os.replace

    def name_of(fd: int) -> str:
        return os.readlink(f"/proc/self/fd/{fd}")

    if not Path("/proc/self/fd").exists():
        pytest.skip("no /proc to read names of open files from")

    def sync(fd: int) -> None:
        log.append(("fsync", name_of(fd)))
        fsync(fd)

    def rename(a: str, b: str) -> None:
        log.append(("rename", f"{a}>{b}"))
        replace(a, b)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", rename)
    write_all(tmp_path, {"x/a": b"1", "x/b": b"2"})
    Journal(tmp_path / "journal").append({"x": 1})
    renames = [i for i, (kind, _) in enumerate(log) if kind == "rename"]
    line = next(i for i, (kind, name) in enumerate(log) if kind == "fsync" and name.endswith("/journal"))
    for i in renames:
        part = log[i][1].split(">")[0]
        assert ("fsync", part) in log[: renames[0]]
    after = [name for _, name in log[renames[-1] + 1 : line]]
    assert str(tmp_path / "x") in after
    assert str(tmp_path) in after  # the new folder's own name
    assert log[-1] == ("fsync", str(tmp_path))  # the new journal's name


def test_make_dirs_names_every_folder_whose_entries_changed(tmp_path: Path) -> None:
    assert make_dirs(tmp_path / "a" / "b") == {tmp_path, tmp_path / "a", tmp_path / "a" / "b"}
    assert make_dirs(tmp_path / "a" / "b") == set()


def test_a_lock_is_exclusive_and_ends_with_its_process(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from mgdm_cli.data.files import Lock\n"
        "held = Lock(Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "lock")],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).resolve().parents[2],
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(FolderInUse) as caught:
            Lock(tmp_path / "lock")
        assert caught.value.exit_code == 75
    finally:
        other.kill()
        other.communicate()
    with Lock(tmp_path / "lock"):
        pass


def test_a_failure_takes_away_what_was_made_for_a_lock_and_is_empty(tmp_path: Path) -> None:
    def failed(error: BaseException, *files: str) -> list[str]:
        folder = tmp_path / "a/b"
        made = missing_dirs(folder)
        make_dirs(folder)
        with pytest.raises(type(error)), Lock(folder / "lock", made=made):  # noqa: PT012
            for name in files:
                (folder / name).write_text("kept")
            raise error
        found = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*"))
        shutil.rmtree(tmp_path / "a", ignore_errors=True)
        return found

    assert missing_dirs(tmp_path / "a/b") == (tmp_path / "a/b", tmp_path / "a")
    assert failed(BadInput("no")) == []
    assert failed(KeyboardInterrupt()) == []
    assert failed(BadInput("no"), "weights") == ["a", "a/b", "a/b/lock", "a/b/weights"]
    assert failed(RuntimeError("a bug")) == ["a", "a/b", "a/b/lock"]
    (tmp_path / "a/b").mkdir(parents=True)  # which was there before
    assert failed(BadInput("no")) == ["a", "a/b", "a/b/lock"]


def test_a_lock_whose_file_was_taken_away_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    took = fcntl.flock

    def late(fd: int, how: int) -> None:
        (tmp_path / "lock").unlink()
        took(fd, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(FolderInUse):
        Lock(tmp_path / "lock")


def test_a_lock_says_where_locks_do_not_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    def fail(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.raises(IoFailed, match="cannot lock"):
        Lock(tmp_path / "lock")


def test_the_journal_counts_up_to_the_first_bad_line(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = Journal(path)
    for number in range(4):
        journal.append({"n": number})
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        assert len(Journal(path).read()) == whole[:cut].count(b"\n")
    flipped = bytearray(whole)
    flipped[len(lines[0]) + len(lines[1]) - 3] ^= 1
    path.write_bytes(flipped)
    journal = Journal(path)
    assert journal.read() == [{"n": 0}]
    journal.append({"n": 9})
    assert Journal(path).read() == [{"n": 0}, {"n": 9}]
    assert path.read_bytes().count(b"\n") == 2


def test_a_failed_append_leaves_no_rubbish_for_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path / "journal")
    journal.append(1)
    pwrite = os.pwrite

    def half(fd: int, data: Any, offset: int) -> int:
        pwrite(fd, bytes(data)[:5], offset)
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "pwrite", half)
    with pytest.raises(IoFailed):
        journal.append("a longer line than the next")
    monkeypatch.undo()
    journal.append(2)
    assert Journal(tmp_path / "journal").read() == [1, 2]


def test_hashes_agree(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert files.sha256_file(tmp_path / "a") == files.sha256_hex(b"abc")
