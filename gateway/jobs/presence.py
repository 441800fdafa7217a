"""How workers know of each other: a session advisory lock says "I live", LISTEN wakes the sleeping.

The lock falls the moment its process dies, whatever killed it. Workers stand in a ring: each waits for the
lock of the next one, and gets it when that one is gone.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import psycopg
import structlog

from gateway.jobs.store import CHANNEL, PRESENCE

log = structlog.get_logger(__name__)

_KEEPALIVE = {
    "connect_timeout": 10,
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
}
_RING_LOOKS_ROUND = 5.0


class Presence:
    """A worker's sign of life. `worker` is its number while `hold` is open."""

    def __init__(self, url: str) -> None:
        self._url = url
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
            await on_ready()
            async for notice in connection.notifies():
                on_wake(notice.payload)
        raise psycopg.OperationalError("the database closed the connection")

    async def watch(self, on_loss: Callable[[], Awaitable[None]]) -> None:
        """Tell when the next worker in the ring is gone."""
        connection = await self._connect()
        async with connection:
            await connection.execute(f"SET lock_timeout = '{int(_RING_LOOKS_ROUND * 1000)}ms'")
            while True:
                neighbour = await self._neighbour(connection)
                if neighbour is None:
                    await asyncio.sleep(_RING_LOOKS_ROUND)
                    continue
                try:
                    await connection.execute("SELECT pg_advisory_lock_shared(%s, %s)", (PRESENCE, neighbour))
                except psycopg.errors.LockNotAvailable:
                    continue
                await connection.execute("SELECT pg_advisory_unlock_shared(%s, %s)", (PRESENCE, neighbour))
                log.warning("a worker is gone", worker=neighbour)
                await on_loss()

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

    async def _connect(self) -> psycopg.AsyncConnection:
        return await psycopg.AsyncConnection.connect(self._url, autocommit=True, **_KEEPALIVE)  # type: ignore[arg-type]
