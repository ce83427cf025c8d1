"""Synthetic images in a format that was asked for: what it can hold is written and read back, all else refused early."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest

from mgdm_cli.data import codecs
from mgdm_cli.data.codecs.chosen import KINDS
from mgdm_cli.data.codecs.dicom_terms import SECONDARY_CAPTURE, STORAGE
from mgdm_cli.data.image import Form, Image, Mark
from mgdm_cli.data.marked import lacking
from mgdm_cli.errors import UsageError

GREY = Form("png", "uint8", 1, 8, 6)
RGB = Form("png", "uint8", 3, 8, 6)
PLACE = ((0.5, 0.0, 0.0, 10.0), (0.0, -0.5, 0.0, 20.0), (0.0, 0.0, 2.0, 30.0), (0.0, 0.0, 0.0, 1.0))
SLICE = Form("nifti", "int16", 1, 8, 6, spacing_mm=(0.5, 0.5), affine=PLACE, codes=(1, 1))
RADIOGRAPH = Form(
    "dicom", "uint16", 1, 8, 6, spacing_mm=(0.2, 0.2), orientation=("L", "F"), modality="CR", storage="CR"
)
HELD = {
    "grey": (GREY, {"png", "tiff", "nifti", "sc", "op", "cr"}),
    "rgb": (RGB, {"png", "tiff", "nifti", "sc", "op"}),
    "slice": (SLICE, {"tiff", "nifti", "sc", "op", "cr", "ct", "mr"}),
    "radiograph": (RADIOGRAPH, {"png", "tiff", "nifti", "sc", "op", "cr", "dx"}),
    "fractions": (Form("tiff", "float32", 1, 8, 6), {"tiff", "nifti", "sc", "op", "cr"}),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", HELD)
def test_what_a_format_holds_comes_back_and_the_rest_is_refused(
    name: str, kind: str, tmp_path: Path, draw: Callable[[Form], Image], mark: Mark
) -> None:
    form, held = HELD[name]
    if kind not in held:
        with pytest.raises(UsageError, match=f"--write-as {kind}"):
            codecs.output_form(form, kind)
        return
    written = codecs.output_form(form, kind)
    image = Image(draw(form).pixels, written)
    data = codecs.encode(image, mark)
    path = tmp_path / f"a{codecs.suffix(written)}"
    path.write_bytes(data)
    codec = codecs.sniff(path)
    assert codec is not None
    assert codec.NAMES[0] == codecs.codec_of(written.codec).NAMES[0]
    np.testing.assert_array_equal(codec.read(path).pixels, codecs.settled(image).pixels)
    assert list(lacking(data)) == []
    assert codecs.output_form(written) == written  # the plan is read back and stays what it is
    if written.codec == "dicom":
        made = pydicom.dcmread(path)
        assert made.SOPClassUID == STORAGE.get(kind.upper(), SECONDARY_CAPTURE)
        assert made.Modality == {"sc": form.modality or "OT"}.get(kind, kind.upper())


def test_an_unknown_kind_is_named() -> None:
    with pytest.raises(UsageError, match="'gif' is not known"):
        codecs.output_form(GREY, "gif")
