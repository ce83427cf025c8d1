"""Where results lie, one JSON file a table, so that a document's figures can be traced; and what repeats of a figure say."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def kept(name: str) -> dict[str, Any]:
    """What results/NAME.json holds; empty where there is none yet."""
    path = RESULTS / f"{name}.json"
    found: dict[str, Any] = json.loads(path.read_bytes()) if path.is_file() else {}
    return found


def keep(name: str, document: dict[str, Any]) -> None:
    """Write results/NAME.json, and say where on stderr: some benchmarks print the document itself."""
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")
    sys.stderr.write(f"written: {path}\n")


def spread(values: Sequence[float], digits: int = 4) -> dict[str, float]:
    """What repeats say: their median, the least and the largest."""
    found = {"median": statistics.median(values), "least": min(values), "largest": max(values)}
    return {name: round(value, digits) for name, value in found.items()}


def said(found: dict[str, float], form: str = ".4g") -> str:
    """`spread` as text: median [least, largest]."""
    return f"{found['median']:{form}} [{found['least']:{form}}, {found['largest']:{form}}]"
