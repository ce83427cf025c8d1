"""A remark where other work would slow the threads down."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from mgdm_cli.commands import computing
from mgdm_cli.commands.computing import crowded, running


@pytest.mark.parametrize(
    ("threads", "processors", "others", "fewer"),
    [(2, 2, 0, 0), (2, 2, 1, 1), (2, 2, 5, 1), (8, 16, 8, 0), (8, 16, 12, 4), (1, 2, 9, 0)],
)
def test_fewer_threads_are_named_where_there_are_too_many(
    threads: int, processors: int, others: int, fewer: int
) -> None:
    said = crowded(threads, processors, others)
    assert (f"OMP_NUM_THREADS={fewer} " in said) is bool(fewer)
    assert bool(said) is bool(fewer)


def test_others_that_compute_are_seen() -> None:
    if running() is None:
        pytest.skip("this machine does not tell what runs")
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    try:
        time.sleep(1)
        assert (running() or 0) >= 2
    finally:
        for process in busy:
            process.kill()
            process.wait()


def test_where_nothing_is_known_nothing_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(computing, "LOADS", computing.LOADS.with_name("no-such-file"))
    assert running() is None
    assert computing.device_of("cpu").type == "cpu"
    assert capsys.readouterr().err == ""
