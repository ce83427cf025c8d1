"""What a machine computes in: bfloat16 where it is quick at it, float32 elsewhere, the same each time."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mgdm_cli.engine.device import bf16, computes_in_bf16, describe

CPU = torch.device("cpu")
WITHOUT_BF16 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}  # most of the PCs of today
JOB = """
import sys
from pathlib import Path
import torch
from mgdm_cli import app
from mgdm_cli.engine.run import load_parts, read_settings
from tests.tiny import any_guide_will_do, tiny_run, tiny_set
import pytest

root = Path(sys.argv[1])
source = tiny_set(root / "set")
tiny_run(root / "run", source)
parts, _ = load_parts(root / "run", read_settings(root / "run"), torch.device("cpu"))
assert {p.dtype for p in parts.model.net.parameters()} == {torch.float32}, "weights in a type that is slow here"
words = ["augment", "--data", source.data, "--model", root / "run", "--n", 4, "--guidance", "cfg", "--no-filters",
         "--steps", 4, "--patient-regex", source.patient_regex, "--device", "cpu", "--quiet", "-o", root / "out"]
with pytest.MonkeyPatch.context() as patch:
    any_guide_will_do(patch)
    sys.argv = ["mgdm", *map(str, words)]
    sys.exit(app.main())
"""


def python(program: str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *words],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_what_is_computed_in_is_part_of_the_machines_name() -> None:
    assert describe(CPU).endswith("bfloat16" if computes_in_bf16(CPU) else "float32")


def test_autocast_follows_the_choice() -> None:
    x = torch.ones(1, 4, 8, 8)
    with bf16(CPU):
        y = torch.nn.functional.conv2d(x, torch.ones(4, 4, 3, 3))
    assert (y.dtype == torch.bfloat16) == computes_in_bf16(CPU)


def test_the_choice_leaves_random_numbers_and_threads_alone() -> None:
    computes_in_bf16.cache_clear()
    torch.manual_seed(3)
    first = torch.randn(4)
    torch.manual_seed(3)
    threads = torch.get_num_threads()
    computes_in_bf16(CPU)
    assert torch.equal(torch.randn(4), first)
    assert torch.get_num_threads() == threads


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="what is switched off is x86's")
def test_a_processor_without_bfloat16_computes_in_float32(tmp_path: Path) -> None:
    done = python(JOB, str(tmp_path), **WITHOUT_BF16)
    assert done.returncode == 0, done.stderr
    plan = json.loads((tmp_path / "out" / "plan.json").read_text())
    assert plan["machine"]["device"].endswith("float32")
    assert len(list((tmp_path / "out").rglob("*.png"))) >= 4
