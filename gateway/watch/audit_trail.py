"""The audit collector hears what happened, in its order, of one replica at a time. While it is away, what it
is to hear stands in the database. Whoever dies in the middle leaves it to another, who sends again what isn't
known to have been read: each message names its record, by which doubles are seen."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from uuid import uuid4

import structlog

from gateway import __version__
from gateway.contract import Failure, Health
from gateway.gate import Gate
from gateway.jobs.store import DatabaseError, Store
from gateway.jobs.store.trail import Record, Subject, Told
from gateway.logs import places_of
from gateway.loops import Loop, beside
from gateway.watch.atna import SUCCESS
from gateway.watch.audit_messages import (
    NOBODY,
    OURSELVES,
    STARTED,
    STOPPED,
    Source,
    Write,
    write_bare,
    writer_of,
)
from gateway.watch.metrics import count_audit_messages
from gateway.watch.syslog import PEER, Collector, Entry

log = structlog.get_logger(__name__)

_LOOK = 3.0
_AT_ONCE = 500  # of the events, and of the audit
_LEASE = 10.0
_LAST_WORDS = 5.0
_PATIENCE = 30.0  # with a transaction that goes on writing


class AuditTrail:
    def __init__(
        self, collector: Collector, source: Source, store: Store, gate: Gate, bars: Callable[[str], bool]
    ) -> None:
        self._collector = collector
        self._source = source
        self._store = store
        self._gate = gate
        self._bars = bars
        self._me = uuid4().hex

    async def check(self) -> Health:
        return await self._collector.check()

    async def started(self) -> None:
        """This process has, and is to be heard of; nothing from before the first of them is."""
        await self._store.begin_trail()
        await self._note(STARTED)

    async def stopped(self) -> None:
        with suppress(DatabaseError, OSError):  # who can't be told hears of the next start
            async with asyncio.timeout(_LAST_WORDS):
                await self._note(STOPPED)

    async def _note(self, what: str) -> None:
        detail = {"host": socket.gethostname(), "pid": os.getpid(), "version": __version__}
        await self._store.note_in_audit(OURSELVES, what, detail)

    async def run(self) -> None:
        """Until it is cancelled."""
        loop = Loop("audit log")
        try:
            await loop.until_well(self._store.begin_trail)
            await loop.run(self.look, pause=_LOOK)
        finally:
            with suppress(DatabaseError, OSError):  # it lapses
                async with asyncio.timeout(_LAST_WORDS):
                    await self._store.leave_trail(self._me)

    async def look(self) -> None:
        if self._bars(PEER) or await self._store.trail_waits_since() is None:
            return  # it is away, and looked for; or has heard all
        told = await self._store.take_trail(self._me, _LEASE)
        while told is not None:
            told = await self._tell(told)

    async def _tell(self, told: Told) -> Told | None:
        """Up to where it is told then, if there is more."""
        settled = await self._store.settled(_PATIENCE)
        if settled is None:
            log.warning("the audit collector isn't told now: somebody's transaction writes for too long")
            return None
        records, to = await self._store.records(told, settled, _AT_ONCE)
        if to == told:
            return None
        entries = await self._write(records)
        if entries and not await self._send(entries):
            return None
        if not await self._store.advance_trail(self._me, told, to):
            return None
        count_audit_messages(len(entries))
        return to if len(records) >= _AT_ONCE and await self._store.take_trail(self._me, _LEASE) else None

    async def _write(self, records: list[Record]) -> list[Entry]:
        wanted = [(record, write) for record in records if (write := writer_of(record)) is not None]
        jobs = {record.job.id for record, _ in wanted if record.job is not None}
        subjects = await self._store.subjects(jobs) if jobs else {}
        entries = []
        for record, write in wanted:
            subject = NOBODY if record.job is None else subjects.get(record.job.id, NOBODY)
            entries.append(self._write_one(record, write, subject))
        return entries

    def _write_one(self, record: Record, write: Write, subject: Subject) -> Entry:
        try:
            message = write(record, subject, self._source)
            text = message.write(self._source.name)
        except Exception as bug:  # noqa: BLE001 - what comes after it mustn't wait for us to mend it
            log.error(
                "an audit message can't be made of a record",
                record=record.key,
                error=type(bug).__name__,
                places=places_of(bug),
            )
            message = write_bare(record, NOBODY, self._source)
            text = message.write(self._source.name)
        return Entry(record.at, text, failed=message.outcome != SUCCESS)

    async def _send(self, entries: list[Entry]) -> bool:
        """Whether the collector has them; else it is waited for."""
        try:
            async with self._holding():
                await self._collector.send(entries)
        except Failure as failure:
            if await self._gate.met(failure):
                return False
            raise
        await self._gate.heard(PEER)
        return True

    @asynccontextmanager
    async def _holding(self) -> AsyncIterator[None]:
        """However long it takes; should we die of it, another goes on soon."""

        async def renew() -> None:
            await asyncio.sleep(_LEASE / 4)
            await self._store.take_trail(self._me, _LEASE)

        async with beside(Loop("audit log's lease", most=_LEASE / 4).run(renew)):
            yield
