"""What the oracle sees in a folder of images whose grades were asked for: is the requested grade really there?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mgdm_cli.data.phantom import GRADES
from mgdm_cli.data.phantom_oracle import oracle


@dataclass(frozen=True)
class Agreement:
    """`seen[asked][found]` counts the images of which grade `asked` was wanted and `found` is what the rule sees.

    The last column counts those in which it sees no eye, or noise.
    """

    seen: tuple[tuple[int, ...], ...]

    @property
    def total(self) -> int:
        return sum(map(sum, self.seen))

    @property
    def right(self) -> int:
        return sum(row[grade] for grade, row in enumerate(self.seen))

    def share(self, grade: int) -> float | None:
        """The share of the images of `grade` in which it is seen; None where none was asked for."""
        return self.seen[grade][grade] / sum(self.seen[grade]) if sum(self.seen[grade]) else None


def agreement(images: Iterable[tuple[str, NDArray[np.floating]]], *, top: float = 1.0) -> Agreement:
    """The agreement over pairs of a label and pixels (C, H, W) in 0..`top`; a label outside GRADES is a ValueError."""
    seen = np.zeros((len(GRADES), len(GRADES) + 1), dtype=int)  # UNREADABLE is -1: the last column
    for label, pixels in images:
        seen[GRADES.index(label), oracle(np.asarray(pixels) / top)] += 1
    return Agreement(tuple(tuple(int(count) for count in row) for row in seen))
