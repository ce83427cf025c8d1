"""Nothing that names a patient comes through: strings planted wherever a file can hold one are in no byte of the output."""

from __future__ import annotations

import base64
import gzip
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mgdm_cli.commands import augment
from mgdm_cli.commands.reading import Source
from mgdm_cli.commands.wanted import Wanted
from mgdm_cli.data.folder import scan
from tests.tiny import tiny_run, tiny_set

PLANTED = "ZyxwvutHemlockRq"  # in every string that is planted; its spellings are searched for
NAMED = "QpomnlkGanymede"  # in every file name
NAMING = ("combined.csv", ".mgdm/inputs.jsonl")  # list the user's own files for training


def spellings(text: str) -> set[bytes]:
    """The bytes in which a file may hold a text: other case and width, base64 at any offset, hex digits."""
    found: set[bytes] = set()
    for word in (text, text.upper(), text.lower()):
        found |= {word.encode(), word.encode("utf-16-le"), word.encode("utf-16-be")}
        found |= {word.encode().hex().encode(), word.encode().hex().upper().encode()}
        for offset in range(3):  # drop what depends on the neighbours
            found.add(base64.b64encode(b"\0" * offset + word.encode())[4 if offset else 0 : -4])
    return found


def layers(data: bytes) -> Iterator[bytes]:
    """A file's bytes, and what is packed inside: gzip, compressed PNG text, pictures inside a page."""
    yield data
    if data.startswith(b"\x1f\x8b"):
        yield gzip.decompress(data)
    for text in re.findall(rb"base64,([A-Za-z0-9+/=]{64,})", data):
        yield from layers(base64.b64decode(text))
    if data.startswith(b"\x89PNG"):
        at = 8
        while at + 12 <= len(data):
            (length,) = struct.unpack_from(">I", data, at)
            body = data[at + 8 : at + 8 + length]
            if data[at + 4 : at + 8] in (b"zTXt", b"iTXt"):
                for start in range(len(body)):
                    try:
                        yield zlib.decompress(body[start:])
                    except zlib.error:
                        continue
            at += length + 12


def holding(root: Path, text: str) -> set[str]:
    """The files below `root` whose bytes or names hold `text` in any spelling."""
    words = spellings(text)
    return {
        path.relative_to(root).as_posix()
        for path in root.rglob("*")
        if path.is_file()
        and (text in path.name or any(word in layer for layer in layers(path.read_bytes()) for word in words))
    }


# Where a string can stand


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(path: Path) -> None:
    """Text in every kind of chunk, EXIF, and behind the end."""
    data, word = path.read_bytes(), PLANTED.encode()
    extra = [
        chunk(b"tEXt", b"Patient\0" + word),
        chunk(b"zTXt", b"Comment\0\0" + zlib.compress(word)),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<x>" + word + b"</x>"),
        chunk(b"iTXt", b"Author\0\1\0\0\0" + zlib.compress(word)),
        chunk(b"eXIf", exif()),
        chunk(b"prVt", word),
    ]
    path.write_bytes(data[:33] + b"".join(extra) + data[33:])


def exif() -> bytes:
    from PIL import Image as Pillow

    tags = Pillow.Exif()
    tags[0x010E] = tags[0x013B] = tags[0x8298] = PLANTED  # description, artist, copyright
    return tags.tobytes().removeprefix(b"Exif\0\0")


def jpeg(path: Path) -> None:
    """A comment, EXIF, XMP and an application segment."""
    data = path.read_bytes()
    word = PLANTED.encode()
    segments = [
        (0xE1, b"Exif\0\0" + exif()),
        (0xE1, b"http://ns.adobe.com/xap/1.0/\0" + word),
        (0xFE, word),
        (0xED, word),
    ]
    made = b"".join(b"\xff" + bytes([kind]) + struct.pack(">H", len(body) + 2) + body for kind, body in segments)
    path.write_bytes(data[:2] + made + data[2:])


def tiff(path: Path) -> None:
    """Description, artist, host, software, XMP, a private tag; in place of the PNG."""
    import tifffile

    from mgdm_cli.data.codecs import raster

    pixels = raster.read(path).pixels.astype("uint8")
    word = PLANTED.encode()
    tags = [
        (315, 2, 0, PLANTED, True),
        (316, 2, 0, PLANTED, True),
        (700, 1, len(word), word, True),
        (65000, 2, 0, PLANTED, True),
    ]
    tifffile.imwrite(
        path.with_suffix(".tif"), pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0), description=PLANTED,
        software=PLANTED, metadata=None, extratags=tags, photometric="minisblack" if len(pixels) == 1 else "rgb",
    )  # fmt: skip
    path.unlink()


def nifti(path: Path) -> None:
    """Every text field of the header, an extension, the name inside the gzip, the JSON beside it."""
    import nibabel

    picture = nibabel.load(path)
    for name in ("descrip", "aux_file", "intent_name", "db_name"):
        picture.header[name] = PLANTED.encode()
    picture.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", PLANTED.encode()))
    data = picture.to_bytes()
    with path.open("wb") as raw, gzip.GzipFile(PLANTED, "wb", fileobj=raw) as packed:
        packed.write(data)
    path.with_name(path.name.replace(".nii.gz", ".json")).write_text(f'{{"PatientName": "{PLANTED}"}}')


def dicom(path: Path) -> None:
    """Names, numbers, descriptions, private and nested elements, the preamble, UIDs. Dates are the next test's."""
    import pydicom
    from pydicom.dataset import Dataset

    made = pydicom.dcmread(path)
    for name in (
        "PatientName", "OtherPatientNames", "PatientComments", "PatientAddress", "AccessionNumber", "InstitutionName",
        "StudyDescription", "SeriesDescription", "ProtocolName", "ReferringPhysicianName", "OperatorsName", "StationName",
        "ImageComments", "DerivationDescription", "Manufacturer", "ManufacturerModelName", "DeviceSerialNumber",
        "SoftwareVersions", "BodyPartExamined", "ViewPosition", "ImageType", "RequestingPhysician", "StudyID",
    ):  # fmt: skip
        setattr(made, name, PLANTED.upper() if name in ("BodyPartExamined", "ViewPosition", "ImageType") else PLANTED)
    made.PatientID = f"{PLANTED}-{made.PatientID}"
    made.PatientOrientation = [PLANTED.upper(), "F"]
    item = Dataset()
    item.CodeMeaning = PLANTED
    made.RequestAttributesSequence = [item]
    block = made.private_block(0x0011, PLANTED, create=True)
    block.add_new(0x01, "LO", PLANTED)
    block.add_new(0x02, "OB", PLANTED.encode() + b"\0")
    made.preamble = b"II*\0" + PLANTED.encode().ljust(124, b"\0")
    made.save_as(path, enforce_file_format=True)


PLANTS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "png": ("png8", png),
    "jpeg": ("jpeg", jpeg),
    "tiff": ("png8", tiff),
    "nifti": ("nifti", nifti),
    "dicom": ("dicom", dicom),
}


def planted(root: Path, kind: str) -> Source:
    """A tiny set whose every file holds the strings, under names that hold another."""
    form, plant = PLANTS[kind]
    source = tiny_set(root, form=form)
    for path in [path for path in sorted(root.rglob("*")) if path.is_file()]:
        stem, dot, suffix = path.name.partition(".")
        path = path.rename(path.with_name(f"{stem}-{NAMED}{dot}{suffix}"))
        plant(path)
    return source


@pytest.mark.parametrize("kind", PLANTS)
def test_no_planted_string_is_in_a_run_or_in_its_output(kind: str, tmp_path: Path, any_guide: None) -> None:
    source = planted(tmp_path / "set", kind)
    assert len(holding(tmp_path / "set", PLANTED)) >= 68, "the search sees what was planted"
    records = scan(source.data, patient_regex=source.patient_regex).records
    assert len(records) == 68
    assert all(PLANTED.casefold() not in repr(record.form).casefold() for record in records)
    tiny_run(tmp_path / "model", source, seen=16)
    wanted = Wanted(8, guidance="cfg", steps=3, block=4, filters=False)
    result = augment.run(source, wanted, out=tmp_path / "out", model=tmp_path / "model", device="cpu")
    assert result.exit_code == 0
    for made in (tmp_path / "model", tmp_path / "out"):
        assert holding(made, PLANTED) == set()
        assert holding(made, NAMED) - set(NAMING) == set()
    assert PLANTED.casefold() not in repr(result).casefold()


@pytest.mark.parametrize(
    "hide",
    [
        lambda word: word,
        lambda word: gzip.compress(b"x" + word),
        lambda word: b"<img src='data:image/png;base64," + base64.b64encode(b"\0" * 70 + word) + b"'>",
        lambda word: word.decode().encode("utf-16-le"),
        lambda word: b"\x89PNG\r\n\x1a\n" + chunk(b"zTXt", b"k\0\0" + zlib.compress(word)),
        lambda word: b"x" + base64.b64encode(b"ab" + word + b"yz"),
        lambda word: word.hex().encode(),
    ],
)
def test_the_search_itself_finds_what_is_hidden(hide: Callable[[bytes], bytes], tmp_path: Path) -> None:
    (tmp_path / "clean").write_bytes(b"nothing here")
    (tmp_path / "dirty").write_bytes(hide(PLANTED.encode()))
    assert holding(tmp_path, PLANTED) == {"dirty"}


def test_dates_and_numbers_of_a_header_are_not_copied(tmp_path: Path) -> None:
    """What is no text: dates, times, ages, UIDs and the place of the scanner's table."""
    import numpy as np
    import pydicom

    from mgdm_cli.data import codecs
    from mgdm_cli.data.image import Form, Image, Mark

    affine = ((-0.5, 0.0, 0.0, 123.25), (0.0, -0.75, 0.0, 321.5), (0.0, 0.0, 2.5, -777.125), (0.0, 0.0, 0.0, 1.0))
    form = Form("dicom", "int16", 1, 16, 14, (0.75, 0.5), affine, "CT", "CHEST", None, "CT")
    mark = Mark("a-000001", "a", "e" * 64, 1, "d" * 64, "0.1.0", "20260102")
    pixels = np.zeros((1, 16, 14), dtype=np.float32)
    path = tmp_path / "in.dcm"
    path.write_bytes(codecs.encode(Image(pixels, form), mark))
    made = pydicom.dcmread(path)
    made.StudyDate = made.ContentDate = made.PatientBirthDate = made.AcquisitionDate = "19570203"
    made.StudyTime = made.ContentTime = "112233"
    made.PatientAge, made.PatientWeight, made.PatientSex = "077Y", "71.5", "F"
    made.StudyInstanceUID = made.FrameOfReferenceUID = "1.2.826.0.1.3680043.99.4242"
    made.ImagePositionPatient = [123.25, 321.5, -777.125]
    made.save_as(path, enforce_file_format=True)
    read = codecs.dicom.read(path)
    assert read.form.affine is not None
    assert read.form.affine[2][3] == -777.125
    out = codecs.encode(read, mark)
    for word in (b"19570203", b"112233", b"077Y", b"71.5", b"99.4242", b"123.25", b"321.5", b"777.125"):
        assert word in path.read_bytes()
        assert word not in out
