"""Physical values <-> the [-1, 1] that a network sees, with the exact inverse; stored with the model."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from mgdm_cli.data.image import Image
from mgdm_cli.errors import BadInput, UsageError

Floats = NDArray[np.float32]

TOP = 99.99  # percentile that becomes +1: a few hot pixels may be clipped
SPREAD = 8.0  # images whose upper ends differ by more than this are scaled one by one
_LEVELS = 1 << 17  # of the histogram: -65536 .. 65535 holds int16 and uint16
_KEPT = 4096  # values kept of each floating-point image


class Intensity(BaseModel):
    """`linear`: lo..hi <-> -1..1. `per-image`: each image's own range -> -1..1, back to the reference range lo..hi."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Literal["linear", "per-image"] = "linear"
    lo: float
    hi: float
    note: str = ""

    @model_validator(mode="after")
    def _ordered(self) -> Intensity:
        if not self.lo < self.hi:
            raise ValueError("lo must be smaller than hi")
        return self

    def to_unit(self, pixels: Floats) -> Floats:
        """(..., C, H, W) physical -> the same shape in [-1, 1], float32; values outside the range are clipped."""
        values = np.asarray(pixels, dtype=np.float64)
        lo: Any = self.lo
        hi: Any = self.hi
        if self.kind == "per-image":
            lo = values.min(axis=(-3, -2, -1), keepdims=True)
            hi = np.percentile(values, TOP, axis=(-3, -2, -1), keepdims=True, method="higher")
            hi = np.where(hi > lo, hi, lo + 1.0)
        unit: Floats = np.clip(2.0 * (values - lo) / (hi - lo) - 1.0, -1.0, 1.0).astype(np.float32)
        return unit

    def to_physical(self, unit: Floats) -> Floats:
        """(..., C, H, W) in [-1, 1] -> physical values in lo..hi, float32; the inverse of `to_unit` for `linear`."""
        values = np.clip(np.asarray(unit, dtype=np.float64), -1.0, 1.0)
        return (self.lo + (values + 1.0) * 0.5 * (self.hi - self.lo)).astype(np.float32)

    def to_json(self) -> str:
        """Canonical JSON."""
        return self.model_dump_json()

    @classmethod
    def from_json(cls, text: str) -> Intensity:
        """The inverse of `to_json`; BadInput names the fields that are wrong."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as fault:
            fields = ", ".join(".".join(map(str, e["loc"])) + ": " + e["msg"] for e in fault.errors())
            raise BadInput(f"intensity record: {fields}", "It is damaged or of another version of mgdm.") from fault


def fit_intensity(images: Iterable[Image], window: tuple[float, float] | None = None) -> Intensity:
    """The map for a training set. `window` = (centre, width) in physical units overrides what the data say.

    8-bit sets take 0..255 whatever they hold. Others take the pooled 0.0 to 99.99 percentiles; where the images' own
    upper ends differ by more than 8x (uncalibrated MR) each is scaled by itself and the median range leads back.
    """
    if window is not None:
        return _windowed(*window)
    pool = _Pool()
    for image in images:
        pool.add(image)
    if not pool.lows:
        raise BadInput("intensity: there are no images", "Check --data.")
    if pool.dtypes == {"uint8"}:
        return Intensity(lo=0.0, hi=255.0)
    lows, highs = np.array(pool.lows), np.array(pool.highs)
    floor = float(lows.min())
    reach = np.quantile(highs - floor, [0.01, 0.99])
    if len(highs) > 1 and reach[1] > SPREAD * max(float(reach[0]), 1e-12):
        lo, hi = float(np.median(lows)), float(np.median(highs))
        if lo < hi:
            note = f"the images' upper ends differ by {_times(reach)}: each image is scaled by its own range"
            return Intensity(kind="per-image", lo=lo, hi=hi, note=note)
    hi = pool.top()
    if not floor < hi:
        raise BadInput("intensity: every image is blank", "Check the input images.")
    return Intensity(lo=floor, hi=hi)


def _windowed(centre: float, width: float) -> Intensity:
    if not (np.isfinite(centre) and np.isfinite(width) and width > 0):
        raise UsageError(f"--window: {centre:g},{width:g} is no window", "Give centre and a positive width.")
    return Intensity(lo=centre - width / 2, hi=centre + width / 2)


def _times(reach: NDArray[np.float64]) -> str:
    return f"{reach[1] / reach[0]:.0f}x" if reach[0] > 0 else "more than 1000x"


class _Pool:
    """A running histogram of whole numbers, a sample of the others, and every image's own range."""

    def __init__(self) -> None:
        self.lows: list[float] = []
        self.highs: list[float] = []
        self.dtypes: set[str] = set()
        self._counts = np.zeros(_LEVELS, dtype=np.int64)
        self._loose: list[Floats] = []

    def add(self, image: Image) -> None:
        self.dtypes.add(image.form.dtype)
        values = image.pixels.ravel()
        self.lows.append(float(values.min()))
        self.highs.append(float(np.percentile(values, TOP, method="higher")))
        if image.form.dtype != "float32":
            levels = np.clip(np.rint(values), -_LEVELS // 2, _LEVELS // 2 - 1).astype(np.int64)
            lowest = int(levels.min())
            counts = np.bincount(levels - lowest)
            self._counts[lowest + _LEVELS // 2 :][: counts.size] += counts
        else:
            step = -(-values.size // _KEPT)
            self._loose.append(np.append(values[::step], values.max()).astype(np.float32))

    def top(self) -> float:
        """The pooled 99.99 percentile, one of the values that are there."""
        if not self._loose:
            total = np.cumsum(self._counts)
            return float(np.searchsorted(total, np.ceil(total[-1] * TOP / 100)) - _LEVELS // 2)
        whole = np.repeat(np.arange(_LEVELS) - _LEVELS // 2, np.minimum(self._counts, 1)).astype(np.float32)
        return float(np.percentile(np.concatenate([*self._loose, whole]), TOP, method="higher"))
