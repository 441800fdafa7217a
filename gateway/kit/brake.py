"""How fast all of a vendor's uploads together may go, so that the hospital's line is left for others too."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import NamedTuple
from weakref import WeakKeyDictionary

import aiohttp

_PIECE = 64 * 1024


class Share(NamedTuple):
    """Of what all processes together may send: bytes a second, for so many seconds. With none, that is when
    to ask again."""

    bytes_a_second: float
    seconds: float


Lease = Callable[[float], Awaitable[Share]]  # of bytes a second that all may send together


class Brake:
    """One process. `lease`: what it may send while others do, asked again and again as long as it sends;
    without, it is alone."""

    def __init__(self) -> None:
        self.lease: Lease | None = None
        self._free_at = 0.0
        self._share = Share(0, 0)
        self._good_until = 0.0
        self._asking = asyncio.Lock()

    async def slow(
        self, chunks: AsyncGenerator[bytes | memoryview, None], bytes_a_second: int
    ) -> AsyncGenerator[bytes | memoryview, None]:
        async with aclosing(chunks):
            async for chunk in chunks:
                view = memoryview(chunk)
                for start in range(0, len(view), _PIECE):
                    piece = view[start : start + _PIECE]
                    await self._wait_for(len(piece), bytes_a_second)
                    yield piece

    async def _wait_for(self, size: int, bytes_a_second: int) -> None:
        share = float(bytes_a_second) if self.lease is None else await self._ask(self.lease, bytes_a_second)
        now = asyncio.get_running_loop().time()
        begin = max(now, self._free_at)
        self._free_at = begin + size / share
        if begin > now:
            await asyncio.sleep(begin - now)

    async def _ask(self, lease: Lease, bytes_a_second: int) -> float:
        clock = asyncio.get_running_loop().time
        async with self._asking:
            while clock() >= self._good_until:
                asked = clock()
                self._share = await lease(bytes_a_second)
                if self._share.bytes_a_second > 0:
                    self._good_until = asked + self._share.seconds
                else:
                    await asyncio.sleep(self._share.seconds)
            return self._share.bytes_a_second


_brakes: WeakKeyDictionary[aiohttp.ClientSession, Brake] = WeakKeyDictionary()


def brake_of(session: aiohttp.ClientSession) -> Brake:
    """One for all jobs of a vendor in this process, which share their session."""
    return _brakes.setdefault(session, Brake())
