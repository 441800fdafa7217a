"""The jobs that wait for a peer, which no claim sees until they are woken."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Column, ColumnElement, Select, and_, case, func, literal, or_, select, union, update
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.contract import Failure, Retryable
from gateway.jobs.records import Job, storable
from gateway.jobs.states import WORKING, State
from gateway.jobs.store.database import Database, Standing
from gateway.jobs.tables import REAL, deliveries, jobs

_PARKED_AT_ONCE = 500
_WOKEN_AT_ONCE = 2000


@dataclass(frozen=True, slots=True)
class Backlog:
    """Jobs that have no other way than by one peer."""

    states: Sequence[State]
    adapter: str | None = None
    applications: Sequence[str] = ()
    archive: str | None = None
    server: str | None = None

    def condition(self) -> ColumnElement[bool]:
        named = [
            column == value
            for column, value in (
                (jobs.c.adapter, self.adapter),
                (jobs.c.archive, self.archive),
                (jobs.c.server, self.server),
            )
            if value is not None
        ]
        if self.applications:
            named.append(jobs.c.application.in_(self.applications))
        return and_(jobs.c.state.in_([state.value for state in self.states]), *named)


def _all_in(column: Column[str]) -> Select[Any]:
    """The values of an indexed column, by one step in the index each."""
    first = select(func.min(column).label("peer")).where(column > "").cte(recursive=True)
    following = select(func.min(column)).where(column > first.c.peer).scalar_subquery()
    steps = first.union_all(select(following).where(first.c.peer.is_not(None)))
    return select(steps.c.peer).where(steps.c.peer.is_not(None))


_WAITED_FOR = Standing(select(union(_all_in(jobs.c.waits_for), _all_in(deliveries.c.waits_for)).subquery()))
_WAITING = Standing(
    select(jobs.c.waits_for, func.count())
    .where(jobs.c.waits_for.is_not(None), REAL)
    .group_by(jobs.c.waits_for)
)


_BEFORE = [state.value for state in (State.RECEIVED, State.LOCATING, State.SUBMITTING)]


def _failed(failure: Failure | None) -> dict[str, Any]:
    if failure is None:
        return {}
    return {
        "error_kind": Retryable.kind,
        "error_message": storable(failure.message),
        "error_advice": storable(failure.advice),
    }


class Parked(Database):
    async def park(
        self, peer: str, backlog: Sequence[Backlog], why: str, began_why: str, failure: Failure | None = None
    ) -> AsyncIterator[list[Job]]:
        """Take off the queue what can only fail now, some at a time. `began_why`: for those that the vendor
        may have got already; `failure`: what a person has to see to before they go on."""
        if not backlog:
            return
        chosen = (
            select(jobs.c.id)
            .where(
                or_(*(each.condition() for each in backlog)),
                jobs.c.next_at.is_not(None),
                jobs.c.lease_holder.is_(None),
            )
            .limit(_PARKED_AT_ONCE)
            .with_for_update(skip_locked=True)
        )
        statement = (
            update(jobs)
            .where(jobs.c.id.in_(chosen.scalar_subquery()))
            .values(
                waits_for=peer,
                waits_why=case((jobs.c.submit_began, literal(began_why)), else_=literal(why)),
                **_failed(failure),
                next_at=None,
                at_vendor=and_(jobs.c.at_vendor, jobs.c.submit_began),
                updated_at=func.now(),
            )
            .returning(jobs)
        )
        while True:
            async with self._transaction() as connection:
                parked = [self._job(row) for row in (await connection.execute(statement)).mappings()]
                told = [(job, f"waiting: {job.waits_why}", {"peer": peer}) for job in parked]
                await self._append_all(connection, told)
            if parked:
                yield parked
            if len(parked) < _PARKED_AT_ONCE:
                return

    async def reword(self, peer: str, why: str, began_why: str, failure: Failure) -> AsyncIterator[list[Job]]:
        """What waits already, waits for another reason now."""
        words = case((or_(jobs.c.submit_began, jobs.c.state.not_in(_BEFORE)), began_why), else_=why)
        last = UUID(int=0)
        while True:
            chosen = (
                select(jobs.c.id)
                .where(
                    jobs.c.waits_for == peer,
                    jobs.c.state.in_([state.value for state in WORKING]),
                    jobs.c.waits_why.is_distinct_from(words),
                    jobs.c.lease_holder.is_(None),
                    jobs.c.id > last,
                )
                .order_by(jobs.c.id)
                .limit(_PARKED_AT_ONCE)
                .with_for_update(skip_locked=True)
            )
            statement = (
                update(jobs)
                .where(jobs.c.id.in_(chosen.scalar_subquery()))
                .values(waits_why=words, **_failed(failure))
                .returning(jobs)
            )
            async with self._transaction() as connection:
                found = [self._job(row) for row in (await connection.execute(statement)).mappings()]
                told = [(job, f"waiting: {job.waits_why}", {"peer": peer}) for job in found]
                await self._append_all(connection, told)
            if found:
                yield found
            if len(found) < _PARKED_AT_ONCE:
                return
            last = max(job.id for job in found)

    async def wake(self, peer: str) -> AsyncIterator[list[Job]]:
        """It is back: what waited for it goes on, the most urgent first. What was to be there by a certain
        time gets the time back that it waited."""
        while True:
            async with self._transaction() as connection:
                of_deliveries = await self._wake_deliveries(connection, peer)
                chosen = (
                    select(jobs.c.id)
                    .where(jobs.c.waits_for == peer)
                    .order_by(jobs.c.priority.desc(), jobs.c.created_at)
                    .limit(_WOKEN_AT_ONCE)
                    .with_for_update(skip_locked=True)
                )
                meant = or_(
                    jobs.c.id.in_(chosen.scalar_subquery()),
                    and_(jobs.c.id.in_(of_deliveries), jobs.c.state == State.DELIVERING.value),
                )
                statement = (
                    update(jobs)
                    .where(meant, jobs.c.lease_holder.is_(None))
                    .values(
                        waits_for=None,
                        waits_why=None,
                        next_at=func.now(),
                        result_by=jobs.c.result_by + (func.now() - jobs.c.updated_at),
                    )
                    .returning(jobs)
                )
                woken = [self._job(row) for row in (await connection.execute(statement)).mappings()]
                if woken:
                    await self._wake(connection, "")
            if woken:
                yield woken
            if len(woken) < _WOKEN_AT_ONCE and len(of_deliveries) < _WOKEN_AT_ONCE:
                return

    async def look_again(self, beginnings: Sequence[str]) -> None:
        """Jobs whose reason for waiting begins so are due at once: it may hold no longer."""
        meant = (
            jobs.c.next_at > func.now(),
            jobs.c.lease_holder.is_(None),
            or_(*(jobs.c.waits_why.startswith(each, autoescape=True) for each in beginnings)),
        )
        async with self._transaction() as connection:
            await connection.execute(update(jobs).where(*meant).values(next_at=func.now()))
            await self._wake(connection, "")

    async def _wake_deliveries(self, connection: AsyncConnection, peer: str) -> Collection[UUID]:
        chosen = (
            select(deliveries.c.job_id)
            .where(deliveries.c.waits_for == peer)
            .limit(_WOKEN_AT_ONCE)
            .with_for_update(skip_locked=True)
        )
        statement = (
            update(deliveries)
            .where(deliveries.c.waits_for == peer, deliveries.c.job_id.in_(chosen.scalar_subquery()))
            .values(waits_for=None, next_at=func.now())
            .returning(deliveries.c.job_id)
        )
        return set((await connection.execute(statement)).scalars())

    async def waited_for(self) -> list[str]:
        """The peers that any job or delivery waits for: one step in the index each, however many wait."""
        return sorted(peer for (peer,) in await self._ask(_WAITED_FOR))

    async def count_waiting(self) -> dict[str, int]:
        """How many jobs wait for each peer."""
        return dict(await self._ask(_WAITING))
