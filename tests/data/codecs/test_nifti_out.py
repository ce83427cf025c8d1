"""Written NIfTI: numbers, slope, affine and codes of the input; slices put back into the volume they were cut from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from mgdm_cli.data import codecs
from mgdm_cli.data.codecs import Ask, nifti
from mgdm_cli.data.codecs.nifti_out import nifti_volume
from mgdm_cli.data.geometry import shared
from mgdm_cli.data.image import Form, Image, Mark

TILTED = np.array([[0.0, 0.3, 2.0, -9.0], [-1.5, 0.0, 0.1, 20.0], [0.1, 0.9, 0.0, 5.0], [0.0, 0.0, 0.0, 1.0]])


def stored(
    path: Path, array: Any, *, slope: float = 1.0, intercept: float = 0.0, codes: tuple[int, int] = (1, 1)
) -> Path:
    """A file that holds `array` as it is, with a slope and codes of its own."""
    picture = nibabel.Nifti1Image(array, TILTED)
    picture.set_qform(TILTED, code=codes[0])
    picture.set_sform(TILTED, code=codes[1])
    picture.header.set_slope_inter(slope, intercept)
    nibabel.save(picture, path)
    return path


def rewritten(path: Path, out: Path, mark: Mark) -> Any:
    """What nibabel finds in a file that holds the same picture again."""
    out.write_bytes(codecs.encode(nifti.read(path), mark))
    return nibabel.load(out)


@pytest.mark.parametrize(
    ("dtype", "slope", "intercept"),
    [
        ("uint8", 1.0, 0.0), ("int8", 1.0, 0.0), ("int16", 1.0, 0.0), ("uint16", 1.0, -1024.0), ("int16", 0.5, -3.0),
        ("uint16", 0.1, 7.0), ("int32", 1.0, 0.0), ("uint32", 2.0, 0.0), ("float32", 1.0, 0.0), ("float64", 1.0, 0.0),
    ],
)  # fmt: skip
def test_numbers_and_slope_are_kept(dtype: str, slope: float, intercept: float, tmp_path: Path, mark: Mark) -> None:
    low, high = (0, 200) if dtype.startswith("u") else (-100, 100)
    array = np.random.default_rng(0).integers(low, high, (6, 5, 1)).astype(dtype)
    path = stored(tmp_path / "in.nii", array, slope=slope, intercept=intercept)
    back = rewritten(path, tmp_path / "out.nii.gz", mark)
    assert back.header.get_data_dtype() == np.dtype(dtype)
    assert (back.dataobj.slope, back.dataobj.inter) == pytest.approx((slope, intercept), rel=1e-7)
    np.testing.assert_array_equal(np.asarray(back.dataobj.get_unscaled()), array)
    out = nifti.read(tmp_path / "out.nii.gz")
    np.testing.assert_array_equal(out.pixels, nifti.read(path).pixels)
    wanted = nifti.read(path).form
    assert (out.form.dtype, out.form.stored, out.form.codes) == (wanted.dtype, wanted.stored, wanted.codes)
    np.testing.assert_array_equal(codecs.settled(nifti.read(path)).pixels, out.pixels)


def test_between_the_steps_is_rounded_and_beyond_the_type_clipped(tmp_path: Path, mark: Mark) -> None:
    form = Form("nifti", "float32", 1, 2, 2, stored=("int8", 0.5, 10.0))
    image = Image(np.array([[[10.2, 10.3], [1e6, -1e6]]], dtype=np.float32), form)
    (tmp_path / "out.nii.gz").write_bytes(codecs.encode(image, mark))
    wanted = [[[10.0, 10.5], [73.5, -54.0]]]
    np.testing.assert_array_equal(nifti.read(tmp_path / "out.nii.gz").pixels, wanted)
    np.testing.assert_array_equal(codecs.settled(image).pixels, wanted)
    image.pixels[0, 0, 0] = np.inf
    with pytest.raises(ValueError, match="NaN"):
        codecs.encode(image, mark)


@pytest.mark.parametrize(
    ("codes", "kept"),
    [
        ((1, 1), (1, 1)),
        ((0, 4), (0, 4)),
        ((2, 0), (2, 0)),
        ((1, 3), (1, 3)),
        ((3, 0), (3, 0)),
        ((4, 1), (1, 1)),
        ((0, 5), (0, 5)),
    ],
)
def test_what_the_affine_refers_to_is_kept_but_no_place_in_a_scanner(
    codes: tuple[int, int], kept: tuple[int, int], tmp_path: Path, mark: Mark
) -> None:
    path = stored(tmp_path / "in.nii.gz", np.ones((6, 5, 1), dtype=np.uint8), codes=codes)
    back = rewritten(path, tmp_path / "out.nii.gz", mark)
    assert (int(back.header["qform_code"]), int(back.header["sform_code"])) == kept
    given = nibabel.load(path).affine
    np.testing.assert_allclose(back.affine[:3, :3], given[:3, :3], atol=1e-5)
    place = given[:3, 3] if max(kept) > 2 else -given[:3, :3] @ [2.5, 2, 0]
    np.testing.assert_allclose(back.affine[:3, 3], place, atol=1e-5)
    assert back.header.get_xyzt_units() == ("mm", "sec")


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_a_volume_cut_into_slices_and_put_together_is_the_same_in_space(plane: str, tmp_path: Path, mark: Mark) -> None:
    array = np.random.default_rng(1).permutation(4 * 5 * 6).reshape(4, 5, 6).astype(np.int16)
    path = stored(tmp_path / "in.nii.gz", array, slope=0.5, intercept=-3.0, codes=(0, 4))
    images = [nifti.read(path, part.index) for part in nifti.parts(path, Ask(slices=plane))]
    out = tmp_path / "out.nii.gz"
    out.write_bytes(nifti_volume(images, mark))
    assert nifti.parts(out, Ask(slices=plane))[0].flags == {"synthetic"}
    back = nibabel.load(out)
    assert sorted(back.shape) == [4, 5, 6]
    assert back.header.get_data_dtype() == np.int16
    assert int(back.header["sform_code"]) == 4
    raw = np.asarray(back.dataobj.get_unscaled())
    to_old = np.linalg.inv(nibabel.load(path).affine) @ back.affine
    for index in np.ndindex(raw.shape):
        old = tuple(np.rint(to_old @ [*index, 1])[:3].astype(int))
        assert raw[index] == array[old]


def test_what_is_no_grid_is_no_volume(tmp_path: Path, mark: Mark, draw: Callable[[Form], Image]) -> None:
    path = stored(tmp_path / "in.nii.gz", np.zeros((4, 5, 6), dtype=np.uint8))
    images = [nifti.read(path, part.index) for part in nifti.parts(path, Ask(slices="axial"))]
    with pytest.raises(ValueError, match="equally far"):
        nifti_volume([images[0], images[1], images[3]], mark)
    with pytest.raises(ValueError, match="its place"):
        nifti_volume([draw(Form("nifti", "uint8", 1, 4, 4))], mark)
    with pytest.raises(ValueError, match="one form"):
        nifti_volume([images[0], replace(images[1], form=replace(images[1].form, height=9))], mark)


@pytest.mark.parametrize("kinds", [[("int16", 0.05), ("int16", 0.25)], [("int8", 1.0), ("int16", 1.0)]])
def test_files_of_other_numbers_clip_nothing(kinds: list[tuple[str, float]], tmp_path: Path, mark: Mark) -> None:
    """What all files hold is written, not what fits into the numbers of the first."""
    arrays = [np.full((16, 16, 1), 120, dtype=kinds[0][0]), np.full((16, 16, 1), 30_000, dtype=kinds[1][0])]
    files = [
        stored(tmp_path / f"{i}.nii", array, slope=slope)
        for i, (array, (_, slope)) in enumerate(zip(arrays, kinds, strict=True))
    ]
    images = [nifti.read(path) for path in files]
    form = codecs.output_form(shared((image.form for image in images), (16, 16)))
    for image in images:
        (tmp_path / "out.nii.gz").write_bytes(codecs.encode(Image(image.pixels, form), mark))
        np.testing.assert_allclose(nifti.read(tmp_path / "out.nii.gz").pixels, image.pixels)
