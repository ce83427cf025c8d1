"""What people see: progress and remarks on stderr, the result on stdout.

A command returns a `Result`; `finish` prints it. With `--json` stdout holds exactly one JSON document, and the
lines go to stderr.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Protocol, TextIO

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.progress import Progress, TaskID

WIDE = 100  # columns from which a live bar shows its remark
PLAIN_WIDTH = 120  # columns of a table when stdout is not a terminal
PLAIN_SHARE = 0.10  # a line of plain progress for each tenth ...
PLAIN_SECONDS = 30.0  # ... or after this long without one


@dataclass(frozen=True)
class Result:
    """What a command found or did: `document` for machines, `lines` (text or rich renderables) for people."""

    document: dict[str, Any]
    lines: tuple[RenderableType, ...] = ()
    exit_code: int = 0


class Bar(Protocol):
    """The handle that `progress` gives."""

    def advance(self, n: float = 1, note: str = "") -> None:
        """Count `n` more units as done; `note` is a few words about the present state."""


@dataclass
class _Surface:
    """How this process talks; set by the common options, read here and in `app`."""

    as_json: bool = False
    quiet: bool = False
    log: Path | None = None  # where the traceback of a bug goes
    live: Progress | None = None  # the bars on the terminal, if any


_surface = _Surface()


def configure(*, as_json: bool | None = None, quiet: bool | None = None) -> None:
    """Set how this process talks; None leaves a setting as it is."""
    if as_json is not None:
        _surface.as_json = as_json
    if quiet is not None:
        _surface.quiet = quiet


def reset() -> None:
    """Back to the defaults: what `app.main` does before each command."""
    _surface.as_json, _surface.quiet, _surface.log, _surface.live = False, False, None, None


def as_json() -> bool:
    """True when stdout belongs to one JSON document."""
    return _surface.as_json


def log_to(path: Path) -> None:
    """Name the file that receives the traceback of a bug (OUT/.mgdm/log, once the folder is ours)."""
    _surface.log = path


def log_path() -> Path | None:
    """The file named by `log_to`, or None."""
    return _surface.log


def say(line: str) -> None:
    """One remark on stderr; silent with --quiet."""
    if not _surface.quiet:
        _to_stderr(line)


def fail(sentence: str) -> None:
    """The one line of an error on stderr."""
    _to_stderr(f"mgdm: error: {sentence}")


def _to_stderr(line: str) -> None:
    if _surface.live is not None:
        _surface.live.console.print(line, markup=False, highlight=False, soft_wrap=True)
        return
    sys.stderr.write(_encodable(line, sys.stderr) + "\n")
    sys.stderr.flush()


def _encodable(line: str, stream: TextIO) -> str:
    """`line` with what the stream cannot encode written as escapes (a file name may be any bytes)."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return line.encode(encoding, "backslashreplace").decode(encoding)


# --- progress ---------------------------------------------------------------------------------------------------------


def _live_bars_fit() -> bool:
    """True when stderr is a terminal that a person watches."""
    return sys.stderr.isatty() and not os.environ.get("CI") and os.environ.get("TERM") != "dumb"


@contextmanager
def progress(what: str, total: float | None, unit: str = "", *, done: float = 0) -> Iterator[Bar]:
    """A bar with ETA on a terminal, else a plain line on stderr per 10 % or 30 s; nothing with --quiet.

    `total` None: the end is not known. `done` was finished before (a resumed run): it counts, but not for the ETA.
    """
    if _surface.quiet:
        yield _Silent()
    elif _live_bars_fit():
        with _live(what, total, unit, done) as bar:
            yield bar
    else:
        plain = PlainBar(what, total, unit, done=done)
        yield plain
        plain.close()


class _Silent:
    def advance(self, n: float = 1, note: str = "") -> None:
        """Nothing is shown."""


class PlainBar:
    """Progress as plain lines on `write`; `clock` gives seconds."""

    def __init__(
        self,
        what: str,
        total: float | None,
        unit: str,
        *,
        done: float = 0,
        write: Callable[[str], None] = _to_stderr,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._what, self._total, self._unit = what, total, unit
        self._write, self._clock = write, clock
        self._before = self._done = self._shown = done
        self._start = self._last = clock()
        self._note = ""

    def advance(self, n: float = 1, note: str = "") -> None:
        """Count, and write a line when a tenth or 30 s went by since the last one."""
        self._done += n
        self._note = note or self._note
        now = self._clock()
        step = math.inf if self._total is None else self._total * PLAIN_SHARE
        if self._done - self._shown >= step or now - self._last >= PLAIN_SECONDS:
            self._line(now)

    def close(self) -> None:
        """The last line, unless it was written already."""
        if self._done != self._shown or self._done == self._before:
            self._line(self._clock())

    def _line(self, now: float) -> None:
        self._shown, self._last = self._done, now
        unit = f" {self._unit}" if self._unit else ""
        count = f"{self._done:g}{unit}"
        if self._total:
            count = f"{100 * self._done / self._total:.0f} % ({self._done:g} of {self._total:g}{unit})"
        rest = ""
        fresh = self._done - self._before
        if self._total and fresh > 0 and self._done < self._total:
            rest = f", {clock_text((self._total - self._done) * (now - self._start) / fresh)} left"
        note = f", {self._note}" if self._note else ""
        self._write(f"{self._what}: {count}, {clock_text(now - self._start)} gone{rest}{note}")


@contextmanager
def _live(what: str, total: float | None, unit: str, done: float) -> Iterator[Bar]:
    """A live bar; one inside another shares its display."""
    if _surface.live is not None:
        yield _LiveBar(_surface.live, what, total, unit, done)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    screen = Console(stderr=True)
    wide = screen.width >= WIDE  # on a narrow terminal count and time come before the remark, which would push them out
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(40 if wide else 10),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}", markup=False),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        *([TextColumn("{task.fields[note]}", markup=False)] if wide else []),
    )
    with Progress(*columns, console=screen) as live:
        _surface.live = live
        try:
            yield _LiveBar(live, what, total, unit, done)
        finally:
            _surface.live = None


class _LiveBar:
    def __init__(self, live: Progress, what: str, total: float | None, unit: str, done: float) -> None:
        self._live = live
        self._task: TaskID = live.add_task(what, total=total, completed=int(done), unit=unit, note="")

    def advance(self, n: float = 1, note: str = "") -> None:
        """Count, and show the note."""
        if note:
            self._live.update(self._task, advance=n, note=note)
        else:
            self._live.update(self._task, advance=n)


def clock_text(seconds: float) -> str:
    """A duration as people write it: "7 s", "3 min 05 s", "2 h 10 min"."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, left = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {left:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


# --- results ----------------------------------------------------------------------------------------------------------


def finish(result: Result, as_json: bool | None = None) -> None:
    """Print the result; leave with its exit code (an exception of typer's) when that is not 0.

    `as_json` None: as `configure` says.
    """
    if _surface.as_json if as_json is None else as_json:
        if not _surface.quiet:
            _print_lines(result.lines, to_stderr=True)
        emit(result.document)
    else:
        _print_lines(result.lines, to_stderr=False)
    if result.exit_code:
        import typer

        raise typer.Exit(result.exit_code)


def emit(document: Mapping[str, Any]) -> None:
    """The one JSON document of this process, on stdout."""
    sys.stdout.write(json.dumps(plain(document), indent=2, allow_nan=False) + "\n")
    sys.stdout.flush()


def plain(value: Any) -> Any:
    """`value` in the types of JSON: paths and keys as text, numpy and torch scalars as numbers, NaN as null."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    if isinstance(value, (set, frozenset)):
        return [plain(entry) for entry in sorted(value)]
    if isinstance(value, PurePath):
        return value.as_posix()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    for name in ("model_dump", "tolist"):  # pydantic models; numpy arrays and scalars, torch tensors
        if callable(method := getattr(value, name, None)):
            return plain(method())
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _print_lines(lines: tuple[RenderableType, ...], *, to_stderr: bool) -> None:
    stream = sys.stderr if to_stderr else sys.stdout
    console: Console | None = None
    for line in lines:
        if isinstance(line, str):
            stream.write(_encodable(line, stream) + "\n")
            continue
        if console is None:
            from rich.console import Console

            console = Console(stderr=to_stderr, width=None if stream.isatty() else PLAIN_WIDTH)
        with console.capture() as printed:
            console.print(line)
        stream.write(_encodable(printed.get(), stream))
    stream.flush()
