"""Workers know of each other at once, whoever comes and goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from gateway.jobs.presence import Presence

_AT_ONCE = 12.0  # far less than the ring takes to look round by itself


class Living(Presence):
    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.lost = asyncio.Event()

    async def watch_for_ever(self) -> None:
        async def note() -> None:
            self.lost.set()

        await self.watch(note)


@asynccontextmanager
async def living(url: str) -> AsyncIterator[Living]:
    worker, ready = Living(url), asyncio.Event()

    async def begin() -> None:
        ready.set()

    holding = asyncio.create_task(worker.hold(begin, lambda _: None))
    await ready.wait()
    watching = asyncio.create_task(worker.watch_for_ever())
    try:
        yield worker
    finally:
        for task in (holding, watching):
            task.cancel()
        await asyncio.wait([holding, watching])


async def test_one_that_was_alone_hears_of_the_death_of_one_that_came_later(database_url: str) -> None:
    async with living(database_url) as alone:
        await asyncio.sleep(0.3)  # it has found nobody
        async with living(database_url):
            await asyncio.sleep(0.3)
            assert not alone.lost.is_set()
        await asyncio.wait_for(alone.lost.wait(), _AT_ONCE)


async def test_of_several_each_death_is_heard_of(database_url: str) -> None:
    """Also of one that has come between two who already stood next to each other."""
    async with AsyncExitStack() as stack:
        stay = [await stack.enter_async_context(living(database_url)) for _ in range(2)]
        for _ in range(4):
            await asyncio.sleep(0.2)
            async with living(database_url):
                await asyncio.sleep(0.2)
            heard = [asyncio.create_task(worker.lost.wait()) for worker in stay]
            _, waiting = await asyncio.wait(heard, timeout=_AT_ONCE, return_when=asyncio.FIRST_COMPLETED)
            assert len(waiting) < len(heard), "nobody heard of it"
            for task in waiting:
                task.cancel()
            for worker in stay:
                worker.lost.clear()
