"""What follows an instance's header: its pixels, passed on as they come, and nothing else: what is written
within packed frames beside the picture is blanked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from gateway.dicom.part10 import LONG_VRS, UNDEFINED, NotDicom
from gateway.privacy.elements import Writing
from gateway.privacy.frames import Frame

_PIXELS: Final = frozenset((0x7FE00008, 0x7FE00009, 0x7FE00010))


class Tail:
    """However it is cut. Makers' own attributes, signatures and padding behind the pixels are left out."""

    def __init__(self, writing: Writing) -> None:
        self._writing = writing
        self._rest = b""
        self._passing = 0
        self._in_fragments = False
        self._over = False
        self._frame = Frame()

    def feed(self, data: memoryview) -> Iterator[memoryview]:
        if self._rest and not self._over:
            data, self._rest = memoryview(self._rest + bytes(data)), b""
        at = 0
        while not self._over:
            step = min(self._passing, len(data) - at)
            if step:
                passing = data[at : at + step]
                yield self._frame.blanked(passing) if self._in_fragments else passing
                at += step
                self._passing -= step
            if self._passing:
                return
            head = self._head(data[at : at + 12])
            if head is None:
                self._rest = bytes(data[at:])
                return
            if not self._over:
                yield data[at : at + head]
                at += head

    def _head(self, data: memoryview) -> int | None:
        """How long the head of what begins here is; None if it isn't all there."""
        if len(data) < 8:
            return None
        tag = (self._writing.number(data, 0, 2) << 16) | self._writing.number(data, 2, 2)
        if self._in_fragments:
            if tag not in (0xFFFEE000, 0xFFFEE0DD):
                raise NotDicom("the fragments of an instance don't end")
            self._in_fragments = tag == 0xFFFEE000
            self._passing = self._writing.number(data, 4, 4)
            self._frame.begin(self._passing)
            return 8
        if tag not in _PIXELS:
            self._over = True
            return 0
        if self._writing.implicit:
            size, length = 8, self._writing.number(data, 4, 4)
        elif bytes(data[4:6]) in LONG_VRS:
            if len(data) < 12:
                return None
            size, length = 12, self._writing.number(data, 8, 4)
        else:
            size, length = 8, self._writing.number(data, 6, 2)
        self._in_fragments = length == UNDEFINED
        self._passing = 0 if self._in_fragments else length
        return size
