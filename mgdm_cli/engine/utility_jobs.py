"""Cells of the utility table computed by several processes at once; each writes its own file, whole or not at all."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

import torch

from .utility import Arm, Bench, Cell, CellSettings, Progress, compute, paths_of, run_cells


@dataclass
class _Task:
    """What a worker was given when it began."""

    bench: Bench
    arms: dict[str, Arm]
    settings: CellSettings


_task: list[_Task] = []  # one, in a worker; sent once, not with every cell


def run_cells_with(
    jobs: int,
    folder: Path,
    bench: Bench,
    arms: Sequence[Arm],
    cells: Sequence[Cell],
    settings: CellSettings,
    *,
    go_on: Callable[[float], bool] = lambda longest: True,
) -> Iterator[Progress]:
    """`run_cells` by up to `jobs` processes; progress comes in the order in which cells are done. On the CPU alone."""
    if jobs <= 1 or bench.real.x0.device.type != "cpu":
        yield from run_cells(folder, bench, arms, cells, settings, go_on=go_on)
        return
    paths = dict(zip(cells, paths_of(folder, bench, arms, cells, settings), strict=True))
    left = [cell for cell in cells if not paths[cell].is_file()]
    for done, cell in enumerate((cell for cell in cells if paths[cell].is_file()), start=1):
        yield Progress(cell, done, len(cells), 0.0)
    done, longest = len(cells) - len(left), 0.0
    threads = max((os.cpu_count() or 1) // jobs, 1)
    task = _Task(bench, {arm.name: arm for arm in arms}, settings)
    # "spawn": a fork would copy torch's threads half
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(jobs, max(len(left), 1)), context, _begin, (task, threads)) as pool:
        running: dict[Future[float], Cell] = {}
        while left or running:
            while left and len(running) < jobs and go_on(longest):
                cell = left.pop(0)
                running[pool.submit(_work, cell, paths[cell])] = cell
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                seconds, done = future.result(), done + 1
                longest = max(longest, seconds)
                yield Progress(running.pop(future), done, len(cells), seconds)


def _begin(task: _Task, threads: int) -> None:
    torch.set_num_threads(threads)
    _task.append(task)


def _work(cell: Cell, path: Path) -> float:
    """Compute one cell in a worker; returns its seconds."""
    task, begun = _task[0], time.monotonic()
    compute(task.bench, task.arms[cell.arm], cell, task.settings, path)
    return time.monotonic() - begun
