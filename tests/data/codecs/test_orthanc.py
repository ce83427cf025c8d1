"""A real PACS takes our objects by C-STORE and STOW-RS and gives them back: pixels equal, the mark in the metadata."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from email.message import Message
from email.parser import BytesHeaderParser
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import HTTPError, URLError

import numpy as np
import pydicom
import pytest

from mgdm_cli.data import codecs
from mgdm_cli.data.codecs.dicom_out import dicom_series
from mgdm_cli.data.image import Form, Image, Mark

pytestmark = pytest.mark.external("Orthanc", "storescu")
PLUGINS = ("/usr/share/orthanc/plugins", "/usr/lib/orthanc/plugins", "/usr/local/share/orthanc/plugins")
AXIAL = ((-0.5, 0.0, 0.0, 40.0), (0.0, -0.75, 0.0, 30.0), (0.0, 0.0, 2.5, -7.0), (0.0, 0.0, 0.0, 1.0))
FORMS = {
    "grey": Form("dicom", "uint8", 1, 16, 14, modality="OT", body_part="CHEST"),
    "colour": Form("dicom", "uint8", 3, 16, 14, modality="OP", body_part="EYE"),
    "float": Form("dicom", "float32", 1, 16, 14, modality="OT", body_part="CHEST"),
    "CR": Form("dicom", "uint16", 1, 16, 14, (0.2, 0.2), None, "CR", "CHEST", None, "CR"),
    "DX": Form("dicom", "uint16", 1, 16, 14, (0.2, 0.2), None, "DX", "CHEST", ("L", "F"), "DX"),
    "CT": Form("dicom", "int16", 1, 16, 14, (0.75, 0.5), AXIAL, "CT", "CHEST", None, "CT"),
    "MR": Form("dicom", "uint16", 1, 16, 14, (0.75, 0.5), AXIAL, "MR", "BRAIN", None, "MR"),
}


class Pacs(NamedTuple):
    """A running server: its DICOM port and the address of its web side."""

    port: int
    web: str


def free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1]), int(two.getsockname()[1])


def asked(url: str, data: bytes | None = None, **headers: str) -> tuple[bytes, Message]:
    """Body and headers of an answer; header names are given with _ for -."""
    request = urllib.request.Request(url, data, {name.replace("_", "-"): value for name, value in headers.items()})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.read(), answer.headers


@pytest.fixture(scope="module")
def pacs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pacs]:
    plugin = next((p for folder in PLUGINS for p in Path(folder).glob("*DicomWeb*.so*")), None)
    if plugin is None:
        pytest.skip("Orthanc is there, its DICOMweb plugin is not (Debian: orthanc-dicomweb)")
    home = tmp_path_factory.mktemp("orthanc")
    dicom, http = free_ports()
    settings = {
        "Name": "test", "StorageDirectory": str(home / "db"), "IndexDirectory": str(home / "db"),
        "Plugins": [str(plugin)], "DicomPort": dicom, "HttpPort": http, "RemoteAccessAllowed": False,
        "DicomAet": "MGDMTEST", "DicomCheckCalledAet": False, "DicomAlwaysAllowStore": True, "DicomWeb": {"Enable": True},
        "Dictionary": {"0008,001c": ["CS", "SyntheticData", 1, 1, ""]},  # Debian's is older than DICOM 2024b
    }  # fmt: skip
    (home / "orthanc.json").write_text(json.dumps(settings))
    log = (home / "log").open("wb")
    server = subprocess.Popen([str(shutil.which("Orthanc")), str(home / "orthanc.json")], stdout=log, stderr=log)
    try:
        _wait(f"http://127.0.0.1:{http}/system", server, home / "log")
        yield Pacs(dicom, f"http://127.0.0.1:{http}")
    finally:
        server.terminate()
        server.wait(30)
        log.close()


def _wait(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        try:
            asked(url)
        except (URLError, ConnectionError):
            if server.poll() is not None:
                break
            time.sleep(0.1)
        else:
            return
    pytest.fail("Orthanc does not answer: " + log.read_text(errors="replace")[-2000:])


def told(pacs: Pacs, made: Any) -> Any:
    """The metadata of an instance, as WADO-RS gives them (PS3.18 10.4)."""
    study, series, instance = made.StudyInstanceUID, made.SeriesInstanceUID, made.SOPInstanceUID
    url = f"{pacs.web}/dicom-web/studies/{study}/series/{series}/instances/{instance}/metadata"
    (found,) = json.loads(asked(url, Accept="application/dicom+json")[0])
    return found


def fetched(pacs: Pacs, made: Any) -> bytes:
    """The instance itself, by WADO-RS: the one part of a multipart answer."""
    study, series, instance = made.StudyInstanceUID, made.SeriesInstanceUID, made.SOPInstanceUID
    url = f"{pacs.web}/dicom-web/studies/{study}/series/{series}/instances/{instance}"
    body, headers = asked(url, Accept='multipart/related; type="application/dicom"; transfer-syntax=*')
    edge = b"--" + str(headers.get_param("boundary")).strip('"').encode()
    (part,) = body.split(b"\r\n" + edge if not body.startswith(edge) else edge)[1:2]
    head, _, data = part.lstrip(b"\r\n").partition(b"\r\n\r\n")
    assert BytesHeaderParser().parsebytes(head).get_content_type() == "application/dicom"
    return data.removesuffix(b"\r\n")


def check(pacs: Pacs, sent: bytes, tmp_path: Path) -> None:
    """The instance that the server holds has the pixels and the marks of `sent`."""
    made = pydicom.dcmread(BytesIO(sent))
    path = tmp_path / "back.dcm"
    path.write_bytes(fetched(pacs, made))
    (tmp_path / "sent.dcm").write_bytes(sent)
    assert pydicom.dcmread(path).PixelData == made.PixelData
    np.testing.assert_array_equal(codecs.dicom.read(path).pixels, codecs.dicom.read(tmp_path / "sent.dcm").pixels)
    (part,) = codecs.dicom.parts(path)
    assert part.flags == {"synthetic"}
    words = told(pacs, made)
    assert words["0008001C"] == {"vr": "CS", "Value": ["YES"]}
    assert words["00080008"]["Value"][0] == "DERIVED"
    (maker,) = words["0018A001"]["Value"]
    assert maker["0040A170"]["Value"][0]["00080100"]["Value"] == ["109100"]

    wanted = "&".join(f"includefield={tag}" for tag in ("0008001C", "00080008"))
    url = f"{pacs.web}/dicom-web/instances?SOPInstanceUID={made.SOPInstanceUID}&{wanted}"
    (found,) = json.loads(asked(url, Accept="application/dicom+json")[0])  # QIDO-RS, PS3.18 10.6
    assert found["0008001C"]["Value"] == ["YES"], sorted(found)
    assert [kind or "" for kind in found["00080008"]["Value"]] == list(made.ImageType)


def stow(pacs: Pacs, files: list[bytes]) -> Any:
    edge = "mgdm-edge"
    parts = [f"--{edge}\r\nContent-Type: application/dicom\r\n\r\n".encode() + data + b"\r\n" for data in files]
    kind = f'multipart/related; type="application/dicom"; boundary={edge}'
    body = b"".join(parts) + f"--{edge}--\r\n".encode()
    return json.loads(
        asked(f"{pacs.web}/dicom-web/studies", body, Content_Type=kind, Accept="application/dicom+json")[0]
    )


@pytest.mark.parametrize("name", FORMS)
def test_by_c_store(name: str, pacs: Pacs, tmp_path: Path, draw: Callable[[Form], Image], mark: Mark) -> None:
    sent = codecs.encode(draw(FORMS[name]), replace(mark, run="c0" * 32, index=list(FORMS).index(name)))
    path = tmp_path / "out.dcm"
    path.write_bytes(sent)
    words = ["storescu", "-v", "-aec", "MGDMTEST", "127.0.0.1", str(pacs.port), str(path)]
    run = subprocess.run(words, capture_output=True, text=True, check=True)
    assert "Received Store Response (Success)" in run.stdout + run.stderr
    check(pacs, sent, tmp_path)


@pytest.mark.parametrize("name", FORMS)
def test_by_stow_rs(name: str, pacs: Pacs, tmp_path: Path, draw: Callable[[Form], Image], mark: Mark) -> None:
    sent = codecs.encode(draw(FORMS[name]), replace(mark, run="57" * 32, index=list(FORMS).index(name)))
    answer = stow(pacs, [sent])
    assert not answer.get("00081198", {}).get("Value"), "nothing failed"
    assert len(answer["00081199"]["Value"]) == 1
    check(pacs, sent, tmp_path)


@pytest.mark.parametrize("kind", ["CT", "MR"])
def test_a_series_is_one_series_there(
    kind: str, pacs: Pacs, tmp_path: Path, draw: Callable[[Form], Image], mark: Mark
) -> None:
    images = []
    for k in range(4):
        place = np.array(AXIAL)
        place[2, 3] += 2.5 * k
        affine = tuple(tuple(float(v) for v in row) for row in place)
        images.append(draw(replace(FORMS[kind], affine=affine)))
    files = list(dicom_series(images, replace(mark, run="5e" * 32, index=ord(kind[0]))))
    assert len(stow(pacs, files)["00081199"]["Value"]) == 4
    made = pydicom.dcmread(BytesIO(files[0]))
    url = f"{pacs.web}/dicom-web/studies/{made.StudyInstanceUID}/series"
    (series,) = json.loads(asked(url, Accept="application/dicom+json")[0])  # QIDO-RS
    assert series["00201209"]["Value"] == [4]
    assert series["00080060"]["Value"] == [kind]
    for data in files:
        check(pacs, data, tmp_path)


def test_it_would_refuse_a_file_that_is_cut(pacs: Pacs, draw: Callable[[Form], Image], mark: Mark) -> None:
    sent = codecs.encode(draw(FORMS["CT"]), replace(mark, run="bad0" * 16))
    with pytest.raises(HTTPError) as caught:
        stow(pacs, [sent[: len(sent) // 2]])
    caught.value.close()
    with pytest.raises(HTTPError) as caught:
        told(pacs, pydicom.dcmread(BytesIO(sent)))
    caught.value.close()
