"""What people and other systems ask for. Their word needs no lease, and voids the one that there is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal
from uuid import UUID, uuid4

from sqlalchemy import ColumnElement, and_, delete, func, insert, null, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.contract import Retryable
from gateway.jobs import states
from gateway.jobs.records import Job, NewJob, Origin, storable
from gateway.jobs.states import FINAL, WORKING, State
from gateway.jobs.store.database import Database, Refused
from gateway.jobs.store.reading import Filter
from gateway.jobs.tables import ALIVE, audit, deliveries, instances, job_events, jobs

Act = Literal["resume", "retry", "cancel"]
_CONCERNS: dict[Act, ColumnElement[bool]] = {
    "resume": and_(jobs.c.state == State.HELD.value, jobs.c.held_in.is_not(None)),
    "retry": and_(
        jobs.c.state.not_in((State.DONE.value, State.CANCELLED.value)),
        jobs.c.lease_holder.is_(None),
        jobs.c.purged_at.is_(None),
    ),
    "cancel": jobs.c.state.in_([state.value for state in states.ALIVE]),
}
_NOBODYS = ""  # stands for an invocation without a cancellation token, which nobody can withdraw


class Requests(Database):
    async def create(self, new: NewJob) -> tuple[Job, bool]:
        """Commit a job, or join the living one that asks for the same. True: it is a new one."""
        while True:
            async with self._transaction() as connection:
                row = await self._insert(connection, new)
                if row is not None:
                    job = self._job(row)
                    await self._append(connection, job, "accepted", {"origin": new.origin})
                    await self._audit_request(connection, job, new)
                    await self._wake(connection)
                    return job, True
                twin = await self._twin(connection, new)
                if twin is not None:  # else it ended between the two statements, and its place is free
                    await self._audit_request(connection, twin, new)
                    return await self._join(connection, twin, new) if new.joinable else twin, False

    async def _audit_request(self, connection: AsyncConnection, job: Job, new: NewJob) -> None:
        if new.origin == Origin.REST and new.caller and new.asks_for_the_same(job):
            await self._audit(connection, new.caller, "job asked for", job)

    async def _insert(self, connection: AsyncConnection, new: NewJob) -> Any:
        values = self._columns(
            {
                "department": new.department,
                "application": new.application,
                "adapter": new.adapter,
                "origin": new.origin,
                "priority": new.priority,
                "study_instance_uid": new.study_instance_uid,
                "accession_number": new.accession_number,
                "patient_id": new.patient_id,
                "slide_id": new.slide_id,
                "server": new.server,
                "callback_url": new.callback_url,
                "callback_token": new.callback_token,
                "input": new.input,
                "context": new.context,
                "cancellation_tokens": _tokens_of(new),
                "join_key": new.join_key,
                "caller": new.caller,
                "idempotency_key": new.idempotency_key,
                "request_digest": new.request_digest,
            }
        )
        values |= {"id": uuid4(), "state": State.RECEIVED.value, "next_at": func.now()}
        statement = upsert(jobs).values(**values).on_conflict_do_nothing().returning(jobs)
        return (await connection.execute(statement)).mappings().first()

    async def _twin(self, connection: AsyncConnection, new: NewJob) -> Job | None:
        same = (
            and_(jobs.c.join_key == new.join_key, ALIVE)
            if new.joinable
            else and_(jobs.c.caller == new.caller, jobs.c.idempotency_key == new.idempotency_key)
        )
        statement = select(jobs).where(same).with_for_update()
        row = (await connection.execute(statement)).mappings().first()
        return None if row is None else self._job(row)

    async def _join(self, connection: AsyncConnection, job: Job, new: NewJob) -> Job:
        """The newest invocation's token lives longest; each keeps its own right to cancel."""
        joining = [token for token in _tokens_of(new) if token not in job.cancellation_tokens]
        values: dict[str, Any] = {
            "callback_url": new.callback_url,
            "callback_token": new.callback_token,
            "cancellation_tokens": [*job.cancellation_tokens, *joining],
        }
        a_user = new.origin is Origin.SECTRA
        if a_user and job.origin is Origin.NOTIFICATION:
            values |= {"origin": new.origin, "context": new.context, "result_by": None}
        joined = await connection.execute(
            update(jobs)
            .where(jobs.c.id == job.id)
            .values(priority=func.greatest(jobs.c.priority, new.priority), **self._columns(values))
            .returning(jobs)
        )
        now = self._job(joined.mappings().one())
        await self._append(connection, now, "joined", {"origin": new.origin})
        if now.origin is not job.origin:
            await self._tell_again(connection, now)
        if a_user and job.state == State.HELD and job.error_kind == Retryable.kind:
            return await self._go_on(connection, now, "resumed", "sectra")
        if now.origin is not job.origin and job.state in WORKING and job.state != State.SUBMITTING:
            # Whoever works on it thinks that nobody waits, and would let it end in silence. (Only a vendor
            # that is just being called isn't called again for that.)
            return await self._overrule(connection, now, job.state, "a user waits for it now", {})
        return now

    async def _tell_again(self, connection: AsyncConnection, job: Job) -> None:
        """Where nothing was told, since nobody waited, something has to be told now."""
        untold = deliveries.c.reference.is_(None) & deliveries.c.stored.is_(None)
        await connection.execute(
            update(deliveries)
            .where(deliveries.c.job_id == job.id, deliveries.c.state == "done", untold)
            .values(state="pending", attempts=0, next_at=func.now())
        )

    # -- stopping -------------------------------------------------------------------------------------

    async def cancel(self, job_id: UUID, who: str) -> Job:
        """A cancel wins over whatever a worker is doing with the job."""
        async with self._transaction() as connection:
            job = await self._found(connection, job_id)
            await self._audit(connection, who, "cancel", job)
            return await self._cancel(connection, job, who)

    async def _cancel(self, connection: AsyncConnection, job: Job, who: str) -> Job:
        if job.state in FINAL:
            raise Refused(f"the job is {job.state}: there is nothing to cancel")
        return await self._overrule(connection, job, State.CANCELLED, "cancelled", {"by": who})

    async def cancel_by_token(self, application: str, token: str) -> Job | None:
        """The invocation of that token is withdrawn; the job ends when nobody else waits for its result."""
        wanted = select(jobs.c.id).where(
            jobs.c.application == application, jobs.c.cancellation_tokens.contains([token]), ALIVE
        )
        async with self._transaction() as connection:
            job_id = await connection.scalar(wanted)
            job = None if job_id is None else await self._locked(connection, job_id)
            if job is None or job.state in FINAL or token not in job.cancellation_tokens:
                return None
            others = [known for known in job.cancellation_tokens if known != token]
            if not others or job.state == State.HELD:  # nobody works on that, and all who wait see why
                return await self._overrule(connection, job, State.CANCELLED, "cancelled", {"by": "sectra"})
            await connection.execute(
                update(jobs).where(jobs.c.id == job.id).values(cancellation_tokens=others)
            )
            await self._append(connection, job, "one of its invocations was cancelled", {})
            return job

    # -- many at once ---------------------------------------------------------------------------------

    async def count_for(self, act: Act, wanted: Filter) -> int:
        """How many jobs `act_on_all` would act on."""
        statement = select(func.count()).select_from(jobs).where(_CONCERNS[act], *wanted.conditions())
        async with self._engine.connect() as connection:
            return int(await connection.scalar(statement) or 0)

    async def act_on_all(self, act: Act, wanted: Filter, who: str, expect: int) -> list[Job]:
        """On all that match and that it can be done to, if they are as many as whoever asked has seen."""
        statement = select(jobs).where(_CONCERNS[act], *wanted.conditions()).order_by(jobs.c.id)
        async with self._transaction() as connection:
            rows = (await connection.execute(statement.with_for_update())).mappings().all()
            if len(rows) != expect:
                raise Refused(f"{len(rows)} jobs match now, not {expect}: look at them again")
            done = []
            for job in map(self._job, rows):
                match act:
                    case "resume":
                        done.append(await self._go_on(connection, job, "resumed", who))
                    case "retry":
                        done.append(await self._retry(connection, job, who))
                    case "cancel":
                        done.append(await self._cancel(connection, job, who))
                await self._audit(connection, who, act, job, {"with": expect - 1})
            return done

    # -- going on -------------------------------------------------------------------------------------

    async def resume(self, job_id: UUID, who: str, *, study_instance_uid: str | None = None) -> Job:
        """Go on where it was held. With a study: a person chose it, of several that matched."""
        async with self._transaction() as connection:
            job = await self._found(connection, job_id)
            if job.state != State.HELD or job.held_in is None:
                raise Refused(f"the job is {job.state}: only a held job can be resumed")
            chosen: dict[str, Any] = {}
            if study_instance_uid is not None:
                if job.held_in not in (State.RECEIVED, State.LOCATING):
                    raise Refused(
                        f"the job is held in {job.held_in}, past the choice of a study: cancel it, and ask"
                        " for a new one"
                    )
                if study_instance_uid not in await self._offered(connection, job):
                    raise Refused(
                        "the job doesn't offer that study: its history lists the choices, if it is held for"
                        " one; for any other study, ask for a new job"
                    )
                chosen["study_instance_uid"] = study_instance_uid
            await self._audit(connection, who, "resume", job)
            return await self._go_on(connection, job, "resumed", who, **chosen)

    async def go_on(self, job_id: UUID, why: str) -> None:
        """What a held job waited for has come: nobody asked for it. A person may have been faster."""
        async with self._transaction() as connection:
            job = await self._found(connection, job_id)
            if job.state == State.HELD and job.held_in is not None:
                await self._go_on(connection, job, "resumed", why)

    async def _offered(self, connection: AsyncConnection, job: Job) -> list[str]:
        """The choices that the hold named."""
        held = (
            select(job_events.c.detail["choices"])
            .where(job_events.c.job_id == job.id, job_events.c.what == State.HELD.value)
            .order_by(job_events.c.id.desc())
            .limit(1)
        )
        return await connection.scalar(held) or []

    async def retry(self, job_id: UUID, who: str) -> Job:
        """At once what waits; from where it was held; from the beginning what failed or was cancelled."""
        async with self._transaction() as connection:
            job = await self._found(connection, job_id)
            await self._audit(connection, who, "retry", job)
            return await self._retry(connection, job, who)

    async def _retry(self, connection: AsyncConnection, job: Job, who: str) -> Job:
        if job.state == State.DONE:
            raise Refused("the job is done: ask for a new one to have it analysed again")
        if job.state == State.HELD and job.held_in is not None:
            return await self._go_on(connection, job, "retried", who)
        if job.state in WORKING:
            if job.lease_holder is not None:
                raise Refused(f"the job is being worked on ({job.state}) at this moment")
            await self._hasten_deliveries(connection, job)
            return await self._overrule(connection, job, job.state, "retried", {"by": who})
        if job.purged_at is not None:
            raise Refused("what the job was about is kept no longer: ask for a new one")
        try:
            return await self._begin_again(connection, job, who)
        except IntegrityError:  # the one index that a reopened job can offend
            raise Refused(f"another job is already at work on the same as {job.id}") from None

    async def _go_on(self, connection: AsyncConnection, job: Job, what: str, who: str, **values: Any) -> Job:
        assert job.held_in is not None
        await self._hasten_deliveries(connection, job)
        return await self._overrule(connection, job, job.held_in, what, {"by": who}, result_by=None, **values)

    async def _hasten_deliveries(self, connection: AsyncConnection, job: Job) -> None:
        """Whatever wasn't delivered is due at once; what had been given up, with a fresh budget."""
        await connection.execute(
            update(deliveries)
            .where(deliveries.c.job_id == job.id, deliveries.c.state == "held")
            .values(state="pending", attempts=0, held_by=None)
        )
        await connection.execute(
            update(deliveries)
            .where(deliveries.c.job_id == job.id, deliveries.c.state == "pending")
            .values(next_at=func.now())
        )

    async def _begin_again(self, connection: AsyncConnection, job: Job, who: str) -> Job:
        await connection.execute(delete(deliveries).where(deliveries.c.job_id == job.id))
        await connection.execute(delete(instances).where(instances.c.job_id == job.id))
        fresh = dict.fromkeys(("promised", "sent", "acknowledged", "received", "stored"))
        fresh |= {"archive": None, "result": None, "result_by": None, "doubted_until": None}
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
        states.check(job.state, to, job.held_in)
        statement = (
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
                at_vendor=to == State.ANALYSING,  # it has the study: what was held counts there again
                held_in=None,
                held_by=None,
                waits_why=None,
                error_kind=None,
                error_message=None,
                error_advice=None,
                **{"recoveries": 0, **values},
            )
            .returning(jobs)
        )
        changed = self._job((await connection.execute(statement)).mappings().one())
        await self._append(connection, changed, what, detail)
        # The worker that has it stops at once; one that takes it up from here has a higher fence number.
        await self._wake(connection, f"{changed.id} {changed.fence}")
        return changed

    async def _found(self, connection: AsyncConnection, job_id: UUID) -> Job:
        job = await self._locked(connection, job_id)
        if job is None:
            raise Refused(f"there is no job {job_id}")
        return job

    async def _audit(
        self,
        connection: AsyncConnection,
        who: str,
        what: str,
        job: Job,
        detail: Mapping[str, Any] | None = None,
    ) -> None:
        """With the act itself or not at all: else a caller hears that nothing was done when it was."""
        values = {"who": who, "what": what, "job_id": job.id, "detail": storable(dict(detail or {}))}
        await connection.execute(insert(audit).values(**values))


def _tokens_of(new: NewJob) -> list[str]:
    if new.cancellation_token:
        return [new.cancellation_token]
    return [_NOBODYS] if new.joinable else []
