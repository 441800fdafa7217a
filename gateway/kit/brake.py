"""How fast all of a vendor's uploads together may go, so that the hospital's line is left for others too."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from weakref import WeakKeyDictionary

import aiohttp

_PIECE = 64 * 1024


class Brake:
    def __init__(self) -> None:
        self._free_at = 0.0

    async def slow(
        self, chunks: AsyncGenerator[bytes | memoryview, None], bytes_a_second: int
    ) -> AsyncGenerator[bytes | memoryview, None]:
        async with aclosing(chunks):
            async for chunk in chunks:
                view = memoryview(chunk)
                for start in range(0, len(view), _PIECE):
                    piece = view[start : start + _PIECE]
                    await self._wait_for(len(piece) / bytes_a_second)
                    yield piece

    async def _wait_for(self, seconds: float) -> None:
        now = asyncio.get_running_loop().time()
        begin = max(now, self._free_at)
        self._free_at = begin + seconds
        if begin > now:
            await asyncio.sleep(begin - now)


_brakes: WeakKeyDictionary[aiohttp.ClientSession, Brake] = WeakKeyDictionary()


def brake_of(session: aiohttp.ClientSession) -> Brake:
    """One for all jobs of a vendor in this process, which share their session."""
    return _brakes.setdefault(session, Brake())
