"""Sparing everyone the wait for an archive that is away: whoever finds out says so to all others.

reachable ──(no connection)──▶ away ──(pause over: one call goes through)──▶ probing
    ▲                            ▲──────────(no connection; the pause doubles)──┤
    └───────────────────────────────────────(any answer, also a refusal)────────┘
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TypeVar

import structlog

from gateway.contract import Failure, Unreachable

log = structlog.get_logger(__name__)

T = TypeVar("T")


class Breaker:
    """One archive's. `grace`: seconds that calls under way still have once another one found it away."""

    def __init__(
        self,
        name: str,
        *,
        first: float = 5.0,
        most: float = 60.0,
        grace: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._first, self._most, self._grace = first, most, grace
        self._clock = clock
        self._pause = first
        self._again_at = 0.0
        self._probing = False
        self._alarm = asyncio.Event()
        self.since: datetime | None = None  # away

    async def call(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Raises Unreachable at once while the archive is known to be away."""
        if self.since is None:
            return await self._try(ask)
        if self._probing or self._clock() < self._again_at:
            raise self._away()
        self._probing = True
        try:
            return await self._judge(ask(), probe=True)
        finally:
            self._probing = False

    async def _try(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Many at once; the first that finds no connection ends the others' wait for one."""
        call = asyncio.ensure_future(self._judge(ask()))
        alarm = asyncio.ensure_future(self._alarm.wait())
        try:
            await asyncio.wait({call, alarm}, return_when=asyncio.FIRST_COMPLETED)
            if not call.done():
                await asyncio.wait({call}, timeout=self._grace)
            if not call.done():
                raise self._away()
            return call.result()
        finally:
            alarm.cancel()
            if not call.done():
                call.cancel()
                await asyncio.gather(call, return_exceptions=True)

    async def _judge(self, asking: Awaitable[T], *, probe: bool = False) -> T:
        try:
            answer = await asking
        except Unreachable:
            if probe or self.since is None:
                self._trip()
            raise
        except Failure:
            self._recover()
            raise
        self._recover()
        return answer

    def _trip(self) -> None:
        if self.since is None:
            self.since = datetime.now().astimezone()
            self._pause = self._first
            log.warning("an archive can't be reached; it is passed over", archive=self._name)
        else:
            self._pause = min(2 * self._pause, self._most)
        self._again_at = self._clock() + self._pause
        self._alarm.set()

    def _recover(self) -> None:
        if self.since is not None:
            log.info("an archive can be reached again", archive=self._name)
            self.since = None
            self._alarm = asyncio.Event()

    def _away(self) -> Unreachable:
        since = f"{self.since:%Y-%m-%d %H:%M:%S}" if self.since else "a moment ago"
        return Unreachable(
            f"the archive {self._name} is unreachable since {since}; it wasn't asked again yet",
            "Check that the server runs, and the name, port and firewall between it and this machine.",
            after=max(self._again_at - self._clock(), 0.0),
        )
