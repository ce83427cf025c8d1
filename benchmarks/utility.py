"""What the images of `augment` are worth to classifiers, against the controls that any claim of benefit must beat.

    python -m benchmarks.utility --data ../shared/data/busi_128 --size 64 --budget 30m --n 300 --out /tmp/busi-utility

One model makes the same plan in several ways: plain (`gen`), by seed selection (`select`), by the two-stage uncertainty guidance
(`guided`) and by the same without the label and copy gates (`ungated`). With `--student` a student of the model makes it too, plain
(`student`) and guided (`student-guided`). Then `mgdm evaluate --arms` trains the nets on real
images with a balanced sampler (`real`), with duplicates (`dup`), with classical augmentation (`classical`) and with each of these, at
equal steps and equal numbers of images, and tests on real images that no model, guide, filter or calibration saw: the set's own test
split, or a fifth of the patients that is set aside first. With `--keep CLASS=COUNT,...` all of it begins with only so many of the training
images, drawn at random, as in a hospital that has no more; the test stays whole.
Everything is kept below --out, and the same command continues. The table goes to benchmarks/results/utility_<set>_<balance>.json, with
the number of images and the scale of guidance in its name where they are not the usual ones.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from benchmarks.keeping import keep
from mgdm_cli.commands import augment, evaluate
from mgdm_cli.commands.arming import MADE
from mgdm_cli.commands.modelling import prepare
from mgdm_cli.commands.reading import Source
from mgdm_cli.commands.values import seconds_of
from mgdm_cli.commands.wanted import BALANCE, STRENGTH, Wanted
from mgdm_cli.commands.weighing import CONTROLS, Asked
from mgdm_cli.console import plain
from mgdm_cli.data.folder import learnt, read_pixels, scan
from mgdm_cli.data.splits import folds
from mgdm_cli.errors import GATE, OK

IMAGES = 300  # of each arm
FIFTH = 5  # one part in this many becomes the test set where the input has none


def with_test(data: Path, out: Path, *, size: str | None, patient_regex: str | None, seed: int) -> Source:
    """How to read `data` with a test split: its own, or a table below `out` that sets whole patients aside."""
    source = Source(data, patient_regex=patient_regex, size=size)
    found = scan(data, patient_regex=patient_regex)
    if any(record.split == "test" for record in found.records):
        return source
    aside = {record.path for record in folds(found.records, FIFTH, seed=seed)[0]}
    table = out / "labels.csv"
    out.mkdir(parents=True, exist_ok=True)
    with table.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["path", "label", "patient", "split"])
        for record in found.records:
            rows.writerow(
                [record.path, record.label, record.patient or "", "test" if record.path in aside else "train"]
            )
    # images that the scan left out (one that stands in two classes) have no row: they are skipped again
    return replace(source, labels=table, patient_regex=None, skip_bad=True)


def fewer(source: Source, kept: dict[str, int], out: Path, *, seed: int) -> Source:
    """So many of the training images of each class of `kept`, drawn at random, and all test images, as 8-bit PNG below `out`. What else
    is held out by the set itself (its `val`) is left away: few images are few in all. Whom they show is forgotten."""
    folder = out / "kept"
    if not folder.is_dir():
        found = scan(source.data, labels=source.labels, patient_regex=source.patient_regex, skip_bad=source.skip_bad)
        taken = [record for record in found.records if record.split == "test"]
        generator = np.random.default_rng(seed)
        for name, count in kept.items():
            own = [record for record in learnt(found.records) if record.label == name]
            taken += [own[row] for row in sorted(generator.permutation(len(own))[:count])]
        draft = folder.with_name("kept.draft")
        shutil.rmtree(draft, ignore_errors=True)
        for row, record in enumerate(taken):
            place = draft / (record.split or "train") / str(record.label)
            place.mkdir(parents=True, exist_ok=True)
            pixels = read_pixels(found, record).pixels.round().astype(np.uint8)
            PIL.Image.fromarray(pixels.transpose(1, 2, 0).squeeze()).save(place / f"{row:05d}.png")
        draft.rename(folder)
    return Source(folder, size=source.size)


def shown(found: dict[str, Any]) -> list[str]:
    """The table as lines."""
    lines = [f"{'arm':12s} {'balanced':>9s} {'AUROC':>7s} {'F1':>7s} {'kappa':>7s} {'ECE':>7s} {'worst':>7s}"]
    names = ("balanced_accuracy", "macro_auroc", "macro_f1", "quadratic_kappa", "calibration_error", "worst_class")
    for arm, row in found["arms"].items():
        values = "".join(
            f"{row[name]:{9 if name == names[0] else 8}.3f}" if name in row else "       -" for name in names
        )
        lines.append(f"{arm:12s} {values}")
    for gain in found["gains"]:
        lines.append(
            f"{gain['arm']} over {gain['against']}: {100 * gain['value']:+.1f} points "
            f"[{100 * gain['lo']:+.1f}, {100 * gain['hi']:+.1f}], {gain['verdict']}; test images {gain['better']} better, "
            f"{gain['worse']} worse, p = {gain['p']:.3f}"
        )
    return lines


def _asked(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--size")
    parser.add_argument("--patient-regex")
    parser.add_argument("--keep", help="only so many training images of each class: 0=60,1=600")
    parser.add_argument("--n", type=int, default=IMAGES, help="images of each arm")
    parser.add_argument(
        "--balance", default=BALANCE, help="of the plan: equal, or fill, which raises the smallest classes first"
    )
    parser.add_argument("--model", type=Path, help="a trained run; else one is trained within --budget")
    parser.add_argument("--student", type=Path, help="what mgdm distill made of the model: its images are arms too")
    parser.add_argument("--budget", default="30m", help="of the training of the model")
    parser.add_argument("--seen", type=int, help="length of that training in images, instead of --budget")
    parser.add_argument("--base", default="auto", help="none where the base model has learnt from this very set")
    parser.add_argument("--made", default="gen,select,guided", help=f"of {', '.join(MADE)}")
    parser.add_argument("--strength", type=float, default=STRENGTH, help="of the guidance")
    parser.add_argument("--scale", type=float, help="of classifier-free guidance; else the one that suits the run")
    parser.add_argument("--nets", default="quick")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--net-steps", type=int)
    parser.add_argument("--table-budget", help="longest training of the nets in one call")
    parser.add_argument("--jobs", type=int, default=1, help="trainings of nets at once, on a CPU")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args(arguments)


def synthetic(asked: argparse.Namespace, source: Source) -> dict[str, Path]:
    """The folders of synthetic images by the names of their arms, made where they are not yet."""
    made = {name: asked.out / name for name in asked.made.split(",")}
    training = {"budget": None if asked.seen else asked.budget, "seen": asked.seen, "base": asked.base}
    for name, folder in made.items():
        wanted = Wanted(asked.n, balance=asked.balance, scale=asked.scale, **{"strength": asked.strength, **MADE[name]})
        augment.run(source, wanted, out=folder, model=asked.model, device=asked.device, **training)
    if asked.student is not None:
        for name, guidance in (("student", "cfg"), ("student-guided", "uncertainty")):
            made[name] = asked.out / name
            wanted = Wanted(asked.n, balance=asked.balance, guidance=guidance)
            augment.run(source, wanted, out=made[name], model=asked.student, device=asked.device)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the arms, train the table, write it, print it."""
    asked = _asked(arguments)
    source = with_test(asked.data, asked.out, size=asked.size, patient_regex=asked.patient_regex, seed=0)
    if asked.keep:
        counts = (part.rpartition("=") for part in asked.keep.split(","))
        source = fewer(source, {name: int(count) for name, _, count in counts}, asked.out, seed=0)
    made = synthetic(asked, source)
    arms = ",".join((*CONTROLS, *(f"{name}={folder}" for name, folder in made.items())))
    table = Asked.of(arms, asked.nets, asked.seeds, asked.net_steps, seconds_of(asked.table_budget), asked.jobs)
    last = asked.made.split(",")[-1]
    done = evaluate.run(
        source, made[last], out=asked.out / "evaluation", model=asked.model, device=asked.device, asked=table
    )
    result = {
        "set": asked.data.name,
        "real": prepare(source, seed=0).counts,
        "kept": asked.keep,
        "audited": last,
        "images": asked.n,
        "strength": asked.strength,
        "balance": asked.balance,
        "scale": asked.scale,
        "utility": done.document["utility"],
        "verdicts": done.document["verdicts"],
        "exit_code": done.exit_code,
    }
    told = (f"_n{asked.n}" if asked.n != IMAGES else "") + (f"_scale{asked.scale:g}" if asked.scale else "")
    told += "_keep" + asked.keep.replace("=", "-").replace(",", "_") if asked.keep else ""
    keep(f"utility_{asked.data.name}_{asked.balance}{told}", plain(result))
    sys.stdout.write("\n".join(shown(done.document["utility"])) + "\n")
    return 0 if done.exit_code in (OK, GATE) else done.exit_code


if __name__ == "__main__":
    raise SystemExit(main())
