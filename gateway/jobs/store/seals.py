"""The heads of all chains, sealed into a chain of their own: a job that vanishes doesn't stay unseen."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy import func, insert, select

from gateway.jobs.records import Seal
from gateway.jobs.store.database import Database
from gateway.jobs.tables import job_events, seals

_LOCK = 0x7365616C
_AT_ONCE = 1000
_SETTLED = timedelta(minutes=2)  # longer than any transaction may last: what is older has all been committed


class Seals(Database):
    async def seal(self, settled: timedelta = _SETTLED) -> Seal | None:
        """Seal what has grown since the last time; None when nothing has."""
        async with self._transaction() as connection:
            await connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))
            last = (
                (await connection.execute(select(seals).order_by(seals.c.id.desc()).limit(1)))
                .mappings()
                .first()
            )
            grown = select(job_events.c.job_id, func.max(job_events.c.id).label("head")).where(
                job_events.c.id > (last["last_event_id"] if last else 0),
                job_events.c.at < func.now() - settled,
            )
            heads = grown.group_by(job_events.c.job_id).subquery()
            found = await connection.execute(
                select(heads.c.job_id, heads.c.head, job_events.c.hash).where(job_events.c.id == heads.c.head)
            )
            rows = found.all()
            if not rows:
                return None
            new = Seal(
                at=datetime.now(UTC),
                last_event_id=max(row.head for row in rows),
                heads={str(row.job_id): row.hash for row in rows},
                previous_hash=last["hash"] if last else "",
            )
            new = replace(new, hash=new.digest())
            await connection.execute(insert(seals).values(**asdict(new)))
            return new

    async def seals(self) -> AsyncIterator[tuple[int, Seal]]:
        columns = [seals.c[f.name] for f in fields(Seal)]
        async with self._engine.connect() as connection:
            rows = await connection.stream(select(seals.c.id, *columns).order_by(seals.c.id))
            async for row in rows.mappings():
                yield row["id"], Seal(**{f.name: row[f.name] for f in fields(Seal)})

    async def lost_heads(self, heads: Mapping[str, str]) -> list[str]:
        """Jobs that were sealed, and whose history no longer has the event that was its last."""
        wanted = list(heads.items())
        lost: list[str] = []
        async with self._engine.connect() as connection:
            for start in range(0, len(wanted), _AT_ONCE):
                page = dict(wanted[start : start + _AT_ONCE])
                found = await connection.execute(
                    select(job_events.c.job_id, job_events.c.hash).where(
                        job_events.c.job_id.in_([UUID(job_id) for job_id in page]),
                        job_events.c.hash.in_(list(page.values())),
                    )
                )
                known = {(str(row.job_id), row.hash) for row in found}
                lost += [job_id for job_id, head in page.items() if (job_id, head) not in known]
        return lost
