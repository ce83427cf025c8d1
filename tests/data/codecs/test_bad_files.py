"""Cut, damaged and foreign files: a codec answers with MgdmError or with an image, never with anything else."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from mgdm_cli.data import codecs
from mgdm_cli.data.image import Form, Image, Mark
from mgdm_cli.errors import BadInput, MgdmError

KINDS = ("png", "jpeg", "tiff", "dicom", "nifti", "npz")


def sample(kind: str, draw: Callable[[Form], Image], mark: Mark) -> bytes:
    from PIL import Image as Pillow

    if kind == "jpeg":
        buffer = BytesIO()
        Pillow.fromarray(np.arange(4096, dtype=np.uint8).reshape(64, 64)).save(buffer, "JPEG")
        return buffer.getvalue()
    if kind == "npz":
        buffer = BytesIO()
        images = np.arange(3 * 64, dtype=np.uint8).reshape(3, 8, 8)
        np.savez(buffer, train_images=images, train_labels=np.array([[0], [1], [1]]))
        return buffer.getvalue()
    return codecs.encode(draw(Form(kind, "uint16", 1, 32, 24)), mark)


def through(path: Path, data: bytes) -> bool:
    """Whether scanning and decoding go well; anything but MgdmError on the way fails the test."""
    path.write_bytes(data)
    try:
        codec = codecs.sniff(path)
        if codec is None:
            return False
        for part in codec.parts(path, codecs.Ask(slices="axial")):
            image = codec.read(path, part.index)
            assert np.isfinite(image.pixels).all()
            assert image.form == part.form
    except MgdmError:
        return False
    return True


@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_file_is_refused_wherever_it_is_cut(
    kind: str, tmp_path: Path, draw: Callable[[Form], Image], mark: Mark
) -> None:
    data = sample(kind, draw, mark)
    assert through(tmp_path / "whole", data)
    for keep in sorted({0, 1, 100, 131, 133, 300, len(data) // 4, len(data) // 2, len(data) - 100, len(data) - 9}):
        if 0 <= keep < len(data):
            assert not through(tmp_path / f"cut{keep}", data[:keep]), f"{keep} of {len(data)} bytes were taken"


@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_is_found_before_anything_is_decoded(
    kind: str, tmp_path: Path, draw: Callable[[Form], Image], mark: Mark
) -> None:
    data = sample(kind, draw, mark)
    path = tmp_path / "cut.npz"  # of an archive, the end tells what it is: only its name is left
    path.write_bytes(data[: len(data) - 9])
    codec = codecs.sniff(path)
    assert codec is not None
    with pytest.raises(BadInput):
        codec.parts(path)


@pytest.mark.parametrize("kind", KINDS)
def test_damage_never_ends_in_a_traceback(kind: str, tmp_path: Path, draw: Callable[[Form], Image], mark: Mark) -> None:
    data = sample(kind, draw, mark)
    rng = np.random.default_rng(11)
    for trial in range(120):
        damaged = bytearray(data)
        for at in rng.integers(0, min(len(data), 1200 if trial % 2 else len(data)), size=1 + trial % 4):
            damaged[at] = rng.integers(0, 256)
        through(tmp_path / "damaged", bytes(damaged))


@pytest.mark.parametrize("data", [b"", b"hello", b"PK\x03\x04", b"\x1f\x8b", b"GIF89a" + b"\0" * 99, b"%PDF-1.4"])
def test_other_files_are_claimed_by_nobody(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "other"
    path.write_bytes(data)
    assert codecs.sniff(path) is None


def test_a_decoder_that_quotes_the_file_is_not_quoted() -> None:
    from mgdm_cli.data.codecs.base import guarded

    with pytest.raises(BadInput) as caught, guarded("the file"):
        raise ValueError("PatientName is DOE^JOHN")
    assert "DOE" not in str(caught.value) + caught.value.hint
