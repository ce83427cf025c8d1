"""Which files below a folder may be images. Links out of it and things that are no regular files are never opened."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_SIDE_SUFFIXES = {
    *(".txt", ".md", ".rst", ".csv", ".tsv", ".json", ".jsonl", ".yaml", ".yml", ".toml", ".xml", ".html", ".htm"),
    *(".pdf", ".xls", ".xlsx", ".log", ".bib", ".sh", ".py", ".ipynb"),
}
_SIDE_NAMES = {
    *("license", "licence", "readme", "notice", "authors", "copying", "version", "changelog"),
    *("dicomdir", "thumbs.db", "desktop.ini"),
}
_ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".7z", ".rar")


@dataclass(frozen=True)
class Found:
    """Relative POSIX paths, sorted; (path, why) of what is refused unopened; how many files are plainly no images."""

    files: tuple[str, ...]
    refused: tuple[tuple[str, str], ...]
    others: int


def walk(root: Path) -> Found:
    """Every file below the resolved folder `root`, in a fixed order."""
    files: list[str] = []
    refused: list[tuple[str, str]] = []
    others = 0
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(root / folder) as entries:
                inside = list(entries)
        except OSError:
            refused.append((folder.rstrip("/") or ".", "is a folder that cannot be read"))
            continue
        for entry in inside:
            path = folder + entry.name
            if entry.is_dir(follow_symlinks=False):
                if entry.name.startswith("."):
                    others += 1
                else:
                    waiting.append(path + "/")
            elif entry.is_symlink() and _is_folder(entry):
                refused.append((path, "is a link to a folder"))
            elif _is_other(entry.name):
                others += 1
            elif (why := _why_not(entry, root)) is not None:
                refused.append((path, why))
            else:
                files.append(path)
    return Found(tuple(sorted(files)), tuple(sorted(refused)), others)


def is_archive(path: Path) -> bool:
    """Whether a file is a zip (an .npz aside), tar or other archive, by its first bytes or its name."""
    with path.open("rb") as file:
        head = file.read(512)
    zipped = head.startswith(b"PK") and path.suffix.casefold() != ".npz"
    return zipped or head[257:262] == b"ustar" or path.name.casefold().endswith(_ARCHIVES)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a loop of links
        return False


def _is_other(name: str) -> bool:
    folded = name.casefold()
    if name.startswith(".") or folded in _SIDE_NAMES:
        return True
    stem, dot, suffix = folded.rpartition(".")
    if stem and dot:
        return "." + suffix in _SIDE_SUFFIXES
    words = folded.replace("_", " ").replace("-", " ").split()
    return bool(words) and words[0] in _SIDE_NAMES


def _why_not(entry: os.DirEntry[str], root: Path) -> str | None:
    """Why a directory entry is not to be opened, or None."""
    name = entry.name
    if not name.isprintable():
        if any(0xDC80 <= ord(c) <= 0xDCFF for c in name):
            return "has a name that is not UTF-8"
        if any(ord(c) < 32 or ord(c) == 127 for c in name):
            return "has control characters in its name"
    try:
        if entry.is_symlink() and not Path(entry.path).resolve(strict=True).is_relative_to(root):
            return "is a link that leaves the input folder"
        regular = entry.is_file()
        if not regular:
            entry.stat()  # tells a broken link
    except (OSError, RuntimeError):
        return "is a broken link or cannot be looked at"
    if not regular:
        return "is not a regular file"
    if name.casefold().endswith(_ARCHIVES):
        return "is an archive; unpack it"
    return None
