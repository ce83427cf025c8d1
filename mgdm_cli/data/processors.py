"""How many processors this process may use: those it is bound to, and no more than the quota of its container."""

from __future__ import annotations

import os
from pathlib import Path


def processors(root: Path = Path("/")) -> int:
    """At least 1. `root` holds proc and sys, as a Linux does; elsewhere there is no quota."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = quota(root)
    return bound if limit is None else max(min(bound, int(limit)), 1)


def quota(root: Path = Path("/")) -> float | None:
    """Processors that the control groups allow (`docker run --cpus 2`), None where they set no limit.

    The group's own and those above it count, of either version: cpu.max, or cpu.cfs_quota_us and cpu.cfs_period_us.
    """
    found = []
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    for line in lines:
        number, names, path = (*line.split(":", 2), "", "")[:3]
        if number == "0" and not names:
            mount = root / "sys/fs/cgroup"
        elif "cpu" in names.split(","):
            mount = root / "sys/fs/cgroup/cpu"
        else:
            continue
        group = mount / path.strip("/")  # seen from inside a container it may be the mount itself
        above = [group, *group.parents]
        found += [_limit(folder) for folder in above[: above.index(mount) + 1]]
    return min((limit for limit in found if limit is not None), default=None)


def _limit(group: Path) -> float | None:
    """What one control group allows."""
    try:
        if (group / "cpu.max").is_file():
            allowed, period = (group / "cpu.max").read_text(encoding="ascii").split()
        else:
            allowed, period = (
                (group / f"cpu.cfs_{name}_us").read_text(encoding="ascii") for name in ("quota", "period")
            )
        return float(allowed) / float(period) if float(allowed) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):  # "max" is no number
        return None
