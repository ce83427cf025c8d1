"""Which findings of `evaluate` end it with exit code 3: what `--fail-on` names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mgdm_cli.commands.concluding import judges_can_tell, labels_hold_less
from mgdm_cli.errors import UsageError

if TYPE_CHECKING:
    from mgdm_cli.commands.measuring import Findings
    from mgdm_cli.commands.weighing import Asked

USUAL = "copies,leaks"
NOTHING = "none"
LOOKS = ("copies", "leaks", "labels", "utility")


def looks_of(text: str | None) -> tuple[str, ...]:
    """The looks that `--fail-on` names, in order. Raises UsageError."""
    named = [part.strip() for part in (text or "").split(",") if part.strip()]
    if named == [NOTHING]:
        return ()
    for name in named or [text or ""]:
        if name not in LOOKS:
            hint = f"Name some of {', '.join(LOOKS)}, or {NOTHING} alone"
            raise UsageError(f"--fail-on: {name!r} is none of the looks", hint)
    return tuple(name for name in LOOKS if name in named)


def require_answerable(looks: tuple[str, ...], asked: Asked | None) -> None:
    """Raises UsageError where `utility` is to fail, and nothing that is asked could say that images hurt."""
    if "utility" not in looks:
        return
    if asked is None:
        raise UsageError("--fail-on utility: nothing says what the images are worth", "Give --arms synthetic too")
    if asked.seeds < 2 or len(asked.nets) < 2:
        raise UsageError(
            "--fail-on utility: one net, or one seed, cannot tell harm from chance", "Give --nets quick and --seeds 3"
        )


def failed(found: Findings) -> tuple[str, ...]:
    """The looks that found something wrong, whether or not they were to fail: copies, leaks, labels that hold less often than in real
    images, made images that hurt classifiers (of --synthetic, where it is an arm), once the whole table is there."""
    wrong = {
        "copies": found.copies.failed,
        "leaks": found.leaks.failed,
        "labels": labels_hold_less(found.labels, len(found.prepared.classes)),
        "utility": found.utility is not None and not found.utility.partial and bool(found.utility.hurting),
    }
    return tuple(name for name in LOOKS if wrong[name])


def undecided(found: Findings) -> tuple[str, ...]:
    """The looks that could not say: `failed` without them means nothing."""
    labels = found.labels
    known = {
        "copies": found.copies.auditable,
        "leaks": not found.leaks.unaudited,
        "labels": bool(labels) and labels[0].real is not None and judges_can_tell(labels, len(found.prepared.classes)),
        "utility": found.utility is None or not found.utility.partial,
    }
    return tuple(name for name in LOOKS if not known[name])
