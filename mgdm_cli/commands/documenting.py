"""What `evaluate` found as one document for machines: evaluation.json, and what --json prints."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mgdm_cli.commands.measuring import Findings
    from mgdm_cli.metrics.audit import Copies

LISTED = 50  # pairs in the document


def document_of(found: Findings) -> dict[str, Any]:
    """Everything as plain values. Real images are named by their number in the training split, never by file."""
    from mgdm_cli.commands.concluding import verdicts_of
    from mgdm_cli.commands.weighed import document_of as utility_of

    copies, near = found.copies, found.fidelity
    order = copies.scores.score.argsort(kind="stable")[:LISTED]
    return {
        "classes": {name: {"real": found.prepared.counts[name], "synthetic": n} for name, n in found.counts.items()},
        "feature_space": {
            "what": found.space.what,
            "sha256": found.space.sha256,
            "dimension": found.space.dimension,
            "judges_sha256": list(found.judges.sha256),
            "judges_seen": found.judges.seen,
        },
        "frechet": asdict(near.frechet),
        "kernel": asdict(near.kernel),
        "kernel_by_class": {name: asdict(estimate) for name, estimate in near.by_class.items()},
        "diversity": {name: asdict(spread) for name, spread in near.spread.items()},
        **{name: asdict(estimate) for name, estimate in near.shares.items()},
        "shares_by_class": {
            label: {name: asdict(estimate) for name, estimate in shares.items()}
            for label, shares in near.shares_by_class.items()
        },
        "vendi": {name: asdict(spread) for name, spread in near.vendi.items()},
        "labels": [asdict(row) for row in found.labels],
        "judges_on_test": found.test,
        "copies": {
            "alpha": copies.calibration.threshold.alpha,
            "threshold": copies.calibration.threshold.value,
            "calibrated_on": copies.calibration.source,
            "calibration_images": copies.calibration.threshold.calibrated_on,
            "same_as_training": copies.calibration.same_as_training,
            "auditable": copies.auditable and not found.leaks.unaudited,
            "flagged": int(copies.flagged.sum()),
            "images": len(copies.flagged),
            "share_interval": list(copies.interval),
            "by_chance_at_most": copies.by_chance,
            "same_thing": copies.same,
            "repeated": copies.repeated,
            "planted": {p.kind: {"found": p.found, "planted": p.planted} for p in copies.planted},
            "powerful": copies.powerful,
            "parts": None if copies.parts is None else _parts_of(copies.parts),
            "failed": copies.failed,
            "nearest": [
                {
                    "path": found.records[i].path,
                    "training_image": int(copies.scores.nearest[i]),
                    "score": float(copies.scores.score[i]),
                    "flagged": bool(copies.flagged[i]),
                }
                for i in order
            ],
        },
        "leaks": _leaks_of(found),
        "utility": None if found.utility is None else utility_of(found.utility),
        "patients_known": found.prepared.splits.patients_known,
        "inputs_sha256": found.prepared.fingerprint,
        "seed": found.seed,
        "notes": list(found.notes),
        "verdicts": [
            {"question": v.question, "tone": v.tone, "line": v.line, "detail": v.detail} for v in verdicts_of(found)
        ],
    }


def _parts_of(parts: Copies) -> dict[str, Any]:
    """The look at quarters of the pictures."""
    return {
        "threshold": parts.calibration.threshold.value,
        "calibrated_on": parts.calibration.source,
        "flagged": int(parts.flagged.sum()),
        "share_interval": list(parts.interval),
        "by_chance_at_most": parts.by_chance,
        "planted": {p.kind: {"found": p.found, "planted": p.planted} for p in parts.planted},
        "failed": parts.beyond_chance,
    }


def _leaks_of(found: Findings) -> dict[str, Any]:
    leaks = found.leaks
    looks = {"neighbours": leaks.neighbours, "membership": leaks.membership, "authenticity": leaks.authenticity}
    return {
        **{name: None if look is None else asdict(look) for name, look in looks.items()},
        "reasons": dict(leaks.reasons),
        "auditable": not leaks.unaudited and found.copies.auditable,
        "unaudited": leaks.unaudited,
        "assumed": leaks.assumed,
        "failed": leaks.failed,
    }
