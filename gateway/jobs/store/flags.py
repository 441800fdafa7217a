"""Alerts that somebody who watches raises and clears, once for all replicas; and what he looks at."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from gateway.jobs.records import storable
from gateway.jobs.store.alerts import cleared
from gateway.jobs.store.database import Database
from gateway.jobs.tables import alerts, jobs


class Flags(Database):
    async def raise_alert(self, cause: str, sentence: str, advice: str) -> bool:
        """Whether it doesn't stand yet."""
        statement = (
            upsert(alerts)
            .values(cause=cause, sentence=storable(sentence), advice=storable(advice))
            .on_conflict_do_nothing()
            .returning(alerts.c.id)
        )
        async with self._single.connect() as connection:
            standing = select(alerts.c.id).where(alerts.c.cause == cause, alerts.c.cleared_at.is_(None))
            if await connection.scalar(standing) is not None:
                return False  # a number less of its sequence, and nothing to vacuum
            return await connection.scalar(statement) is not None

    async def clear_alert(self, cause: str) -> bool:
        """Whether it stood."""
        standing = alerts.c.cause == cause, alerts.c.cleared_at.is_(None)
        statement = update(alerts).where(*standing).values(**cleared()).returning(alerts.c.id)
        async with self._single.connect() as connection:
            return await connection.scalar(statement) is not None

    async def arrivals(self, application: str, most: int) -> list[datetime]:
        """When its last jobs came, the newest first."""
        statement = (
            select(jobs.c.created_at)
            .where(jobs.c.application == application)
            .order_by(jobs.c.created_at.desc(), jobs.c.id.desc())
            .limit(most)
        )
        async with self._single.connect() as connection:
            return list(await connection.scalars(statement))
