"""Jobs held for what one peer did (`held_by`) go on by themselves once it answers again, a few times."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import and_, func, select

from gateway.jobs.states import State
from gateway.jobs.store.database import LISTED, Standing
from gateway.jobs.store.requests import Requests
from gateway.jobs.tables import jobs

_MOST = 4  # after as many a person has to look: it may be the job and not the peer
_FIRST = timedelta(seconds=10)
_DUE = and_(
    jobs.c.state == State.HELD.value,
    jobs.c.held_in.is_not(None),
    jobs.c.held_by.is_not(None),
    jobs.c.recoveries < _MOST,
    jobs.c.updated_at < func.now() - _FIRST * func.power(6, jobs.c.recoveries),
)


_HOLDING = Standing(select(jobs.c.held_by).where(_DUE).distinct())


class Recovering(Requests):
    async def holding_peers(self) -> list[str]:
        """Those for which jobs are held that may go on."""
        return [peer for (peer,) in await self._ask(_HOLDING)]

    async def recover(self, peer: str) -> int:
        """It answers again: its jobs go on where they were held."""
        statement = select(*LISTED).where(_DUE, jobs.c.held_by == peer).with_for_update(skip_locked=True)
        async with self._transaction() as connection:
            held = [self._job(row) for row in (await connection.execute(statement)).mappings()]
            for job in held:
                what = f"goes on by itself: {peer} answers again"
                await self._go_on(connection, job, what, "gateway", recoveries=job.recoveries + 1)
            return len(held)
