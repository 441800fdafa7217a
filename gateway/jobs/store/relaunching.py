"""A job that is done, asked for again: a new one about the same, which the history of both tells."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from sqlalchemy import func, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.jobs.records import ACCEPTED, Job, NewJob, Origin
from gateway.jobs.states import State
from gateway.jobs.store.accepting import tokens_of
from gateway.jobs.store.database import WITHOUT_RESULT, Database, Refused
from gateway.jobs.tables import ALIVE, REAL, jobs

SAME = (
    *("department", "application", "adapter", "priority", "study_instance_uid", "accession_number"),
    *("patient_id", "accession_number_issuer", "exam_id", "slide_id", "server", "callback_url"),
    *("callback_token", "callback_accepted", "input", "context", "slide_width", "slide_height"),
)


class Relaunching(Database):
    async def _relaunch(self, connection: AsyncConnection, job: Job, who: str) -> Job:
        if job.purged_at is not None:
            raise Refused("what the job was about is kept no longer: ask for a new one")
        if job.canary or job.beside:
            raise Refused("nobody waits for what it was sent for: others are sent when they are due")
        await self._refuse_twin(connection, job)
        try:
            again = await self._insert(connection, job, who)
        except IntegrityError:  # the one index that it can offend
            raise Refused(f"another job is already at work on the same as {job.id}") from None
        await self._append(
            connection, again, ACCEPTED, {"origin": again.origin, "by": who, "of": str(job.id)}
        )
        await self._append(connection, job, "asked for again", {"by": who, "as": str(again.id)})
        await self._wake(connection, "")
        return again

    async def _refuse_twin(self, connection: AsyncConnection, job: Job) -> None:
        """A second click would be paid for too."""
        if job.study_instance_uid is None:
            return
        same = (
            jobs.c.study_instance_uid == job.study_instance_uid,
            jobs.c.application == job.application,
            jobs.c.slide_id.is_not_distinct_from(job.slide_id),
        )
        statement = select(jobs.c.id).where(*same, ALIVE, REAL).limit(1)
        if (twin := await connection.scalar(statement)) is not None:
            raise Refused(f"job {twin} is already at work on the same")

    async def _insert(self, connection: AsyncConnection, job: Job, who: str) -> Job:
        asked = NewJob(
            department=job.department,
            application=job.application,
            adapter=job.adapter,
            origin=Origin.SECTRA if job.slide_id is not None else Origin.REST,
            priority=job.priority,
            study_instance_uid=job.study_instance_uid,
            accession_number=job.accession_number,
            slide_id=job.slide_id,
            server=job.server,
            input=job.input,
            joinable=job.slide_id is not None,
        )
        values: Mapping[str, Any] = {
            **{name: getattr(job, name) for name in SAME},
            "origin": asked.origin,
            "caller": who,
            "join_key": asked.join_key,
            "request_digest": asked.request_digest,
            "cancellation_tokens": tokens_of(asked),
        }
        statement = (
            insert(jobs)
            .values(id=uuid4(), state=State.RECEIVED.value, next_at=func.now(), **self._columns(values))
            .returning(*WITHOUT_RESULT)
        )
        return self._job((await connection.execute(statement)).mappings().one())
