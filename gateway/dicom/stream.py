"""Instances out of an answer that is still coming in, whole studies long, in a few chunks of memory."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator

import aiohttp

from gateway.contract import Header, Retryable
from gateway.dicom.multipart import (
    Data,
    Event,
    Malformed,
    Parser,
    PartBegin,
    PartEnd,
    Truncated,
    boundary_of,
    media_type_of,
)
from gateway.dicom.part10 import NotDicom, read_header
from gateway.dicom.web import nonsense, translated
from gateway.dicom.whole import WholeCheck
from gateway.http import LEAST_RATE, LeastRate, Pace

_FIRST_LOOK = 4096


class StreamedInstance:
    """An instance on its way: its bytes are there once, until the next instance is asked for. Whoever reads
    them to their end has a whole one."""

    def __init__(self, header: Header, head: list[bytes | memoryview], parts: _Parts) -> None:
        self.header = header
        self._head = head
        self._parts = parts
        self._gone = False

    async def chunks(self) -> AsyncIterator[bytes]:
        if self._gone:
            raise RuntimeError("the bytes of a streamed instance come once")
        self._gone = True
        check = WholeCheck()
        head, self._head = self._head, []
        for piece in head:
            self._parts.follow(check, piece)
            yield bytes(piece)  # costs nothing where it is bytes already
        del head
        while (data := await self._parts.next_data(self)) is not None:
            self._parts.follow(check, data)
            yield bytes(data)
        self._parts.follow(check, None)


async def instances_of(
    response: aiohttp.ClientResponse,
    peer: str,
    doing: str,
    least: LeastRate = LEAST_RATE,
) -> AsyncGenerator[StreamedInstance, None]:
    """Ends only after the closing boundary; anything else is a failure. Unread bytes are skipped."""
    parts = _Parts(response, peer, doing, Pace(f"the {peer}", doing, least))
    while (instance := await parts.next_instance()) is not None:
        yield instance


class _Parts:
    def __init__(self, response: aiohttp.ClientResponse, peer: str, doing: str, pace: Pace) -> None:
        self._response = response
        self._pace = pace
        self._peer = peer
        self._doing = doing
        self._events: deque[Event] = deque()
        self._parser = _parser_for(response, peer, doing)
        # Chunks of HTTP may be tiny, so they are gathered; anything else is passed on as it came off the
        # socket, which spares a copy of every byte.
        self._chunked = "Transfer-Encoding" in response.headers
        self._current: StreamedInstance | None = None
        self._inside = False

    async def next_instance(self) -> StreamedInstance | None:
        self._current = None
        while True:
            event = await self._next_event()
            if event is None:
                return None
            if isinstance(event, PartBegin):
                self._inside = True
                self._current = await self._begin_instance()
                return self._current
            if isinstance(event, PartEnd):
                self._inside = False

    async def next_data(self, instance: StreamedInstance) -> bytes | memoryview | None:
        if instance is not self._current:
            raise RuntimeError("the bytes of a streamed instance are gone once the next one is asked for")
        while self._inside:
            event = await self._next_event()
            if isinstance(event, Data):
                return event.data
            self._inside = False
        return None

    def follow(self, check: WholeCheck, data: bytes | memoryview | None) -> None:
        """None: that was all."""
        try:
            if data is None:
                check.finish()
            else:
                check.feed(data)
        except NotDicom as error:
            raise nonsense(self._peer, self._doing, f"with an instance that isn't whole ({error})") from error

    async def _begin_instance(self) -> StreamedInstance:
        pieces: list[bytes | memoryview] = []
        known = b""
        while True:
            event = await self._next_event()
            if not isinstance(event, Data):
                raise nonsense(self._peer, self._doing, "with a part that ends before it says what it is")
            pieces.append(event.data)
            look = _FIRST_LOOK
            offered = memoryview(event.data)
            try:
                # The header is short and the chunk long: copy a little first, and all of it only if needed.
                header = None
                while header is None and offered:
                    known += offered[:look]
                    offered = offered[look:]
                    look = max(look, len(known))
                    header = read_header(known)
            except NotDicom as error:
                raise nonsense(
                    self._peer, self._doing, f"with a part that is no instance ({error})"
                ) from error
            if header is not None:
                return StreamedInstance(header, pieces, self)

    async def _next_event(self) -> Event | None:
        while not self._events:
            if self._parser.complete:
                return None
            with translated(self._peer, self._doing):
                content = self._response.content
                chunk = await self._pace.read(content.readany() if self._chunked else _as_it_came(content))
            try:
                if chunk:
                    self._events.extend(self._parser.feed(chunk))
                else:
                    self._parser.close()
            except Truncated as error:
                raise Retryable(
                    f"the {self._peer} broke off while {self._doing}: the closing boundary never came",
                    "If this goes on, look into the server's log: it may have died in the middle of a study.",
                ) from error
            except Malformed as error:
                raise nonsense(self._peer, self._doing, f"with a broken multipart body ({error})") from error
        return self._events.popleft()


async def _as_it_came(content: aiohttp.StreamReader) -> bytes:
    return (await content.readchunk())[0]


class _Bare:
    """A body that is one instance itself; such servers exist."""

    complete = False

    def __init__(self) -> None:
        self._begun = False

    def feed(self, data: bytes) -> list[Event]:
        begin: list[Event] = [] if self._begun else [PartBegin({})]
        self._begun = True
        return [*begin, Data(data)]

    def close(self) -> None:
        if not self._begun:
            raise Truncated("the body is empty")
        self.complete = True


def _parser_for(response: aiohttp.ClientResponse, peer: str, doing: str) -> Parser | _Bare:
    content_type = response.headers.get("Content-Type", "")
    kind = media_type_of(content_type)
    if kind.startswith("multipart/"):
        try:
            return Parser(boundary_of(content_type))
        except Malformed as error:
            raise nonsense(peer, doing, f"with a multipart body, but {error}") from error
    if kind == "application/dicom":
        if "Content-Length" in response.headers or "Transfer-Encoding" in response.headers:
            return _Bare()
        raise nonsense(peer, doing, "with an instance of unknown length, which may be cut off unseen")
    raise nonsense(peer, doing, f"with {kind[:60] or 'no content type'} instead of instances")
