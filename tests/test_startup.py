"""`mgdm --help` and the help of every command are quick, because nothing heavy is imported for them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mgdm_cli.app import VERBS

ROOT = Path(__file__).resolve().parents[1]
HEAVY = {"torch", "numpy", "scipy", "sklearn", "pydicom", "nibabel", "PIL", "tifffile", "png", "safetensors"}
HEAVY |= {"pydantic", "matplotlib", "jinja2", "rich"}
SECONDS = 0.3

PROBE = """
import json, sys
from mgdm_cli.app import main
code = main(json.loads(sys.argv[1]))
print()
print(json.dumps([code, sorted({name.partition(".")[0] for name in sys.modules})]))
"""


def probe(words: list[str]) -> tuple[int, set[str], str]:
    """Exit code, the top-level modules that were loaded, and the output of one command line in a fresh Python."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE, json.dumps(words)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    text, _, last = done.stdout.rstrip().rpartition("\n")
    code, modules = json.loads(last)
    return code, set(modules), text


@pytest.mark.parametrize("words", [["--help"], ["--version"], *([verb, "--help"] for verb in VERBS)], ids=" ".join)
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    code, modules, text = probe(words)
    assert code == 0
    assert text
    assert modules & HEAVY == set()


def test_general_help_imports_no_command() -> None:
    see = "import sys; from mgdm_cli.app import main; main(['--help']); sys.exit('mgdm_cli.commands' in sys.modules)"
    subprocess.run([sys.executable, "-c", see], cwd=ROOT, capture_output=True, check=True)


@pytest.mark.parametrize("words", [["--help"], ["augment", "--help"], ["inspect", "--help"]], ids=" ".join)
def test_help_is_quick(words: list[str]) -> None:
    """Processor time, not wall time: other work on the machine must not turn this red."""

    def cost() -> float:
        before = os.times()
        subprocess.run([sys.executable, "-m", "mgdm_cli", *words], cwd=ROOT, capture_output=True, check=True)
        after = os.times()
        return after.children_user - before.children_user + after.children_system - before.children_system

    assert min(cost() for _ in range(3)) < SECONDS
