"""The second, slower look at a scanned folder: every image decoded once; damaged, blank and the range of values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mgdm_cli.data.folder import Refused, Scan, read_pixels
from mgdm_cli.data.image import Image
from mgdm_cli.data.intensity import Intensity, fit_intensity
from mgdm_cli.errors import BadInput, IoFailed, MgdmError

MAX_BLANK = 0.05  # share of images that may be of one value


@dataclass(frozen=True)
class Look:
    """`refused` cannot be decoded; `blank` hold a single value; `lowest`..`highest` in physical units."""

    refused: tuple[Refused, ...]
    blank: tuple[str, ...]
    lowest: float | None
    highest: float | None
    intensity: Intensity | None


def look(scan: Scan, *, tell: Callable[[int, int], None] | None = None) -> Look:
    """Decodes every record; `tell(done, total)` hears of each. IoFailed where the disk itself fails."""
    refused: dict[str, str] = {}
    blank: list[str] = []
    ends: list[float] = []

    def images() -> Iterator[Image]:
        for done, record in enumerate(scan.records):
            try:
                image = read_pixels(scan, record)
            except IoFailed:
                raise
            except MgdmError as fault:
                refused.setdefault(record.path, fault.message.removeprefix(f"image: {record.path}: "))
            else:
                low, high = float(image.pixels.min()), float(image.pixels.max())
                ends.extend((low, high))
                if low == high:
                    blank.append(record.path if record.part is None else f"{record.path}#{record.part}")
                yield image
            if tell is not None:
                tell(done + 1, len(scan.records))

    try:
        intensity = fit_intensity(images())
    except BadInput:  # nothing decoded, or every image blank: the lists say which
        intensity = None
    told = tuple(Refused(path, why) for path, why in sorted(refused.items()))
    return Look(told, tuple(blank), min(ends, default=None), max(ends, default=None), intensity)
