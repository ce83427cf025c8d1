"""What the crash benchmarks share: what must hold of a data set at any moment, and what a trace of system calls must show."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

PASSING = (".mgdm/lock", ".mgdm/journal", ".mgdm/log", ".mgdm/tmp/")  # not part of the promise
TIMED = ("run.json", "config.resolved.toml")  # hold durations and the folder's own name
BUGS = ("in-place", "no-fsync", "no-folder-fsync", "journal-first")


def tree(root: Path) -> dict[str, str]:
    """Relative path -> SHA-256 of all that a finished data set promises."""
    names = {path.relative_to(root).as_posix(): path for path in sorted(root.rglob("*")) if path.is_file()}
    return {name: sha256(path) for name, path in names.items() if not name.startswith(PASSING) and name not in TIMED}


def unsound(root: Path, whole: dict[str, str]) -> list[str]:
    """What is wrong with a data set in the making, held against the finished one.

    An image under its final name has its final bytes; the done marker stands only over files that are all right.
    """
    found = []
    for path in sorted((root / "images").rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_file() and sha256(path) != whole.get(name):
            found.append(f"{name} is torn or strange")
    if (root / ".mgdm/done").exists():
        try:
            files = json.loads((root / ".mgdm/done").read_bytes())["files"]
        except ValueError:
            return [*found, "the done marker is torn"]
        wrong = [n for n in whole if n.startswith("images/") and not (root / n).exists()]
        wrong += [n for n, digest in files.items() if not (root / n).exists() or sha256(root / n) != digest]
        found += [f"the done marker stands and {name} is not right" for name in wrong]
    return found


def sha256(path: Path) -> str:
    """SHA-256 of one file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


# What a trace must show, so that a power cut loses nothing that was promised. Content alone cannot show it: a killed
# process loses nothing that it wrote, so a forgotten fsync passes every kill test.

_CALL = re.compile(r"^(?:\d+\s+)?(\w+)\((.*)\)\s+= (-?\d+)")
_FD = re.compile(r"^\d+<([^>]*)>")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')


@dataclass
class _Disk:
    """What of the writes so far would outlive a power cut."""

    dirty: set[str] = field(default_factory=set)  # files written since their last fsync
    synced: set[str] = field(default_factory=set)  # files that were synced after their last write
    open_names: set[str] = field(default_factory=set)  # folders with a new entry that was not synced


def calls(trace: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    """(call, paths) of every successful call of a `strace -y` log."""
    for line in trace:
        match = _CALL.match(line)
        if match is None or int(match[3]) < 0:
            continue
        name, arguments = match[1], match[2]
        handle = _FD.match(arguments)
        yield name, [handle[1]] if handle else _QUOTED.findall(arguments)


def broken_order(trace: Iterable[str], root: Path) -> list[str]:
    """Where the order of calls below `root` would let a power cut break a promise; empty when it never does.

    A file is synced before it is renamed; a folder is synced after a rename into it and before the journal or the done
    marker speaks of the file; the journal is synced before anything else is renamed; nothing is written in place.
    """
    base, above, disk, found = root.as_posix(), root.parent.as_posix(), _Disk(), []
    for name, paths in calls(trace):
        inside = [path for path in paths if path.startswith(base + "/") or path in (base, above)]
        if not inside:
            continue
        first = inside[0].removeprefix(base + "/")
        if name in ("write", "pwrite64"):
            found += _written(first, disk)
            disk.dirty.add(inside[0])
            disk.synced.discard(inside[0])
        elif name in ("fsync", "fdatasync"):
            disk.dirty.discard(inside[0])
            disk.synced.add(inside[0])
            disk.open_names.discard(inside[0])
        elif name.startswith("rename"):
            found += _renamed(inside[0], inside[1].removeprefix(base + "/"), base, disk)
            disk.open_names.add(str(PurePosixPath(inside[1]).parent))
        elif name.startswith("mkdir"):
            disk.open_names.add(str(PurePosixPath(inside[0]).parent))
    return found


def _written(name: str, disk: _Disk) -> list[str]:
    if name == ".mgdm/journal":
        late = sorted(disk.open_names)
        return [f"the journal speaks before the folder {PurePosixPath(path).name} is synced" for path in late]
    if name.startswith(PASSING):
        return []
    return [f"{name} is written in place"]


def _renamed(old: str, name: str, base: str, disk: _Disk) -> list[str]:
    found = [] if old in disk.synced else [f"{name} is renamed before it is synced"]
    if f"{base}/.mgdm/journal" in disk.dirty:
        found.append(f"{name} is renamed before the journal is synced")
    if name == ".mgdm/done":
        found += [f"done before the folder {PurePosixPath(path).name} is synced" for path in sorted(disk.open_names)]
    return found
