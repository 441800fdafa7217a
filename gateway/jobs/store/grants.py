"""The grants of vendors that call back: for which job a token speaks, how far, and what was done with it.

Vendors call while workers work, so nothing here is fenced: the token and the job's state are what counts.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Float,
    RowMapping,
    and_,
    bindparam,
    case,
    cast,
    false,
    func,
    insert,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.contract import Callback, Heard
from gateway.jobs.records import CALLED, Job, area_of, storable
from gateway.jobs.states import State
from gateway.jobs.store.database import WITHOUT_RESULT, soon
from gateway.jobs.store.rivals import Rivals, end_rivals, set_aside
from gateway.jobs.tables import ALIVE, grants, jobs, rivals, vendor_calls

Reach = Literal["all", "results", "nothing"]

_RESULTS_STAY_OPEN = timedelta(days=7)  # a vendor may correct what it stored
_NOTED = 500  # calls in the job's history; more are in vendor_calls alone
_REACH: ColumnElement[str] = case(
    (ALIVE, "all"),
    (and_(jobs.c.state == State.DONE.value, grants.c.reopened_until > func.now()), "all"),
    (
        and_(jobs.c.state == State.DONE.value, jobs.c.updated_at > func.now() - _RESULTS_STAY_OPEN),
        "results",
    ),
    else_="nothing",
).label("reach")
_BY_OWN = (
    select(
        *WITHOUT_RESULT,
        grants.c.results,
        grants.c.token_sha256.label("shown_sha256"),
        false().label("outrun"),
        _REACH,
    )
    .join(grants, grants.c.job_id == jobs.c.id)
    .where(grants.c.token_sha256 == bindparam("digest"), grants.c.adapter == bindparam("adapter"))
)
_BY_RIVALS = (
    select(
        *WITHOUT_RESULT,
        grants.c.results,
        rivals.c.token_sha256.label("shown_sha256"),
        and_(rivals.c.ended, rivals.c.token.is_(None)).label("outrun"),
        _REACH,
    )
    .join(grants, grants.c.job_id == jobs.c.id)
    .join(rivals, rivals.c.job_id == jobs.c.id)
    .where(rivals.c.token_sha256 == bindparam("digest"), grants.c.adapter == bindparam("adapter"))
)


@dataclass(frozen=True, slots=True)
class Grant:
    """One call's right: `results` are the ids that the vendor stored, with their versions. `outrun`: another
    call on the vendor was heard first."""

    job: Job
    reach: Reach
    call: int
    token_sha256: str
    results: Mapping[str, str] = field(default_factory=dict)
    outrun: bool = False


@dataclass(frozen=True, slots=True)
class ChangedResult:
    """What a user changed or deleted."""

    server: str
    application: str
    slide_id: str
    result_id: int


_READ = "SELECT FROM grants WHERE job_id = %(job)s AND tiles > 0"


class Grants(Rivals):
    # -- grants ---------------------------------------------------------------------------------------

    async def open_grant(self, job: Job, url: str, *, fresh: bool) -> Callback:
        """The job's token. `fresh`: the vendor hasn't been called in this life of the job, so it gets a new
        one; else the one it may hold already stays good."""
        async with self._transaction() as connection:
            await self._hold(connection, job, {"updated_at": func.now()})
            known = await self._grant_of(connection, job.id)
            token = None if known is None else self._token(known)
            if known is not None and token is not None and not fresh:
                return Callback(url, token, known["calls"] > 0)
            if known is not None:
                await set_aside(connection, known)
                await end_rivals(connection, job.id)
            values = {
                "job_id": job.id,
                "adapter": job.adapter,
                "application": job.application,
                "server": job.server or "",
                "slide_id": job.slide_id or "",
                "area": area_of(job.input),
                "opened_at": func.now(),
                "reopened_until": None,
                "calls": 0,
                "read_at": None,
                "results": {},
                "stored_at": None,
                "stores": 0,
                "shown": None,
                "heard_sha256": None,
                "heard_at": None,
                **self._mint(),
            }
            statement = upsert(grants).values(values)
            await connection.execute(
                statement.on_conflict_do_update(index_elements=["job_id"], set_=values).returning(grants)
            )
            known = await self._grant_of(connection, job.id)
            assert known is not None
            return Callback(url, self._token(known) or "", used=False)

    async def reopen_grant(
        self, changed: ChangedResult, seconds: float, callback: Mapping[str, str], why: str
    ) -> tuple[Job, str] | None:
        """The job whose vendor stored what a user has changed, and its token; if the job is done, good again
        for so long. `callback`: the url and token that Sectra brought along and lets in."""
        latest = (
            select(jobs.c.id)
            .join(grants, grants.c.job_id == jobs.c.id)
            .where(
                grants.c.server == changed.server,
                grants.c.application == changed.application,
                grants.c.slide_id == changed.slide_id,
                grants.c.results.has_key(str(changed.result_id)),
                or_(ALIVE, jobs.c.state == State.DONE.value),
            )
            .order_by(jobs.c.created_at.desc())
            .limit(1)
        )
        async with self._transaction() as connection:
            job_id = await connection.scalar(latest)
            job = None if job_id is None else await self._locked(connection, job_id)
            if job is None:
                return None
            if callback:
                values = self._columns({**callback, "callback_accepted": True})
                renewed = await connection.execute(
                    update(jobs).where(jobs.c.id == job.id).values(**values).returning(*WITHOUT_RESULT)
                )
                job = self._job(renewed.mappings().one())
            known = await self._grant_of(connection, job.id)
            assert known is not None
            minted = {} if self._token(known) else self._mint()
            reopened = await connection.execute(
                update(grants)
                .where(grants.c.job_id == job.id)
                .values(reopened_until=soon(seconds), **minted)
                .returning(grants)
            )
            await self._append(connection, job, why, {})
            return job, self._token(reopened.mappings().one()) or ""

    async def note_change(self, job_id: UUID, what: str, detail: Mapping[str, Any]) -> None:
        async with self._transaction() as connection:
            job = await self._locked(connection, job_id)
            if job is not None:
                await self._append(connection, job, what, detail)

    async def touch_grants(self, job_ids: Collection[UUID]) -> None:
        """Their vendors are reading."""
        async with self._transaction() as connection:
            await _lightly(connection)
            await connection.execute(
                update(grants).where(grants.c.job_id.in_(list(job_ids))).values(read_at=func.now())
            )

    async def reach_of(self, job_ids: Collection[UUID]) -> dict[UUID, Reach]:
        statement = (
            select(jobs.c.id, _REACH)
            .join(grants, grants.c.job_id == jobs.c.id)
            .where(jobs.c.id.in_(list(job_ids)))
        )
        async with self._single.connect() as connection:
            return {row.id: row.reach for row in await connection.execute(statement)}

    # -- calls ----------------------------------------------------------------------------------------

    async def begin_call(self, adapter: str, token: str, what: str) -> Grant | None:
        """What the token is good for; None when it is nobody's, or another adapter's. Recorded at once, so
        that a call that a crash cut off stands there without an outcome; but not where it is good for nothing
        any more, or who keeps one could fill the disk with it."""
        digest = hashlib.sha256(token.encode()).hexdigest()
        async with self._transaction() as connection:
            await _lightly(connection)
            row = await _row_of(connection, adapter, digest)
            if row is None or not hmac.compare_digest(row["shown_sha256"], digest):
                return None
            job = self._job(row)
            if row["reach"] == "nothing" or (row["reach"] == "results" and job.slide_id is None):
                return Grant(job, "nothing", 0, digest)
            if row["outrun"]:
                await self._refuse_rival(connection, job.id, digest)
                return Grant(job, "nothing", 0, digest, outrun=True)
            call = await connection.scalar(
                insert(vendor_calls).values(job_id=job.id, what=what).returning(vendor_calls.c.id)
            )
            await connection.execute(
                update(grants).where(grants.c.job_id == job.id).values(calls=grants.c.calls + 1)
            )
            return Grant(job, row["reach"], int(call or 0), digest, row["results"])

    async def end_call(self, given: Grant, what: str, size: int, outcome: str) -> None:
        """With its place in the job's history."""
        async with self._transaction() as connection:
            await _lightly(connection)
            await self._close_call(connection, given, what, size, outcome)
            job = await self._locked(connection, given.job.id)
            known = await self._grant_of(connection, given.job.id)
            if job is None or known is None:
                return
            await self._note_tiles(connection, job, known)
            if known["noted"] <= _NOTED:
                last = known["noted"] == _NOTED
                told = "the vendor goes on calling; no more of it is noted here" if last else _told(what)
                await self._append(connection, job, told, {"bytes": size, "outcome": outcome})
                await connection.execute(
                    update(grants).where(grants.c.job_id == job.id).values(noted=grants.c.noted + 1)
                )

    async def end_tile(self, given: Grant, what: str, size: int, outcome: str) -> None:
        """Tiles are read by thousands: in the history they are summed up, apart from those refused."""
        async with self._transaction() as connection:
            await _lightly(connection)
            await self._close_call(connection, given, what, size, outcome)
            if not size:
                return
            await connection.execute(
                update(grants)
                .where(grants.c.job_id == given.job.id)
                .values(tiles=grants.c.tiles + 1, tile_bytes=grants.c.tile_bytes + size, read_at=func.now())
            )

    async def sum_up_calls(self, job_id: UUID) -> None:
        """What hasn't been noted in the job's history yet: nothing, unless its vendor calls back."""
        if not await self._lines.fetch(_READ, {"job": job_id}):
            return
        async with self._transaction() as connection:
            job = await self._locked(connection, job_id)
            known = await self._grant_of(connection, job_id)
            if job is not None and known is not None:
                await self._note_tiles(connection, job, known)

    # -- results --------------------------------------------------------------------------------------

    async def remember_said(
        self, job_id: UUID, said: Mapping[str, Any], results: Mapping[str, str] | None = None
    ) -> None:
        """Whoever waits for it looks at once. `results`: on the slide, versions by id."""
        async with self._transaction() as connection:
            await connection.execute(
                update(jobs)
                .where(
                    jobs.c.id == job_id,
                    jobs.c.state == State.ANALYSING.value,
                    jobs.c.lease_holder.is_(None),
                )
                .values(next_at=func.now())
            )
            await connection.execute(
                update(grants)
                .where(grants.c.job_id == job_id)
                .values(
                    results=grants.c.results.op("||")(cast(results or {}, JSONB)),
                    stored_at=func.now(),
                    stores=grants.c.stores + 1,
                    shown=self._cipher.encrypt(storable(said)),
                )
            )
        self._wake_soon()

    async def remember_answer(self, job_id: UUID, said: Mapping[str, Any]) -> None:
        """What the vendor said when it was called: less than what it tells itself."""
        async with self._transaction() as connection:
            await connection.execute(
                update(grants)
                .where(grants.c.job_id == job_id, grants.c.stores == 0)
                .values(shown=self._cipher.encrypt(storable(said)))
            )

    async def heard_of(self, job_id: UUID) -> Heard | None:
        """None: no vendor was called for this job."""
        since = [
            cast(func.extract("epoch", func.clock_timestamp() - grants.c[name]), Float).label(name)
            for name in ("opened_at", "read_at", "stored_at")
        ]
        statement = select(grants.c.calls, grants.c.stores, grants.c.shown, *since).where(
            grants.c.job_id == job_id
        )
        async with self._single.connect() as connection:
            row = (await connection.execute(statement)).mappings().first()
        if row is None:
            return None
        return Heard(
            row["calls"],
            row["opened_at"],
            row["read_at"],
            row["stored_at"],
            self._cipher.decrypt(row["shown"]) or {},
            row["stores"],
        )

    # -- inside ---------------------------------------------------------------------------------------

    @staticmethod
    async def _close_call(
        connection: AsyncConnection, given: Grant, what: str, size: int, outcome: str
    ) -> None:
        await connection.execute(
            update(vendor_calls)
            .where(vendor_calls.c.id == given.call)
            .values(what=what, bytes=size, outcome=outcome)
        )

    async def _note_tiles(self, connection: AsyncConnection, job: Job, known: RowMapping) -> None:
        if known["tiles"]:
            detail = {"tiles": known["tiles"], "bytes": known["tile_bytes"]}
            await self._append(connection, job, _told("tiles"), detail)
            await connection.execute(
                update(grants).where(grants.c.job_id == job.id).values(tiles=0, tile_bytes=0)
            )


async def _row_of(connection: AsyncConnection, adapter: str, digest: str) -> RowMapping | None:
    given = {"adapter": adapter, "digest": digest}
    found = (await connection.execute(_BY_OWN, given)).mappings().first()
    return found or (await connection.execute(_BY_RIVALS, given)).mappings().first()


def _told(what: str) -> str:
    return f"{CALLED} {what}"


async def _lightly(connection: AsyncConnection) -> None:
    """The record of a call isn't worth waiting for the disk."""
    await connection.execute(text("SET LOCAL synchronous_commit = off"))
