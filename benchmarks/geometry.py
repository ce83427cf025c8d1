"""Whether augmentation leaks into what is made: how much phantom eyes vary in area, place and aspect, drawn ones and those made from them.

    mgdm demo -o /tmp/demo
    python -m benchmarks.geometry --demo /tmp/demo

Drawn phantoms all lie alike; in training they were shifted, turned and scaled. A model that was told of that and heard it makes eyes that
lie as the drawn ones do; one that did not makes them vary as the warped ones do, whose spread stands beside.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.keeping import keep
from mgdm_cli.engine.device import make_deterministic
from mgdm_cli.engine.warp import apply, draw, strong

DARK = 45 / 127.5 - 1  # what is brighter is eye, not the black around it
MEASURES = ("area (share)", "column (share of the width)", "row (share of the height)", "aspect")


def pictures(root: Path) -> Tensor:
    """(N, 1, H, W) in [-1, 1]: all PNG files under `root`, in grey."""
    found = [np.asarray(Image.open(path).convert("L"), dtype=np.float32) for path in sorted(root.rglob("*.png"))]
    return torch.from_numpy(np.stack(found))[:, None] / 127.5 - 1


def lying(x0: Tensor) -> np.ndarray:
    """(N, 4) area, centre (column, row) and width over height of the eye in each picture (N, 1, H, W)."""
    rows = []
    for eye in (x0[:, 0] > DARK).numpy():
        row, column = np.nonzero(eye)
        aspect = (np.ptp(column) + 1) / (np.ptp(row) + 1)
        rows.append((eye.mean(), column.mean() / eye.shape[1], row.mean() / eye.shape[0], aspect))
    return np.array(rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, write benchmarks/results/geometry.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, required=True, help="folder that mgdm demo wrote")
    asked = parser.parse_args(arguments)
    make_deterministic()
    drawn = pictures(asked.demo / "phantoms")
    smallest = min(
        sum(1 for _ in folder.rglob("*.png")) for folder in (asked.demo / "phantoms").iterdir() if folder.is_dir()
    )
    warped = apply(drawn, draw(len(drawn), strong(smallest), torch.Generator().manual_seed(0)))
    sets = {"drawn": drawn, "warped, as in training": warped, "made": pictures(asked.demo / "synthetic" / "images")}
    document = {}
    for name, x0 in sets.items():
        found = lying(x0)
        document[name] = {
            "images": len(found),
            "spread": dict(zip(MEASURES, found.std(0).round(4).tolist(), strict=True)),
        }
        shown = ", ".join(f"{measure} {mean:.3f} ± {spread:.4f}" for measure, mean, spread in
                          zip(MEASURES, found.mean(0), found.std(0), strict=True))  # fmt: skip
        sys.stdout.write(f"{name} ({len(found)}): {shown}\n")
    keep("geometry", document)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
