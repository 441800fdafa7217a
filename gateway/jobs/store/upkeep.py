"""What becomes of jobs that ended long ago."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import fields
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import (
    Text,
    Uuid,
    and_,
    any_,
    delete,
    func,
    literal,
    null,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.jobs.records import PURGED, SEQUEL_OF, Event, Job, Origin
from gateway.jobs.states import FINAL, State
from gateway.jobs.store.database import LISTED, Database, soon
from gateway.jobs.tables import (
    UNPURGED,
    deliveries,
    grants,
    installation,
    instances,
    job_events,
    job_keys,
    jobs,
    joining,
    pseudonyms,
    rivals,
    said,
    slide_results,
)

_AT_ONCE = 50
_FINAL = jobs.c.state.in_([state.value for state in FINAL])

# By leaps over the partial index, whose words these are: there may be millions of jobs of a few applications.
_AGES = text(
    f"""
    WITH RECURSIVE leaps AS (
        (SELECT application, updated_at FROM jobs WHERE {UNPURGED}
         ORDER BY application, updated_at LIMIT 1)
        UNION ALL
        SELECT following.* FROM leaps, LATERAL (
            SELECT application, updated_at FROM jobs
            WHERE {UNPURGED} AND jobs.application > leaps.application
            ORDER BY application, updated_at LIMIT 1
        ) following
    )
    SELECT application, extract(epoch FROM now() - updated_at)::float / 86400 FROM leaps
    """  # noqa: S608 - of our own words
)

_BLANK: dict[str, Any] = {
    **dict.fromkeys(("study_instance_uid", "accession_number", "accession_number_issuer", "exam_id"), None),
    **dict.fromkeys(("patient_id", "slide_id", "server", "callback_url", "callback_token", "join_key"), None),
    **dict.fromkeys(("idempotency_key", "request_digest", "result"), None),
    **dict.fromkeys(("error_message", "error_advice", "waits_why"), None),  # may quote what a peer said
    "waits_for": None,
    **{name: null() for name in ("input", "context", "ticket")},
    "cancellation_tokens": [],
    "next_at": None,  # a slide that couldn't be told for so long never will be
}


class Upkeep(Database):
    async def purge(self, keep_days: Mapping[str, int], otherwise: int = 365) -> int:
        """Remove whatever identifies a patient, or is secret, of jobs that ended more days ago than their
        application keeps them. What was done, and when, stays; returns how many there were."""
        purged = 0
        for application, oldest in (await self._ages()).items():
            days = keep_days.get(application, otherwise)
            if oldest > days:
                while helping := await self._purge_some(application, days):
                    purged += helping
        return purged

    async def _ages(self) -> dict[str, float]:
        """How many days ago the oldest job ended that isn't purged, by application."""
        async with self._single.connect() as connection:
            return {row[0]: row[1] for row in await connection.execute(_AGES)}

    async def _purge_some(self, application: str, days: int) -> int:
        """So few that nobody waits for it: who seals does, since the histories are added to."""
        old = (
            select(jobs.c.id)
            .where(
                UNPURGED,
                jobs.c.application == application,
                jobs.c.lease_holder.is_(None),
                jobs.c.updated_at < func.now() - timedelta(days=days),
            )
            .order_by(jobs.c.updated_at)
            .limit(_AT_ONCE)
            .with_for_update(skip_locked=True)
        )
        async with self._transaction() as connection:
            ids = list(await connection.scalars(old))
            if not ids:
                return 0
            ended = await connection.execute(
                update(jobs)
                .where(jobs.c.id.in_(ids))
                .values(purged_at=func.now(), **_BLANK)
                .returning(*LISTED)
            )
            blanked = [self._job(row) for row in ended.mappings()]
            vouchers = await self._blank_events(connection, ids)
            await self._blank_around(connection, ids)
            for job in blanked:
                vouched = vouchers.get(job.id)
                await self._append(connection, job, PURGED, {"vouchers": vouched} if vouched else {})
        return len(ids)

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
            .values(slide_id="", token=None, token_sha256=None, heard_sha256=None, shown=None, results={})
        )
        await connection.execute(
            update(deliveries).where(deliveries.c.job_id.in_(ids)).values(reference=None, last_error=None)
        )
        for table in (instances, slide_results, rivals, said, joining, pseudonyms, job_keys):
            await connection.execute(delete(table).where(table.c.job_id.in_(ids)))

    async def installation(self) -> UUID:
        """Which database this is, also for a copy of it; told from the first question on."""
        async with self._transaction() as connection:
            await connection.execute(insert(installation).values(id=uuid4()).on_conflict_do_nothing())
            known: UUID = (await connection.execute(select(installation.c.id))).scalar_one()
            return known

    async def sent_of(self, studies: Collection[str]) -> list[Job]:
        """The jobs that began since such a study was sent to us."""
        named = jobs.c.study_instance_uid == any_(literal(list(studies), ARRAY(Text)))
        by_sending = jobs.c.origin.in_([Origin.SENT.value, "dimse"])  # the last release's word
        async with self._single.connect() as connection:
            found = await connection.execute(select(*LISTED).where(named, by_sending))
            return [self._job(row) for row in found.mappings()]

    async def needed_of(self, job_ids: Collection[UUID], failed_for: float) -> set[UUID]:
        """Those of them whose files may still be wanted: a failed one's, for so many seconds; one's that is
        done, while more of its result is looked for or delivered."""
        sequel = jobs.alias()
        follows = select(sequel.c.id).where(
            sequel.c.study_instance_uid == jobs.c.study_instance_uid,
            sequel.c.application == jobs.c.application,
            sequel.c.context.has_key(SEQUEL_OF),
            or_(sequel.c.state.not_in([state.value for state in FINAL]), sequel.c.next_at.is_not(None)),
        )
        done = jobs.c.state == State.DONE.value
        over = or_(
            jobs.c.state == State.CANCELLED.value,
            and_(done, jobs.c.next_at.is_(None), ~follows.exists()),
            and_(jobs.c.state == State.FAILED.value, jobs.c.updated_at < soon(-failed_for)),
        )
        named = jobs.c.id == any_(literal(list(job_ids), ARRAY(Uuid)))
        async with self._single.connect() as connection:
            return set((await connection.execute(select(jobs.c.id).where(named, ~over))).scalars())

    async def ended_of(self, job_ids: Collection[UUID]) -> list[UUID]:
        """Those of them that are known here and will do nothing more with their files."""
        async with self._single.connect() as connection:
            statement = select(jobs.c.id).where(jobs.c.id.in_(list(job_ids)), _FINAL)
            return list((await connection.execute(statement)).scalars())
