"""What the codec tests share: a mark, random images, a way through a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mgdm_cli.data.image import Form, Image, Mark

Draw = Callable[..., Image]


@pytest.fixture
def mark() -> Mark:
    return Mark("glaucoma-000012", "glaucoma", "ab" * 32, 12, "cd" * 32, "0.1.0", "20260131")


@pytest.fixture
def draw() -> Draw:
    """draw(form) -> an Image of whole numbers over the whole range of the form's dtype, its ends included."""

    def drawn(form: Form) -> Image:
        rng = np.random.default_rng(7)
        ends = {"uint8": (0, 255), "uint16": (0, 65535), "int16": (-32768, 32767), "float32": (-3.5, 1e4)}[form.dtype]
        pixels = rng.uniform(*ends, (form.channels, form.height, form.width))
        pixels[0, 0, :2] = ends
        return Image((pixels if form.dtype == "float32" else np.rint(pixels)).astype(np.float32), form)

    return drawn


@pytest.fixture
def png(tmp_path: Path) -> Callable[[bytes], Path]:
    """png(data) -> a file that holds the bytes, whatever they are."""

    def written(data: bytes) -> Path:
        path = tmp_path / "picture"
        path.write_bytes(data)
        return path

    return written
