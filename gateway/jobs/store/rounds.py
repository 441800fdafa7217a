"""What one replica does for all, once in a while."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import func, or_, update
from sqlalchemy.dialects.postgresql import insert as upsert

from gateway.jobs.store.database import Database, soon
from gateway.jobs.tables import rounds


class Rounds(Database):
    async def take_round(self, name: str, due: datetime, seconds: float) -> bool:
        """Whether it is ours to do, for so many seconds: it was last done before it was due. One that nobody
        has heard of yet counts as just done."""
        statement = (
            update(rounds)
            .where(
                rounds.c.name == name,
                rounds.c.done_at < due,
                or_(rounds.c.taken_until.is_(None), rounds.c.taken_until < func.now()),
            )
            .values(taken_until=soon(seconds))
            .returning(rounds.c.name)
        )
        fresh = upsert(rounds).values(name=name, done_at=func.now()).on_conflict_do_nothing()
        async with self._single.connect() as connection:
            if await connection.scalar(statement) is not None:
                return True
            await connection.execute(fresh)
            return False

    async def finish_round(self, name: str) -> None:
        async with self._single.connect() as connection:
            await connection.execute(
                update(rounds).where(rounds.c.name == name).values(done_at=func.now(), taken_until=None)
            )
