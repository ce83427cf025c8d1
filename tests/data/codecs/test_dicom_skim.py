"""A skimmed header says what pydicom says, element by element; what the walk does not know for sure it leaves to it."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID

from mgdm_cli.data.codecs.base import FAULTS
from mgdm_cli.data.codecs.dicom_file import _dataset, opened
from mgdm_cli.data.codecs.dicom_skim import Short, Skim, Strange, full, value, walk
from mgdm_cli.errors import MgdmError

IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom on its own damaged examples
        yield


def file_of(path: Path, syntax: str, *, undefined: bool = True, depth: int = 3, private: int = 0) -> Path:
    """A small image with sequences inside sequences and pictures inside those."""
    made = Dataset()
    made.file_meta, made.preamble = FileMetaDataset(), b"\0" * 128
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID = UID("1.2.840.10008.5.1.4.1.1.2")
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID = UID("1.2.3.4")
    made.file_meta.TransferSyntaxUID = UID(syntax)
    made.PatientID, made.PatientName, made.SpecificCharacterSet = "P 1 ", "DOE^JANE", "ISO_IR 100"
    made.ImageType, made.Modality = ["ORIGINAL", "PRIMARY", "AXIAL"], "CT"
    made.PixelSpacing, made.RescaleSlope, made.RescaleIntercept = ["0.5", "0.25"], "1", "-1024.0"
    made.InstanceNumber, made.NumberOfFrames = "7", "1"
    made.SmallestImagePixelValue = made.PixelPaddingValue = 0
    made.add_new(0x00091010, "UN", b"abc " * (1 + private))
    inner = made
    for _ in range(depth):
        item = Dataset()
        item.PatientID, item.Rows = "another", 9
        inner.ReferencedImageSequence = [item, Dataset()]
        inner["ReferencedImageSequence"].is_undefined_length = undefined
        item.is_undefined_length_sequence_item = undefined
        inner = item
    made.Rows, made.Columns, made.SamplesPerPixel, made.PhotometricInterpretation = 2, 3, 1, "MONOCHROME2"
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 16, 12, 11, 1
    packed = syntax not in (IMPLICIT, EXPLICIT)
    made.PixelData = encapsulate([b"\0" * 12]) if packed else np.arange(6, dtype="<i2").tobytes()
    made["PixelData"].is_undefined_length = packed
    made.save_as(path, enforce_file_format=True)
    return path


def same(one: Any, other: Any) -> bool:
    """Numbers and texts, one or several; nothing is nothing, however it is said."""
    several = [[] if v in (None, "") else [v] if isinstance(v, (str, int, float)) else list(v) for v in (one, other)]
    return several[0] == several[1]


def compared(path: Path) -> int:
    """How many elements of a file a skim and pydicom agree on."""
    skim = opened(path).dataset
    assert isinstance(skim, Skim)
    dataset = full(skim)
    for element in dataset:
        if element.keyword and element.tag.group != 2:
            assert same(value(skim, element.keyword), element.value), (path.name, element.keyword)
    assert value(skim, "AcquisitionProtocolDescription", "none") == "none"
    return len(dataset)


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, "1.2.840.10008.1.2.4.90"])
@pytest.mark.parametrize("undefined", [True, False])
def test_sequences_in_sequences_are_stepped_over(syntax: str, undefined: bool, tmp_path: Path) -> None:
    path = file_of(tmp_path / "a.dcm", syntax, undefined=undefined)
    assert compared(path) > 15
    skim = opened(path).dataset
    assert (value(skim, "Rows"), value(skim, "PatientID")) == (2, "P 1")
    assert value(skim, "ReferencedImageSequence")[0].Rows == 9


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT])
def test_a_header_longer_than_the_first_read(syntax: str, tmp_path: Path) -> None:
    path = file_of(tmp_path / "a.dcm", syntax, private=60_000)
    assert compared(path) > 15
    place, whole = opened(path).place, path.read_bytes()
    assert place is not None
    assert place.at + place.head + place.length == len(whole)


def test_what_the_walk_does_not_know_is_left_to_pydicom(tmp_path: Path) -> None:
    deep = file_of(tmp_path / "deep.dcm", EXPLICIT, depth=40)
    assert isinstance(opened(deep).dataset, Dataset)
    big = b"\x00\x08\x00\x60CS\x00\x02CT"  # big endian
    lies = b"\x08\x00\x60\x00CS\x02\x00CT"  # explicit, where implicit is stated: the two letters are a length
    with pytest.raises(Short):
        walk(big, 0, False)
    with pytest.raises(Short):
        walk(lies, 0, True)
    with pytest.raises(Strange):
        walk(b"\x08\x00\x60\x00un\x02\x00CT", 0, False)


def test_every_real_file_has_the_same_elements(shared_data: Path) -> None:
    """pydicom's own examples, and the real ones where they are."""
    files = [*Path(pydicom.__file__).parent.rglob("*.dcm"), *(shared_data / "dicom").rglob("*.dcm")]
    skimmed = 0
    for path in files:
        try:
            found = opened(path)
        except (MgdmError, OSError, *FAULTS):
            continue
        with path.open("rb") as file:
            marked = file.read(132).endswith(b"DICM")  # others have tests of their own
        if isinstance(found.dataset, Skim) and marked:
            assert found.place == _placed(path)
            compared(path)
            skimmed += 1
    assert skimmed > 120


def _placed(path: Path) -> Any:
    """Where pydicom finds the pixel data."""
    _, place = _dataset(path)
    if place is None:
        return None
    return type(place)(place.tag, place.at, place.length, place.head, path.stat().st_size - place.at - place.head)


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT])
def test_damage_is_not_read_otherwise(syntax: str, tmp_path: Path) -> None:
    """Of a damaged header a skim finds the pixel data where pydicom finds them, or nothing."""
    data = file_of(tmp_path / "a.dcm", syntax).read_bytes()
    rng = np.random.default_rng(3)
    path, accepted = tmp_path / "damaged.dcm", 0
    for trial in range(400):
        damaged = bytearray(data)
        for at in rng.integers(132, len(data), size=1 + trial % 3):
            damaged[at] = rng.integers(0, 256)
        path.write_bytes(damaged)
        try:
            found = opened(path)
        except (MgdmError, OSError, *FAULTS):
            continue
        if isinstance(found.dataset, Skim) and found.place is not None:
            with contextlib.suppress(*FAULTS, OSError):  # pydicom also looks into sequences that nobody asks for
                assert found.place == _placed(path)
                accepted += 1
    assert accepted > 100
