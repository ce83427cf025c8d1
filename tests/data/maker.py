"""A tiny producer of data sets whose images are pure functions of the plan, and a harness that kills it.

Run as a script it prints one JSON document: `python maker.py points|errors|moments|careless FOLDER SEED STRIDE`. It
forks, so it must be a process of its own without threads. STRIDE 1 tries every call, 5 each fifth. "careless" is the
control: the same kills with files written in place, which must be caught.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import shutil
import signal
import struct
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mgdm_cli.data.dataset
from mgdm_cli.data.allotment import allot
from mgdm_cli.data.dataset import Dataset, picture_path
from mgdm_cli.data.files import sha256_hex
from mgdm_cli.data.image import Form
from mgdm_cli.data.manifest import Entry, InputRow, Measures, Rejected
from mgdm_cli.data.plan import Lot, Machine, Models, Plan, Recipe, block_name, cut
from mgdm_cli.errors import IO_FAILED, IoFailed

REAL = {"adipose": 40, "b-2": 20, "b-10": 12}
INPUTS = tuple(InputRow(path=f"{label}/{i}.png", label=label) for label, count in REAL.items() for i in range(count))
SOURCE = b"http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
XMP = b"XML:com.adobe.xmp\0\0\0\0\0<x DigitalSourceType='" + SOURCE + b"'/>"


def make_plan(n: int = 60, *, seed: int = 7, largest: int = 8, max_attempts: int = 50, **changes: Any) -> Plan:
    """A small plan over three classes; `changes` go into the plan as they are."""
    allotment = allot(REAL, n, "fill")
    settings: dict[str, Any] = {
        "versions": {"mgdm": "0.1.0"},
        "machine": Machine(device="cpu", cpu_capability="AVX2", threads=1),
        "seed": seed,
        "block": 4,
        "max_attempts": max_attempts,
        "classes": tuple(REAL),
        "real": REAL,
        "asked": n,
        "balance": "fill",
        "max_per_real": 20.0,
        "lots": cut(allotment.quotas, tuple(REAL), largest=largest),
        "form": Form("png", "uint8", 1, 4, 4, spacing_mm=(0.5, 0.25)),
        "suffix": ".png",
        "size": (4, 4),
        "intensity": {"kind": "linear", "lo": 0.0, "hi": 255.0},
        "models": Models(denoiser="d" * 64, classifier="c" * 64),
        "recipe": Recipe(process="edm", sampler="heun", steps=12, guidance="entropy", strength=1.5),
        "inputs": "f" * 64,
        "date": "20260102",
    }
    return Plan(**settings | changes)


def png(seed: int) -> bytes:
    """A real 4x4 grey PNG with both marks, its pixels drawn from `seed`."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    pixels = hashlib.sha256(str(seed).encode()).digest()[:16]
    rows = b"".join(b"\0" + pixels[i : i + 4] for i in range(0, 16, 4))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 8, 0, 0, 0, 0))
    marks = chunk(b"iTXt", XMP) + chunk(b"tEXt", b"Synthetic\0YES")
    return b"\x89PNG\r\n\x1a\n" + head + marks + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def block(plan: Plan, lot: Lot, attempt: int, start: int) -> tuple[dict[str, bytes], list[Entry], list[Rejected]]:
    """The files and rows of one block, as `Dataset.commit` takes them; every third seed or so is turned down."""
    files: dict[str, bytes] = {}
    accepted: list[Entry] = []
    rejected: list[Rejected] = []
    name = block_name(lot.index, attempt)
    for row in range(plan.block):
        seed = plan.seed_of(lot, attempt, row)
        picture = picture_path(lot, attempt, f"before-{row}.png")
        where: dict[str, Any] = {"block": name, "row": row, "label": lot.label, "class_index": lot.class_index}
        if seed % 3 == 0:
            files[picture] = png(seed + 1)
            rejected.append(Rejected(**where, seed=seed, reason="label-lost", picture=picture))
            continue
        rank = start + len(accepted)
        if rank == lot.quota:
            break
        data, path = png(seed), plan.image_path(lot, rank)
        files |= {path: data, picture: png(seed + 1)}
        accepted.append(
            Entry(
                **where,
                id=plan.image_id(lot, rank),
                path=path,
                sha256=sha256_hex(data),
                bytes=len(data),
                index=lot.first + rank,
                seed=seed,
                model_sha256=plan.models.denoiser,
                process="edm",
                sampler="heun",
                steps=12,
                guidance="entropy",
                strength=1.5,
                stage="disturbed",
                before=Measures(entropy=0.25),
                after=Measures(entropy=seed % 1000 / 1000),
                label_kept=True,
                copy_score=0.9,
                width=4,
                height=4,
                dtype="uint8",
            )
        )
    return files, accepted, rejected


def fill(dataset: Dataset, blocks: int | None = None) -> int:
    """Make the blocks that are missing (at most `blocks` of them); how many were made."""
    made = 0
    for lot in dataset.lots:
        while dataset.wants(lot) and made != blocks:
            attempt = len(dataset.blocks(lot))
            files, accepted, rejected = block(dataset.plan, lot, attempt, dataset.accepted(lot))
            dataset.commit(lot, attempt, files=files, accepted=accepted, rejected=rejected)
            made += 1
    return made


def make(root: Path, plan: Plan, shard: tuple[int, int] = (1, 1)) -> int:
    """A finished data set at `root`, new or continued; how many blocks had to be made."""
    with Dataset.open(root, plan, inputs=INPUTS, shard=shard) as dataset:
        made = fill(dataset)
        dataset.finish()
        return made


def tree(root: Path) -> dict[str, str]:
    """Path -> SHA-256 of all that a data set promises: everything but lock, journal and temporary files."""
    passing = {".mgdm/lock", ".mgdm/journal"}
    names = {path.relative_to(root).as_posix(): path for path in sorted(root.rglob("*")) if path.is_file()}
    return {name: sha256_hex(path.read_bytes()) for name, path in names.items() if name not in passing}


NOT_REACHED = 9
CALLS = ("open", "write", "pwrite", "fsync", "replace", "ftruncate", "mkdir", "unlink")


@contextmanager
def intercepted(before: Callable[[str, Callable[..., Any], tuple[Any, ...]], None]) -> Iterator[None]:
    """Every call of os.<CALLS> announces itself to `before(name, original, arguments)` first."""
    originals = {name: getattr(os, name) for name in CALLS}

    def wrapped(name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            before(name, originals[name], arguments)
            return originals[name](*arguments, **named)

        return call

    for name in CALLS:
        setattr(os, name, wrapped(name))
    try:
        yield
    finally:
        for name, original in originals.items():
            setattr(os, name, original)


def _forked(work: Callable[[], None]) -> int:
    child = os.fork()
    if child == 0:
        try:
            work()
        except IoFailed:
            os._exit(IO_FAILED)
        finally:
            os._exit(0 if sys.exception() is None else 1)
    return child


def _killed_at(root: Path, plan: Plan, point: int, calls: tuple[str, ...] = CALLS) -> bool:
    """SIGKILL a producer at its `point`-th of `calls` (a write is torn in half first); False when it ended before."""
    count = 0

    def before(name: str, original: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        nonlocal count
        count += name in calls
        if count == point and name in calls:
            if name in ("write", "pwrite"):
                original(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2], *arguments[2:])
            os.kill(os.getpid(), signal.SIGKILL)

    def work() -> None:
        with intercepted(before):
            make(root, plan)

    _, status = os.waitpid(_forked(work), 0)
    return os.WIFSIGNALED(status)


def _failed_at(root: Path, plan: Plan, point: int, code: int) -> int:
    """Let the `point`-th write, fsync, rename or mkdir fail with `code`; the exit code of the producer."""
    count = 0

    def before(name: str, original: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if name not in ("open", "unlink"):
            count += 1
            if count == point:
                raise OSError(code, os.strerror(code))

    def work() -> None:
        with intercepted(before):
            make(root, plan)
        if count < point:
            os._exit(NOT_REACHED)

    _, status = os.waitpid(_forked(work), 0)
    return os.waitstatus_to_exitcode(status)


def _killed_after(root: Path, plan: Plan, seconds: float) -> bool:
    child = _forked(lambda: _none(make(root, plan)))
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def _none(_: object) -> None:
    return None


def _sound(root: Path) -> bool:
    """What must hold at any moment: images are whole files, and a done marker vouches for files that are there."""
    if not all(path.read_bytes().endswith(b"IEND\xaeB`\x82") for path in root.glob("images/*/*.png")):
        return False
    done = root / ".mgdm/done"
    if not done.exists():
        return True
    files = json.loads(done.read_bytes())["files"]
    return all(sha256_hex((root / name).read_bytes()) == digest for name, digest in files.items())


def _in_place(root: Path, files: Mapping[str, bytes], *, tmp: Path | None = None) -> None:
    """What `write_all` must not be."""
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(root / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.write(fd, data)
        os.close(fd)


def no_fsync(fd: int) -> None:
    """In place of os.fsync: a killed process loses nothing that it wrote, only a power cut does; and tests stay quick."""


def main(mode: str, folder: str, seed: int, stride: int) -> dict[str, Any]:
    """Counts of what was tried and what went wrong; see the module's docstring."""
    vars(os)["fsync"] = no_fsync
    if mode == "careless":
        vars(mgdm_cli.data.dataset)["write_all"] = _in_place
    base, plan = Path(folder), make_plan(7, largest=4)
    make(base / "whole", plan)
    wanted = tree(base / "whole")
    tried = unequal = unsound = wrong_code = 0
    dice = random.Random(seed)
    started = time.monotonic()
    make(base / "timed", plan)
    whole = time.monotonic() - started
    for number in range(1 + seed % stride, 100_000, stride):
        root = base / f"{mode}-{number}"
        if mode in ("points", "careless"):
            hit = _killed_at(root, plan, number, CALLS if mode == "points" else ("write",))
        elif mode == "errors":
            code = _failed_at(root, plan, number, (errno.ENOSPC, errno.EIO)[number % 2])
            wrong_code += code not in (0, IO_FAILED, NOT_REACHED)
            hit = code != NOT_REACHED
        else:
            hit = tried < 12
            for _ in range(3):
                _killed_after(root, plan, dice.uniform(0, 0.7 * whole))
                unsound += root.exists() and not _sound(root)
        if not hit:
            break
        tried += 1
        unsound += root.exists() and not _sound(root)
        make(root, plan)
        unequal += tree(root) != wanted
        shutil.rmtree(root)
    return {"tried": tried, "unequal": unequal, "unsound": unsound, "wrong_code": wrong_code, "files": len(wanted)}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))))  # noqa: T201
