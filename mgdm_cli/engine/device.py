"""Where the work runs: device by name, precision, determinism."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache

import torch
from torch.nn import functional as F

from mgdm_cli.errors import UsageError

KIND, KINDS = "MGDM_COMPUTES_IN", ("bfloat16", "float32")
PAYS = 1.2  # how many times as quick bfloat16 has to be
MAPS = ((4, 64, 16, 16), (64, 64, 3, 3))  # what it is tried on: input and weights of a convolution


def pick(name: str = "auto") -> torch.device:
    """The device of that name: "auto" is CUDA, else MPS, else the CPU."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"device: {name}: not a device", "use auto, cpu, cuda, cuda:N or mps") from error
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    beyond = device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()
    if beyond or not there.get(device.type, False):
        raise UsageError(f"device: {name}: not available on this machine", "use --device auto")
    return device


def computes_in_bf16(device: torch.device) -> bool:
    """Whether the device is quick at bfloat16: a GPU that has it, or a processor that is seen to be."""
    if device.type == "cuda":
        return _has_bf16(device)
    return device.type == "cpu" and kind_of_cpu() == "bfloat16"


@cache
def _has_bf16(device: torch.device) -> bool:
    with torch.cuda.device(device):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def kind_of_cpu() -> str:
    """What nets compute in on this processor, "bfloat16" or "float32": what `compute_as` or the user says, else what is seen to be quicker.

    It stands in the environment, so that processes that this one starts do the same. Raises UsageError.
    """
    kind = os.environ.get(KIND)
    if kind is None:
        kind = os.environ[KIND] = "bfloat16" if _saved_by_bf16() >= PAYS else "float32"
    if kind not in KINDS:
        raise UsageError(
            f"{KIND}: {kind!r} is no type that nets compute in", f"Say {' or '.join(KINDS)}, or leave it out"
        )
    return kind


def compute_as(threads: int, kind: str) -> None:
    """From now on compute on so many threads and, on a processor, in `kind` ("": as before): bits depend on both."""
    torch.set_num_threads(threads)
    if kind:
        os.environ[KIND] = kind


@contextmanager
def as_before() -> Iterator[None]:
    """Whatever `compute_as` is asked inside, afterwards this process computes as it did."""
    threads, kind = torch.get_num_threads(), os.environ.get(KIND)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        if kind is None:
            os.environ.pop(KIND, None)
        else:
            os.environ[KIND] = kind


def has_fused_optimizer(device: torch.device) -> bool:
    """Whether AdamW goes over all weights at once: the loop over its steps took 9 % of a training step."""
    return device.type in ("cpu", "cuda")


def _saved_by_bf16(rounds: int = 7) -> float:
    """How many times as long a convolution takes one thread in float32. Measured, since no flag of a processor tells it: with AMX it is 4,
    without it 1/5 to 2. In the thread's own time, or other work would decide; without drawing random numbers."""
    span = {torch.float32: float("inf"), torch.bfloat16: float("inf")}
    on_the_wall = dict(span)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            work = {
                kind: [torch.ones(shape, dtype=kind).to(memory_format=torch.channels_last) for shape in MAPS]
                for kind in span
            }
            for _ in range(rounds):
                for kind, (x, weight) in work.items():
                    started, own = time.perf_counter(), time.thread_time()
                    F.conv2d(x, weight, padding=1)
                    span[kind] = min(span[kind], time.thread_time() - own)
                    on_the_wall[kind] = min(on_the_wall[kind], time.perf_counter() - started)
    finally:
        torch.set_num_threads(threads)
    if min(span.values()) <= 0:  # a thread's clock may tick in hundredths of a second
        span = on_the_wall
    return span[torch.float32] / span[torch.bfloat16]


def bf16(device: torch.device) -> AbstractContextManager[None]:
    """Autocast to bfloat16 where the device is quick at it; sums, the diffusion arithmetic and weights in training stay float32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=computes_in_bf16(device))


def step_seed(seed: int, step: int) -> int:
    """The seed of one step of a training, of those that torch takes: below 2**64. Whatever the seed, its steps differ."""
    return (seed * 1_000_003 + step) % 2**64


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Dropout can only draw from the global generator: seed it here, and give it back as it was."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def keep_pages() -> None:
    """Let glibc, where it is the C library, keep freed memory: giving pages back and faulting them in again took 5 % of a step."""
    trim, map_above = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of mallopt(3)
    change = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if change is not None:  # musl has none
        change(trim, 1 << 30)
        change(map_above, 1 << 25)  # the largest that it takes


def make_deterministic() -> None:
    """The same inputs give the same bits on the same machine: no autotuning, no TF32, deterministic kernels."""
    keep_pages()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_deterministic_debug_mode(
        "warn"
    )  # use_deterministic_algorithms loads the compiler as well: seconds, for nothing here
    # Deterministic mode would also write NaN into every new tensor, for code that reads what it never wrote: time, for nothing here.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


def describe(device: torch.device) -> str:
    """A name for run records: the GPU's, or the CPU's vector width and the number of threads."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"{device.type} {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"


def of_same_kind(described: str, device: torch.device) -> bool:
    """Whether `describe` would name `device` so, whatever its vector width and threads."""
    return described == describe(device) if device.type == "cuda" else described.split(" ")[0] == device.type


def kind_of(device: torch.device) -> str:
    """What nets compute in there: "bfloat16" or "float32"."""
    return KINDS[0] if computes_in_bf16(device) else KINDS[1]


def kind_to_keep(device: torch.device) -> str:
    """What a training that begins there goes on computing in: "" on a GPU, which has its own, and another device is not to take it over."""
    return kind_of(device) if device.type == "cpu" else ""
