"""Studies that an archive has, an application would have accepted, and no job was ever about."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields
from datetime import datetime

from sqlalchemy import and_, delete, exists, or_, select
from sqlalchemy.dialects.postgresql import insert as upsert

from gateway.jobs.store.database import Database, soon
from gateway.jobs.tables import jobs, unprocessed

_KEPT = 30 * 86400.0
_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Unprocessed:
    application: str
    study_instance_uid: str
    archive: str
    found_at: datetime


class Reconciling(Database):
    async def processed_among(self, application: str, studies: Collection[str]) -> set[str]:
        """Those that a job of the application was about, whatever became of it."""
        named, found = sorted(studies), set[str]()
        async with self._single.connect() as connection:
            for start in range(0, len(named), _AT_ONCE):
                statement = select(jobs.c.study_instance_uid).where(
                    jobs.c.study_instance_uid.in_(named[start : start + _AT_ONCE]),
                    jobs.c.application == application,
                )
                found |= set(await connection.scalars(statement))
        return found

    async def note_unprocessed(self, application: str, archive: str, studies: Collection[str]) -> None:
        rows = [
            {"application": application, "archive": archive, "study_instance_uid": study}
            for study in sorted(studies)
        ]
        if rows:
            async with self._transaction() as connection:
                await connection.execute(upsert(unprocessed).on_conflict_do_nothing(), rows)

    async def unprocessed(self) -> list[Unprocessed]:
        """What was noted and is still so; the oldest first."""
        by_now = exists().where(
            and_(
                jobs.c.study_instance_uid == unprocessed.c.study_instance_uid,
                jobs.c.application == unprocessed.c.application,
            )
        )
        columns = [unprocessed.c[f.name] for f in fields(Unprocessed)]
        statement = select(*columns).order_by(unprocessed.c.found_at, unprocessed.c.study_instance_uid)
        async with self._single.connect() as connection:
            if await connection.scalar(select(unprocessed.c.application).limit(1)) is None:
                return []
            gone = or_(by_now, unprocessed.c.found_at < soon(-_KEPT))
            await connection.execute(delete(unprocessed).where(gone))
            return [Unprocessed(**row) for row in (await connection.execute(statement)).mappings()]
