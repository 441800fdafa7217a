"""How workers know of each other: a session advisory lock says "I live", LISTEN wakes the sleeping.

The lock falls the moment its process dies, whatever killed it. Workers stand in a ring: each waits for the
lock of the next one, and gets it when that one is gone.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import psycopg
import structlog
from psycopg.abc import PQGen

from gateway.jobs.store import CHANNEL, PRESENCE

log = structlog.get_logger(__name__)

_KEEPALIVE = {
    "connect_timeout": 10,
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
}
_RING_LOOKS_ROUND = 30.0
_SLEEPS = 3600.0
_HERE = "a worker has come"


class _Sleeper(psycopg.AsyncConnection[tuple[Any, ...]]):
    """Waits until there is something to hear. The driver's own look round ten times a second, for signals
    that asyncio sees to."""

    async def wait(self, gen: PQGen[Any], interval: float = _SLEEPS, timeout: float | None = None) -> Any:
        return await super().wait(gen, interval, timeout)


class Presence:
    """A worker's sign of life. `worker` is its number while `hold` is open."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._changed = asyncio.Event()  # the ring
        self.worker = 0

    async def hold(self, on_ready: Callable[[], Awaitable[None]], on_wake: Callable[[str], None]) -> None:
        """Hold the lock and pass wake-up calls on until the connection breaks (OperationalError)."""
        connection = await self._connect()
        async with connection:
            while True:
                self.worker = random.randrange(1, 2**31)  # noqa: S311
                cursor = await connection.execute(
                    "SELECT pg_try_advisory_lock(%s, %s)", (PRESENCE, self.worker)
                )
                row = await cursor.fetchone()
                if row is not None and row[0]:
                    break
            await connection.execute(f"LISTEN {CHANNEL}")
            await connection.execute("SELECT pg_notify(%s, %s)", (CHANNEL, _HERE))
            await on_ready()
            async for notice in connection.notifies():
                if notice.payload == _HERE:
                    self._changed.set()
                on_wake(notice.payload)
        raise psycopg.OperationalError("the database closed the connection")

    async def watch(self, on_loss: Callable[[], Awaitable[None]]) -> None:
        """Tell when the next worker in the ring is gone; a new one may be the next."""
        connection = await self._connect()
        async with connection:
            while True:
                self._changed.clear()
                neighbour = await self._neighbour(connection)
                if neighbour is None:
                    await self._changes()
                elif await self._outlives(connection, neighbour):
                    log.warning("a worker is gone", worker=neighbour)
                    await on_loss()

    async def _changes(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_RING_LOOKS_ROUND):
                await self._changed.wait()

    async def _outlives(self, connection: psycopg.AsyncConnection, neighbour: int) -> bool:
        """Whether that one is gone; False when the ring may have changed before."""
        waiting = asyncio.create_task(self._wait_for_lock(connection, neighbour))
        changing = asyncio.create_task(self._changes())
        try:
            await asyncio.wait([waiting, changing], return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                await connection.cancel_safe()
            return await waiting
        finally:
            changing.cancel()
            waiting.cancel()

    @staticmethod
    async def _wait_for_lock(connection: psycopg.AsyncConnection, neighbour: int) -> bool:
        try:
            await connection.execute("SELECT pg_advisory_lock_shared(%s, %s)", (PRESENCE, neighbour))
        except psycopg.errors.QueryCanceled:
            return False
        await connection.execute("SELECT pg_advisory_unlock_shared(%s, %s)", (PRESENCE, neighbour))
        return True

    async def _neighbour(self, connection: psycopg.AsyncConnection) -> int | None:
        cursor = await connection.execute(
            "SELECT objid::bigint FROM pg_locks WHERE locktype = 'advisory' AND granted"
            " AND mode = 'ExclusiveLock' AND classid::bigint = %s"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
            (PRESENCE,),
        )
        others: list[int] = sorted(row[0] for row in await cursor.fetchall() if row[0] != self.worker)
        if not others:
            return None
        return next((other for other in others if other > self.worker), others[0])

    async def _connect(self) -> _Sleeper:
        return await _Sleeper.connect(self._url, autocommit=True, **_KEEPALIVE)  # type: ignore[arg-type]
