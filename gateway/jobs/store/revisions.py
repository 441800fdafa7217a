"""Which configuration was in force, and since when: what jobs ran under."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime

from sqlalchemy import func, insert, select

from gateway.jobs.records import storable
from gateway.jobs.store.database import Database
from gateway.jobs.tables import revisions


@dataclass(frozen=True, slots=True)
class Revision:
    """`text`: the configuration, its secrets masked. `refused`: why it isn't in force, if it was refused."""

    id: int
    at: datetime
    who: str
    why: str
    revision: str
    text: str
    refused: list[str] = field(default_factory=list)


_COLUMNS = [revisions.c[f.name] for f in fields(Revision)]
_LOCK = 0x7265


class Revisions(Database):
    async def note_revision(
        self, revision: str, text: str, who: str, why: str, refused: Sequence[str] = ()
    ) -> None:
        """Once, however many replicas come to run under it, and however often they refuse it."""
        told = {"revision": revision, "text": text, "who": who, "why": why, "refused": list(refused)}
        last = select(revisions.c.revision, revisions.c.refused).order_by(revisions.c.id.desc()).limit(1)
        if not refused:
            last = last.where(revisions.c.refused == [])
        async with self._transaction() as connection:
            await connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))
            known = (await connection.execute(last)).first()
            if known is None or (known.revision, known.refused) != (revision, list(refused)):
                await connection.execute(insert(revisions).values(**storable(told)))

    async def revisions(self, *, limit: int = 50, before: int | None = None) -> list[Revision]:
        """The newest first."""
        statement = select(*_COLUMNS).order_by(revisions.c.id.desc()).limit(limit)
        if before is not None:
            statement = statement.where(revisions.c.id < before)
        async with self._single.connect() as connection:
            return [Revision(**row) for row in (await connection.execute(statement)).mappings()]

    async def revision_in_force(self) -> Revision | None:
        statement = select(*_COLUMNS).where(revisions.c.refused == [])
        async with self._single.connect() as connection:
            found = await connection.execute(statement.order_by(revisions.c.id.desc()).limit(1))
            row = found.mappings().first()
        return None if row is None else Revision(**row)
