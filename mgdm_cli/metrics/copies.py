"""How close each image comes to a copy of a training image, and the threshold below which it counts as one.

The feature needs no download. An image is averaged over its channels and, by area, down to at most 32 pixels a side.
The band between two Gaussians of 1.2 and 3 pixels is kept: brightness and slow shading do not count, nor do noise and
the traces of JPEG. The central window of each training image is slid over it by up to 5 pixels each way, as it stands
and mirrored left to right; for the nearest ones it is also moved by parts of a pixel, turned and zoomed a little
(tangent.py). The best normalised cross-correlation `ncc` gives the distance `d = sqrt(2 - 2 ncc)` of the two windows
at unit norm. What is near differs between data sets, so the score is relative: `d1 / mean(d1..d50)` over the 50
nearest training images (Carlini et al. 2023, "Extracting Training Data from Diffusion Models", section 5): 0 for a
copy, nearer to 1 for a new image.

A score is a function of the one image and the training set alone: each image is searched by itself in products of a
fixed shape, and the nearest ones are measured again in double precision. Neither order nor company changes it. The search
sees of each window the cosine coefficients in which the training set varies most: the band leaves little outside of them
(1 % of the variance or less in radiographs, ultrasound and smears), so the nearest ones are found at a third of the price.
Mirroring only turns the sign of half of these coefficients, so that one product serves both ways of looking at an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.fft import dct

from mgdm_cli.errors import BadInput
from mgdm_cli.metrics.tangent import refined

SIDE = 32  # longer side in pixels after area averaging
COARSE, FINE = 3.0, 1.2  # pixels at that size: slower and faster changes than these do not count
SHIFT = 5  # pixels at that size, each way
NEIGHBOURS = 50  # training images in the mean distance
SPARE = 14  # more candidates than needed go from the single-precision search to the double-precision measure
FLAT = 1e-6  # norm of a window without content
COLUMNS = 2048  # training images in one product
COEFFICIENTS = 96  # of the cosine transform of a window: what the search compares
MILDEST = 0.1  # level above which a threshold would refuse too many new images to be offered
SAME = 0.25  # a real image four times nearer to one training image than to its surroundings shows the same thing
REPEATED = 0.01  # as near as this is the same picture written anew; the nearest frames of one ultrasound examination lie at 0.02

Array = NDArray[np.float64]
Quarter = tuple[Literal[0, 1], Literal[0, 1]]  # lower half or not, right half or not


@dataclass(frozen=True)
class Scores:
    """Of S images: `score` (S,), lower is closer to a copy; `nearest` (S,) training index; `distance` (S,) in 0..2."""

    score: Array
    nearest: NDArray[np.int64]
    distance: Array

    @property
    def ncc(self) -> Array:
        """Best normalised cross-correlation with the nearest training image (S,), 1 for the same picture."""
        return 1.0 - self.distance**2 / 2.0


@dataclass(frozen=True)
class Threshold:
    """`value` flags a really new image with probability `alpha` at most; None where too few calibrate it (`reason`).

    Then only what shows the same thing as a training image counts as a copy: a score below `SAME`.
    """

    value: float | None
    alpha: float
    calibrated_on: int
    reason: str = ""

    def flags(self, score: Array) -> NDArray[np.bool_]:
        """True (S,) where the image counts as a copy."""
        return np.asarray(score < SAME if self.value is None else score <= self.value)


@dataclass(frozen=True)
class Calibration:
    """Scores of images that the model cannot have copied, the threshold they give, and where they came from."""

    scores: Array
    threshold: Threshold
    source: str  # "holdout" or "training, leave-one-patient-out"
    same_as_training: int  # images of the source left out because another training image shows the same thing
    repeated: int = 0  # of those: the same picture as a training image
    patients: int | None = None  # that the scores are of; None: as many as scores


class CopyScorer:
    """Scores images against one prepared training set."""

    def __init__(
        self,
        train: NDArray[np.float32],
        *,
        groups: Sequence[str] | None = None,
        device: str | torch.device = "cpu",
        quarter: Quarter | None = None,
        shift: int = SHIFT,
    ) -> None:
        """`train` (N,C,H,W) in any linear units; `groups` (N,) patients, used by `leave_one_out` alone.

        With a `quarter` of the picture only that part of each image is compared, with the same part of the others.
        """
        if train.ndim != 4 or len(train) < 2:
            raise BadInput(
                f"copy score: the training set has shape {train.shape}", "At least two images of one size are needed."
            )
        self.shape = train.shape[1:]
        self.device = torch.device(device)
        self.groups = np.asarray([str(i) for i in range(len(train))] if groups is None else list(groups))
        self.quarter, self.shift = quarter, shift
        self._detail = self._prepared(train)
        tall, wide = _margin(self._detail.shape, shift)
        height, width = self._detail.shape[1:]
        centre = self._detail[:, tall : height - tall, wide : width - wide]
        self._windows = _unit(centre).astype(np.float32)
        basis, self._even = _telling(self._windows, centre.shape[1:])
        self._basis = torch.from_numpy(basis.astype(np.float32)).to(self.device)  # (D, K)
        self._search = (torch.from_numpy(self._windows).to(self.device) @ self._basis).T.contiguous()  # (K, N)

    def __len__(self) -> int:
        return len(self._windows)

    def score(self, images: NDArray[np.float32]) -> Scores:
        """`Scores` of images (S,C,H,W), in the units and at the size of the training set."""
        if images.ndim != 4 or images.shape[1:] != self.shape:
            raise BadInput(
                f"copy score: images of shape {images.shape[1:]} against training images of shape {self.shape}",
                "Both must have the same size and channels.",
            )
        return _gather([self._one(self._prepared(image[None])[0], None) for image in images])

    def leave_one_out(self, *, limit: int = 400, seed: int = 0) -> tuple[Scores, NDArray[np.int64]]:
        """`Scores` of up to `limit` training images, each against those of other patients, and their indices (M,)."""
        order = np.random.default_rng(seed).permutation(len(self))[:limit]
        chosen = np.sort(order).astype(np.int64)
        return self.among(chosen), chosen

    def among(self, chosen: NDArray[np.int64]) -> Scores:
        """`Scores` of the training images of these indices (M,), each against those of other patients."""
        return _gather([self._one(self._detail[i], self.groups != self.groups[i]) for i in chosen])

    def _prepared(self, images: NDArray[np.float32]) -> Array:
        """The band (N,h,w) that is compared, of the whole pictures or of the quarter."""
        detail = _detail(images)
        if self.quarter is None:
            return detail
        rows, columns = (
            slice(half * (side // 2), (half + 1) * (side // 2) + half * (side % 2))
            for half, side in zip(self.quarter, detail.shape[1:], strict=True)
        )
        return detail[:, rows, columns]

    def _one(self, detail: Array, allowed: NDArray[np.bool_] | None) -> tuple[float, int, float]:
        """Score, nearest index and distance of one prepared image (h,w) against the allowed training images."""
        margin = _margin(detail.shape, self.shift)
        patches = _unit(_patches(detail, margin))
        ncc = self._coarse(patches.astype(np.float32))
        if allowed is not None:
            ncc = np.where(allowed, ncc, -2.0)
        usable = len(self) if allowed is None else int(allowed.sum())
        if usable == 0:
            raise BadInput("copy score: all training images belong to one patient", "Give patients, or more of them.")
        best = _largest(ncc, min(NEIGHBOURS + SPARE, usable))
        exact = _exact(detail, patches, self._windows[best].astype(np.float64), margin)
        distance = np.sqrt(np.maximum(2.0 - 2.0 * exact, 0.0))
        order = np.lexsort((best, distance))[:NEIGHBOURS]
        mean = float(distance[order].mean())
        nearest = float(distance[order[0]])
        return (nearest / mean if mean > 0 else 0.0), int(best[order[0]]), nearest

    def _coarse(self, patches: NDArray[np.float32]) -> NDArray[np.float32]:
        """Best correlation (N,) of the telling part over all shifts and both mirrorings, from patches (P, D)."""
        query, k = torch.from_numpy(patches).to(self.device) @ self._basis, self._even
        even, odd = query[:, :k].contiguous(), query[:, k:].contiguous()
        parts = [  # the mirrored image's correlation is that of the even part less that of the odd one
            (even @ chunk[:k]).add_((odd @ chunk[k:]).abs_()).amax(dim=0)
            for chunk in torch.split(self._search, COLUMNS, dim=1)
        ]
        return np.asarray(torch.cat(parts).cpu().numpy(), dtype=np.float32)


def threshold(calibration: Array, alpha: float = 0.01) -> Threshold:
    """Conformal threshold: the floor(alpha (m + 1))-th smallest of m calibration scores.

    A new image, exchangeable with the calibration images, scores at or below it with probability `alpha` at most
    (Vovk, Gammerman & Shafer 2005). It needs m >= 1 / alpha - 1 images.
    """
    m = len(calibration)
    rank = int(np.floor(alpha * (m + 1) + 1e-9))
    if rank < 1:
        enough = np.ceil(1000 / (m + 1)) / 1000
        would = f" (--copy-alpha {enough:g} would do)" if enough <= MILDEST else ""
        return Threshold(None, alpha, m, f"{m} calibration images; {_needed(alpha)} are needed at {alpha:g}{would}")
    return Threshold(float(np.sort(calibration)[rank - 1]), alpha, m)


class Scorer(Protocol):
    """What `calibrate` asks."""

    @property
    def groups(self) -> NDArray[np.str_]: ...

    def score(self, images: NDArray[np.float32]) -> Scores: ...

    def leave_one_out(self, *, limit: int = 400, seed: int = 0) -> tuple[Scores, NDArray[np.int64]]: ...


def calibrate(
    scorer: Scorer,
    holdout: NDArray[np.float32] | None,
    *,
    alpha: float = 0.01,
    limit: int = 400,
    seed: int = 0,
    patients: Sequence[str] | None = None,
) -> Calibration:
    """The threshold from the holdout; where that is too small, from training images scored against other patients.

    `patients` (M,) are those of the holdout: of several images of one patient the threshold learns little more than of one.

    A real image that shows what another patient's training image shows (a duplicate under another name, the next frame
    of one examination) is not new and would blunt the threshold: scores below `SAME` are left out and counted.
    """
    source, score = "holdout", np.empty(0)
    whose = None if patients is None else np.asarray(list(patients))
    if holdout is not None and len(holdout) >= _needed(alpha):
        score = scorer.score(holdout).score
    if int((score >= SAME).sum()) < _needed(alpha):
        found, chosen = scorer.leave_one_out(limit=limit, seed=seed)
        source, score, whose = "training, leave-one-patient-out", found.score, scorer.groups[chosen]
    new = score[score >= SAME]
    several = None if whose is None else len(np.unique(whose[score >= SAME]))
    repeated = int((score < REPEATED).sum())
    return Calibration(new, threshold(new, alpha), source, len(score) - len(new), repeated, several)


def _needed(alpha: float) -> int:
    """Calibration images without which no threshold of level `alpha` exists."""
    return int(np.ceil(1.0 / alpha - 1e-9)) - 1


def percentile(calibration: Array, score: Array) -> Array:
    """Share (S,) of calibration scores at or below each score: 0 where it is nearer to a copy than all of them."""
    if len(calibration) == 0:
        return np.full(score.shape, np.nan)
    return np.searchsorted(np.sort(calibration), score, side="right") / len(calibration)


def joined(found: Sequence[Scores]) -> Scores:
    """The scores of several sets as those of one."""
    return Scores(*(np.concatenate([getattr(s, name) for s in found]) for name in ("score", "nearest", "distance")))


def _gather(found: list[tuple[float, int, float]]) -> Scores:
    """One `Scores` from single results."""
    return Scores(
        np.array([f[0] for f in found], dtype=np.float64),
        np.array([f[1] for f in found], dtype=np.int64),
        np.array([f[2] for f in found], dtype=np.float64),
    )


def _detail(images: NDArray[np.float32]) -> Array:
    """The band of images (N,C,H,W) that is compared: (N,h,w), grey, at most `SIDE` pixels a side."""
    height, width = images.shape[2:]
    longer = max(height, width)
    rows = height if longer <= SIDE else max(1, round(height * SIDE / longer))
    columns = width if longer <= SIDE else max(1, round(width * SIDE / longer))
    small = _averaging(height, rows) @ images.astype(np.float64).mean(axis=1) @ _averaging(width, columns).T
    fine = _smoothing(rows, FINE) @ small @ _smoothing(columns, FINE).T
    return np.asarray(fine - _smoothing(rows, COARSE) @ small @ _smoothing(columns, COARSE).T)


@lru_cache
def _averaging(long: int, short: int) -> Array:
    """Matrix (short, long) of area averages: each output pixel is the mean of the stretch that it covers."""
    edges = np.arange(short + 1) * (long / short)
    pixels = np.arange(long)
    lo = np.maximum(edges[:-1, None], pixels[None, :])
    hi = np.minimum(edges[1:, None], pixels[None, :] + 1)
    return np.asarray(np.clip(hi - lo, 0.0, None) * (short / long))


@lru_cache
def _smoothing(length: int, sigma: float) -> Array:
    """Matrix (length, length) of a Gaussian, `sigma` in pixels, cut at 4 sigma and mirrored at the borders."""
    radius = int(4 * sigma + 0.5)
    offsets = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    weights /= weights.sum()
    matrix = np.zeros((length, length))
    for offset, weight in zip(offsets, weights, strict=True):
        at = (np.arange(length) + offset) % (2 * length)
        np.add.at(matrix, (np.arange(length), np.where(at < length, at, 2 * length - 1 - at)), weight)
    return matrix


def _largest(value: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Indices (count,) of the largest of `value` (N,), in falling order; of equal ones the first."""
    least = np.partition(value, len(value) - count)[len(value) - count]
    enough = np.flatnonzero(value >= least)
    return np.asarray(enough[np.argsort(-value[enough], kind="stable")[:count]])


def _telling(windows: NDArray[np.float32], size: tuple[int, ...]) -> tuple[Array, int]:
    """The pictures (D,K) of the two-dimensional cosine transform, orthonormal, in which windows (N,D) vary most.

    Those that mirroring leaves as they are come first, and how many they are is told: the others turn their sign.
    """
    rows, columns = (dct(np.eye(n), axis=0, norm="ortho") for n in size)
    whole = np.kron(rows, columns)  # (D, D), a coefficient a row
    strength = ((windows @ whole.T) ** 2).sum(axis=0)
    kept = np.argsort(-strength, kind="stable")[:COEFFICIENTS]
    odd = kept % size[1] % 2 == 1
    return np.asarray(whole[np.concatenate([kept[~odd], kept[odd]])].T), int((~odd).sum())


def _exact(detail: Array, patches: Array, windows: Array, margin: tuple[int, int]) -> Array:
    """Correlation (N,) with training windows (N,D) at the best shift, and after the small move that suits it best."""
    tall, wide = margin
    size = (detail.shape[0] - 2 * tall, detail.shape[1] - 2 * wide)
    mirrored = windows.reshape(-1, *size)[:, :, ::-1].reshape(windows.shape)
    at_shifts = np.concatenate([patches @ windows.T, patches @ mirrored.T])
    where = at_shifts.argmax(axis=0)
    view, place = np.divmod(where, len(patches))
    row, column = np.divmod(place, 2 * wide + 1)
    views = np.stack([detail, detail[:, ::-1]])
    moved = refined(views, view, (row, np.where(view == 1, 2 * wide - column, column)), size, windows)
    return np.asarray(np.maximum(at_shifts[where, np.arange(len(windows))], moved))


def _margin(shape: tuple[int, ...], shift: int) -> tuple[int, int]:
    """Rows and columns around the central window of (..., h, w): the shift searched, less in very small images."""
    return min(shift, shape[-2] // 4), min(shift, shape[-1] // 4)


def _patches(detail: Array, margin: tuple[int, int]) -> Array:
    """All shifted windows of one image (h,w): (P, h - 2m, w - 2m)."""
    tall, wide = margin
    size = (detail.shape[0] - 2 * tall, detail.shape[1] - 2 * wide)
    return np.lib.stride_tricks.sliding_window_view(detail, size).reshape(-1, *size)


def _unit(windows: Array) -> Array:
    """Windows (P,h,w) less their mean, as vectors (P,D) of norm 1; a flat window stays zero and is near to nothing."""
    flat = (windows - windows.mean(axis=(1, 2), keepdims=True)).reshape(len(windows), -1)
    norm = np.linalg.norm(flat, axis=1, keepdims=True)
    return np.asarray(np.where(norm > FLAT, flat / np.maximum(norm, FLAT), 0.0))
