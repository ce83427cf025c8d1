"""Shared fixtures and what the markers mean."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:  # it loads torch
    from mgdm_cli.commands.reading import Source

ROOT = Path(__file__).resolve().parents[1]

# Before anything imports torch: the tests are small, and a second thread gains nothing and, beside other work, waits for the first.
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")
os.environ.setdefault("MPLBACKEND", "Agg")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what this machine cannot run, and say why: `gpu` without CUDA, `external("dcmdump")` without the program."""
    for mark in item.iter_markers("external"):
        for program in mark.args:
            if shutil.which(program) is None:
                pytest.skip(f"{program} is not installed")
    if item.get_closest_marker("gpu") is not None:
        import torch

        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real images: $MGDM_DATA, else ../shared/data beside the clone. They are never part of it."""
    folder = Path(os.environ.get("MGDM_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no real images: {folder} is not there (set MGDM_DATA)")
    return folder


@pytest.fixture(autouse=True)
def _fresh_console() -> Iterator[None]:
    """No test inherits --json, --quiet or a log from the one before."""
    from mgdm_cli import console

    console.reset()
    yield
    console.reset()


@pytest.fixture(scope="module", autouse=True)
def scans_here() -> Iterator[None]:
    """Folders are looked at in this process, which is quicker than to start others; data/test_bad_input.py says otherwise."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mgdm_cli.data.workers.Limits", lambda: None)
        yield


@pytest.fixture
def any_guide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guides that do not beat chance are not refused."""
    from tests.tiny import any_guide_will_do

    any_guide_will_do(monkeypatch)


@pytest.fixture(scope="session")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Source, Path]]:
    """(a tiny set, a trained run of it) for all modules: a test that changes one of them works on a copy."""
    from tests.tiny import tiny_run, tiny_set, tree

    root = tmp_path_factory.mktemp("ground")
    source = tiny_set(root / "set")
    tiny_run(root / "run", source)
    before = tree(root)
    yield source, root / "run"
    assert tree(root) == before, "a test has changed what all of them share"
