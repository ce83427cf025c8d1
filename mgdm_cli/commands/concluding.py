"""What may be said about a synthetic set, from what `evaluate` measured: verdicts in words, the gravest question first."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mgdm_cli.commands.measuring import Findings
    from mgdm_cli.metrics.audit import Agreement, Copies
    from mgdm_cli.metrics.fidelity import Estimate
    from mgdm_cli.metrics.leaks import Leaks
    from mgdm_cli.metrics.planting import Planted
    from mgdm_cli.report.content import Verdict

CLOSE, FAR = 1.5, 5.0  # ratio of distances: below, the sets are close; above, far apart
LOWER = 0.05  # agreement this much below that of real images is worth a caution
SHARP = 0.65  # upper end of the membership interval up to which finding nothing says something
MANY = 0.05  # upper end of the share of near copies above which too few images were looked at to say "no evidence"
ROOM = 0.10  # agreement may truly lie this much below that of real images before "as in real images" is not said
ABLE = 0.15  # balanced accuracy over chance below which the judges cannot judge
VARIED = 0.8  # mean distance against the real one's below which a class is called less varied


HELP, NEW, LEAK = "Do they help a classifier?", "Are they new?", "Does the model know its training images?"
LABELS, LOOKS, SPLIT = "Are the labels right?", "Do they look like the real images?", "Can the figures be trusted?"


def verdicts_of(found: Findings) -> list[Verdict]:
    """What may be said, problems first, then in the order of the questions: do they help, are they new, do they leak."""
    from mgdm_cli.commands import weighed
    from mgdm_cli.report.content import Verdict

    worth = [
        Verdict("plain", "Not asked here.", "Ask with --arms dup,classical,synthetic and --test DIR: images that nothing was learnt from.")
    ] if found.utility is None else weighed.verdicts_of(found.utility)  # fmt: skip
    patients = [] if found.prepared.splits.patients_known else [
        Verdict(
            "caution",
            "The patients are not known.",
            "Each file, or DICOM study, counts as its own patient. Where one patient has several, some may stand on both sides of a "
            "split, and every figure here may flatter. Say who is who: --patient-regex, or a column of --labels.",
        )
    ]  # fmt: skip
    answers = (
        (HELP, worth),
        (NEW, [copy_verdict(found.copies, found.leaks.unaudited)]),
        (LEAK, leak_verdicts(found.leaks)),
        (LABELS, label_verdict(found.labels, len(found.prepared.classes))),
        (LOOKS, [*_distance_verdict(found), *_spread_verdict(found)]),
        (SPLIT, patients),
    )
    return in_order([replace(verdict, question=question) for question, said in answers for verdict in said])


def in_order(verdicts: Iterable[Verdict]) -> list[Verdict]:
    """Problems first, the rest as they come."""
    return sorted(verdicts, key=lambda verdict: verdict.tone != "bad")


def copies_told(c: Copies, unaudited: str) -> bool:
    """Whether the copy scores decide: they found copies, or would have."""
    return c.failed or (c.auditable and c.powerful and not c.same and not unaudited)


def leaks_told(leaks: Leaks) -> bool:
    """Whether a look at the training images decides: it found that they are known, or would have noticed."""
    near, model = leaks.neighbours, leaks.membership
    able = model is not None and model.exchangeable and model.hi <= SHARP
    return leaks.failed or able or (near is not None and near.power is not None)


def copy_verdict(c: Copies, unaudited: str = "") -> Verdict:
    """What the copy scores allow to say; `unaudited`: why nothing is known to be held out."""
    from mgdm_cli.report.content import Verdict
    from mgdm_cli.report.page import share

    parts = c.parts
    n, hits = len(c.flagged), int(c.flagged.sum())
    if not c.auditable and not c.beyond_chance and not c.repeated:
        why = f"{c.calibration.threshold.reason}. Only what shows the same thing as a training image would have counted: {hits} of {n}."
        return Verdict("caution", "Not auditable for copies.", why)
    said = f"{hits} of {n} images count as near copies; chance alone explains up to {c.by_chance}."
    figure = f"{hits} of {n}\n[{share(c.interval[0])}, {share(c.interval[1])}]"
    if parts is not None and parts.auditable:
        said += f" Of a part: {int(parts.flagged.sum())}, chance explains up to {parts.by_chance}."
    if c.beyond_chance:
        said += f" {c.repeated} of them are training images once more." if c.repeated else ""
        return Verdict(
            "bad", "More images are near copies of training images than chance explains.", said, figure=figure
        )
    if c.repeated:
        line = f"{c.repeated} of {n} images are training images once more."
        return Verdict("bad", line, "No real image here is: chance does not explain it.", figure=f"{c.repeated} of {n}")
    if c.failed:
        return Verdict(
            "bad", "More images repeat a part of a training image than chance explains.", said, figure=figure
        )
    if unaudited:
        return Verdict("caution", "Not auditable.", f"{unaudited[0].upper()}{unaudited[1:]}. {said}")
    if c.same:
        line = "Some images show the same thing as a training image, no more of all than chance explains."
        said += f" But {c.same} of them lie four times nearer to one training image than to the next: look at them."
        return Verdict("caution", line, said, figure=figure)
    power = planted_of(c)
    told = f" Of {sum(p.planted for p in power)} planted copies {sum(p.found for p in power)} were found"
    missed = ", ".join(f"{p.kind} {p.found} of {p.planted}" for p in power if p.found < p.planted)
    told += f" (not all of: {missed})." if missed else "."
    if not c.powerful:
        line = "Inconclusive: on these images the copy test finds too few planted copies."
        return Verdict("caution", line, said + told)
    high = c.interval[1]
    if high > MANY:
        line = "No more near copies than chance explains, " if hits else "No near copy was found, "
        line += "in too few images to say more."
        said += f" From {n} images no more is known than that fewer than {share(high)} of such images are near copies."
        return Verdict("plain", line, said + told, figure=figure)
    said += f" The share of near copies lies below {share(high)}."
    return Verdict("good", "No evidence of copying.", said + told, figure=figure)


def planted_of(copies: Copies) -> tuple[Planted, ...]:
    """Of each kind of planted copy what the better look found: the one at the whole, or the one at parts."""
    found = {p.kind: p for p in copies.planted}
    for p in copies.parts.planted if copies.parts is not None else ():
        if p.kind not in found or p.found > found[p.kind].found:
            found[p.kind] = p
    return tuple(found.values())


def leak_verdicts(leaks: Leaks) -> list[Verdict]:
    """Train against holdout, membership, authenticity: what failed, else in one line that nothing was found."""
    from mgdm_cli.metrics.leaks import RATE
    from mgdm_cli.report.content import Verdict
    from mgdm_cli.report.page import share

    out, quiet = [], []
    near, model, real = leaks.neighbours, leaks.membership, leaks.authenticity
    p = "" if near is None else f"p = {near.p:.3f}" if near.p < 0.1 else f"p = {near.p:.2f}"
    area = "" if model is None else f"area {model.auc:.2f}\n[{model.lo:.2f}, {model.hi:.2f}]"
    if near is not None and near.failed:
        said = f"p = {near.p:.3f} with patients exchanged; {share(near.share_closest)} of the {near.closest} closest."
        out.append(
            Verdict("bad", "The synthetic images lie nearer to training images than to held-out ones.", said, figure=p)
        )
    elif near is not None:
        what = "would miss one copy in ten" if near.power is None else f"would notice {near.power:.0%} of copies"
        quiet.append(
            f"the nearest real image is as often a held-out one (p = {near.p:.2f}; on these images this {what})"
        )
    if model is not None and not model.exchangeable:
        said = f"Without the model they are told apart with an area of {share(model.blind)}: who is learnt from is no accident."
        out.append(Verdict("caution", "Membership cannot be judged: training images and holdout differ.", said))
    elif model is not None:
        said = "the model's loss tells training images from held-out ones with an area of "
        said += f"{share(model.auc)} [{share(model.lo)}, {share(model.hi)}]"
        if model.failed:
            if model.hits and model.tpr is not None:
                said += (
                    f"; at the loss that {share(RATE)} of held-out ones reach, {share(model.tpr)} of training images do"
                )
                said += f" [{share(model.tpr_lo or 0)}, {share(model.tpr_hi or 1)}]"
            line = "The model knows training images from held-out ones."
            out.append(Verdict("bad", line, f"{said[0].upper()}{said[1:]}.", figure=area))
        else:
            quiet.append(said)
    if real is not None and real.low:
        said = f"{share(real.share)} of them, {share(real.share_holdout)} of held-out images."
        out.append(
            Verdict("caution", "Fewer images stand apart from their nearest training image than real ones do.", said)
        )
    if quiet and not any(v.tone == "bad" for v in out):
        text = "; ".join(quiet)
        out.append(_calm(leaks, f"{text[0].upper()}{text[1:]}.", area or p))
    return out


def _calm(leaks: Leaks, said: str, figure: str) -> Verdict:
    """Where no look failed."""
    from mgdm_cli.report.content import Verdict

    model = leaks.membership
    if leaks.assumed:
        line = "No sign that training images are known, if the generator learnt from none of the held-out ones."
        return Verdict("plain", line, f"{leaks.assumed} {said}", figure=figure)
    if model is not None and model.exchangeable and model.lo > 0.5:
        line = "The model tells training images from held-out ones a little; the limits of this audit allow it."
        return Verdict("caution", line, said, figure=figure)
    if leaks_told(leaks):
        return Verdict("good", "No evidence that training images are known.", said, figure=figure)
    return Verdict("plain", "Too few images to say whether training images are known.", said, figure=figure)


def judges_can_tell(labels: Sequence[Agreement], classes: int) -> bool:
    """Whether the judges are enough better than a guess on unseen real images to judge others."""
    return _seen_in_real(labels) >= 1 / classes + ABLE


def _seen_in_real(labels: Sequence[Agreement]) -> float:
    """Mean over the classes, of all that there are, of the share of unseen real images in which the judges see theirs."""
    return labels[0].skill or 0.0


def _comparable(labels: Sequence[Agreement], classes: int) -> bool:
    """Whether there is a real figure to hold the labels against, by judges that can tell real images apart."""
    return bool(labels) and labels[0].real is not None and judges_can_tell(labels, classes)


def labels_hold_less(labels: Sequence[Agreement], classes: int) -> bool:
    """Whether the labels are seen to hold less often than in real images, by judges that can tell real images apart."""
    return _comparable(labels, classes) and labels[0].difference[1] < -LOWER


def labels_told(labels: Sequence[Agreement], classes: int) -> bool:
    """Whether the judges decide: the labels hold less often than in real images, or as they do there."""
    if labels_hold_less(labels, classes):
        return True
    return _comparable(labels, classes) and labels[0].difference[0] >= -ROOM


def label_verdict(labels: Sequence[Agreement], classes: int) -> list[Verdict]:
    """Whether the labels hold: of all classes together, and whether the judges can say it at all."""
    from mgdm_cli.report.content import Verdict
    from mgdm_cli.report.page import share

    if not labels or labels[0].real is None:
        return []
    row, real = labels[0], labels[0].real
    if not judges_can_tell(labels, classes):
        said = f"They see the class in {share(_seen_in_real(labels))} of unseen real images; a guess is right in "
        said += f"{share(1 / classes)}. Agreement with the synthetic labels means nothing then."
        return [Verdict("caution", "The labels cannot be judged: the judges hardly tell real images apart.", said)]
    figure = f"{share(row.share)}\n[{share(row.lo)}, {share(row.hi)}]"
    said = f"The judges see the intended class in {share(row.share)} of them, and in "
    said += f"{share(real)} of unseen real images."
    if labels_hold_less(labels, classes):
        return [Verdict("caution", "The labels hold less often than in real images.", said, figure=figure)]
    if not labels_told(labels, classes):
        return [Verdict("plain", "No sign of wrong labels, in too few images to be sure.", said, figure=figure)]
    return [Verdict("good", "The labels hold as they do in real images.", said, figure=figure)]


def _distance_verdict(found: Findings) -> list[Verdict]:
    from mgdm_cli.report.content import Verdict
    from mgdm_cli.report.page import number

    estimate, kernel = found.fidelity.frechet, found.fidelity.kernel
    if estimate.ratio is None or not estimate.large:
        return [_by_kernel(kernel)]
    figure = f"× {number(estimate.ratio)}\nreal against real"
    said = (
        f"They lie {number(estimate.ratio)} times as far from real images as two halves of the real images from each "
        "other, at equal numbers and with the classes in equal shares."
    )
    if estimate.ratio <= CLOSE:
        return [Verdict("good", "The synthetic images lie close to the real ones.", said, figure=figure)]
    if estimate.ratio <= FAR:
        return [Verdict("plain", "The synthetic images differ measurably from the real ones.", said, figure=figure)]
    return [Verdict("caution", "The synthetic images lie far from the real ones.", said, figure=figure)]


def _by_kernel(kernel: Estimate) -> Verdict:
    """Where images are too few for the Frechet distance: what the interval of the kernel distance says."""
    from mgdm_cli.report.content import Verdict
    from mgdm_cli.report.page import number

    if kernel.value is None or kernel.lo is None:
        why = f"{kernel.reason[:1].upper()}{kernel.reason[1:]}."
        return Verdict("plain", "How close the sets are cannot be said.", why)
    figure = (
        f"kernel × 1000: {number(1000 * kernel.value)}\n[{number(1000 * kernel.lo)}, {number(1000 * (kernel.hi or 0))}]"
    )
    if kernel.lo <= 0:
        said = "The interval of the kernel distance holds 0. With few images it is wide, and this says little."
        return Verdict("plain", "No difference from the real images can be shown.", said, figure=figure)
    said = "The interval of the kernel distance lies above 0"
    if kernel.ratio is None:
        said += "; there are too few images to say how large that is."
        return Verdict("plain", "The synthetic images differ measurably from the real ones.", said, figure=figure)
    said += f", {number(kernel.ratio)} times the size that it has between two halves of the real images."
    if kernel.ratio > FAR:
        return Verdict("caution", "The synthetic images lie far from the real ones.", said, figure=figure)
    return Verdict("plain", "The synthetic images differ measurably from the real ones.", said, figure=figure)


def _spread_verdict(found: Findings) -> list[Verdict]:
    from mgdm_cli.report.content import Verdict

    few = [name for name, spread in found.fidelity.spread.items() if spread.hi < VARIED * spread.real]
    if not few:
        return []
    line = f"The synthetic images are less varied than the real ones in {', '.join(few)}."
    return [Verdict("caution", line, "Classes like these add less than their number suggests.")]
