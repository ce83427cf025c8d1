"""What threads cost beside other work: the U-Net's forward and training step, alone and beside busy processes.

    python -m benchmarks.sharing

Three ways: as many threads as torch takes by itself; the same, but asleep where they have waited for some microseconds; and one thread.
Each is a process of its own; they take turns, `--rounds` times. Told are milliseconds an image, the median over the rounds with the least
and the largest.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from benchmarks.keeping import keep, spread

WAYS: dict[str, dict[str, str]] = {
    "all threads": {},
    "all threads, waiting asleep": {"GOMP_SPINCOUNT": "10000"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
OURS = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS")
BUSY = "while True: pass"


def job(calls: int) -> dict[str, Any]:
    """Milliseconds an image of one forward and of one training step: the medians of `calls`, in this process."""
    import torch

    from benchmarks.speed import OURS, forward, rivals, training
    from mgdm_cli.engine.device import make_deterministic

    make_deterministic()
    rival = next(rival for rival in rivals(peers=False) if rival.name == OURS)
    found: dict[str, Any] = {"threads": torch.get_num_threads()}
    for name, maker, batch in (("forward", forward, 8), ("training", training, 32)):
        work, spans = maker(rival, batch), []
        work()
        for _ in range(calls):
            started = time.perf_counter()
            work()
            spans.append(1000 * (time.perf_counter() - started) / batch)
        found[name] = statistics.median(spans)
    return found


@contextmanager
def beside(busy: int) -> Iterator[None]:
    """So many processes that compute without end."""
    others = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(busy)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def measured(way: str, calls: int) -> dict[str, Any]:
    """`job` in a process of its own, started that way."""
    environment = {name: value for name, value in os.environ.items() if name not in OURS} | WAYS[way]
    words = [sys.executable, "-m", "benchmarks.sharing", "--job", "--calls", str(calls)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, write benchmarks/results/sharing.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--busy", default="0,1,2", help="numbers of busy processes beside it")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--calls", type=int, default=8, help="of which a round takes the median")
    parser.add_argument("--job", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if asked.job:
        sys.stdout.write(json.dumps(job(asked.calls)) + "\n")
        return 0
    rows: list[dict[str, Any]] = []
    for busy in map(int, asked.busy.split(",")):
        with beside(busy):
            turns = [{way: measured(way, asked.calls) for way in WAYS} for _ in range(asked.rounds)]
        for way in WAYS:
            row: dict[str, Any] = {"busy": busy, "way": way, "threads": turns[0][way]["threads"]}
            for what in ("forward", "training"):
                spans = [turn[way][what] for turn in turns]
                row[what] = spread(spans, 1)
            rows.append(row)
            sys.stdout.write(f"{json.dumps(row)}\n")
            sys.stdout.flush()
    keep("sharing", {"rounds": asked.rounds, "rows": rows})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
