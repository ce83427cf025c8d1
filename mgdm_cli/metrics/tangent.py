"""The match of two windows after the small move, turn and zoom that suits it best.

A window that is moved by less than a pixel, turned or zoomed a little is, to first order, the window plus a combination
of four pictures: its derivatives by the two shifts, the angle and the scale (Simard, LeCun & Denker 1993, "Efficient
pattern recognition using a new transformation distance"). The best combination is a linear least-squares problem.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

MOST = np.array([0.75, 0.75, 0.10, 0.12])  # pixels, pixels, radians, share: how far the first order is trusted
RIDGE = 1e-9  # of the trace: keeps flat windows solvable


def refined(
    views: Array, view: Indices, corner: tuple[Indices, Indices], size: tuple[int, int], windows: Array
) -> Array:
    """Correlation (N,) of `windows` (N,D) of norm 1 with windows cut from `views` (V,h,w), each moved to suit best.

    Window i, of `size` (rows, columns), is cut from `views[view[i]]`; its upper left corner lies at row `corner[0][i]`
    and column `corner[1][i]`.
    """
    stack = np.stack([views, *np.gradient(views, axis=(1, 2))])  # (3,V,h,w)
    cut = np.lib.stride_tricks.sliding_window_view(stack, size, axis=(2, 3))[:, view, corner[0], corner[1]]
    plain, down, right = np.asarray(cut, dtype=np.float64)  # (N,*size) each
    y, x = (np.arange(n) - (n - 1) / 2.0 for n in size)
    turn = y[:, None] * right - x[None, :] * down
    zoom = y[:, None] * down + x[None, :] * right
    basis = np.stack([plain, down, right, turn, zoom], axis=1).reshape(len(windows), 5, -1)
    basis -= basis.mean(axis=2, keepdims=True)
    gram = basis @ basis.transpose(0, 2, 1)
    ridge = RIDGE * np.trace(gram, axis1=1, axis2=2) + 1e-30
    weight = np.linalg.solve(gram + ridge[:, None, None] * np.eye(5), basis @ windows[:, :, None])[:, :, 0]
    lead = np.where(weight[:, :1] > 0, weight[:, :1], np.inf)  # a window that only matches inverted is left unmoved
    move = np.clip(weight[:, 1:] / lead, -MOST, MOST)
    moved = basis[:, 0] + np.einsum("nk,nkd->nd", move, basis[:, 1:])
    norm = np.linalg.norm(moved, axis=1)
    return np.asarray(np.einsum("nd,nd->n", moved, windows) / np.where(norm > 0, norm, 1.0))
