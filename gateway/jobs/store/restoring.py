"""After the database was brought back to an earlier moment: what has happened since isn't known here."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import case, func, or_, select, update

from gateway.jobs.states import FINAL, State
from gateway.jobs.store.fenced import Fenced
from gateway.jobs.tables import job_events, jobs

_BEFORE = [state.value for state in (State.RECEIVED, State.LOCATING, State.SUBMITTING)]


class Restoring(Fenced):
    async def newest_moment(self) -> datetime:
        """When something was last told."""
        newest = select(func.coalesce(func.max(job_events.c.at), func.now()))
        async with self._single.connect() as connection:
            moment: datetime = (await connection.execute(newest)).scalar_one()
            return moment

    async def doubt_all(self, made_at: datetime) -> int:
        """Whoever may have sent a study since then is asked first. Returns how many jobs go on."""
        early = or_(jobs.c.state.in_(_BEFORE), jobs.c.held_in.in_(_BEFORE))
        doubted = (
            update(jobs)
            .where(jobs.c.state.not_in([state.value for state in FINAL]))
            .values(
                submit_began=case((early, True), else_=jobs.c.submit_began),
                sent=case((early, None), else_=jobs.c.sent),
                fence=jobs.c.fence + 1,
                lease_holder=None,
                leased_until=None,
            )
            .returning(jobs)
        )
        what = f"brought back from the backup of {made_at:%F %R} UTC: its vendor is asked what it has"
        async with self._transaction() as connection:
            found = (await connection.execute(doubted)).mappings().all()
            await self._append_all(connection, [(self._job(row), what, {}) for row in found])
        return len(found)
