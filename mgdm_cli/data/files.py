"""Files that are whole or absent: atomic writes, the lock of a folder, the journal.

Order is what makes a folder survive a kill or a power cut: bytes to a temporary file, fsync, rename, fsync of the
directories, and only then the journal line that says so. A failed fsync is never retried on the same file (Rebello et
al. 2020: the kernel marks the pages clean), the temporary file is dropped instead.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from mgdm_cli.errors import FolderInUse, IoFailed, MgdmError

CHECK_DIGITS = 16
_HINT = "Nothing finished is lost: free the disk or mend the access, then give the same command again."
_NO_DIR_FSYNC = {errno.EINVAL, errno.ENOTSUP, errno.EBADF}


def canonical(value: Any, *, indent: int | None = None) -> bytes:
    """JSON as UTF-8 with sorted keys and a final newline: the same value gives the same bytes. NaN is an error."""
    separators = (",", ":") if indent is None else (",", ": ")
    text = json.dumps(value, sort_keys=True, separators=separators, indent=indent, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode("utf-8")


def sha256_hex(data: bytes) -> str:
    """Hex SHA-256 of `data`."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes, read piecewise. Raises OSError."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def io_failed(name: str, error: OSError) -> IoFailed:
    """The error to raise when `name` could not be written."""
    return IoFailed(f"cannot write {name}: {error.strerror or type(error).__name__}", _HINT)


def _fsync(fd: int) -> None:
    """Force a file to the disk itself; macOS needs F_FULLFSYNC for that."""
    try:
        import fcntl

        full = getattr(fcntl, "F_FULLFSYNC", None)
        if full is not None:
            fcntl.fcntl(fd, full)
            return
    except (ImportError, OSError):
        pass  # no such call on this system or file system: plain fsync below
    os.fsync(fd)


def fsync_dirs(folders: Iterable[Path]) -> None:
    """Make the names in `folders` durable. File systems that cannot sync a directory are let be."""
    for folder in sorted(set(folders)):
        try:
            fd = os.open(folder, os.O_RDONLY)
        except OSError as error:
            if os.name == "nt":
                continue
            raise io_failed(folder.name, error) from error
        try:
            os.fsync(fd)
        except OSError as error:
            if error.errno not in _NO_DIR_FSYNC:
                raise io_failed(folder.name, error) from error
        finally:
            os.close(fd)


def missing_dirs(folder: Path) -> tuple[Path, ...]:
    """`folder` and what is missing above it, the deepest first: what `make_dirs` would create."""
    missing = []
    there = folder
    while not there.is_dir():
        missing.append(there)
        if there.parent == there:
            break
        there = there.parent
    return tuple(missing)


def withdraw(made: Iterable[Path], lock: Path | None = None) -> None:
    """Remove folders that were just made, the deepest first, where they hold nothing but each other and `lock`."""
    made = tuple(made)
    with contextlib.suppress(OSError):
        inside = {entry for folder in made for entry in folder.iterdir()}
        if made and inside <= {*made, lock}:
            if lock is not None:
                lock.unlink(missing_ok=True)
            for folder in made:
                folder.rmdir()


def make_dirs(folder: Path) -> set[Path]:
    """Create `folder` and what is missing above it; the directories whose entries changed. Raises IoFailed."""
    missing = missing_dirs(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise io_failed("/".join(folder.parts[-3:]), error) from error
    return {path.parent for path in missing} | ({folder} if missing else set())


def _write_part(part: Path, data: bytes, name: str) -> None:
    """`data` in the temporary file `part`, on the disk. On an error the part is removed."""
    try:
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            _fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise io_failed(name, error) from error


def holds_other(folder: Path, ours: Collection[str]) -> bool:
    """Whether `folder` is there and holds something beside the names `ours`.

    Hidden files do not count: those of a file manager, and the part of a file that a kill left.
    """
    return folder.is_dir() and any(p.name not in ours and not p.name.startswith(".") for p in folder.iterdir())


def write_atomic(path: Path, data: bytes, *, tmp: Path | None = None) -> None:
    """`path` holds `data`, or what it held before; never a part of it. Raises IoFailed.

    `tmp`, on the same file system, takes the temporary file; without it, it lies beside `path`."""
    write_all(path.parent, {path.name: data}, tmp=tmp)


def write_all(root: Path, files: Mapping[str, bytes], *, tmp: Path | None = None) -> None:
    """Write many files (relative POSIX path -> bytes) below `root`, each atomic; on return all of them are durable.

    Files are synced before the first is renamed and the directories once at the end. Raises IoFailed."""
    parts: list[tuple[Path, Path]] = []
    touched: set[Path] = set()
    try:
        for number, (name, data) in enumerate(files.items()):
            target = root / name
            touched |= make_dirs(target.parent)
            part = target.with_name(f".{target.name}.part") if tmp is None else tmp / f"{number}.part"
            _write_part(part, data, name)
            parts.append((part, target))
        while parts:
            part, target = parts[0]
            try:
                os.replace(part, target)
            except OSError as error:
                raise io_failed(target.name, error) from error
            parts.pop(0)
            touched.add(target.parent)
        fsync_dirs(touched)
    finally:
        for part, _ in parts:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)


class Lock:
    """An exclusive lock on a file, held until `release`. The kernel frees it when the process dies, however it dies."""

    def __init__(self, path: Path, *, made: Iterable[Path] = ()) -> None:
        """Take the lock. Raises FolderInUse when another process holds it, IoFailed where locks do not work.

        `made`: folders that were made for it, the deepest first; a `with` block that ends in an error of a person's takes
        them away again where nothing else came into them.
        """
        self.path, self._made = path, tuple(made)
        try:
            import fcntl
        except ImportError as error:
            raise IoFailed(
                "this system has no flock, so two runs could write one folder", "Use Linux or macOS."
            ) from error
        try:
            self._fd: int | None = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
        except OSError as error:
            raise io_failed(path.name, error) from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._fd)
            self._fd = None
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise FolderInUse(
                    "the output folder is in use by another run", "Wait for it, then try again."
                ) from error
            raise IoFailed(
                f"this file system cannot lock files ({error.strerror})", "Write to a local disk and copy the result."
            ) from error
        if not path.exists() or not os.path.samestat(os.fstat(self._fd), path.stat()):  # its holder took it away
            self.release()
            raise FolderInUse("the output folder is in use by another run", "Wait for it, then try again.")

    def release(self) -> None:
        """Give the lock back; the file stays. Harmless when given back already."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def __enter__(self) -> Lock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, (MgdmError, KeyboardInterrupt)):  # a bug leaves the folder, for its log
            withdraw(self._made, self.path)
        self.release()


class Journal:
    """Lines of JSON that were surely written: `<digest> <json>`. What follows the first bad line does not count."""

    def __init__(self, path: Path) -> None:
        """A journal at `path`, created by the first `append`."""
        self.path = path
        self._end: int | None = None

    def read(self) -> list[Any]:
        """Every good line in order. Reads only; `append` is what cuts the bad tail. Raises IoFailed."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            self._end = 0
            return []
        except OSError as error:
            raise IoFailed(f"cannot read the journal: {error.strerror}", "Check the disk.") from error
        rows: list[Any] = []
        start = 0
        while (stop := data.find(b"\n", start)) >= 0:
            digest, _, text = data[start:stop].partition(b" ")
            if digest != _check(text):
                break
            rows.append(json.loads(text))
            start = stop + 1
        self._end = start
        return rows

    def append(self, row: Any) -> None:
        """One line, on the disk when this returns. Cuts what a killed or failed write left behind. Raises IoFailed."""
        if self._end is None:
            self.read()
        assert self._end is not None
        text = canonical(row)[:-1]
        line = _check(text) + b" " + text + b"\n"
        new = not self.path.exists()
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                os.ftruncate(fd, self._end)
                view, offset = memoryview(line), self._end
                while view:
                    count = os.pwrite(fd, view, offset)
                    view, offset = view[count:], offset + count
                _fsync(fd)
            finally:
                os.close(fd)
        except OSError as error:
            raise io_failed(self.path.name, error) from error
        if new:
            fsync_dirs([self.path.parent])
        self._end += len(line)


def _check(text: bytes) -> bytes:
    return hashlib.sha256(text).hexdigest()[:CHECK_DIGITS].encode("ascii")
