"""How each vendor's canary fares, and the one that is on its way."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import case, delete, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from gateway.jobs.records import storable
from gateway.jobs.store.database import Database, soon
from gateway.jobs.tables import canaries

_BEGINS_WITHIN = 60.0  # its job is made, or whoever began it has died


@dataclass(frozen=True, slots=True)
class CanaryState:
    """`pending`: one is on its way, `job_id` once its job is made. `ok`, `since`: whether the last one came
    back, and since when that is so. `failures`: in a row. `seconds`: how long the last one took that came
    back."""

    adapter: str
    began_at: datetime
    pending: bool
    job_id: UUID | None
    ok: bool | None
    since: datetime | None
    failures: int
    seconds: float | None
    why: str | None
    succeeded_at: datetime | None
    whole_way: bool


class Canaries(Database):
    async def canaries(self) -> dict[str, CanaryState]:
        columns = [canaries.c[f.name] for f in fields(CanaryState)]
        async with self._single.connect() as connection:
            rows = (await connection.execute(select(*columns))).mappings()
            return {row["adapter"]: CanaryState(**row) for row in rows}

    async def begin_canary(self, adapter: str, every: float, *, whole_way: bool) -> datetime | None:
        """Since when, if it is time for another, and ours to send."""
        due = func.now() - timedelta(seconds=every)
        idle = or_(canaries.c.pending.is_(False), canaries.c.began_at < soon(-_BEGINS_WITHIN))
        statement = (
            upsert(canaries)
            .values(adapter=adapter, pending=True, whole_way=whole_way)
            .on_conflict_do_update(
                index_elements=["adapter"],
                set_={"began_at": func.now(), "pending": True, "whole_way": whole_way},
                where=(canaries.c.began_at <= due) & canaries.c.job_id.is_(None) & idle,
            )
            .returning(canaries.c.began_at)
        )
        async with self._single.connect() as connection:
            began: datetime | None = await connection.scalar(statement)
            return began

    async def follow_canary(self, adapter: str, began_at: datetime, job_id: UUID) -> bool:
        """Whether the one that began then still lacked its job."""
        lacking = canaries.c.job_id.is_(None) & (canaries.c.began_at == began_at)
        statement = (
            update(canaries)
            .where(canaries.c.adapter == adapter, canaries.c.pending, lacking)
            .values(job_id=job_id)
            .returning(canaries.c.adapter)
        )
        async with self._single.connect() as connection:
            return await connection.scalar(statement) is not None

    async def forget_canary(self, adapter: str) -> None:
        async with self._single.connect() as connection:
            await connection.execute(delete(canaries).where(canaries.c.adapter == adapter))

    async def end_canary(
        self, adapter: str, job_id: UUID | None, *, seconds: float | None = None, why: str | None = None
    ) -> bool:
        """It came back after so many seconds; or it didn't, and why. Whether this said so first."""
        ok = why is None
        statement = (
            update(canaries)
            .where(
                canaries.c.adapter == adapter,
                canaries.c.pending,
                canaries.c.job_id.is_not_distinct_from(job_id),
            )
            .values(
                job_id=None,
                pending=False,
                ok=ok,
                since=case((canaries.c.ok.is_not_distinct_from(ok), canaries.c.since), else_=func.now()),
                failures=0 if ok else canaries.c.failures + 1,
                seconds=seconds if ok else canaries.c.seconds,
                why=None if why is None else storable(why),
                succeeded_at=func.now() if ok else canaries.c.succeeded_at,
            )
            .returning(canaries.c.adapter)
        )
        async with self._single.connect() as connection:
            return await connection.scalar(statement) is not None
