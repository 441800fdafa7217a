"""For those who look: one job, lists, events, counts."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, func, select, text, tuple_

from gateway.jobs.records import Event, Job
from gateway.jobs.store.database import Database
from gateway.jobs.tables import ALIVE, job_events, jobs

# An event is seen when its transaction has committed, and transactions don't commit in the order of their
# numbers. Whoever follows the events goes by transaction, and hears of none before all older ones have ended.
_HORIZON = text("pg_snapshot_xmin(pg_current_snapshot())::text::bigint")

Place = tuple[int, int]  # the transaction of an event, and its number


@dataclass(frozen=True, slots=True)
class Filter:
    """Which jobs are meant: by columns, of whose values any will do. Where nothing is said, all of them."""

    state: Collection[str] = ()
    department: Collection[str] = ()
    application: Collection[str] = ()
    adapter: Collection[str] = ()
    study_instance_uid: Collection[str] = ()
    accession_number: Collection[str] = ()
    slide_id: Collection[str] = ()
    since: datetime | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        asked = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "since"}
        met = [
            jobs.c[name] == next(iter(values)) if len(values) == 1 else jobs.c[name].in_(values)
            for name, values in asked.items()
            if values
        ]
        return met if self.since is None else [*met, jobs.c.created_at >= self.since]


EVERY_JOB = Filter()


class Reading(Database):
    async def get(self, job_id: UUID) -> Job | None:
        async with self._engine.connect() as connection:
            row = (await connection.execute(select(jobs).where(jobs.c.id == job_id))).mappings().first()
            return None if row is None else self._job(row)

    async def find(
        self,
        wanted: Filter = EVERY_JOB,
        *,
        limit: int = 50,
        after: tuple[datetime, UUID] | None = None,
    ) -> list[Job]:
        """Newest first; `after` is the place of the last one of the page before."""
        statement = select(jobs).where(*wanted.conditions())
        statement = statement.order_by(jobs.c.created_at.desc(), jobs.c.id.desc()).limit(limit)
        if after is not None:
            statement = statement.where(tuple_(jobs.c.created_at, jobs.c.id) < after)
        async with self._engine.connect() as connection:
            return [self._job(row) for row in (await connection.execute(statement)).mappings()]

    async def find_by_prefix(self, digits: str) -> list[UUID]:
        """Whose id begins so, in hexadecimal digits; two are enough to see that it isn't clear."""
        first, last = UUID(digits.ljust(32, "0")), UUID(digits.ljust(32, "f"))
        statement = select(jobs.c.id).where(jobs.c.id.between(first, last)).order_by(jobs.c.id).limit(2)
        async with self._engine.connect() as connection:
            return list(await connection.scalars(statement))

    async def events_of(self, job_id: UUID) -> list[Event]:
        columns = [job_events.c[f.name] for f in fields(Event)]
        statement = select(*columns).where(job_events.c.job_id == job_id).order_by(job_events.c.id)
        async with self._engine.connect() as connection:
            return [Event(**row) for row in (await connection.execute(statement)).mappings()]

    async def events_since(self, last: Place, limit: int = 500) -> list[tuple[Place, UUID, Event]]:
        columns = [job_events.c[f.name] for f in fields(Event)]
        statement = (
            select(job_events.c.transaction, job_events.c.id, job_events.c.job_id, *columns)
            .where(
                tuple_(job_events.c.transaction, job_events.c.id) > last,
                job_events.c.transaction < _HORIZON,
            )
            .order_by(job_events.c.transaction, job_events.c.id)
            .limit(limit)
        )
        async with self._engine.connect() as connection:
            rows = (await connection.execute(statement)).mappings()
            return [
                (
                    (row["transaction"], row["id"]),
                    row["job_id"],
                    Event(**{f.name: row[f.name] for f in fields(Event)}),
                )
                for row in rows
            ]

    async def last_place(self) -> Place:
        """Where one begins who wants to hear of all that is yet to come."""
        async with self._engine.connect() as connection:
            horizon = await connection.scalar(select(_HORIZON))
            return int(horizon or 0), 0

    async def count_by_state(self) -> dict[tuple[str, str], int]:
        """The living jobs by application and state."""
        statement = (
            select(jobs.c.application, jobs.c.state, func.count())
            .where(ALIVE)
            .group_by(jobs.c.application, jobs.c.state)
        )
        async with self._engine.connect() as connection:
            return {(row[0], row[1]): row[2] for row in await connection.execute(statement)}
