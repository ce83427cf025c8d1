"""What every codec owes for every dtype and number of channels that it claims: one test, no exceptions by name."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mgdm_cli.data import codecs
from mgdm_cli.data.codecs.base import DTYPES
from mgdm_cli.data.image import Form, Image, Mark

NAMES = [name for codec in codecs.CODECS for name in codec.NAMES]
HELD = {  # what files of the format hold; the rest cannot come from reading one
    "png": {("uint8", 1), ("uint8", 3), ("uint16", 1), ("uint16", 3)},
    "jpeg": {("uint8", 1), ("uint8", 3)},
    "tiff": set(itertools.product(DTYPES, (1, 3))),
    "dicom": {*itertools.product(DTYPES, (1,)), ("uint8", 3), ("uint16", 3)},
    "nifti": {*itertools.product(DTYPES, (1,)), ("uint8", 3)},
    "npz": set(itertools.product(DTYPES, (1, 3))),
}
CASES = [(name, dtype, channels) for name in NAMES for dtype, channels in sorted(HELD[name])]
AFFINE = ((-0.5, 0.0, 0.0, 10.0), (0.0, 0.0, 2.0, -20.0), (0.0, -0.75, 0.0, 30.0), (0.0, 0.0, 0.0, 1.0))


def forms(name: str, dtype: str, channels: int) -> Form:
    place = name in ("dicom", "nifti")
    spacing, affine = ((0.75, 0.5), AFFINE) if place else (None, None)
    form = Form(name, dtype, channels, 13, 10, spacing, affine)
    return replace(form, modality="CT", body_part="CHEST") if name == "dicom" else form


def test_every_name_is_tested() -> None:
    assert set(NAMES) == set(HELD)


@pytest.mark.parametrize(("name", "dtype", "channels"), CASES)
def test_an_image_comes_back_as_it_was_written(
    name: str, dtype: str, channels: int, tmp_path: Path, draw: Callable[[Form], Image], mark: Mark
) -> None:
    image = draw(forms(name, dtype, channels))
    form = codecs.output_form(image.form)
    data = codecs.encode(image, mark)
    path = tmp_path / "file"  # the name says nothing: bytes decide
    path.write_bytes(data)

    codec = codecs.sniff(path)
    assert codec is codecs.codec_of(form.codec)
    (part,) = codec.parts(path)
    back = codec.read(path)

    assert same(back.form, form)
    assert same(part.form, form)
    assert back.pixels.dtype == np.float32
    assert back.pixels.flags.c_contiguous
    step = (float(np.ptp(image.pixels)) / 65535 / 2 if (name, dtype) == ("dicom", "float32") else 0.0) * 1.001
    np.testing.assert_allclose(back.pixels, image.pixels, rtol=0, atol=step)
    once = codecs.settled(Image(image.pixels, form))
    np.testing.assert_array_equal(once.pixels, back.pixels)
    path.write_bytes(codecs.encode(once, mark))
    np.testing.assert_array_equal(codec.read(path).pixels, once.pixels, "what was judged is what is written")

    assert part.index is None
    assert "synthetic" in part.flags
    assert codecs.encode(image, mark) == data
    assert codecs.suffix(image.form) == {"png": ".png", "tiff": ".tif", "dicom": ".dcm", "nifti": ".nii.gz"}[form.codec]
    assert codecs.output_form(form) == form


def same(left: Form, right: Form) -> bool:
    """Equal, but for the last digits of what files hold as float32."""
    a, b = np.array(left.affine or 0.0), np.array(right.affine or 0.0)
    near = all(
        math.isclose(x, y, rel_tol=1e-6) for x, y in zip(left.spacing_mm or (), right.spacing_mm or (), strict=True)
    )
    names = ("codec", "dtype", "channels", "height", "width", "modality", "body_part")
    return near and np.allclose(a, b, atol=1e-5) and all(getattr(left, n) == getattr(right, n) for n in names)


@pytest.mark.parametrize(("name", "dtype", "channels"), CASES)
def test_values_outside_the_type_are_clipped_and_others_rounded(
    name: str, dtype: str, channels: int, tmp_path: Path, mark: Mark
) -> None:
    if dtype == "float32":
        pytest.skip("floating point has no levels")
    info = np.iinfo(dtype)
    pixels = np.full((channels, 4, 5), 7.4, dtype=np.float32)
    pixels[:, 0, 0], pixels[:, 0, 1], pixels[:, 0, 2] = info.max + 99.0, info.min - 99.0, 7.6
    path = tmp_path / "file"
    path.write_bytes(codecs.encode(Image(pixels, Form(name, dtype, channels, 4, 5)), mark))
    codec = codecs.sniff(path)
    assert codec is not None
    back = codec.read(path).pixels
    assert back[0, 0, :4].tolist() == [info.max, info.min, 8, 7]


@pytest.mark.parametrize("name", NAMES)
def test_not_a_number_is_a_bug_and_never_written(name: str, mark: Mark) -> None:
    pixels = np.zeros((1, 4, 4), dtype=np.float32)
    pixels[0, 1, 1] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        codecs.encode(Image(pixels, Form(name, "uint8", 1, 4, 4)), mark)


@pytest.mark.parametrize("name", NAMES)
def test_another_run_or_index_gives_other_bytes(name: str, draw: Callable[[Form], Image], mark: Mark) -> None:
    from dataclasses import replace

    image = draw(forms(name, "uint8", 1))
    files = {codecs.encode(image, m) for m in (mark, replace(mark, run="ef" * 32), replace(mark, index=13))}
    assert len(files) == 3
