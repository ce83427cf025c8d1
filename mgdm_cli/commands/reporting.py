"""The page of `augment`, put together from the finished folder, so that a resumed or merged run gives the same page."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

from mgdm_cli.commands.making import strained

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mgdm_cli.data.dataset import Dataset
    from mgdm_cli.data.image import Image
    from mgdm_cli.data.manifest import Entry, Rejected
    from mgdm_cli.data.plan import Plan
    from mgdm_cli.engine.preparing import Frame, Prepared
    from mgdm_cli.metrics.copies import Calibration
    from mgdm_cli.report.content import AugmentReport, Pair, Reject, Shelf, Verdict

SHOWN = 24  # images of a class in its grid
PAIRS = 8
CHOSEN = "Several seeds were drawn for each image and the hardest that kept its label was taken; 'before' is the first one drawn."
DERIVED = (
    "Each image began as a real training image of its class, was taken back towards noise and decoded again under the pull; 'before' is "
    "the real image, which is not shown. Such an image may resemble its patient: treat it as you treat the real ones."
)
MEANING = {
    "label-lost": "The judge, a classifier of other patients than the guide's, no longer sees the class asked for.",
    "near-copy": "Closer to a training image than a really new image is.",
    "blank": "No contrast.",
    "out-of-range": "Nearly all pixels at the ends of the range.",
    "twin": "The same picture as another of its lot.",
}


def augment_report(
    dataset: Dataset,
    document: dict[str, Any],
    *,
    prepared: Prepared | None = None,
    calibration: Calibration | None = None,
) -> bytes:
    """The self-contained HTML page of a finished data set; without `prepared` no real image is on it."""
    from mgdm_cli.data.cautions import cautions
    from mgdm_cli.report.content import TWICE, AugmentReport, ClassRow, Spread
    from mgdm_cli.report.page import augment_page

    entries, rejected = dataset.entries(), dataset.rejected()
    counts, plan = document["classes"], dataset.plan
    frame = frame_of(plan)
    pairs = [(e.before.entropy, e.after.entropy) for e in entries if e.before and e.after]
    before = tuple(float(a) for a, b in pairs if a is not None and b is not None)
    after = tuple(float(b) for a, b in pairs if a is not None and b is not None)
    most = float(len(plan.classes)) if len(plan.classes) > 1 else 2.0
    report = AugmentReport(
        title="Synthetic images",
        summary=f"{len(entries)} images in {sum(1 for c in counts.values() if c['synthetic'])} classes, guidance {plan.recipe.guidance}.",
        verdicts=_verdicts(dataset, document, calibration),
        classes=tuple(
            ClassRow(name, row["real"], row["synthetic"], row["rejected"], plan.quotas[name])
            for name, row in counts.items()
        ),
        shelves=_shelves(dataset, frame, prepared, entries),
        spread=Spread("entropy under the guide (nats)", before, after, _log(most)) if before else None,
        pairs=_pairs(dataset, frame, entries),
        rejects=_rejects(dataset, rejected),
        change=DERIVED if plan.recipe.depth is not None else CHOSEN if plan.recipe.mode == "select" else TWICE,
        copies=_copies(calibration, entries),
        facts=_facts(plan, document),
        derived=plan.recipe.depth is not None,
        notes=tuple(dict.fromkeys((*(prepared.scan.notes if prepared is not None else ()), *cautions(plan)))),
    )
    return _page(augment_page, report)


def frame_of(plan: Plan) -> Frame:
    """The way of a picture of this data set into a tensor, as the plan tells it."""
    from mgdm_cli.data.intensity import Intensity
    from mgdm_cli.engine.preparing import Frame

    return Frame((plan.form.height, plan.form.width), "pad", Intensity.model_validate(plan.intensity), plan.form)


def _page(render: Any, report: AugmentReport) -> bytes:
    text: str = render(report)
    return text.encode("utf-8")


def _verdicts(dataset: Dataset, document: dict[str, Any], calibration: Calibration | None) -> tuple[Verdict, ...]:
    from mgdm_cli.report.content import Verdict

    short = dataset.short()
    plan = dataset.plan
    there = f"All {document['images']} images that were planned are there"
    if short:
        why = "Too few candidates of " + ", ".join(short) + " passed the gates."
        lines = [Verdict("bad", f"{sum(short.values())} planned images are missing.", why)]
    elif plan.unplanned:
        why = f"A class gets {plan.max_per_real:g} for each real one at most (--max-per-real)."
        lines = [Verdict("caution", f"{there}; {plan.asked} were asked for.", why)]
    else:
        lines = [Verdict("good", f"{there}.")]
    if plan.recipe.depth is not None:
        lines.append(
            Verdict(
                "caution",
                "Each image was derived from a real one and may resemble that patient.",
                "Keep and share these images as you would the real ones.",
            )
        )
    entropy = document["entropy"]
    if entropy:
        tone, word = ("good", "less") if entropy["after"] > entropy["before"] else ("caution", "no less")
        lines.append(
            Verdict(
                "good" if tone == "good" else "caution",
                f"The guide is {word} sure of the images after the disturbance: "
                f"mean entropy {entropy['before']:.2f} nats before, {entropy['after']:.2f} after.",
                "Measured by the classifier that guided. mgdm evaluate measures it with one that did not.",
            )
        )
    if judge := plan.weak_judge:
        lines.append(
            Verdict(
                "caution",
                "The labels are not assured: the judge hardly beats a guess.",
                f"It says whether an image still shows its class: {judge}. Give more images, or a model that was trained longer.",
            )
        )
    if many := strained(dataset):
        why = "What the gates let pass is a choice: the more they refuse, the less it is what the model knows of the class."
        lines.append(Verdict("caution", f"Most candidates were refused: {many}.", why))
    gone = document["rejected"].get("near-copy", 0)
    if calibration is not None and calibration.threshold.value is None:
        lines.append(
            Verdict(
                "caution",
                f"Only nearly the same pictures as training images were refused: {gone} of {document['candidates']} candidates.",
                f"The copy gate has {calibration.threshold.reason}. mgdm evaluate looks for copies afterwards.",
            )
        )
    elif calibration is not None:
        lines.append(
            Verdict(
                "plain",
                f"{gone} of {document['candidates']} candidates were refused as too close to a training image.",
                f"A really new image is refused with probability {plan.recipe.filters.copy_alpha or 0:.0%} at most, so about "
                f"{document['candidates'] * (plan.recipe.filters.copy_alpha or 0):.0f} were to be expected.",
            )
        )
    lines.append(
        Verdict(
            "caution",
            "Whether these images help your model is not shown here.",
            "Train with and without them, on patients that were never used here.",
        )
    )
    return tuple(lines)


def _shelves(
    dataset: Dataset, frame: Frame, prepared: Prepared | None, entries: tuple[Entry, ...]
) -> tuple[Shelf, ...]:
    import numpy as np

    from mgdm_cli.data.folder import read_pixels
    from mgdm_cli.report.content import Shelf
    from mgdm_cli.report.pictures import evenly, to_bytes

    by_class: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        by_class[entry.label].append(entry)
    shelves = []
    for name in dataset.plan.classes:
        mine = [by_class[name][i] for i in evenly(len(by_class[name]), SHOWN)]
        if not mine:
            continue
        synthetic = np.stack([_made(frame, dataset, entry.path) for entry in mine])
        real = None
        if prepared is not None:
            theirs = [record for record in prepared.splits.train if record.label == name]
            shown = [read_pixels(prepared.scan, theirs[i]) for i in evenly(len(theirs), SHOWN)]
            real = to_bytes(np.stack([_unit(frame, image) for image in shown]))
        shelves.append(Shelf(name, to_bytes(synthetic), real))
    return tuple(shelves)


def _unit(frame: Frame, image: Image) -> NDArray[np.float32]:
    """(C, H, W) in [-1, 1], as it is in its file."""
    found: NDArray[np.float32] = frame.cropped(frame.to_tensor(image)).numpy()
    return found


def _made(frame: Frame, dataset: Dataset, path: str) -> NDArray[np.float32]:
    from mgdm_cli.data.codecs import codec_of

    return _unit(frame, codec_of(frame.form.codec).read(dataset.root / path))


def _small(dataset: Dataset, path: str) -> NDArray[np.uint8]:
    """A picture kept for the report: (H, W) or (H, W, 3)."""
    import numpy as np
    from PIL import Image as Pillow

    with Pillow.open(dataset.root / path, formats=("PNG",)) as picture:
        return np.asarray(picture.convert("RGB" if picture.mode not in ("L", "1") else "L"), dtype=np.uint8)


def _pairs(dataset: Dataset, frame: Frame, entries: tuple[Entry, ...]) -> tuple[Pair, ...]:
    from mgdm_cli.data.dataset import picture_path
    from mgdm_cli.report.content import Pair
    from mgdm_cli.report.pictures import to_bytes

    found: list[Pair] = []
    for entry in entries:
        lot, attempt = (int(part) for part in entry.block.split("."))
        path = picture_path(dataset.plan.lots[lot], attempt, f"{entry.id}-before.png")
        if entry.before is None or entry.after is None or not (dataset.root / path).exists():
            continue
        after = to_bytes(_made(frame, dataset, entry.path)[None])[0]
        found.append(
            Pair(entry.label, _small(dataset, path), after, entry.before.entropy or 0.0, entry.after.entropy or 0.0)
        )
    per_class = max(PAIRS // max(len(dataset.plan.classes), 1), 2)
    chosen: list[Pair] = []
    for name in dataset.plan.classes:
        mine = sorted((pair for pair in found if pair.label == name), key=lambda p: p.measure_before - p.measure_after)
        # The median change and its neighbours, not the best: the page shows what is usual.
        middle = max(len(mine) // 2 - per_class // 2, 0)
        chosen += mine[middle : middle + per_class]
    return tuple(chosen)


def _rejects(dataset: Dataset, rejected: tuple[Rejected, ...]) -> tuple[Reject, ...]:
    import numpy as np

    from mgdm_cli.report.content import Reject

    counts = Counter(row.reason for row in rejected if row.reason != "surplus")
    out = []
    for reason, count in counts.most_common():
        shown = [row for row in rejected if row.reason == reason and row.picture][:16]
        pictures = np.stack([_small(dataset, str(row.picture)) for row in shown]) if shown else None
        captions = tuple(f"{row.label}: {row.detail}" for row in shown)
        out.append(Reject(reason, count, MEANING.get(reason, ""), pictures, captions))
    return tuple(out)


def _copies(calibration: Calibration | None, entries: tuple[Entry, ...]) -> Any:
    from mgdm_cli.report.content import CopyScores

    if calibration is None:
        return None
    scores = tuple(e.copy_score for e in entries if e.copy_score is not None)
    return CopyScores(
        scores,
        tuple(float(v) for v in calibration.scores),
        calibration.threshold.value,
        f"Calibrated on: {calibration.source}.",
    )


def _facts(plan: Plan, document: dict[str, Any]) -> tuple[Any, ...]:
    from mgdm_cli.report.content import Facts

    recipe = plan.recipe
    return (
        Facts(
            "Recipe",
            (
                ("process, sampler", f"{recipe.process}, {recipe.sampler}, {recipe.steps} steps"),
                ("guidance", f"{recipe.guidance}, strength {recipe.strength:g}, mode {recipe.mode}"),
                ("made from", "noise" if recipe.depth is None else f"real images, depth {recipe.depth:g}"),
                ("classifier-free guidance", f"{recipe.scale:g}"),
                ("U-Net evaluations", f"{document['evaluations_per_image']:.1f} an accepted image"),
                ("classifier gradients", f"{document['classifier_gradients_per_image']:.1f} an accepted image"),
            ),
        ),
        Facts(
            "Provenance",
            (
                ("plan", plan.run),
                ("denoiser", plan.models.denoiser),
                ("guide", plan.models.classifier or "none"),
                ("judge", plan.models.judge or "none"),
                *((f"the {name}'s skill", str(able)) for name, able in plan.skill.items()),
                ("training split", plan.inputs),
                ("seed", str(plan.seed)),
                ("made with", ", ".join(f"{name} {version}" for name, version in plan.versions.items())),
            ),
        ),
    )


def _log(value: float) -> float:
    import math

    return math.log(value)
