"""What a worker does with jobs: look what is due, take it, renew its leases, move it on.

Each of its writes is fenced by state, lease holder and fence number: when no row answers, somebody else won
(a cancel, a successor), and `Superseded` tells it to drop its result.

What is due stands in one index, in groups of the same vendor, priority and state; within a group by when it
is due. Whoever looks steps from group to group and reads the first few of each, so that nothing is touched
that can't go: neither what is due later nor what waits for a place at its vendor, however much there is.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import or_, select, text, update

from gateway.jobs import states
from gateway.jobs.records import Job
from gateway.jobs.states import State
from gateway.jobs.store.database import PRESENCE
from gateway.jobs.store.fenced import OF_JOBS, Fenced, In, Plus
from gateway.jobs.tables import jobs
from gateway.jobs.turns import Due, Outlook, Turns

log = structlog.get_logger(__name__)

LIMIT_LOCK = 0x6761
_SHORTEST_WAIT = 1.0  # for a moment that somebody's clock named: ours may be a little ahead of it

_WAITS = "next_at IS NOT NULL AND lease_holder IS NULL"  # in the very words of the index
_GROUP = "adapter, priority, state, at_vendor"
_KEPT = "least(1, most - 1)"  # of a vendor's places, from what nobody waits for
_FREE = "limited.free - CASE WHEN {job}.priority < 0 THEN limited.kept ELSE 0 END"
LOOK = f"""
    WITH RECURSIVE groups AS (
        (SELECT {_GROUP}, next_at FROM jobs WHERE {_WAITS} ORDER BY {_GROUP}, next_at LIMIT 1)
        UNION ALL
        SELECT following.* FROM groups, LATERAL (
            SELECT {_GROUP}, next_at FROM jobs
            WHERE {_WAITS} AND ({_GROUP})
                > (groups.adapter, groups.priority, groups.state, groups.at_vendor)
            ORDER BY {_GROUP}, next_at LIMIT 1
        ) following
    ),
    limited AS (
        SELECT adapter, {_KEPT} AS kept,
            most - (SELECT count(*) FROM jobs WHERE at_vendor AND jobs.adapter = given.adapter) AS free
        FROM unnest(%(adapters)s::text[], %(capacities)s::int[]) AS given (adapter, most)
        WHERE EXISTS (SELECT FROM groups
            WHERE groups.adapter = given.adapter AND state = 'submitting' AND NOT at_vendor)
    )
    SELECT groups.adapter, groups.priority, groups.state, groups.at_vendor,
        extract(epoch FROM groups.next_at - now())::float8,
        {_FREE.format(job="groups")}, first.ids, first.waited
    FROM groups
        LEFT JOIN limited
            ON limited.adapter = groups.adapter AND groups.state = 'submitting' AND NOT groups.at_vendor,
        LATERAL (
            SELECT array_agg(id) AS ids, array_agg(waited) AS waited
            FROM (
                SELECT id, extract(epoch FROM now() - next_at)::float8 AS waited FROM jobs
                WHERE {_WAITS} AND next_at <= now()
                    AND jobs.adapter = groups.adapter AND jobs.priority = groups.priority
                    AND jobs.state = groups.state AND jobs.at_vendor = groups.at_vendor
                    AND id <> ALL(%(but)s::uuid[])
                ORDER BY next_at
                LIMIT greatest(0, least(%(room)s::bigint,
                    coalesce({_FREE.format(job="groups")}, %(room)s::bigint)))
            ) members
        ) first"""

# The lock comes first and in a statement of its own, so that the count sees what its last holder committed;
# in one order everywhere, since they are taken one after the other.
LOCK_PLACES = """
    SELECT pg_advisory_xact_lock(%(lock)s::int, hashtext(adapter))
    FROM (SELECT unnest(%(adapters)s::text[]) AS adapter ORDER BY 1) sorted"""
_TAKE = f"""
    WITH wanted AS MATERIALIZED (
        SELECT * FROM unnest(%(ids)s::uuid[], %(states)s::text[], %(at_vendor)s::bool[], %(adapters)s::text[],
            %(seats)s::int[]) AS given (id, state, at_vendor, adapter, seat)
    ),
    limited AS MATERIALIZED (
        SELECT adapter, {_KEPT} AS kept,
            most - (SELECT count(*) FROM jobs WHERE at_vendor AND jobs.adapter = given.adapter) AS free
        FROM unnest(%(limited)s::text[], %(capacities)s::int[]) AS given (adapter, most)
    ),
    locked AS MATERIALIZED (
        SELECT jobs.id FROM wanted
            JOIN jobs ON jobs.id = wanted.id AND jobs.state = wanted.state
                AND jobs.at_vendor = wanted.at_vendor
            LEFT JOIN limited ON limited.adapter = wanted.adapter
        WHERE jobs.lease_holder IS NULL AND jobs.next_at <= now()
            AND (wanted.seat IS NULL OR wanted.seat <= {_FREE.format(job="jobs")})
        FOR UPDATE OF jobs SKIP LOCKED
    )
    UPDATE jobs SET fence = jobs.fence + 1, attempt = jobs.attempt + 1, lease_holder = %(worker)s,
        leased_until = now() + %(lease)s * interval '1 second',
        at_vendor = jobs.at_vendor OR jobs.state = 'submitting'
    FROM locked WHERE jobs.id = locked.id
    RETURNING {OF_JOBS}"""

_RENEW = """
    UPDATE jobs SET leased_until = now() + %(lease)s * interval '1 second'
    WHERE lease_holder = %(worker)s AND id = ANY(%(ids)s) RETURNING id, fence"""
_HOLDERS = """
    SELECT lease_holder, bool_or(leased_until < now()) FROM jobs
    WHERE lease_holder IS NOT NULL GROUP BY lease_holder"""
_LIVING = """
    SELECT objid::bigint FROM pg_locks
    WHERE locktype = 'advisory' AND granted AND mode = 'ExclusiveLock' AND classid::bigint = %(presence)s
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"""


class Queue(Fenced):
    async def look(self, room: int, capacities: Mapping[str, int], but: Collection[UUID] = ()) -> Outlook:
        """What is due, up to `room` of each kind, and when more is. Locks nothing."""
        rows = await self._lines.fetch(
            LOOK,
            {
                "room": room,
                "adapters": list(capacities),
                "capacities": list(capacities.values()),
                "but": list(but),
            },
        )
        due, pauses = [], []
        free: dict[str, int] = {}
        spare: dict[str, int] = {}
        for adapter, priority, state, at_vendor, next_in, places, ids, waited in rows:
            kind = adapter, priority, State(state), at_vendor
            due += [Due(id, *kind, since) for id, since in zip(ids or (), waited or (), strict=True)]
            if places is not None:
                (spare if priority < 0 else free)[adapter] = places
            if next_in > 0:
                pauses.append(next_in)
        return Outlook(due, min(pauses, default=None), free, spare)

    async def take(
        self, worker: int, lease: float, chosen: Sequence[Due], capacities: Mapping[str, int]
    ) -> list[Job]:
        """Those of them that nobody else has taken meanwhile, in their order, each under a fresh lease."""
        if not chosen:
            return []
        seats: dict[str, int] = {}
        values: dict[str, Any] = {"worker": worker, "lease": lease, "seats": []}
        for due in chosen:
            limited = due.needs_place and due.adapter in capacities
            seats |= {due.adapter: seats.get(due.adapter, 0) + 1} if limited else {}
            values["seats"].append(seats[due.adapter] if limited else None)
        values |= {
            "ids": [due.id for due in chosen],
            "states": [due.state.value for due in chosen],
            "at_vendor": [due.at_vendor for due in chosen],
            "adapters": [due.adapter for due in chosen],
            "limited": list(seats),
            "capacities": [capacities[adapter] for adapter in seats],
        }
        if seats:
            lock = LOCK_PLACES, {"lock": LIMIT_LOCK, "adapters": list(seats)}
            _, rows = await self._lines.fetch_together(lock, (_TAKE, values))
        else:
            rows = await self._lines.fetch(_TAKE, values)
        taken = {job.id: job for job in map(self._job_of, rows)}
        return [taken[due.id] for due in chosen if due.id in taken]

    async def claim(self, worker: int, room: int, lease: float, capacities: Mapping[str, int]) -> list[Job]:
        """Take up to `room` due jobs, of a silent worker too; for a limited vendor no more than it takes."""
        await self._release(dead=())
        outlook = await self.look(room, capacities)
        return await self.take(worker, lease, Turns(room).choose(outlook, {}), capacities)

    async def renew(self, worker: int, at_work: Collection[UUID], lease: float) -> dict[UUID, int]:
        """Prolong the leases of the jobs at work; returns those still held, with their fence numbers."""
        values = {"worker": worker, "ids": list(at_work), "lease": lease}
        return dict(await self._lines.fetch(_RENEW, values))

    async def release_orphans(self) -> int:
        """Free the jobs of workers whose advisory lock is gone, for their process is dead or cut off, and of
        those that have let their leases lapse."""
        # In this order: who holds a job had its lock before, so who lacks it afterwards is gone. The other
        # way round, a worker that begins between the two would be taken for dead.
        holders = dict(await self._lines.fetch(_HOLDERS, {}))
        if not holders:
            return 0
        living = {row[0] for row in await self._lines.fetch(_LIVING, {"presence": PRESENCE})}
        dead = holders.keys() - living
        return await self._release(dead) if dead or any(holders.values()) else 0

    async def _release(self, dead: Collection[int]) -> int:
        lapsed = jobs.c.leased_until < text("now()")
        orphans = (
            select(jobs.c.id, jobs.c.lease_holder)
            .where(jobs.c.lease_holder.is_not(None), or_(lapsed, jobs.c.lease_holder.in_(dead)))
            .with_for_update(skip_locked=True)
            .cte("orphans")
        )
        freed = (
            update(jobs)
            .where(jobs.c.id == orphans.c.id)
            .values(lease_holder=None, leased_until=None)
            .returning(jobs, orphans.c.lease_holder.label("holder"))
        )
        async with self._transaction() as connection:
            released = [
                (self._job(row), row["holder"]) for row in (await connection.execute(freed)).mappings()
            ]
            for job, holder in released:
                how = "lost" if holder in dead else "silent"
                log.warning("a job of a worker is freed", job=str(job.id), worker=holder, why=how)
                await self._append(connection, job, f"worker {how}; another goes on", {})
        if released:
            self._wake_soon()
        return len(released)

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
        said: Mapping[str, Any] | None = None,
        stay: float | None = None,
        **values: Any,
    ) -> Job:
        """The one fenced write of a worker: where the job got to, when it is next due, and why. `after=None`
        takes it off the queue. `stay`: the lease under which its worker goes on with it at once."""
        state = to or job.state
        states.check(job.state, state, job.held_in)
        if at is not None:  # by our clock; the job is due by the database's
            after = max(_SHORTEST_WAIT, (at - datetime.now(UTC)).total_seconds())
        values = {
            "state": state.value,
            "attempt": attempt,
            "waits_why": None,
            "waits_for": None,
            **({} if state in (job.state, State.HELD) else {"recoveries": 0}),
            "updated_at": In(),
            "next_at": None if after is None else In(after),
            "lease_holder": None,
            "leased_until": None,
            "at_vendor": job.at_vendor,
            **values,
        }
        if self.revision not in (None, job.revision):
            values["revision"] = self.revision
        if state not in (State.SUBMITTING, State.ANALYSING):
            values["at_vendor"] = False
        if stay is not None:
            values |= {
                "attempt": attempt + 1,
                "fence": Plus(1),
                "lease_holder": job.lease_holder,
                "leased_until": In(stay),
                "at_vendor": values["at_vendor"] or state == State.SUBMITTING,
            }
        told = state.value if what is None and state != job.state else what
        moved = await self._write(job, values, told, detail, said)
        due_now = stay is None and after is not None and after <= 0
        if due_now or (job.at_vendor and not moved.at_vendor):
            self._wake_soon()
        return moved

    async def keep(self, job: Job, what: str | None = None, /, **values: Any) -> Job:
        """A fenced write in the middle of a step: what must survive a crash. The lease stays."""
        return await self._write(job, {"updated_at": In(), **values}, what)

    async def note(
        self,
        job: Job,
        what: str,
        detail: Mapping[str, Any] | None = None,
        said: Mapping[str, Any] | None = None,
    ) -> None:
        """Something worth knowing later that changes nothing now; fenced as well."""
        await self._write(job, {"updated_at": In()}, what, detail, said)
