"""The process that looks at files for `workers`: a line with a path in, a line with its proof out, within limits."""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

from mgdm_cli.data.codecs import npz
from mgdm_cli.data.codecs.base import MAX_SET_BYTES
from mgdm_cli.data.proving import answer, wish_of

SLACK = 1 << 28  # address space for libraries that are loaded later
MEASURED_EVERY = 64  # files
SET_BYTES_PER_SECOND = 2_000_000  # processor time that a large set is granted beside the rest


def main() -> None:
    """Serves until its input ends, which it does when the process that asked is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    out = os.fdopen(os.dup(1), "wb")  # what a native library prints goes nowhere
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    order = json.loads(sys.stdin.buffer.readline())
    wish, memory, seconds = wish_of(order["wish"]), int(order["memory"]), float(order["seconds"])
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    mapped = 0
    for count, line in enumerate(sys.stdin.buffer):
        path = Path(json.loads(line))
        if count % MEASURED_EVERY == 0:
            mapped = _mapped()
        _limit(path, mapped + memory, seconds)
        out.write(answer(path, wish) + b"\n")
        out.flush()


def _limit(path: Path, memory: int, seconds: float) -> None:
    """Bounds what the next file may use: address space, and processor time (SIGXCPU ends the process)."""
    try:
        size = path.stat().st_size
    except OSError:  # `answer` says why
        size = 0
    if path.suffix.casefold() == npz.SUFFIXES[0]:
        memory += MAX_SET_BYTES
    granted = time.process_time() + seconds + size / SET_BYTES_PER_SECOND
    for what, limit in ((resource.RLIMIT_AS, memory + SLACK), (resource.RLIMIT_CPU, math.ceil(granted))):
        hard = resource.getrlimit(what)[1]
        with suppress(OSError, ValueError):  # not every system has every limit
            resource.setrlimit(what, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def _mapped() -> int:
    """Bytes of address space in use; 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except (OSError, ValueError):
        return 0


if __name__ == "__main__":
    main()
