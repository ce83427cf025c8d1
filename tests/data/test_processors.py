"""Processors by affinity and by the quota of a container, from files as Linux shows them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mgdm_cli.data.processors import processors, quota

BOUND = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def linux(root: Path, group: str, **files: str) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(group)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name.replace("__", "/").replace("cpu_", "cpu.")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("group", "files", "allowed"),
    [
        ("0::/\n", {"cpu_max": "150000 100000\n"}, 1.5),
        ("0::/\n", {"cpu_max": "max 100000\n"}, None),
        ("0::/a/b\n", {"a__cpu_max": "400000 100000\n", "a__b__cpu_max": "max 100000\n"}, 4.0),
        ("0::/a/b\n", {"a__cpu_max": "200000 100000\n", "a__b__cpu_max": "800000 100000\n"}, 2.0),
        ("0::/elsewhere\n", {"cpu_max": "300000 100000\n"}, 3.0),
        (
            "4:memory:/m\n1:cpu,cpuacct:/x\n",
            {"cpu__cpu_cfs_quota_us": "50000\n", "cpu__cpu_cfs_period_us": "100000\n"},
            0.5,
        ),
        ("1:cpu:/\n", {"cpu__cpu_cfs_quota_us": "-1\n", "cpu__cpu_cfs_period_us": "100000\n"}, None),
        ("0::/\n", {}, None),
        ("nonsense\n", {"cpu_max": "nonsense"}, None),
        ("0::/\n", {"cpu_max": "100000 0\n"}, None),
    ],
)
def test_the_least_quota_on_the_way_up_counts(
    group: str, files: dict[str, str], allowed: float | None, tmp_path: Path
) -> None:
    root = linux(tmp_path, group, **files)
    assert quota(root) == allowed
    assert processors(root) == (BOUND if allowed is None else max(min(BOUND, int(allowed)), 1))


def test_without_control_groups_it_is_what_the_process_is_bound_to(tmp_path: Path) -> None:
    assert quota(tmp_path) is None
    assert processors(tmp_path) == BOUND
    assert processors() <= BOUND
