"""DICOM in, as hospitals send it: every compression, padding, windows, frames, series; the real files and pydicom's."""

from __future__ import annotations

import subprocess
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.uid import UID

from mgdm_cli.data import folder
from mgdm_cli.data.codecs import Ask, dicom, jpeg_lossless
from mgdm_cli.data.codecs.dicom_terms import JPEG_LOSSLESS, PACKED
from mgdm_cli.data.image import Record
from mgdm_cli.data.proving import Proof, Wish
from mgdm_cli.data.series import series_of
from mgdm_cli.data.workers import Limits, proofs
from mgdm_cli.errors import BadInput
from tests.data.hostile import dicom as small

J2K, J2K_LOSSLESS, JPEG_LS, RLE = (
    "1.2.840.10008.1.2.4.91",
    "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.4.80",
    "1.2.840.10008.1.2.5",
)


def pixels(path: Path, ask: Ask | None = None, part: int | None = None) -> Any:
    ask = ask or Ask()
    image = dicom.read(path, part, ask)
    assert image.form == dicom.parts(path, ask)[part or 0].form
    return image.pixels[0] if len(image.pixels) == 1 else np.moveaxis(image.pixels, 0, -1)


def smooth(dtype: str = "uint16") -> Any:
    """A picture that compresses; it uses the whole range of its type."""
    info = np.iinfo(dtype)
    ramp = np.linspace(info.min, info.max, 64 * 64).reshape(64, 64)
    return np.rint(ramp).astype(dtype)


@pytest.mark.parametrize("syntax", [RLE, J2K_LOSSLESS, JPEG_LS])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16"])
def test_lossless_compression_gives_the_same_pixels(syntax: str, dtype: str, tmp_path: Path) -> None:
    pytest.importorskip("openjpeg" if syntax == J2K_LOSSLESS else "pydicom" if syntax == RLE else "jpeg_ls",
                        reason="the extra codecs is not installed")  # fmt: skip
    array = smooth(dtype)
    bits = 8 * array.dtype.itemsize
    tags = {"BitsAllocated": bits, "BitsStored": bits, "HighBit": bits - 1, "PixelRepresentation": int(dtype[0] == "i")}
    path = small(tmp_path / "1.dcm", **tags, PixelData=array.tobytes())
    made = pydicom.dcmread(path)
    made.compress(syntax, generate_instance_uid=False)
    made.save_as(path)
    np.testing.assert_array_equal(pixels(path), array)


def test_a_missing_decoder_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As without the extra: pydicom is told that no plug-in is there."""
    from pydicom.pixels.decoders import base

    path = small(tmp_path / "1.dcm")
    made = pydicom.dcmread(path)
    made.compress(RLE, generate_instance_uid=False)
    for syntax, name in PACKED.items():
        if syntax in JPEG_LOSSLESS:
            continue
        made.file_meta.TransferSyntaxUID = UID(syntax)
        made.save_as(path)
        monkeypatch.setattr(base.get_decoder(syntax), "_available", {})
        with pytest.raises(BadInput, match="needs a decoder that is not installed") as caught:
            dicom.parts(path)
        assert f"{syntax} ({name})" in caught.value.message
        assert "pip install '.[codecs]'" in caught.value.hint


# Lossless JPEG


@pytest.mark.data
@pytest.mark.external("dcmcjpeg")
@pytest.mark.parametrize("predictor", range(1, 8))
def test_lossless_jpeg_as_another_program_packs_it(predictor: int, shared_data: Path, tmp_path: Path) -> None:
    for name in ("693_UNCR.dcm", "SC_rgb.dcm", "MR-SIEMENS-DICOM-WithOverlays.dcm"):
        plain = shared_data / "dicom/pydicom_data" / name
        packed = tmp_path / name
        words = ["dcmcjpeg", "+el", "+sv", str(predictor), "+un", str(plain), str(packed)]
        subprocess.run(words, check=True, capture_output=True)
        assert pydicom.dcmread(packed).file_meta.TransferSyntaxUID in JPEG_LOSSLESS
        np.testing.assert_array_equal(pixels(packed), pixels(plain))


@pytest.mark.data
@pytest.mark.external("dcmdjpeg")
@pytest.mark.parametrize("name", ["JPEG-LL.dcm", "JPGLosslessP14SV1_1s_1f_8b.dcm", "bad_sequence.dcm"])
def test_lossless_jpeg_as_another_program_unpacks_it(name: str, shared_data: Path, tmp_path: Path) -> None:
    packed = shared_data / "dicom/pydicom_data" / name
    subprocess.run(["dcmdjpeg", str(packed), str(tmp_path / "plain.dcm")], check=True, capture_output=True)
    np.testing.assert_array_equal(pixels(packed), pixels(tmp_path / "plain.dcm"))


def packed_jpeg(array: Any, *, restart: int = 0) -> bytes:
    """Lossless JPEG, predictor 1, of (H,W) uint8 or uint16: the plainest code (T.81 Annex H), 5 bits a category."""
    bits = 8 * array.dtype.itemsize
    values = array.astype(np.int64)
    body: list[bytes] = []
    rows = restart or len(values)
    for first in range(0, len(values), rows):
        piece = values[first : first + rows]
        guess = np.empty_like(piece)
        guess[:, 1:], guess[1:, 0], guess[0, 0] = piece[:, :-1], piece[:-1, 0], 1 << bits - 1
        text = ""
        for difference in ((piece - guess + 32768) % 65536 - 32768).ravel().tolist():
            size = abs(difference).bit_length() if difference != -32768 else 16
            text += f"{size:05b}"
            if 0 < size < 16:
                text += f"{difference if difference > 0 else difference + (1 << size) - 1:0{size}b}"
        text += "1" * (-len(text) % 8)
        body.append(int(text, 2).to_bytes(len(text) // 8, "big").replace(b"\xff", b"\xff\0"))
    marks = [b"\xff" + bytes([0xD0 + k % 8]) for k in range(len(body) - 1)] + [b"\xff\xd9"]
    height, width = (n.to_bytes(2, "big") for n in array.shape)
    table = b"\xff\xc4\0\x24\0" + bytes([0, 0, 0, 0, 17, *[0] * 11]) + bytes(range(17))  # 2 + 1 + 16 + 17 bytes
    interval = b"\xff\xdd\0\4" + (restart * array.shape[1]).to_bytes(2, "big") if restart else b""
    frame = b"\xff\xc3\0\x0b" + bytes([bits]) + height + width + b"\1\1\x11\0"
    scan = b"\xff\xda\0\x08\1\1\0\1\0\0"
    entropy = b"".join(piece + mark for piece, mark in zip(body, marks, strict=True))
    whole: bytes = b"\xff\xd8" + table + frame + interval + scan + entropy
    return whole


@pytest.mark.parametrize("restart", [0, 1, 4])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_lossless_jpeg_of_our_own(dtype: str, restart: int) -> None:
    array = np.random.default_rng(1).integers(0, np.iinfo(dtype).max, (12, 9), endpoint=True).astype(dtype)
    array[0, :2] = 0, np.iinfo(dtype).max
    np.testing.assert_array_equal(jpeg_lossless.decode(packed_jpeg(array, restart=restart)), array)


def test_damaged_lossless_jpegs_are_told() -> None:
    data = packed_jpeg(np.random.default_rng(1).integers(0, 255, (12, 9)).astype(np.uint8))
    for wrong in (b"", b"\xff\xd8", data[:20], data[:60], data[:-30], data.replace(b"\xff\xc3", b"\xff\xc0")):
        with pytest.raises((BadInput, IndexError, ValueError)):
            jpeg_lossless.decode(wrong)
    with pytest.raises(BadInput, match="SOF0"):
        jpeg_lossless.decode(data.replace(b"\xff\xc3", b"\xff\xc0"))


# What the numbers mean


@pytest.mark.parametrize("vr", ["SS", "US"])
def test_padding_is_the_darkest_value_that_was_measured(vr: str, tmp_path: Path) -> None:
    array = smooth("int16") // 16
    array[0] = -2000
    tags: dict[str, Any] = {"PixelRepresentation": 1, "PixelData": array.tobytes(), "RescaleSlope": 1}
    tags["RescaleIntercept"] = -1024
    made = pydicom.dcmread(small(tmp_path / "1.dcm", **tags))
    made.add_new(0x00280120, vr, -2000 if vr == "SS" else -2000 + 65536)
    made.save_as(tmp_path / "1.dcm")
    expected = np.where(array == -2000, array[array != -2000].min(), array) - 1024
    assert (array == -2000).sum() >= 64
    np.testing.assert_array_equal(pixels(tmp_path / "1.dcm"), expected)


def test_padding_in_a_range_and_in_inverted_images(tmp_path: Path) -> None:
    array = smooth("uint16")
    tags: dict[str, Any] = {
        "PhotometricInterpretation": "MONOCHROME1",
        "PixelPaddingRangeLimit": 65535,
        "PixelPaddingValue": 65000,
    }
    path = small(tmp_path / "1.dcm", PixelData=array.tobytes(), **tags)
    top = array[array < 65000].max()
    np.testing.assert_array_equal(pixels(path), 65535 - np.minimum(array, top))


@pytest.mark.parametrize("law", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_the_window_of_the_header_is_an_option(law: str, tmp_path: Path) -> None:
    array = smooth("uint16") // 16
    tags: dict[str, Any] = {"WindowCenter": [40, 300], "WindowWidth": [400, 1500], "VOILUTFunction": law}
    path = small(tmp_path / "1.dcm", PixelData=array.tobytes(), RescaleSlope=1, RescaleIntercept=-1024, **tags)
    values = array.astype(float) - 1024
    expected = {
        "LINEAR": (values - 39.5) / 399 + 0.5,
        "LINEAR_EXACT": (values - 40) / 400 + 0.5,
        "SIGMOID": 1 / (1 + np.exp(-4 * (values - 40) / 400)),
    }[law]
    found = pixels(path, Ask(voi=True))
    np.testing.assert_array_equal(found, np.rint(np.clip(expected, 0, 1) * 255))
    assert dicom.parts(path, Ask(voi=True))[0].form.dtype == "uint8"
    np.testing.assert_array_equal(pixels(path), values)
    made = pydicom.dcmread(path)
    made.PhotometricInterpretation = "MONOCHROME1"
    made.save_as(path)
    np.testing.assert_array_equal(pixels(path, Ask(voi=True)), 255 - found)
    del made.WindowWidth
    made.save_as(path)
    with pytest.raises(BadInput, match="no window"):
        dicom.read(path, None, Ask(voi=True))


# Series


def slice_at(root: Path, k: int, z: float, **tags: Any) -> Path:
    place = {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "PixelSpacing": [0.5, 0.5], "SeriesInstanceUID": "1.2.9"}
    return small(root / f"ct/{k:02}.dcm", ImagePositionPatient=[0, 0, z], InstanceNumber=k, **{**place, **tags})


def test_a_series_is_put_in_order_by_place_and_its_faults_are_told(tmp_path: Path) -> None:
    heights = [30.0, 0.0, 2.5, 5.0, 7.5, 15.0, 17.5, 20.0, 25.0]  # 10, 12.5, 22.5 and 27.5 are not there
    for k, z in enumerate(heights):
        slice_at(tmp_path, k, z)
    scan = folder.scan(tmp_path)
    (series,) = scan.series
    assert [float(np.array(r.form.affine)[2, 3]) for r in series.order] == sorted(heights)
    assert (series.distance_mm, series.missing) == (2.5, 4)
    assert "series of 9 slices from ct/01.dcm: 4 slices are missing" in scan.notes


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"z": 12.6}, "distances between slices differ, 2.4 to 2.6 mm"),
        ({"z": 12.5, "PixelSpacing": [0.4, 0.5]}, "2 pixel spacings"),
        ({"z": 10.0}, "1 slices lie where another one lies"),
        ({"z": 12.5, "ImageOrientationPatient": [1, 0, 0, 0, 0.8, 0.6]}, "its slices are not parallel"),
    ],
)
def test_mixed_series(change: dict[str, Any], says: str, tmp_path: Path) -> None:
    for k in (0, 1, 2, 3, 4, 6, 7):
        slice_at(tmp_path, k, 2.5 * k)
    slice_at(tmp_path, 5, **{"z": 12.5, **change})
    notes = folder.scan(tmp_path).notes
    assert any(says in note for note in notes), notes


def test_other_series_and_images_without_a_place_do_not_disturb(tmp_path: Path) -> None:
    for k in range(4):
        slice_at(tmp_path / "one", k, 3.0 * k)
        slice_at(tmp_path / "two", k, 2.0 * k, SeriesInstanceUID="1.2.10")
    small(tmp_path / "none/1.dcm", SeriesInstanceUID="1.2.9")
    scan = folder.scan(tmp_path)
    assert sorted(s.distance_mm for s in scan.series) == [2.0, 3.0]
    assert not any(note.startswith("series") for note in scan.notes)
    assert series_of([("x", replace(record, form=replace(record.form, affine=None))) for record in scan.records]) == ()


# The real files


def plain(path: Path, frame: int) -> Any:
    """What pydicom alone makes of a frame: RGB where there is colour, physical units where it is grey."""
    from pydicom.pixels import apply_color_lut, apply_modality_lut, pixel_array

    made = pydicom.dcmread(path, force=True)
    array = pixel_array(made, index=frame)
    if made.PhotometricInterpretation == "PALETTE COLOR":
        lut = apply_color_lut(array, made)
        return lut >> 8 if lut.max() > 255 else lut
    if array.ndim == 3:
        return array
    if made.PhotometricInterpretation == "MONOCHROME1":
        array = (1 << made.BitsStored) - 1 - array.astype(int)
    return apply_modality_lut(array, made)


REFUSED = {  # of pydicom's own examples: why
    "has colours of more than 16 bits": (
        "SC_rgb_32bit",
        "SC_rgb_32bit_2frame",
        "SC_rgb_expb_32bit",
        "SC_rgb_expb_32bit_2frame",
    ),
    "its compressed pixel data have no end mark": ("emri_small_jpeg_2k_lossless_too_short",),
    "transfer syntax 1.2.840.10008.1.2.8.1 is not supported": ("liver_deflate", "liver_nonbyte_aligned_deflate"),
    "no installed decoder can unpack its RLE data": ("liver_rle", "liver_nonbyte_aligned_rle"),  # of single bits
}


@pytest.mark.data
def test_every_real_file_is_read_pixel_for_pixel_or_refused(shared_data: Path) -> None:
    """With the frames of all; in a worker, so that none can end the test."""
    for module in ("openjpeg", "jpeg_ls"):
        pytest.importorskip(module, reason="the extra codecs is not installed")
    files = sorted((shared_data / "dicom").rglob("*.dcm"))
    assert len(files) > 60
    found = proofs(files, Wish(Ask(frames="first"), decode=True), Limits())
    refused = {path.stem: one.message for path, one in zip(files, found, strict=True) if not isinstance(one, Proof)}
    assert set(refused) == {name for names in REFUSED.values() for name in names}
    for why, names in REFUSED.items():
        assert all(why in refused[name] for name in names), (why, refused)
    compared = 0
    for path, one in zip(files, found, strict=True):
        if not isinstance(one, Proof):
            continue
        part = one.parts[0]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                expected = plain(path, part.index or 0)
        except (RuntimeError, NotImplementedError, ValueError, AttributeError):
            continue  # pydicom alone has no decoder (lossless JPEG), or needs the header repaired
        made = pydicom.dcmread(path, stop_before_pixels=True, force=True)
        if "PixelPaddingValue" in made:
            continue  # a test of its own
        np.testing.assert_allclose(pixels(path, part=part.index), expected, rtol=1e-6, err_msg=path.name)
        compared += 1
    assert compared > 50


def test_a_record_keeps_its_series_out(tmp_path: Path) -> None:
    """The digest of a series serves the scan only: it is in no record, so in no fingerprint and no output."""
    (record,) = folder.scan(slice_at(tmp_path, 0, 0.0).parent).records
    assert isinstance(record, Record)
    assert not hasattr(record, "group")
