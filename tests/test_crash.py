"""Stopped in any way, a run goes on to the same bytes. The long forms are commands in benchmarks/.

Kills inside every call of the file layer are in data/test_dataset.py, kills of the commands at random moments in
commands/test_augment.py and engine/test_training.py. Here: faults from the kernel's side, the order of calls that a power
cut needs, full and read-only disks, two writers, SIGTERM, a clock that jumps, and that the harness finds planted bugs.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import gettempdir

import numpy as np
import pytest
from PIL import Image

from benchmarks.crash_job import patients, words_of
from benchmarks.crashing import BUGS, broken_order, sha256, tree, unsound
from benchmarks.fault_injection import CALLS, FAULTS, Job, campaign, points, prepared, traced, tried
from mgdm_cli.data.dataset import Dataset, reserve
from tests.data import maker
from tests.tiny import mgdm, tiny_run, tiny_set

LAYER = Job("layer")
PATIENCE = 30.0  # seconds that a stopped run may take to end; ten on a machine that does nothing else
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "out"
    code, errors = LAYER.run(out)
    assert code == 0, errors
    return out


# Faults that the kernel injects


@pytest.mark.external("strace")
def test_a_call_that_fails_or_kills_leaves_nothing_torn_and_the_same_end(tmp_path: Path, whole: Path) -> None:
    """A few points of each kind; `python -m benchmarks.fault_injection` tries every one."""
    trace = traced(LAYER, tmp_path / "traced")
    assert broken_order(trace, tmp_path / "traced") == []
    assert tree(tmp_path / "traced") == tree(whole)
    every = list(points(trace, 1))
    assert {(call, fault) for call, _, fault in every} == {(call, fault) for call in CALLS for fault in FAULTS}
    for point in every[11::97]:
        assert tried(LAYER, tmp_path / "broken", tree(whole), point) == []
        shutil.rmtree(tmp_path / "broken")


@pytest.mark.external("strace")
@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_found(bug: str, tmp_path: Path) -> None:
    result = campaign(tmp_path, job="layer", stride=10_000, bug=bug)
    wanted = {
        "in-place": "is written in place",
        "no-fsync": "is renamed before it is synced",
        "no-folder-fsync": "the journal speaks before the folder",
        "journal-first": "the journal speaks before the folder",
    }[bug]
    assert any(wanted in line for line in result["broken_order"])


@pytest.mark.external("strace")
def test_a_file_written_in_place_is_seen_torn(tmp_path: Path, whole: Path) -> None:
    job = Job("layer", plant="in-place")
    writes = [line for line in traced(job, tmp_path / "traced") if " write(" in line]
    second = 2 + next(i for i, line in enumerate(writes) if "/images/" in line)  # of an image's several writes
    found = tried(job, tmp_path / "broken", tree(whole), ("write", second, "signal=KILL"))
    assert any("torn" in what for what in found), found


def test_a_torn_image_and_a_marker_that_lies_are_seen(tmp_path: Path, whole: Path) -> None:
    good = tree(whole)
    root = Path(shutil.copytree(whole, tmp_path / "out"))
    assert unsound(root, good) == []
    image = next((root / "images").glob("*/*.png"))
    data = image.read_bytes()
    image.write_bytes(data[:-1])
    assert [what for what in unsound(root, good) if "torn" in what]
    image.unlink()
    assert any("marker stands" in what for what in unsound(root, good))
    image.write_bytes(data)
    (root / "manifest.jsonl").write_bytes(b"")
    assert any("manifest" in what for what in unsound(root, good))
    (root / ".mgdm/done").write_bytes(b"{")
    assert unsound(root, good) == ["the done marker is torn"]


def test_the_reader_of_traces_knows_right_from_wrong() -> None:
    """The order that survives a power cut, and the same with one line left out each time."""
    right = [
        '7 mkdir("/o/.mgdm", 0777) = 0',
        "7 fsync(3</o>) = 0",
        '7 write(3</o/.mgdm/tmp/0.part>, "..."..., 9) = 9',
        "7 fsync(3</o/.mgdm/tmp/0.part>) = 0",
        '7 rename("/o/.mgdm/tmp/0.part", "/o/images/a.png") = 0',
        "7 fsync(4</o/images>) = 0",
        '7 pwrite64(5</o/.mgdm/journal>, "..."..., 5, 0) = 5',
        "7 fsync(5</o/.mgdm/journal>) = 0",
        '7 write(3</o/.mgdm/tmp/1.part>, "..."..., 9) = 9',
        "7 fsync(3</o/.mgdm/tmp/1.part>) = 0",
        '7 rename("/o/.mgdm/tmp/1.part", "/o/.mgdm/done") = 0',
        "7 write(1</dev/null>, ...) = 4",
    ]
    root = Path("/o")
    assert broken_order(right, root) == []
    for left_out in (i for i, line in enumerate(right) if "fsync" in line):
        assert broken_order([line for i, line in enumerate(right) if i != left_out], root)
    assert broken_order(["7 fsync(3</o/.mgdm/tmp/0.part>) = -1 EIO (INJECTED)", *right[4:5]], root)


# Disks


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, in memory, with room for a fraction of a data set."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)], capture_output=True, check=False
    )
    if done.returncode != 0:
        pytest.skip("this machine lets no test mount a file system")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def remounted(place: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(place)], check=True, capture_output=True)


@pytest.mark.external("mount")
def test_a_full_disk_ends_with_74_and_the_same_command_goes_on(small_disk: Path, whole: Path) -> None:
    out = small_disk / "out"
    code, errors = LAYER.run(out)
    assert code == 74, errors
    assert "No space left" in errors
    assert unsound(out, tree(whole)) == []
    assert not (out / ".mgdm/done").exists()
    remounted(small_disk, "size=4m")
    assert LAYER.run(out)[0] == 0
    assert tree(out) == tree(whole)


@pytest.mark.external("mount")
def test_a_disk_that_turns_read_only_ends_with_74(small_disk: Path, whole: Path) -> None:
    remounted(small_disk, "size=4m")
    out = small_disk / "out"
    with Dataset.open(out, maker.make_plan(4, largest=4), inputs=maker.INPUTS) as dataset:
        maker.fill(dataset, 1)
    remounted(small_disk, "ro")
    code, errors = LAYER.run(out)
    assert code == 74, errors
    assert "Read-only" in errors
    assert "Traceback" not in errors
    remounted(small_disk, "rw")
    assert LAYER.run(out)[0] == 0
    assert tree(out) == tree(whole)


def test_a_second_writer_ends_with_75_and_harms_nothing(tmp_path: Path, whole: Path) -> None:
    out = tmp_path / "out"
    lock = reserve(out)
    code, errors = LAYER.run(out)
    assert code == 75, errors
    assert "in use" in errors
    assert not (out / "plan.json").exists()
    lock.release()
    assert LAYER.run(out)[0] == 0
    assert tree(out) == tree(whole)


@pytest.mark.external("faketime")
def test_a_clock_that_jumps_changes_no_byte(tmp_path: Path, whole: Path) -> None:
    out = tmp_path / "out"
    with Dataset.open(out, maker.make_plan(4, largest=4), inputs=maker.INPUTS) as dataset:
        maker.fill(dataset, 1)
    code, errors = LAYER.run(out, lead=("faketime", "1999-12-31 23:59:59"))
    assert code == 0, errors
    assert tree(out) == tree(whole)
    assert LAYER.run(tmp_path / "later", lead=("faketime", "2070-01-01 00:00:00"))[0] == 0
    assert tree(tmp_path / "later") == tree(whole)


# The command


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return prepared("augment", tmp_path_factory.mktemp("ground"), None)


def stopped(job: Job, out: Path, number: int) -> tuple[int, str]:
    """The command, stopped by a signal as soon as its journal is there; exit code and stderr."""
    words = [sys.executable, "-m", "mgdm_cli", *words_of(job.ground[0], job.ground[1], out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    child = subprocess.Popen(words, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
    while child.poll() is None and not (out / ".mgdm/journal").exists():
        time.sleep(0.005)
    child.send_signal(number)
    sent = time.monotonic()
    _, errors = child.communicate(timeout=120)
    assert time.monotonic() - sent < PATIENCE
    return child.returncode, errors


@pytest.mark.slow
@pytest.mark.external("strace")
def test_sigterm_ends_with_143_and_the_command_goes_on_and_writes_nothing_outside(job: Job, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, errors = stopped(job, out, signal.SIGTERM)
    assert code == 143, errors
    assert "SIGTERM" in errors
    assert not (out / ".mgdm/done").exists()
    log = tmp_path / "trace"
    calls = "trace=openat,open,creat,rename,renameat2,mkdir"
    code, errors = job.run(tmp_path / "whole", "-ff", "-e", calls, "-o", str(log))  # a file a process: no line is cut
    assert code == 0, errors
    assert unsound(out, tree(tmp_path / "whole")) == []
    code, errors = job.run(out)
    assert code == 0, errors
    assert tree(out) == tree(tmp_path / "whole")
    told = "".join(path.read_text(errors="replace") for path in tmp_path.glob("trace.*"))
    assert str(tmp_path / "whole") in told
    assert strangers(told, tmp_path / "whole") == set()


@pytest.mark.slow
@pytest.mark.external("mount")
def test_training_stopped_by_sigterm_and_by_a_full_disk_ends_with_the_same_weights(small_disk: Path) -> None:
    """A checkpoint and 143; 74 and that checkpoint as it was; then the weights of an undisturbed run."""
    remounted(small_disk, "size=64m")
    setting = (
        "import sys; from pathlib import Path; from tests.tiny import mgdm, tiny_run, tiny_set\n"
        "base = Path(sys.argv[1]); source = tiny_set(base / 'set')\n"
        "for name in ('whole', 'broken'): tiny_run(base / name, source, trained=False, seen=240)"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", setting, str(small_disk)], env=environment, check=True, capture_output=True)

    def started(name: str) -> subprocess.Popen[str]:
        words = mgdm(
            "train", "--data", str(small_disk / "set"), "-o", str(small_disk / name), "--patient-regex", patients(),
            "--seen", "240", "--device", "cpu", "--quiet", "--save-every", "0s",
        )  # fmt: skip
        return subprocess.Popen(words, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)

    def weights_of(name: str) -> dict[str, str]:
        return {path.name: sha256(path) for path in sorted((small_disk / name).glob("*.safetensors"))}

    def ended(child: subprocess.Popen[str]) -> tuple[int, str]:
        errors = child.communicate(timeout=600)[1]
        return child.returncode, errors

    assert ended(started("whole"))[0] == 0
    broken = started("broken")
    while broken.poll() is None and not list((small_disk / "broken").glob("checkpoint-*.sha256")):
        time.sleep(0.005)
    broken.send_signal(signal.SIGTERM)
    code, errors = ended(broken)
    assert code == 143, errors
    kept = weights_of("broken")
    assert any(name.startswith("checkpoint-") for name in kept)
    full = sum(path.stat().st_blocks for path in small_disk.rglob("*")) // 2 + 8
    remounted(small_disk, f"size={full}k")
    code, errors = ended(started("broken"))
    assert code == 74, errors
    assert "No space left" in errors
    assert kept.items() <= weights_of("broken").items()
    remounted(small_disk, "size=64m")
    assert ended(started("broken"))[0] == 0
    assert weights_of("broken") == weights_of("whole")


@pytest.mark.slow
def test_another_instruction_set_gives_nearly_the_same_images(tmp_path: Path) -> None:
    """Not the same bytes, for no one promises those: within one grey level in 99.9 % of the pixels.

    Of a net that has learnt: the answers of one that has not change with the last bit of what it is asked.
    """
    tiny_run(tmp_path / "run", tiny_set(tmp_path / "set", size=64), seen=8, base="colour-64")
    for name in ("native", "default"):
        settings = {} if name == "native" else {"ATEN_CPU_CAPABILITY": "default"}
        words = ["sample", str(tmp_path / "run"), "--labels", "grade0=4,grade1=4", "--scale", "1", "--device", "cpu"]
        done = subprocess.run(
            [sys.executable, "-m", "mgdm_cli", *words, "-o", str(tmp_path / name)],
            cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1", **settings}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    plans = [json.loads((tmp_path / name / "plan.json").read_bytes()) for name in ("native", "default")]
    kinds = [plan["machine"]["cpu_capability"] for plan in plans]
    if kinds[0] == kinds[1]:
        pytest.skip(f"this processor has nothing beyond {kinds[0]}")
    names = sorted(p.relative_to(tmp_path / "native") for p in (tmp_path / "native/images").rglob("*.png"))
    assert len(names) == 8
    both = [np.stack([np.asarray(Image.open(tmp_path / run / n)) for n in names]) for run in ("native", "default")]
    apart = np.abs(both[0].astype(int) - both[1])
    assert (apart <= 1).mean() >= 0.999, np.bincount(apart.ravel())


def strangers(trace: str, root: Path) -> set[str]:
    """Paths outside `root` that were opened for writing, made or renamed.

    Not counted: devices of no content, the file by which Python's tempfile asks whether the temporary folder can be
    written and which it removes at once, and the list of fonts that matplotlib keeps in its own cache.
    """
    wrote = re.findall(
        r'(?:open|openat|creat)\((?:AT_FDCWD, )?"([^"\n]+)", [^)\n]*O_(?:WRONLY|RDWR|CREAT)[^)\n]*\) += \d', trace
    )
    moved = re.findall(r'(?:rename|mkdir)\w*\((?:AT_FDCWD, )?"([^"\n]+)"[^)\n]*\) += 0', trace)
    probe, fonts = rf"{re.escape(gettempdir())}/[a-z0-9_]{{8}}", r".*/matplotlib(/fontlist.*)?"
    harmless = re.compile(rf"/dev/(null|tty)|/proc/self/.*|{probe}|{fonts}")
    return {path for path in (*wrote, *moved) if not harmless.fullmatch(path) and not Path(path).is_relative_to(root)}


def test_strangers_are_seen() -> None:
    told = strangers(
        'openat(AT_FDCWD, "/o/a", O_WRONLY|O_CREAT, 0666) = 3\nopenat(AT_FDCWD, "/x/b", O_RDWR|O_CREAT, 0666) = 3\n'
        f'openat(AT_FDCWD, "{gettempdir()}/a_b1c2d3", O_RDWR|O_CREAT|O_EXCL, 0600) = 3\n'
        'openat(AT_FDCWD, "/x/c", O_RDONLY) = 3\nmkdir("/x/d", 0777) = 0\nmkdir("/x/e", 0777) = -1 EEXIST (File exists)\n',
        Path("/o"),
    )
    assert told == {"/x/b", "/x/d"}


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the loop forks")
def test_the_kill_loop_runs_and_finds_nothing(tmp_path: Path) -> None:
    """Two kills; `python -m benchmarks.kill_loop --times 200` is the long form."""
    words = [sys.executable, "-m", "benchmarks.kill_loop", "--times", "2", "--seed", "1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert (found["kills"], found["violations"]) == (2, [])
    assert found["folders"] >= 1
