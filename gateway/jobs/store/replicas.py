"""The gateway's own processes: what each does, and when it last gave a sign of life."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import delete, func, or_, select
from sqlalchemy.dialects.postgresql import insert as upsert

from gateway.jobs.records import storable
from gateway.jobs.store.database import CHANNEL, Database
from gateway.jobs.tables import jobs, replicas

SILENT = timedelta(seconds=60)
FORGOTTEN = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Sign:
    """Who it is, and what it does."""

    id: UUID
    host: str
    process: int
    does: str
    version: str
    began_at: datetime


@dataclass(frozen=True, slots=True)
class Replica(Sign):
    """`worker`: its number among workers, or 0. `at_work`: on so many jobs. `silent`: for too long, and it
    never said that it would go."""

    revision: str
    seen_at: datetime
    worker: int
    at_work: int
    silent: bool


class Replicas(Database):
    async def tell_replicas(self, notices: Sequence[str]) -> None:
        """Each that listens, our own process too. Nothing of it is kept."""
        for notice in notices:
            await self._lines.fetch(
                "SELECT pg_notify(%(channel)s, %(notice)s)", {"channel": CHANNEL, "notice": notice}
            )

    async def beat(self, sign: Sign, worker: int) -> None:
        """`worker`: its number among workers, or 0."""
        told = {**asdict(sign), "worker": worker, "revision": self.revision or ""}
        new = upsert(replicas).values(seen_at=func.now(), **storable(told))
        changing = ("revision", "worker", "seen_at")
        async with self._single.connect() as connection:
            await connection.execute(
                new.on_conflict_do_update(
                    index_elements=["id"], set_={name: new.excluded[name] for name in changing}
                )
            )

    async def replicas(self) -> list[Replica]:
        """Those that were heard of lately, the longest here first."""
        at_work = (
            select(func.count())
            .where(jobs.c.lease_holder == replicas.c.worker, replicas.c.worker > 0)
            .scalar_subquery()
        )
        silent = replicas.c.seen_at < func.now() - SILENT
        named = [replicas.c[f.name] for f in fields(Replica) if f.name not in ("at_work", "silent")]
        statement = (
            select(*named, at_work.label("at_work"), silent.label("silent"))
            .where(replicas.c.seen_at > func.now() - FORGOTTEN)
            .order_by(replicas.c.began_at)
        )
        async with self._single.connect() as connection:
            return [Replica(**row) for row in (await connection.execute(statement)).mappings()]

    async def forget_replicas(self, gone: Collection[UUID]) -> None:
        """These, and whoever has been silent for too long to be looked for."""
        old = replicas.c.seen_at < func.now() - FORGOTTEN
        async with self._single.connect() as connection:
            await connection.execute(delete(replicas).where(or_(replicas.c.id.in_(gone), old)))
