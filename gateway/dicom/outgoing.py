"""A body that is still being made while it is sent, and what became of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress


class Outgoing:
    """An HTTP client replaces an exception of the body by its own; `trouble` keeps ours. Its limit for
    reading starts after the body; `patience` is what ends a peer that stops reading in the middle."""

    def __init__(self, chunks: AsyncGenerator[bytes | memoryview, None], longest_silence: float) -> None:
        self._chunks = chunks
        self._silence = longest_silence
        self.patience: asyncio.Timeout | None = None
        self.began = False
        self.complete = False
        self.trouble: Exception | None = None

    async def stream(self) -> AsyncGenerator[bytes | memoryview, None]:
        self.began = True
        try:
            async for chunk in self._chunks:
                self._wait(self._silence)
                yield chunk
                self._wait(None)  # our own source has limits of its own
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
