"""Intensity: exact for 8 bit, within half a level for 16 bit, scaled one by one where images are not comparable."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mgdm_cli.data.image import Form, Image
from mgdm_cli.data.intensity import Intensity, fit_intensity
from mgdm_cli.errors import BadInput, UsageError


def image(values: Any, dtype: str = "uint8") -> Image:
    pixels = np.asarray(values, dtype=np.float32)
    pixels = pixels.reshape((1, *pixels.shape)) if pixels.ndim == 2 else pixels
    return Image(pixels, Form("png", dtype, pixels.shape[0], *pixels.shape[1:]))


def test_8_bit_is_0_to_255_and_exact() -> None:
    every = image(np.arange(256).reshape(16, 16))
    dark = image(np.arange(64).reshape(8, 8))
    for images in ([every], [dark], [dark, every]):
        found = fit_intensity(images)
        assert (found.kind, found.lo, found.hi) == ("linear", 0.0, 255.0)
    unit = found.to_unit(every.pixels)
    assert unit.dtype == np.float32
    assert (unit.min(), unit.max()) == (-1.0, 1.0)
    np.testing.assert_array_equal(np.rint(found.to_physical(unit)), every.pixels)


@pytest.mark.parametrize(("dtype", "lo", "hi"), [("uint16", 0, 65535), ("int16", -1024, 3071), ("uint16", 100, 4095)])
def test_16_bit_comes_back_within_half_a_level(dtype: str, lo: int, hi: int) -> None:
    pixels = np.random.default_rng(0).integers(lo, hi, (100, 100), endpoint=True)
    pixels[0, :2] = lo, hi
    found = fit_intensity([image(pixels, dtype)] * 3)
    assert found.lo == lo
    inside = pixels <= found.hi
    assert inside.mean() >= 0.9999
    back = found.to_physical(found.to_unit(image(pixels, dtype).pixels))[0]
    assert np.abs(back - pixels)[inside].max() < 0.5


def test_a_few_hot_pixels_do_not_set_the_range() -> None:
    pixels = np.full((200, 200), 1000)
    pixels[:100] = 0
    pixels[0, 0] = 60000
    assert fit_intensity([image(pixels, "uint16")] * 2).hi == 1000


def test_images_that_are_not_comparable_are_scaled_one_by_one() -> None:
    rng = np.random.default_rng(1)
    images = [image(rng.random((32, 32)) * 10.0**power, "float32") for power in (2, 3, 4, 5, 6) * 4]
    found = fit_intensity(images)
    assert found.kind == "per-image"
    assert "own range" in found.note
    for each in images[:5]:
        unit = found.to_unit(each.pixels)
        assert unit.min() == -1.0
        assert unit.max() == 1.0
    stack = np.stack([each.pixels for each in images])
    np.testing.assert_array_equal(found.to_unit(stack)[3], found.to_unit(images[3].pixels))
    assert 1e3 < found.hi < 1e5  # the median range leads back
    comparable = fit_intensity([image(rng.random((32, 32)) * scale, "float32") for scale in (100, 700)])
    assert comparable.kind == "linear"


def test_one_blank_image_does_not_change_the_kind() -> None:
    rng = np.random.default_rng(2)
    images = [image(rng.integers(0, 4000, (16, 16)), "uint16") for _ in range(300)]
    assert fit_intensity([*images, image(np.zeros((16, 16)), "uint16")]).kind == "linear"


def test_floating_point_ranges() -> None:
    found = fit_intensity([image(np.linspace(-2.5, 7.5, 400).reshape(20, 20), "float32")])
    assert (found.lo, found.hi) == (-2.5, 7.5)


def test_the_window_is_an_option() -> None:
    found = fit_intensity([], window=(40, 400))
    assert (found.lo, found.hi) == (-160, 240)
    np.testing.assert_allclose(
        found.to_unit(np.array([[[-1000, -160, 40, 240, 3000]]], dtype=np.float32)), [[[-1, -1, 0, 1, 1]]]
    )
    for window in ((0, 0), (0, -5), (np.nan, 1)):
        with pytest.raises(UsageError, match="window"):
            fit_intensity([], window=window)


def test_nothing_and_blank_are_refused() -> None:
    with pytest.raises(BadInput, match="no images"):
        fit_intensity([])
    with pytest.raises(BadInput, match="blank"):
        fit_intensity([image(np.full((4, 4), 7), "uint16")])


def test_json_round_trip_and_bad_records() -> None:
    found = Intensity(kind="per-image", lo=-1.5, hi=1e-3 / 3, note="n")
    assert Intensity.from_json(found.to_json()) == found
    for text in ("{}", '{"lo":1,"hi":0}', '{"lo":0,"hi":1,"extra":2}', '{"lo":0,"hi":1,"kind":"cubic"}', "nonsense"):
        with pytest.raises(BadInput, match="intensity record"):
            Intensity.from_json(text)


def test_outside_the_range_is_clipped_both_ways() -> None:
    found = Intensity(lo=0, hi=100)
    np.testing.assert_array_equal(found.to_physical(np.array([[[-3, 3]]], dtype=np.float32)), [[[0, 100]]])
    np.testing.assert_array_equal(found.to_unit(np.array([[[-30, 300]]], dtype=np.float32)), [[[-1, 1]]])
