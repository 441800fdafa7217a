"""The answers that are on their way to vendors: cut off when their job ends, wherever it was ended."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from uuid import UUID

from aiohttp import web

from gateway.loops import Loop

_LOOKS = 0.5  # seconds between two looks at the jobs
_LONGEST_SILENCE = 120.0  # of a vendor that doesn't read on


class Stream:
    """`cut`: why it was ended by us."""

    def __init__(self, job_id: UUID, request: web.Request) -> None:
        self.job_id = job_id
        self.size = 0
        self.cut: str | None = None
        self._seen = -1
        self._since = asyncio.get_running_loop().time()
        self._request = request
        self._task = asyncio.current_task()

    def end(self, why: str) -> None:
        self.cut = why
        self.abort()
        if self._task is not None:
            self._task.cancel()

    def abort(self) -> None:
        """So that the vendor can't take what came for the whole."""
        if self._request.transport is not None:
            self._request.transport.abort()

    def forgive(self) -> None:
        """The cancellation was ours."""
        if self._task is not None:
            self._task.uncancel()

    def is_stalled(self) -> bool:
        now = asyncio.get_running_loop().time()
        if self.size != self._seen:
            self._seen, self._since = self.size, now
        return now - self._since > _LONGEST_SILENCE


class Streams:
    def __init__(self, ended: Callable[[Collection[UUID]], Awaitable[set[UUID]]]) -> None:
        self._ended = ended
        self._open: set[Stream] = set()
        self._watch: asyncio.Task[None] | None = None

    @contextmanager
    def open(self, job_id: UUID, request: web.Request) -> Iterator[Stream]:
        stream = Stream(job_id, request)
        self._open.add(stream)
        if self._watch is None:
            self._watch = asyncio.create_task(Loop("streams").run(self._look, pause=_LOOKS))
        try:
            yield stream
        finally:
            self._open.discard(stream)
            if not self._open and self._watch is not None:
                self._watch.cancel()
                self._watch = None

    async def close(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            with suppress(asyncio.CancelledError):
                await self._watch

    async def _look(self) -> None:
        for stream in list(self._open):
            if stream.is_stalled():
                stream.end("the vendor stopped reading")
        ended = await self._ended({stream.job_id for stream in self._open})
        for stream in list(self._open):
            if stream.job_id in ended and stream.cut is None:
                stream.end("the job has ended")
