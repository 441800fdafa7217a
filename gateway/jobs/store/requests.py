"""What people and other systems ask for. Their word needs no lease, and voids the one that there is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import delete, func, insert, null, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.contract import Retryable
from gateway.jobs import states
from gateway.jobs.records import CANCELLED, JOINED, ONE_CANCELLED, Job, NewJob, Origin, storable
from gateway.jobs.states import FINAL, WORKING, State
from gateway.jobs.store.accepting import Accepting, indexable, tokens_of
from gateway.jobs.store.database import WITHOUT_RESULT, Refused
from gateway.jobs.store.relaunching import Relaunching
from gateway.jobs.tables import (
    ALIVE,
    audit,
    circuits,
    deliveries,
    instances,
    jobs,
    joining,
    slide_results,
)

Detail = Mapping[str, object]
ALONE: Detail = {}  # it was done to this job alone


class Requests(Accepting, Relaunching):
    async def accept_callback(self, job: Job) -> None:
        """Sectra has let in the token that the job has, for its slide."""
        async with self._transaction() as connection:
            await connection.execute(update(jobs).where(jobs.c.id == job.id).values(callback_accepted=True))

    async def _join(self, connection: AsyncConnection, job: Job, new: NewJob, by_stranger: bool) -> Job:
        """The newest invocation's token lives longest; each keeps its own right to cancel."""
        before = () if by_stranger else job.cancellation_tokens
        values: dict[str, Any] = {
            "callback_url": new.callback_url,
            "callback_token": new.callback_token,
            "callback_accepted": True,
            "cancellation_tokens": [*before, *(token for token in tokens_of(new) if token not in before)],
        }
        a_user = new.origin is Origin.SECTRA
        if by_stranger or (a_user and job.origin is Origin.NOTIFICATION):
            values |= {"origin": new.origin, "context": new.context, "result_by": None}
        joined = await connection.execute(
            update(jobs)
            .where(jobs.c.id == job.id)
            .values(priority=func.greatest(jobs.c.priority, new.priority), **self._columns(values))
            .returning(*WITHOUT_RESULT)
        )
        now = self._job(joined.mappings().one())
        await self._append(connection, now, JOINED, {"origin": new.origin})
        if now.origin is not job.origin:
            await self._tell_again(connection, now)
        passing = job.error_kind == Retryable.kind or job.held_by == f"sectra.{job.server}"
        if job.state == State.HELD and (by_stranger or (a_user and passing)):
            return await self._go_on(connection, now, "resumed", "sectra")
        if by_stranger and job.state in WORKING:  # whoever works on it is just being refused
            return await self._overrule(connection, now, job.state, "begun by a stranger", {})
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

    async def _cancel(self, connection: AsyncConnection, job: Job, who: str, detail: Detail = ALONE) -> Job:
        if job.state in FINAL:
            raise Refused(f"the job is {job.state}: there is nothing to cancel")
        return await self._overrule(connection, job, State.CANCELLED, CANCELLED, {"by": who, **detail})

    async def cancel_by_token(self, application: str, token: str) -> Job | None:
        """The invocation of that token is withdrawn, also one that isn't let in yet; the job ends when nobody
        else waits for its result."""
        token = indexable(token)
        wanted = select(jobs.c.id).where(
            jobs.c.application == application, jobs.c.cancellation_tokens.contains([token]), ALIVE
        )
        not_yet = delete(joining).where(
            joining.c.application == application, joining.c.cancellation_token == token
        )
        async with self._transaction() as connection:
            await connection.execute(not_yet)  # waits for who is just being let in: he has the job then
            job_id = await connection.scalar(wanted)
            job = None if job_id is None else await self._locked(connection, job_id)
            if job is None or job.state in FINAL or token not in job.cancellation_tokens:
                return None
            others = [known for known in job.cancellation_tokens if known != token]
            if not others or job.state == State.HELD:  # nobody works on that, and all who wait see why
                return await self._overrule(connection, job, State.CANCELLED, CANCELLED, {"by": "sectra"})
            await connection.execute(
                update(jobs).where(jobs.c.id == job.id).values(cancellation_tokens=others)
            )
            await self._append(connection, job, ONE_CANCELLED, {})
            return job

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
        return (await self._choices(connection, [job.id])).get(job.id, [])

    async def retry(self, job_id: UUID, who: str) -> Job:
        """At once what waits; from where it was held; from the beginning what failed or was cancelled. What
        is done stays so, and another job is about the same."""
        async with self._transaction() as connection:
            job = await self._found(connection, job_id)
            await self._audit(connection, who, "retry", job)
            if job.state == State.DONE:
                return await self._relaunch(connection, job, who)
            return await self._retry(connection, job, who)

    async def _retry(self, connection: AsyncConnection, job: Job, who: str, detail: Detail = ALONE) -> Job:
        if job.state == State.DONE:
            raise Refused("the job is done: retry it alone to have it analysed again")
        if job.state == State.HELD and job.held_in is not None:
            return await self._go_on(connection, job, "retried", who, detail)
        if job.state in WORKING:
            if job.lease_holder is not None:
                raise Refused(f"the job is being worked on ({job.state}) at this moment")
            await self._hasten_deliveries(connection, job)
            await self._let_try(connection, job)
            return await self._overrule(connection, job, job.state, "retried", {"by": who, **detail})
        if job.purged_at is not None:
            raise Refused("what the job was about is kept no longer: ask for a new one")
        try:
            return await self._begin_again(connection, job, who, detail)
        except IntegrityError:  # the one index that a reopened job can offend
            raise Refused(f"another job is already at work on the same as {job.id}") from None

    async def _go_on(
        self,
        connection: AsyncConnection,
        job: Job,
        what: str,
        who: str,
        detail: Detail = ALONE,
        **values: Any,
    ) -> Job:
        assert job.held_in is not None
        await self._hasten_deliveries(connection, job)
        told = {"by": who, **detail}
        return await self._overrule(connection, job, job.held_in, what, told, result_by=None, **values)

    async def _let_try(self, connection: AsyncConnection, job: Job) -> None:
        """It waits for a vendor that takes no more for now: somebody says that it may."""
        await connection.execute(
            update(circuits)
            .where(circuits.c.peer == job.waits_for, circuits.c.kind == "busy", circuits.c.state == "open")
            .values(trial_job=job.id)
        )

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
            .values(next_at=func.now(), waits_for=None)
        )

    async def _begin_again(self, connection: AsyncConnection, job: Job, who: str, detail: Detail) -> Job:
        await connection.execute(delete(deliveries).where(deliveries.c.job_id == job.id))
        await connection.execute(delete(instances).where(instances.c.job_id == job.id))
        ours = slide_results.c.job_id == job.id
        await connection.execute(update(slide_results).where(ours).values(result_of=None))
        fresh = dict.fromkeys(("promised", "sent", "acknowledged", "received", "stored"))
        fresh |= {"archive": None, "result": None, "result_by": None, "doubted_until": None}
        return await self._overrule(
            connection,
            job,
            State.RECEIVED,
            "retried from the beginning",
            {"by": who, **detail},
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
                waits_for=None,
                error_kind=None,
                error_message=None,
                error_advice=None,
                **{"recoveries": 0, **values},
            )
            .returning(*WITHOUT_RESULT)
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

    async def note_in_audit(
        self, who: str, what: str, detail: Mapping[str, Any], job_id: UUID | None = None
    ) -> None:
        """Into the audit, what changes no job."""
        async with self._transaction() as connection:
            values = {"who": who, "what": what, "job_id": job_id, "detail": storable(dict(detail))}
            await connection.execute(insert(audit).values(**values))
