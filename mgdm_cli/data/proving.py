"""One file looked at in full: the images in it, and the proof that they can be decoded.

A proof is made in a process of its own (`workers`), so it has a form as JSON and holds no pixels.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from mgdm_cli.data.codecs import Ask, Codec, Part, sniff
from mgdm_cli.data.codecs.base import NOTHING, Floats
from mgdm_cli.data.image import Form, Image
from mgdm_cli.errors import BadInput, MgdmError, UsageError

_FIRST, _PIECE = 1 << 16, 1 << 20  # bytes that are hashed at a time: most files are small
_WHOLE = {"u1": (0, 255), "<i2": (-32768, 32767), "<u2": (0, 65535)}
_FIELDS = tuple(field.name for field in fields(Form))


@dataclass(frozen=True)
class Sight:
    """What decoding an image showed: its lowest and highest value in physical units, and a digest of its pixels."""

    low: float
    high: float
    digest: str  # equal for equal shape and values, whatever the file's format

    @property
    def blank(self) -> bool:
        """Whether the image holds a single value."""
        return self.low == self.high


@dataclass(frozen=True)
class Proof:
    """The chosen images of one file. `sha256` is of its bytes ("" where each part has its own); `sights` one a part."""

    parts: tuple[Part, ...]
    sha256: str
    sights: tuple[Sight, ...] | None = None  # None: not decoded


@dataclass(frozen=True)
class Wish:
    """What is asked of every file of a folder."""

    ask: Ask = NOTHING
    decode: bool = False


def prove(path: Path, wish: Wish) -> Proof:
    """Looks at one file. BadInput says why it cannot be used."""
    try:
        return _proven(path, wish)
    except OSError as fault:
        why = os.strerror(fault.errno) if fault.errno is not None else "the system does not say why"
        raise BadInput(f"cannot be read: {why}", "Look at its permissions and at the disk.") from fault


def _proven(path: Path, wish: Wish) -> Proof:
    codec = sniff(path)
    if codec is None:
        if path.stat().st_size == 0:
            raise BadInput("is empty")
        raise BadInput("is not a PNG, JPEG, TIFF, DICOM, NIfTI or npz file")
    parts = _chosen(codec, codec.parts(path, wish.ask), wish.ask.frames)
    sights = tuple(_sight(codec, path, part, wish.ask) for part in parts) if wish.decode else None
    return Proof(tuple(parts), "" if all(part.sha256 for part in parts) else _sha256(path), sights)


def _chosen(codec: Codec, parts: list[Part], frames: str | None) -> list[Part]:
    """The parts that are images of the set: all rows and slices; of frames, what --frames says."""
    if not parts:
        raise BadInput("holds no image")
    if len(parts) == 1 or codec.NAMES[0] in ("npz", "nifti"):
        return parts
    if frames is None:
        raise BadInput(f"has {len(parts)} frames", "Choose --frames first or --frames all.")
    return parts if frames == "all" else parts[:1]


def _sight(codec: Codec, path: Path, part: Part, ask: Ask) -> Sight:
    image = codec.read(path, part.index, ask)
    check_shape(image, part.form)
    pixels = image.pixels
    low, high = float(pixels.min()), float(pixels.max())
    narrow = np.ascontiguousarray(pixels, dtype=_narrowest(pixels, low, high, part.form.dtype != "float32"))
    digest = hashlib.sha256(f"{narrow.shape}{narrow.dtype.str}".encode())
    digest.update(narrow.data)
    return Sight(low, high, digest.hexdigest())


def _narrowest(pixels: Floats, low: float, high: float, whole: bool) -> str:
    """The smallest type that holds the values: it depends on them alone, not on how a file stores them."""
    fits = [name for name, (least, most) in _WHOLE.items() if least <= low and high <= most]
    return fits[0] if fits and (whole or bool((np.rint(pixels) == pixels).all())) else "<f4"


def check_shape(image: Image, form: Form) -> None:
    """BadInput where the decoded picture is not what its header promised."""
    if image.pixels.shape != (form.channels, form.height, form.width):
        raise BadInput("its pixels are not of the size that its header says", "Export it again.")


def _sha256(path: Path) -> str:
    with path.open("rb", buffering=0) as opened:
        digest = hashlib.sha256(opened.read(_FIRST))
        while piece := opened.read(_PIECE):
            digest.update(piece)
        return digest.hexdigest()


# The form as JSON


def answer(path: Path, wish: Wish) -> bytes:
    """A line of JSON: the proof, or the error."""
    try:
        proof = prove(path, wish)
    except MgdmError as fault:
        return json.dumps({"message": fault.message, "hint": fault.hint, "code": fault.exit_code}).encode()
    forms: dict[Form, int] = {}
    rows = []
    for part in proof.parts:
        place = forms.setdefault(part.form, len(forms))
        rows.append(
            [part.index, place, part.label, part.patient, part.split, part.sha256, sorted(part.flags), part.group]
        )
    sights = None if proof.sights is None else [[s.low, s.high, s.digest] for s in proof.sights]
    document = {
        "forms": [[getattr(form, name) for name in _FIELDS] for form in forms],
        "parts": rows,
        "sha256": proof.sha256,
        "sights": sights,
    }
    return json.dumps(document).encode()


def proof_of(line: bytes) -> Proof:
    """The proof that `answer` wrote; raises the error instead, where it wrote one."""
    document = json.loads(line)
    if "message" in document:
        kind = UsageError if document["code"] == UsageError.exit_code else BadInput
        raise kind(document["message"], document["hint"], exit_code=document["code"])
    forms = [Form(*map(_tuples, form)) for form in document["forms"]]
    parts = tuple(
        Part(index, forms[place], label, patient, split, sha256, frozenset(flags), group)
        for index, place, label, patient, split, sha256, flags, group in document["parts"]
    )
    sights = document["sights"]
    return Proof(parts, document["sha256"], None if sights is None else tuple(Sight(*row) for row in sights))


def wish_of(document: Mapping[str, Any]) -> Wish:
    """The inverse of `asdict(wish)`."""
    return Wish(Ask(**document["ask"]), document["decode"])


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if type(value) is list else value
