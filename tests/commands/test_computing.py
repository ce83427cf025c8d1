"""As a set was begun, and a remark where other work would slow the threads down."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from mgdm_cli.commands import augment, computing
from mgdm_cli.commands.computing import crowding, device_of, running
from mgdm_cli.commands.modelling import as_begun
from mgdm_cli.commands.reading import Source
from mgdm_cli.commands.wanted import Wanted
from mgdm_cli.data.dataset import Dataset
from mgdm_cli.data.files import sha256_file
from mgdm_cli.data.plan import Machine
from mgdm_cli.engine.device import KIND, kind_of_cpu, pick
from mgdm_cli.engine.run import read_settings
from mgdm_cli.errors import UsageError


@pytest.fixture
def crowd(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Five others compute on a machine of two processors, and two threads here."""
    before = torch.get_num_threads()
    monkeypatch.setattr(computing, "running", lambda: 5)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("threads", "processors", "others", "fewer"),
    [(2, 2, 0, 0), (2, 2, 1, 1), (2, 2, 5, 1), (8, 16, 8, 0), (8, 16, 12, 4), (1, 2, 9, 0), (2, 2, None, 0)],
)
def test_fewer_threads_are_named_where_there_are_too_many(
    threads: int, processors: int, others: int | None, fewer: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(computing, "running", lambda: others)
    said = crowding(threads, processors)
    assert (f"OMP_NUM_THREADS={fewer} " in said) is bool(fewer)
    assert bool(said) is bool(fewer)


def test_others_that_compute_are_seen() -> None:
    if running() is None:
        pytest.skip("this machine does not tell what runs")
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    try:
        time.sleep(1)
        assert (running() or 0) >= 2
    finally:
        for process in busy:
            process.kill()
            process.wait()


@pytest.mark.parametrize("text", [None, "0.00 0.00 0.00 0/0 0", "nonsense"])
def test_where_nothing_is_known_nothing_is_counted(
    text: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if text is not None:
        (tmp_path / "loadavg").write_text(text)
    monkeypatch.setattr(computing, "LOADS", tmp_path / "loadavg")
    assert running() is None


def test_the_remark_is_made_unless_the_threads_are_settled(crowd: None, capsys: pytest.CaptureFixture[str]) -> None:
    device_of("cpu", settled=True)
    assert "other work" not in capsys.readouterr().err
    device_of("cpu")
    assert "other work keeps 2 of 2 processors busy" in capsys.readouterr().err


@pytest.mark.parametrize(("said", "threads"), [(None, 1), ("2", 2)])
def test_no_more_threads_than_the_container_may_use_unless_the_user_says(
    said: str | None, threads: int, crowd: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if said is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", said)
    monkeypatch.setattr(computing, "processors", lambda: 1)
    device_of("cpu", settled=True)
    assert torch.get_num_threads() == threads
    assert ("as many processors as this process may use" in capsys.readouterr().err) is (said is None)


@dataclass(frozen=True)
class Begun:
    """As much of a plan as counts here."""

    machine: Machine


def test_a_set_goes_on_as_it_was_begun(
    crowd: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(KIND, "bfloat16")
    plan: Any = Begun(Machine(device="cpu AVX2, 1 threads", cpu_capability="AVX2", threads=1, computes_in="float32"))
    device_of("cpu", begun=plan)
    assert (torch.get_num_threads(), kind_of_cpu()) == (1, "float32")
    said = capsys.readouterr().err
    assert "threads: 1, as the set was begun" in said
    assert "other work" not in said


def test_the_same_command_goes_on_where_other_threads_would_be_used(
    ground: tuple[Source, Path], tmp_path: Path, crowd: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of half a set the rest comes out as if nothing had changed, byte for byte."""
    wanted = Wanted(8, guidance="cfg", filters=False, steps=4, block=2)

    def make(out: Path) -> dict[str, str]:
        assert augment.run(ground[0], wanted, out=out, model=ground[1], device="cpu").exit_code == 0
        return images(out)

    torch.set_num_threads(1)
    monkeypatch.setenv(KIND, "float32")
    whole = make(tmp_path / "whole")
    begun = tmp_path / "begun"
    commit, left = Dataset.commit, [2]

    def stop(*arguments: Any, **named: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        commit(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(Dataset, "commit", stop)
        with pytest.raises(KeyboardInterrupt):
            make(begun)
    assert len(images(begun)) == 4
    torch.set_num_threads(2)
    monkeypatch.setenv(KIND, "bfloat16")
    assert make(begun) == whole


def images(root: Path) -> dict[str, str]:
    return {path.name: sha256_file(path) for path in sorted((root / "images").rglob("*.png"))}


def test_a_set_of_a_gpu_goes_on_with_its_threads_and_leaves_the_processors_type_alone(
    crowd: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its plan holds their number too, and another one would be another plan."""
    monkeypatch.setattr("mgdm_cli.engine.device.pick", lambda name: torch.device("cuda"))
    monkeypatch.setattr("mgdm_cli.engine.device.describe", lambda device: "NVIDIA X")
    monkeypatch.setenv(KIND, "float32")
    plan: Any = Begun(Machine(device="NVIDIA X", cpu_capability="AVX2", threads=1))
    device_of("cuda", begun=plan)
    assert (torch.get_num_threads(), kind_of_cpu()) == (1, "float32")
    torch.set_num_threads(2)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    device_of("cuda", begun=Begun(Machine(device="NVIDIA Y", cpu_capability="AVX2", threads=1)))  # type: ignore[arg-type]
    assert torch.get_num_threads() == 2


def test_a_slip_in_the_type_is_told_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KIND, "fp32")
    with pytest.raises(UsageError, match="no type"):
        device_of("cpu")


def test_a_run_goes_on_as_it_was_begun_and_what_comes_after_does_not(
    ground: tuple[Source, Path], crowd: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(KIND, "bfloat16")
    settings = read_settings(ground[1]).model_copy(update={"threads": 1, "computes_in": "float32"})
    with as_begun(settings):
        assert (torch.get_num_threads(), kind_of_cpu()) == (1, "float32")
    assert (torch.get_num_threads(), kind_of_cpu()) == (2, "bfloat16")
    assert "threads: 1, as the run was begun" in capsys.readouterr().err
    with as_begun(settings.model_copy(update={"computes_in": ""})):  # of a run that was begun on a GPU
        assert kind_of_cpu() == "bfloat16"


@pytest.mark.parametrize("name", ["cuda:0", "cuda:99", "tpu"])
def test_a_device_that_is_not_there_is_a_usage_error(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UsageError, match="device"):
        device_of(name)


def test_of_several_gpus_one_that_is_there_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert pick("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(UsageError, match="cuda:2: not available"):
        pick("cuda:2")
