"""The header of a DICOM file skimmed: where each element lies, and its value only when somebody asks for it.

A folder of ten thousand files is asked some twenty plain numbers and codes a file, out of a hundred elements; to find
those takes a fraction of the time of a parse. The walk knows little endian data sets without faults (PS3.5 7.1, 7.5).
Whatever it does not know for sure, and every value that is not plain, is left to pydicom: the answers are the same.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

PIXELS = {0x7FE00008: "float", 0x7FE00009: "double", 0x7FE00010: "whole"}
UNDEFINED = 0xFFFFFFFF
FIRST_PIXELS = min(PIXELS)
LONG = frozenset(
    [b"OB", b"OW", b"SQ", b"UT", b"OF", b"OD", b"OL", b"OV", b"UC", b"UR", b"UV", b"SV", b"UN"]
)  # 4 bytes of length, PS3.5 7.1.2
SHORT = frozenset(b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split())
_ITEM, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE0DD
_DEPTH = 16  # of sequences in sequences: more is left to pydicom
_NAMED, _BARE, _WIDE = struct.Struct("<HH2sH"), struct.Struct("<HHI"), struct.Struct("<I")


class Strange(Exception):
    """A data set that the walk does not know for sure."""


class Short(Exception):
    """The bytes end before the data set does."""


@dataclass(frozen=True)
class Place:
    """Where an element of pixel data is: tag, offset in the file, stated length, bytes of its head, bytes after that."""

    tag: int
    at: int
    length: int
    head: int
    room: int = 0


class Skim:
    """The elements in front of the pixel data. `parse` gives the same as a data set of pydicom, when it is needed."""

    def __init__(self, data: bytes, places: dict[int, tuple[bytes, int, int]], parse: Callable[[], Any]) -> None:
        self._data, self._places, self._parse = data, places, parse

    def __contains__(self, tag: int) -> bool:
        return tag in self._places

    @property
    def is_sorted(self) -> bool:
        """Whether the tags ascend, as in every sound data set (PS3.5 7.1)."""
        tags = list(self._places)
        return tags == sorted(tags)

    def value(self, tag: int, vr: str, default: Any) -> Any:
        """The value of the attribute `tag`, whose VR is `vr`."""
        place = self._places.get(tag)
        if place is None:
            return default
        kind, at, length = place
        known = plain(self._data[at : at + length], kind.decode("ascii") if kind else vr, vr)
        return self.dataset[tag].value if known is None else known

    @cached_property
    def dataset(self) -> Any:
        """All of it, as pydicom sees it."""
        return self._parse()


def walk(data: bytes, at: int, implicit: bool) -> tuple[dict[int, tuple[bytes, int, int]], Place | None]:
    """({tag: (VR, offset, length)}, the pixel data) of the data set that begins at `at`, little endian.

    Strange where pydicom should look; Short where `data` ends inside an element, or before any pixel data.
    """
    found: dict[int, tuple[bytes, int, int]] = {}
    end = len(data)
    while at + 8 <= end:
        tag, kind, length, value = _element(data, at, implicit)
        if tag >= FIRST_PIXELS:
            return found, Place(tag, at, length, value - at) if tag in PIXELS else None
        if length == UNDEFINED:
            if kind not in (b"SQ", b""):
                raise Strange
            length = _behind_items(data, value, implicit, _DEPTH) - value
        at = value + length
        if at > end:
            raise Short
        found[tag] = kind, value, length
    raise Short


def _element(data: bytes, at: int, implicit: bool) -> tuple[int, bytes, int, int]:
    """(tag, VR, length, offset of the value)."""
    if implicit:
        group, element, length = _BARE.unpack_from(data, at)
        if group == 0xFFFE:
            raise Strange
        return group << 16 | element, b"", length, at + 8
    group, element, kind, length = _NAMED.unpack_from(data, at)
    if kind in SHORT:
        return group << 16 | element, kind, length, at + 8
    if kind not in LONG or length:  # the two bytes are reserved
        raise Strange
    if at + 12 > len(data):
        raise Short
    return group << 16 | element, kind, _WIDE.unpack_from(data, at + 8)[0], at + 12


def _behind_items(data: bytes, at: int, implicit: bool, depth: int) -> int:
    """The offset behind the delimiter of a sequence of undefined length (PS3.5 7.5.2)."""
    if depth == 0:
        raise Strange
    while at + 8 <= len(data):
        group, element, length = _BARE.unpack_from(data, at)
        at += 8
        tag = group << 16 | element
        if tag == _SEQUENCE_END and length == 0:
            return at
        if tag != _ITEM:
            raise Strange
        at = _behind_item(data, at, implicit, depth) if length == UNDEFINED else at + length
    raise Short


def _behind_item(data: bytes, at: int, implicit: bool, depth: int) -> int:
    """The offset behind the delimiter of an item of undefined length."""
    while at + 8 <= len(data):
        if _BARE.unpack_from(data, at) == (0xFFFE, 0xE00D, 0):
            return at + 8
        _, kind, length, value = _element(data, at, implicit)
        if length == UNDEFINED:
            if kind not in (b"SQ", b""):
                raise Strange
            at = _behind_items(data, value, implicit, depth - 1)
        else:
            at = value + length
    raise Short


# Values

_NUMBER: dict[str, Callable[[str], float]] = {"DS": float, "IS": int}


@cache
def _tag(keyword: str) -> tuple[int, str]:
    from pydicom.datadict import dictionary_VR, tag_for_keyword

    tag = tag_for_keyword(keyword)
    assert tag is not None
    return int(tag), dictionary_VR(tag)


def has(source: Any, keyword: str) -> bool:
    """Whether a data set or skim holds an attribute."""
    return _tag(keyword)[0] in source


def full(source: Any) -> Any:
    """The data set of pydicom behind `source`."""
    return source.dataset if isinstance(source, Skim) else source


def value(source: Any, keyword: str, default: Any = None) -> Any:
    """The value of an attribute, or `default`: what pydicom's Dataset.get gives, some times faster for plain values."""
    tag, vr = _tag(keyword)
    if isinstance(source, Skim):
        return source.value(tag, vr, default)
    if tag not in source:
        return default
    item = source.get_item(tag)
    raw = item.value
    if isinstance(raw, bytes) and getattr(item, "is_little_endian", False):
        known = plain(raw, item.VR or vr, vr)
        if known is not None:
            return known
    return source[tag].value


def plain(raw: bytes, stored: str, vr: str) -> Any:
    """A value of VR `vr`, stored as `stored`, where it is plain; None where pydicom should look at it."""
    if stored != vr and (vr != "US or SS" or stored not in ("US", "SS")):
        return None
    if stored == "US" or stored == "SS":
        return int.from_bytes(raw, "little", signed=stored == "SS") if len(raw) == 2 else None
    if not raw.isascii():
        return None
    if stored == "SQ":
        return None if raw else ()
    text = raw.decode("ascii").rstrip(" \0")
    if stored == "CS" or stored == "UI":
        return text.split("\\") if "\\" in text else text
    if stored in _NUMBER and text:
        number = _NUMBER[stored]
        try:
            return [number(part) for part in text.split("\\")] if "\\" in text else number(text)
        except ValueError:
            return None
    if stored in ("LO", "SH") and text.isprintable() and not {"\\", "~"} & set(text):  # not ASCII in every repertoire
        return text
    return None
