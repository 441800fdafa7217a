"""Every query of the jobs room.

Each write of a worker is fenced by state, lease holder and fence number: when no row answers, somebody else
won (a cancel, a successor), and `Superseded` tells the worker to drop its result.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import (
    Float,
    RowMapping,
    and_,
    bindparam,
    case,
    cast,
    delete,
    func,
    insert,
    literal,
    null,
    or_,
    select,
    text,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from gateway.delivery.slide import Remembered
from gateway.jobs import states
from gateway.jobs.cipher import Cipher
from gateway.jobs.records import Delivery, Event, InstanceRecord, Job, NewJob
from gateway.jobs.states import FINAL, WORKING, State
from gateway.jobs.tables import audit, deliveries, instances, job_events, jobs, slide_results

CHANNEL = "gateway_jobs"
PRESENCE = 0x67617465  # the class of the advisory locks that say "this worker lives"
_SEALED = ("patient_id", "callback_token", "result")
_UNSET: Any = object()
_LIMIT_LOCK = 0x6761


class Superseded(Exception):
    """The job has moved on meanwhile; what this worker found is void."""


class Refused(Exception):
    """A person asked for something that the job's state doesn't allow: one sentence says why."""


def _soon(seconds: float) -> Any:
    return func.now() + timedelta(seconds=seconds)


class Store:
    def __init__(self, url: str, cipher: Cipher, *, pool_size: int = 10) -> None:
        self._engine: AsyncEngine = create_async_engine(
            url.replace("postgresql://", "postgresql+psycopg://", 1),
            pool_size=pool_size,
            max_overflow=10,
            pool_pre_ping=True,
            pool_timeout=30,
            connect_args={"connect_timeout": 10},
        )
        self._cipher = cipher

    async def close(self) -> None:
        await self._engine.dispose()

    async def ping(self) -> None:
        async with self._engine.connect() as connection:
            await connection.execute(select(1))

    @asynccontextmanager
    async def _transaction(self) -> Any:
        async with self._engine.begin() as connection:
            yield connection

    # -- intake ---------------------------------------------------------------------------------------

    async def create(self, new: NewJob) -> tuple[Job, bool]:
        """Commit a job, or join the living one that asks for the same. True: it is a new one."""
        async with self._transaction() as connection:
            row = await self._insert(connection, new)
            if row is not None:
                job = self._job(row)
                await self._append(connection, job, "accepted", {"origin": new.origin})
                await self._wake(connection)
                return job, True
            job = await self._twin(connection, new)
            if new.joinable:
                await self._join(connection, job, new)
            return job, False

    async def _insert(self, connection: AsyncConnection, new: NewJob) -> Any:
        values = {
            "id": uuid4(),
            "state": State.RECEIVED.value,
            "department": new.department,
            "application": new.application,
            "adapter": new.adapter,
            "origin": new.origin,
            "priority": new.priority,
            "next_at": func.now(),
            "study_instance_uid": new.study_instance_uid,
            "accession_number": new.accession_number,
            "patient_id": self._cipher.seal(new.patient_id),
            "slide_id": new.slide_id,
            "server": new.server,
            "callback_url": new.callback_url,
            "callback_token": self._cipher.seal(new.callback_token),
            "input": new.input,
            "context": new.context,
            "cancellation_tokens": [new.cancellation_token] if new.cancellation_token else [],
            "join_key": new.join_key,
            "caller": new.caller,
            "idempotency_key": new.idempotency_key,
            "request_digest": new.request_digest,
        }
        statement = upsert(jobs).values(**values).on_conflict_do_nothing().returning(jobs)
        return (await connection.execute(statement)).mappings().first()

    async def _twin(self, connection: AsyncConnection, new: NewJob) -> Job:
        same = (
            and_(jobs.c.join_key == new.join_key, jobs.c.state.not_in([s.value for s in FINAL]))
            if new.joinable
            else and_(jobs.c.caller == new.caller, jobs.c.idempotency_key == new.idempotency_key)
        )
        row = (await connection.execute(select(jobs).where(same))).mappings().first()
        if row is None:  # it ended between the two statements
            raise Superseded("the job to join has just ended")
        return self._job(row)

    async def _join(self, connection: AsyncConnection, job: Job, new: NewJob) -> None:
        """The newest invocation's token lives longest; each keeps its own right to cancel."""
        tokens = list(job.cancellation_tokens)
        if new.cancellation_token and new.cancellation_token not in tokens:
            tokens.append(new.cancellation_token)
        await connection.execute(
            update(jobs)
            .where(jobs.c.id == job.id)
            .values(
                cancellation_tokens=tokens,
                callback_url=new.callback_url,
                callback_token=self._cipher.seal(new.callback_token),
                priority=func.greatest(jobs.c.priority, new.priority),
            )
        )
        await self._append(connection, job, "joined", {"origin": new.origin})

    # -- workers --------------------------------------------------------------------------------------

    async def claim(self, worker: int, room: int, lease: float, limits: Mapping[str, int]) -> list[Job]:
        """Take up to `room` due jobs, by priority, then age; vendors with a limit first."""
        claimed: list[Job] = []
        for adapter in await self._waiting_for_vendor(limits):
            if len(claimed) < room:
                claimed += await self._claim_limited(
                    worker, room - len(claimed), lease, adapter, limits[adapter]
                )
        if len(claimed) < room:
            waits_for_slot = and_(
                jobs.c.state == State.SUBMITTING.value, ~jobs.c.at_vendor, jobs.c.adapter.in_(list(limits))
            )
            async with self._transaction() as connection:
                claimed += await self._take(connection, worker, room - len(claimed), lease, ~waits_for_slot)
        return claimed

    async def _waiting_for_vendor(self, limits: Mapping[str, int]) -> list[str]:
        if not limits:
            return []
        waiting = (
            select(jobs.c.adapter)
            .distinct()
            .where(
                jobs.c.next_at <= func.now(),
                jobs.c.state == State.SUBMITTING.value,
                ~jobs.c.at_vendor,
                jobs.c.adapter.in_(list(limits)),
            )
        )
        async with self._engine.connect() as connection:
            return list((await connection.execute(waiting)).scalars())

    async def _claim_limited(
        self, worker: int, room: int, lease: float, adapter: str, limit: int
    ) -> list[Job]:
        async with self._transaction() as connection:
            # The lock comes first and in a statement of its own, so that the count sees what its last
            # holder committed.
            await connection.execute(select(func.pg_advisory_xact_lock(_LIMIT_LOCK, func.hashtext(adapter))))
            busy = await connection.scalar(
                select(func.count()).select_from(jobs).where(jobs.c.at_vendor, jobs.c.adapter == adapter)
            )
            free = min(room, limit - int(busy or 0))
            if free <= 0:
                return []
            wanted = and_(
                jobs.c.state == State.SUBMITTING.value, ~jobs.c.at_vendor, jobs.c.adapter == adapter
            )
            return await self._take(connection, worker, free, lease, wanted)

    async def _take(
        self, connection: AsyncConnection, worker: int, room: int, lease: float, wanted: Any
    ) -> list[Job]:
        due = (
            select(jobs.c.id)
            .where(
                jobs.c.next_at.is_not(None),
                jobs.c.next_at <= func.now(),
                or_(jobs.c.leased_until.is_(None), jobs.c.leased_until < func.now()),
                wanted,
            )
            .order_by(jobs.c.priority.desc(), jobs.c.created_at)
            .limit(room)
            .with_for_update(skip_locked=True)
            .cte("due")
        )
        statement = (
            update(jobs)
            .where(jobs.c.id == due.c.id)
            .values(
                fence=jobs.c.fence + 1,
                attempt=jobs.c.attempt + 1,
                lease_holder=worker,
                leased_until=_soon(lease),
                at_vendor=or_(jobs.c.at_vendor, jobs.c.state == State.SUBMITTING.value),
            )
            .returning(jobs)
        )
        rows = (await connection.execute(statement)).mappings().all()
        return sorted((self._job(row) for row in rows), key=lambda job: (-job.priority, job.created_at))

    async def renew(self, worker: int, at_work: Collection[UUID], lease: float) -> dict[UUID, int]:
        """Prolong the leases of the jobs at work; returns those still held, with their fence numbers."""
        statement = (
            update(jobs)
            .where(jobs.c.lease_holder == worker, jobs.c.id.in_(list(at_work)))
            .values(leased_until=_soon(lease))
            .returning(jobs.c.id, jobs.c.fence)
        )
        async with self._transaction() as connection:
            return {row.id: row.fence for row in await connection.execute(statement)}

    async def release_orphans(self) -> int:
        """Free the jobs of workers whose advisory lock is gone: their process is dead or cut off."""
        living = text(
            "SELECT objid::bigint FROM pg_locks WHERE locktype = 'advisory' AND granted"
            " AND mode = 'ExclusiveLock' AND classid::bigint = :presence"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        ).bindparams(presence=PRESENCE)
        async with self._transaction() as connection:
            alive = list((await connection.execute(living)).scalars())
            freed = await connection.execute(
                update(jobs)
                .where(jobs.c.lease_holder.is_not(None), jobs.c.lease_holder.not_in(alive))
                .values(lease_holder=None, leased_until=None)
                .returning(jobs)
            )
            orphans = [self._job(row) for row in freed.mappings().all()]
            for job in orphans:
                await self._append(connection, job, "worker lost; another goes on", {})
            if orphans:
                await self._wake(connection)
            return len(orphans)

    async def next_due(self) -> float | None:
        """Seconds until the next job is due; None when nothing waits for its time."""
        soonest = select(
            cast(func.extract("epoch", func.min(jobs.c.next_at) - func.clock_timestamp()), Float)
        ).where(jobs.c.next_at.is_not(None), jobs.c.lease_holder.is_(None))
        async with self._engine.connect() as connection:
            return await connection.scalar(soonest)

    async def move(
        self,
        job: Job,
        *,
        to: State | None = None,
        after: float | None = 0.0,
        at: datetime | None = None,
        attempt: int | None = 0,
        what: str | None = None,
        detail: Mapping[str, Any] | None = None,
        **values: Any,
    ) -> Job:
        """The one fenced write of a worker: where the job got to, when it is next due, and why.

        `after=None` takes it off the queue; `attempt=None` keeps the count of tries.
        """
        state = to or job.state
        states.check(job.state, state, job.held_in)
        values |= {
            "state": state.value,
            "updated_at": func.now(),
            "next_at": at if at is not None else None if after is None else _soon(after),
            "lease_holder": None,
            "leased_until": None,
        }
        if attempt is not None:
            values["attempt"] = attempt
        if state not in (State.SUBMITTING, State.ANALYSING):
            values["at_vendor"] = False
        async with self._transaction() as connection:
            moved = await self._fenced(connection, job, values)
            if what is not None:
                await self._append(connection, moved, what, detail or {})
            if after is not None or at is not None:
                await self._wake(connection)
            return moved

    async def keep(self, job: Job, what: str | None = None, /, **values: Any) -> Job:
        """A fenced write in the middle of a step: what must survive a crash. The lease stays."""
        async with self._transaction() as connection:
            kept = await self._fenced(connection, job, {"updated_at": func.now(), **values})
            if what is not None:
                await self._append(connection, kept, what, {})
            return kept

    async def _fenced(self, connection: AsyncConnection, job: Job, values: dict[str, Any]) -> Job:
        for name in _SEALED:
            if name in values:
                values[name] = self._cipher.seal(values[name])
        for name in ("ticket", "input", "context"):
            if name in values and values[name] is None:
                values[name] = null()
        statement = (
            update(jobs)
            .where(
                jobs.c.id == job.id,
                jobs.c.state == job.state.value,
                jobs.c.lease_holder == job.lease_holder,
                jobs.c.fence == job.fence,
            )
            .values(**values)
            .returning(jobs)
        )
        row = (await connection.execute(statement)).mappings().first()
        if row is None:
            raise Superseded(f"job {job.id} has moved on")
        return self._job(row)

    async def note(self, job_id: UUID, what: str, detail: Mapping[str, Any] | None = None) -> None:
        """Something worth knowing later that changes nothing now."""
        async with self._transaction() as connection:
            job = await self._locked(connection, job_id)
            if job is not None:
                await self._append(connection, job, what, detail or {})

    # -- people ---------------------------------------------------------------------------------------

    async def cancel(self, job_id: UUID, who: str) -> Job:
        """A cancel wins over whatever a worker is doing with the job."""
        async with self._transaction() as connection:
            job = await self._found(connection, job_id)
            if job.state in FINAL:
                raise Refused(f"the job is {job.state}: there is nothing to cancel")
            return await self._overrule(connection, job, State.CANCELLED, "cancelled", {"by": who})

    async def cancel_by_token(self, application: str, token: str) -> Job | None:
        """The invocation of that token is withdrawn; the job ends when nobody else waits for it."""
        wanted = select(jobs.c.id).where(
            jobs.c.application == application,
            jobs.c.cancellation_tokens.contains([token]),
            jobs.c.state.not_in([s.value for s in FINAL]),
        )
        async with self._transaction() as connection:
            job_id = await connection.scalar(wanted)
            job = None if job_id is None else await self._locked(connection, job_id)
            if job is None or job.state in FINAL:
                return None
            others = [known for known in job.cancellation_tokens if known != token]
            if others:
                await connection.execute(
                    update(jobs).where(jobs.c.id == job.id).values(cancellation_tokens=others)
                )
                await self._append(connection, job, "one of its invocations was cancelled", {})
                return job
            return await self._overrule(connection, job, State.CANCELLED, "cancelled", {"by": "sectra"})

    async def resume(self, job_id: UUID, who: str, **values: Any) -> Job:
        async with self._transaction() as connection:
            job = await self._found(connection, job_id)
            if job.state != State.HELD or job.held_in is None:
                raise Refused(f"the job is {job.state}: only a held job can be resumed")
            return await self._overrule(
                connection, job, job.held_in, "resumed", {"by": who}, result_by=None, **values
            )

    async def retry(self, job_id: UUID, who: str) -> Job:
        """At once what waits; from where it was held; from the beginning what failed or was cancelled."""
        async with self._transaction() as connection:
            job = await self._found(connection, job_id)
            if job.state == State.DONE:
                raise Refused("the job is done: ask for a new one to have it analysed again")
            if job.state == State.HELD and job.held_in is not None:
                return await self._overrule(
                    connection, job, job.held_in, "retried", {"by": who}, result_by=None
                )
            if job.state in WORKING:
                if job.lease_holder is not None:
                    raise Refused(f"the job is being worked on ({job.state}) at this moment")
                return await self._overrule(connection, job, job.state, "retried", {"by": who})
            twin = await connection.scalar(
                select(jobs.c.id).where(
                    jobs.c.join_key == select(jobs.c.join_key).where(jobs.c.id == job_id).scalar_subquery(),
                    jobs.c.state.not_in([s.value for s in FINAL]),
                )
            )
            if twin is not None:
                raise Refused(f"job {twin} is already at work on the same")
            await connection.execute(delete(deliveries).where(deliveries.c.job_id == job.id))
            await connection.execute(delete(instances).where(instances.c.job_id == job.id))
            fresh = dict.fromkeys(("promised", "sent", "acknowledged", "received", "stored"))
            fresh |= {"archive": None, "result": None, "result_by": None}
            return await self._overrule(
                connection,
                job,
                State.RECEIVED,
                "retried from the beginning",
                {"by": who},
                ticket=null(),
                submit_began=False,
                **fresh,
            )

    async def _overrule(
        self,
        connection: AsyncConnection,
        job: Job,
        to: State,
        what: str,
        detail: Mapping[str, Any],
        **values: Any,
    ) -> Job:
        """A person's word: it needs no lease, and voids the one that there is."""
        states.check(job.state, to, job.held_in)
        row = (
            (
                await connection.execute(
                    update(jobs)
                    .where(jobs.c.id == job.id)
                    .values(
                        state=to.value,
                        updated_at=func.now(),
                        fence=jobs.c.fence + 1,
                        attempt=0,
                        next_at=func.now(),
                        lease_holder=None,
                        leased_until=None,
                        at_vendor=and_(literal(to == State.ANALYSING), jobs.c.at_vendor),
                        held_in=None,
                        error_kind=None,
                        error_message=None,
                        error_advice=None,
                        **values,
                    )
                    .returning(jobs)
                )
            )
            .mappings()
            .one()
        )
        changed = self._job(row)
        await self._append(connection, changed, what, detail)
        await self._wake(connection, str(job.id))
        return changed

    async def record_audit(
        self, who: str, what: str, job_id: UUID | None = None, detail: Mapping[str, Any] | None = None
    ) -> None:
        async with self._transaction() as connection:
            await connection.execute(
                insert(audit).values(who=who, what=what, job_id=job_id, detail=dict(detail or {}))
            )

    # -- the proof ------------------------------------------------------------------------------------

    async def promise(self, job: Job, found: Sequence[InstanceRecord]) -> None:
        """Replace what was promised by what the archive promises now."""
        async with self._transaction() as connection:
            await connection.execute(delete(instances).where(instances.c.job_id == job.id))
            rows = [
                {
                    "job_id": job.id,
                    "sop_instance_uid": one.sop_instance_uid,
                    "series_instance_uid": one.series_instance_uid,
                    "sop_class_uid": one.sop_class_uid,
                }
                for one in found
            ]
            for start in range(0, len(rows), 1000):
                await connection.execute(insert(instances), rows[start : start + 1000])

    async def record_sent(self, job: Job, sent: Collection[InstanceRecord]) -> None:
        """All bytes have left: committed before the vendor is told that this was the last one."""
        statement = (
            update(instances)
            .where(instances.c.job_id == job.id, instances.c.sop_instance_uid == bindparam("uid"))
            .values(sent=True, bytes=bindparam("size"), sha256=bindparam("digest"))
        )
        async with self._transaction() as connection:
            await self._fenced(connection, job, {"sent": len(sent)})
            await connection.execute(update(instances).where(instances.c.job_id == job.id).values(sent=False))
            if sent:
                rows = [
                    {"uid": one.sop_instance_uid, "size": one.bytes, "digest": one.sha256} for one in sent
                ]
                await connection.execute(statement, rows)

    async def record_acknowledged(self, job: Job, uids: Collection[str] | None) -> int:
        """None: the vendor took the study as a whole, so all that was sent is acknowledged."""
        known = instances.c.sent if uids is None else instances.c.sop_instance_uid.in_(list(uids))
        async with self._transaction() as connection:
            done = await connection.execute(
                update(instances)
                .where(instances.c.job_id == job.id)
                .values(acknowledged=case((known, True), else_=False))
                .returning(instances.c.acknowledged)
            )
            return sum(1 for row in done if row.acknowledged)

    async def instances_of(self, job_id: UUID) -> list[InstanceRecord]:
        columns = [instances.c[f.name] for f in fields(InstanceRecord)]
        statement = select(*columns).where(instances.c.job_id == job_id)
        async with self._engine.connect() as connection:
            rows = (await connection.execute(statement)).mappings()
            return [InstanceRecord(**row) for row in rows]

    # -- deliveries -----------------------------------------------------------------------------------

    async def plan_deliveries(self, job_id: UUID, destinations: Iterable[str]) -> None:
        rows = [{"job_id": job_id, "destination": name, "next_at": func.now()} for name in destinations]
        if rows:
            async with self._transaction() as connection:
                await connection.execute(upsert(deliveries).values(rows).on_conflict_do_nothing())

    async def deliveries_of(self, job_id: UUID) -> list[Delivery]:
        columns = [deliveries.c[f.name] for f in fields(Delivery)]
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
        tried: bool = True,
    ) -> None:
        values: dict[str, Any] = {
            "state": state,
            "attempts": deliveries.c.attempts + int(tried),
            "next_at": None if after is None else _soon(after),
            "last_error": error,
            "updated_at": func.now(),
        }
        if reference is not _UNSET:
            values["reference"] = reference
        if stored is not _UNSET:
            values["stored"] = stored
        async with self._transaction() as connection:
            await self._fenced(connection, job, {"updated_at": func.now()})
            await connection.execute(
                update(deliveries)
                .where(deliveries.c.job_id == job.id, deliveries.c.destination == destination)
                .values(**values)
            )
            await self._append(connection, job, what, {"destination": destination})

    async def reopen_deliveries(self, job_id: UUID) -> None:
        """A held job goes on: whatever wasn't delivered is due again, with a fresh budget."""
        async with self._transaction() as connection:
            await connection.execute(
                update(deliveries)
                .where(deliveries.c.job_id == job_id, deliveries.c.state == "held")
                .values(state="pending", attempts=0, next_at=func.now())
            )

    # -- results on slides ----------------------------------------------------------------------------

    async def slide_result(self, server: str, application: str, slide_id: str) -> Remembered | None:
        columns = [slide_results.c[f.name] for f in fields(Remembered)]
        statement = select(*columns).where(*self._on_slide(server, application, slide_id))
        async with self._engine.connect() as connection:
            row = (await connection.execute(statement)).mappings().first()
            return None if row is None else Remembered(**row)

    async def begin_slide_result(self, server: str, application: str, slide_id: str, seconds: float) -> bool:
        """The right to create the first result on a slide, for so long: else two replicas make two."""
        new = upsert(slide_results).values(
            server=server, application=application, slide_id=slide_id, creating_until=_soon(seconds)
        )
        statement = new.on_conflict_do_update(
            index_elements=["server", "application", "slide_id"],
            set_={"creating_until": _soon(seconds)},
            where=and_(
                slide_results.c.result_id.is_(None),
                or_(slide_results.c.creating_until.is_(None), slide_results.c.creating_until < func.now()),
            ),
        ).returning(slide_results.c.slide_id)
        async with self._transaction() as connection:
            return (await connection.execute(statement)).first() is not None

    async def remember_slide_result(
        self, server: str, application: str, slide_id: str, record: Remembered
    ) -> None:
        values = {f.name: getattr(record, f.name) for f in fields(Remembered)}
        values["creating_until"] = None
        new = upsert(slide_results).values(
            server=server, application=application, slide_id=slide_id, **values
        )
        async with self._transaction() as connection:
            await connection.execute(
                new.on_conflict_do_update(index_elements=["server", "application", "slide_id"], set_=values)
            )

    async def forget_slide_result(self, server: str, application: str, slide_id: str) -> None:
        async with self._transaction() as connection:
            await connection.execute(
                delete(slide_results).where(*self._on_slide(server, application, slide_id))
            )

    @staticmethod
    def _on_slide(server: str, application: str, slide_id: str) -> tuple[Any, ...]:
        return (
            slide_results.c.server == server,
            slide_results.c.application == application,
            slide_results.c.slide_id == slide_id,
        )

    # -- reading --------------------------------------------------------------------------------------

    async def get(self, job_id: UUID) -> Job | None:
        async with self._engine.connect() as connection:
            row = (await connection.execute(select(jobs).where(jobs.c.id == job_id))).mappings().first()
            return None if row is None else self._job(row)

    async def find(
        self,
        *,
        limit: int = 50,
        after: tuple[datetime, UUID] | None = None,
        since: datetime | None = None,
        **equal: str | None,
    ) -> list[Job]:
        """Newest first; `after` is the place of the last one of the page before."""
        statement = select(jobs).order_by(jobs.c.created_at.desc(), jobs.c.id.desc()).limit(limit)
        for name, value in equal.items():
            if value is not None:
                statement = statement.where(jobs.c[name] == value)
        if since is not None:
            statement = statement.where(jobs.c.created_at >= since)
        if after is not None:
            statement = statement.where(tuple_(jobs.c.created_at, jobs.c.id) < after)
        async with self._engine.connect() as connection:
            return [self._job(row) for row in (await connection.execute(statement)).mappings()]

    async def events_of(self, job_id: UUID) -> list[Event]:
        columns = [job_events.c[f.name] for f in fields(Event)]
        statement = select(*columns).where(job_events.c.job_id == job_id).order_by(job_events.c.id)
        async with self._engine.connect() as connection:
            return [Event(**row) for row in (await connection.execute(statement)).mappings()]

    async def events_since(self, last_id: int, limit: int = 500) -> list[tuple[int, UUID, Event]]:
        columns = [job_events.c[f.name] for f in fields(Event)]
        statement = (
            select(job_events.c.id, job_events.c.job_id, *columns)
            .where(job_events.c.id > last_id)
            .order_by(job_events.c.id)
            .limit(limit)
        )
        async with self._engine.connect() as connection:
            rows = (await connection.execute(statement)).mappings()
            return [
                (row["id"], row["job_id"], Event(**{f.name: row[f.name] for f in fields(Event)}))
                for row in rows
            ]

    async def last_event_id(self) -> int:
        async with self._engine.connect() as connection:
            return int(await connection.scalar(select(func.coalesce(func.max(job_events.c.id), 0))) or 0)

    async def count_by_state(self) -> dict[tuple[str, str], int]:
        """The living jobs by application and state."""
        statement = (
            select(jobs.c.application, jobs.c.state, func.count())
            .where(jobs.c.state.not_in([s.value for s in FINAL]))
            .group_by(jobs.c.application, jobs.c.state)
        )
        async with self._engine.connect() as connection:
            return {(row[0], row[1]): row[2] for row in await connection.execute(statement)}

    # -- inside ---------------------------------------------------------------------------------------

    async def _found(self, connection: AsyncConnection, job_id: UUID) -> Job:
        job = await self._locked(connection, job_id)
        if job is None:
            raise Refused(f"there is no job {job_id}")
        return job

    async def _locked(self, connection: AsyncConnection, job_id: UUID) -> Job | None:
        statement = select(jobs).where(jobs.c.id == job_id).with_for_update()
        row = (await connection.execute(statement)).mappings().first()
        return None if row is None else self._job(row)

    async def _append(
        self, connection: AsyncConnection, job: Job, what: str, detail: Mapping[str, Any]
    ) -> None:
        """The next link of the job's chain. Whoever calls holds the job's row, so that there is one next."""
        previous = await connection.scalar(
            select(job_events.c.hash)
            .where(job_events.c.job_id == job.id)
            .order_by(job_events.c.id.desc())
            .limit(1)
        )
        event = Event(datetime.now(UTC), job.state.value, what, dict(detail), previous or "")
        await connection.execute(
            insert(job_events).values(
                job_id=job.id,
                at=event.at,
                state=event.state,
                what=event.what,
                detail=event.detail,
                previous_hash=event.previous_hash,
                hash=event.seal(job.id),
            )
        )

    @staticmethod
    async def _wake(connection: AsyncConnection, payload: str = "") -> None:
        await connection.execute(select(func.pg_notify(CHANNEL, payload)))

    def _job(self, row: RowMapping) -> Job:
        values = {f.name: row[f.name] for f in fields(Job)}
        for name in _SEALED:
            values[name] = self._cipher.open(values[name])
        values["state"] = State(values["state"])
        values["held_in"] = State(values["held_in"]) if values["held_in"] else None
        values["cancellation_tokens"] = tuple(values["cancellation_tokens"])
        return Job(**values)
