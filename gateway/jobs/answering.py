"""Whether the database goes on answering while somebody waits for it. One that is frozen, or whose host is
gone, says nothing at all, and whoever has asked it would wait for ever."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import psycopg

from gateway.contract import NeedsHuman
from gateway.jobs.store.trouble import place_of

_FIRST = 1.5  # seconds: what most ask is answered by then, and costs nothing more
_MOST = 15.0  # between questions, for those who watch for hours
_TICK = 0.5
_TICKS = 14  # that we lived through ourselves: whoever was frozen blames nobody
_MEND = (
    "Nothing goes on until it does; nothing is lost. Start PostgreSQL, or see whether it is frozen or"
    " overloaded, and mend the way to it."
)
_UNKNOWN = "Nobody knows whether that was done: look again once it answers."


@asynccontextmanager
async def answering(url: str, asked: str, *, acts: bool = False) -> AsyncIterator[None]:
    """NeedsHuman, as soon as the database hasn't answered for long. `asked`: what it was asked for, as in
    "to list jobs". `acts`: something may have been done."""
    work = asyncio.current_task()
    assert work is not None
    watch = _Watch(url, work)
    watching = asyncio.create_task(watch.keep(), name="whether the database answers")
    try:
        yield
    except (asyncio.CancelledError, Exception):  # what is broken off in the middle may tell it as anything
        if not watch.cancels:
            raise
    finally:
        watching.cancel()
        while not watching.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait({watching})
        for _ in range(watch.cancels):
            work.uncancel()
    if watch.cancels:
        seconds = f"{_TICKS * _TICK:g} s"
        raise NeedsHuman(
            f"{place_of(url)} doesn't answer: asked {asked}, it said nothing for {seconds}",
            f"{_UNKNOWN} {_MEND}" if acts else _MEND,
        )


class _Watch:
    def __init__(self, url: str, work: asyncio.Task[object]) -> None:
        self._url, self._work = url, work
        self.cancels = 0

    async def keep(self) -> None:
        pause = _FIRST
        while True:
            await asyncio.sleep(pause)
            if not await self._hears():
                break
            pause = min(2 * pause, _MOST)
        logging.getLogger("psycopg").setLevel(logging.ERROR)  # it would tell how it is broken off
        # The driver first asks the server to stop what it is at, and waits for that, until it is told again.
        while True:
            self.cancels += 1
            self._work.cancel()
            await asyncio.sleep(_TICK)

    async def _hears(self) -> bool:
        """Anything, be it a refusal: that is told by whoever works."""
        asking = asyncio.create_task(self._ask())
        try:
            for _ in range(_TICKS):
                if (await asyncio.wait({asking}, timeout=_TICK))[0]:
                    return True
            return False
        finally:
            asking.cancel()

    async def _ask(self) -> None:
        with suppress(psycopg.Error, OSError):
            async with await psycopg.AsyncConnection.connect(
                self._url, autocommit=True, connect_timeout=int(2 * _TICKS * _TICK)
            ) as line:
                await line.execute("SELECT 1")
