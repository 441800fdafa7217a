"""Where a job is done and its vendor has finished more of it since: a job of its own delivers that. It asks
about what the vendor has, so it begins with all that is known of it: what was sent, and under which names."""

from __future__ import annotations

from uuid import UUID, uuid4

from sqlalchemy import exists, func, insert, literal, or_, select

from gateway.jobs.records import ACCEPTED, SEQUEL_OF, InstanceRecord, Job, Origin, area_of
from gateway.jobs.states import State
from gateway.jobs.store.database import WITHOUT_RESULT
from gateway.jobs.store.issuing import Issuing
from gateway.jobs.store.relaunching import SAME
from gateway.jobs.tables import ALIVE, instances, jobs

_CALLER = "gateway"
_KNOWN = (
    *("archive", "unasked", "submit_began", "ticket", "promised", "sent", "acknowledged"),
    *("patient_id", "request_digest", "vendor_version"),
)
_COPIED = (
    "sop_instance_uid",
    *(name for name in InstanceRecord.__dataclass_fields__ if name != "sop_instance_uid"),
)


class Sequels(Issuing):
    async def begin_sequel(self, job: Job, what: str) -> UUID | None:
        """Once, however often it is asked for. None: there is one, or somebody has asked for the same."""
        async with self._transaction() as connection:
            now = await self._locked(connection, job.id)
            if now is None or now.purged_at is not None:
                return None
            key = f"after {job.id}"
            same = exists().where(jobs.c.caller == _CALLER, jobs.c.idempotency_key == key)
            if await connection.scalar(select(same)):
                return None  # whoever began it died before that was noted; whatever became of it since
            since = (
                jobs.c.study_instance_uid == job.study_instance_uid,
                jobs.c.application == job.application,
                jobs.c.slide_id.is_not_distinct_from(job.slide_id),
                jobs.c.created_at > job.created_at,
                or_(ALIVE, jobs.c.state == State.DONE.value),
            )
            others = await connection.execute(select(jobs.c.input).where(*since))
            if any(area_of(other.input) == area_of(job.input) for other in others):
                return None
            values = {
                **{name: getattr(now, name) for name in (*SAME, *_KNOWN)},
                "context": {**(now.context or {}), SEQUEL_OF: str(job.id)},
                "origin": Origin.SECTRA if job.slide_id is not None else Origin.REST,
                "caller": _CALLER,
                "idempotency_key": key,
                "at_vendor": True,
            }
            begun = (
                insert(jobs)
                .values(id=uuid4(), state=State.ANALYSING.value, next_at=func.now(), **self._columns(values))
                .returning(*WITHOUT_RESULT)
            )
            sequel = self._job((await connection.execute(begun)).mappings().one())
            copied = [instances.c[name] for name in _COPIED]
            await connection.execute(
                insert(instances).from_select(
                    ["job_id", *_COPIED],
                    select(literal(sequel.id), *copied).where(instances.c.job_id == job.id),
                )
            )
            await self._keep_issued(connection, sequel.id, await self._issued_for(connection, job.id))
            told = {"origin": sequel.origin, "by": _CALLER, "of": str(job.id)}
            await self._append(connection, sequel, ACCEPTED, told)
            await self._append(connection, now, what, {"as": str(sequel.id)})
            await self._wake(connection, "")
            return sequel.id
