"""How many studies were fetched from each archive lately, and who waits, counted for all replicas."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from sqlalchemy import extract, func, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from gateway.jobs.store.database import Database
from gateway.jobs.tables import pulls

T = TypeVar("T")


class Pulls(Database):
    async def change_pulls(
        self, archive: str, change: Callable[[Mapping[str, Any], float], tuple[Mapping[str, Any], T]]
    ) -> T:
        """What was kept of an archive, and the database's time, by whoever changes it alone."""
        now = extract("epoch", func.clock_timestamp())  # once the row is ours, and not when we began to wait
        look = select(pulls.c.kept, now).where(pulls.c.archive == archive).with_for_update()
        async with self._transaction() as connection:
            row = (await connection.execute(look)).first()
            if row is None:
                begun = upsert(pulls).values(archive=archive, kept={}).on_conflict_do_nothing()
                await connection.execute(begun)
                row = (await connection.execute(look)).one()
            before: Mapping[str, Any] = row[0]
            kept, answer = change(before, float(row[1]))
            if kept != before:
                await connection.execute(update(pulls).where(pulls.c.archive == archive).values(kept=kept))
            return answer
