"""Whether an object is all there: the one check, made wherever one comes in.

A file that was cut off reads like a whole one until its pixels are decoded. So it is walked to its end, value
by value, and what its kind must hold has to be there: pixels of full length or up to their closing delimiter,
a fragment for each frame, the content of a report. Values are stepped over: nothing is decoded, and nothing
kept of them but a few numbers. Deflated objects are inflated piece by piece, up to a limit, and sequences may
lie only so deep in one another, which readers follow by recursion.
"""

from __future__ import annotations

import os
import struct
from contextlib import suppress
from pathlib import Path
from typing import Final

from gateway.contract import Header
from gateway.dicom.inflation import Inflation
from gateway.dicom.part10 import (
    BIG_ENDIAN,
    DEFLATED,
    IMPLICIT,
    LONG_VRS,
    MAX_HEADER,
    UNDEFINED,
    WANTED,
    Meta,
    NotDicom,
    header_of,
    read_meta,
)

_PIECE: Final = 64 * 1024
_DEEPEST: Final = 64  # sequences within sequences; reports of real findings reach a dozen
_LONGEST_WANTED: Final = 1024

_SAMPLES, _PHOTOMETRIC, _FRAMES = 0x00280002, 0x00280004, 0x00280008
_ROWS, _COLUMNS, _BITS = 0x00280010, 0x00280011, 0x00280100
_NUMBERS: Final = (_SAMPLES, _ROWS, _COLUMNS, _BITS)
_NOTED: Final = WANTED.union(_NUMBERS, (_PHOTOMETRIC, _FRAMES))
_FLOATS, _DOUBLES, _PIXELS = 0x7FE00008, 0x7FE00009, 0x7FE00010
_PIXELS_ELSEWHERE, _DOCUMENT, _CONTENT = 0x00287FE0, 0x00420011, 0x0040A730
_VITAL: Final = frozenset((_FLOATS, _DOUBLES, _PIXELS, _PIXELS_ELSEWHERE, _DOCUMENT, _CONTENT))
_IMAGES_BY_ANOTHER_NAME: Final = frozenset(
    (
        "Segmentation Storage",
        "Label Map Segmentation Storage",
        "Parametric Map Storage",
        "Enhanced US Volume Storage",
    )
)
_NATIVE: Final = (IMPLICIT, "1.2.840.10008.1.2.1", DEFLATED, BIG_ENDIAN)
_DEFLATED_TOO: Final = ("1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205")  # pixels are elsewhere (JPIP)
_FILMS: Final = "1.2.840.10008.1.2.4.10"  # MPEG and HEVC: one fragment may hold all frames


class CutOff(NotDicom):
    """The beginning of an object, and no more."""


def check_whole(path: Path) -> Header:
    """Which instance lies there. NotDicom (CutOff, if that is why) unless it is all there."""
    check = WholeCheck()
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        while piece := file.read(_PIECE):
            check.feed(piece)
            step = min(check.skippable, size - file.tell())
            if step > _PIECE:
                file.seek(step, os.SEEK_CUR)
                check.skip(step)
    return check.finish()


class WholeCheck:
    """The check of an object that is still coming in: `feed` it all bytes, then `finish`."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._meta: Meta | None = None
        self._dataset: _Dataset | None = None
        self._inflation: Inflation | None = None
        self._look_at = 0

    @property
    def inflates(self) -> bool:
        """What is fed may hold hundreds of times as much: that takes its time."""
        return self._inflation is not None

    def feed(self, data: bytes | memoryview) -> None:
        """NotDicom as soon as it is known; nothing may be fed after that."""
        if self._dataset is None:
            self._head += data
            if len(self._head) >= self._look_at:
                self._open()
        else:
            self._follow(self._dataset, data)

    def _open(self) -> None:
        """Tried again only when there is as much more of it: it may come in a few bytes at a time."""
        self._look_at = 2 * len(self._head)
        self._meta = read_meta(bytes(self._head))
        if self._meta is None:
            if len(self._head) > MAX_HEADER:
                raise NotDicom("the file meta information of an instance doesn't end")
            return
        syntax = self._meta.transfer_syntax
        self._dataset = _Dataset(syntax)
        if syntax == DEFLATED or syntax in _DEFLATED_TOO:
            self._inflation = Inflation()
        begun = bytes(self._head[self._meta.dataset :])
        self._head.clear()
        self._follow(self._dataset, begun)

    def _follow(self, dataset: _Dataset, data: bytes | memoryview) -> None:
        if self._inflation is None:
            dataset.feed(data)
            return
        for piece in self._inflation.feed(data):
            dataset.feed(piece)

    @property
    def header(self) -> Header | None:
        """What it says of itself, as far as it has come."""
        if self._dataset is None:
            with suppress(NotDicom):
                self._open()
        if self._dataset is None or self._meta is None:
            return None
        try:
            return header_of(self._dataset.texts(), self._meta)
        except NotDicom:
            return None

    @property
    def skippable(self) -> int:
        """So many of the next bytes needn't be looked at."""
        return 0 if self._dataset is None or self._inflation else self._dataset.skipping

    def skip(self, count: int) -> None:
        assert self._dataset is not None and count <= self._dataset.skipping
        self._dataset.skipping -= count

    def finish(self) -> Header:
        if self._dataset is None:
            self._open()
        if self._dataset is None or self._meta is None:
            raise CutOff("an instance ends within its file meta information")
        if not self._dataset.at_end or not (self._inflation is None or self._inflation.at_end):
            raise CutOff("an instance is cut off")
        header = header_of(self._dataset.texts(), self._meta)
        self._dataset.require_content(header)
        return header


class _Dataset:
    """The walk over the elements."""

    def __init__(self, transfer_syntax: str) -> None:
        self.skipping = 0
        self._syntax = transfer_syntax
        order = ">" if transfer_syntax == BIG_ENDIAN else "<"
        self._read_head = struct.Struct(order + "HH2sH").unpack_from
        self._read_long = struct.Struct(order + "L").unpack_from
        self._implicit: bool | None = True if transfer_syntax == IMPLICIT else None
        self._rest = b""
        self._outer: list[bool] = []  # one entry for each open sequence and item: was it implicit outside
        self._values: dict[int, bytes] = {}
        self._lengths: dict[int, int] = {}
        self._in_fragments = False
        self._fragments = 0
        self._padding = False

    @property
    def at_end(self) -> bool:
        """Whether the bytes may end here."""
        ends = not self._outer and not self.skipping and not self._rest
        return self._padding or ends or self._is_padding(self._rest)

    def texts(self) -> dict[int, str]:
        return {tag: value.decode("latin-1").strip(" \0") for tag, value in self._values.items()}

    def feed(self, data: bytes | memoryview) -> None:
        if self._padding:
            return
        if self.skipping >= len(data):
            self.skipping -= len(data)
            return
        at, self.skipping = self.skipping, 0
        if self._rest:
            data, self._rest = self._rest + data, b""
        at = self._walk(data, at)
        if at > len(data):
            self.skipping = at - len(data)
        else:
            self._rest = bytes(data[at:])

    def require_content(self, header: Header) -> None:
        """What an object of its kind can't do without."""
        from pydicom.config import IGNORE
        from pydicom.uid import UID

        name = UID(header.sop_class_uid, IGNORE).name
        if "Image Storage" in name or name in _IMAGES_BY_ANOTHER_NAME:
            self._require_one_of(_PIXELS, _FLOATS, _DOUBLES, _PIXELS_ELSEWHERE)
        elif " SR Storage" in name or name == "Key Object Selection Document Storage":
            self._require_one_of(_CONTENT)
        elif name.startswith("Encapsulated"):
            self._require_one_of(_DOCUMENT)
        length = self._lengths.get(_PIXELS)
        if length == UNDEFINED:
            film = header.transfer_syntax_uid.startswith(_FILMS)
            if self._fragments - 1 < (1 if film else self._frames):  # the first is a table
                raise CutOff("an instance has fewer fragments than frames")
            return
        if header.transfer_syntax_uid not in _NATIVE:
            return  # of a maker's own, or not as it should be: nobody can tell its length
        for tag in (_PIXELS, _FLOATS, _DOUBLES):
            if self._lengths.get(tag, self._size_of(tag)) < self._size_of(tag):
                raise CutOff("the pixels of an instance are fewer than it says")

    def _walk(self, data: bytes | memoryview, at: int) -> int:
        """How far these bytes reach: up to an element whose head is cut, or beyond them."""
        size = len(data)
        while at + 8 <= size:
            group, number, vr, length = self._read_head(data, at)
            if group == 0xFFFE:
                at = self._cross(number, self._read_long(data, at + 4)[0], at + 8)
                continue
            if self._in_fragments:
                raise NotDicom("the fragments of an instance don't end")
            if not group and self._is_padding(data[at : at + 8]):
                self._padding = True
                return size
            value = at + 8
            if self._implicit is None:  # some writers declare explicit and write implicit
                self._implicit = not vr.isalpha()
            if self._implicit:
                vr, length = b"", self._read_long(data, at + 4)[0]
            elif vr in LONG_VRS:
                if at + 12 > size:
                    return at
                length, value = self._read_long(data, at + 8)[0], at + 12
            elif not vr.isalpha():
                raise NotDicom("an element has no value representation")
            tag = (group << 16) | number
            if not self._outer and not self._note(tag, data, value, length):
                return at
            if length == UNDEFINED:
                self._in_fragments = tag == _PIXELS and not self._outer
                self._enter()
                self._implicit = self._implicit or vr == b"UN"
                length = 0
            at = value + length
        return at

    def _cross(self, number: int, length: int, at: int) -> int:
        """The beginning or end of an item, or of what holds items; where it goes on."""
        if not self._outer:
            raise NotDicom("a sequence ends, or goes on, that never began")
        if number != 0xE000:
            self._implicit = self._outer.pop()
            self._in_fragments = False
            return at
        if length != UNDEFINED:
            self._fragments += self._in_fragments
            return at + length
        if self._in_fragments:
            raise NotDicom("a fragment of an instance has no length")
        self._enter()
        return at

    def _enter(self) -> None:
        if len(self._outer) >= 2 * _DEEPEST:  # a sequence and its item each
            raise NotDicom("the sequences of an instance are nested without end")
        self._outer.append(bool(self._implicit))

    def _note(self, tag: int, data: bytes | memoryview, value: int, length: int) -> bool:
        """False: the value isn't all here yet."""
        if tag in _VITAL:
            self._lengths[tag] = length
        elif tag in _NOTED and length != UNDEFINED:
            if length > _LONGEST_WANTED:
                raise NotDicom("a value of an instance is far longer than it may be")
            if value + length > len(data):
                return False
            self._values[tag] = bytes(data[value : value + length])
        return True

    def _is_padding(self, data: bytes | memoryview) -> bool:
        """Some writers fill up with zeros what lies behind the pixels."""
        return not self._outer and _PIXELS in self._lengths and not self.skipping and not any(data)

    def _require_one_of(self, *tags: int) -> None:
        if not any(self._lengths.get(tag) for tag in tags):
            raise CutOff("an instance ends before its content")

    @property
    def _frames(self) -> int:
        told = self._values.get(_FRAMES, b"").strip(b" \0+")
        return max(1, int(told)) if told.isdigit() else 1

    def _size_of(self, tag: int) -> int:
        """How many bytes its pixels take at the least, as far as it says."""
        samples, rows, columns, bits = (self._number(tag) for tag in _NUMBERS)
        values = self._frames * rows * columns
        if tag != _PIXELS:
            return values * (4 if tag == _FLOATS else 8)
        photometric = self._values.get(_PHOTOMETRIC, b"").strip(b" \0")
        if photometric == b"YBR_FULL_422":
            return values * 2 * bits // 8
        if photometric == b"YBR_PARTIAL_420":
            return values * 3 * bits // 16
        return (values * max(1, samples) * bits + 7) // 8

    def _number(self, tag: int) -> int:
        return int.from_bytes(
            self._values.get(tag, b"")[:2], "big" if self._syntax == BIG_ENDIAN else "little"
        )
