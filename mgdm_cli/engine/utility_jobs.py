"""Cells of the utility table computed, here or by several processes at once; each writes its own file, whole or not at all."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path

import torch

from .utility import Cell, Progress, Table, compute, require_nets

Missing = list[tuple[Cell, Path]]
GoOn = Callable[[float], bool]

_table: list[Table] = []  # one, in a worker; sent once, not with every cell


def run_cells(table: Table, *, jobs: int = 1, go_on: GoOn = lambda longest: True) -> Iterator[Progress]:
    """Compute the cells that are not there yet, by up to `jobs` processes (on a CPU; on a GPU one after the other).

    Those that are there are told first, the others as they are done. Before each, `go_on(seconds of the longest so far)`
    is asked. Raises UsageError before the first where a net does not take the images.
    """
    paths = table.paths()
    there = [cell for cell, path in paths.items() if path.is_file()]
    require_nets(dict.fromkeys(cell.net for cell, path in paths.items() if not path.is_file()), table.bench.shape)
    for done, cell in enumerate(there, start=1):
        yield Progress(cell, done, len(paths), 0.0)
    missing = [(cell, path) for cell, path in paths.items() if cell not in set(there)]
    alone = jobs <= 1 or table.bench.real.x0.device.type != "cpu"
    computed = _here(table, missing, go_on) if alone else _by_processes(table, missing, jobs, go_on)
    for done, (cell, seconds) in enumerate(computed, start=len(there) + 1):
        yield Progress(cell, done, len(paths), seconds)


def _here(table: Table, missing: Missing, go_on: GoOn) -> Iterator[tuple[Cell, float]]:
    longest = 0.0
    for cell, path in missing:
        if not go_on(longest):
            return
        seconds = compute(table, cell, path)
        longest = max(longest, seconds)
        yield cell, seconds


def _by_processes(table: Table, missing: Missing, jobs: int, go_on: GoOn) -> Iterator[tuple[Cell, float]]:
    left, longest = list(missing), 0.0
    threads = max(torch.get_num_threads() // jobs, 1)
    # "spawn": a fork would copy torch's threads half
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(jobs, max(len(left), 1)), context, _begin, (table, threads)) as pool:
        running: dict[Future[float], Cell] = {}
        while left or running:
            while left and len(running) < jobs and go_on(longest):
                cell, path = left.pop(0)
                running[pool.submit(_work, cell, path)] = cell
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                seconds = future.result()
                longest = max(longest, seconds)
                yield running.pop(future), seconds


def _begin(table: Table, threads: int) -> None:
    torch.set_num_threads(threads)
    _table.append(table)


def _work(cell: Cell, path: Path) -> float:
    return compute(_table[0], cell, path)
