"""Packed frames, whose makers write into them what they like besides the picture: comments, tags, boxes of
their own, words in profiles of colours, and whatever behind its end."""

from __future__ import annotations

import re
from collections.abc import Generator
from dataclasses import dataclass
from typing import Final

from gateway.privacy.colours import HEAD, UNUSED, pieces, tags_after, words_in

_JPEG, _JPEG_2000 = b"\xff\xd8", b"\xff\x4f"
_BOXES: Final = (b"\0\0\0\x0cjP  ", b"\0\0\0\x0cJXL ")  # of JPEG 2000, of JPEG XL
_BEGINS: Final = (b"\xff\xd8\xff", b"\xff\x4f\xff\x51", *_BOXES)
_LOOK: Final = 8  # bytes that tell whether a picture begins
_COMMENT, _COMMENT_2000 = 0xFFFE, 0xFF64
_SCAN, _END, _TILE_PART, _DATA = 0xFFDA, 0xFFD9, 0xFF90, 0xFF93
_COLOURS, _OF_COLOURS = b"ICC_PROFILE\0", 0xFFE2
# Of those that applications write, how they begin, and as much of them as shapes the picture.
_SHAPING: Final = {
    0xFFE0: {b"JFIF\0": 14},
    0xFFE8: {b"mrfx": 5, b"SPIFF\0": 30, b"\0\0\0\1\xff\xd8": 6},
    0xFFEE: {b"Adobe": 12},
}
_WITHOUT_LENGTH: Final = frozenset((0xFF01, *range(0xFFD0, 0xFFD9)))
_AFTER_DATA: Final = re.compile(rb"\xff[\x80-\xcf\xd8-\xfe]")  # which no data of a picture hold
_ANOTHER: Final = re.compile(rb"\xff\xd8")
_PICTURE: Final = frozenset((b"ftyp", b"rreq", b"jxll", b"jxlc", b"jxlp", b"jxli"))
_IN_HEADER: Final = frozenset((b"ihdr", b"bpcc", b"pclr", b"cmap", b"cdef"))
_REST: Final = 2**63


@dataclass(frozen=True, slots=True)
class _Read:
    length: int


@dataclass(frozen=True, slots=True)
class _Match:
    """As far as it is the same as one of them."""

    expected: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class _Pass:
    """`fill`: what is to stand there; a single byte for each of them."""

    length: int
    fill: bytes = b""


@dataclass(frozen=True, slots=True)
class _Find:
    """On to these two bytes. `fill` for what lies before."""

    these: re.Pattern[bytes]
    fill: bytes = b""


_Asked = _Read | _Match | _Pass | _Find
_Parsing = Generator[_Asked, bytes, None]


class Frame:
    """However it is cut, into fragments too. What is blanked stays as long as it was; of pixels it is only
    looked for where they end."""

    def __init__(self) -> None:
        self._held: bytes | None = None  # of a fragment, until it can be told what it is
        self._restart()

    def begin(self, length: int = 0) -> None:
        """A fragment of so many bytes: a frame, or more of one."""
        if self._asked is None:
            self._restart()
        elif length >= _LOOK:
            self._held = b""

    def blanked(self, data: memoryview) -> memoryview:
        """The next bytes of it, but for a few that may come with those after: the very same, if there is
        nothing to blank."""
        if self._held is not None:
            if len(self._held) + len(data) < _LOOK:
                self._held += data
                return memoryview(b"")
            if self._held:
                data = memoryview(self._held + bytes(data))
            self._held = None
            if bytes(data[:_LOOK]).startswith(_BEGINS):
                self._restart()
        changed: bytearray | None = None
        at = 0
        while at < len(data) and self._asked is not None:
            end, fill = self._take(data, at)
            if fill:
                changed = changed if changed is not None else bytearray(data)
                changed[at : at + len(fill)] = fill
            at = end
        return data if changed is None else memoryview(bytes(changed))

    def _restart(self) -> None:
        self._parsing = _parse()
        self._asked: _Asked | None = next(self._parsing)
        self._taken = b""
        self._done = 0

    def _answer(self, told: bytes) -> None:
        self._taken, self._done = b"", 0
        try:
            self._asked = self._parsing.send(told)
        except StopIteration:
            self._asked = None

    def _take(self, data: memoryview, at: int) -> tuple[int, bytes]:
        """Up to where, and what is to stand there instead."""
        match self._asked:
            case _Read(length):
                end = min(len(data), at + length - len(self._taken))
                self._taken += data[at:end]
                if len(self._taken) == length:
                    self._answer(self._taken)
                return end, b""
            case _Match(expected):
                told = self._taken + bytes(data[at : at + 1])
                if told not in expected and any(each.startswith(told) for each in expected):
                    self._taken = told
                    return at + 1, b""
                same = told in expected
                self._answer(told if same else self._taken)
                return at + same, b""
            case _Pass(length, fill):
                end = min(len(data), at + length - self._done)
                step = end - at
                told = fill * step if len(fill) == 1 else fill[self._done : self._done + step]
                self._done += step
                if self._done == length:
                    self._answer(b"")
                return end, told
            case _Find(these, fill):
                return self._find(data, at, these, fill)
        raise AssertionError

    def _find(self, data: memoryview, at: int, these: re.Pattern[bytes], fill: bytes) -> tuple[int, bytes]:
        if self._taken and these.fullmatch(self._taken + bytes(data[at : at + 1])):
            self._answer(self._taken + bytes(data[at : at + 1]))
            return at + 1, b""
        found = these.search(data, at)
        if found is None:
            self._taken = b"\xff" if data[-1] == 0xFF else b""
            return len(data), fill * (len(data) - at - len(self._taken))
        self._answer(bytes(found.group()))
        return found.end(), fill * (found.start() - at)


def _parse() -> _Parsing:
    kind = yield _Read(2)
    if kind == _JPEG:
        yield from _of_markers()
    elif kind == _JPEG_2000:
        yield from _of_tiles()
    elif kind == b"\0\0":
        kind += yield _Read(6)
        if kind in _BOXES:
            yield _Pass(4)
            yield from _of_boxes()


def _of_markers() -> _Parsing:
    """JPEG, JPEG-LS."""
    colours = _Colours()
    marker = yield from _next_marker()
    while True:
        if marker == _END:
            yield _Find(_ANOTHER, b"\0")
            colours = _Colours()
            marker = yield from _next_marker()
            continue
        if marker not in _WITHOUT_LENGTH:
            length = max(0, int.from_bytes((yield _Read(2)), "big") - 2)
            if marker == _OF_COLOURS:
                yield from colours.segment(length)
            elif 0xFFE0 <= marker <= 0xFFEF:
                yield from _of_application(marker, length)
            else:
                yield _Pass(length, b" " if marker == _COMMENT else b"")
        if marker == _SCAN:
            marker = int.from_bytes((yield _Find(_AFTER_DATA)), "big")
        else:
            marker = yield from _next_marker()


def _next_marker() -> Generator[_Asked, bytes, int]:
    told = yield _Read(2)
    while told[0] != 0xFF or told[1] in (0x00, 0xFF):  # padding, which decoders skip
        told = told[1:] + (yield _Read(1))
    return int.from_bytes(told, "big")


def _of_application(marker: int, length: int) -> _Parsing:
    shapes = {name: size for name, size in _SHAPING.get(marker, {}).items() if size <= length}
    kept = 0
    if shapes:
        name = yield _Match(tuple(shapes))
        kept = len(name)
        if name in shapes:
            kept = shapes[name]
            yield _Pass(kept - len(name))
    yield _Pass(length - kept, b" ")


class _Colours:
    """A profile, which may lie in several segments."""

    def __init__(self) -> None:
        self._words: list[tuple[int, int]] | None = None
        self._at = 0

    def segment(self, length: int) -> _Parsing:
        kept = len((yield _Match((_COLOURS,)))) if length > len(_COLOURS) + 1 else 0
        if kept < len(_COLOURS):
            yield _Pass(length - kept, b" ")
            return
        yield _Pass(2)
        yield from self.part(length - kept - 2)

    def part(self, length: int) -> _Parsing:
        if self._words is None:
            if length < HEAD:
                yield _Pass(length, b" ")
                return
            head = yield _Read(UNUSED[0])
            yield _Pass(UNUSED[1] - UNUSED[0], b"\0")
            head += bytes(UNUSED[1] - UNUSED[0]) + (yield _Read(HEAD - UNUSED[1]))
            size = min(tags_after(head), length - HEAD)
            tags = (yield _Read(size)) if size else b""
            self._words, self._at = words_in(head, tags), HEAD + size
            length -= self._at
        for step, told in pieces(self._at, length, self._words):
            yield _Pass(step, told)
        self._at += length


def _of_tiles() -> _Parsing:
    """JPEG 2000's codestream."""
    while (marker := int.from_bytes((yield _Read(2)), "big")) != _END:
        if marker < 0xFF00 or marker == _DATA:
            return
        if marker == _TILE_PART:
            head = yield _Read(10)
            size = int.from_bytes(head[4:8], "big") - 12
            while (marker := int.from_bytes((yield _Read(2)), "big")) != _DATA:
                size -= 2 + (yield from _segment_2000(marker))
            if size < 2:  # to the end, wherever that is
                return
            yield _Pass(size - 2)
        elif marker not in _WITHOUT_LENGTH:
            yield from _segment_2000(marker)
    yield _Pass(1)  # an even length's
    yield _Pass(_REST, b"\0")


def _segment_2000(marker: int) -> Generator[_Asked, bytes, int]:
    """How long it is."""
    length = max(2, int.from_bytes((yield _Read(2)), "big"))
    told = 0
    if marker == _COMMENT_2000 and length >= 4:
        told = len((yield _Read(2)))  # what kind of comment it is
    yield _Pass(length - 2 - told, b" " if marker == _COMMENT_2000 else b"")
    return length


def _of_boxes() -> _Parsing:
    """JPEG XL, or JPEG 2000 as in files of its own."""
    while True:
        kind, length = yield from _box()
        if kind == b"jp2h":
            yield from _within(_header_boxes(), length)
        elif kind == b"jp2c":
            yield from _within(_codestream(), length)
        else:
            yield _Pass(length, b"" if kind in _PICTURE else b" ")


def _box() -> Generator[_Asked, bytes, tuple[bytes, int]]:
    head = yield _Read(8)
    size, told = int.from_bytes(head[:4], "big"), 8
    if size == 1:
        size, told = int.from_bytes((yield _Read(8)), "big"), 16
    return head[4:], _REST if size == 0 else max(0, size - told)


def _header_boxes() -> _Parsing:
    while True:
        kind, length = yield from _box()
        if kind == b"colr" and length > 3:
            way = yield _Read(3)
            yield from _Colours().part(length - 3) if way[0] != 1 else _passing(length - 3)
        else:
            yield _Pass(length, b"" if kind in _IN_HEADER else b" ")


def _passing(length: int) -> _Parsing:
    yield _Pass(length)


def _codestream() -> _Parsing:
    yield _Read(2)
    yield from _of_tiles()


def _within(parsing: _Parsing, length: int) -> _Parsing:
    """No further than that."""
    asked = next(parsing)
    try:
        while length > 0:
            assert isinstance(asked, _Read | _Pass)
            step = min(asked.length, length)
            told = yield _Read(step) if isinstance(asked, _Read) else _Pass(step, asked.fill)
            length -= step
            if step == asked.length:
                asked = parsing.send(told)
    except StopIteration:
        yield _Pass(length)
