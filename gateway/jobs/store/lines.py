"""A steady few connections for the statements that every step runs: one at a time each, prepared once.

Nothing is pooled away behind our back: a line stays open for as long as it works. PostgreSQL plans each
statement once for a line, by its index and never by the size that the table had then.
"""

from __future__ import annotations

import asyncio
import math
import select
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from sqlalchemy.exc import DBAPIError

KEEPALIVE = {
    "connect_timeout": 10,
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
# A process that is frozen in the middle of a transaction must not keep its locks from all others.
LIMITS = "-c statement_timeout=30s -c idle_in_transaction_session_timeout=10s"
_PLANS = "-c plan_cache_mode=force_generic_plan -c enable_seqscan=off -c jit=off"

Line = psycopg.AsyncConnection[tuple[Any, ...]]


class Lines:
    def __init__(self, url: str, most: int) -> None:
        self._url = url
        self._idle: list[Line] = []
        self._places = asyncio.Semaphore(most)
        self._closed = False
        self.answered_at = -math.inf  # by the clock that never goes back

    async def fetch(self, statement: str, values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """One statement, which commits by itself."""
        async with self.line() as line:
            return await (await line.execute(statement, values)).fetchall()

    async def fetch_together(self, *statements: tuple[str, Mapping[str, Any]]) -> list[list[tuple[Any, ...]]]:
        """Statements of one transaction, sent at once; each sees what others committed before it began."""
        async with self.line() as line:
            async with line.pipeline(), line.transaction():
                answers = [await line.execute(each, values) for each, values in statements]
            return [await answer.fetchall() for answer in answers]

    @asynccontextmanager
    async def line(self) -> AsyncIterator[Line]:
        async with self._places:
            try:
                line = await self._take()
                try:
                    yield line
                    self.answered_at = time.monotonic()
                except BaseException as trouble:
                    if not isinstance(trouble, psycopg.Error) or line.broken:
                        await line.close()  # nobody knows how far it got
                    raise
                finally:
                    if line.closed or self._closed:
                        await line.close()
                    else:
                        self._idle.append(line)
            except psycopg.Error as trouble:
                raise _as_ours(trouble) from trouble

    async def _take(self) -> Line:
        while self._idle:
            line = self._idle.pop()
            if not has_hung_up(line):
                return line
            await line.close()
        return await psycopg.AsyncConnection.connect(
            self._url,
            autocommit=True,
            prepare_threshold=0,
            options=f"{LIMITS} {_PLANS}",
            **KEEPALIVE,  # type: ignore[arg-type]
        )

    async def close(self) -> None:
        self._closed = True
        while self._idle:
            await self._idle.pop().close()


def has_hung_up(line: Line) -> bool:
    """A server that says something unasked says goodbye."""
    if line.closed:
        return True
    waiting = select.poll()
    waiting.register(line.fileno(), select.POLLIN)
    return bool(waiting.poll(0))


def _as_ours(trouble: psycopg.Error) -> Exception:
    """As whoever uses the other connections knows it; what it was about is a patient's, and isn't told."""
    return DBAPIError.instance(None, None, trouble, psycopg.Error, hide_parameters=True)
