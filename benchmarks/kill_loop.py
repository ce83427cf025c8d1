"""`mgdm augment` killed at random moments, again and again: the finished data set has the bytes of an undisturbed one.

    python -m benchmarks.kill_loop --times 200
    python -m benchmarks.kill_loop --times 60 --what train      # the same for `mgdm train`: equal weights
    python -m benchmarks.kill_loop --times 40 --plant in-place  # a bug on purpose: must end with exit code 3

SIGKILL comes at a moment drawn uniformly over the length of a run; every folder is killed up to three times before it may
end. After each kill no image under its final name is torn and no marker lies. The
commands run in forks of one process that has loaded PyTorch but never used it, so that a run takes a second, not ten.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.crash_job import forked, loaded, patients, plant, waited, words_of
from benchmarks.crashing import BUGS, sha256, tree, unsound
from benchmarks.keeping import keep
from tests.tiny import measuring_little, tiny_run, tiny_set

GATE = 3
KILLS = 3  # of one folder at most
SEEN = "160"  # images that a training sees


def killed(child: int, seconds: float) -> bool:
    """SIGKILL after `seconds`; False where the child had ended before."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            break
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    return waited(child) == -signal.SIGKILL


@dataclass
class Loop:
    """What is run, into which folder, and what was found so far."""

    base: Path
    what: str
    bug: str | None
    whole: dict[str, str] = field(default_factory=dict)
    kills: int = 0
    folders: int = 0
    wrong: list[str] = field(default_factory=list)

    def run(self, out: Path, *, bug: str | None = None) -> int:
        """The process id of a fork that runs the command into `out`."""

        def work() -> int:
            from mgdm_cli.app import main as mgdm

            if bug is not None:
                plant(bug)
            if self.what == "augment":
                return mgdm(words_of(self.base / "set", self.base / "model", out))
            shutil.copytree(self.base / "begun", out, dirs_exist_ok=True) if not out.exists() else None
            return mgdm(
                ["train", "--data", str(self.base / "set"), "-o", str(out), "--seen", SEEN, "--device", "cpu",
                 "--patient-regex", patients(), "--quiet"]
            )  # fmt: skip

        return forked(work)

    def result(self, out: Path) -> dict[str, str]:
        """What a finished folder promises: of a training, its weights."""
        if self.what == "augment":
            return tree(out)
        return {path.name: sha256(path) for path in sorted(out.glob("*.safetensors"))}

    def torn(self, out: Path) -> list[str]:
        """What is wrong with a folder just after a kill."""
        if self.what == "augment":
            return unsound(out, self.whole) if out.exists() else []
        return [
            f"{name} has other bytes" for name, digest in self.result(out).items() if self.whole.get(name) != digest
        ]

    def one_folder(self, out: Path, dice: random.Random, seconds: float, times: int) -> None:
        """Kill runs into one folder, let the last one end, compare."""
        for _ in range(dice.randint(1, KILLS)):
            if self.kills == times or not killed(self.run(out, bug=self.bug), dice.uniform(0, seconds)):
                break
            self.kills += 1
            self.wrong += [f"kill {self.kills}: {what}" for what in self.torn(out)]
        code = waited(self.run(out))
        self.folders += 1
        if code != 0:
            self.wrong.append(f"folder {self.folders}: going on ended with {code}")
        elif self.result(out) != self.whole:
            self.wrong.append(f"folder {self.folders}: other bytes than those of an undisturbed run")
        shutil.rmtree(out, ignore_errors=True)


def ground(base: Path) -> int:
    """A tiny set, a tiny model trained on it, and a training that has only begun."""
    source = tiny_set(base / "set")
    tiny_run(base / "begun", source, trained=False, seen=int(SEEN))
    tiny_run(base / "model", source)
    return 0


def loop(base: Path, *, what: str, times: int, seed: int, bug: str | None = None) -> Loop:
    """`times` kills below the folder `base`."""
    loaded()
    if what == "train":
        measuring_little()  # or most kills would meet the measuring of the scale, not the training
    if waited(forked(lambda: ground(base))) != 0:
        raise SystemExit("the tiny set and model could not be made")
    found = Loop(base, what, bug)
    started = time.monotonic()
    code = waited(found.run(base / "whole"))
    seconds = time.monotonic() - started
    if code != 0:
        raise SystemExit(f"the undisturbed run ended with {code}")
    found.whole = found.result(base / "whole")
    dice = random.Random(seed)
    while found.kills < times:
        found.one_folder(base / "broken", dice, seconds, times)
        sys.stderr.write(f"{found.kills} kills, {found.folders} folders, {len(found.wrong)} violations\n")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the result as JSON, keep that of a long loop in benchmarks/results; exit code 3 when a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=200)
    parser.add_argument("--what", choices=("augment", "train"), default="augment")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plant", choices=BUGS)
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        found = loop(Path(folder), what=asked.what, times=asked.times, seed=asked.seed, bug=asked.plant)
    result: dict[str, Any] = {
        "what": found.what, "planted": asked.plant, "kills": found.kills, "folders": found.folders,
        "files": len(found.whole), "violations": found.wrong,
    }  # fmt: skip
    sys.stdout.write(json.dumps(result, indent=1) + "\n")
    if asked.times >= 200 and not asked.plant:
        keep(f"kill_loop_{asked.what}", result)
    return GATE if found.wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
