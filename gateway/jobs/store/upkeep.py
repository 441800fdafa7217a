"""What becomes of jobs that ended long ago."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import timedelta
from uuid import UUID

from sqlalchemy import ColumnElement, and_, case, func, literal, null, or_, select, update

from gateway.jobs.states import FINAL
from gateway.jobs.store.database import Database
from gateway.jobs.tables import grants, jobs

_AT_ONCE = 500
_ENDED = and_(jobs.c.state.in_([state.value for state in FINAL]), jobs.c.next_at.is_(None))


class Upkeep(Database):
    async def purge(self, keep_days: Mapping[str, int], otherwise: int = 365) -> int:
        """Blank whatever identifies a patient, or is secret, in jobs that ended more days ago than their
        application keeps them. Their history stays; returns how many there were."""
        days: ColumnElement[int] = (
            case(keep_days, value=jobs.c.application, else_=otherwise) if keep_days else literal(otherwise)
        )
        old = (
            select(jobs.c.id)
            .where(
                _ENDED,
                jobs.c.updated_at < func.now() - days * timedelta(days=1),
                or_(
                    *(column.is_not(None) for column in (jobs.c.patient_id, jobs.c.callback_token)),
                    *(column.is_not(None) for column in (jobs.c.result, jobs.c.context)),
                ),
            )
            .limit(_AT_ONCE)
            .with_for_update(skip_locked=True)
        )
        purged = 0
        while True:
            async with self._transaction() as connection:
                ended = await connection.execute(
                    update(jobs)
                    .where(jobs.c.id.in_(old.scalar_subquery()))
                    .values(patient_id=None, callback_token=None, result=None, context=null())
                    .returning(jobs)
                )
                blanked = [self._job(row) for row in ended.mappings()]
                await connection.execute(
                    update(grants)
                    .where(grants.c.job_id.in_([job.id for job in blanked]))
                    .values(token=None, token_sha256=None, shown=None)
                )
                for job in blanked:
                    await self._append(connection, job, "what identified the patient was removed", {})
            purged += len(blanked)
            if len(blanked) < _AT_ONCE:
                return purged

    async def ended_of(self, job_ids: Collection[UUID]) -> list[UUID]:
        """Those of them that are known here and have told all they had to tell."""
        async with self._engine.connect() as connection:
            statement = select(jobs.c.id).where(jobs.c.id.in_(list(job_ids)), _ENDED)
            return list((await connection.execute(statement)).scalars())
