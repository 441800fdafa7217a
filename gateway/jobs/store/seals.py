"""Everything committed, sealed stretch by stretch into a chain of its own: a job that vanishes, a line of the
audit that is edited, don't stay unseen.

By the numbers of the rows and not by clocks: a number is given before its row is committed, so whoever seals
first waits for all who may still be writing below it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ARRAY, Text, Uuid, cast, func, insert, literal, select, text, update

from gateway.jobs.chain import LookedAt, Sealed, digest_events, end_of
from gateway.jobs.records import Act, Event, Seal
from gateway.jobs.store.database import Database
from gateway.jobs.tables import audit, job_events, jobs, seals

_LOCK = 0x7365616C
_AT_ONCE = 1000  # events, and lines of the audit, in one seal
_SEALS = 5  # read at once: those of an older release may be large
_LOOK_AGAIN = 0.05
_WRITERS = text(
    "SELECT virtualtransaction FROM pg_locks WHERE locktype = 'relation' AND mode = 'RowExclusiveLock'"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    " AND relation IN ('job_events'::regclass, 'audit'::regclass)"
)
_SEAL = [seals.c[f.name] for f in fields(Seal)]
_ACT = [audit.c[f.name] for f in fields(Act)]
_EVENT = [job_events.c[f.name] for f in fields(Event)]

_FIRST = UUID(int=0)
_PAGE_OF_JOBS = (
    f"SELECT {', '.join(LookedAt._fields)} FROM jobs"  # noqa: S608 - of our own words
    " WHERE id > %(after)s ORDER BY id LIMIT %(most)s"
)
_THEIR_EVENTS = (
    f"SELECT job_id, {', '.join(f.name for f in fields(Event))} FROM job_events"  # noqa: S608
    " WHERE job_id BETWEEN %(first)s AND %(last)s ORDER BY job_id, id"
)
_STRETCH = (
    "SELECT id, job_id, hash FROM job_events WHERE id > %(after)s AND id <= %(to)s ORDER BY id LIMIT %(most)s"
)

Sign = Callable[[Seal], Seal]


class History(NamedTuple):
    job: LookedAt
    events: list[Event]


@dataclass(frozen=True, slots=True)
class Settled:
    """Up to where all is committed, of the events and of the audit."""

    event: int
    act: int


class Seals(Database):
    async def settled(self, patience: float) -> Settled | None:
        """None: somebody has been writing for longer than our patience."""
        async with self._single.connect() as connection:
            event = await connection.scalar(select(func.max(job_events.c.id)))
            act = await connection.scalar(select(func.max(audit.c.id)))
        # In this order: who has a number below these has had the table's lock before.
        writing = await self._writers()
        try:
            async with asyncio.timeout(patience):
                while writing:
                    await asyncio.sleep(_LOOK_AGAIN)
                    writing &= await self._writers()
        except TimeoutError:
            return None
        return Settled(event or 0, act or 0)

    async def _writers(self) -> set[str]:
        async with self._single.connect() as connection:
            return set(await connection.scalars(_WRITERS))

    async def seal(self, settled: Settled, sign: Sign) -> tuple[int, Seal] | None:
        """The next stretch; None when all that is settled is sealed, or somebody else is just sealing it."""
        async with self._transaction() as connection:
            if not await connection.scalar(select(func.pg_try_advisory_xact_lock(_LOCK))):
                return None
            newest = select(*_SEAL).order_by(seals.c.id.desc()).limit(1)
            before = (await connection.execute(newest)).mappings().first()
            signed = newest.where(seals.c.events_digest.is_not(None))
            signed_row = (await connection.execute(signed)).mappings().first()
            last = Seal(**signed_row) if signed_row else None
            event, act, _ = end_of(last)
            events = await connection.execute(_stretch(event, settled.event).limit(_AT_ONCE))
            grown: list[Sealed] = [(row.id, row.job_id, row.hash) for row in events]
            acts = await connection.execute(_acts(act, settled.act).limit(_AT_ONCE))
            done = [Act(**row) for row in acts.mappings()]
            if not grown and not done:
                return None
            seal, chained = await asyncio.to_thread(
                _make, before["hash"] if before else "", last, grown, done, sign
            )
            if chained:
                await connection.execute(_chain(chained))
            number = await connection.scalar(insert(seals).values(**asdict(seal)).returning(seals.c.id))
            return int(number or 0), seal

    # -- looking again --------------------------------------------------------------------------------

    async def seals(self, after: int = 0) -> AsyncIterator[tuple[int, Seal]]:
        while True:
            statement = (
                select(seals.c.id, *_SEAL).where(seals.c.id > after).order_by(seals.c.id).limit(_SEALS)
            )
            async with self._single.connect() as connection:
                page = (await connection.execute(statement)).mappings().all()
            for row in page:
                yield row["id"], Seal(**{f.name: row[f.name] for f in fields(Seal)})
            if len(page) < _SEALS:
                return
            after = page[-1]["id"]

    async def seal_hash(self, number: int) -> str | None:
        async with self._single.connect() as connection:
            found: str | None = await connection.scalar(select(seals.c.hash).where(seals.c.id == number))
            return found

    async def unsealed_since(self, event: int) -> datetime | None:
        """When the first happened that comes after this one."""
        first = select(job_events.c.at).where(job_events.c.id > event).order_by(job_events.c.id).limit(1)
        async with self._single.connect() as connection:
            at: datetime | None = await connection.scalar(first)
            return at

    async def sealed_events(self, after: int, to: int) -> list[Sealed]:
        """No more than a seal can cover, and one."""
        rows = await self._lines.fetch(_STRETCH, {"after": after, "to": to, "most": _AT_ONCE + 1})
        return [(number, job_id, hashed) for number, job_id, hashed in rows]

    async def acts(self, after: int, to: int) -> list[Act]:
        async with self._single.connect() as connection:
            rows = await connection.execute(_acts(after, to).limit(_AT_ONCE + 1))
            return [Act(**row) for row in rows.mappings()]

    async def lost_heads(self, heads: Mapping[str, str]) -> list[str]:
        """Jobs that were sealed, and whose history no longer has the event that was its last."""
        wanted = list(heads.items())
        lost: list[str] = []
        async with self._single.connect() as connection:
            for start in range(0, len(wanted), _AT_ONCE):
                page = wanted[start : start + _AT_ONCE]
                head = (
                    func.unnest(
                        cast([UUID(job_id) for job_id, _ in page], ARRAY(Uuid)),
                        cast([hashed for _, hashed in page], ARRAY(Text)),
                    )
                    .table_valued("job_id", "hash")
                    .render_derived(name="head")
                )
                stands = select(literal(1)).where(
                    job_events.c.job_id == head.c.job_id, job_events.c.hash == head.c.hash
                )
                gone = select(head.c.job_id).where(~stands.exists())
                lost += map(str, await connection.scalars(gone))
        return lost

    async def histories(self, after: UUID | None, limit: int) -> list[History]:
        """Jobs by their ids, with what is looked at of them and nothing decrypted. A job may have moved on
        between the two: whoever finds something amiss looks at its `history` alone."""
        page = await self._lines.fetch(_PAGE_OF_JOBS, {"after": after or _FIRST, "most": limit})
        if not page:
            return []
        found = {row[0]: History(LookedAt(*row), []) for row in page}
        between = {"first": page[0][0], "last": page[-1][0]}
        for job_id, *told in await self._lines.fetch(_THEIR_EVENTS, between):
            if job_id in found:  # else it has come since
                found[job_id].events.append(Event(*told))
        return list(found.values())

    async def history(self, job_id: UUID) -> History | None:
        """As of one moment."""
        async with self._engine.connect() as connection:
            await connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
            looked_at = select(*(jobs.c[name] for name in LookedAt._fields)).where(jobs.c.id == job_id)
            row = (await connection.execute(looked_at)).first()
            told = select(*_EVENT).where(job_events.c.job_id == job_id).order_by(job_events.c.id)
            events = [Event(*each) for each in await connection.execute(told)]
            return None if row is None else History(LookedAt(*row), events)


def _stretch(after: int, to: int) -> Any:
    return (
        select(job_events.c.id, job_events.c.job_id, job_events.c.hash)
        .where(job_events.c.id > after, job_events.c.id <= to)
        .order_by(job_events.c.id)
    )


def _acts(after: int, to: int) -> Any:
    return select(*_ACT).where(audit.c.id > after, audit.c.id <= to).order_by(audit.c.id)


def _chain(chained: Sequence[Act]) -> Any:
    """All in one statement."""
    links = (
        func.unnest(
            cast([act.id for act in chained], ARRAY(audit.c.id.type)),
            cast([act.hash for act in chained], ARRAY(Text)),
        )
        .table_valued("id", "hash")
        .render_derived(name="link")
    )
    return update(audit).where(audit.c.id == links.c.id).values(hash=links.c.hash)


def _make(
    previous: str, last: Seal | None, events: Sequence[Sealed], acts: Sequence[Act], sign: Sign
) -> tuple[Seal, list[Act]]:
    """On the `previous` one's hash, going on where the `last` signed one ended."""
    after_event, after_act, link = end_of(last)
    chained = []
    for act in acts:
        link = act.digest(link)
        chained.append(replace(act, hash=link))
    seal = Seal(
        at=datetime.now(UTC),
        last_event_id=events[-1][0] if events else after_event,
        heads={str(job_id): hashed for _, job_id, hashed in events},
        previous_hash=previous,
        after_event_id=after_event,
        events_digest=digest_events(events),
        after_audit_id=after_act,
        last_audit_id=acts[-1].id if acts else after_act,
        audit_hash=link,
    )
    return sign(seal), chained
