"""`mgdm models`: the base models that ship with the package."""

from __future__ import annotations

from typing import Any

from mgdm_cli.console import Result, finish


def run() -> Result:
    """One line for each base model."""
    from mgdm_cli.engine.bases import listing

    rows: list[dict[str, Any]] = []
    lines = []
    for base in listing():
        channels = base.unet.channels
        kind = "grey" if channels == 1 else "colour" if channels == 3 else f"{channels} channels"
        rows.append(
            {
                "name": base.name,
                "channels": channels,
                "size": base.size,
                "seen": base.seen,
                "bytes": base.path.stat().st_size,
                "sha256": base.sha256,
                "licence": base.licence,
                "sources": list(base.sources),
                "classes": list(base.classes),
            }
        )
        lines.append(f"{base.name}: {kind}, {base.size} px, {base.seen} images seen, {base.licence}")
        lines.extend(f"  learnt from {source}" for source in base.sources)
    if not rows:
        lines.append("no base models are there: every run trains from scratch")
    return Result({"models": rows}, tuple(lines))


def command() -> None:
    """The base models from which training starts where one fits the images.

    \b
    mgdm models
    mgdm models --json
    """
    finish(run())
