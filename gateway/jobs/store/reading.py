"""For those who look: one job, lists, events, counts."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import ColumnElement, and_, func, insert, not_, or_, select, text, tuple_

from gateway.jobs.cipher import Unreadable
from gateway.jobs.records import CANCELLED, UNASKED_FOR, Event, Job, Said
from gateway.jobs.states import State
from gateway.jobs.store.database import LISTED, Database
from gateway.jobs.tables import ALIVE, REAL, audit, deliveries, job_events, jobs, said

# An event is seen when its transaction has committed, and transactions don't commit in the order of their
# numbers. Whoever follows the events goes by transaction, and hears of none before all older ones have ended.
HORIZON = text("pg_snapshot_xmin(pg_current_snapshot())::text::bigint")

Place = tuple[int, int]  # the transaction of an event, and its number


Doing = Literal["waiting", "working"]
_WORKED_ON = or_(jobs.c.lease_holder.is_not(None), jobs.c.at_vendor)
DOING: Mapping[Doing, ColumnElement[bool]] = {
    "waiting": and_(ALIVE, jobs.c.state != State.HELD.value, not_(_WORKED_ON)),
    "working": and_(ALIVE, jobs.c.state != State.HELD.value, _WORKED_ON),
}
FAILING = and_(
    deliveries.c.job_id == jobs.c.id,
    deliveries.c.state != "done",
    deliveries.c.last_error.is_not(None),
    deliveries.c.waits_for.is_(None),
)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which jobs are meant: by columns, of whose values any will do. Where nothing is said, all; canaries,
    and jobs that only try a vendor, where they are named or somebody is at work on them (`lease_holder`).

    `waits_for` is a peer. `doing`, `cause` (the digest of what failed) and `failing` (a destination) are said
    of living jobs alone."""

    state: Collection[str] = ()
    department: Collection[str] = ()
    application: Collection[str] = ()
    adapter: Collection[str] = ()
    study_instance_uid: Collection[str] = ()
    accession_number: Collection[str] = ()
    slide_id: Collection[str] = ()
    since: datetime | None = None
    id: Collection[UUID] = ()
    doing: Collection[Doing] = ()
    waits_for: Collection[str] = ()
    cause: Collection[str] = ()
    failing: Collection[str] = ()
    lease_holder: Collection[int] = ()

    @property
    def names_few(self) -> bool:
        """However many there are, an index leads to them."""
        return bool(self.id or self.study_instance_uid or self.accession_number or self.slide_id)

    def conditions(self) -> list[ColumnElement[bool]]:
        asked = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in _BESIDE_COLUMNS}
        met = [
            jobs.c[name] == next(iter(values)) if len(values) == 1 else jobs.c[name].in_(values)
            for name, values in asked.items()
            if values
        ]
        unasked_for = any(name.startswith(UNASKED_FOR) for name in self.application)
        if not (self.id or self.lease_holder or unasked_for):
            met.append(REAL)
        if self.since is not None:
            met.append(jobs.c.created_at >= self.since)
        return [*met, *self._of_the_living()]

    def _of_the_living(self) -> list[ColumnElement[bool]]:
        met: list[ColumnElement[bool]] = []
        if self.doing:
            met.append(or_(*(DOING[each] for each in self.doing)))
        if self.cause:
            met.append(and_(CAUSE.in_(self.cause), jobs.c.waits_for.is_(None)))
        if self.failing:
            named = and_(FAILING, deliveries.c.destination.in_(self.failing))
            met.append(select(deliveries.c.job_id).where(named).exists())
        return [and_(ALIVE, *met)] if met else []


LOOKED_AT_WORDS = "looked at what peers said"
_BESIDE_COLUMNS = ("since", "doing", "cause", "failing")
CAUSE = func.md5(jobs.c.error_message)
EVERY_JOB = Filter()


class Reading(Database):
    async def get(self, job_id: UUID) -> Job | None:
        async with self._single.connect() as connection:
            row = (await connection.execute(select(jobs).where(jobs.c.id == job_id))).mappings().first()
            return None if row is None else self._job(row)

    async def glance(self, job_id: UUID) -> Job | None:
        """As `find` shows it."""
        async with self._single.connect() as connection:
            row = (await connection.execute(select(*LISTED).where(jobs.c.id == job_id))).mappings().first()
            return None if row is None else self._job(row)

    async def find(
        self,
        wanted: Filter = EVERY_JOB,
        *,
        limit: int = 50,
        after: tuple[datetime, UUID] | None = None,
    ) -> list[Job]:
        """Newest first, without their secrets and results; `after` is the place of the last one of the page
        before."""
        statement = select(*LISTED).where(*wanted.conditions())
        statement = statement.order_by(jobs.c.created_at.desc(), jobs.c.id.desc()).limit(limit)
        if after is not None:
            statement = statement.where(tuple_(jobs.c.created_at, jobs.c.id) < after)
        async with self._single.connect() as connection:
            return [self._job(row) for row in (await connection.execute(statement)).mappings()]

    async def among(self, ids: Collection[UUID], wanted: Filter) -> set[UUID]:
        """Those that match."""
        statement = select(jobs.c.id).where(jobs.c.id.in_(ids), *wanted.conditions())
        async with self._single.connect() as connection:
            return set(await connection.scalars(statement))

    async def count(self, wanted: Filter) -> int:
        """For filters of which only living jobs can be: it counts each one."""
        statement = select(func.count()).select_from(jobs).where(ALIVE, *wanted.conditions())
        async with self._single.connect() as connection:
            return int(await connection.scalar(statement) or 0)

    async def find_by_prefix(self, digits: str) -> list[UUID]:
        """Whose id begins so, in hexadecimal digits; two are enough to see that it isn't clear."""
        first, last = UUID(digits.ljust(32, "0")), UUID(digits.ljust(32, "f"))
        statement = select(jobs.c.id).where(jobs.c.id.between(first, last)).order_by(jobs.c.id).limit(2)
        async with self._single.connect() as connection:
            return list(await connection.scalars(statement))

    async def events_of(self, job_id: UUID) -> list[Event]:
        columns = [job_events.c[f.name] for f in fields(Event)]
        statement = select(*columns).where(job_events.c.job_id == job_id).order_by(job_events.c.id)
        async with self._single.connect() as connection:
            return [Event(**row) for row in (await connection.execute(statement)).mappings()]

    async def events_since(self, last: Place, limit: int = 500) -> list[tuple[Place, UUID, Event]]:
        columns = [job_events.c[f.name] for f in fields(Event)]
        statement = (
            select(job_events.c.transaction, job_events.c.id, job_events.c.job_id, *columns)
            .where(
                tuple_(job_events.c.transaction, job_events.c.id) > last,
                job_events.c.transaction < HORIZON,
            )
            .order_by(job_events.c.transaction, job_events.c.id)
            .limit(limit)
        )
        async with self._single.connect() as connection:
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
        async with self._single.connect() as connection:
            horizon = await connection.scalar(select(HORIZON))
            return int(horizon or 0), 0

    async def said_of(self, job_id: UUID, who: str) -> list[Said]:
        """What peers said of a job. Whoever looks at it stands in the audit."""
        told = await self.words_of(job_id)
        if told:
            looked = {"who": who, "what": LOOKED_AT_WORDS, "job_id": job_id}
            async with self._transaction() as connection:
                await connection.execute(insert(audit).values(**looked))
        return told

    async def words_of(self, job_id: UUID) -> list[Said]:
        """The same; whoever shows it has noted who looks."""
        statement = select(said).where(said.c.job_id == job_id).order_by(said.c.id)
        async with self._single.connect() as connection:
            rows = (await connection.execute(statement)).mappings().all()
        return [Said(row["at"], row["what"], self._words(row["words"])) for row in rows]

    async def who_cancelled(self, ended: Collection[UUID]) -> dict[UUID, str]:
        statement = select(job_events.c.job_id, job_events.c.detail["by"].astext).where(
            job_events.c.job_id.in_(ended), job_events.c.what == CANCELLED, job_events.c.detail.has_key("by")
        )
        async with self._single.connect() as connection:
            return {row[0]: row[1] for row in await connection.execute(statement)}

    def _words(self, kept: bytes) -> Mapping[str, Any]:
        try:
            words: Mapping[str, Any] = self._cipher.decrypt(kept)
        except Unreadable as reason:
            return {"unreadable": str(reason)}
        return words

    async def count_by_state(self) -> dict[tuple[str, str], int]:
        """The living jobs by application and state."""
        statement = (
            select(jobs.c.application, jobs.c.state, func.count())
            .where(ALIVE, REAL)
            .group_by(jobs.c.application, jobs.c.state)
        )
        async with self._single.connect() as connection:
            return {(row[0], row[1]): row[2] for row in await connection.execute(statement)}
