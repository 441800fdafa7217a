"""The original files of a slide: tens of gigabytes, whole or not at all, in constant memory.

They come as a multipart body or, if it is one file, as a plain stream. The first is whole when its closing
boundary was seen, the second when its promised length has come; HTTP alone proves neither. A plain stream
that breaks goes on where it ended, if the server promises that it is still the same file (a strong ETag).
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from email.message import Message

import aiohttp

from gateway.contract import NeedsHuman, Permanent, Retryable
from gateway.dicom.multipart import Data, Malformed, Parser, PartBegin, boundary_of
from gateway.sectra.calls import Caller, segment

DOING = "downloading the slide's files"
_RESUMPTIONS = 5  # within one download; the engine's patience comes on top
_LONGEST_NAME = 120
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)$")


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a broken download of a single file got to, and what tells that the file is still the same."""

    name: str
    media_type: str
    etag: str
    size: int
    at: int


@dataclass(frozen=True, slots=True)
class Begin:
    """A file begins, or goes on at `at`. `name` is the server's, made harmless; it may hold a patient's name.
    With an `etag` it can be resumed."""

    name: str
    media_type: str
    size: int | None = None
    etag: str | None = None
    at: int = 0
    alone: bool = False  # no others follow


@dataclass(frozen=True, slots=True)
class Chunk:
    data: bytes | memoryview
    end: int  # how many bytes of the file there are now


@dataclass(frozen=True, slots=True)
class End:
    """The last file is proven whole only when the events end without a failure."""


Event = Begin | Chunk | End


class SlideFile:
    """One file on its way. What isn't read of it is skipped when the next one is asked for."""

    def __init__(self, begin: Begin, events: AsyncIterator[Event]) -> None:
        self.name = begin.name
        self.media_type = begin.media_type
        self.size = begin.size
        self.alone = begin.alone
        self._events = events
        self._ended = False

    async def chunks(self) -> AsyncIterator[bytes | memoryview]:
        while not self._ended:
            event = await anext(self._events)
            if isinstance(event, Chunk):
                yield event.data
            else:
                self._ended = True

    async def skip(self) -> None:
        async for _ in self.chunks():
            pass


async def stream_files(call: Caller, slide_id: str) -> AsyncGenerator[SlideFile, None]:
    events = read_events(call, slide_id)
    try:
        async for event in events:
            if isinstance(event, Begin):
                file = SlideFile(event, events)
                yield file
                await file.skip()
    finally:
        await events.aclose()


async def read_events(call: Caller, slide_id: str, mark: Mark | None = None) -> AsyncGenerator[Event, None]:
    """The files, one after the other. A `mark` is honoured if the server can; `Begin.at` says so."""
    path = f"/slides/{segment(slide_id)}/files"
    begun = False
    for spare in range(_RESUMPTIONS, -1, -1):
        asked_from = mark.at if mark else 0
        try:
            async with call.open(
                "GET",
                path,
                DOING,
                headers=_wish(mark),
                welcome=(200, 204, 206, 416) if mark else (200, 204),
                transfer=True,
            ) as response:
                if response.status == 204:
                    raise _none(call)
                if response.content_type.startswith("multipart/") and not begun:
                    async for event in _parts(call, response):
                        yield event
                    return
                if mark and not _goes_on(response, mark):
                    if begun:
                        raise _changed(call)
                    mark = None
                    continue
                begin = _begin(call, response, mark)
                if not begun:
                    yield begin
                elif begin.at != asked_from:
                    raise _changed(call)
                begun, mark = True, _mark(begin, begin.at)
                async for chunk in _body(call, response, begin):
                    mark = _mark(begin, chunk.end)
                    yield chunk
                yield End()
                return
        except Retryable:
            if not spare or mark is None or mark.at <= asked_from:
                raise


async def _body(call: Caller, response: aiohttp.ClientResponse, begin: Begin) -> AsyncIterator[Chunk]:
    end = begin.at
    async for data in call.chunks_of(response, DOING):
        end += len(data)
        _check_size(call, end)
        yield Chunk(data, end)
    if begin.size is not None and end != begin.size:
        raise Retryable(
            f"Sectra ({call.host}) sent another number of bytes than it promised", "Look at its log."
        )


async def _parts(call: Caller, response: aiohttp.ClientResponse) -> AsyncIterator[Event]:
    files = end = total = 0
    try:
        parser = Parser(boundary_of(response.headers["Content-Type"]))
        async for data in call.chunks_of(response, DOING):
            _check_size(call, total := total + len(data))
            for event in parser.feed(data):
                if isinstance(event, Data):
                    end += len(event.data)
                    yield Chunk(event.data, end)
                elif isinstance(event, PartBegin):
                    files, end = files + 1, 0
                    _check_count(call, files)
                    disposition = event.headers.get("content-disposition", "")
                    yield Begin(_name(disposition), event.headers.get("content-type", ""))
                else:
                    yield End()
            if parser.complete:
                break
        parser.close()
    except Malformed as error:
        raise Retryable(
            f"Sectra ({call.host}) did not end its answer as it must while {DOING}: {error}",
            "A proxy may have cut it off; look at its log and Sectra's.",
        ) from error
    if not files:
        raise _none(call)


def _begin(call: Caller, response: aiohttp.ClientResponse, mark: Mark | None) -> Begin:
    headers = response.headers
    if mark and response.status == 206:
        return Begin(mark.name, mark.media_type, mark.size, mark.etag, mark.at, alone=True)
    encoded = headers.get("Content-Encoding", "identity") != "identity"
    size = None if encoded else response.content_length
    if size is None and "chunked" not in headers.get("Transfer-Encoding", "").lower():
        raise NeedsHuman(
            f"Sectra ({call.host}) sends the slide's file without its length: a cut one would look whole",
            "Look for a proxy in between that strips Content-Length.",
        )
    _check_size(call, size or 0)
    etag = headers.get("ETag", "")
    resumable = size and etag.startswith('"') and headers.get("Accept-Ranges", "").strip().lower() == "bytes"
    name = _name(headers.get("Content-Disposition", ""))
    return Begin(name, response.content_type, size, etag if resumable else None, alone=True)


def _goes_on(response: aiohttp.ClientResponse, mark: Mark) -> bool:
    """Whether this is the rest of the same file, or at least a file from its beginning."""
    if response.status == 200:
        return True
    found = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
    return (
        response.status == 206
        and found is not None
        and (int(found[1]), int(found[2])) == (mark.at, mark.size)
        and response.headers.get("ETag", mark.etag) == mark.etag
    )


def _wish(mark: Mark | None) -> dict[str, str]:
    wish = {"Accept": "multipart/related, application/octet-stream, */*;q=0.5", "Accept-Encoding": "identity"}
    return wish | ({"Range": f"bytes={mark.at}-", "If-Range": mark.etag} if mark else {})


def _mark(begin: Begin, at: int) -> Mark | None:
    if not begin.etag or not begin.size:
        return None
    return Mark(begin.name, begin.media_type, begin.etag, begin.size, at)


def _check_size(call: Caller, size: int) -> None:
    if size > call.limits.slide_bytes:
        raise Permanent(
            f"the slide's files are larger than the {call.limits.slide_bytes >> 20} MiB allowed",
            "Raise max_bytes of the application if such slides are wanted.",
        )


def _check_count(call: Caller, count: int) -> None:
    if count > call.limits.slide_files:
        raise Permanent(
            f"the slide has more than {call.limits.slide_files} files", "Look at the slide in Sectra."
        )


def _none(call: Caller) -> Permanent:
    return Permanent(f"Sectra ({call.host}) has no files for this slide", "Look at the slide in Sectra.")


def _changed(call: Caller) -> Retryable:
    return Retryable(
        f"the file at Sectra ({call.host}) changed while it was downloaded",
        "It is downloaded from its beginning.",
    )


def _name(disposition: str) -> str:
    """The last step of whatever path is named, without what a file system or a terminal could take amiss."""
    parsed = Message()
    parsed["Content-Disposition"] = disposition.replace("\r", " ").replace("\n", " ")
    name = re.split(r"[/\\]", parsed.get_filename("") or "")[-1]
    name = "".join("_" if mark in '<>:"|?*' or not mark.isprintable() else mark for mark in name)
    return name.strip(" .")[-_LONGEST_NAME:] or "file"
