"""Copies of a part of a training image: the copy score of each quarter of the picture, of which the lowest counts.

The whole picture's score looks at its middle, and misses an image that repeats half of a training image, or nine tenths of it
drawn out. A quarter is compared with the same quarter of each training image, as it stands and mirrored in itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mgdm_cli.metrics.copies import CopyScorer, Quarter, Scores

SHIFT = 2  # pixels at 32 a side: less than for whole pictures, so that more of the quarter is left to compare
QUARTERS: tuple[Quarter, ...] = ((0, 0), (0, 1), (1, 0), (1, 1))


class PartScorer:
    """Scores images against one prepared training set by their quarters."""

    def __init__(self, train: NDArray[np.float32], *, groups: Sequence[str] | None = None) -> None:
        """`train` (N,C,H,W) in any linear units; `groups` (N,) patients, used by `leave_one_out` alone."""
        self._scorers = [CopyScorer(train, groups=groups, quarter=quarter, shift=SHIFT) for quarter in QUARTERS]

    @property
    def groups(self) -> NDArray[np.str_]:
        """Patients (N,) of the training images."""
        return self._scorers[0].groups

    def score(self, images: NDArray[np.float32]) -> Scores:
        """`Scores` of images (S,C,H,W) by the quarter that comes closest to a copy."""
        return _lowest([scorer.score(images) for scorer in self._scorers])

    def leave_one_out(self, *, limit: int = 400, seed: int = 0) -> tuple[Scores, NDArray[np.int64]]:
        """As `CopyScorer.leave_one_out`."""
        found = [scorer.leave_one_out(limit=limit, seed=seed) for scorer in self._scorers]
        return _lowest([scores for scores, _ in found]), found[0][1]


def _lowest(found: Sequence[Scores]) -> Scores:
    """Of each image the scores of the quarter with the lowest one."""
    which = np.argmin([scores.score for scores in found], axis=0)
    at = (which, np.arange(len(which)))
    return Scores(
        np.stack([scores.score for scores in found])[at],
        np.stack([scores.nearest for scores in found])[at],
        np.stack([scores.distance for scores in found])[at],
    )
