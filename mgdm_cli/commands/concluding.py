"""What may be said about a synthetic set, from what `evaluate` measured: verdicts in words, the gravest question first."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mgdm_cli.commands.measuring import Findings
    from mgdm_cli.metrics.leaks import Leaks
    from mgdm_cli.report.content import Verdict

CLOSE, FAR = 1.5, 5.0  # ratio of distances: below, the sets are close; above, far apart
LOWER = 0.05  # agreement this much below that of real images is worth a caution
SHARP = 0.65  # upper end of the membership interval up to which finding nothing says something
VARIED = 0.8  # mean distance against the real one's below which a class is called less varied


def verdicts_of(found: Findings) -> list[Verdict]:
    """What may be said, the most serious question first."""
    from mgdm_cli.commands import weighed
    from mgdm_cli.report.content import Verdict

    worth = [] if found.utility is None else weighed.verdicts_of(found.utility)
    out = [
        _copy_verdict(found),
        *leak_verdicts(found.leaks),
        *worth,
        *_label_verdict(found),
        *_distance_verdict(found),
        *_spread_verdict(found),
    ]
    if not found.prepared.splits.patients_known:
        out.append(
            Verdict(
                "caution",
                "The patients are not known.",
                "Each file counts as its own patient, so one patient may stand on both sides of a split.",
            )
        )
    return out


def _copy_verdict(found: Findings) -> Verdict:
    from mgdm_cli.report.content import Verdict

    c = found.copies
    n, hits = len(c.flagged), int(c.flagged.sum())
    if not c.auditable:
        return Verdict("caution", "Not auditable for copies.", f"{c.calibration.threshold.reason}.")
    power = f"Of {sum(p.planted for p in c.planted)} planted copies {sum(p.found for p in c.planted)} were found"
    missed = ", ".join(p.kind for p in c.planted if p.found < p.planted)
    power += f" (not all of: {missed})." if missed else "."
    said = f"{hits} of {n} images count as near copies; chance alone explains up to {c.by_chance}."
    if c.failed:
        return Verdict("bad", "More images are near copies of training images than chance explains.", said)
    if found.leaks.unaudited:
        return Verdict("caution", "Not auditable.", f"{found.leaks.unaudited}. {said}".capitalize())
    if not c.powerful:
        return Verdict(
            "caution", "Inconclusive: on these images the copy test finds too few planted copies.", f"{said} {power}"
        )
    return Verdict("good", "No evidence of copying.", f"{said} {power}")


def leak_verdicts(leaks: Leaks) -> list[Verdict]:
    """Train against holdout, membership, authenticity: what failed, else in one line that nothing was found."""
    from mgdm_cli.report.content import Verdict
    from mgdm_cli.report.page import share

    out, quiet = [], []
    near, model, real = leaks.neighbours, leaks.membership, leaks.authenticity
    if near is not None and near.failed:
        said = f"p = {near.p:.3f} with patients exchanged; {share(near.share_closest)} of the {near.closest} closest."
        out.append(Verdict("bad", "The synthetic images lie nearer to training images than to held-out ones.", said))
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
            line = "The model knows training images from held-out ones."
            out.append(Verdict("bad", line, f"{said[0].upper()}{said[1:]}."))
        else:
            quiet.append(said)
    if real is not None and real.low:
        said = f"{share(real.share)} of them, {share(real.share_holdout)} of held-out images."
        out.append(
            Verdict("caution", "Fewer images stand apart from their nearest training image than real ones do.", said)
        )
    if quiet and not any(v.tone == "bad" for v in out):
        text = "; ".join(quiet)
        said = f"{text[0].upper()}{text[1:]}."
        able = (near is not None and near.power is not None) or (model is not None and model.hi <= SHARP)
        if able:
            out.append(Verdict("good", "No evidence that training images are known.", said))
        else:
            out.append(Verdict("plain", "Too few images to say whether training images are known.", said))
    return out


def _label_verdict(found: Findings) -> list[Verdict]:
    from mgdm_cli.report.content import Verdict
    from mgdm_cli.report.page import share

    if not found.labels or found.labels[0].real is None:
        return []
    row = found.labels[0]
    said = f"The judge sees the intended class in {share(row.share)} of them, and in {share(row.real)} of unseen real images."
    if row.hi < (row.real or 0.0) - LOWER:
        return [Verdict("caution", "The labels hold less often than in real images.", said)]
    return [Verdict("good", "The labels hold as they do in real images.", said)]


def _distance_verdict(found: Findings) -> list[Verdict]:
    from mgdm_cli.report.content import Verdict
    from mgdm_cli.report.page import number

    estimate, kernel = found.fidelity.frechet, found.fidelity.kernel
    if estimate.ratio is None:
        if kernel.lo is None:
            return [Verdict("plain", "How close the sets are cannot be said.", f"{kernel.reason}.".capitalize())]
        if kernel.lo > 0:
            said = (
                "The interval of the kernel distance lies above 0; there are too few images to say how large that is."
            )
            return [Verdict("plain", "The synthetic images differ measurably from the real ones.", said)]
        said = "The interval of the kernel distance holds 0. With few images it is wide, and this says little."
        return [Verdict("plain", "No difference from the real images can be shown.", said)]
    said = (
        f"They lie {number(estimate.ratio)} times as far from real images as two halves of the real images from each "
        "other, at equal numbers and with the classes in equal shares."
    )
    if estimate.ratio <= CLOSE:
        return [Verdict("good", "The synthetic images lie close to the real ones.", said)]
    if estimate.ratio <= FAR:
        return [Verdict("plain", "The synthetic images differ measurably from the real ones.", said)]
    return [Verdict("caution", "The synthetic images lie far from the real ones.", said)]


def _spread_verdict(found: Findings) -> list[Verdict]:
    from mgdm_cli.report.content import Verdict

    few = [name for name, spread in found.fidelity.spread.items() if spread.hi < VARIED * spread.real]
    if not few:
        return []
    line = f"The synthetic images are less varied than the real ones in {', '.join(few)}."
    return [Verdict("caution", line, "Classes like these add less than their number suggests.")]
