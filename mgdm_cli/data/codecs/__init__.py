"""The formats, in the order in which they are asked: bytes on disk <-> Image. A new format is a module in CODECS."""

from __future__ import annotations

from pathlib import Path

from mgdm_cli.data.codecs import dicom, nifti, npz, raster
from mgdm_cli.data.codecs.base import Ask, Codec, Part
from mgdm_cli.data.codecs.chosen import form_as
from mgdm_cli.data.image import Form, Image, Mark
from mgdm_cli.errors import BadInput

__all__ = ["CODECS", "Ask", "Codec", "Part", "codec_of", "encode", "output_form", "settled", "sniff", "suffix"]

CODECS: tuple[Codec, ...] = (dicom, raster, nifti, npz)  # dicom first: its preamble may begin like a TIFF
_HEAD = 1024


def sniff(path: Path) -> Codec | None:
    """The codec that claims the file by its first bytes, or None."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
    return next((codec for codec in CODECS if codec.claims(head, path)), None)


def codec_of(name: str) -> Codec:
    """The codec that stands behind a Form.codec value."""
    for codec in CODECS:
        if name in codec.NAMES:
            return codec
    raise BadInput(f"unknown format {name!r}", "Known: " + ", ".join(n for c in CODECS for n in c.NAMES) + ".")


def output_form(form: Form, kind: str | None = None) -> Form:
    """The form in which a synthetic image beside images of `form` is written (JPEG and npz become PNG).

    `kind`, one of `chosen.KINDS`, asks for another. UsageError where that cannot hold the images."""
    chosen = form if kind is None else form_as(form, kind)
    return codec_of(chosen.codec).output_form(chosen)


def suffix(form: Form) -> str:
    """The file suffix, with its dot, of an image written in `form`."""
    form = output_form(form)
    return codec_of(form.codec).SUFFIX[form.codec]


def settled(image: Image) -> Image:
    """The image as it comes back from its file: rounded to what the format holds. Its form is of `output_form`."""
    return Image(codec_of(image.form.codec).settled(image), image.form)


def encode(image: Image, mark: Mark) -> bytes:
    """The complete, marked file of a synthetic image; the same image and mark give the same bytes."""
    return codec_of(image.form.codec).encode(image, mark)
