"""Which files are looked at; what is left aside or refused unopened, and that nothing is passed over in silence."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mgdm_cli.data.walking import walk


def put(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def test_files_are_sorted_and_texts_left_aside(tmp_path: Path) -> None:
    put(tmp_path, "b/2.png", "b/10.dcm", "a.png", "b/IM000001", ".hidden/x.png", "b/.DS_Store", "b/notes.txt")
    put(tmp_path, "README", "LICENSE-data", "b/readme_first", "b/read.png", "b/report.v2.pdf", "b.zip")
    found = walk(tmp_path)
    assert found.files == ("a.png", "b/10.dcm", "b/2.png", "b/IM000001", "b/read.png")
    assert found.others == 7
    assert found.refused == (("b.zip", "is an archive; unpack it"),)


def test_links_pipes_and_names(tmp_path: Path) -> None:
    root = tmp_path / "in"
    put(root, "a/1.png", "a/b\x07ell.png")
    put(tmp_path, "out/2.png")
    (root / "inside.png").symlink_to("a/1.png")
    (root / "outside.png").symlink_to("../out/2.png")
    (root / "broken.png").symlink_to("nothing")
    (root / "loop.png").symlink_to("loop.png")
    (root / "folder").symlink_to("a")
    os.mkfifo(root / "pipe.png")
    with open(os.fsencode(root) + b"/a/\xe9.png", "wb"):
        pass
    found = walk(root)
    assert found.files == ("a/1.png", "inside.png")
    assert dict(found.refused) == {
        "outside.png": "is a link that leaves the input folder",
        "broken.png": "is a broken link or cannot be looked at",
        "loop.png": "is a broken link or cannot be looked at",
        "folder": "is a link to a folder",
        "pipe.png": "is not a regular file",
        "a/b\x07ell.png": "has control characters in its name",
        "a/\udce9.png": "has a name that is not UTF-8",
    }


def test_a_folder_that_cannot_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As root every folder can be read, so the system's refusal is played."""
    put(tmp_path, "a/1.png", "b/2.png")
    real = os.scandir

    def scandir(path: str) -> Iterator[os.DirEntry[str]]:
        if str(path).rstrip("/").endswith("b"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    found = walk(tmp_path)
    assert found.files == ("a/1.png",)
    assert found.refused == (("b", "is a folder that cannot be read"),)
