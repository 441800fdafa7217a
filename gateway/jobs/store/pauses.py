"""What all replicas know of the peers that somebody has paused, or says are mended."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.jobs.records import storable
from gateway.jobs.store.alerts import changed
from gateway.jobs.store.database import Database, Standing
from gateway.jobs.tables import alerts, audit, circuits, pauses

_OURSELVES = "gateway"


@dataclass(frozen=True, slots=True)
class Pause:
    peer: str
    why: str
    who: str
    since: datetime

    @property
    def by_itself(self) -> bool:
        """It has refused our credentials too often."""
        return self.who == _OURSELVES

    @property
    def advice(self) -> str:
        if not self.by_itself:
            return "It goes on once it is unpaused; nothing is lost."
        return f"Mend the token, then unpause it ({self.command}, or the console)."

    @property
    def command(self) -> str:
        """That lets it go on, as one types it."""
        return write_unpause(self.peer)


def write_unpause(peer: str) -> str:
    kind, _, name = peer.partition(".")
    return f"gateway unpause {kind.removesuffix('s')} {shlex.quote(name)}"


_PAUSES = Standing(select(*(pauses.c[f.name] for f in fields(Pause))))


class Pauses(Database):
    async def pauses(self) -> list[Pause]:
        return [Pause(*row) for row in await self._ask(_PAUSES)]

    async def pause(self, peer: str, why: str, who: str) -> bool:
        """Whether it wasn't paused yet."""
        async with self._transaction() as connection:
            return await self._pause(connection, peer, why, who)

    async def pause_itself(self, peer: str, name: str, refusals: int) -> bool:
        """Whether it wasn't paused yet. Who was told of it hears, once more, what is to be done now."""
        pause = f"it refused our credentials {refusals} times"
        async with self._transaction() as connection:
            paused = await self._pause(connection, peer, pause, _OURSELVES)
            if paused:
                advice = Pause(peer, pause, _OURSELVES, datetime.now(UTC)).advice
                await connection.execute(
                    update(alerts)
                    .where(alerts.c.cause == peer, alerts.c.cleared_at.is_(None))
                    .values(**changed(f"the gateway has paused {name}: {pause}", advice))
                )
            return paused

    async def _pause(self, connection: AsyncConnection, peer: str, why: str, who: str) -> bool:
        statement = (
            upsert(pauses)
            .values(peer=peer, why=storable(why), who=who)
            .on_conflict_do_nothing()
            .returning(pauses.c.peer)
        )
        paused = await connection.scalar(statement) is not None
        if paused:
            await self._audit_peer(connection, who, "pause", {"peer": peer, "why": why})
            await self._wake(connection, f"peer {peer}")
        return paused

    async def tell_unpaused(self, peer: str, sentence: str, advice: str) -> None:
        """The alert of one that had paused itself, and may refuse us still."""
        paused = select(pauses.c.peer).where(pauses.c.peer == peer).exists()
        async with self._transaction() as connection:
            await connection.execute(
                update(alerts)
                .where(alerts.c.cause == peer, alerts.c.cleared_at.is_(None), ~paused)
                .values(sentence=storable(sentence), advice=storable(advice))
            )

    async def unpause(self, peer: str, who: str) -> bool:
        """Whether it was paused. One that is away or refused us is looked at anew, and at once."""
        statement = delete(pauses).where(pauses.c.peer == peer).returning(pauses.c.peer)
        async with self._transaction() as connection:
            was = await connection.scalar(statement) is not None
            if was:
                await connection.execute(
                    update(circuits)
                    .where(circuits.c.peer == peer, circuits.c.state == "open")
                    .values(next_probe_at=func.now(), refusals=0, probes=0)
                )
                await self._audit_peer(connection, who, "unpause", {"peer": peer})
                await self._wake(connection, f"peer {peer}")
            return was

    async def look_now(self, peer: str, who: str) -> bool:
        """Whether it is away, so that it is looked at again at once: somebody says that it is mended."""
        statement = (
            update(circuits)
            .where(circuits.c.peer == peer, circuits.c.state == "open")
            .values(next_probe_at=func.now())
            .returning(circuits.c.peer)
        )
        async with self._transaction() as connection:
            away = await connection.scalar(statement) is not None
            if away:
                await self._audit_peer(connection, who, "try again", {"peer": peer})
                await self._wake(connection, f"peer {peer}")
            return away

    async def _audit_peer(
        self, connection: AsyncConnection, who: str, what: str, detail: Mapping[str, Any]
    ) -> None:
        await connection.execute(insert(audit).values(who=who, what=what, detail=storable(dict(detail))))
