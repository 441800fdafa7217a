"""A body that is still being made while it is sent, and what became of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import suppress

from gateway.http import LeastRate, Pace

_PIECE = 64 * 1024  # a large one could take longer than a silence may, on a slow line that carries it all


class Outgoing:
    """An HTTP client replaces an exception of the body by its own; `trouble` keeps ours. Its limit for
    reading starts after the body; `patience` is what ends a peer that stops reading in the middle."""

    def __init__(
        self,
        chunks: AsyncGenerator[bytes | memoryview, None],
        longest_silence: float,
        peer: str,
        doing: str,
        least: LeastRate,
    ) -> None:
        self._chunks = chunks
        self._silence = longest_silence
        self._pace = Pace(peer, doing, least, writes=True)
        self.patience: asyncio.Timeout | None = None
        self.began = False
        self.complete = False
        self.trouble: Exception | None = None

    async def stream(self) -> AsyncGenerator[bytes | memoryview, None]:
        self.began = True
        try:
            async for chunk in self._chunks:
                view = memoryview(chunk)
                for start in range(0, len(view), _PIECE):
                    piece = view[start : start + _PIECE]
                    self._wait(self._silence)
                    began = time.monotonic()
                    yield piece
                    self._wait(None)  # our own source has limits of its own
                    self._pace.count(len(piece), time.monotonic() - began)
        except Exception as error:
            self.trouble = error
            raise
        self.complete = True
        self._wait(self._silence)

    def _wait(self, seconds: float | None) -> None:
        if self.patience is not None and not self.patience.expired():
            now = asyncio.get_running_loop().time()
            self.patience.reschedule(None if seconds is None else now + seconds)

    async def close(self) -> None:
        self.patience = None
        with suppress(RuntimeError):  # still running: then aiohttp is ending it this moment
            await self._chunks.aclose()
