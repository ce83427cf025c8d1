"""Lossless JPEG (ITU-T T.81 Annex H, process 14, the SOF3 of DICOM), decoded with numpy: no decoder under a free licence
other than the GPL reads it from Python.

A Huffman code cannot be read without knowing where it begins, and each one begins where the last one ends. Here the
length of the code is looked up at every bit, all at once, and only the chain from code to code is walked one by one.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mgdm_cli.data.codecs.base import Array, check_size
from mgdm_cli.errors import BadInput

_SOF3, _DHT, _SOS, _DRI, _EOI = 0xC3, 0xC4, 0xDA, 0xDD, 0xD9
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # markers that begin a frame of any process, T.81 Table B.1
_WALK = 1 << 16  # codes found before they are put into an array

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class _Table:
    """For each 16 bits that may come: the length of the code, the category it stands for (T.81 F.1.2.1.2, H.1.2.2)."""

    length: NDArray[np.uint8]
    category: NDArray[np.uint8]

    @property
    def step(self) -> NDArray[np.uint8]:
        """Bits of a code and of the number behind it; category 16 has none."""
        return self.length + np.where(self.category < 16, self.category, 0).astype(np.uint8)


@dataclass
class _Picture:
    """What the markers said."""

    height: int = 0
    width: int = 0
    precision: int = 0
    components: tuple[int, ...] = ()
    restart: int = 0
    tables: dict[int, _Table] = field(default_factory=dict)


def decode(data: bytes) -> Array:
    """(H,W) or (H,W,C) uint8 or uint16 of one JPEG. BadInput where it is damaged, cut short or of another process."""
    picture = _Picture()
    for marker, body, at in _segments(data):
        if marker in _FRAMES:
            _frame(picture, marker, body)
        elif marker == _DHT:
            _huffman(picture, body)
        elif marker == _DRI:
            (picture.restart,) = struct.unpack_from(">H", body)
        elif marker == _SOS:
            return _scan(picture, body, data, at)
        elif marker == _EOI:
            break
    raise BadInput("its JPEG holds no picture")


def _segments(data: bytes) -> Iterator[tuple[int, bytes, int]]:
    """(marker, body, offset behind it) of each segment in front of the entropy-coded data (T.81 B.1.1)."""
    if data[:2] != b"\xff\xd8":
        raise BadInput("its compressed pixel data is no JPEG")
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            raise BadInput("its JPEG is damaged")
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        (length,) = struct.unpack_from(">H", data, at + 2)
        if marker != _EOI and (length < 2 or at + 2 + length > len(data)):
            raise BadInput("its JPEG is cut short")
        yield marker, data[at + 4 : at + 2 + length], at + 2 + length
        at += 2 + length


def _frame(picture: _Picture, marker: int, body: bytes) -> None:
    if marker != _SOF3:
        raise BadInput(f"its JPEG is of process SOF{marker - 0xC0}, which is not lossless Huffman coding")
    precision, height, width, count = struct.unpack_from(">BHHB", body)
    check_size(height, width, max(1, count))
    if not 2 <= precision <= 16 or count not in (1, 3) or len(body) < 6 + 3 * count:
        raise BadInput(f"its JPEG has {count} components of {precision} bits, which is not read")
    if any(body[7 + 3 * k] != 0x11 for k in range(count)):
        raise BadInput("its JPEG has components of different size, which are not read")
    picture.height, picture.width, picture.precision = height, width, precision
    picture.components = tuple(body[6 + 3 * k] for k in range(count))


def _huffman(picture: _Picture, body: bytes) -> None:
    """The tables of one DHT segment; codes are given out in rising order of length (T.81 Annex C)."""
    at = 0
    while at + 17 <= len(body):
        place, counts = body[at] & 15, body[at + 1 : at + 17]
        values = body[at + 17 : at + 17 + sum(counts)]
        if len(values) < sum(counts) or any(value > 16 for value in values):
            raise BadInput("its JPEG has an impossible Huffman table")
        length, category = np.zeros(1 << 16, np.uint8), np.zeros(1 << 16, np.uint8)
        code, taken = 0, 0
        for bits, count in enumerate(counts, start=1):
            for value in values[taken : taken + count]:
                if code + (1 << 16 - bits) > 1 << 16:
                    raise BadInput("its JPEG has an impossible Huffman table")
                span = slice(code, code + (1 << 16 - bits))
                length[span], category[span] = bits, value
                code = span.stop
            taken += count
        picture.tables[place] = _Table(length, category)
        at += 17 + sum(counts)


def _scan(picture: _Picture, body: bytes, data: bytes, at: int) -> Array:
    count = len(picture.components)
    if not picture.height or len(body) < 4 + 2 * count or body[0] != count:
        raise BadInput("its JPEG holds its components in several scans, which are not read")
    chosen = [body[2 + 2 * k] >> 4 for k in range(count)]
    if any(place not in picture.tables for place in chosen):
        raise BadInput("its JPEG lacks a Huffman table")
    tables = [picture.tables[place] for place in chosen]
    predictor, shift = body[1 + 2 * count], body[3 + 2 * count] & 15
    if not 1 <= predictor <= 7 or shift >= picture.precision:
        raise BadInput(f"its JPEG has predictor {predictor}, which does not exist")
    rows = picture.height
    if picture.restart:
        rows, odd = divmod(picture.restart, picture.width)
        if odd or not rows:
            raise BadInput("its JPEG restarts inside a row, which is not allowed")
    pieces = []
    entropy = data[at:]
    for first in range(0, picture.height, rows):
        high = min(rows, picture.height - first)
        coded, entropy = _coded(entropy)
        differences = _differences(coded, tables, high * picture.width)
        differences = differences.reshape(high, picture.width, count)
        start = 1 << (picture.precision - shift - 1)
        pieces.append(np.stack([_predicted(differences[..., k], predictor, start) for k in range(count)], axis=-1))
    whole = (np.concatenate(pieces) & 0xFFFF) << shift
    array = whole.astype(np.uint8 if picture.precision <= 8 else np.uint16)
    return array[..., 0] if count == 1 else array


def _coded(data: bytes) -> tuple[bytes, bytes]:
    """(the bits up to the next marker without their stuffed zeros, the data behind that marker) (T.81 B.1.1.5)."""
    at = data.find(b"\xff")
    while at >= 0 and at + 1 < len(data) and data[at + 1] == 0:
        at = data.find(b"\xff", at + 2)
    if at < 0 or at + 1 >= len(data):
        raise BadInput("its JPEG is cut short")
    return data[:at].replace(b"\xff\0", b"\xff"), data[at + 2 :]


def _differences(coded: bytes, tables: list[_Table], pixels: int) -> Ints:
    """(pixels * components,) differences in scan order."""
    octets = np.frombuffer(coded + b"\0" * 8, np.uint8).astype(np.uint32)
    words = octets[:-2] << 16 | octets[1:-1] << 8 | octets[2:]
    peek = np.empty((len(words), 8), np.uint16)  # the 16 bits that begin at each bit
    for bit in range(8):
        peek[:, bit] = words >> (8 - bit) & 0xFFFF
    ahead = peek.reshape(-1)
    steps = [table.step[ahead].tobytes() for table in tables]
    starts = _walked(steps, pixels, 8 * len(coded))
    found = np.empty(pixels * len(tables), np.int64)
    for k, table in enumerate(tables):
        own = starts[k :: len(tables)]
        bits = ahead[own]
        length, category = table.length[bits].astype(np.int64), table.category[bits].astype(np.int64)
        if (length == 0).any():
            raise BadInput("its JPEG is damaged")
        value = ahead[own + length].astype(np.int64) >> (16 - category)
        value = np.where(value < (1 << category) >> 1, value - (1 << category) + 1, value)  # T.81 F.2.2.1, EXTEND
        found[k :: len(tables)] = np.where(category == 0, 0, np.where(category == 16, 32768, value))
    return found


def _walked(steps: list[bytes], pixels: int, end: int) -> Ints:
    """Where each code begins; BadInput where the bits do not suffice."""
    starts = np.empty(pixels * len(steps), np.int64)
    at, done = 0, 0
    while done < pixels:
        some: list[int] = []
        for _ in range(min(_WALK, pixels - done)):
            for step in steps:
                some.append(at)
                at += step[at]
            if at > end:
                raise BadInput("its JPEG is cut short")
        starts[done * len(steps) : done * len(steps) + len(some)] = some
        done += len(some) // len(steps)
    return starts


def _predicted(difference: Ints, predictor: int, start: int) -> Ints:
    """(rows, columns) samples, modulo 65536: the first row leans on its left, the first column on what is above it."""
    if predictor in (1, 2, 4):
        first = difference.copy()
        first[0, 0] += start
        if predictor == 1:
            first[:, 0] = np.cumsum(first[:, 0])
            return np.cumsum(first, axis=1)
        first[0] = np.cumsum(first[0])
        if predictor == 2:
            return np.cumsum(first, axis=0)
        first[1:, 0] = np.cumsum(first[1:, 0]) + first[0, 0]
        return _gradient(first)
    rows = [_first_row(difference[0], start)]
    for row in difference[1:].tolist():
        rows.append(_next_row(row, rows[-1], predictor))
    return np.array(rows, dtype=np.int64)


def _gradient(first: Ints) -> Ints:
    """x = left + above - corner + d: the sums of d over all that is above and to the left, beside the two edges."""
    inner = first.copy()
    inner[0, :] = inner[:, 0] = 0
    whole: Ints = np.cumsum(np.cumsum(inner, axis=0), axis=1) + first[:1, :] + first[:, :1] - first[0, 0]
    return whole


def _first_row(difference: Ints, start: int) -> list[int]:
    row: list[int] = ((np.cumsum(difference) + start) & 0xFFFF).tolist()
    return row


def _next_row(row: list[int], above: list[int], predictor: int) -> list[int]:
    """Predictors 3, 5, 6 and 7 of T.81 Table H.1, which lean on what was just decoded."""
    left = (row[0] + above[0]) & 0xFFFF
    out = [left]
    corner = above[0]
    for difference, up in zip(row[1:], above[1:], strict=True):
        if predictor == 3:
            guess = corner
        elif predictor == 5:
            guess = left + (up - corner >> 1)
        elif predictor == 6:
            guess = up + (left - corner >> 1)
        else:
            guess = left + up >> 1
        left = (guess + difference) & 0xFFFF
        out.append(left)
        corner = up
    return out
