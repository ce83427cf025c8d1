"""The main job on a real folder, beside what a user would pick instead, judged by classifiers that took no part in it.

    python -m benchmarks.main_job --data ../shared/data/busi_128 --size 64 --budget 30m --n 200 --out /tmp/busi

Three ways to make the same plan with one model: plain classifier-free guidance (`cfg`), the two-stage uncertainty guidance
(`uncertainty`) and seed selection (`select`). Judges: three classifiers, fresh seeds, trained on the real training split alone
and tested on its holdout, which is also printed: a judge cannot agree with the images more than it agrees with the truth.
For every accepted image its entropy under the judges is compared with that of the same seed decoded without disturbance.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.distances import add_source, folder_of
from benchmarks.keeping import keep
from mgdm_cli.commands import augment
from mgdm_cli.commands.finding import Training
from mgdm_cli.commands.modelling import prepare
from mgdm_cli.commands.reading import Source
from mgdm_cli.commands.wanted import STRENGTH, Wanted
from mgdm_cli.data.codecs import codec_of
from mgdm_cli.data.manifest import Entry, load
from mgdm_cli.data.plan import read_plan
from mgdm_cli.diffusion.guidance import TERMS
from mgdm_cli.engine.classifying import NEARLY_CLEAN, ClassifySettings, calibrate, logits_of, skill, train_classifier
from mgdm_cli.engine.decoding import make_block
from mgdm_cli.engine.device import make_deterministic, pick
from mgdm_cli.engine.preparing import Prepared, pictures
from mgdm_cli.engine.pretraining import CLASSIFIER_WARP
from mgdm_cli.engine.run import load_parts, new_classifier, read_settings
from mgdm_cli.metrics.labels import wilson
from mgdm_cli.nets.classifier import Classifier

ARMS: dict[str, dict[str, Any]] = {
    "cfg": {"guidance": "cfg"},
    "uncertainty": {"guidance": "uncertainty"},
    "select": {"guidance": "uncertainty", "mode": "select"},
}
JUDGES = 3


def judges_of(prepared: Prepared, folder: Path, seen: int) -> tuple[list[Classifier], list[float]]:
    """Classifiers that the run never met, and their balanced accuracy on the holdout."""
    settings, device = read_settings(folder), torch.device("cpu")
    data = pictures(prepared, prepared.splits.train, device)
    holdout = pictures(prepared, prepared.splits.holdout, device)
    nets, right = [], []
    for seed in range(JUDGES):
        net = new_classifier(settings, device, seed=1000 + seed)
        for _ in train_classifier(
            net, data, ClassifySettings(seen, NEARLY_CLEAN, seed=1000 + seed, told=False), warp=CLASSIFIER_WARP
        ):
            pass
        calibrate(net, holdout)
        nets.append(net)
        right.append(skill(net, holdout).accuracy)
    return nets, right


def undisturbed(folder: Path, out: Path, entries: Sequence[Entry]) -> torch.Tensor:
    """(N, C, H, W): the same seeds without the second stage."""
    plan = read_plan((out / "plan.json").read_bytes())
    parts, _ = load_parts(folder, read_settings(folder), torch.device("cpu"))
    recipe = plan.recipe.model_copy(update={"guidance": "cfg", "strength": 0.0, "mode": "guide", "candidates": 1})
    made: dict[str, torch.Tensor] = {}
    rows = []
    for entry in entries:
        if entry.block not in made:
            lot, attempt = (int(part) for part in entry.block.split("."))
            made[entry.block] = make_block(
                parts,
                recipe,
                run_seed=plan.seed,
                lot=lot,
                attempt=attempt,
                block=plan.block,
                class_index=entry.class_index,
            ).after
        rows.append(made[entry.block][entry.row])
    return torch.stack(rows)


def judged(nets: Sequence[Classifier], x0: torch.Tensor, label: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """(agrees (J, N), entropy (J, N)) of each judge on each image."""
    logits = [logits_of(net, x0) for net in nets]
    agrees = torch.stack([row.argmax(-1) == label for row in logits]).numpy()
    return agrees, torch.stack([TERMS["entropy"](row, label) for row in logits]).numpy()


def gain_interval(gain: np.ndarray, draws: int = 2000) -> tuple[float, float]:
    """95 % bootstrap interval of the mean gain over images, averaged over judges first."""
    per_image = gain.mean(0)
    rng = np.random.default_rng(0)
    means = per_image[rng.integers(0, len(per_image), (draws, len(per_image)))].mean(1)
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


def arm(
    name: str,
    source: Source,
    wanted: Wanted,
    prepared: Prepared,
    training: Training,
    out: Path,
    nets: Sequence[Classifier],
) -> dict[str, Any]:
    """One row of the table."""
    made = augment.run(
        source, wanted, out=out / name, model=training.model, budget=training.budget, seen=training.seen, device="cpu"
    )
    folder = training.folder(prepared)
    entries = load(out / name)
    frame = read_settings(folder).frame
    x0 = torch.stack([frame.to_tensor(codec_of(frame.form.codec).read(out / name / e.path)) for e in entries])
    label = torch.tensor([e.class_index for e in entries])
    agrees, after = judged(nets, x0, label)
    row: dict[str, Any] = {
        "images": len(entries),
        "asked": made.document["asked"],
        "rejected": made.document["rejected"],
        "evaluations_per_image": round(made.document["evaluations_per_image"], 1),
        "gradients_per_image": round(made.document["classifier_gradients_per_image"], 1),
        "seconds": made.document["seconds"],
        "agreement_by_judge": [round(float(a.mean()), 3) for a in agrees],
        "agreement": round(float(agrees.mean()), 3),
        "agreement_interval": [round(v, 3) for v in wilson(round(float(agrees.mean()) * len(entries)), len(entries))],
        "entropy": round(float(after.mean()), 3),
    }
    if name == "uncertainty":
        _, before = judged(nets, undisturbed(folder, out / name, entries), label)
        row["entropy_same_seeds_undisturbed"] = round(float(before.mean()), 3)
        row["entropy_gain"] = round(float((after - before).mean()), 3)
        row["entropy_gain_by_judge"] = [round(float(g.mean()), 3) for g in after - before]
        row["entropy_gain_interval"] = [round(v, 3) for v in gain_interval(after - before)]
    return row


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all arms, print the table, write benchmarks/results/main_job_<set>.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_source(parser, judges=False)
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--budget", default="30m")
    parser.add_argument(
        "--model", type=Path, help="as a rule trained here; of --base none where the base has learnt from this set"
    )
    parser.add_argument("--seen", type=int, default=20_000, help="training images that each judge sees")
    parser.add_argument("--strength", type=float, default=STRENGTH, help="of the uncertainty guidance")
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args(arguments)
    make_deterministic()
    pick("cpu")
    source = folder_of(asked)
    training = Training(asked.model, asked.budget)
    prepared = prepare(source, seed=0)
    first = Wanted(asked.n, guidance="cfg", strength=asked.strength)
    augment.run(source, first, out=asked.out / "cfg", model=asked.model, budget=asked.budget, device="cpu")
    nets, right = judges_of(prepared, training.folder(prepared), asked.seen)
    found: dict[str, Any] = {
        "set": asked.data.name,
        "real": prepared.counts,
        "strength": asked.strength,
        "judges_on_holdout": [round(r, 3) for r in right],
    }
    found["arms"] = {
        name: arm(name, source, replace(first, **ARMS[name]), prepared, training, asked.out, nets)
        for name in asked.arms.split(",")
    }
    keep(f"main_job_{asked.data.name}", found)
    for name, row in found["arms"].items():
        line = f"{name:12s} agreement {row['agreement']:.2f} {row['agreement_interval']} entropy {row['entropy']:.3f} "
        line += f"evaluations {row['evaluations_per_image']} rejected {row['rejected']} gain {row.get('entropy_gain')}"
        sys.stdout.write(line + "\n")
    sys.stdout.write(f"judges on the holdout: {found['judges_on_holdout']}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
