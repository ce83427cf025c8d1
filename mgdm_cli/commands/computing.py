"""Where a command computes: the device, as a set was begun, and a remark where other work would slow its threads down."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from mgdm_cli import console
from mgdm_cli.data.processors import processors

if TYPE_CHECKING:
    import torch

    from mgdm_cli.data.plan import Plan

LOADS = Path("/proc/loadavg")  # Linux: its fourth word counts what runs or waits for a processor just now
LOOKS, PAUSE = 5, 0.01  # seconds between two looks


def device_of(name: str, *, begun: Plan | None = None, settled: bool = False) -> torch.device:
    """The device of that name, computing deterministically; where `begun` names one of its kind, as that set was. Raises UsageError.

    Where the user says nothing, there are no more threads than processors that may be used: the quota of a container is none of torch's
    business, and threads beyond it wait for each other. Says so where other work would slow them down, unless their number is `settled`: by
    a run, a plan, or for all shards.
    """
    import torch

    from mgdm_cli.engine.device import compute_as, kind_of_cpu, make_deterministic, of_same_kind, pick

    make_deterministic()
    where = pick(name)
    kind = kind_of_cpu() if where.type == "cpu" else ""  # a slip in it is told now
    if begun is not None and of_same_kind(begun.machine.device, where):
        if begun.machine.threads != torch.get_num_threads():
            console.say(f"threads: {begun.machine.threads}, as the set was begun")
        compute_as(begun.machine.threads, kind and begun.machine.computes_in)
        return where
    if "OMP_NUM_THREADS" not in os.environ and (free := processors()) < torch.get_num_threads():
        console.say(f"threads: {free}, as many processors as this process may use")
        torch.set_num_threads(free)
    if where.type == "cpu" and not settled:
        remark = crowding(torch.get_num_threads(), os.cpu_count() or 1)
        if remark:
            console.say(remark)
    return where


def crowding(threads: int, cores: int) -> str:
    """What to say where `threads` are more than other work leaves processors, `cores`, for; else "".

    A thread whose turn has not come keeps all the others of its program waiting, again and again (`python -m benchmarks.sharing`).
    """
    others = running() if threads > 1 else None
    fewer = max(cores - (others or 0), 1)
    if others is None or threads <= fewer:
        return ""
    return (
        f"other work keeps {min(others, cores)} of {cores} processors busy: OMP_NUM_THREADS={fewer} before the command may be "
        "several times as quick"
    )


def running() -> int | None:
    """How many other threads compute on this machine, the least of some looks; None where that is not known."""
    counts = []
    try:
        if len(os.sched_getaffinity(0)) != os.cpu_count():
            return None  # what runs elsewhere is in nobody's way here
        for look in range(LOOKS):
            if look:
                time.sleep(PAUSE)
            counts.append(int(LOADS.read_text(encoding="ascii").split()[3].partition("/")[0]))
    except (AttributeError, OSError, ValueError, IndexError):
        return None
    return min(counts) - 1 if min(counts) else None  # this thread runs, so a count of none is no count
