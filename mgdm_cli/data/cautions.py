"""What a person should know of a data set although it is whole, read off its plan: the same on card, page and in the record."""

from __future__ import annotations

from mgdm_cli.data.allotment import SMALLEST_CLASS
from mgdm_cli.data.noting import UNKNOWN_PATIENTS
from mgdm_cli.data.plan import Plan

FEW = 50  # real images of a class below which the card warns


def cautions(plan: Plan) -> tuple[str, ...]:
    """One sentence each; none where nothing is odd."""
    found = [] if plan.patients_known else [UNKNOWN_PATIENTS]
    quotas = plan.quotas
    shared_out = plan.command == "augment" and "=" not in plan.balance
    for name in plan.classes:  # in their order, which `real` loses in plan.json
        count = plan.real.get(name, 0)
        if quotas.get(name) and count < FEW:
            found.append(
                f"class {name}: {count} real images were learnt from: what is made of so few is less varied than the class, and may "
                "resemble them"
            )
        elif not quotas.get(name) and count < SMALLEST_CLASS and shared_out:
            found.append(f"class {name} is left out: {count} real images, {SMALLEST_CLASS} are needed (--force-small)")
    if plan.unplanned:
        found.append(
            f"{plan.asked} images were asked for and {plan.asked - plan.unplanned} planned: a class gets {plan.max_per_real:g} for each "
            "real one at most (--max-per-real)"
        )
    filters = plan.recipe.filters
    if plan.command == "augment" and not filters.label:
        found.append(
            "nothing looked whether the labels were kept, nor for copies of training images: the gates were off (--no-filters)"
        )
    if filters.copy_alpha is not None and filters.copy_threshold is None:
        found.append(
            "the copy gate refuses only nearly the same picture as a training image: too few images are held out to tell a copy from a "
            f"new image at --copy-alpha {filters.copy_alpha:g}"
        )
    if judge := plan.weak_judge:
        found.append(
            f"the labels are not assured: the judge, which says whether a label was kept, hardly beats a guess: {judge}"
        )
    return tuple(found)
