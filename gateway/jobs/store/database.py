"""The connection to PostgreSQL, and what all queries stand on: the fenced write and the hash chain."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import RowMapping, func, insert, null, select, update
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from gateway.jobs.cipher import Cipher, Unreadable
from gateway.jobs.records import Event, Job, Origin, storable
from gateway.jobs.states import State
from gateway.jobs.tables import job_events, jobs

CHANNEL = "gateway_jobs"
PRESENCE = 0x67617465  # the class of the advisory locks that say "this worker lives"
ENCRYPTED = ("patient_id", "callback_token", "result")

_CONNECT = {
    "connect_timeout": 10,
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
    # A process that is frozen in the middle of a transaction must not keep its locks from all others.
    "options": "-c statement_timeout=30s -c idle_in_transaction_session_timeout=10s",
}
_NOT_A_COLUMN = "unreadable"


DatabaseError = SQLAlchemyError  # whatever goes wrong between us and PostgreSQL
DatabaseLost = (OperationalError, InterfaceError, PoolTimeoutError)  # it may come back


class Superseded(Exception):
    """The job has moved on meanwhile; what this worker found is void."""


class Refused(Exception):
    """A person asked for something that the job's state doesn't allow: one sentence says why."""


def soon(seconds: float) -> Any:
    return func.now() + timedelta(seconds=seconds)


class Database:
    def __init__(self, url: str, cipher: Cipher, *, pool_size: int = 10) -> None:
        self._engine: AsyncEngine = create_async_engine(
            url.replace("postgresql://", "postgresql+psycopg://", 1),
            pool_size=pool_size,
            max_overflow=10,
            pool_pre_ping=True,
            pool_timeout=30,
            connect_args=_CONNECT,
            hide_parameters=True,  # they are patients' data, and errors are logged
        )
        self._cipher = cipher

    async def close(self) -> None:
        await self._engine.dispose()

    async def ping(self) -> None:
        async with self._engine.connect() as connection:
            await connection.execute(select(1))

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[AsyncConnection]:
        async with self._engine.begin() as connection:
            yield connection

    async def _fenced(self, connection: AsyncConnection, job: Job, values: Mapping[str, Any]) -> Job:
        """Write only if the worker still has the job: same state, same holder, same fence number."""
        statement = (
            update(jobs)
            .where(
                jobs.c.id == job.id,
                jobs.c.state == job.state.value,
                jobs.c.lease_holder == job.lease_holder,
                jobs.c.fence == job.fence,
            )
            .values(**self._columns(values))
            .returning(jobs)
        )
        row = (await connection.execute(statement)).mappings().first()
        if row is None:
            raise Superseded(f"job {job.id} has moved on")
        return self._job(row)

    async def _locked(self, connection: AsyncConnection, job_id: UUID) -> Job | None:
        statement = select(jobs).where(jobs.c.id == job_id).with_for_update()
        row = (await connection.execute(statement)).mappings().first()
        return None if row is None else self._job(row)

    async def _append(
        self, connection: AsyncConnection, job: Job, what: str, detail: Mapping[str, Any]
    ) -> None:
        """The next link of the job's chain. Whoever calls holds the job's row, so that there is one next."""
        previous = await connection.scalar(
            select(job_events.c.hash)
            .where(job_events.c.job_id == job.id)
            .order_by(job_events.c.id.desc())
            .limit(1)
        )
        event = Event(
            datetime.now(UTC),
            job.state.value,
            storable(what),
            storable(dict(detail)),
            previous or "",
            salt=secrets.token_hex(16),
        )
        event = replace(event, detail_digest=event.digest_detail())
        await connection.execute(
            insert(job_events).values(
                job_id=job.id,
                at=event.at,
                state=event.state,
                what=event.what,
                detail=event.detail,
                previous_hash=event.previous_hash,
                hash=event.digest(job.id),
                salt=event.salt,
                detail_digest=event.detail_digest,
            )
        )

    @staticmethod
    async def _wake(connection: AsyncConnection, payload: str = "") -> None:
        await connection.execute(select(func.pg_notify(CHANNEL, payload)))

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
        values = {f.name: row[f.name] for f in fields(Job) if f.name != _NOT_A_COLUMN}
        for name in ENCRYPTED:
            try:
                values[name] = self._cipher.decrypt(values[name])
            except Unreadable:  # one such job must not keep the others from being claimed or listed
                values[name] = None
                values[_NOT_A_COLUMN] = True
        values["state"] = State(values["state"])
        values["origin"] = Origin(values["origin"])
        values["held_in"] = State(values["held_in"]) if values["held_in"] else None
        values["cancellation_tokens"] = tuple(values["cancellation_tokens"])
        return Job(**values)
