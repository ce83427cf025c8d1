"""What `evaluate` found, for people: lines for a terminal, and the page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    from numpy.typing import NDArray

    from mgdm_cli.commands.measuring import Findings
    from mgdm_cli.metrics.audit import Copies
    from mgdm_cli.metrics.fidelity import Estimate
    from mgdm_cli.report.content import Better, CopyScores, Facts, Figure, Neighbour, Shelf

SHOWN = 12  # images of a class, real and synthetic
NEAREST = 8  # pairs on the page
SHARES = {
    "precision": "Share of synthetic images that lie where real ones do.",
    "recall": "Share of real images that lie where synthetic ones do.",
    "density": "How many real images' surroundings hold a synthetic image; above 1 where they crowd together.",
    "coverage": "Share of real images with a synthetic one among their nearest neighbours.",
}


def lines_of(found: Findings) -> tuple[str, ...]:
    """The figures and verdicts for a terminal."""
    from mgdm_cli.commands.concluding import verdicts_of
    from mgdm_cli.report.page import BETTER, WORDS, number, share

    rows = []
    for figure in figures_of(found):
        if figure.value is None:
            rows.append(f"{figure.name} ({BETTER[figure.better]}): not given, {figure.reason}")
            continue
        ratio = "" if figure.ratio is None else f", {number(figure.ratio)} times real against real"
        interval = f" [{number(figure.lo)}, {number(figure.hi)}]" if figure.lo is not None else ""
        rows.append(f"{figure.name} ({BETTER[figure.better]}): {number(figure.value)}{interval}{ratio}")
    whole = found.labels[0] if found.labels else None
    if whole is not None:
        rows.append(
            f"labels that hold (higher is better): {share(whole.share)} [{share(whole.lo)}, {share(whole.hi)}], "
            f"unseen real images {share(whole.real)}"
        )
    return (*rows, *(f"{WORDS[v.tone]}: {v.line} {v.detail}".strip() for v in verdicts_of(found)))


def page_of(found: Findings, name: str, *, real_images: bool) -> str:
    """The HTML page."""
    from mgdm_cli.commands.concluding import planted_of, verdicts_of
    from mgdm_cli.commands.weighed import page_part
    from mgdm_cli.report.content import ClassRow, EvaluateReport, Planted
    from mgdm_cli.report.page import evaluate_page, whole

    counts = found.counts
    n_real = sum(found.prepared.counts.values())
    form = found.prepared.frame.form
    height, width = found.prepared.frame.size
    return evaluate_page(
        EvaluateReport(
            title=name,
            summary=f"{whole(len(found.records))} synthetic images compared with {whole(n_real)} real ones: "
            f"{len(found.prepared.classes)} classes, {width} × {height} pixels, "
            f"{'colour' if form.channels == 3 else 'grey'}.",
            verdicts=tuple(verdicts_of(found)),
            classes=tuple(ClassRow(c, found.prepared.counts[c], n) for c, n in counts.items()),
            figures=tuple(figures_of(found)),
            labels=tuple(_label_figures(found)),
            utility=None if found.utility is None else page_part(found.utility),
            leaks=tuple(_leak_figures(found)),
            copies=_copy_scores(found),
            planted=tuple(Planted(p.kind, p.found, p.planted) for p in planted_of(found.copies)),
            parts=_parts_said(found.copies),
            neighbours=tuple(_neighbours(found, real_images=real_images)),
            shelves=tuple(_shelves(found, real_images=real_images)),
            facts=_facts(found),
            derived=found.derived,
            notes=_notes(found),
        )
    )


def _parts_said(copies: Copies) -> str:
    parts = copies.parts
    if parts is None or not parts.auditable:
        return ""
    return (
        f"A second look compares each quarter of the picture by itself, for copies of a part: it flags "
        f"{int(parts.flagged.sum())} of {len(parts.flagged)} images, and chance explains up to {parts.by_chance}."
    )


def figures_of(found: Findings) -> list[Figure]:
    """The table of distances and of diversity."""
    from mgdm_cli.report.content import Figure

    near = found.fidelity
    out = [
        _distance(
            "Fréchet distance",
            near.frechet,
            1.0,
            "How far apart the two sets lie, each taken as one bell-shaped cloud in the space of features.",
        ),
        _distance(
            "Kernel distance × 1000",
            near.kernel,
            1000.0,
            "The same question without assuming a shape; fair also for few images. 0 for equal sets.",
        ),
    ]
    out += [_distance(name.capitalize(), e, 1.0, SHARES[name], "higher") for name, e in near.shares.items()]
    for name, estimate in near.by_class.items():
        out.append(_distance(f"Kernel distance × 1000, class {name}", estimate, 1000.0, ""))
    for title, what, spreads in (
        ("Variety", "Mean distance between two images of the class.", near.spread),
        ("Vendi score", "Effective number of different images in the class, at equal numbers.", near.vendi),
    ):
        for name, spread in spreads.items():
            said = f"{what} A ratio of 1 is as varied as the real images." if name == next(iter(spreads)) else ""
            ratio = spread.value / spread.real if spread.real > 0 else None
            out.append(
                Figure(
                    f"{title}, class {name}",
                    spread.value,
                    "neither",
                    spread.lo,
                    spread.hi,
                    spread.real,
                    ratio,
                    what=said,
                )
            )
    return out


def _distance(name: str, e: Estimate, scale: float, what: str, better: Better = "lower") -> Figure:
    from mgdm_cli.report.content import Figure

    def scaled(value: float | None) -> float | None:
        return None if value is None else scale * value

    return Figure(
        name, scaled(e.value), better, scaled(e.lo), scaled(e.hi), scaled(e.baseline), e.ratio, min(e.n), what, e.reason
    )  # fmt: skip


def _label_figures(found: Findings) -> Iterable[Figure]:
    from mgdm_cli.report.content import Figure

    for row in found.labels:
        name = "all classes" if row is found.labels[0] else f"class {row.name}"
        yield Figure(
            f"Agreement, {name}", row.share, "higher", row.lo, row.hi, row.real, n=row.n, percent=True,
            what=f"Mean entropy {row.entropy:.2f} nats"
            + ("." if row.real_entropy is None else f", real images {row.real_entropy:.2f}."),
        )  # fmt: skip


def _leak_figures(found: Findings) -> Iterable[Figure]:
    """The looks for leaks; the baseline is what chance, or a held-out image, gives."""
    from mgdm_cli.report.content import Figure

    leaks = found.leaks
    why = dict(leaks.reasons)
    near, model, real = leaks.neighbours, leaks.membership, leaks.authenticity
    if near is not None:
        said = f"Of the {near.closest} closest synthetic images, the share whose nearest real one was learnt from. "
        said += f"p = {near.p:.3f}, patients exchanged. "
        said += (
            "Too few images to notice even 10 % of copies."
            if near.power is None
            else f"On these images the test notices {near.power:.0%} of copies."
        )
        half = near.references[0] / sum(near.references)
        yield Figure("Nearest was learnt from", near.share_closest, "lower", baseline=half, percent=True, what=said)
    elif "neighbours" in why:
        yield Figure("Nearest was learnt from", None, "lower", reason=why["neighbours"])
    if model is not None:
        said = "How well the model's own loss tells training images from held-out ones; 50 % is a guess."
        if not model.exchangeable:
            said += " Void: the two sets differ even to who does not know the model."
        yield Figure("Membership, area", model.auc, "lower", model.lo, model.hi, 0.5, percent=True, what=said)
        yield Figure(
            "Membership at 1 % false", model.tpr, "lower", model.tpr_lo, model.tpr_hi, 0.01, percent=True,
            what="Training images recognised when 1 % of new images are taken for such.", reason=model.reason,
        )  # fmt: skip
        if model.rare is not None:
            yield Figure(
                "Membership at 0.1 % false", model.rare[0], "lower", *model.rare[1:], 0.001, percent=True,
                what="The same at 0.1 %.",
            )  # fmt: skip
    elif "membership" in why:
        yield Figure("Membership", None, "lower", reason=why["membership"])
    if real is not None:
        yield Figure(
            "Authentic", real.share, "higher", baseline=real.share_holdout, percent=True,
            what="Images that are not nearer to their training image than that is to another patient's.",
        )  # fmt: skip
        yield Figure(
            "Nearest-distance ratio", real.ratio, "higher", baseline=real.ratio_holdout,
            what="Median of the copy score: the distance to the nearest training image over the mean to the fifty nearest.",
        )  # fmt: skip


def _copy_scores(found: Findings) -> CopyScores:
    from mgdm_cli.report.content import CopyScores

    calibration = found.copies.calibration
    note = f"Calibrated on {calibration.threshold.calibrated_on} real images ({calibration.source})."
    if calibration.same_as_training:
        note += (
            f" {calibration.same_as_training} more were left out because a training image of another patient or file "
            "shows the same thing: the real set holds near duplicates."
        )
    scores = tuple(float(v) for v in found.copies.scores.score)
    return CopyScores(scores, tuple(float(v) for v in calibration.scores), calibration.threshold.value, note)


def _neighbours(found: Findings, *, real_images: bool) -> Iterable[Neighbour]:
    from mgdm_cli.report.content import Neighbour

    scores = found.copies.scores
    for i in scores.score.argsort(kind="stable")[:NEAREST]:
        record = found.records[i]
        real = _bytes(found, found.train.x0[[int(scores.nearest[i])]])[0] if real_images else None
        picture = _bytes(found, found.synthetic.x0[[int(i)]])[0]
        identity = record.path.rsplit("/", 1)[-1]
        flagged = bool(found.copies.flagged[i])
        yield Neighbour(identity, str(record.label), picture, real, float(scores.score[i]), flagged)


def _shelves(found: Findings, *, real_images: bool) -> Iterable[Shelf]:
    from mgdm_cli.report.content import Shelf
    from mgdm_cli.report.pictures import evenly

    for k, name in enumerate(found.prepared.classes):
        mine = (found.synthetic.label == k).nonzero()[:, 0]
        if len(mine) == 0:
            continue
        theirs = (found.train.label == k).nonzero()[:, 0]
        real = (
            _bytes(found, found.train.x0[theirs[evenly(len(theirs), SHOWN)]]) if real_images and len(theirs) else None
        )
        yield Shelf(name, _bytes(found, found.synthetic.x0[mine[evenly(len(mine), SHOWN)]]), real)


def _bytes(found: Findings, x0: Any) -> NDArray[np.uint8]:
    """Pictures for the page, without the padding that the nets need."""
    from mgdm_cli.report.pictures import to_bytes

    return to_bytes(found.prepared.frame.cropped(x0).cpu().float().numpy())


def _facts(found: Findings) -> tuple[Facts, ...]:
    from mgdm_cli.report.content import Facts

    judged = found.test
    test = (
        "no test images"
        if judged is None
        else f"balanced accuracy {judged['balanced_accuracy']:.2f} on {judged['images']} test images"
    )
    return (
        Facts(
            "The judges",
            (
                ("what", "two classifiers, each of one half of the real training patients"),
                ("images seen", str(found.judges.seen)),
                ("how good", test),
                ("weights 1", found.judges.sha256[0]),
                ("weights 2", found.judges.sha256[1]),
            ),
        ),
        Facts(
            "The feature space",
            (
                ("what", found.space.what),
                ("features", str(found.space.dimension)),
                ("weights", found.space.sha256),
            ),
        ),
        Facts(
            "The sets",
            (
                ("training split", found.prepared.fingerprint),
                ("learnt from", f"{len(found.prepared.splits.train)} real images"),
                ("held out", f"{len(found.prepared.splits.holdout)} real images"),
                ("seed", str(found.seed)),
            ),
        ),
    )


def _notes(found: Findings) -> tuple[str, ...]:
    return (
        *(
            ("Whether the images help a classifier: ask with --arms, on test images that nothing was learnt from.",)
            if found.utility is None
            else ("Whether they help other nets, longer trainings or other hospitals than those tried here.",)
        ),
        "That nothing leaks: each look can find something or not, within the power stated; small parts of images and cut "
        "copies are the hardest to find.",
        "Anything about the world outside the real images: what they lack, the synthetic ones lack too.",
        *(note[0].upper() + note[1:] + ("" if note.endswith(".") else ".") for note in found.notes),
    )
