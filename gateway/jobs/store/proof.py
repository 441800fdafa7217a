"""The proof of a job: which instances were promised, sent and acknowledged, and what was delivered where."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import fields
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Text, any_, exists, func, literal, select, update
from sqlalchemy.dialects.postgresql import ARRAY

from gateway.jobs.records import Delivery, InstanceRecord, Job, area_of, storable
from gateway.jobs.states import State
from gateway.jobs.store.database import soon
from gateway.jobs.store.fenced import HELD, OURS, Fenced, In
from gateway.jobs.tables import ALIVE, delivered, deliveries, instances, jobs, pseudonyms

_UNSET: Any = object()
_TOUCH = {"updated_at": func.now()}
_REGARD = 1.0  # seconds; who is overtaken by a result looks again after it

# Lists of any length are joined as tables: `= ANY` of a parameter would go through them for each row.
_TOLD = "told AS MATERIALIZED (SELECT unnest(%(uids)s::text[]) AS uid)"
_PROMISE = f"""
    WITH {HELD},
    told AS MATERIALIZED (
        SELECT * FROM unnest(%(uids)s::text[], %(series)s::text[], %(classes)s::text[])
            AS told (uid, series, class)
    ),
    gone AS (
        DELETE FROM instances USING held
        WHERE job_id = held.id AND sop_instance_uid NOT IN (SELECT uid FROM told)
    ),
    known AS (
        INSERT INTO instances (job_id, sop_instance_uid, series_instance_uid, sop_class_uid)
        SELECT held.id, uid, series, class FROM held, told
        ON CONFLICT DO NOTHING
    )
    SELECT id FROM held"""
_SENT = f"""
    WITH told AS MATERIALIZED (
        SELECT * FROM
            unnest(%(uids)s::text[], %(sizes)s::bigint[], %(digests)s::text[], %(widths)s::integer[],
                %(places)s::text[])
            AS told (uid, size, digest, width, lies)
    ),
    held AS MATERIALIZED (
        UPDATE jobs SET updated_at = now(), sent = (
            SELECT count(*) FROM instances
            WHERE job_id = %(job)s AND (acknowledged OR sop_instance_uid IN (SELECT uid FROM told))
        )
        WHERE {OURS} RETURNING id
    ),
    now_sent AS (
        UPDATE instances SET sent = true, bytes = size, blake3 = digest, width = told.width,
            lies = told.lies
        FROM held, told WHERE job_id = held.id AND sop_instance_uid = uid
    ),
    before AS (
        UPDATE instances SET sent = acknowledged
        FROM held WHERE job_id = held.id AND sop_instance_uid NOT IN (SELECT uid FROM told)
    )
    SELECT id FROM held"""
_ACKNOWLEDGED = f"""
    WITH {HELD}, {_TOLD},
    known AS (
        UPDATE instances SET
            sent = sent OR acknowledged OR sop_instance_uid IN (SELECT uid FROM told),
            acknowledged = acknowledged OR sop_instance_uid IN (SELECT uid FROM told)
                OR (sent AND %(uids)s::text[] IS NULL)
        FROM held WHERE job_id = held.id
        RETURNING sent, acknowledged
    )
    SELECT count(*) FILTER (WHERE sent), count(*) FILTER (WHERE acknowledged)
    FROM held LEFT JOIN known ON true GROUP BY held.id"""
_INSTANCES = (
    f"SELECT {', '.join(f.name for f in fields(InstanceRecord))} FROM instances WHERE job_id = %(job)s"
)
_RESULTS = f"""
    WITH {HELD}, {_TOLD},
    now_delivered AS (
        INSERT INTO delivered (sop_instance_uid, job_id) SELECT uid, held.id FROM held, told
        WHERE NOT EXISTS (
            SELECT FROM instances
            WHERE instances.job_id = %(job)s AND instances.sop_instance_uid = uid
        )
        ON CONFLICT DO NOTHING
    )
    SELECT id FROM held"""
_AMONG = f"WITH {_TOLD} SELECT sop_instance_uid FROM told JOIN delivered ON sop_instance_uid = uid"
_SAME = """(
        SELECT array_agg(sop_instance_uid || ' ' || blake3 ORDER BY sop_instance_uid) FROM instances
        WHERE instances.job_id = {}
    )"""
_ANSWERED_BEFORE = f"""
    SELECT id, created_at, received FROM jobs
    WHERE study_instance_uid = %(study)s AND adapter = %(adapter)s AND state = 'done'
        AND received > 0 AND id <> %(job)s AND {_SAME.format("jobs.id")} = {_SAME.format("%(job)s")}
    ORDER BY created_at DESC LIMIT 1"""
_PLAN = f"""
    WITH {HELD},
    planned AS (
        INSERT INTO deliveries (job_id, destination, next_at)
        SELECT held.id, name, now() FROM held, unnest(%(names)s::text[]) AS name
        ON CONFLICT DO NOTHING
    )
    SELECT id FROM held"""
_DUE_IN = "CASE WHEN waits_for IS NULL THEN coalesce(extract(epoch FROM next_at - now())::float8, 0) END"
_OF_DELIVERIES = ", ".join(_DUE_IN if f.name == "due_in" else f.name for f in fields(Delivery))
_DELIVERIES = f"SELECT {_OF_DELIVERIES} FROM deliveries WHERE job_id = %(job)s ORDER BY destination"
_OF_A_DELIVERY = {
    "state": "%(delivery_state)s",
    "attempts": "deliveries.attempts + %(tried)s::integer",
    "next_at": "now() + %(delivery_after)s::float8 * interval '1 second'",
    "last_error": "%(delivery_error)s",
    "held_by": "%(held_by)s",
    "waits_for": "%(waits_for)s",
    "updated_at": "now()",
}
_DELIVERED = """delivered AS (
        UPDATE deliveries SET {changes} FROM moved
        WHERE deliveries.job_id = moved.id AND deliveries.destination = %(destination)s
    )"""


class Proof(Fenced):
    @asynccontextmanager
    async def receiving(
        self, adapters: Collection[str], study_instance_uids: Collection[str], references: Collection[str]
    ) -> AsyncIterator[UUID | None]:
        """The job that a vendor's result belongs to: of these adapters, at the vendor, of one of the studies
        or with one of the instances that the result refers to, by their own names or by those issued for the
        job. Of several, the oldest that waits.

        Its row is locked while the result is filed, and a worker that is just looking into what was filed
        before loses the job: it can't end its wait without having seen this result.
        """
        place = func.coalesce(jobs.c.held_in, jobs.c.state)
        refers = select(instances.c.job_id).where(instances.c.sop_instance_uid.in_(references))
        issued = exists().where(
            pseudonyms.c.job_id == jobs.c.id,
            pseudonyms.c.pseudonym.in_([*study_instance_uids, *references]),
        )
        statement = (
            select(jobs.c.id)
            .where(
                ALIVE,
                jobs.c.adapter.in_(adapters),
                jobs.c.submit_began,
                place.in_((State.SUBMITTING, State.ANALYSING)),
                jobs.c.study_instance_uid.in_(study_instance_uids) | jobs.c.id.in_(refers) | issued,
            )
            .order_by(place, jobs.c.created_at, jobs.c.id)  # in the alphabet, who waits comes first
            .limit(1)
            .with_for_update()
        )
        async with self._transaction() as connection:
            found: UUID | None = await connection.scalar(statement)
            if found is None:  # the lock was waited for, and the job has moved on: the next one's turn
                found = await connection.scalar(statement)
            yield found
            if found is None:
                return
            await connection.execute(
                update(jobs)
                .where(jobs.c.id == found, jobs.c.state == State.ANALYSING, jobs.c.lease_holder.is_not(None))
                .values(
                    fence=jobs.c.fence + 1,
                    attempt=func.greatest(jobs.c.attempt - 1, 0),
                    lease_holder=None,
                    leased_until=None,
                    next_at=soon(_REGARD),
                )
            )

    async def instances_before(self, job: Job) -> set[str]:
        """Those that earlier jobs of the application had of the study."""
        statement = (
            select(instances.c.sop_instance_uid)
            .join(jobs, jobs.c.id == instances.c.job_id)
            .where(
                jobs.c.study_instance_uid == job.study_instance_uid,
                jobs.c.application == job.application,
                jobs.c.created_at < job.created_at,
            )
        )
        async with self._single.connect() as connection:
            return set((await connection.execute(statement)).scalars())

    async def runs_before(self, job: Job) -> list[UUID]:
        """Earlier jobs of the application about the same of the study that have delivered something; the
        newest first."""
        told = select(deliveries.c.job_id).where(
            deliveries.c.job_id == jobs.c.id, deliveries.c.state == "done"
        )
        statement = (
            select(jobs.c.id, jobs.c.input)
            .where(
                jobs.c.study_instance_uid == job.study_instance_uid,
                jobs.c.application == job.application,
                jobs.c.created_at < job.created_at,
                told.exists(),
            )
            .order_by(jobs.c.created_at.desc())
        )
        async with self._single.connect() as connection:
            found = await connection.execute(statement)
            return [row.id for row in found if area_of(row.input) == area_of(job.input)]

    # -- instances ------------------------------------------------------------------------------------

    async def promise(self, job: Job, found: Sequence[InstanceRecord]) -> None:
        """Replace what was promised by what the archive promises now. What the vendor has confirmed of it
        stays confirmed."""
        await self._with_held(
            job,
            _PROMISE,
            uids=[each.sop_instance_uid for each in found],
            series=[each.series_instance_uid for each in found],
            classes=[each.sop_class_uid for each in found],
        )

    async def record_sent(self, job: Job, sent: Collection[InstanceRecord]) -> None:
        """All bytes have left: committed before the vendor is told that this was the last one."""
        await self._with_held(
            job,
            _SENT,
            uids=[each.sop_instance_uid for each in sent],
            sizes=[each.bytes for each in sent],
            digests=[each.blake3 for each in sent],
            widths=[each.width for each in sent],
            places=[storable(each.lies) for each in sent],
        )

    async def acknowledge(self, job: Job, sop_instance_uid: str) -> None:
        """One that was put apart from the others: whoever goes on with the job doesn't put it again."""
        async with self._transaction() as connection:
            await self._hold(connection, job, _TOUCH)
            await connection.execute(
                update(instances)
                .where(instances.c.job_id == job.id, instances.c.sop_instance_uid == sop_instance_uid)
                .values(sent=True, acknowledged=True)
            )
            await self._hold(connection, job, {"sent": _sent_of(job)})

    async def forget_acknowledged(self, job: Job) -> None:
        """The vendor knows nothing of it any more."""
        async with self._transaction() as connection:
            await self._hold(connection, job, {"sent": 0})
            await connection.execute(
                update(instances).where(instances.c.job_id == job.id).values(sent=False, acknowledged=False)
            )

    async def record_acknowledged(self, job: Job, uids: Collection[str] | None) -> tuple[int, int]:
        """How many are sent, and how many acknowledged. None: the vendor took the study as a whole, so all
        that was sent is acknowledged. What it names was sent, if not now then in a try that broke off."""
        told = None if uids is None else list(uids)
        rows = await self._with_held(job, _ACKNOWLEDGED, uids=told)
        return rows[0][0], rows[0][1]

    async def instances_of(self, job_id: UUID) -> list[InstanceRecord]:
        return [InstanceRecord(*row) for row in await self._lines.fetch(_INSTANCES, {"job": job_id})]

    async def answered_before(self, job: Job) -> tuple[UUID, datetime, int] | None:
        """The latest other job for which the same vendor got the very same images: when that was asked for,
        and how many objects it made of them."""
        asked = {"study": job.study_instance_uid, "adapter": job.adapter, "job": job.id}
        rows = await self._lines.fetch(_ANSWERED_BEFORE, asked)
        return (rows[0][0], rows[0][1], rows[0][2]) if rows else None

    # -- results --------------------------------------------------------------------------------------

    async def record_results(self, job: Job, uids: Collection[str]) -> None:
        """What is about to join the study: committed before it can be met in an archive. An input that the
        vendor returns under its old UID stays one."""
        await self._with_held(job, _RESULTS, uids=list(uids))

    async def results_among(self, uids: Collection[str]) -> set[str]:
        return {uid for (uid,) in await self._lines.fetch(_AMONG, {"uids": list(uids)})}

    async def results_of_others(self, job: Job, uids: Collection[str]) -> set[str]:
        """Those that jobs of other vendors have put into archives."""
        uid = delivered.c.sop_instance_uid
        statement = (
            select(uid)
            .join(jobs, jobs.c.id == delivered.c.job_id)
            .where(uid == any_(literal(list(uids), ARRAY(Text))), jobs.c.adapter != job.adapter)
        )
        async with self._single.connect() as connection:
            return set((await connection.execute(statement)).scalars())

    # -- deliveries -----------------------------------------------------------------------------------

    async def plan_deliveries(self, job: Job, destinations: Iterable[str]) -> None:
        await self._with_held(job, _PLAN, names=list(destinations))

    async def deliveries_of(self, job_id: UUID) -> list[Delivery]:
        """`due_in` by the database's clock, which also says when the job is due."""
        return [Delivery(*row) for row in await self._lines.fetch(_DELIVERIES, {"job": job_id})]

    async def record_delivery(
        self,
        job: Job,
        destination: str,
        state: str,
        what: str,
        *,
        after: float | None = None,
        reference: str | None = _UNSET,
        stored: int | None = _UNSET,
        error: str | None = None,
        held_by: str | None = None,
        waits_for: str | None = None,
        detail: Mapping[str, Any] | None = None,
        said: Mapping[str, Any] | None = None,
        tried: bool = True,
    ) -> None:
        changes = dict(_OF_A_DELIVERY)
        given = {
            "destination": destination,
            "delivery_state": state,
            "tried": int(tried),
            "delivery_after": after,
            "delivery_error": storable(error),
            "held_by": held_by,
            "waits_for": waits_for,
        }
        if reference is not _UNSET:
            changes["reference"], given["reference"] = "%(reference)s", storable(reference)
        if stored is not _UNSET:
            changes["stored"], given["stored"] = "%(stored)s", stored
        await self._write(
            job,
            {"updated_at": In()},
            what,
            {**(detail or {}), "destination": destination},
            said,
            said_with=f"{destination}: {what}",
            also=_DELIVERED.format(changes=", ".join(f"{name} = {how}" for name, how in changes.items())),
            also_given=given,
        )


def _sent_of(job: Job) -> Any:
    counted = select(func.count()).where(instances.c.job_id == job.id, instances.c.sent)
    return counted.scalar_subquery()
