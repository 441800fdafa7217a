"""multipart/related without I/O: bytes in, events out, and the reverse.

A stream of parts is whole only when its closing boundary was seen: HTTP itself may end a broken one without
an error. Part data are passed on as views of the chunks they came in, never gathered.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.message import Message
from enum import Enum, auto


class Malformed(ValueError):
    """These bytes are no multipart body."""


class Truncated(Malformed):
    """The body ended before its closing boundary."""


@dataclass(frozen=True, slots=True)
class PartBegin:
    headers: Mapping[str, str]  # names in lower case


@dataclass(frozen=True, slots=True)
class Data:
    data: bytes | memoryview


@dataclass(frozen=True, slots=True)
class PartEnd:
    pass


Event = PartBegin | Data | PartEnd


def media_type_of(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def boundary_of(content_type: str) -> str:
    media_type = media_type_of(content_type)
    if not media_type.startswith("multipart/"):
        raise Malformed(f"expected a multipart body, not {media_type[:80] or 'one without a content type'}")
    message = Message()
    message["content-type"] = content_type.replace("\r", "").replace("\n", "")
    boundary = message.get_boundary("")
    if not boundary or len(boundary) > 256 or not boundary.isascii():
        raise Malformed("the content type names no usable boundary")
    return boundary


class _State(Enum):
    PREAMBLE = auto()
    HEADERS = auto()
    BODY = auto()
    DONE = auto()


# What may follow a boundary: the closing dashes, or padding and the end of the line. Anything else, and it
# was a longer word that happens to begin alike, so data.
_LINE = re.compile(rb"(--)|[ \t]{0,256}\r?\n")
_UNFINISHED_LINE = re.compile(rb"-?|[ \t]{0,256}\r?")
_EMPTY_LINE = re.compile(rb"\n(\r?\n)")


class Parser:
    def __init__(self, boundary: str, max_header: int = 65536, most_parts: int = 100_000) -> None:
        self._dashed = b"--" + boundary.encode("ascii")
        self._delimiter = b"\r\n" + self._dashed
        self._max_header = max_header
        self._parts_left = most_parts
        self._state = _State.PREAMBLE
        self._held = b""  # the end of the last chunk, where it may be the beginning of something
        self._skip = 0  # bytes of the headers' empty line: a delimiter may begin in it, data don't

    @property
    def complete(self) -> bool:
        return self._state is _State.DONE

    def feed(self, data: bytes) -> Iterator[Event]:
        if self._held:
            data, self._held = self._held + data, b""
        events: list[Event] = []
        at: int | None = 0
        while at is not None and self._state is not _State.DONE:
            if self._state is _State.BODY:
                at = self._read_body(data, at, events)
            elif self._state is _State.HEADERS:
                at = self._read_headers(data, at, events)
            else:
                at = self._read_preamble(data)
        return iter(events)

    def close(self) -> None:
        if self._state is not _State.DONE:
            raise Truncated("the multipart body ended before its closing boundary")

    # Each reader returns where the next one goes on, or None once it has held back what it can't judge yet.

    def _read_preamble(self, data: bytes) -> int | None:
        found = data.find(self._dashed, 0, self._max_header)
        while found != -1:
            end = found + len(self._dashed)
            if found == 0 or data[found - 1] == 0x0A:
                line = _LINE.match(data, end)
                if line:
                    if not line[1] and not line[0].endswith(b"\r\n"):
                        self._delimiter = b"\n" + self._dashed  # a writer of bare line feeds
                    return self._pass_delimiter(line)
                if _UNFINISHED_LINE.fullmatch(data, end):
                    break
            found = data.find(self._dashed, found + 1, self._max_header)
        if len(data) > self._max_header:
            raise Malformed("the body doesn't begin with the boundary that its content type names")
        self._held = data
        return None

    def _pass_delimiter(self, line: re.Match[bytes]) -> int:
        self._state = _State.DONE if line[1] else _State.HEADERS
        return line.end() - 1  # at the line feed, so that headers that are empty end like any others

    def _read_headers(self, data: bytes, at: int, events: list[Event]) -> int | None:
        end = _EMPTY_LINE.search(data, at, at + self._max_header)
        if end is None:
            if len(data) - at > self._max_header:
                raise Malformed("the headers of a part don't end")
            self._held = data[at:]
            return None
        self._parts_left -= 1
        if self._parts_left < 0:
            raise Malformed("the body has more parts than any real one")
        events.append(PartBegin(_parse_headers(data[at + 1 : end.start(1)])))
        self._skip = len(end[1])
        self._state = _State.BODY
        return end.start(1)

    def _read_body(self, data: bytes, at: int, events: list[Event]) -> int | None:
        delimiter = self._delimiter
        search = at
        while (found := data.find(delimiter, search)) != -1:
            end = found + len(delimiter)
            line = _LINE.match(data, end)
            if line:
                self._pass_data(data, at, found, events)
                events.append(PartEnd())
                return self._pass_delimiter(line)
            if _UNFINISHED_LINE.fullmatch(data, end):
                break
            search = found + 1
        if found == -1:
            found = self._unsure_from(data, search)
        self._pass_data(data, at, found, events)
        self._held = data[found:]
        return None

    def _pass_data(self, data: bytes, at: int, end: int, events: list[Event]) -> None:
        begin = at + self._skip
        self._skip = max(0, begin - end)
        if begin == 0 and end == len(data) > 0:
            events.append(Data(data))
        elif begin < end:
            events.append(Data(memoryview(data)[begin:end]))

    def _unsure_from(self, data: bytes, at: int) -> int:
        """Where the end of these data may be the first bytes of a delimiter."""
        first = self._delimiter[:1]
        found = data.find(first, max(at, len(data) - len(self._delimiter) + 1))
        while found != -1 and not self._delimiter.startswith(data[found:]):
            found = data.find(first, found + 1)
        return len(data) if found == -1 else found


def _parse_headers(block: bytes) -> dict[str, str]:
    headers: dict[str, str] = {}
    name = ""
    for line in block.decode("latin-1").replace("\r\n", "\n").split("\n"):
        if name and line[:1] in (" ", "\t"):
            headers[name] += " " + line.strip()
        elif line:
            name, colon, value = line.partition(":")
            name = name.strip().lower()
            if not colon or not name:
                raise Malformed("a part has a line among its headers that is none")
            headers[name] = value.strip()
    return headers


class Writer:
    """The frame around the parts; their data go between `begin` and the next call."""

    def __init__(self, part_type: str = "application/dicom") -> None:
        self._part_type = part_type
        self._boundary = secrets.token_hex(16)
        self._begun = False
        self.content_type = f'multipart/related; type="{part_type}"; boundary={self._boundary}'

    def begin(self, headers: Mapping[str, str] | None = None) -> bytes:
        lines = [f"--{self._boundary}"]
        lines += [
            f"{name}: {value}" for name, value in (headers or {"Content-Type": self._part_type}).items()
        ]
        before = "\r\n" if self._begun else ""
        self._begun = True
        return (before + "\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    def end(self) -> bytes:
        before = "\r\n" if self._begun else ""
        return f"{before}--{self._boundary}--\r\n".encode("ascii")
