"""DICOM in, pixel for pixel in every encoding; out, without a complaint of the validators; no patient's text through."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mgdm_cli.data import codecs
from mgdm_cli.data.codecs import Ask, dicom
from mgdm_cli.data.image import Form, Image, Mark
from mgdm_cli.errors import BadInput, UsageError
from tests.data.hostile import BIG, DEFLATED, EXPLICIT, IMPLICIT, RLE

JPEG_LS = "1.2.840.10008.1.2.4.80"
NAME = "DOE^JOHN^SECRET"


def dataset(array: Any, syntax: str = EXPLICIT, **tags: Any) -> Any:
    """A small CT-like object around (H,W), (H,W,3) or, with NumberOfFrames, (N,H,W)."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import UID

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID("1.2.840.10008.5.1.4.1.1.7")
    meta.MediaStorageSOPInstanceUID = UID("1.2.3.4")
    meta.TransferSyntaxUID = UID(syntax)
    made = Dataset()
    made.file_meta, made.preamble = meta, b"\0" * 128
    colour = array.ndim == 3 and array.shape[-1] == 3
    bits = 8 * array.dtype.itemsize
    made.SOPClassUID, made.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    made.PatientName, made.PatientID, made.Modality = NAME, "MRN-4711", "CT"
    made.Rows, made.Columns = array.shape[:2] if colour or array.ndim == 2 else array.shape[1:]
    made.SamplesPerPixel = 3 if colour else 1
    made.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        made.PlanarConfiguration = 0
    made.BitsAllocated, made.BitsStored, made.HighBit = bits, bits, bits - 1
    made.PixelRepresentation = int(array.dtype.kind == "i")
    order = ">" if syntax == BIG else "<"
    data = array.astype(array.dtype.newbyteorder(order)).tobytes()
    made.add_new(0x7FE00010, "OW" if bits > 8 else "OB", data + b"\0" * (len(data) % 2))
    for name, value in tags.items():
        setattr(made, name, value)
    return made


def written(tmp_path: Path, made: Any, name: str = "in.dcm") -> Path:
    path = tmp_path / name
    made.save_as(path, enforce_file_format=True)
    return path


def read(path: Path, part: int | None = None) -> Any:
    image = dicom.read(path, part)
    assert image.form == dicom.parts(path)[part or 0].form
    return image.pixels[0] if len(image.pixels) == 1 else np.moveaxis(image.pixels, 0, -1)


def drawn(dtype: str, shape: tuple[int, ...] = (11, 8)) -> Any:
    info = np.iinfo(dtype)
    array = np.random.default_rng(3).integers(info.min, info.max, shape, endpoint=True).astype(dtype)
    array.flat[0], array.flat[1] = info.min, info.max
    return array


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, BIG])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16"])
def test_native_encodings(syntax: str, dtype: str, tmp_path: Path) -> None:
    array = drawn(dtype)
    path = written(tmp_path, dataset(array, syntax))
    np.testing.assert_array_equal(read(path), array)
    assert dicom.parts(path)[0].form.dtype == dtype


@pytest.mark.parametrize("syntax", [RLE, JPEG_LS])
def test_compressed_encodings(syntax: str, tmp_path: Path) -> None:
    if syntax == JPEG_LS:
        pytest.importorskip("jpeg_ls")
    array = drawn("uint16")
    made = dataset(array)
    made.compress(syntax, generate_instance_uid=False)
    np.testing.assert_array_equal(read(written(tmp_path, made)), array)


def test_deflated_is_read_and_a_bomb_is_not(tmp_path: Path) -> None:
    array = drawn("int16")
    path = written(tmp_path, dataset(array, DEFLATED))
    np.testing.assert_array_equal(read(path), array)
    path = written(tmp_path, dataset(np.zeros((400, 400), dtype=np.uint16), DEFLATED))
    with pytest.raises(BadInput, match="unpack"):
        dicom.parts(path, Ask(max_bytes=100_000))


def test_monochrome1_is_the_inverted_image(tmp_path: Path) -> None:
    stored = np.random.default_rng(0).integers(0, 4096, (9, 6)).astype(np.uint16)
    tags: dict[str, Any] = {"PhotometricInterpretation": "MONOCHROME1", "BitsStored": 12, "HighBit": 11}
    np.testing.assert_array_equal(read(written(tmp_path, dataset(stored, **tags))), 4095 - stored)
    signed = drawn("int16")
    tags = {"PhotometricInterpretation": "MONOCHROME1"}
    np.testing.assert_array_equal(read(written(tmp_path, dataset(signed, **tags))), -1 - signed.astype(int))


@pytest.mark.parametrize("bits", [8, 16])
def test_monochrome1_is_looked_up_before_it_is_inverted(bits: int, tmp_path: Path) -> None:
    """A modality table takes the values as they are stored (PS3.3 C.11.1)."""
    from pydicom.dataset import Dataset

    stored = np.random.default_rng(0).integers(0, 256, (9, 6)).astype(np.uint16)
    table = np.rint(np.linspace(0, 1, 256) ** 2 * ((1 << bits) - 1)).astype(np.uint16)
    item = Dataset()
    item.add_new(0x00283002, "US", [256, 0, bits])
    item.add_new(0x00283006, "US", table.tolist())
    made = dataset(stored, PhotometricInterpretation="MONOCHROME1", BitsStored=12, HighBit=11)
    made.ModalityLUTSequence = [item]
    np.testing.assert_array_equal(read(written(tmp_path, made)), (1 << bits) - 1 - table[stored].astype(int))


@pytest.mark.parametrize(
    ("slope", "intercept", "dtype"), [(1, -1024, "int16"), (2, 0, "uint16"), (0.25, 3.5, "float32"), (1, 7, "uint16")]
)
def test_rescale_gives_physical_units(slope: float, intercept: float, dtype: str, tmp_path: Path) -> None:
    stored = np.random.default_rng(0).integers(0, 4096, (9, 6)).astype(np.uint16)
    made = dataset(stored, RescaleSlope=slope, RescaleIntercept=intercept, BitsStored=12, HighBit=11)
    path = written(tmp_path, made)
    np.testing.assert_allclose(read(path), stored.astype(float) * slope + intercept)
    assert dicom.parts(path)[0].form.dtype == dtype


def test_palette_and_ybr_become_rgb(tmp_path: Path) -> None:
    index = drawn("uint8")
    table = np.random.default_rng(5).integers(0, 256, (3, 256)).astype(np.uint16)
    made = dataset(index, PhotometricInterpretation="PALETTE COLOR")
    for colour, entries in zip(("Red", "Green", "Blue"), table, strict=True):
        setattr(made, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, 16])
        setattr(made, f"{colour}PaletteColorLookupTableData", (entries * 257).astype("<u2").tobytes())
    np.testing.assert_array_equal(read(written(tmp_path, made)), np.moveaxis(table[:, index], 0, -1))

    ybr = np.full((4, 6, 3), (81, 90, 240), dtype=np.uint8)  # red, ITU-R BT.601
    colours = read(written(tmp_path, dataset(ybr, PhotometricInterpretation="YBR_FULL")))
    np.testing.assert_allclose(
        colours[0, 0], (81 + 1.402 * 112, 81 - 0.344136 * -38 - 0.714136 * 112, 81 + 1.772 * -38), atol=1
    )


def test_planar_colour_and_frames(tmp_path: Path) -> None:
    colour = drawn("uint8", (5, 6, 3))
    made = dataset(colour, PlanarConfiguration=1)
    made.PixelData = np.moveaxis(colour, -1, 0).tobytes()
    np.testing.assert_array_equal(read(written(tmp_path, made)), colour)

    frames = drawn("uint16", (3, 6, 4))
    path = written(tmp_path, dataset(frames, NumberOfFrames=3))
    assert [part.index for part in dicom.parts(path)] == [0, 1, 2]
    np.testing.assert_array_equal(read(path, 2), frames[2])


def test_geometry_is_that_of_the_patient(tmp_path: Path) -> None:
    array = drawn("int16", (4, 6))
    place: dict[str, Any] = {"ImagePositionPatient": [10, 20, 30], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
    made = dataset(array, PixelSpacing=[0.5, 0.25], SliceThickness=3, **place)
    form = dicom.parts(written(tmp_path, made))[0].form
    assert form.spacing_mm == (0.5, 0.25)
    assert form.affine is not None
    # LPS (10, 20, 30) at column 0, row 0; column 4, row 2 lies at LPS (11, 21, 30)
    np.testing.assert_allclose(np.array(form.affine) @ [0, 0, 0, 1], [-10, -20, 30, 1])
    np.testing.assert_allclose(np.array(form.affine) @ [4, 2, 0, 1], [-11, -21, 30, 1])
    np.testing.assert_allclose(np.array(form.affine) @ [0, 0, 1, 1], [-10, -20, 33, 1])


@pytest.mark.parametrize(
    ("tags", "shared", "thickness"),
    [
        ({"SliceThickness": 3, "SpacingBetweenSlices": 4}, {}, 4),
        ({"SliceThickness": 3, "SpacingBetweenSlices": -4}, {}, 4),
        ({"SliceThickness": 3, "SpacingBetweenSlices": 0}, {}, 3),
        ({}, {"SliceThickness": 2.5}, 2.5),
        ({"SliceThickness": 3}, {"SliceThickness": 2.5, "SpacingBetweenSlices": 5}, 5),
        ({}, {}, 1),
    ],
)
def test_how_far_slices_lie_apart(
    tags: dict[str, Any], shared: dict[str, Any], thickness: float, tmp_path: Path
) -> None:
    """In the header, or in the functional groups of an enhanced object."""
    from pydicom.dataset import Dataset

    place: dict[str, Any] = {"ImagePositionPatient": [10, 20, 30], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
    made = dataset(drawn("int16", (4, 6)), PixelSpacing=[0.5, 0.25], **place, **tags)
    measures, groups = Dataset(), Dataset()
    measures.PixelSpacing = [0.5, 0.25]
    for name, number in shared.items():
        setattr(measures, name, number)
    groups.PixelMeasuresSequence = [measures]
    made.SharedFunctionalGroupsSequence = [groups]
    affine = np.array(dicom.parts(written(tmp_path, made))[0].form.affine)
    assert np.linalg.norm(affine[:3, 2]) == thickness


@pytest.mark.parametrize(
    ("tags", "why"),
    [
        ({"Rows": 65535, "Columns": 65535}, r"header says 65535x65535 .*holds 176 bytes"),
        ({"Rows": 500}, "header says 500x8"),
        ({"Rows": 0}, "no image size"),
        ({"BitsAllocated": 12}, "12 bits"),
        ({"BitsStored": 12, "HighBit": 15}, "not stored in the low bits"),
        ({"RescaleSlope": 0, "RescaleIntercept": 0}, "rescale"),
    ],
)
def test_a_header_that_lies_is_caught_before_decoding(tags: dict[str, Any], why: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=why):
        dicom.parts(written(tmp_path, dataset(drawn("uint16"), **tags)))


def test_no_pixels_no_size_no_syntax(tmp_path: Path) -> None:
    for name, why in (("PixelData", "no pixel data"), ("Rows", "no image size")):
        made = dataset(drawn("uint16"))
        delattr(made, name)
        with pytest.raises(BadInput, match=why):
            dicom.parts(written(tmp_path, made))
    path = written(tmp_path, dataset(drawn("uint16")))
    path.write_bytes(path.read_bytes().replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.9.9\0"))
    with pytest.raises(BadInput, match="transfer syntax"):
        dicom.parts(path)


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, DEFLATED])
def test_a_long_file_header_is_read(syntax: str, tmp_path: Path) -> None:
    array = drawn("int16")
    made = dataset(array, syntax)
    made.file_meta.PrivateInformationCreatorUID = "1.2.3"
    made.file_meta.PrivateInformation = b"x" * 40_000
    path = written(tmp_path, made)
    np.testing.assert_array_equal(read(path), array)
    path.write_bytes(path.read_bytes()[:30_000])
    with pytest.raises(BadInput, match="ends inside its file header"):
        dicom.parts(path)


@pytest.mark.parametrize("start", [b"MZ\x90", b"\x7fELF", b"#!/bin/sh\n", b"\xfe\xed\xfa\xcf"])
def test_a_program_in_the_preamble_is_refused(start: bytes, tmp_path: Path) -> None:
    path = written(tmp_path, dataset(drawn("uint8")))
    path.write_bytes(start + path.read_bytes()[len(start) :])
    with pytest.raises(BadInput, match="program header"):
        dicom.parts(path)


def test_deep_nesting_is_an_error_not_a_crash(tmp_path: Path) -> None:
    from pydicom.dataset import Dataset

    inner = Dataset()
    for _ in range(100):
        outer = Dataset()
        outer.add_new(0x00081140, "SQ", [inner])
        inner = outer
    made = dataset(drawn("uint8"))
    made.add_new(0x00081140, "SQ", [inner])
    path = written(tmp_path, made)
    dicom.parts(path)  # read or refused, both are right


def test_patients_are_digests_and_terms_come_from_lists(tmp_path: Path) -> None:
    made = dataset(drawn("uint8"), BodyPartExamined="DOE JOHN CHEST", BurnedInAnnotation="YES")
    made.Modality = "DOE"
    (part,) = dicom.parts(written(tmp_path, made))
    assert part.patient is not None
    assert "4711" not in part.patient
    assert (part.form.modality, part.form.body_part) == (None, None)
    assert part.flags == {"burned-in"}


def test_the_label_comes_from_a_coded_attribute_only(tmp_path: Path) -> None:
    path = written(tmp_path, dataset(drawn("uint8"), PatientSex="F", BodyPartExamined="CHEST"))
    assert dicom.parts(path, Ask(label_tag="BodyPartExamined"))[0].label == "CHEST"
    assert dicom.parts(path, Ask(label_tag="0010,0040"))[0].label == "F"
    assert dicom.parts(path, Ask(label_tag="ViewPosition"))[0].label is None
    for name in (
        "PatientName",
        "PatientID",
        "0010,0010",
        "StudyDate",
        "AccessionNumber",
        "StudyInstanceUID",
        "Nonsense",
    ):
        with pytest.raises(UsageError, match="label-tag"):
            dicom.parts(path, Ask(label_tag=name))


# What is written


FORMS = [
    Form("dicom", dtype, channels, 16, 14, spacing, None, modality, part)
    for dtype, channels in (("uint8", 1), ("uint16", 1), ("int16", 1), ("float32", 1), ("uint8", 3))
    for spacing, modality, part in (((0.7123456789, 0.71), "CT", "CHEST"), (None, "OP", "EYE"), (None, None, None))
]
NEWER_THAN_THE_VALIDATOR = {  # (0008,001C) is of DICOM 2024b
    "Warning - </(0008,001c)> - Unrecognized tag - assuming explicit value representation OK [CS]",
    "Error - </(0008,001c)> - Attribute with an even group number is not a recognized standard attribute",
    "Warning - </(0008,001c)> - Attribute is not present in standard DICOM IOD",
}


@pytest.mark.external("dciodvfy")
@pytest.mark.parametrize("form", FORMS, ids=lambda f: f"{f.dtype}x{f.channels}-{f.modality}-{f.body_part}")
def test_dciodvfy_has_nothing_to_say(form: Form, tmp_path: Path, draw: Callable[[Form], Image], mark: Mark) -> None:
    path = tmp_path / "out.dcm"
    path.write_bytes(codecs.encode(draw(form), mark))
    told = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True, text=True, check=False).stderr
    said = {line.strip() for line in told.splitlines() if re.match(r"\s*(Error|Warning)", line)}
    assert said == NEWER_THAN_THE_VALIDATOR, told


@pytest.mark.external("dcmdump")
def test_dcmdump_reads_the_marks(tmp_path: Path, draw: Callable[[Form], Image], mark: Mark) -> None:
    path = tmp_path / "out.dcm"
    path.write_bytes(codecs.encode(draw(FORMS[3]), mark))
    done = subprocess.run(["dcmdump", "+L", str(path)], capture_output=True, text=True, check=True)
    for said in (
        "(0008,001c) CS [YES]",
        "DERIVED\\SECONDARY\\\\SYNTHETIC",
        "[SYN]",
        "[109100]",
        "[DCM]",
        "SYNTHETIC^MGDM",
    ):
        assert said in done.stdout
    assert "W: " not in done.stderr
    assert "E: " not in done.stderr


def test_uids_are_of_the_run_and_index_and_dates_of_the_model(draw: Callable[[Form], Image], mark: Mark) -> None:
    import pydicom

    made = pydicom.dcmread(BytesIO(codecs.encode(draw(FORMS[0]), mark)))
    uids = [made.SOPInstanceUID, made.SeriesInstanceUID, made.StudyInstanceUID]
    assert len(set(uids)) == 3
    for uid in uids:
        number = int(uid.removeprefix("2.25."))
        assert number >> 76 & 0xF == 8  # UUID version 8
        assert number >> 62 & 0b11 == 0b10  # RFC 9562 variant
        assert len(uid) <= 64
    assert made.StudyDate == made.ContentDate == mark.date
    assert made.PatientID == "SYN-abababab-000012"
    assert made.preamble == b"\0" * 128


def test_colour_of_more_than_16_bits_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="more than 16 bits"):
        dicom.parts(written(tmp_path, dataset(drawn("uint32", (4, 4, 3)))))


@pytest.mark.data
def test_real_files_of_many_encodings(shared_data: Path) -> None:
    """Every file is read, or refused with a reason; the same picture stored in different ways is the same."""
    import pydicom

    folder = shared_data / "dicom" / "pydicom_data"
    same = [
        ("SC_rgb.dcm", "SC_rgb_expb.dcm"),
        ("emri_small.dcm", "emri_small_big_endian.dcm"),
        ("emri_small.dcm", "emri_small_RLE.dcm"),
        ("emri_small.dcm", "emri_small_jpeg_2k_lossless.dcm"),
        ("OBXXXX1A.dcm", "OBXXXX1A_rle.dcm"),
        ("liver.dcm", "liver_expb.dcm"),
    ]
    for left, right in same:
        if (folder / left).exists() and (folder / right).exists():
            np.testing.assert_array_equal(read(folder / left), read(folder / right))
    plain = folder / "693_UNCR.dcm"
    made = pydicom.dcmread(plain)
    padding = made.pixel_array == made.PixelPaddingValue
    assert padding.any()
    units = made.pixel_array * float(made.RescaleSlope) + float(made.RescaleIntercept)
    np.testing.assert_array_equal(read(plain), np.where(padding, units[~padding].min(), units))
