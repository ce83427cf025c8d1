"""Which files below a folder may be images. Links out of it and things that are no regular files are never opened."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

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
    for folder, names, leaves in os.walk(root, followlinks=False):
        here = Path(folder)
        for name in sorted(names):
            if (here / name).is_symlink():
                refused.append((_relative(here / name, root), "is a link to a folder"))
        names[:] = sorted(name for name in names if not name.startswith(".") and not (here / name).is_symlink())
        for leaf in leaves:
            path = _relative(here / leaf, root)
            if _is_other(leaf):
                others += 1
                continue
            why = _why_not(here / leaf, root)
            if why is None:
                files.append(path)
            else:
                refused.append((path, why))
    return Found(tuple(sorted(files)), tuple(sorted(refused)), others)


def is_archive(path: Path) -> bool:
    """Whether a file is a zip (an .npz aside), tar or other archive, by its first bytes or its name."""
    with path.open("rb") as file:
        head = file.read(512)
    zipped = head.startswith(b"PK") and path.suffix.casefold() != ".npz"
    return zipped or head[257:262] == b"ustar" or path.name.casefold().endswith(_ARCHIVES)


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def _is_other(name: str) -> bool:
    pure = PurePosixPath(name.casefold())
    words = pure.stem.replace("_", " ").replace("-", " ").split()
    plain = pure.suffix == "" and bool(words) and words[0] in _SIDE_NAMES
    return name.startswith(".") or pure.suffix in _SIDE_SUFFIXES or name.casefold() in _SIDE_NAMES or plain


def _why_not(path: Path, root: Path) -> str | None:
    """Why a directory entry is not to be opened, or None."""
    name = path.name
    if any(0xDC80 <= ord(c) <= 0xDCFF for c in name):
        return "has a name that is not UTF-8"
    if any(ord(c) < 32 or ord(c) == 127 for c in name):
        return "has control characters in its name"
    try:
        if path.is_symlink() and not path.resolve(strict=True).is_relative_to(root):
            return "is a link that leaves the input folder"
        mode = path.stat().st_mode
    except (OSError, RuntimeError):
        return "is a broken link or cannot be looked at"
    if not stat.S_ISREG(mode):
        return "is not a regular file"
    if name.casefold().endswith(_ARCHIVES):
        return "is an archive; unpack it"
    return None
