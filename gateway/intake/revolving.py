"""Doors that are changed while people go in and out: whoever asks meets those in force, and whoever is being
answered keeps his until he has his answer. Connections stay."""

from __future__ import annotations

import asyncio

from aiohttp import web


class DoorsOfOne:
    """Those of one configuration, and how many requests are within."""

    def __init__(self, doors: web.Application) -> None:
        self._runner = web.AppRunner(doors, access_log=None)
        self._within = 0
        self._empty = asyncio.Event()
        self._empty.set()

    async def open(self) -> None:
        await self._runner.setup()
        assert self._runner.server is not None
        self._handle = self._runner.server.request_handler

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self._within += 1
        self._empty.clear()
        try:
            return await self._handle(request)
        finally:
            self._within -= 1
            if self._within == 0:
                self._empty.set()

    async def see_out(self) -> None:
        """Whoever would stay for ever is told to go; the others are waited for."""
        await self._runner.shutdown()
        await self._empty.wait()

    async def shut(self) -> None:
        await self._runner.cleanup()

    async def tell_to_go(self) -> None:
        await self._runner.shutdown()


class Revolving:
    def __init__(self) -> None:
        self.frame = web.Application()
        self.frame.on_shutdown.append(self._tell_to_go)
        self.frame.on_cleanup.append(self._shut)
        self._now: DoorsOfOne | None = None

    async def turn_to(self, doors: web.Application) -> DoorsOfOne | None:
        """Those that were in force, which whoever turns has to `see_out` and `shut`."""
        new, old = DoorsOfOne(doors), self._now
        await new.open()
        self._now = new
        return old

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        assert self._now is not None
        return await self._now.handle(request)

    async def _tell_to_go(self, _: web.Application) -> None:
        if self._now is not None:
            await self._now.tell_to_go()

    async def _shut(self, _: web.Application) -> None:
        if self._now is not None:
            await self._now.shut()
