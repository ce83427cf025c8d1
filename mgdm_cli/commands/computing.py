"""Where a command computes: the device, and a remark where other work would slow its threads down."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from mgdm_cli import console

if TYPE_CHECKING:
    import torch

LOADS = Path("/proc/loadavg")  # Linux: its fourth word counts what runs or waits for a processor just now
LOOKS, PAUSE = 5, 0.01  # seconds between two looks


def device_of(name: str) -> torch.device:
    """The device of that name, computing deterministically. Says so where other work would slow it down. Raises UsageError."""
    import torch

    from mgdm_cli.engine.device import make_deterministic, pick

    make_deterministic()
    where = pick(name)
    others = running() if where.type == "cpu" else None
    if others is not None:
        remark = crowded(torch.get_num_threads(), os.cpu_count() or 1, others)
        if remark:
            console.say(remark)
    return where


def running() -> int | None:
    """How many other threads compute on this machine, the least of some looks; None where that is not known."""
    try:
        if len(os.sched_getaffinity(0)) != os.cpu_count():
            return None  # what runs elsewhere is in nobody's way here
        counts = []
        for _ in range(LOOKS):
            counts.append(int(LOADS.read_text(encoding="ascii").split()[3].partition("/")[0]) - 1)
            time.sleep(PAUSE)
    except (AttributeError, OSError, ValueError, IndexError):
        return None
    return min(counts)


def crowded(threads: int, processors: int, others: int) -> str:
    """What to say where `threads` and the `others` are more than the processors; else "". A thread whose turn has not come keeps all the
    others of its program waiting, again and again (`python -m benchmarks.sharing`)."""
    fewer = max(processors - others, 1)
    if threads <= fewer:
        return ""
    return (
        f"other work keeps {min(others, processors)} of {processors} processors busy: OMP_NUM_THREADS={fewer} before the command may be "
        "several times as quick now (a set that was begun keeps its number of threads)"
    )
