"""The run that the crash benchmarks interrupt: `python -m benchmarks.crash_job layer OUT` or `augment OUT SET MODEL`.

`layer` writes a small data set through mgdm_cli.data alone (a second); `augment` is the command itself. --plant BUG breaks
the code on purpose, so that one can see whether the harness finds it.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.crashing import BUGS


def words_of(data: Path, model: Path, out: Path, images: int = 24) -> list[str]:
    """The command line of a short `mgdm augment`."""
    return [
        "augment", "--data", str(data), "--model", str(model), "-o", str(out), "--n", str(images), "--guidance", "cfg",
        "--no-filters", "--steps", "4", "--batch-size", "2", "--patient-regex", patients(), "--device", "cpu", "--quiet",
    ]  # fmt: skip


def loaded() -> None:
    """Load what the commands need, and use none of it: forks inherit no thread pools, and start at once."""
    import torch

    torch.set_num_threads(1)
    import mgdm_cli.commands.augment
    import mgdm_cli.commands.train
    import mgdm_cli.engine.generation  # noqa: F401


def forked(work: Callable[[], int], *, errors: int | None = None, stop: bool = False) -> int:
    """The process id of a child that does `work` and ends with its exit code; mute but for `errors`, a handle for stderr.

    With `stop` the child stops itself before its work, until SIGCONT."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            sys.dont_write_bytecode = True
            mute = os.open(os.devnull, os.O_WRONLY)
            os.dup2(mute, 1)
            os.dup2(mute if errors is None else errors, 2)
            if stop:
                os.kill(os.getpid(), signal.SIGSTOP)
            code = work()
        finally:
            os._exit(code)
    return child


def waited(child: int) -> int:
    """The exit code of a child; minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def patients() -> str:
    """The pattern of patients in the names of a phantom set."""
    from mgdm_cli.data.phantom_set import PATIENT_REGEX

    return PATIENT_REGEX


def plant(bug: str) -> None:
    """Break the file layer of this process in one way."""
    from mgdm_cli.data import dataset, files

    layers = (vars(files), vars(dataset))
    if bug == "in-place":
        for names in layers:
            names["write_all"] = _in_place
    elif bug == "no-fsync":
        vars(files)["_fsync"] = lambda fd: None
    elif bug == "no-folder-fsync":
        for names in layers:
            names["fsync_dirs"] = lambda folders: None
    else:
        _journal_first(files, dataset)


def _in_place(root: Path, files: Mapping[str, bytes], *, tmp: Path | None = None) -> None:
    """Files under their final names from the first byte on, a few bytes at a time."""
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(root / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        for start in range(0, len(data), 64):
            os.write(fd, data[start : start + 64])
        os.fsync(fd)
        os.close(fd)


def _journal_first(files: Any, dataset: Any) -> None:
    """Files that are synced only after the journal has spoken of them."""
    waiting: list[Any] = []
    sync = files.fsync_dirs
    append = files.Journal.append

    def late(self: Any, row: Any) -> None:
        append(self, row)
        while waiting:
            sync(waiting.pop())

    files.fsync_dirs = lambda folders: waiting.append(list(folders))
    files.Journal.append = late
    dataset.Journal = files.Journal


def layer(out: Path) -> int:
    """A small data set by the file layer alone; the exit code that the command would give."""
    from mgdm_cli.errors import MgdmError
    from tests.data import maker

    try:
        maker.make(out, maker.make_plan(4, largest=4))
    except MgdmError as error:
        sys.stderr.write(f"{error.message}\n")
        return error.exit_code
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one job; its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", choices=("layer", "augment"))
    parser.add_argument("out", type=Path)
    parser.add_argument("ground", type=Path, nargs="*", help="augment: the set and the model")
    parser.add_argument("--plant", choices=BUGS)
    asked = parser.parse_args(arguments)
    if asked.plant:
        plant(asked.plant)
    if asked.job == "layer":
        return layer(asked.out)
    from mgdm_cli.app import main as mgdm

    return mgdm(words_of(asked.ground[0], asked.ground[1], asked.out))


if __name__ == "__main__":
    raise SystemExit(main())
