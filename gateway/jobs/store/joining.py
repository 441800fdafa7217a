"""Who joins a living job, between his acknowledgement and the moment at which Sectra has let him in.

Each is seen to by one replica at a time, for as long as it has taken him; a cancel removes him whoever has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.jobs.cipher import Unreadable
from gateway.jobs.records import Job, Joining, NewJob, Origin
from gateway.jobs.states import FINAL
from gateway.jobs.store.accepting import ACCEPT, TAKEN_FOR, accepting, same_as
from gateway.jobs.store.database import Standing, soon
from gateway.jobs.store.requests import Requests
from gateway.jobs.tables import jobs, joining

_DUE_IN = Standing(select(func.extract("epoch", func.min(joining.c.next_at) - func.now())))
_OF_A_CALL = {f.name for f in fields(NewJob)}


class Joins(Requests):
    async def joining_due_in(self) -> float | None:
        """Seconds until somebody is to be seen to."""
        [[pause]] = await self._ask(_DUE_IN)
        return None if pause is None else float(pause)

    async def take_joining(self, most: int) -> list[Joining]:
        """Those that nobody sees to."""
        due = (
            select(joining.c.id)
            .where(joining.c.next_at <= func.now())
            .order_by(joining.c.next_at)
            .limit(most)
            .with_for_update(skip_locked=True)
        )
        taken = (
            update(joining)
            .where(joining.c.id.in_(due.scalar_subquery()))
            .values(tries=joining.c.tries + 1, next_at=soon(TAKEN_FOR))
            .returning(joining.c.id, joining.c.job_id, joining.c.tries, joining.c.asked)
        )
        async with self._transaction() as connection:
            rows = (await connection.execute(taken)).all()
        return [Joining(row.id, row.job_id, row.tries, self._asked(row.asked)) for row in rows]

    async def join(self, who: Joining, *, let_in: bool, by_stranger: bool = False) -> Job | Joining | None:
        """The job that is his from now on: the living one, if Sectra has `let_in` his token, or one of his
        own when that has ended. `by_stranger`: the token that began it was refused, so that nothing that came
        with it is to count.

        Himself again: there is a living job, perhaps another one, that he isn't let in to. None: he has
        withdrawn, or another replica sees to him."""
        assert who.asked is not None
        async with self._transaction() as connection:
            if not await self._has(connection, who):
                return None
            job, fresh = await self._locked(connection, who.job), False
            if job is None or job.state in FINAL:
                job, fresh = await self._begin_another(connection, who.asked), True
                if job is None:
                    return await self._turn_to_the_next(connection, who)
            elif let_in:
                job = await self._join(connection, job, who.asked, by_stranger and not job.callback_accepted)
            else:
                return who
            await connection.execute(delete(joining).where(joining.c.id == who.id))
        if fresh:
            self._wake_soon()  # once it is committed: who looks before finds nothing, and sleeps
        return job

    async def put_off_joining(self, who: Joining, seconds: float) -> None:
        async with self._transaction() as connection:
            await connection.execute(update(joining).where(*_his(who)).values(next_at=soon(seconds)))

    async def drop_joining(self, who: Joining) -> None:
        """He was refused."""
        async with self._transaction() as connection:
            await connection.execute(delete(joining).where(*_his(who)))

    async def _has(self, connection: AsyncConnection, who: Joining) -> bool:
        mine = select(joining.c.id).where(*_his(who)).with_for_update()
        return await connection.scalar(mine) is not None

    async def _begin_another(self, connection: AsyncConnection, new: NewJob) -> Job | None:
        """None: somebody else has begun one."""
        given = self._given(new, 0.0)
        begun = (await connection.exec_driver_sql(ACCEPT, accepting([given]))).first()
        return None if begun is None else self._begun(new, given, begun)

    async def _turn_to_the_next(self, connection: AsyncConnection, who: Joining) -> Joining:
        """If that has ended as well, he is back at once."""
        assert who.asked is not None
        twin = await connection.scalar(select(jobs.c.id).where(same_as(who.asked)))
        if twin is None:
            return who
        await connection.execute(update(joining).where(joining.c.id == who.id).values(job_id=twin))
        return replace(who, job=twin)

    def _asked(self, kept: bytes) -> NewJob | None:
        try:
            asked: Mapping[str, Any] = self._cipher.decrypt(kept)
        except Unreadable:
            return None
        known = {name: value for name, value in asked.items() if name in _OF_A_CALL}
        return NewJob(**{**known, "origin": Origin(asked["origin"])})


def _his(who: Joining) -> tuple[Any, ...]:
    return joining.c.id == who.id, joining.c.tries == who.tries
