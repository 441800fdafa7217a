"""How much of what a vendor's uploads may take of the line each process has for a moment."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from sqlalchemy import delete, func, select, text
from sqlalchemy.dialects.postgresql import insert as upsert

from gateway.jobs.store.database import Database
from gateway.jobs.tables import uploads

_LEASE = 5.0  # seconds
_ASKED_AGAIN = 0.5


class Uploads(Database):
    async def lease_upload(self, peer: str, sender: UUID, most: float) -> tuple[float, float]:
        """A share of `most` and for how many seconds; 0 and when to ask again, while others hold all. What
        is held is never more than `most`: whoever comes waits until the others have heard of him."""
        ours = uploads.c.peer == peer
        async with self._transaction() as connection:
            await connection.execute(text("SET LOCAL synchronous_commit = off"))
            await connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(peer, 2))))
            await connection.execute(delete(uploads).where(ours, uploads.c.until <= func.clock_timestamp()))
            held = select(func.count(), func.coalesce(func.sum(uploads.c.share), 0.0))
            others, taken = (await connection.execute(held.where(ours, uploads.c.sender != sender))).one()
            share = max(0.0, min(most / (others + 1), most - taken))
            until = func.clock_timestamp() + timedelta(seconds=_LEASE)  # he may have waited for the lock
            new = upsert(uploads).values(peer=peer, sender=sender, share=share, until=until)
            await connection.execute(
                new.on_conflict_do_update(
                    index_elements=["peer", "sender"],
                    set_={"share": new.excluded.share, "until": new.excluded.until},
                )
            )
        return (share, _LEASE) if share >= 1 else (0.0, _ASKED_AGAIN)
