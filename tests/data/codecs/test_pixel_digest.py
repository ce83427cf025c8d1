"""The digest of an image's pixels is that of its shape and values, however a file stores them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mgdm_cli.data import codecs
from mgdm_cli.data.image import Form, Image, Mark
from mgdm_cli.data.proving import Wish, prove

VALUES = {
    "bytes": [0, 7, 255],
    "signed": [-5, 0, 255],
    "wide": [0, 256, 40_000],
    "fractions": [0, 0.5, 3],
}
KINDS = (
    ("png", "uint8"),
    ("png", "uint16"),
    ("tiff", "int16"),
    ("tiff", "float32"),
    ("nifti", "int16"),
    ("nifti", "float32"),
)


@pytest.mark.parametrize("values", VALUES)
def test_equal_values_have_one_digest(values: str, tmp_path: Path, mark: Mark) -> None:
    wanted = np.resize(np.array(VALUES[values], np.float32), (1, 5, 6))
    found = {}
    for codec, dtype in KINDS:
        if dtype != "float32" and not (wanted == wanted.astype(dtype)).all():
            continue
        form = codecs.output_form(Form(codec, dtype, 1, 5, 6))
        path = tmp_path / f"{codec}-{dtype}{codecs.suffix(form)}"
        path.write_bytes(codecs.encode(Image(wanted, form), mark))
        sights = prove(path, Wish(decode=True)).sights
        assert sights is not None
        found[path.name] = sights[0]
        assert (sights[0].low, sights[0].high) == (wanted.min(), wanted.max())
    assert len(found) >= 2
    assert len({sight.digest for sight in found.values()}) == 1, found
    turned = tmp_path / "turned.nii.gz"
    turned.write_bytes(codecs.encode(Image(wanted.reshape(1, 6, 5), Form("nifti", "float32", 1, 6, 5)), mark))
    other = prove(turned, Wish(decode=True)).sights
    assert other is not None
    assert other[0].digest not in {sight.digest for sight in found.values()}
