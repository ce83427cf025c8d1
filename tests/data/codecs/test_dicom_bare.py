"""DICOM without a preamble, with and without file meta information: read where the transfer syntax is sure, told otherwise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest

from mgdm_cli.data import codecs
from mgdm_cli.data.codecs import dicom
from mgdm_cli.data.proving import Wish, prove
from mgdm_cli.errors import BadInput
from tests.data.hostile import BIG, DEFLATED, EXPLICIT, IMPLICIT, RLE
from tests.data.hostile import dicom as small


def without_meta(path: Path) -> bytes:
    """The data set of a file alone."""
    data = path.read_bytes()
    (length,) = np.frombuffer(data[140:144], "<u4")  # (0002,0000): bytes behind it
    return data[144 + int(length) :]


def bare(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def whole(path: Path, syntax: str) -> Path:
    """A signed image with padding and windows, in any syntax."""
    array = np.random.default_rng(0).integers(-1000, 1000, (64, 64)).astype(">i2" if syntax == BIG else "<i2")
    given = pydicom.dcmread(small(path, PixelRepresentation=1, StudyInstanceUID="1.2.9"))
    made = pydicom.Dataset(given)  # one that has no encoding yet
    made.file_meta, made.preamble = given.file_meta, given.preamble
    made.PixelData, made.WindowCenter, made.WindowWidth = array.tobytes(), [40, 300], [400, 1500]
    made.add_new(0x00280120, "SS", -1000)
    if syntax == RLE:
        made.compress(RLE, generate_instance_uid=False)
    made.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    made.save_as(path, enforce_file_format=True)
    return path


def same(path: Path, other: Path) -> None:
    assert codecs.sniff(path) is dicom
    assert dicom.parts(path) == dicom.parts(other)
    np.testing.assert_array_equal(dicom.read(path).pixels, dicom.read(other).pixels)
    voi = codecs.Ask(voi=True)
    np.testing.assert_array_equal(dicom.read(path, None, voi).pixels, dicom.read(other, None, voi).pixels)


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, BIG, DEFLATED, RLE])
def test_a_file_without_a_preamble_says_its_syntax(syntax: str, tmp_path: Path) -> None:
    path = whole(tmp_path / "whole.dcm", syntax)
    same(bare(tmp_path / "bare", path.read_bytes()[132:]), path)


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT])
@pytest.mark.parametrize("colour", [False, True])
def test_a_data_set_alone_is_read_where_one_syntax_makes_sense_of_it(syntax: str, colour: bool, tmp_path: Path) -> None:
    path = whole(tmp_path / "whole.dcm", syntax)
    if colour:  # pydicom decodes these pixels
        made = pydicom.dcmread(path)
        made.SamplesPerPixel, made.PlanarConfiguration, made.PhotometricInterpretation = 3, 0, "YBR_FULL"
        made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 8, 8, 7, 0
        made.PixelData = np.random.default_rng(1).integers(0, 255, (64, 64, 3)).astype("u1").tobytes()
        made.save_as(path)
    same(bare(tmp_path / "bare", without_meta(path)), path)


def reordered(data: bytes) -> bytes:
    """Explicit: a character set behind the patient's name, where it has no place."""
    at = data.index(b"\x10\x00\x20\x00LO")
    return data[:at] + b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 100" + data[at:]


@pytest.mark.parametrize(
    ("syntax", "change"),
    [
        (EXPLICIT, lambda data: data.replace(b"\x08\x00\x16\x00UI", b"\x08\x00\x17\x00UI", 1)),
        (EXPLICIT, reordered),
        (EXPLICIT, lambda data: data[:200]),
        (IMPLICIT, lambda data: data[:200]),
        (RLE, lambda data: data),
    ],
    ids=["no class", "order", "cut", "cut implicit", "compressed"],
)
def test_what_is_not_sure_is_told_with_what_mends_it(
    syntax: str, change: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    path = bare(tmp_path / "bare", change(without_meta(whole(tmp_path / "whole.dcm", syntax))))
    with pytest.raises(BadInput, match="may be DICOM without its file header") as caught:
        prove(path, Wish(decode=True))
    assert "dcmconv" in caught.value.hint


def test_bytes_that_only_begin_alike_are_no_dicom() -> None:
    for head in (
        b"\x08\x00",
        b"\x08\x00 no such thing",
        b"\x08\x00\x05\x00\xff\xff\xff\x00",
        b"\x02\x00\x10\x00\1\0\0\0",
    ):
        assert not dicom.claims(head, Path("x"))


@pytest.mark.data
def test_a_real_data_set_alone_shows_what_pydicom_shows(shared_data: Path) -> None:
    from pydicom.pixels import apply_color_lut

    path = shared_data / "dicom/pydicom_data/OT-PAL-8-face.dcm"
    made = pydicom.dcmread(path, force=True)
    made.file_meta.TransferSyntaxUID = pydicom.uid.UID(IMPLICIT)
    colours = apply_color_lut(made.pixel_array, made)
    expected = colours >> 8 if colours.max() > 255 else colours
    np.testing.assert_array_equal(np.moveaxis(dicom.read(path).pixels, 0, -1), expected)
