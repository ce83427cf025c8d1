"""Does an ensemble's disagreement tell where the guide is wrong? On real images that it never saw, beside its own entropy.

    python -m benchmarks.disagreement --model RUN --data ../shared/data/busi_128 --size 64

Three measures of one guide: its entropy; the disagreement (BALD) of it and its two siblings, which are trained here if the run lacks them;
and that of sixteen masks of its own dropout (Gal & Ghahramani 2016), which would cost nothing. The area under the ROC curve for the guide's
mistakes, with its 95 % bootstrap interval, on the half of the training patients that is not its own and on the holdout (which set its
temperature, and that of the siblings).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from benchmarks.distances import CPU, add_source, source_of
from benchmarks.keeping import keep
from mgdm_cli.commands.completing import add_siblings
from mgdm_cli.data.splits import folds
from mgdm_cli.diffusion.guidance import TERMS
from mgdm_cli.engine.classifying import CLEAN, logits_of
from mgdm_cli.engine.device import make_deterministic
from mgdm_cli.engine.preparing import pictures
from mgdm_cli.engine.run import load_parts, read_settings
from mgdm_cli.nets.classifier import Classifier

MASKS = 16


@torch.no_grad()
def masked(net: Classifier, x0: Tensor) -> Tensor:
    """(M, N, K) logits under fixed masks of the features, as its dropout draws them."""
    features = torch.cat([net.features(part, part.new_full((len(part),), CLEAN)) for part in torch.split(x0, 64)])
    kept = 1 - net.settings.dropout
    drawn = torch.rand(MASKS, 1, features.shape[1], generator=torch.Generator().manual_seed(0)) < kept
    out: Tensor = net.head(features * drawn / kept) / net.get_buffer("temperature")
    return out


def area(wrong: np.ndarray, measure: np.ndarray, draws: int = 2000) -> list[float]:
    """[area under the ROC curve, lo, hi]."""
    rng = np.random.default_rng(0)
    picks = (rng.integers(0, len(wrong), len(wrong)) for _ in range(draws))
    found = [roc_auc_score(wrong[pick], measure[pick]) for pick in picks if 0 < wrong[pick].sum() < len(pick)]
    lo, hi = np.quantile(found, [0.025, 0.975])
    return [round(float(v), 3) for v in (roc_auc_score(wrong, measure), lo, hi)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, write benchmarks/results/disagreement_<set>.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    add_source(parser, judges=False)
    asked = parser.parse_args(arguments)
    make_deterministic()
    prepared, settings = source_of(asked), read_settings(asked.model)
    add_siblings(asked.model, prepared, settings, CPU)
    parts, _ = load_parts(asked.model, settings, CPU)
    assert parts.guide is not None
    other = folds(prepared.splits.train, 2, seed=settings.train.seed)[1]
    rows = {}
    for name, records in (("the judge's half", other), ("holdout", prepared.splits.holdout)):
        data = pictures(prepared, records, CPU)
        logits = torch.stack([logits_of(net, data.x0) for net in parts.members])
        wrong = (logits[0].argmax(-1) != data.label).numpy()
        measures = {
            "entropy": TERMS["entropy"](logits[0], data.label),
            "disagreement of siblings": TERMS["disagreement"](logits, data.label),
            "disagreement of masks": TERMS["disagreement"](masked(parts.guide, data.x0), data.label),
        }
        found = {key: area(wrong, value.double().numpy()) for key, value in measures.items()}
        rows[name] = {"images": len(wrong), "wrong": round(float(wrong.mean()), 3), "area": found}
        sys.stdout.write(f"{name}: {len(wrong)} images, {wrong.mean():.0%} wrong; area under the ROC curve {found}\n")
    keep(f"disagreement_{asked.data.name}", {"set": asked.data.name, "rows": rows})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
