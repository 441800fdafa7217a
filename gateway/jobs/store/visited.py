"""The visits to the console that were ended before their time."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert as upsert

from gateway.jobs.store.database import Database, Standing
from gateway.jobs.tables import ended_visits

_ENDED = Standing(select(ended_visits.c.visit))


class Visited(Database):
    async def end_visit(self, visit: str, until: float) -> None:
        """And forget those whose time is over: their cookies open nothing by themselves."""
        ended = upsert(ended_visits).values(visit=visit, until=datetime.fromtimestamp(until, UTC))
        async with self._transaction() as connection:
            await connection.execute(delete(ended_visits).where(ended_visits.c.until < func.now()))
            await connection.execute(ended.on_conflict_do_nothing())

    async def ended_visits(self) -> list[str]:
        return [visit for (visit,) in await self._ask(_ENDED)]
