"""Which findings of `evaluate` end it with exit code 3: what `--fail-on` names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mgdm_cli.commands.concluding import copies_told, labels_hold_less, labels_told, leaks_told
from mgdm_cli.commands.weighing import OWN
from mgdm_cli.errors import UsageError

if TYPE_CHECKING:
    from mgdm_cli.commands.measuring import Findings
    from mgdm_cli.commands.weighing import Asked

USUAL = "copies,leaks"
NOTHING = "none"
LOOKS = ("copies", "leaks", "labels", "utility")
OPEN = "undecided"  # as a look: those that are named and could not say


def looks_of(text: str | None) -> tuple[str, ...]:
    """The looks that `--fail-on` names, in order. Raises UsageError."""
    named = [part.strip() for part in (text or "").split(",") if part.strip()]
    if named == [NOTHING]:
        return ()
    for name in named or [text or ""]:
        if name not in (*LOOKS, OPEN):
            hint = f"Name some of {', '.join((*LOOKS, OPEN))}, or {NOTHING} alone"
            raise UsageError(f"--fail-on: {name!r} is none of the looks", hint)
    looks = tuple(name for name in LOOKS if name in named)
    return (*(looks or tuple(USUAL.split(","))), OPEN) if OPEN in named else looks


def require_answerable(looks: tuple[str, ...], asked: Asked | None) -> None:
    """Raises UsageError where `utility` is to fail, and nothing that is asked could say that images hurt."""
    from mgdm_cli.metrics.utility import enough

    if "utility" not in looks:
        return
    if asked is None or OWN not in dict(asked.folders):
        raise UsageError(
            "--fail-on utility: nothing says what the images of --synthetic are worth", f"Name {OWN} in --arms"
        )
    if not enough(asked.nets, asked.seeds):
        raise UsageError(
            "--fail-on utility: one net, or one seed, cannot tell harm from chance", "Give --nets quick and --seeds 3"
        )


def failed(found: Findings) -> tuple[str, ...]:
    """The looks that found something wrong, whether or not they were to fail: copies, leaks, labels that hold less often than in real
    images, images of --synthetic that hurt classifiers, once the whole table is there."""
    wrong = {
        "copies": found.copies.failed,
        "leaks": found.leaks.failed,
        "labels": labels_hold_less(found.labels, len(found.prepared.classes)),
        "utility": found.utility is not None and found.utility.hurts,
    }
    return tuple(name for name in LOOKS if wrong[name])


def undecided(found: Findings) -> tuple[str, ...]:
    """The looks that could not say, or were not asked to: that they are not in `failed` means nothing."""
    known = {
        "copies": copies_told(found.copies, found.leaks.unaudited),
        "leaks": leaks_told(found.leaks),
        "labels": labels_told(found.labels, len(found.prepared.classes)),
        "utility": found.utility is not None and found.utility.told,
    }
    return tuple(name for name in LOOKS if not known[name])
