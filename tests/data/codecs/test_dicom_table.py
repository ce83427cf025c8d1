"""The table over real DICOM files can see what it looks for. The table itself: `python -m benchmarks.dicom_table`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.data import get_testdata_file

from benchmarks.dicom_table import compared, difference, found, plain, verdict
from mgdm_cli.data.codecs import dicom


@pytest.mark.parametrize(
    "name", ["CT_small.dcm", "MR_small_bigendian.dcm", "ExplVR_BigEnd.dcm", "SC_rgb_rle_16bit.dcm"]
)
def test_a_file_agrees_with_pydicom_and_a_changed_pixel_is_seen(name: str) -> None:
    path = Path(str(get_testdata_file(name, download=False)))
    told = compared(path)
    assert told == {"as": "pydicom", "difference": 0.0}
    own = dicom.read(path).pixels.copy()
    own[..., 3, 3] += 1
    assert difference(own, plain(path, 0)) > 1e-6
    assert difference(own[..., 1:], plain(path, 0)) == float("inf")


@pytest.mark.parametrize(
    ("one", "line"),
    [
        ({"fault": "hangs for 60 s"}, "FAULT: hangs for 60 s"),
        ({"why": "is empty"}, "refused: is empty"),
        ({"frames": 1, "as": None}, "read; no other decoder is at hand"),
        ({"frames": 1, "as": "pydicom", "difference": 0.0}, "read, equal to pydicom"),
        ({"frames": 1, "as": "dcmdjpeg", "difference": 0.5}, "READ OTHERWISE than by dcmdjpeg: 0.5"),
    ],
)
def test_a_line_says_what_was_found(one: dict[str, Any], line: str) -> None:
    assert verdict(one) == line


def test_padding_is_not_compared() -> None:
    values, measured = np.zeros((4, 4)), np.ones((4, 4), bool)
    measured[0] = False
    own = np.zeros((1, 4, 4))
    own[0, 0] = 9
    assert difference(own, (values, measured)) == 0


def test_files_are_known_by_their_mark(tmp_path: Path) -> None:
    (tmp_path / "IM0001").write_bytes(b"\0" * 128 + b"DICM")
    (tmp_path / "notes").write_bytes(b"text")
    names = [name for name, _ in found([tmp_path])]
    assert f"{tmp_path.name}/IM0001" in names
    assert f"{tmp_path.name}/notes" not in names
    assert len(names) > 100
