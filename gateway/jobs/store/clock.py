"""Should the database's clock be put back, nothing waits for the time to come round again; should it be put
forward, who is at work isn't taken for silent."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import structlog
from sqlalchemy import Column, ColumnElement, Update, func, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert as upsert

from gateway.jobs.store.database import Database, soon
from gateway.jobs.tables import (
    alerts,
    audit_cursor,
    circuits,
    deliveries,
    grants,
    jobs,
    joining,
    rounds,
    slide_results,
)

log = structlog.get_logger(__name__)

_NAME = "clock"  # of its round: when any replica last looked at it
_NOTED_EVERY = 5.0
_STEP = 1.0  # seconds; clocks that are put right bit by bit go back by nothing
_LEAP = 5.0  # seconds; shorter than any lease

# What lies in the future is sooner by as much. Of what was written since, a retry comes too early then.
_DUE = (
    jobs.c.next_at,
    deliveries.c.next_at,
    joining.c.next_at,
    circuits.c.next_probe_at,
    alerts.c.next_try_at,
    grants.c.opened_at,
    grants.c.read_at,
    grants.c.stored_at,
)
# And what somebody has for so many seconds; who took it since keeps it.
_LAPSING = (
    jobs.c.leased_until,
    circuits.c.probing_until,
    slide_results.c.creating_until,
    rounds.c.taken_until,
    audit_cursor.c.held_until,
)


class Clock(Database):
    _known: tuple[float, float] | None = None  # what this machine's clock that is never put showed, and it

    async def mind_the_clock(self) -> float:
        """Seconds by which it went back since a replica last looked: 0 as a rule. The first who sees it puts
        all times right."""
        ahead = func.extract("epoch", rounds.c.done_at - func.now())
        look = select(ahead).where(rounds.c.name == _NAME)
        shown = select(func.extract("epoch", func.now()), look.scalar_subquery())
        before = time.monotonic()
        async with self._single.connect() as connection:
            now, seen = (await connection.execute(shown)).one()
        await self._hold_on(before, float(now))
        async with self._single.connect() as connection:
            if seen is None or seen < -_NOTED_EVERY:
                note = upsert(rounds).values(name=_NAME, done_at=func.now())
                later = func.greatest(rounds.c.done_at, func.now())
                await connection.execute(
                    note.on_conflict_do_update(index_elements=["name"], set_={"done_at": later})
                )
            if seen is None or seen < _STEP:
                return 0.0
        async with self._transaction() as connection:
            back = float(await connection.scalar(look.with_for_update()) or 0.0)
            if back < _STEP:
                return 0.0
            for column in _DUE:
                await connection.execute(_sooner(column, back, func.now()))
            for column in _LAPSING:
                await connection.execute(_sooner(column, back, soon(back / 2)))
            await connection.execute(update(rounds).where(rounds.c.name == _NAME).values(done_at=func.now()))
        log.warning(
            "the database's clock was put back; what waits is due sooner by as much", seconds=round(back)
        )
        self._wake_soon()
        return back

    async def _hold_on(self, before: float, shown: float) -> None:
        """What was somebody's before it was put forward is so for as long as it would have been."""
        known, self._known = self._known, (before, shown)
        if known is None:
            return
        forward = shown - known[1] - (time.monotonic() - known[0])
        if forward < _LEAP:
            return
        async with self._transaction() as connection:
            for column in _LAPSING:
                await connection.execute(_later(column, timedelta(seconds=forward)))
        log.warning(
            "the database's clock was put forward; who is at work keeps what he has", seconds=round(forward)
        )


def _later(column: Column[Any], forward: timedelta) -> Update:
    """By whom else it was seen already, finds nothing more to do."""
    keys = tuple_(*column.table.primary_key)
    lapsed = column < func.now(), column > func.now() - forward
    chosen = select(*column.table.primary_key).where(*lapsed).with_for_update(skip_locked=True)
    return update(column.table).where(keys.in_(chosen)).values({column: column + forward})


def _sooner(column: Column[Any], back: float, after: ColumnElement[Any]) -> Update:
    """What somebody is just writing is left to him."""
    table, wanted = column.table, [column > after]
    if column is jobs.c.next_at:
        wanted.append(jobs.c.lease_holder.is_(None))  # as its index knows them
    keys = tuple_(*table.primary_key)
    chosen = select(*table.primary_key).where(*wanted).with_for_update(skip_locked=True)
    return update(table).where(keys.in_(chosen)).values({column: column - timedelta(seconds=back)})
