"""The connection to PostgreSQL, and what all queries stand on: the fenced write and the hash chain."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

import structlog
from psycopg.errors import DeadlockDetected
from sqlalchemy import RowMapping, Select, Update, event, func, insert, null, select, update
from sqlalchemy.dialects.postgresql import distinct_on, psycopg
from sqlalchemy.exc import DisconnectionError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from gateway import loops
from gateway.jobs.chain import digest_job
from gateway.jobs.cipher import Cipher, Unreadable
from gateway.jobs.records import Event, Job, Origin, storable
from gateway.jobs.states import State
from gateway.jobs.store.ferry import Ferry
from gateway.jobs.store.lines import KEEPALIVE, LIMITS, Lines, has_hung_up
from gateway.jobs.tables import audit, job_events, jobs

log = structlog.get_logger(__name__)

T = TypeVar("T")
R = TypeVar("R")

CHANNEL = "gateway_jobs"
PRESENCE = 0x67617465  # the class of the advisory locks that say "this worker lives"
ENCRYPTED = ("patient_id", "callback_token", "result")

POOL = 8
_LINES = 8  # a step's statements take a millisecond: so many are enough for all that a process does at once
_WAKES_APART = 0.01
_DIALECT = psycopg.dialect()  # type: ignore[no-untyped-call]
_NOT_A_COLUMN = "unreadable"
JOB_COLUMNS = tuple(f.name for f in fields(Job) if f.name != _NOT_A_COLUMN)
# Most who touch a job don't deliver it: its result may be large. Who lists jobs needs none of its secrets.
WITHOUT_RESULT = [jobs.c[name] for name in JOB_COLUMNS if name != "result"]
LISTED = [jobs.c[name] for name in JOB_COLUMNS if name not in ENCRYPTED]


DatabaseError = SQLAlchemyError  # whatever goes wrong between us and PostgreSQL
DatabaseLost = (OperationalError, InterfaceError, PoolTimeoutError)  # it may come back
loops.shared.update(DatabaseLost)


class Superseded(Exception):
    """The job has moved on meanwhile; what this worker found is void."""


class Refused(Exception):
    """A person asked for something that the job's state doesn't allow: one sentence says why."""


def soon(seconds: float) -> Any:
    return func.now() + timedelta(seconds=seconds)


class Standing:
    """A query that is always the same, written out once: those who look round again and again ask it by the
    lines, for a fraction of the work."""

    def __init__(self, statement: Select[Any]) -> None:
        written = statement.compile(dialect=_DIALECT)
        self.text, self.values = str(written), written.params


class Database:
    def __init__(self, url: str, cipher: Cipher, *, pool_size: int = POOL) -> None:
        self._engine = _open_pool(url, pool_size)
        # A statement alone needs no transaction; and the rollback at the end of those that only look around
        # would have the driver forget every statement that it has prepared.
        self._single = _open_pool(
            url, max(2, pool_size // 2), isolation_level="AUTOCOMMIT", skip_autocommit_rollback=True
        )
        self._lines = Lines(url, _LINES)
        self._cipher = cipher
        self.revision: str | None = None  # of the configuration that this process works under
        self._ferries: list[Ferry[Any, Any]] = []
        self._waking: set[asyncio.Task[None]] = set()
        self._wake_is_due = False
        self._woke_at = 0.0

    def _open_ferry(self, cross: Callable[[Sequence[T]], Awaitable[Sequence[R]]]) -> Ferry[T, R]:
        ferry = Ferry(cross, _is_everybodys)
        self._ferries.append(ferry)
        return ferry

    async def close(self) -> None:
        for ferry in self._ferries:
            await ferry.close()
        if self._waking:
            await asyncio.wait(self._waking)
        await self._lines.close()
        await self._single.dispose()
        await self._engine.dispose()

    def has_answered(self, within: float) -> bool:
        """Whether it is known already that PostgreSQL answered in the last so many seconds."""
        return time.monotonic() - self._lines.answered_at <= within

    async def _ask(self, standing: Standing) -> list[tuple[Any, ...]]:
        return await self._lines.fetch(standing.text, standing.values)

    async def ping(self) -> None:
        async with self._single.connect() as connection:
            await connection.execute(select(1))

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[AsyncConnection]:
        async with self._engine.begin() as connection:
            yield connection

    async def _hold(self, connection: AsyncConnection, job: Job, values: Mapping[str, Any]) -> None:
        """Write only if the worker still has the job: same state, same holder, same fence number."""
        statement = self._if_held(job, values).returning(jobs.c.id)
        if await connection.scalar(statement) is None:
            raise Superseded(f"job {job.id} has moved on")

    def _if_held(self, job: Job, values: Mapping[str, Any]) -> Update:
        return (
            update(jobs)
            .where(
                jobs.c.id == job.id,
                jobs.c.state == job.state.value,
                jobs.c.lease_holder == job.lease_holder,
                jobs.c.fence == job.fence,
            )
            .values(**self._columns(values))
        )

    async def _locked(self, connection: AsyncConnection, job_id: UUID) -> Job | None:
        statement = select(*WITHOUT_RESULT).where(jobs.c.id == job_id).with_for_update()
        row = (await connection.execute(statement)).mappings().first()
        return None if row is None else self._job(row)

    async def _choices(self, connection: AsyncConnection, held: Sequence[UUID]) -> dict[UUID, list[str]]:
        """Of those whose last hold named some: the studies of which a person is to choose one."""
        statement = (
            select(job_events.c.job_id, job_events.c.detail["choices"])
            .ext(distinct_on(job_events.c.job_id))
            .where(job_events.c.job_id.in_(held), job_events.c.what == State.HELD.value)
            .order_by(job_events.c.job_id, job_events.c.id.desc())
        )
        return {job_id: offered for job_id, offered in await connection.execute(statement) if offered}

    async def _append(
        self, connection: AsyncConnection, job: Job, what: str, detail: Mapping[str, Any]
    ) -> None:
        """The next link of the job's chain. Whoever calls holds the job's row, so that there is one next."""
        link = self._link(job, what, detail)
        previous = await connection.scalar(
            select(job_events.c.hash)
            .where(job_events.c.job_id == job.id)
            .order_by(job_events.c.id.desc())
            .limit(1)
        )
        await connection.execute(insert(job_events).values(_event_row(job, link, previous)))

    async def _append_all(
        self, connection: AsyncConnection, told: Sequence[tuple[Job, str, Mapping[str, Any]]]
    ) -> None:
        """The same for many jobs, by two statements for all."""
        if not told:
            return
        heads = (
            select(job_events.c.job_id, job_events.c.hash)
            .ext(distinct_on(job_events.c.job_id))
            .where(job_events.c.job_id.in_([job.id for job, _, _ in told]))
            .order_by(job_events.c.job_id, job_events.c.id.desc())
        )
        previous = {row.job_id: row.hash for row in await connection.execute(heads)}
        rows = [
            _event_row(job, self._link(job, what, detail), previous.get(job.id)) for job, what, detail in told
        ]
        await connection.execute(insert(job_events), rows)

    async def _audit(
        self,
        connection: AsyncConnection,
        who: str,
        what: str,
        job: Job,
        detail: Mapping[str, Any] | None = None,
    ) -> None:
        """With the act itself or not at all: else a caller hears that nothing was done when it was."""
        values = {"who": who, "what": what, "job_id": job.id, "detail": storable(dict(detail or {}))}
        await connection.execute(insert(audit).values(**values))

    @staticmethod
    def _link(job: Job, what: str, detail: Mapping[str, Any]) -> Event:
        """An event of the job as it is now; what it is chained to is known to whoever holds the row."""
        link = Event(
            datetime.now(UTC),
            job.state.value,
            storable(what),
            storable(dict(detail)),
            salt=secrets.token_hex(16),
        )
        return replace(link, detail_digest=link.digest_detail(), job_digest=digest_job(job, link.salt))

    @staticmethod
    async def _wake(connection: AsyncConnection, payload: str) -> None:
        await connection.execute(select(func.pg_notify(CHANNEL, payload)))

    def _wake_soon(self) -> None:
        """Tell the workers that there is something to do: at once, and for all that is written meanwhile
        together. All who notify wait for each other when they commit, so it is no part of what they write."""
        if not self._wake_is_due:
            self._wake_is_due = True
            task = asyncio.create_task(self._wake_workers(), name="waking workers")
            self._waking.add(task)
            task.add_done_callback(self._waking.discard)

    async def _wake_workers(self) -> None:
        await asyncio.sleep(max(0.0, self._woke_at + _WAKES_APART - time.monotonic()))
        self._woke_at = time.monotonic()
        self._wake_is_due = False
        try:
            await self._lines.fetch("SELECT pg_notify(%(channel)s, '')", {"channel": CHANNEL})
        except DatabaseError as trouble:
            log.info("workers weren't woken; they look by themselves", error=type(trouble).__name__)

    def _columns(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """As the columns take them: secrets encrypted, the rest without what PostgreSQL refuses."""
        taken = {
            name: self._cipher.encrypt(value) if name in ENCRYPTED else storable(value)
            for name, value in values.items()
        }
        for name in ("ticket", "input", "context"):
            if name in taken and taken[name] is None:
                taken[name] = null()  # SQL's, not JSON's
        return taken

    def _job(self, row: RowMapping) -> Job:
        """Of what was selected of it; the rest is None."""
        return self._job_of([row.get(name) for name in JOB_COLUMNS])

    def _job_of(self, row: Sequence[Any], plain: Mapping[str, Any] | None = None) -> Job:
        """From its columns, in their order. `plain`: what is known of those that are encrypted."""
        values = dict(zip(JOB_COLUMNS, row, strict=True))
        for name in ENCRYPTED:
            try:
                values[name] = self._cipher.decrypt(values[name]) if plain is None else plain[name]
            except Unreadable:  # one such job must not keep the others from being claimed or listed
                values[name] = None
                values[_NOT_A_COLUMN] = True
        values["state"] = State(values["state"])
        values["origin"] = Origin(values["origin"])
        values["held_in"] = State(values["held_in"]) if values["held_in"] else None
        values["cancellation_tokens"] = tuple(values["cancellation_tokens"])
        return Job(**values)


def _open_pool(url: str, size: int, **more: Any) -> AsyncEngine:
    engine = create_async_engine(
        url.replace("postgresql://", "postgresql+psycopg://", 1),
        pool_size=size,
        max_overflow=0,  # what is opened stays open: a new connection costs as much as many statements
        pool_use_lifo=True,
        pool_timeout=30,
        connect_args={**KEEPALIVE, "options": LIMITS},
        hide_parameters=True,  # they are patients' data, and errors are logged
        **more,
    )
    event.listen(engine.sync_engine, "checkout", _refuse_the_dead)
    return engine


def _is_everybodys(trouble: Exception) -> bool:
    deadlock = isinstance(getattr(trouble, "orig", None), DeadlockDetected)
    return isinstance(trouble, DatabaseLost) and not deadlock


def _refuse_the_dead(connection: Any, _record: Any, _proxy: Any) -> None:
    """Costs no round trip, unlike asking the server."""
    if has_hung_up(connection.driver_connection):
        raise DisconnectionError


def _event_row(job: Job, link: Event, previous: str | None) -> dict[str, Any]:
    link = replace(link, previous_hash=previous or "")
    return {
        "job_id": job.id,
        "at": link.at,
        "state": link.state,
        "what": link.what,
        "detail": link.detail,
        "previous_hash": link.previous_hash,
        "hash": link.digest(job.id),
        "salt": link.salt,
        "detail_digest": link.detail_digest,
        "job_digest": link.job_digest,
    }
