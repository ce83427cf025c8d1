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

from mgdm_cli.engine import device
from mgdm_cli.engine.device import KIND, bf16, compute_as, computes_in_bf16, kind_of, kind_of_cpu
from mgdm_cli.engine.planning import machine_of
from mgdm_cli.errors import UsageError

CPU, ROOT = torch.device("cpu"), Path(__file__).resolve().parents[2]
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
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("kind", ["bfloat16", "float32"])
def test_what_was_settled_holds_and_goes_to_child_processes(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KIND, "float32")
    threads = torch.get_num_threads()
    compute_as(threads, kind)
    assert kind_of(CPU) == kind
    assert machine_of(CPU).computes_in == kind
    see = "import torch; from mgdm_cli.engine.device import kind_of; print(kind_of(torch.device('cpu')))"
    assert python(see).stdout.strip() == kind
    compute_as(threads, "")
    assert kind_of(CPU) == kind


def test_a_type_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KIND, "fp32")
    with pytest.raises(UsageError, match="no type"):
        kind_of_cpu()


def test_autocast_follows_the_choice() -> None:
    x = torch.ones(1, 4, 8, 8)
    with bf16(CPU):
        y = torch.nn.functional.conv2d(x, torch.ones(4, 4, 3, 3))
    assert (y.dtype == torch.bfloat16) == computes_in_bf16(CPU)


def test_the_choice_leaves_random_numbers_and_threads_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KIND, raising=False)
    before = torch.get_num_threads()
    torch.manual_seed(3)
    first = torch.randn(4)
    torch.manual_seed(3)
    torch.set_num_threads(2)
    try:
        assert kind_of_cpu() in device.KINDS
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert torch.equal(torch.randn(4), first)


def test_a_clock_that_stands_still_still_gives_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KIND, raising=False)
    chosen = kind_of_cpu()
    monkeypatch.delenv(KIND)
    monkeypatch.setattr("mgdm_cli.engine.device.time.thread_time", lambda: 7.0)
    assert kind_of_cpu() == chosen


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="what is switched off is x86's")
def test_a_processor_without_bfloat16_computes_in_float32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KIND, raising=False)
    done = python(JOB, str(tmp_path), **WITHOUT_BF16)
    assert done.returncode == 0, done.stderr
    plan = json.loads((tmp_path / "out" / "plan.json").read_text())
    assert plan["machine"]["computes_in"] == "float32"
    assert json.loads((tmp_path / "run" / "settings.json").read_text())["computes_in"] == "float32"
    assert len(list((tmp_path / "out").rglob("*.png"))) >= 4
