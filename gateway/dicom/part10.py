"""The head of a DICOM file (PS3.10), read while the rest is still on its way.

A walk over the top-level elements, without values that nobody asked for: an instance costs some dozens of
microseconds, and no more bytes than its header has.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from itertools import takewhile
from typing import Final, Literal, NamedTuple

from gateway.contract import Header

MAX_HEADER: Final = 4 * 1024 * 1024
_PLAUSIBLE_RATIO: Final = 50  # of headers, which are text

IMPLICIT: Final = "1.2.840.10008.1.2"
DEFLATED: Final = "1.2.840.10008.1.2.1.99"
BIG_ENDIAN: Final = "1.2.840.10008.1.2.2"

UNDEFINED: Final = 0xFFFFFFFF
LONG_VRS: Final = frozenset(
    (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
)
_SOP_CLASS, _SOP_INSTANCE, _MODALITY = 0x00080016, 0x00080018, 0x00080060
_STUDY, _SERIES = 0x0020000D, 0x0020000E
WANTED: Final = frozenset((_SOP_CLASS, _SOP_INSTANCE, _MODALITY, _STUDY, _SERIES))
_PATIENT, _ISSUER = 0x00100020, 0x00100021
_FRAMES, _ROWS, _COLUMNS, _SLIDE_COLUMNS = 0x00280008, 0x00280010, 0x00280011, 0x00480006
_THICKNESS, _APART, _POSITION, _ORIENTATION = 0x00180050, 0x00180088, 0x00200032, 0x00200037
_SPACE, _SPACING = 0x00200052, 0x00280030
_OF_ITS_PLACE: Final = frozenset(
    (_THICKNESS, _APART, _POSITION, _ORIENTATION, _SPACE, _FRAMES, _ROWS, _COLUMNS, _SPACING, _SLIDE_COLUMNS)
)
_PLAIN: Final = frozenset("0123456789.+-eE\\ ")
_LONGEST: Final = 128
PIXELS: Final = 0x7FE00008  # all that can hold them begins here
_PIXELS: Final = frozenset((PIXELS, 0x7FE00009, 0x7FE00010))


class NotDicom(ValueError):
    """These bytes are no DICOM file, or one that doesn't say which instance it is."""


class _Element(NamedTuple):
    tag: int
    vr: bytes  # empty in implicit files
    start: int
    value: int
    end: int  # of a sequence of undefined length: of its head


class Meta(NamedTuple):
    values: dict[int, str]
    dataset: int

    @property
    def transfer_syntax(self) -> str:
        return self.values.get(0x00020010) or IMPLICIT


def read_header(data: bytes) -> Header | None:
    """What the first bytes of a file say of its instance; None as long as they don't reach far enough."""
    meta = read_meta(data)
    found: dict[int, str] = {}
    whole = False
    if meta:
        data, at = _open_dataset(data, meta)
        for element in _elements(data, at, meta.transfer_syntax):
            if element.tag > _SERIES:
                whole = True
                break
            if element.tag in WANTED:
                if element.end > len(data):
                    break
                found[element.tag] = _text(data, element)
                if element.tag == _SERIES:
                    whole = True
                    break
    if not meta or not whole:
        if len(data) >= MAX_HEADER:
            raise NotDicom("the header of an instance doesn't end")
        return None
    return header_of(found, meta)


def header_of(found: Mapping[int, str], meta: Meta) -> Header:
    header = Header(
        study_instance_uid=found.get(_STUDY, ""),
        series_instance_uid=found.get(_SERIES, ""),
        sop_instance_uid=found.get(_SOP_INSTANCE) or meta.values.get(0x00020003, ""),
        sop_class_uid=found.get(_SOP_CLASS) or meta.values.get(0x00020002, ""),
        transfer_syntax_uid=meta.transfer_syntax,
        modality=found.get(_MODALITY, ""),
    )
    if not (header.study_instance_uid and header.series_instance_uid and header.sop_instance_uid):
        raise NotDicom("an instance names no study, no series or no UID of its own")
    return header


class ImageReader:
    """How many columns the image has, or the whole slide that it is a part of, and where it lies, from its
    bytes as they come, however they are cut: gathered no further than needed to be sure."""

    def __init__(self) -> None:
        self._gathered = b""
        self._look_at = 0
        self._sure = False
        self._seen: dict[int, str] = {}

    def feed(self, data: bytes) -> None:
        if self._sure:
            return
        self._gathered += data
        if len(self._gathered) >= self._look_at:
            self._look()

    def width(self) -> int | None:
        """Of what has come so far."""
        seen = self._now()
        told = seen.get(_SLIDE_COLUMNS) or seen.get(_COLUMNS)
        return None if told is None else int(told)

    def lies(self) -> str | None:
        """In which frame of reference, and where there, in the words of its header; of several frames, and of
        a slide, nothing but the first, as the rest stands deep within."""
        seen = self._now()
        space = seen.get(_SPACE, "")
        if not space:
            return None
        if _SLIDE_COLUMNS in seen or seen.get(_FRAMES, "1").strip("+ ") not in ("", "1"):
            return space
        size = f"{seen.get(_ROWS, '')}\\{seen.get(_COLUMNS, '')}"
        place = [seen.get(each, "") for each in (_THICKNESS, _APART, _POSITION, _ORIENTATION)]
        return "|".join((space, *place, size, seen.get(_SPACING, "")))

    def _now(self) -> dict[int, str]:
        if not self._sure:
            self._look()
        return self._seen

    def _look(self) -> None:
        self._seen, self._sure = _read_image(self._gathered)
        self._look_at = 2 * len(self._gathered)
        if self._sure or len(self._gathered) >= MAX_HEADER:
            self._sure, self._gathered = True, b""


def _read_image(data: bytes) -> tuple[dict[int, str], bool]:
    """And whether more bytes would change nothing."""
    seen: dict[int, str] = {}
    try:
        meta = read_meta(data)
        if meta is None:
            return seen, False
        dataset, at = _open_dataset(data, meta)
        order: Literal["little", "big"] = "big" if meta.transfer_syntax == BIG_ENDIAN else "little"
        for element in _elements(dataset, at, meta.transfer_syntax):
            if element.tag > _SLIDE_COLUMNS:
                return seen, True
            if element.end > len(dataset):
                break
            if element.tag not in _OF_ITS_PLACE:
                continue
            if element.tag in (_ROWS, _COLUMNS, _SLIDE_COLUMNS):
                seen[element.tag] = str(int.from_bytes(dataset[element.value : element.end], order))
            elif element.end - element.value <= _LONGEST and _PLAIN.issuperset(
                said := _text(dataset, element)
            ):
                seen[element.tag] = said
    except NotDicom:  # perhaps only cut off here
        return seen, False
    return seen, False


def dataset_start(data: bytes) -> int | None:
    """Where the file meta information, which each archive writes anew, ends."""
    meta = read_meta(data)
    return meta.dataset if meta else None


def reaches(data: bytes, tag: int) -> bool:
    """Whether all that stands before this tag is there."""
    meta = read_meta(data)
    if meta is None:
        return False
    dataset, at = _open_dataset(data, meta)
    return any(element.tag >= tag for element in _elements(dataset, at, meta.transfer_syntax))


def find_element(data: bytes, transfer_syntax: str, tag: int) -> int | None:
    """Where the first element of a dataset begins that is this or one behind it; None as long as the bytes
    don't reach so far."""
    return next((each.start for each in _elements(data, 0, transfer_syntax) if each.tag >= tag), None)


def read_patient(data: bytes) -> tuple[bytes, ...]:
    """Its id and who issued it, as they are written, if the bytes reach so far."""
    meta = read_meta(data)
    if meta is None:
        return ()
    dataset, at = _open_dataset(data, meta)
    found = takewhile(lambda each: each.tag <= _ISSUER, _elements(dataset, at, meta.transfer_syntax))
    return tuple(dataset[each.value : each.end] for each in found if each.tag in (_PATIENT, _ISSUER))


def without_pixels(data: bytes) -> bytes:
    """The file with its pixel data emptied. `data` begins at its beginning and reaches at least to them."""
    meta = read_meta(data)
    if meta is None:
        raise NotDicom("the file meta information is cut off")
    dataset, at = _open_dataset(data, meta)
    for element in _elements(dataset, at, meta.transfer_syntax):
        if element.tag in _PIXELS:
            dataset = dataset[: element.value - 4] + bytes(4)  # all of the element but its length
            break
    if meta.transfer_syntax == DEFLATED:
        deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        return data[: meta.dataset] + deflate.compress(dataset) + deflate.flush()
    return dataset


def read_meta(data: bytes) -> Meta | None:
    """None as long as the bytes don't reach beyond it."""
    if len(data) < 132:
        return None
    if data[128:132] != b"DICM":
        raise NotDicom("the bytes don't begin like a DICOM file")
    values: dict[int, str] = {}
    declared = 0
    for element in _elements(data, 132, ""):
        at = element.end
        if at + 2 > len(data):
            return None
        if element.tag == 0x00020000 and at - element.value == 4:
            declared = at + int.from_bytes(data[element.value : at], "little")
        else:
            values[element.tag] = _text(data, element)
        if at == declared or data[at : at + 2] != b"\2\0":
            return Meta(values, at)
    return None


def _open_dataset(data: bytes, meta: Meta) -> tuple[bytes, int]:
    if meta.transfer_syntax != DEFLATED:
        return data, meta.dataset
    limit = min(MAX_HEADER, _PLAUSIBLE_RATIO * len(data))
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data[meta.dataset :], limit), 0
    except zlib.error as error:
        raise NotDicom("a deflated instance can't be inflated") from error


def _elements(data: bytes, at: int, transfer_syntax: str) -> Iterator[_Element]:
    """The top-level elements as far as the bytes go; what a sequence holds is stepped over."""
    order = ">" if transfer_syntax == BIG_ENDIAN else "<"
    read_head, read_long = struct.Struct(order + "HH2sH").unpack_from, struct.Struct(order + "L").unpack_from
    implicit = transfer_syntax == IMPLICIT or (
        transfer_syntax != "" and len(data) >= at + 6 and not data[at + 4 : at + 6].isalpha()
    )  # some writers declare explicit and write implicit
    outer: list[bool] = []  # one entry for each open sequence and item: was it implicit outside
    size = len(data)
    while at + 8 <= size:
        group, number, vr, length = read_head(data, at)
        value = at + 8
        if group == 0xFFFE:
            length = read_long(data, at + 4)[0]
            at = value
            if number == 0xE000 and length != UNDEFINED:
                at += length
            elif number == 0xE000:
                outer.append(implicit)
            elif outer:
                implicit = outer.pop()
            else:
                raise NotDicom("a sequence ends that never began")
            continue
        if implicit:
            vr, length = b"", read_long(data, at + 4)[0]
        elif vr in LONG_VRS:
            if at + 12 > size:
                return
            length = read_long(data, at + 8)[0]
            value = at + 12
        elif not vr.isalpha():
            raise NotDicom("an element has no value representation")
        end = value if length == UNDEFINED else value + length
        if not outer:
            yield _Element((group << 16) | number, vr, at, value, end)
        if length == UNDEFINED:
            outer.append(implicit)
            implicit = implicit or vr == b"UN"
        at = end


def _text(data: bytes, element: _Element) -> str:
    return data[element.value : element.end].decode("latin-1").strip(" \0")
