"""Sparing everyone the wait for a connection that won't come: the first who finds an archive away says so to
all who are asking it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from gateway.contract import Failure, Unreachable

T = TypeVar("T")

_ADVICE = "Check that the server runs, and the name, port and firewall between it and this machine."


class Lookout:
    """One archive's. `grace`: seconds that calls under way still have once another one found it away."""

    def __init__(self, name: str, *, grace: float = 1.0) -> None:
        self._name = name
        self._grace = grace
        self._alarm = asyncio.Event()

    async def call(self, ask: Callable[[], Awaitable[T]]) -> T:
        if self._alarm.is_set():  # those before us were told; we ask anew
            self._alarm = asyncio.Event()
        mine = self._alarm
        call = asyncio.ensure_future(self._judge(ask(), mine))
        alarm = asyncio.ensure_future(mine.wait())
        try:
            await asyncio.wait({call, alarm}, return_when=asyncio.FIRST_COMPLETED)
            if not call.done():
                await asyncio.wait({call}, timeout=self._grace)
            if not call.done():
                raise Unreachable(f"the archive {self._name} can't be reached", _ADVICE)
            return call.result()
        finally:
            alarm.cancel()
            if not call.done():
                call.cancel()
                await asyncio.gather(call, return_exceptions=True)

    async def _judge(self, asking: Awaitable[T], alarm: asyncio.Event) -> T:
        try:
            answer = await asking
        except Unreachable:
            alarm.set()
            raise
        except Failure:
            self._calm(alarm)
            raise
        self._calm(alarm)
        return answer

    def _calm(self, alarm: asyncio.Event) -> None:
        """It answers somebody: nobody's wait is ended for those who didn't get through a moment ago."""
        if alarm is self._alarm and alarm.is_set():
            self._alarm = asyncio.Event()
