"""What those who watch want to know of all jobs: of the living alone, however many have ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, or_, select
from sqlalchemy.dialects.postgresql import insert as upsert

from gateway.jobs.store.database import Database, Standing
from gateway.jobs.tables import ALIVE, REAL, circuits, jobs


@dataclass(frozen=True, slots=True)
class Crowd:
    """The living jobs of an application in a state."""

    department: str
    application: str
    state: str
    jobs: int
    oldest: datetime  # when it was acknowledged


_KIND = jobs.c.department, jobs.c.application, jobs.c.state
_CROWDS = Standing(
    select(*_KIND, func.count(), func.min(jobs.c.created_at)).where(ALIVE, REAL).group_by(*_KIND)
)


class Crowds(Database):
    async def crowds(self) -> list[Crowd]:
        return [Crowd(*row) for row in await self._ask(_CROWDS)]

    async def take_certificate(self, peers: Sequence[str], every: float) -> str | None:
        """A peer whose certificate nobody has looked at for so many seconds: the caller does."""
        lately = circuits.c.certificate_asked_at > func.now() - timedelta(seconds=every)
        for peer in peers:
            asked = (
                upsert(circuits)
                .values(peer=peer, certificate_asked_at=func.now())
                .on_conflict_do_update(
                    index_elements=["peer"],
                    set_={"certificate_asked_at": func.now()},
                    where=or_(circuits.c.certificate_asked_at.is_(None), ~lately),
                )
                .returning(circuits.c.peer)
            )
            async with self._transaction() as connection:
                if await connection.scalar(asked) is not None:
                    return peer
        return None

    async def record_certificate(self, peer: str, expires: datetime | None) -> None:
        """`expires`: none, where it shows no certificate."""
        values = {"certificate_expires": expires, "certificate_asked_at": func.now()}
        async with self._transaction() as connection:
            await connection.execute(
                upsert(circuits)
                .values(peer=peer, **values)
                .on_conflict_do_update(index_elements=["peer"], set_=values)
            )
