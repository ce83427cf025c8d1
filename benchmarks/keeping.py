"""Where results lie: one JSON file a table, beside the benchmarks, so that a document's figures can be traced."""

from __future__ import annotations

import json
import sys
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
