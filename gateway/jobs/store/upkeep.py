"""What becomes of jobs that ended long ago."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import fields
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import ColumnElement, and_, case, delete, func, literal, null, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.jobs.records import PURGED, Event
from gateway.jobs.states import FINAL
from gateway.jobs.store.database import Database
from gateway.jobs.tables import deliveries, grants, installation, instances, job_events, jobs, slide_results

_AT_ONCE = 500
_FINAL = jobs.c.state.in_([state.value for state in FINAL])

_BLANK: dict[str, Any] = {
    **dict.fromkeys(("study_instance_uid", "accession_number", "accession_number_issuer", "exam_id"), None),
    **dict.fromkeys(("patient_id", "slide_id", "server", "callback_url", "callback_token", "join_key"), None),
    **dict.fromkeys(("idempotency_key", "request_digest", "result"), None),
    **dict.fromkeys(("error_message", "error_advice", "waits_why"), None),  # may quote what a peer said
    **{name: null() for name in ("input", "context", "ticket")},
    "cancellation_tokens": [],
    "next_at": None,  # a slide that couldn't be told for so long never will be
}


class Upkeep(Database):
    async def purge(self, keep_days: Mapping[str, int], otherwise: int = 365) -> int:
        """Remove whatever identifies a patient, or is secret, of jobs that ended more days ago than their
        application keeps them. What was done, and when, stays; returns how many there were."""
        days: ColumnElement[int] = (
            case(keep_days, value=jobs.c.application, else_=otherwise) if keep_days else literal(otherwise)
        )
        old = (
            select(jobs.c.id)
            .where(
                _FINAL,
                jobs.c.lease_holder.is_(None),
                jobs.c.purged_at.is_(None),
                jobs.c.updated_at < func.now() - days * timedelta(days=1),
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
                    .values(purged_at=func.now(), **_BLANK)
                    .returning(jobs)
                )
                blanked = [self._job(row) for row in ended.mappings()]
                ids = [job.id for job in blanked]
                vouchers = await self._blank_events(connection, ids)
                await self._blank_around(connection, ids)
                for job in blanked:
                    vouched = vouchers.get(job.id)
                    await self._append(connection, job, PURGED, {"vouchers": vouched} if vouched else {})
            purged += len(blanked)
            if len(blanked) < _AT_ONCE:
                return purged

    async def _blank_events(self, connection: AsyncConnection, ids: list[UUID]) -> dict[UUID, list[str]]:
        """What vouches for events of an older release, by job: their hashes can't be made anew."""
        theirs = and_(job_events.c.job_id.in_(ids), job_events.c.what != PURGED)
        of_old = and_(theirs, job_events.c.detail_digest.is_(None))
        columns = [job_events.c[f.name] for f in fields(Event)]
        vouchers: dict[UUID, list[str]] = {}
        for row in (await connection.execute(select(job_events.c.job_id, *columns).where(of_old))).mappings():
            event = Event(**{f.name: row[f.name] for f in fields(Event)})
            vouchers.setdefault(row["job_id"], []).append(event.voucher(row["job_id"]))
        await connection.execute(update(job_events).where(of_old).values(detail_digest=""))
        await connection.execute(update(job_events).where(theirs).values(detail={}, salt=None))
        return vouchers

    async def _blank_around(self, connection: AsyncConnection, ids: list[UUID]) -> None:
        """Counts and outcomes stay. So do the UIDs of the objects that we delivered: by them, they are never
        taken for a study's own images again."""
        await connection.execute(
            update(grants)
            .where(grants.c.job_id.in_(ids))
            .values(slide_id="", token=None, token_sha256=None, shown=None, results={})
        )
        await connection.execute(
            update(deliveries).where(deliveries.c.job_id.in_(ids)).values(reference=None, last_error=None)
        )
        for table in (instances, slide_results):
            await connection.execute(delete(table).where(table.c.job_id.in_(ids)))

    async def installation(self) -> UUID:
        """Which database this is, also for a copy of it; told from the first question on."""
        async with self._transaction() as connection:
            await connection.execute(insert(installation).values(id=uuid4()).on_conflict_do_nothing())
            known: UUID = (await connection.execute(select(installation.c.id))).scalar_one()
            return known

    async def ended_of(self, job_ids: Collection[UUID]) -> list[UUID]:
        """Those of them that are known here and will do nothing more with their files."""
        async with self._engine.connect() as connection:
            statement = select(jobs.c.id).where(jobs.c.id.in_(list(job_ids)), _FINAL)
            return list((await connection.execute(statement)).scalars())
