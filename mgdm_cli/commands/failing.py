"""Which findings of `evaluate` end it with exit code 3: what `--fail-on` names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mgdm_cli.commands.concluding import labels_hold_less
from mgdm_cli.errors import UsageError

if TYPE_CHECKING:
    from mgdm_cli.commands.measuring import Findings

USUAL = "copies,leaks"
NOTHING = "none"
LOOKS = ("copies", "leaks", "labels", "utility")


def looks_of(text: str, *, weighed: bool) -> tuple[str, ...]:
    """The looks that `--fail-on` names, in order. `weighed`: classifiers are trained (`--arms`). Raises UsageError."""
    named = [part.strip() for part in text.split(",")]
    if named == [NOTHING]:
        return ()
    for name in named:
        if name not in LOOKS:
            raise UsageError(
                f"--fail-on: {name}: is none of the looks", f"Name some of {', '.join(LOOKS)}, or {NOTHING}"
            )
    if "utility" in named and not weighed:
        raise UsageError("--fail-on: utility: nothing says what the images are worth", "Give --arms synthetic too")
    return tuple(name for name in LOOKS if name in named)


def failed(found: Findings) -> tuple[str, ...]:
    """The looks that found something wrong, whether or not they were to fail: copies, leaks, labels that hold less often than in real
    images, a made arm that hurts classifiers."""
    hurts = found.utility is not None and bool(found.utility.hurting)
    wrong = {
        "copies": found.copies.failed,
        "leaks": found.leaks.failed,
        "labels": labels_hold_less(found.labels, len(found.prepared.classes)),
        "utility": hurts,
    }
    return tuple(name for name in LOOKS if wrong[name])
