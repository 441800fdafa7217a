"""Instances out of an answer that is still coming in, whole studies long, in a few chunks of memory."""

from __future__ import annotations

import asyncio
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
from gateway.dicom.part10 import MAX_HEADER, NotDicom, read_header
from gateway.dicom.web import nonsense, translated
from gateway.dicom.whole import WholeCheck
from gateway.http import LEAST_RATE, LeastRate, Pace, next_chunk

_FIRST_LOOK = 4096
_QUICKLY_READ = 16 * 1024


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
            await self._parts.follow(check, piece)
            yield bytes(piece)  # costs nothing where it is bytes already
        del head
        while (data := await self._parts.next_data(self)) is not None:
            await self._parts.follow(check, data)
            yield bytes(data)
        await self._parts.follow(check, None)


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

    async def follow(self, check: WholeCheck, data: bytes | memoryview | None) -> None:
        """None: that was all."""
        try:
            if data is None:
                check.finish()
            elif check.inflates:
                await asyncio.to_thread(check.feed, data)
            else:
                check.feed(data)
        except NotDicom as error:
            raise nonsense(self._peer, self._doing, f"with an instance that isn't whole ({error})") from error

    async def _begin_instance(self) -> StreamedInstance:
        known = bytearray()
        look_at = 0
        while True:
            event = await self._next_event()
            if not isinstance(event, Data):
                self._inside = False
                if (header := await self._read_header(known)) is not None:
                    return StreamedInstance(header, [bytes(known)], self)
                raise nonsense(self._peer, self._doing, "with a part that ends before it says what it is")
            # The header is short and the chunk long: copy a little first, and more only if needed. Where the
            # chunks are tiny, look again only when there is as much more.
            alone, rest = not known, memoryview(event.data)
            while rest:
                step = max(_FIRST_LOOK, look_at - len(known))
                known += rest[:step]
                rest = rest[step:]
                if len(known) < look_at:
                    continue
                look_at = min(2 * len(known), MAX_HEADER)
                if (header := await self._read_header(known)) is not None:
                    head = [event.data] if alone else [bytes(known), *([rest] if rest else ())]
                    return StreamedInstance(header, head, self)

    async def _read_header(self, known: bytearray) -> Header | None:
        try:
            if len(known) > _QUICKLY_READ:
                return await asyncio.to_thread(read_header, bytes(known))
            return read_header(bytes(known))
        except NotDicom as error:
            raise nonsense(self._peer, self._doing, f"with a part that is no instance ({error})") from error

    async def _next_event(self) -> Event | None:
        while not self._events:
            if self._parser.complete:
                return None
            with translated(self._peer, self._doing):
                chunk = await self._pace.read(next_chunk(self._response))
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
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise nonsense(peer, doing, "with something packed, which nobody asked for")
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
