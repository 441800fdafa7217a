"""What an audit collector is to hear: the events of jobs and the audit, each in the order of its numbers, and
up to where it has them. They stand in the database anyway, so that nothing is lost while it is away; one
replica at a time tells it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from heapq import merge
from typing import Any, Literal, NamedTuple
from uuid import UUID

from sqlalchemy import RowMapping, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from gateway.jobs.cipher import Unreadable
from gateway.jobs.records import Job
from gateway.jobs.store.database import JOB_COLUMNS, LISTED, Database, soon
from gateway.jobs.store.seals import Settled
from gateway.jobs.tables import audit, audit_cursor, deliveries, instances, job_events, jobs

_NAME = "syslog"
_CLEAR = {f"job_{name}": column for name, column in zip((c.name for c in LISTED), LISTED, strict=True)}
_OF_JOBS = [column.label(name) for name, column in _CLEAR.items()]


class Told(NamedTuple):
    """Up to which event and which line of the audit."""

    event: int
    act: int


@dataclass(frozen=True, slots=True)
class Record:
    """An event of a job, or a line of the audit (`who` did it). The job is without its secrets."""

    kind: Literal["event", "act"]
    id: int
    at: datetime
    what: str
    detail: Mapping[str, Any]
    state: str = ""
    who: str = ""
    job: Job | None = None

    @property
    def key(self) -> str:
        """The same whenever it is told, and of no other."""
        return f"{self.kind}/{self.id}"


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom a job is about; how many instances of which SOP classes it is to send, and how many objects were
    stored where."""

    patient_id: str | None = None
    instances: Mapping[str | None, int] = field(default_factory=dict)
    stored: Mapping[str, int] = field(default_factory=dict)


class Trail(Database):
    async def begin_trail(self) -> None:
        """From now on, unless it has begun before."""
        newest = {
            "event": select(func.coalesce(func.max(job_events.c.id), 0)).scalar_subquery(),
            "act": select(func.coalesce(func.max(audit.c.id), 0)).scalar_subquery(),
        }
        begins = upsert(audit_cursor).values(name=_NAME, **newest).on_conflict_do_nothing()
        async with self._single.connect() as connection:
            await connection.execute(begins)

    async def take_trail(self, who: str, seconds: float) -> Told | None:
        """The right to tell what comes next, for so many seconds. None: another replica has it."""
        free = or_(
            audit_cursor.c.holder == who,
            audit_cursor.c.held_until.is_(None),
            audit_cursor.c.held_until < func.now(),
        )
        statement = (
            update(audit_cursor)
            .where(audit_cursor.c.name == _NAME, free)
            .values(holder=who, held_until=soon(seconds))
            .returning(audit_cursor.c.event, audit_cursor.c.act)
        )
        async with self._single.connect() as connection:
            row = (await connection.execute(statement)).first()
            return None if row is None else Told(*row)

    async def advance_trail(self, who: str, before: Told, to: Told) -> bool:
        """The collector has all up to there. False: another has told it meanwhile."""
        statement = (
            update(audit_cursor)
            .where(
                audit_cursor.c.name == _NAME,
                audit_cursor.c.holder == who,
                audit_cursor.c.event == before.event,
                audit_cursor.c.act == before.act,
            )
            .values(event=to.event, act=to.act)
            .returning(audit_cursor.c.name)
        )
        async with self._single.connect() as connection:
            return await connection.scalar(statement) is not None

    async def leave_trail(self, who: str) -> None:
        """Another may go on at once."""
        async with self._single.connect() as connection:
            await connection.execute(
                update(audit_cursor).where(audit_cursor.c.holder == who).values(holder=None, held_until=None)
            )

    async def records(self, after: Told, settled: Settled, limit: int) -> tuple[list[Record], Told]:
        """What comes next of both, as it happened; and up to where that is."""
        events = (
            select(job_events.c.id, job_events.c.at, job_events.c.what, job_events.c.detail)
            .add_columns(job_events.c.state, *_OF_JOBS)
            .join(jobs, jobs.c.id == job_events.c.job_id)
            .where(job_events.c.id > after.event, job_events.c.id <= settled.event)
            .order_by(job_events.c.id)
            .limit(limit)
        )
        acts = (
            select(audit.c.id, audit.c.at, audit.c.what, audit.c.detail, audit.c.who, *_OF_JOBS)
            .join(jobs, jobs.c.id == audit.c.job_id, isouter=True)
            .where(audit.c.id > after.act, audit.c.id <= settled.act)
            .order_by(audit.c.id)
            .limit(limit)
        )
        async with self._single.connect() as connection:
            happened = [self._record("event", row) for row in (await connection.execute(events)).mappings()]
            done = [self._record("act", row) for row in (await connection.execute(acts)).mappings()]
        return _in_turn(happened, done, after, settled, limit)

    def _record(self, kind: Literal["event", "act"], row: RowMapping) -> Record:
        job = None
        if row["job_id"] is not None:
            job = self._job_of([row.get(f"job_{name}") for name in JOB_COLUMNS])
        plain = {name: row[name] for name in ("id", "at", "what", "detail")}
        return Record(kind, **plain, state=row.get("state") or "", who=row.get("who") or "", job=job)

    async def subjects(self, ids: Collection[UUID]) -> dict[UUID, Subject]:
        """Decrypted for these alone."""
        patients = select(jobs.c.id, jobs.c.patient_id).where(jobs.c.id.in_(ids))
        kind = instances.c.job_id, instances.c.sop_class_uid
        counted = select(*kind, func.count()).where(instances.c.job_id.in_(ids)).group_by(*kind)
        kept = select(deliveries.c.job_id, deliveries.c.destination, deliveries.c.stored).where(
            deliveries.c.job_id.in_(ids), deliveries.c.stored.is_not(None)
        )
        classes: dict[UUID, dict[str | None, int]] = {}
        stored: dict[UUID, dict[str, int]] = {}
        async with self._single.connect() as connection:
            for job_id, sop_class, count in await connection.execute(counted):
                classes.setdefault(job_id, {})[sop_class] = count
            for job_id, destination, count in await connection.execute(kept):
                stored.setdefault(job_id, {})[destination] = count
            rows = (await connection.execute(patients)).all()
        return {
            job_id: Subject(self._patient(patient), classes.get(job_id, {}), stored.get(job_id, {}))
            for job_id, patient in rows
        }

    def _patient(self, kept: bytes | None) -> str | None:
        try:
            patient: str | None = self._cipher.decrypt(kept)
        except Unreadable:
            return None
        return patient

    async def trail_waits_since(self) -> datetime | None:
        """When the first of what the collector doesn't have yet came about; None: it has all, or none is
        told."""
        told = select(audit_cursor).where(audit_cursor.c.name == _NAME).subquery()
        firsts = [
            select(table.c.at)
            .where(table.c.id > told.c[name])
            .order_by(table.c.id)
            .limit(1)
            .correlate(told)
            .scalar_subquery()
            for table, name in ((job_events, "event"), (audit, "act"))
        ]
        async with self._single.connect() as connection:
            since: datetime | None = await connection.scalar(select(func.least(*firsts)).select_from(told))
            return since


def _in_turn(
    events: list[Record], acts: list[Record], after: Told, settled: Settled, limit: int
) -> tuple[list[Record], Told]:
    """By their times, without changing the order within each. Where the one has more than was read of it,
    nothing of the other goes ahead of that."""
    cut = {each[-1].key for each in (events, acts) if len(each) == limit}
    taken: list[Record] = []
    for record in merge(events, acts, key=lambda each: each.at):
        taken.append(record)
        if record.key in cut:
            break
    ends = {record.kind: record.id for record in taken}
    if not cut:
        return taken, Told(max(after.event, settled.event), max(after.act, settled.act))
    return taken, Told(ends.get("event", after.event), ends.get("act", after.act))
