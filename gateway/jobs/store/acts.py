"""The audit, for those who look: who did what."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, select

from gateway.jobs.records import Act
from gateway.jobs.store.database import Database
from gateway.jobs.tables import audit


@dataclass(frozen=True, slots=True)
class ActFilter:
    """Which acts are meant; where nothing is said, all of them."""

    who: Collection[str] = ()
    what: Collection[str] = ()
    job_id: UUID | None = None
    since: datetime | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        met: list[ColumnElement[bool]] = []
        met += [audit.c[name].in_(given) for name in ("who", "what") if (given := getattr(self, name))]
        met += [] if self.job_id is None else [audit.c.job_id == self.job_id]
        return met if self.since is None else [*met, audit.c.at >= self.since]


EVERY_ACT = ActFilter()


class Acts(Database):
    async def find_acts(
        self, wanted: ActFilter = EVERY_ACT, *, limit: int = 50, before: int | None = None
    ) -> list[Act]:
        """The newest first; `before`: the number of the last one of the page before."""
        statement = select(*(audit.c[f.name] for f in fields(Act))).where(*wanted.conditions())
        if before is not None:
            statement = statement.where(audit.c.id < before)
        async with self._single.connect() as connection:
            rows = await connection.execute(statement.order_by(audit.c.id.desc()).limit(limit))
            return [Act(**row) for row in rows.mappings()]
