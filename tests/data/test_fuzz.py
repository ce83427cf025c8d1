"""A short, fixed part of the fuzzing (`benchmarks.fuzz` is the long one), and that it would find something."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.fuzz import READERS, fuzz
from mgdm_cli.data.codecs import nifti, raster


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder) -> None:
    """Decoders log what they think of such files."""


@pytest.mark.parametrize("reader", READERS)
def test_mutated_files_end_in_an_image_or_in_an_error_of_ours(reader: str, tmp_path: Path) -> None:
    tally = fuzz(reader, tmp_path, seed=1, tries=250)
    assert tally.faults == []
    assert tally.read > 0
    assert tally.refused > 50


def test_the_fuzzer_finds_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Odd(Exception):
        pass

    def broken(*arguments: Any) -> Any:
        raise Odd("a decoder's own kind of error")

    monkeypatch.setattr(raster, "_opaque", broken)
    found = fuzz("png", tmp_path, seed=1, tries=40).faults
    assert found
    assert "Odd at test_fuzz.py" in found[0][0]
    monkeypatch.setattr(nifti, "check_size", lambda *size: None)
    monkeypatch.setattr(nifti, "as_pixels", lambda array, nan=None: array[None] * float("nan"))
    assert "not finite" in {
        what.removeprefix("a good file: ") for what, _ in fuzz("nifti", tmp_path, seed=1, tries=5).faults
    }
