"""A student beside its teacher in whole `mgdm augment` runs: gates, refill, writing and report included.

    python -m benchmarks.end_to_end --data ../shared/data/pneumoniamnist --teacher RUN --student STUDENT

Plain (`cfg`) and under uncertainty guidance; the teacher takes --steps, the student its own. Each run is a process of its own, the arms
take turns. Told are milliseconds an accepted image, of generation (what grows with n) and of the whole command, and the ratios by turn.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.cost import whole
from benchmarks.distances import add_source
from benchmarks.keeping import keep, spread


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, write benchmarks/results/end_to_end_<set>.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--student", type=Path, required=True)
    add_source(parser, judges=False)
    parser.add_argument("--n", type=int, default=256)
    parser.add_argument("--steps", type=int, default=14, help="of the teacher")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args(arguments)
    found: dict[str, Any] = {"set": asked.data.name, "n": asked.n, "steps": asked.steps, "rows": {}}
    for guidance in ("cfg", "uncertainty"):
        turns: dict[str, list[dict[str, Any]]] = {"teacher": [], "student": []}
        for _ in range(asked.rounds):
            for name, more in (("teacher", ("--steps", str(asked.steps))), ("student", ())):
                said = argparse.Namespace(**{**vars(asked), "model": vars(asked)[name], "guidance": guidance})
                turns[name].append(whole(said, asked.n, 1, *more))
        row: dict[str, Any] = {}
        for name, runs in turns.items():
            row[name] = {
                "evaluations_an_image": runs[0]["evaluations_an_image"],
                "ms_an_image": spread([run["ms_an_image"] for run in runs], 2),
                "ms_an_image_whole": spread([1000 * run["seconds_wall"] / run["images"] for run in runs], 2),
            }
        pairs = list(zip(turns["teacher"], turns["student"], strict=True))
        row["times_generation"] = spread([a["ms_an_image"] / b["ms_an_image"] for a, b in pairs], 2)
        row["times_whole"] = spread([a["seconds_wall"] / b["seconds_wall"] for a, b in pairs], 2)
        found["rows"][guidance] = row
        sys.stdout.write(f"{guidance}: {json.dumps(row)}\n")
        sys.stdout.flush()
    keep(f"end_to_end_{asked.data.name}", found)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
