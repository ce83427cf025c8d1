"""NIfTI: where slices lie, what headers may not say, checksums that nibabel does not look at."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from mgdm_cli.data import codecs
from mgdm_cli.data.codecs import Ask, nifti
from mgdm_cli.data.image import Form, Image, Mark
from mgdm_cli.errors import BadInput

RAS = np.diag([2.0, 3.0, 4.0, 1.0])


def volume(tmp_path: Path, array: Any, affine: Any = RAS, name: str = "v.nii.gz", **fields: Any) -> Path:
    picture = nibabel.Nifti1Image(array, affine)
    for field, value in fields.items():
        picture.header[field] = value
    path = tmp_path / name
    nibabel.save(picture, path)
    return path


def landmark() -> Any:
    """(5, 6, 7) with a bright voxel far right (i), far anterior (j) and far up (k), and a gradient."""
    array = np.arange(5 * 6 * 7, dtype=np.int16).reshape(5, 6, 7)
    array[4, 5, 6] = 1000
    return array


@pytest.mark.parametrize(("plane", "axis"), [("axial", 2), ("coronal", 1), ("sagittal", 0)])
def test_slices_are_shown_as_radiologists_look_at_them(plane: str, axis: int, tmp_path: Path) -> None:
    array = landmark()
    path = volume(tmp_path, array)
    parts = nifti.parts(path, Ask(slices=plane))
    assert len(parts) == array.shape[axis]
    last = nifti.read(path, parts[-1].index)
    # anterior or head on top; the patient's right on the left, in a sagittal slice anterior on the left
    assert last.pixels[0, 0, 0] == 1000
    assert last.form == parts[-1].form
    assert last.form.spacing_mm == {"axial": (3, 2), "coronal": (4, 2), "sagittal": (4, 3)}[plane]


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, 1), (1, -1, -1), (-1, -1, 1)])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
def test_every_pixel_keeps_its_place_in_the_patient(
    plane: str, flips: tuple[int, ...], order: tuple[int, ...], tmp_path: Path
) -> None:
    """However the voxels are stored: affine @ (column, row, 0) is the position of the voxel with that value."""
    array = np.random.default_rng(0).permutation(5 * 6 * 7).reshape(5, 6, 7).astype(np.int16)
    affine = np.eye(4)
    affine[:3, :3] = (np.diag(flips) * [2.0, 3.0, 4.0])[:, order]
    affine[:3, 3] = 10, -20, 30
    path = volume(tmp_path, array, affine)
    part = nifti.parts(path, Ask(slices=plane))[2]
    image = nifti.read(path, part.index)
    assert image.form.affine is not None
    for column, row in ((0, 0), (1, 3), (image.form.width - 1, image.form.height - 2)):
        voxel = np.argwhere(array == int(image.pixels[0, row, column]))[0]
        there = np.array(image.form.affine) @ [column, row, 0, 1]
        np.testing.assert_allclose(there, affine @ [*voxel, 1], atol=1e-4)
    # to the right of the picture is the patient's left (sagittal: back); down is back or feet
    steps = np.array(image.form.affine)[:3, :2]
    assert (np.sum(steps, axis=0) < 0).all()


def test_a_written_slice_lies_as_the_real_one_about_the_origin(
    tmp_path: Path, draw: Callable[[Form], Image], mark: Mark
) -> None:
    path = volume(tmp_path, landmark())
    part = nifti.parts(path, Ask(slices="coronal"))[3]
    out = tmp_path / "out.nii.gz"
    out.write_bytes(codecs.encode(draw(part.form), mark))
    back = nibabel.load(out)
    assert part.form.affine is not None
    np.testing.assert_allclose(back.affine[:3, :3], np.array(part.form.affine)[:3, :3], atol=1e-5)
    middle = back.affine @ [(part.form.width - 1) / 2, (part.form.height - 1) / 2, 0, 1]
    np.testing.assert_allclose(middle[:3], 0.0, atol=1e-5)
    assert back.shape == (part.form.width, part.form.height, 1)
    assert bytes(back.header["descrip"].tobytes()).startswith(b"SYNTHETIC mgdm 0.1.0")
    assert back.header.get_xyzt_units() == ("mm", "sec")
    assert b'"Synthetic": "YES"' in back.header.extensions[0].get_content()


def test_a_volume_asks_for_a_plane_and_a_picture_does_not(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="volume of 5x6x7") as caught:
        nifti.parts(volume(tmp_path, landmark()))
    assert "--slices" in caught.value.hint
    for shape in ((5, 6), (5, 6, 1), (1, 5, 6)):
        flat = np.arange(30, dtype=np.uint8).reshape(shape)
        path = volume(tmp_path, flat, name=f"flat{len(shape)}{shape[0]}.nii")
        (part,) = nifti.parts(path)
        assert part.index is None
        np.testing.assert_array_equal(nifti.read(path).pixels[0], flat.squeeze().T)


def test_volumes_in_time_are_a_choice_and_vectors_are_refused(tmp_path: Path) -> None:
    array = np.arange(4 * 5 * 6 * 3, dtype=np.int16).reshape(4, 5, 6, 3)
    path = volume(tmp_path, array)
    with pytest.raises(BadInput, match="has 3 frames"):
        nifti.parts(path, Ask(slices="axial"))
    assert len(nifti.parts(path, Ask(slices="axial", frames="first"))) == 6
    parts = nifti.parts(path, Ask(slices="axial", frames="all"))
    assert len(parts) == 18
    for part, (t, k) in zip(parts, np.ndindex(3, 6), strict=True):
        found = nifti.read(path, part.index)
        assert found.form == part.form
        np.testing.assert_array_equal(np.sort(found.pixels[0].ravel()), np.sort(array[:, :, k, t].ravel()))
    with pytest.raises(BadInput, match="5 components"):
        nifti.parts(volume(tmp_path, np.zeros((4, 4, 4, 1, 5), dtype=np.uint8), name="v.nii"), Ask(slices="axial"))


@pytest.mark.parametrize("dtype", [">i2", ">f4", "<u2", "int8", "<i4", "<f8"])
def test_types_and_byte_orders(dtype: str, tmp_path: Path) -> None:
    array = (np.arange(30) - (0 if "u" in dtype else 15)).astype(dtype).reshape(5, 6)
    header = nibabel.Nifti1Header(endianness=">" if dtype[0] == ">" else "<")
    header.set_data_dtype(array.dtype)
    path = tmp_path / "t.nii"
    nibabel.save(nibabel.Nifti1Image(array, RAS, header), path)
    np.testing.assert_array_equal(nifti.read(path).pixels[0], array.T)
    expected = {"u": "uint16", "i": "int16", "f": "float32"}[array.dtype.kind]
    assert nifti.parts(path)[0].form.dtype == ("float32" if array.dtype.itemsize > 2 else expected)


def test_slope_and_intercept(tmp_path: Path) -> None:
    path = volume(tmp_path, np.arange(30, dtype=np.int16).reshape(5, 6), name="s.nii")
    data = bytearray(path.read_bytes())
    data[112:120] = np.array([0.5, -3], dtype="<f4").tobytes()
    path.write_bytes(data)
    np.testing.assert_array_equal(nifti.read(path).pixels[0], (np.arange(30).reshape(5, 6) * 0.5 - 3).T)
    assert nifti.parts(path)[0].form.dtype == "float32"


@pytest.mark.parametrize(
    ("at", "value", "why"),
    [
        (40, np.array([3, 0, 9, 10], "<i2"), "dim"),
        (40, np.array([3, -4, 9, 10], "<i2"), "dim"),
        (40, np.array([3, 32767, 32767, 32767], "<i2"), "limit"),
        (40, np.array([9], "<i2"), "dim"),
        (70, np.array([9999], "<i2"), "datatype"),
        (108, np.array([np.nan], "<f4"), "vox_offset"),
        (108, np.array([10], "<f4"), "vox_offset"),
        (112, np.array([np.inf], "<f4"), "scl_slope"),
        (280, np.full(4, np.nan, "<f4"), "affine"),
        (280, np.zeros(12, "<f4"), "affine"),
        (42, np.array([50, 60], "<i2"), "cut short"),
    ],
)
def test_impossible_headers_are_named(at: int, value: Any, why: str, tmp_path: Path) -> None:
    path = volume(tmp_path, landmark(), name="bad.nii")
    data = bytearray(path.read_bytes())
    data[at : at + value.nbytes] = value.tobytes()
    path.write_bytes(data)
    with pytest.raises(BadInput, match=why):
        nifti.parts(path, Ask(slices="axial"))


def test_bad_checksums_and_trailing_data_are_found(tmp_path: Path) -> None:
    good = volume(tmp_path, landmark()).read_bytes()
    path = tmp_path / "bad.nii.gz"
    for data, why in (
        (good[:-8] + bytes([good[-8] ^ 1]) + good[-7:], "checksum"),
        (good + b"more", "behind the end"),
        (good[:-20], "cut short"),
    ):
        path.write_bytes(data)
        with pytest.raises(BadInput, match=why):
            nifti.parts(path, Ask(slices="axial"))


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    from mgdm_cli.data.codecs import nifti_file

    with pytest.raises(BadInput, match="unpack"):
        nifti_file.plain_bytes(volume(tmp_path, np.zeros((50, 50, 50), dtype=np.uint8)), 1000)


def test_holes_in_the_data_are_counted(tmp_path: Path) -> None:
    array = np.zeros((5, 6), dtype=np.float32)
    array[2, 3], array[1, 1] = np.nan, np.inf
    with pytest.raises(BadInput, match="2 values of 30"):
        nifti.read(volume(tmp_path, array))


def test_writing_is_deterministic_and_named_nowhere(draw: Callable[[Form], Image], mark: Mark) -> None:
    data = codecs.encode(draw(Form("nifti", "int16", 1, 6, 5)), mark)
    assert data[4:8] == b"\0\0\0\0"  # no time in the gzip header
    assert data[3] == 0  # and no name
    assert zlib.crc32(gzip.decompress(data)) == int.from_bytes(data[-8:-4], "little")


@pytest.mark.data
def test_real_volumes_agree_with_nibabel(shared_data: Path) -> None:
    for path in sorted((shared_data / "hippocampus_half" / "images").glob("*.nii.gz"))[:3]:
        whole = nibabel.load(path)
        values = np.asanyarray(whole.dataobj)
        for plane in ("axial", "coronal", "sagittal"):
            parts = nifti.parts(path, Ask(slices=plane))
            image = nifti.read(path, parts[len(parts) // 2].index)
            inverse = np.linalg.inv(whole.affine)
            for column, row in ((0, 0), (3, 5)):
                voxel = inverse @ np.array(image.form.affine) @ [column, row, 0, 1]
                i, j, k = (round(v) for v in voxel[:3])
                assert image.pixels[0, row, column] == np.float32(values[i, j, k])
