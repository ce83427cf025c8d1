"""Mutated files through every reader: whatever comes, the answer is an image or an error of ours.

    python -m benchmarks.fuzz --seconds 600 [--reader dicom] [--seed 0] [--keep FOLDER]

Seeds are made on the spot (and, with --data, real files of a folder). A mutation changes, cuts, repeats, moves or
splices bytes; structured ones put extreme numbers where headers have lengths and sizes. What is looked for: any other
exception, an image that is not finite or not of its promised form, and a file that takes longer than --slow seconds.
A native crash ends the process: the file that did it is then in --keep as `last`.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import struct
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from mgdm_cli.data import codecs
from mgdm_cli.data.codecs import Ask
from mgdm_cli.data.codecs.raster_png import PNG_MAGIC
from mgdm_cli.data.image import Form, Image, Mark
from mgdm_cli.data.proving import check_shape
from mgdm_cli.errors import MgdmError

READERS = ("png", "jpeg", "tiff", "dicom", "nifti", "npz")
EXTREMES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
ASK = Ask(slices="axial", frames="first", max_bytes=1 << 24)


@dataclass
class Tally:
    """What came of the files of one reader; `faults` are (what, seed of the mutation)."""

    read: int = 0
    refused: int = 0
    slowest: float = 0.0
    faults: list[tuple[str, int]] = field(default_factory=list)


def seeds(reader: str) -> Iterator[bytes]:
    """Small good files of a reader, of the kinds that it has code for."""
    from PIL import Image as Pillow

    rng = np.random.default_rng(5)
    mark = Mark("a-1", "a", "0" * 64, 1, "1" * 64, "0", "20260101")
    if reader == "npz":
        images = rng.integers(0, 256, (3, 8, 8)).astype(np.uint8)
        for save in (np.savez, np.savez_compressed):
            buffer = BytesIO()
            save(buffer, train_images=images, train_labels=np.array([[0], [1], [1]]))
            yield buffer.getvalue()
    elif reader == "jpeg":
        for mode, shape in (("L", (24, 16)), ("RGB", (24, 16, 3)), ("CMYK", (24, 16, 4))):
            buffer = BytesIO()
            Pillow.fromarray(rng.integers(0, 256, shape).astype(np.uint8), mode).save(buffer, "JPEG")
            yield buffer.getvalue()
    else:
        for dtype, channels in (("uint8", 1), ("uint16", 1), ("uint8", 3), ("int16", 1)):
            if reader == "png" and dtype == "int16":
                continue
            form = Form(
                reader, dtype, channels, 16, 12, (0.5, 0.5), tuple(map(tuple, np.eye(4).tolist())), "CT", "CHEST"
            )
            pixels = rng.integers(0, 256, (channels, 16, 12)).astype(np.float32)
            yield codecs.encode(Image(pixels, form), mark)
    if reader in _MORE:
        yield from _MORE[reader](rng)


def _more_dicom(rng: Any) -> Iterator[bytes]:
    """Compressed, deflated and multi-frame objects."""
    from pydicom import dcmread
    from pydicom.uid import UID

    form = Form("dicom", "uint16", 1, 16, 16)
    mark = Mark("a-1", "a", "0" * 64, 1, "1" * 64, "0", "20260101")
    plain = codecs.encode(Image(rng.integers(0, 4096, (1, 16, 16)).astype(np.float32), form), mark)
    for syntax in ("1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.1.99"):
        made, buffer = dcmread(BytesIO(plain)), BytesIO()
        if syntax.endswith(".99"):
            made.file_meta.TransferSyntaxUID = UID(syntax)
        else:
            try:
                made.compress(syntax, generate_instance_uid=False)
            except RuntimeError:  # without the extra "codecs"
                continue
        made.save_as(buffer)
        yield buffer.getvalue()
    made, buffer = dcmread(BytesIO(plain)), BytesIO()
    made.NumberOfFrames, made.Rows = 2, 8
    made.save_as(buffer)
    yield buffer.getvalue()


def _more_tiff(rng: Any) -> Iterator[bytes]:
    from PIL import Image as Pillow

    picture = Pillow.fromarray(rng.integers(0, 256, (16, 12, 3)).astype(np.uint8))
    for kind in ("tiff_lzw", "tiff_deflate", "jpeg", "packbits"):
        buffer = BytesIO()
        picture.save(buffer, "TIFF", compression=kind)
        yield buffer.getvalue()


def _more_png(rng: Any) -> Iterator[bytes]:
    from PIL import Image as Pillow

    grey = Pillow.fromarray(rng.integers(0, 256, (16, 12)).astype(np.uint8))
    for picture in (grey.convert("P"), grey.convert("LA"), grey.convert("1")):
        buffer = BytesIO()
        picture.save(buffer, "PNG")
        yield buffer.getvalue()


_MORE: dict[str, Callable[[Any], Iterator[bytes]]] = {"dicom": _more_dicom, "tiff": _more_tiff, "png": _more_png}


def mutated(data: bytes, dice: random.Random) -> bytes:
    """One to six changes; PNG checksums are put right again half of the time, so that the decoder is reached."""
    out = bytearray(data)
    for _ in range(dice.randint(1, 6)):
        _change(out, dice)
    if out.startswith(PNG_MAGIC) and dice.random() < 0.5:
        _mend(out)
    return bytes(out)


def _change(out: bytearray, dice: random.Random) -> None:
    size = len(out)
    if size < 16:
        return
    at = dice.randrange(min(size - 8, 1500 if dice.random() < 0.7 else size - 8))  # headers come first
    kind = dice.randrange(8)
    if kind == 0:
        out[at] = dice.randrange(256)
    elif kind == 1:
        out[at] ^= 1 << dice.randrange(8)
    elif kind == 2:
        struct.pack_into(dice.choice(("<H", ">H")), out, at, dice.choice(EXTREMES) & 0xFFFF)
    elif kind == 3:
        struct.pack_into(dice.choice(("<I", ">I")), out, at, dice.choice(EXTREMES))
    elif kind == 4:
        del out[at : at + dice.randint(1, 64)]
    elif kind == 5:
        out[at:at] = out[at : at + dice.randint(1, 64)]
    elif kind == 6:
        there = dice.randrange(size - 8)
        length = dice.randint(1, 32)
        out[at : at + length] = out[there : there + length]
    elif dice.random() < 0.3:
        del out[dice.randrange(16, size) :]


def _mend(out: bytearray) -> None:
    at = len(PNG_MAGIC)
    while at + 12 <= len(out):
        (length,) = struct.unpack_from(">I", out, at)
        stop = at + 8 + length
        if stop + 4 > len(out):
            return
        struct.pack_into(">I", out, stop, zlib.crc32(out[at + 4 : stop]))
        at = stop + 4


def tried(path: Path) -> str:
    """ "read", "refused", or what is wrong with us."""
    try:
        codec = codecs.sniff(path)
        if codec is None:
            return "refused"
        for part in codec.parts(path, ASK)[:4]:
            image = codec.read(path, part.index, ASK)
            if not np.isfinite(image.pixels).all():
                return "not finite"
            check_shape(image, part.form)
            if image.form != part.form:
                return "the form of the pixels is not the promised one"
    except MgdmError:
        return "refused"
    except Exception as error:  # noqa: BLE001  what is looked for
        where = error.__traceback__
        while where is not None and where.tb_next is not None:
            where = where.tb_next
        place = (
            f"{where.tb_frame.f_code.co_filename.rsplit('/', 1)[-1]}:{where.tb_lineno}" if where is not None else "?"
        )
        return f"{type(error).__name__} at {place}: {str(error)[:60]}"
    return "read"


def fuzz(
    reader: str,
    folder: Path,
    *,
    seed: int,
    tries: int | None = None,
    seconds: float | None = None,
    more: tuple[bytes, ...] = (),
    slow: float = 5.0,
) -> Tally:
    """So many tries, or as many as fit the time. The file in hand is `folder`/last."""
    stock = [*seeds(reader), *more]
    tally, path = Tally(), folder / ("last.npz" if reader == "npz" else "last")
    for data in stock:
        path.write_bytes(data)
        if (said := tried(path)) not in ("read", "refused"):
            tally.faults.append((f"a good file: {said}", -1))
    end = time.monotonic() + seconds if seconds is not None else None
    number = 0
    while (tries is None or number < tries) and (end is None or time.monotonic() < end):
        dice = random.Random(f"{reader}|{seed}|{number}")
        path.write_bytes(mutated(dice.choice(stock), dice))
        start = time.process_time()
        said = tried(path)
        taken = time.process_time() - start
        tally.slowest = max(tally.slowest, taken)
        tally.read += said == "read"
        tally.refused += said == "refused"
        if said not in ("read", "refused") or taken > slow:
            tally.faults.append((said if taken <= slow else f"took {taken:.1f} s", number))
            (folder / f"{reader}-{seed}-{number}").write_bytes(path.read_bytes())
        number += 1
    return tally


def main() -> int:
    """Prints one JSON document; 1 where a fault was found."""
    words = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    words.add_argument("--seconds", type=float, default=60.0, help="of all readers together")
    words.add_argument("--reader", choices=READERS, action="append")
    words.add_argument("--seed", type=int, default=0)
    words.add_argument("--data", type=Path, help="folder of small real files that are mutated too")
    words.add_argument("--keep", type=Path, help="folder for the files that showed a fault")
    given = words.parse_args()
    logging.disable()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libtiff has much to say
    readers = given.reader or READERS
    keep = given.keep or Path(tempfile.mkdtemp(prefix="fuzz-"))
    keep.mkdir(parents=True, exist_ok=True)
    real = sorted(p for p in given.data.rglob("*") if p.is_file() and p.stat().st_size < 300_000) if given.data else []
    document: dict[str, Any] = {}
    for reader in readers:
        more = tuple(p.read_bytes() for p in real if (c := codecs.sniff(p)) is not None and reader in c.NAMES)
        tally = fuzz(reader, keep, seed=given.seed, seconds=given.seconds / len(readers), more=more)
        kinds = Counter(what for what, _ in tally.faults)
        document[reader] = {
            "tries": tally.read + tally.refused + len(tally.faults),
            "read": tally.read,
            "refused": tally.refused,
            "slowest_seconds": round(tally.slowest, 2),
            "faults": dict(kinds.most_common(20)),
        }
    document["kept"] = str(keep)
    sys.stdout.write(json.dumps(document, indent=2) + "\n")
    return int(any(entry["faults"] for name, entry in document.items() if name != "kept"))


if __name__ == "__main__":
    sys.exit(main())
