"""Flags that are written as text: sizes, lengths of time, bytes, knobs. Each is checked where it is given, and read where it is used."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import typer

from mgdm_cli.errors import UsageError

DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")
SIZE = re.compile(r"(\d+)(?:[xX](\d+))?")
DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|min|h|d)?")
BYTES = re.compile(r"(\d{1,12})([kKmMgG]?)")
SHIFTS = {"": 0, "K": 10, "M": 20, "G": 30}
SECONDS = {None: 60.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def size_of(text: str | None) -> tuple[int, int] | None:
    """(height, width) of "64" or "64x48" (height x width); None stays None."""
    if text is None:
        return None
    match = SIZE.fullmatch(text.strip())
    if match is None or not (16 <= int(match[1]) <= 4096 and 16 <= int(match[2] or match[1]) <= 4096):
        raise UsageError(f"--size: {text!r} is not a size from 16 to 4096", "Write 64, or height x width as 64x48")
    return int(match[1]), int(match[2] or match[1])


def seconds_of(text: str | None) -> float | None:
    """Seconds of "90s", "30m", "2h", "1d"; a bare number counts minutes; None stays None."""
    if text is None:
        return None
    match = DURATION.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{text!r} is not a length of time", "Write 90s, 30m or 2h")
    return float(match[1]) * SECONDS[match[2]]


def bytes_of(text: str | None) -> int:
    """Bytes of "512M", "2G", "100000"; 1 GiB for None."""
    if text is None:
        return 1 << 30
    match = BYTES.fullmatch(text.strip())
    if match is None or int(match[1]) < 1:
        raise UsageError(f"--max-file-size: {text!r} is no size", "Write 512M or 2G")
    return int(match[1]) << SHIFTS[match[2].upper()]


def nan_of(text: str | None) -> float | None:
    """0.0 of "fill=0"; None stays None."""
    if text is None:
        return None
    try:
        value = float(text.strip().removeprefix("fill="))
    except ValueError:
        value = math.nan
    if not text.strip().startswith("fill=") or not math.isfinite(value):
        raise UsageError(f"--nan: {text!r} is not fill=NUMBER", "Write --nan fill=0")
    return value


def checked(read: Callable[[str | None], object]) -> Callable[[typer.CallbackParam, str | None], str | None]:
    """A callback that refuses what `read` refuses, by the name of its flag."""

    def callback(param: typer.CallbackParam, value: str | None) -> str | None:
        try:
            read(value)
        except UsageError as error:
            flag = max(param.opts, key=len)
            raise (
                error if error.message.startswith(flag) else UsageError(f"{flag}: {error.message}", error.hint)
            ) from None
        return value

    return callback


def check_device(value: str) -> str:
    if DEVICE.fullmatch(value) is None:
        raise UsageError(f"--device: {value!r} is no device", "Use auto, cpu, cuda, cuda:N or mps")
    return value


check_duration = checked(seconds_of)


def check_pattern(value: str | None) -> str | None:
    if value is None:
        return None
    try:
        groups = re.compile(value).groups
    except re.error as error:
        raise UsageError(f"--patient-regex: {value!r} is not a regular expression: {error}", "Correct it") from None
    if groups != 1:
        raise UsageError(
            f"--patient-regex: {value!r} has {groups} groups, not one", r"Mark the patient, as in '(P\d+)_'"
        )
    return value


def knobs_of(texts: list[str] | None) -> dict[str, float]:
    """{"eta": 0.5} of ["eta=0.5"]. Raises UsageError."""
    knobs: dict[str, float] = {}
    for text in texts or ():
        name, _, value = text.partition("=")
        try:
            knobs[name.strip()] = float(value)
        except ValueError:
            raise UsageError(f"--knob: {text!r} is not name=value", "Write it as --knob eta=0.5") from None
    return knobs
