"""Which scale of classifier-free guidance suits a run: the menu of `engine/scaling.py`, held against judges that it does not use.

    python -m benchmarks.scales --model RUN --data ../shared/data/pneumoniamnist --work /tmp/judges

Each entry draws the same seeds with the sampler and the steps of `augment`; the row that the tool would choose is marked. The tool decides
by the guide's features; the distances here are taken in those of a judge of `mgdm evaluate`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.distances import CPU, add_source, gauge, source_of, told
from benchmarks.distill import Arm, drawn
from benchmarks.keeping import keep
from mgdm_cli.commands.completing import suited_scale
from mgdm_cli.commands.wanted import KNOBS, SAMPLER, STEPS
from mgdm_cli.data.plan import Recipe
from mgdm_cli.engine.device import make_deterministic
from mgdm_cli.engine.run import load_parts, read_settings
from mgdm_cli.engine.scaling import MENU


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, write benchmarks/results/scales_<set>.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    add_source(parser)
    parser.add_argument("--per-class", type=int, default=96)
    asked = parser.parse_args(arguments)
    make_deterministic()
    settings, prepared = read_settings(asked.model), source_of(asked)
    parts, _ = load_parts(asked.model, settings, CPU)
    measure, chosen = gauge(prepared, asked.work), suited_scale(asked.model, prepared, settings, CPU)
    rows: list[dict[str, Any]] = []
    for scale, between in MENU:
        recipe = Recipe(
            process=settings.process, sampler=SAMPLER, knobs=KNOBS, steps=STEPS, guidance="cfg", scale=scale,
            scale_between=between,
        )  # fmt: skip
        x0, _, label, count = drawn(Arm(f"{scale:g}", asked.model, parts, recipe), asked.per_class)
        row = {
            "scale": scale,
            "between": between,
            "evaluations": count.evaluations / len(label),
            **measure.of(x0, label),
        }
        row["chosen"] = (scale, between) == (chosen.scale, chosen.between)
        rows.append(row)
        mark = "*" if row["chosen"] else " "
        sys.stdout.write(f"{mark} {scale:3g} in {between}: {told(row)}, {row['evaluations']:.1f} evaluations\n")
        sys.stdout.flush()
    document = {"set": asked.data.name, "sampler": SAMPLER, "knobs": KNOBS, "steps": STEPS, "rows": rows}
    keep(f"scales_{asked.data.name}", document)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
