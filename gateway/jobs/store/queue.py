"""What a worker does with jobs. Each of its writes is fenced by state, lease holder and fence number: when
no row answers, somebody else won (a cancel, a successor), and `Superseded` tells it to drop its result.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import ColumnElement, Float, and_, cast, false, func, or_, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.jobs import states
from gateway.jobs.records import Job
from gateway.jobs.states import State
from gateway.jobs.store.database import PRESENCE, Database, soon
from gateway.jobs.tables import jobs

log = structlog.get_logger(__name__)

_LIMIT_LOCK = 0x6761


@dataclass(frozen=True, slots=True)
class _Due:
    id: UUID
    priority: int
    created_at: datetime
    holder: int | None

    @property
    def rank(self) -> tuple[int, datetime]:
        return -self.priority, self.created_at


class Queue(Database):
    async def claim(self, worker: int, room: int, lease: float, capacities: Mapping[str, int]) -> list[Job]:
        """Take up to `room` due jobs, by priority, then age; for a limited vendor no more than it takes."""
        async with self._transaction() as connection:
            found: list[_Due] = []
            for adapter in await self._waiting_for_place(connection, capacities):
                free = min(room, await self._free_places(connection, adapter, capacities[adapter]))
                if free > 0:
                    found += await self._due(connection, free, _waits_for_place([adapter]))
            found += await self._due(connection, room, ~_waits_for_place(capacities))
            return await self._take(connection, worker, lease, sorted(found, key=lambda due: due.rank)[:room])

    async def _waiting_for_place(
        self, connection: AsyncConnection, capacities: Mapping[str, int]
    ) -> list[str]:
        if not capacities:
            return []
        waiting = select(jobs.c.adapter).distinct()
        waiting = waiting.where(jobs.c.next_at <= func.now(), _waits_for_place(capacities))
        # In one order everywhere: their locks are taken one after the other.
        return sorted((await connection.execute(waiting)).scalars())

    async def _free_places(self, connection: AsyncConnection, adapter: str, limit: int) -> int:
        # The lock comes first and in a statement of its own, so that the count sees what its last holder
        # committed.
        await connection.execute(select(func.pg_advisory_xact_lock(_LIMIT_LOCK, func.hashtext(adapter))))
        taken = select(func.count()).select_from(jobs).where(jobs.c.at_vendor, jobs.c.adapter == adapter)
        return limit - int(await connection.scalar(taken) or 0)

    async def _due(self, connection: AsyncConnection, room: int, wanted: ColumnElement[bool]) -> list[_Due]:
        due = (
            select(jobs.c.id, jobs.c.priority, jobs.c.created_at, jobs.c.lease_holder)
            .where(
                jobs.c.next_at.is_not(None),
                jobs.c.next_at <= func.now(),
                or_(jobs.c.leased_until.is_(None), jobs.c.leased_until < func.now()),
                wanted,
            )
            .order_by(jobs.c.priority.desc(), jobs.c.created_at)
            .limit(room)
            .with_for_update(skip_locked=True)
        )
        return [_Due(*row) for row in await connection.execute(due)]

    async def _take(
        self, connection: AsyncConnection, worker: int, lease: float, chosen: Collection[_Due]
    ) -> list[Job]:
        if not chosen:
            return []
        statement = (
            update(jobs)
            .where(jobs.c.id.in_([due.id for due in chosen]))
            .values(
                fence=jobs.c.fence + 1,
                attempt=jobs.c.attempt + 1,
                lease_holder=worker,
                leased_until=soon(lease),
                at_vendor=or_(jobs.c.at_vendor, jobs.c.state == State.SUBMITTING.value),
            )
            .returning(jobs)
        )
        taken = {row["id"]: self._job(row) for row in (await connection.execute(statement)).mappings()}
        for due in chosen:
            if due.holder is not None:
                log.warning("a worker fell silent; taking its job over", job=str(due.id), worker=due.holder)
                await self._append(connection, taken[due.id], "worker silent; another goes on", {})
        return [taken[due.id] for due in chosen]

    async def renew(self, worker: int, at_work: Collection[UUID], lease: float) -> dict[UUID, int]:
        """Prolong the leases of the jobs at work; returns those still held, with their fence numbers."""
        statement = (
            update(jobs)
            .where(jobs.c.lease_holder == worker, jobs.c.id.in_(list(at_work)))
            .values(leased_until=soon(lease))
            .returning(jobs.c.id, jobs.c.fence)
        )
        async with self._transaction() as connection:
            return {row.id: row.fence for row in await connection.execute(statement)}

    async def release_orphans(self) -> int:
        """Free the jobs of workers whose advisory lock is gone: their process is dead or cut off."""
        holders = select(jobs.c.lease_holder).distinct().where(jobs.c.lease_holder.is_not(None))
        living = text(
            "SELECT objid::bigint FROM pg_locks WHERE locktype = 'advisory' AND granted"
            " AND mode = 'ExclusiveLock' AND classid::bigint = :presence"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        ).bindparams(presence=PRESENCE)
        async with self._transaction() as connection:
            # In this order: who holds a job had its lock before, so who lacks it afterwards is gone. The
            # other way round, a worker that begins between the two would be taken for dead.
            holding = set((await connection.execute(holders)).scalars())
            dead = holding - set((await connection.execute(living)).scalars()) if holding else holding
            if not dead:
                return 0
            orphans = select(jobs.c.id).where(jobs.c.lease_holder.in_(dead)).with_for_update(skip_locked=True)
            freed = await connection.execute(
                update(jobs)
                .where(jobs.c.id.in_(orphans.scalar_subquery()))
                .values(lease_holder=None, leased_until=None)
                .returning(jobs)
            )
            released = [self._job(row) for row in freed.mappings()]
            for job in released:
                await self._append(connection, job, "worker lost; another goes on", {})
            if released:
                await self._wake(connection)
            return len(released)

    async def next_due(self, capacities: Mapping[str, int]) -> float | None:
        """Seconds until the next job is due; None when nothing waits for its time.

        Jobs that wait for a place at their vendor don't count: whoever gives one back wakes us.
        """
        soonest = select(
            cast(func.extract("epoch", func.min(jobs.c.next_at) - func.clock_timestamp()), Float)
        ).where(
            jobs.c.next_at.is_not(None),
            jobs.c.lease_holder.is_(None),
            ~and_(_waits_for_place(capacities), jobs.c.next_at <= func.now()),
        )
        async with self._engine.connect() as connection:
            return await connection.scalar(soonest)

    async def move(
        self,
        job: Job,
        *,
        to: State | None = None,
        after: float | None = 0.0,
        at: datetime | None = None,
        attempt: int = 0,
        what: str | None = None,
        detail: Mapping[str, Any] | None = None,
        **values: Any,
    ) -> Job:
        """The one fenced write of a worker: where the job got to, when it is next due, and why. `after=None`
        takes it off the queue."""
        state = to or job.state
        states.check(job.state, state, job.held_in)
        values = {
            "state": state.value,
            "attempt": attempt,
            "waits_why": None,
            **({} if state in (job.state, State.HELD) else {"recoveries": 0}),
            "updated_at": func.now(),
            "next_at": at if at is not None else None if after is None else soon(after),
            "lease_holder": None,
            "leased_until": None,
            **values,
        }
        if state not in (State.SUBMITTING, State.ANALYSING):
            values["at_vendor"] = False
        async with self._transaction() as connection:
            moved = await self._fenced(connection, job, values)
            if what is not None or moved.state != job.state:
                await self._append(connection, moved, what or moved.state.value, detail or {})
            due_now = at is None and after is not None and after <= 0
            place_is_free = job.at_vendor and not moved.at_vendor
            if due_now or place_is_free:
                await self._wake(connection)
            return moved

    async def keep(self, job: Job, what: str | None = None, /, **values: Any) -> Job:
        """A fenced write in the middle of a step: what must survive a crash. The lease stays."""
        async with self._transaction() as connection:
            kept = await self._fenced(connection, job, {"updated_at": func.now(), **values})
            if what is not None:
                await self._append(connection, kept, what, {})
            return kept

    async def note(self, job: Job, what: str, detail: Mapping[str, Any] | None = None) -> None:
        """Something worth knowing later that changes nothing now; fenced as well."""
        async with self._transaction() as connection:
            noted = await self._fenced(connection, job, {"updated_at": func.now()})
            await self._append(connection, noted, what, detail or {})


def _waits_for_place(adapters: Collection[str]) -> ColumnElement[bool]:
    """To be sent to one of these vendors, and not counted as being there yet."""
    if not adapters:
        return false()
    return and_(jobs.c.state == State.SUBMITTING.value, ~jobs.c.at_vendor, jobs.c.adapter.in_(list(adapters)))
