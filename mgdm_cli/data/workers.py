"""Files looked at in processes of their own: what kills a decoder, hangs it or eats the memory is one bad file.

The protocol is lines of JSON over pipes (`worker`). Nothing is unpickled, and pixels do not cross: a file that was
proven is decoded again, by whoever needs it, in the process that asked.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import mgdm_cli
from mgdm_cli.data.processors import processors
from mgdm_cli.data.proving import Proof, Wish, proof_of
from mgdm_cli.errors import BadInput, IoFailed, MgdmError, UsageError

AHEAD = 32  # files that a worker has before it, so that it need not wait for us
AHEAD_BYTES = 16_384  # of their names: they must fit into a pipe
FILES_PER_WORKER = 64  # fewer do not repay the start of one more
MAX_WORKERS = 8


@dataclass(frozen=True)
class Limits:
    """What one file may use of a worker: bytes of memory, seconds of processor, seconds of waiting."""

    memory: int = 4 << 30
    seconds: float = 60.0
    wait: float = 600.0


def proofs(
    files: Sequence[Path], wish: Wish, limits: Limits, *, tell: Callable[[int, int], None] | None = None
) -> list[Proof | MgdmError]:
    """One answer a file, in the order of `files`. UsageError, if a file shows that the question makes no sense."""
    found: dict[int, Proof | MgdmError] = {}
    with _Crew(files, wish, limits) as crew:
        for index, one in crew.work():
            found[index] = one
            if tell is not None:
                tell(len(found), len(files))
    return [found[index] for index in range(len(files))]


class _Crew:
    """The workers, the files that wait, and the files that each worker has."""

    def __init__(self, files: Sequence[Path], wish: Wish, limits: Limits) -> None:
        self._lines = [json.dumps(str(path)).encode() + b"\n" for path in files]
        self._order = {"wish": asdict(wish), "memory": limits.memory, "seconds": limits.seconds}
        self._limits = limits
        self._waiting = deque(range(len(files)))
        self._workers: list[_Worker] = []
        self._selector = selectors.DefaultSelector()

    def __enter__(self) -> _Crew:
        return self

    def __exit__(self, *error: object) -> None:
        for worker in self._workers:
            worker.end()
        self._selector.close()

    def work(self) -> Iterator[tuple[int, Proof | MgdmError]]:
        """(index, answer) of every file, as they come."""
        for _ in range(min(processors(), MAX_WORKERS, 1 + len(self._lines) // FILES_PER_WORKER)):
            self._hire()
        left = len(self._lines)
        while left:
            for key, _ in self._selector.select(timeout=self._until_patience_ends()):
                for index, one in self._heard(key.data):
                    left -= 1
                    yield index, one
            for worker in [w for w in self._workers if w.has and time.monotonic() > w.patience]:
                worker.process.kill()
                left -= 1
                yield worker.has[0], self._replaced(worker, f"it took longer than {self._limits.wait:g} s")

    def _until_patience_ends(self) -> float:
        """Seconds until the first worker has had its time; a second at most."""
        ends = [worker.patience - time.monotonic() for worker in self._workers if worker.has]
        return min([1.0, *(max(left, 0.0) for left in ends)])

    def _hire(self) -> None:
        worker = _Worker(json.dumps(self._order).encode() + b"\n")
        self._workers.append(worker)
        self._selector.register(worker.out, selectors.EVENT_READ, worker)
        self._feed(worker)

    def _feed(self, worker: _Worker) -> None:
        lines: list[bytes] = []
        while self._waiting and len(worker.has) < AHEAD:
            size = sum(len(self._lines[index]) for index in (*worker.has, self._waiting[0]))
            if worker.has and size > AHEAD_BYTES:
                break
            worker.has.append(self._waiting.popleft())
            lines.append(self._lines[worker.has[-1]])
        worker.wait(self._limits.wait)
        with suppress(BrokenPipeError):  # it has died: what it had is told when its output ends
            worker.process.stdin.write(b"".join(lines))  # type: ignore[union-attr]
            worker.process.stdin.flush()  # type: ignore[union-attr]

    def _heard(self, worker: _Worker) -> Iterator[tuple[int, Proof | MgdmError]]:
        lines = worker.read()
        if lines is None:
            if not worker.has:
                raise IoFailed("the process that reads images could not be started", "Look at the installation.")
            index = worker.has[0]
            yield index, self._replaced(worker, _fate(worker.process.wait()))
            return
        for line in lines:
            index = worker.has.popleft()
            worker.wait(self._limits.wait)
            try:
                yield index, proof_of(line)
            except UsageError:
                raise
            except MgdmError as error:
                yield index, error
        if len(worker.has) <= AHEAD // 2:
            self._feed(worker)

    def _replaced(self, worker: _Worker, why: str) -> MgdmError:
        """The file in hand is given up; those behind it go to another worker."""
        if not worker.proven:
            self._waiting_is_hopeless(worker)
        worker.has.popleft()
        self._waiting.extendleft(reversed(worker.has))
        worker.has.clear()
        self._selector.unregister(worker.out)
        self._workers.remove(worker)
        worker.end()
        if self._waiting:
            self._hire()
        return BadInput(f"could not be read safely: {why}", "Remove it, or convert it with another program.")

    def _waiting_is_hopeless(self, worker: _Worker) -> None:
        """A worker that ends with an error of Python's before its first answer cannot work at all."""
        if worker.process.poll() is not None and worker.process.returncode > 0:
            raise IoFailed("the process that reads images could not be started", "Look at the installation.")


class _Worker:
    """A child process, the indices of the files that it has, and when we lose patience with the first of them."""

    def __init__(self, order: bytes) -> None:
        home = str(Path(mgdm_cli.__file__).resolve().parents[1])
        paths = [home, *filter(None, [os.environ.get("PYTHONPATH")])]
        settings = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OPENBLAS_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-W", "ignore", "-m", "mgdm_cli.data.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # libraries quote headers there
            env=settings,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.out = self.process.stdout.fileno()
        self.has: deque[int] = deque()
        self.proven = False  # has answered once
        self.patience = 0.0
        self._rest = b""
        self.process.stdin.write(order)

    def wait(self, seconds: float) -> None:
        """Be patient for so long from now."""
        self.patience = time.monotonic() + seconds

    def read(self) -> list[bytes] | None:
        """The lines that have come; None at the end."""
        data = os.read(self.out, 1 << 16)
        if not data:
            return None
        *lines, self._rest = (self._rest + data).split(b"\n")
        self.proven = self.proven or bool(lines)
        return lines

    def end(self) -> None:
        """No process is left behind."""
        self.process.kill()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()
        self.process.wait()


def _fate(code: int) -> str:
    """How a worker ended, in words."""
    if code == -signal.SIGXCPU:
        return "it took too long"
    if code < 0:
        return f"its decoder died ({signal.Signals(-code).name})"
    return "its decoder died"
