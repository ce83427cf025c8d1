"""One form of pixels in a set: what may be mixed, and what is told of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mgdm_cli.commands.modelling import prepare
from mgdm_cli.commands.reading import Source
from mgdm_cli.errors import BadInput


def filled(root: Path, kinds: dict[str, str], bad: int = 0) -> Path:
    """Classes a and b of 8 random images each; `kinds`: class -> suffix of the first four, the others are PNG."""
    rng = np.random.default_rng(0)
    for name, suffix in kinds.items():
        (root / name).mkdir(parents=True)
        for i in range(8):
            picture = Image.fromarray(rng.integers(0, 256, (24, 24)).astype(np.uint8))
            picture.save(root / name / f"{i}{suffix if i < 4 else '.png'}")
    for i in range(bad):
        (root / "a" / f"bad{i:02d}.png").write_bytes(b"\x89PNG\r\n\x1a\n cut")
    return root


def test_png_and_jpeg_are_of_one_form(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Both are written as PNG. Where JPEG is not alike in all classes its traces may tell the class, which is said."""
    found = prepare(Source(filled(tmp_path / "one", {"a": ".jpg", "b": ".jpg"})), seed=0)
    assert sum(found.counts.values()) == 16
    assert "traces of compression" not in capfd.readouterr().err
    prepare(Source(filled(tmp_path / "two", {"a": ".jpg", "b": ".png"})), seed=0)
    assert "JPEG, not alike in all classes (4 of 8 of a, 0 of 8 of b)" in capfd.readouterr().err


def test_other_mixtures_are_refused_with_a_file_of_each(tmp_path: Path) -> None:
    with pytest.raises(
        BadInput, match=r"12 png uint8 with 1 channel \(a/5.png\); 4 tiff uint8 with 1 channel \(a/0.tif\)"
    ):
        prepare(Source(filled(tmp_path / "set", {"a": ".tif", "b": ".png"})), seed=0)


def test_each_skipped_file_is_named_with_its_reason(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = Source(filled(tmp_path / "set", {"a": ".png", "b": ".png"}, bad=22), skip_bad=True, max_skip=0.9)
    prepare(source, seed=0)
    err = capfd.readouterr().err
    assert err.count("skipped: a/bad") == 20
    assert "skipped: a/bad00.png: " in err
    assert "... and 2 more; mgdm inspect --report" in err
