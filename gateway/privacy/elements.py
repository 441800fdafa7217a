"""A dataset as a tree of elements with the bytes of their values, and back: what nobody touches comes out as
it came in, however it was written."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from gateway.dicom.part10 import BIG_ENDIAN, IMPLICIT, LONG_VRS, UNDEFINED, NotDicom

_DEEPEST: Final = 64
_ITEM, _ITEM_ENDS, _ENDS = 0xE000, 0xE00D, 0xE0DD


@dataclass(slots=True)
class Element:
    """`items`: of a sequence; None for any other. `raw`: fragments and all, as it stands in the file."""

    tag: int
    vr: str
    value: bytes = b""
    items: list[list[Element]] | None = None
    raw: bytes | None = None
    as_written: str = ""  # the VR in the file, where it is another: UN
    implicit: bool = field(default=False)  # within, though not outside

    def __repr__(self) -> str:
        return f"Element({self.tag:08x})"


class Writing:
    """How a dataset is written: the byte order, and whether VRs stand there."""

    def __init__(self, transfer_syntax: str, begins: bytes = b"") -> None:
        self.order = ">" if transfer_syntax == BIG_ENDIAN else "<"
        self.implicit = transfer_syntax == IMPLICIT or (len(begins) >= 6 and not begins[4:6].isalpha())
        self._tag = struct.Struct(self.order + "HH")
        self._short = struct.Struct(self.order + "H")
        self._long = struct.Struct(self.order + "L")

    def read(self, data: bytes) -> list[Element]:
        """All of it; NotDicom, if it isn't whole."""
        try:
            elements, _ = self._read(data, 0, len(data), self.implicit, 0)
        except (struct.error, IndexError):
            raise NotDicom("the header of an instance is cut off within an element") from None
        return elements

    def write(self, elements: list[Element]) -> bytes:
        out = bytearray()
        self._write(out, elements, self.implicit)
        return bytes(out)

    def number(self, data: memoryview, at: int, size: int) -> int:
        return int.from_bytes(data[at : at + size], "little" if self.order == "<" else "big")

    # -- reading --

    def _read(self, data: bytes, at: int, end: int, implicit: bool, depth: int) -> tuple[list[Element], int]:
        """Up to `end`, or, where that isn't known (-1), the item's own delimiter."""
        if depth > _DEEPEST:
            raise NotDicom("the sequences of an instance are nested without end")
        elements: list[Element] = []
        until = len(data) if end < 0 else end
        while at < until:
            begin = at
            group, number = self._tag.unpack_from(data, at)
            if group == 0xFFFE:
                if number == _ITEM_ENDS and end < 0:
                    return elements, at + 8
                raise NotDicom("a sequence ends, or goes on, that never began")
            tag = (group << 16) | number
            vr, written = "", ""
            if implicit:
                vr = known_vr(tag)
                length, at = self._long.unpack_from(data, at + 4)[0], at + 8
            else:
                code = data[at + 4 : at + 6]
                if code in LONG_VRS:
                    length, at = self._long.unpack_from(data, at + 8)[0], at + 12
                elif code.isalpha():
                    length, at = self._short.unpack_from(data, at + 6)[0], at + 8
                else:
                    raise NotDicom("an element has no value representation")
                vr = code.decode("ascii")
                if vr == "UN":
                    vr, written = known_vr(tag), "UN"
            element = Element(tag, vr, as_written=written)
            elements.append(element)
            if length == UNDEFINED:
                at = self._open(data, at, begin, element, implicit, depth)
                continue
            if at + length > until:
                raise NotDicom("the header of an instance is cut off within an element")
            if vr != "SQ" or not self._hold(data, at, length, element, implicit or written == "UN", depth):
                element.value = data[at : at + length]
            at += length
        if end < 0:
            raise NotDicom("a sequence of an instance doesn't end")
        return elements, at

    def _open(self, data: bytes, at: int, begin: int, element: Element, implicit: bool, depth: int) -> int:
        """A value of undefined length: items, or fragments of pixels."""
        if element.vr not in ("SQ", "UN"):
            while True:
                number, length = self._item(data, at)
                at += 8
                if number == _ENDS:
                    element.raw = data[begin:at]
                    return at
                at += length
        within = implicit or element.as_written == "UN"
        element.vr, element.items, element.implicit = "SQ", [], within and not implicit
        while True:
            number, length = self._item(data, at)
            at += 8
            if number == _ENDS:
                return at
            item, at = self._read(data, at, -1 if length == UNDEFINED else at + length, within, depth + 1)
            element.items.append(item)

    def _hold(self, data: bytes, at: int, length: int, element: Element, within: bool, depth: int) -> bool:
        """A sequence of so many bytes; False: it is called UN and can't be read as one."""
        end, items = at + length, []
        try:
            while at < end:
                number, size = self._item(data, at)
                at += 8
                if number == _ENDS:  # of no use here, and some write it
                    continue
                item, at = self._read(data, at, -1 if size == UNDEFINED else at + size, within, depth + 1)
                items.append(item)
        except (NotDicom, struct.error):
            if element.as_written != "UN":
                raise
            element.vr = "UN"
            return False
        element.items, element.implicit = items, within and not self.implicit
        return True

    def _item(self, data: bytes, at: int) -> tuple[int, int]:
        group, number = self._tag.unpack_from(data, at)
        if group != 0xFFFE or number not in (_ITEM, _ENDS):
            raise NotDicom("a sequence of an instance holds something that is no item")
        return number, self._long.unpack_from(data, at + 4)[0]

    # -- writing --

    def _write(self, out: bytearray, elements: list[Element], implicit: bool) -> None:
        for element in elements:
            if element.raw is not None:
                out += element.raw
            elif element.items is None:
                self._head(out, element, len(element.value), implicit)
                out += element.value
            else:
                self._head(out, element, UNDEFINED, implicit)
                for item in element.items:
                    out += self._tag.pack(0xFFFE, _ITEM) + self._long.pack(UNDEFINED)
                    self._write(out, item, implicit or element.implicit)
                    out += self._tag.pack(0xFFFE, _ITEM_ENDS) + self._long.pack(0)
                out += self._tag.pack(0xFFFE, _ENDS) + self._long.pack(0)

    def _head(self, out: bytearray, element: Element, length: int, implicit: bool) -> None:
        out += self._tag.pack(element.tag >> 16, element.tag & 0xFFFF)
        if implicit:
            out += self._long.pack(length)
            return
        code = (element.as_written if element.implicit or element.items is None else "") or element.vr
        vr = code.encode("ascii")
        if vr not in LONG_VRS and length > 0xFFFF:
            vr = b"UN"
        out += vr
        out += b"\0\0" + self._long.pack(length) if vr in LONG_VRS else self._short.pack(length)


@lru_cache(maxsize=8192)
def known_vr(tag: int) -> str:
    """Where the file doesn't say; of several, the first."""
    from pydicom.datadict import dictionary_has_tag, dictionary_VR

    if tag >> 16 & 1:
        return "LO" if 0x10 <= tag & 0xFFFF <= 0xFF else "UN"
    if tag & 0xFFFF == 0:
        return "UL"
    return dictionary_VR(tag)[:2] if dictionary_has_tag(tag) else "UN"
