"""Geometry: areas averaged, aspect kept, positions in the patient kept, padding undone exactly."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mgdm_cli.data.geometry import HOWS, fit, pad_to_multiple, resized, shared
from mgdm_cli.data.image import Form
from mgdm_cli.errors import BadInput, UsageError


def noise(*shape: int) -> Any:
    return np.random.default_rng(0).random(shape).astype(np.float32)


def test_shrinking_by_a_whole_number_is_the_mean_of_the_block() -> None:
    pixels = noise(3, 12, 8)
    expected = pixels.reshape(3, 6, 2, 4, 2).mean(axis=(2, 4))
    np.testing.assert_allclose(fit(pixels, (6, 4), "stretch"), expected, rtol=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.integers(8, 40), st.integers(8, 40), st.integers(1, 8), st.integers(1, 8))
def test_shrinking_keeps_the_mean_and_the_range(height: int, width: int, tall: int, wide: int) -> None:
    pixels = noise(1, height, width)
    small = fit(pixels, (tall, wide), "stretch")
    assert small.shape == (1, tall, wide)
    np.testing.assert_allclose(small.mean(), pixels.mean(), rtol=1e-5)
    assert pixels.min() <= small.min() <= small.max() <= pixels.max()


def test_nothing_aliases() -> None:
    """Stripes finer than the new pixels become their mean, not other stripes."""
    stripes = np.tile(np.array([0, 1], dtype=np.float32), (1, 64, 32))
    small = fit(stripes, (9, 9), "stretch")
    assert np.ptp(small) < 0.2


def test_pad_keeps_the_whole_image_and_its_aspect() -> None:
    pixels = noise(1, 40, 20) + 1
    pixels[0, 0, 0] = 0.25  # the darkest of the outline
    padded = fit(pixels, (20, 20), "pad")
    np.testing.assert_allclose(padded[:, :, 5:15], fit(pixels, (20, 10), "stretch"))
    outline = fit(pixels, (20, 10), "stretch")
    darkest = min(outline[0, 0].min(), outline[0, -1].min(), outline[0, :, 0].min(), outline[0, :, -1].min())
    assert (padded[:, :, :5] == darkest).all()
    assert (padded[:, :, 15:] == darkest).all()


def test_crop_keeps_the_centre_and_the_aspect() -> None:
    pixels = noise(1, 40, 20)
    np.testing.assert_allclose(fit(pixels, (10, 10), "crop"), fit(pixels[:, 10:30], (10, 10), "stretch"), rtol=1e-5)


@pytest.mark.parametrize("how", HOWS)
def test_the_same_size_is_the_same_image(how: str) -> None:
    pixels = noise(3, 9, 7)
    np.testing.assert_array_equal(fit(pixels, (9, 7), how), pixels)


@pytest.mark.parametrize("how", HOWS)
def test_enlarging_only_on_request(how: str) -> None:
    pixels = noise(1, 8, 8)
    with pytest.raises(BadInput, match="smaller than 16x16"):
        fit(pixels, (16, 16), how)
    large = fit(pixels, (16, 16), how, upsample=True)
    assert large.shape == (1, 16, 16)
    assert pixels.min() <= large.min() <= large.max() <= pixels.max()
    flat = np.full((1, 8, 8), 3.25, dtype=np.float32)
    np.testing.assert_allclose(fit(flat, (16, 16), how, upsample=True), 3.25)


def test_pad_of_a_small_but_wide_image_does_not_enlarge() -> None:
    assert fit(noise(1, 8, 64), (32, 32), "pad").shape == (1, 32, 32)
    with pytest.raises(BadInput):
        fit(noise(1, 8, 64), (32, 32), "crop")


def test_an_unknown_way_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="fit"):
        fit(noise(1, 8, 8), (4, 4), "squeeze")


@pytest.mark.parametrize("shape", [(8, 8), (9, 15), (1, 17), (31, 24)])
def test_padding_to_a_multiple_is_undone_exactly(shape: tuple[int, int]) -> None:
    pixels = noise(2, *shape)
    padded, at = pad_to_multiple(pixels, 8)
    assert padded.shape[1] % 8 == padded.shape[2] % 8 == 0
    top, left = at
    np.testing.assert_array_equal(padded[:, top : top + shape[0], left : left + shape[1]], pixels)
    assert padded.min() >= pixels.min()  # edges repeated, nothing invented


AFFINE = ((-0.5, 0.0, 0.0, 10.0), (0.0, -0.75, 0.0, -20.0), (0.0, 0.0, 3.0, 30.0), (0.0, 0.0, 0.0, 1.0))


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("size", [(10, 10), (20, 8), (13, 17)])
def test_positions_in_the_patient_are_kept(how: str, size: tuple[int, int]) -> None:
    """A bright spot lies at the same mm before and after, to a fraction of a new pixel."""
    form = Form("nifti", "float32", 1, 60, 40, (0.75, 0.5), AFFINE)
    rows, columns = np.mgrid[:60, :40]
    centre = np.array([22.0, 33.0])  # column, row
    spot = np.exp(-((columns - centre[0]) ** 2 + (rows - centre[1]) ** 2) / 50).astype(np.float32)[None]
    small = fit(spot, size, how)[0]
    new = resized(form, size, how)
    assert (new.height, new.width) == size
    small = np.where(small > 0.05, small, 0)
    r, c = np.mgrid[: size[0], : size[1]]
    found = np.array([(small * c).sum(), (small * r).sum()]) / small.sum()
    there = np.array(new.affine) @ [*found, 0, 1]
    expected = np.array(AFFINE) @ [*centre, 0, 1]
    assert new.spacing_mm is not None
    np.testing.assert_allclose(there, expected, atol=0.35 * max(new.spacing_mm))
    steps = np.linalg.norm(np.array(new.affine)[:3, :2], axis=0)
    np.testing.assert_allclose(steps[::-1], new.spacing_mm)


def test_a_form_without_geometry_stays_without() -> None:
    new = resized(Form("png", "uint8", 3, 64, 64), (32, 32))
    assert (new.spacing_mm, new.affine, new.height) == (None, None, 32)


def test_a_shared_form_says_only_what_all_say() -> None:
    axial = ((0.5, 0.0, 0.0, 1.0), (0.0, -0.5, 0.0, 2.0), (0.0, 0.0, 2.0, 3.0), (0.0, 0.0, 0.0, 1.0))
    moved = ((-0.5, 0.1, 0.0, 9.0), (0.1, 0.5, 0.0, 8.0), (0.0, 0.0, 2.0, 7.0), (0.0, 0.0, 0.0, 1.0))
    coronal = (axial[0], axial[2], axial[1], axial[3])
    first = Form("dicom", "uint16", 1, 8, 8, (0.5, 0.5), axial, "CT", "HEAD", None, "CT")
    assert shared([first], (8, 8)) == first
    assert shared([first, replace(first, affine=moved)], (8, 8)) == first
    assert shared([first, first, replace(first, body_part="KNEE")], (8, 8)) == replace(first, body_part=None)
    other = replace(first, affine=coronal, modality="MR", storage="MR", orientation=("L", "F"))
    assert shared([first, other], (8, 8)) == replace(first, affine=None, modality=None, storage=None)


def test_a_shared_form_has_the_median_spacing_of_what_was_fitted() -> None:
    """Each form as it is after `fit`; the affine goes with the spacing, and its middle stays."""
    affine = ((0.5, 0.0, 0.0, 1.0), (0.0, -0.5, 0.0, 2.0), (0.0, 0.0, 2.0, 3.0), (0.0, 0.0, 0.0, 1.0))
    first = Form("nifti", "int16", 1, 8, 8, (0.5, 0.5), affine)
    coarse, large = replace(first, spacing_mm=(0.75, 1.0)), replace(first, height=16, width=16)
    unknown = replace(first, spacing_mm=None)
    found = shared([first, coarse, coarse, unknown], (8, 8))
    assert found.spacing_mm == (0.75, 1.0)
    matrix, before, middle = np.array(found.affine), np.array(affine), [3.5, 3.5, 0.0, 1.0]
    np.testing.assert_allclose(matrix[:3, :3], [[1.0, 0.0, 0.0], [0.0, -0.75, 0.0], [0.0, 0.0, 2.0]])
    np.testing.assert_allclose(matrix @ middle, before @ middle)
    assert shared([first, large, large], (8, 8)).spacing_mm == (1.0, 1.0)
    assert shared([unknown, unknown], (8, 8)).spacing_mm is None
