"""Every write, fsync, rename, ... of a run fails in turn, or kills it; then the run goes on. Needs strace (Linux).

    python -m benchmarks.fault_injection                    # the file layer, every call: minutes
    python -m benchmarks.fault_injection --job augment      # the command itself: longer; --stride 7 tries each seventh call
    python -m benchmarks.fault_injection --plant no-fsync   # a bug on purpose: must end with exit code 3

At each point one system call gets SIGKILL, ENOSPC or EIO from the kernel's side (`strace -e inject`). After it no image is
torn and no marker lies, the exit code is 0 or 74 with no traceback, and the same command then ends with the bytes of an
undisturbed run. What no kill can show, that data are on the disk before something relies on them, is read from the trace.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.crash_job import forked, loaded, plant, waited, words_of
from benchmarks.crashing import BUGS, broken_order, tree, unsound
from benchmarks.keeping import keep

CALLS = ("write", "pwrite64", "fsync", "rename", "ftruncate", "mkdir")
FAULTS = ("signal=KILL", "error=ENOSPC", "error=EIO")
ROOT = Path(__file__).resolve().parents[1]
GATE = 3
IMAGES = 6  # of the command's data set


@dataclass(frozen=True)
class Job:
    """How the run is started: as a program, or in a fork of this process, to which strace attaches: a second, not ten."""

    name: str
    ground: tuple[Path, ...] = ()
    plant: str | None = None
    fork: bool = False

    def run(self, out: Path, *strace: str, lead: tuple[str, ...] = ()) -> tuple[int, str]:
        """(exit code, stderr) of a run into `out`, under strace if it is given options, or behind the words `lead`."""
        if self.fork:
            return self._forked(out, strace)
        words = [sys.executable, "-m", "benchmarks.crash_job", self.name, str(out), *map(str, self.ground)]
        words += ["--plant", self.plant] if self.plant else []
        # no .pyc files: their writes and renames are not ours
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        lead = ("strace", "-f", "-qq", *strace) if strace else lead
        done = subprocess.run([*lead, *words], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        return done.returncode, done.stderr

    def _forked(self, out: Path, strace: tuple[str, ...]) -> tuple[int, str]:
        def work() -> int:
            from mgdm_cli.app import main as mgdm

            if self.plant:
                plant(self.plant)
            return mgdm(words_of(self.ground[0], self.ground[1], out, images=IMAGES))

        with tempfile.TemporaryFile() as errors:
            child = forked(work, errors=errors.fileno(), stop=bool(strace))
            if strace:
                os.waitpid(child, os.WUNTRACED)
                # not -f: a worker that dies is a bad file, and no business of the data set's
                tracer = subprocess.Popen(["strace", "-qq", *strace, "-p", str(child)], stderr=subprocess.PIPE)
                while "TracerPid:\t0\n" in Path(f"/proc/{child}/status").read_text():
                    if tracer.poll() is not None:
                        os.kill(child, signal.SIGKILL)
                        raise SystemExit(f"strace: {tracer.stderr.read().decode() if tracer.stderr else ''}")
                    time.sleep(0.005)
                os.kill(child, signal.SIGCONT)
            code = waited(child)
            if strace:
                tracer.communicate()
            errors.seek(0)
            return code, errors.read().decode(errors="replace")


def prepared(job: str, base: Path, bug: str | None) -> Job:
    """The job with what it needs: for the command a tiny set and a tiny model."""
    if job == "layer":
        return Job("layer", plant=bug)
    code = (
        "import sys; from pathlib import Path; from tests.tiny import tiny_run, tiny_set\n"
        "base = Path(sys.argv[1]); tiny_run(base / 'model', tiny_set(base / 'set'))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", code, str(base)], cwd=ROOT, env=environment, check=True, capture_output=True)
    return Job("augment", (base / "set", base / "model"), bug)


def traced(job: Job, out: Path) -> list[str]:
    """The calls of an undisturbed run, one a line, with the paths behind its file handles."""
    log = out.with_name("trace")
    code, errors = job.run(out, "-y", "-s", "0", "-e", f"trace={','.join(CALLS)},fdatasync", "-o", str(log))
    if code != 0:
        raise SystemExit(f"the undisturbed run ended with {code}: {errors[-500:]}")
    return log.read_text(errors="replace").splitlines()


def points(trace: Sequence[str], stride: int) -> Iterator[tuple[str, int, str]]:
    """(call, its number, fault): every `stride`-th of all combinations. Numbers count within the main thread."""
    main = re.match(r"(\d+\s+)?", trace[0])  # of a run whose other threads and processes are not traced nobody is named
    assert main is not None
    named = (re.match(rf"{main[0]}(\w+)\(", line) for line in trace)
    counts = Counter(match[1] for match in named if match)
    every = [(call, k, fault) for call in CALLS for k in range(1, counts[call] + 1) for fault in FAULTS]
    yield from every[stride // 2 :: stride]


def tried(job: Job, out: Path, whole: dict[str, str], point: tuple[str, int, str]) -> list[str]:
    """What went wrong at one point; empty when every promise held."""
    call, number, fault = point
    inject = f"inject={call}:{fault}:when={number}"
    code, errors = job.run(out, "-e", f"trace={call}", "-o", "/dev/null", "-e", inject)
    found = unsound(out, whole) if out.exists() else []
    if code not in (0, 74, -9, 137) or "Traceback" in errors:
        found.append(f"exit code {code}: {errors.strip()[-200:]}")
    code, errors = job.run(out)
    if code != 0:
        found.append(f"going on: exit code {code}: {errors.strip()[-200:]}")
    elif tree(out) != whole:
        found.append("going on: other bytes than those of an undisturbed run")
    return [f"{call} {number} {fault}: {what}" for what in found]


def campaign(base: Path, *, job: str, stride: int, bug: str | None = None) -> dict[str, Any]:
    """The result of the whole campaign below the folder `base`."""
    planted = prepared(job, base, bug)
    if job == "augment":
        loaded()
        planted = replace(planted, fork=True)
    trace = traced(planted, base / "whole")
    order = broken_order(trace, base / "whole")
    whole = tree(base / "whole")
    violations: list[str] = []
    chosen = list(points(trace, stride))
    for point in chosen:
        violations += tried(planted, base / "broken", whole, point)
        shutil.rmtree(base / "broken", ignore_errors=True)
    return {
        "job": job, "planted": bug, "calls": len(trace), "files": len(whole), "points": len(chosen),
        "violations": violations, "broken_order": sorted(set(order)),
    }  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the result as JSON; exit code 3 when a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--job", choices=("layer", "augment"), default="layer")
    parser.add_argument("--stride", type=int, default=1, help="try every n-th point")
    parser.add_argument("--plant", choices=BUGS)
    asked = parser.parse_args(arguments)
    if shutil.which("strace") is None:
        raise SystemExit("strace is not installed (Debian: apt-get install strace)")
    with tempfile.TemporaryDirectory() as folder:
        result = campaign(Path(folder), job=asked.job, stride=asked.stride, bug=asked.plant)
    sys.stdout.write(json.dumps(result, indent=1) + "\n")
    if asked.stride == 1 and not asked.plant:
        keep(f"fault_injection_{asked.job}", result)
    return GATE if result["violations"] or result["broken_order"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
