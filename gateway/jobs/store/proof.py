"""The proof of a job: which instances were promised, sent and acknowledged, and what was delivered where."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import fields
from typing import Any
from uuid import UUID

from sqlalchemy import Text, any_, bindparam, case, delete, func, literal, or_, select, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import insert as upsert

from gateway.jobs.records import Delivery, InstanceRecord, Job, storable
from gateway.jobs.states import State
from gateway.jobs.store.database import Database, soon
from gateway.jobs.tables import ALIVE, delivered, deliveries, instances, jobs

_UNSET: Any = object()
_TOUCH = {"updated_at": func.now()}
_AT_ONCE = 1000  # rows in one statement
_REGARD = 1.0  # seconds; who is overtaken by a result looks again after it


class Proof(Database):
    @asynccontextmanager
    async def receiving(
        self, adapters: Collection[str], study_instance_uids: Collection[str], references: Collection[str]
    ) -> AsyncIterator[UUID | None]:
        """The job that a vendor's result belongs to: of these adapters, at the vendor, of one of the studies
        or with one of the instances that the result refers to. Of several, the oldest that waits.

        Its row is locked while the result is filed, and a worker that is just looking into what was filed
        before loses the job: it can't end its wait without having seen this result.
        """
        place = func.coalesce(jobs.c.held_in, jobs.c.state)
        refers = select(instances.c.job_id).where(instances.c.sop_instance_uid.in_(references))
        statement = (
            select(jobs.c.id)
            .where(
                ALIVE,
                jobs.c.adapter.in_(adapters),
                jobs.c.submit_began,
                place.in_((State.SUBMITTING, State.ANALYSING)),
                jobs.c.study_instance_uid.in_(study_instance_uids) | jobs.c.id.in_(refers),
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
        async with self._engine.connect() as connection:
            return set((await connection.execute(statement)).scalars())

    # -- instances ------------------------------------------------------------------------------------

    async def promise(self, job: Job, found: Sequence[InstanceRecord]) -> None:
        """Replace what was promised by what the archive promises now. What the vendor has confirmed of it
        stays confirmed."""
        rows = [
            {
                "job_id": job.id,
                "sop_instance_uid": instance.sop_instance_uid,
                "series_instance_uid": instance.series_instance_uid,
                "sop_class_uid": instance.sop_class_uid,
            }
            for instance in found
        ]
        async with self._transaction() as connection:
            await self._fenced(connection, job, _TOUCH)
            gone = instances.c.sop_instance_uid.not_in([row["sop_instance_uid"] for row in rows])
            await connection.execute(delete(instances).where(instances.c.job_id == job.id, gone))
            for start in range(0, len(rows), _AT_ONCE):
                known = upsert(instances).on_conflict_do_nothing()
                await connection.execute(known, rows[start : start + _AT_ONCE])

    async def record_sent(self, job: Job, sent: Collection[InstanceRecord]) -> None:
        """All bytes have left: committed before the vendor is told that this was the last one."""
        statement = (
            update(instances)
            .where(instances.c.job_id == job.id, instances.c.sop_instance_uid == bindparam("uid"))
            .values(
                sent=True, bytes=bindparam("size"), blake3=bindparam("digest"), width=bindparam("columns")
            )
        )
        async with self._transaction() as connection:
            await self._fenced(connection, job, _TOUCH)
            await connection.execute(
                update(instances).where(instances.c.job_id == job.id).values(sent=instances.c.acknowledged)
            )
            if sent:
                rows = [
                    {
                        "uid": instance.sop_instance_uid,
                        "size": instance.bytes,
                        "digest": instance.blake3,
                        "columns": instance.width,
                    }
                    for instance in sent
                ]
                await connection.execute(statement, rows)
            await self._fenced(connection, job, {"sent": _sent_of(job)})

    async def acknowledge(self, job: Job, sop_instance_uid: str) -> None:
        """One that was put apart from the others: whoever goes on with the job doesn't put it again."""
        async with self._transaction() as connection:
            await self._fenced(connection, job, _TOUCH)
            await connection.execute(
                update(instances)
                .where(instances.c.job_id == job.id, instances.c.sop_instance_uid == sop_instance_uid)
                .values(sent=True, acknowledged=True)
            )
            await self._fenced(connection, job, {"sent": _sent_of(job)})

    async def forget_acknowledged(self, job: Job) -> None:
        """The vendor knows nothing of it any more."""
        async with self._transaction() as connection:
            await self._fenced(connection, job, {"sent": 0})
            await connection.execute(
                update(instances).where(instances.c.job_id == job.id).values(sent=False, acknowledged=False)
            )

    async def record_acknowledged(self, job: Job, uids: Collection[str] | None) -> tuple[int, int]:
        """How many are sent, and how many acknowledged. None: the vendor took the study as a whole, so all
        that was sent is acknowledged. What it names was sent, if not now then in a try that broke off."""
        told = instances.c.sent if uids is None else instances.c.sop_instance_uid.in_(list(uids))
        known = or_(instances.c.acknowledged, told)
        async with self._transaction() as connection:
            await self._fenced(connection, job, _TOUCH)
            done = await connection.execute(
                update(instances)
                .where(instances.c.job_id == job.id)
                .values(acknowledged=case((known, True), else_=False), sent=or_(instances.c.sent, known))
                .returning(instances.c.sent, instances.c.acknowledged)
            )
            rows = done.all()
            return sum(row.sent for row in rows), sum(row.acknowledged for row in rows)

    async def instances_of(self, job_id: UUID) -> list[InstanceRecord]:
        columns = [instances.c[f.name] for f in fields(InstanceRecord)]
        statement = select(*columns).where(instances.c.job_id == job_id)
        async with self._engine.connect() as connection:
            rows = (await connection.execute(statement)).mappings()
            return [InstanceRecord(**row) for row in rows]

    # -- results --------------------------------------------------------------------------------------

    async def record_results(self, job: Job, uids: Collection[str]) -> None:
        """What is about to join the study: committed before it can be met in an archive."""
        rows = [{"sop_instance_uid": uid, "job_id": job.id} for uid in uids]
        async with self._transaction() as connection:
            await self._fenced(connection, job, _TOUCH)
            for start in range(0, len(rows), _AT_ONCE):
                statement = upsert(delivered).on_conflict_do_nothing()
                await connection.execute(statement, rows[start : start + _AT_ONCE])

    async def results_among(self, uids: Collection[str]) -> set[str]:
        uid = delivered.c.sop_instance_uid
        statement = select(uid).where(uid == any_(literal(list(uids), ARRAY(Text))))
        async with self._engine.connect() as connection:
            return set((await connection.execute(statement)).scalars())

    async def results_of_others(self, job: Job, uids: Collection[str]) -> set[str]:
        """Those that jobs of other vendors have put into archives."""
        uid = delivered.c.sop_instance_uid
        statement = (
            select(uid)
            .join(jobs, jobs.c.id == delivered.c.job_id)
            .where(uid == any_(literal(list(uids), ARRAY(Text))), jobs.c.adapter != job.adapter)
        )
        async with self._engine.connect() as connection:
            return set((await connection.execute(statement)).scalars())

    # -- deliveries -----------------------------------------------------------------------------------

    async def plan_deliveries(self, job: Job, destinations: Iterable[str]) -> None:
        rows = [{"job_id": job.id, "destination": name, "next_at": func.now()} for name in destinations]
        async with self._transaction() as connection:
            await self._fenced(connection, job, _TOUCH)
            if rows:
                await connection.execute(upsert(deliveries).values(rows).on_conflict_do_nothing())

    async def deliveries_of(self, job_id: UUID) -> list[Delivery]:
        """`due` by the database's clock, which also says when the job is due."""
        due = func.coalesce(deliveries.c.next_at <= func.now(), True).label("due")
        columns = [due if f.name == "due" else deliveries.c[f.name] for f in fields(Delivery)]
        statement = select(*columns).where(deliveries.c.job_id == job_id).order_by(deliveries.c.destination)
        async with self._engine.connect() as connection:
            return [Delivery(**row) for row in (await connection.execute(statement)).mappings()]

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
        detail: Mapping[str, Any] | None = None,
        tried: bool = True,
    ) -> None:
        values: dict[str, Any] = {
            "state": state,
            "attempts": deliveries.c.attempts + int(tried),
            "next_at": None if after is None else soon(after),
            "last_error": storable(error),
            "held_by": held_by,
            "updated_at": func.now(),
        }
        if reference is not _UNSET:
            values["reference"] = storable(reference)
        if stored is not _UNSET:
            values["stored"] = stored
        async with self._transaction() as connection:
            held = await self._fenced(connection, job, _TOUCH)
            await connection.execute(
                update(deliveries)
                .where(deliveries.c.job_id == job.id, deliveries.c.destination == destination)
                .values(**values)
            )
            await self._append(connection, held, what, {**(detail or {}), "destination": destination})


def _sent_of(job: Job) -> Any:
    counted = select(func.count()).where(instances.c.job_id == job.id, instances.c.sent)
    return counted.scalar_subquery()
