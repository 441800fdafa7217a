"""What comes in: one statement commits the job, the first event of its history, who asked for it, and the
right to be the first on its slide; for all who ask at the same time together, as they would wait for each
other's commits otherwise.

The event vouches for the moment of creation, which PostgreSQL alone knows: it puts that in, and hashes the
rest around it.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import uuid4

from sqlalchemy import ColumnElement, and_, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.jobs.chain import ABOUT_1, around_moment
from gateway.jobs.cipher import Cipher
from gateway.jobs.records import ACCEPTED, Event, Job, Joining, NewJob, Origin, area_of, digest_of, storable
from gateway.jobs.states import State
from gateway.jobs.store.database import ENCRYPTED, JOB_COLUMNS, POOL, WITHOUT_RESULT, soon
from gateway.jobs.store.fenced import IN_JSON, Fenced
from gateway.jobs.tables import ALIVE, jobs, joining

_GIVEN = (
    *("department", "application", "adapter", "origin", "priority", "study_instance_uid", "accession_number"),
    *("patient_id", "slide_id", "server", "callback_url", "callback_token", "input", "context"),
    *("cancellation_tokens", "join_key", "caller", "idempotency_key", "request_digest"),
    *("canary", "beside"),
)
_KINDS = {
    "priority": "smallint",
    "canary": "boolean",
    "beside": "boolean",
    "cancellation_tokens": "text[]",
    **dict.fromkeys(IN_JSON, "jsonb"),
}
_OF_ALL = (
    *(("job", "uuid"), ("before", "text"), ("after", "text"), ("salt", "text"), ("event_at", "timestamptz")),
    *(("event_what", "text"), ("event_detail", "jsonb"), ("event_detail_digest", "text")),
    *(("event_written", "text"), ("asked_by", "text"), ("area", "text"), ("first_for", "float8")),
    *((name, _KINDS.get(name, "text")) for name in _GIVEN),
)
_PUT_IN = ", ".join(f"convert_to({name}, 'UTF8')" if name in ENCRYPTED else name for name in _GIVEN)
_FOUND_OUT = [name for name in JOB_COLUMNS if name not in _GIVEN]
_KNOWN = [name for name in JOB_COLUMNS if name in _GIVEN]
_HASH = "encode(sha256(convert_to({text}, 'UTF8')), 'hex')"
_MOMENT = "to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"+00:00\"')"
_PLACE = "server, application, slide_id, area"
ACCEPT = f"""
    WITH given AS MATERIALIZED (
        SELECT * FROM json_to_recordset(%(all)s::json)
            AS given ({", ".join(f"{name} {kind}" for name, kind in _OF_ALL)})
    ),
    fresh AS (
        INSERT INTO jobs (id, state, next_at, {", ".join(_GIVEN)})
        SELECT job, '{State.RECEIVED.value}', now(), {_PUT_IN} FROM given
        ON CONFLICT DO NOTHING
        RETURNING {", ".join(f"jobs.{name}" for name in _FOUND_OUT)}
    ),
    vouched AS MATERIALIZED (
        SELECT given.*, '{ABOUT_1}' || {_HASH.format(text=f"before || {_MOMENT} || after")} AS job_digest
        FROM fresh JOIN given ON given.job = fresh.id
    ),
    told AS (
        INSERT INTO job_events
            (job_id, at, state, what, detail, previous_hash, hash, salt, detail_digest, job_digest)
        SELECT job, event_at, '{State.RECEIVED.value}', event_what, event_detail, '',
            {_HASH.format(text="replace(event_written, salt, job_digest)")},
            salt, event_detail_digest, job_digest
        FROM vouched
    ),
    asked AS (
        INSERT INTO audit (who, what, job_id) SELECT asked_by, 'job asked for', job FROM vouched
        WHERE asked_by IS NOT NULL
    ),
    candidates AS MATERIALIZED (
        SELECT DISTINCT ON ({_PLACE}) job, first_for, {_PLACE} FROM vouched
        WHERE first_for > 0 ORDER BY {_PLACE}, job
    ),
    first AS (
        INSERT INTO slide_results ({_PLACE}, creating_until)
        SELECT {_PLACE}, now() + first_for * interval '1 second' FROM candidates
        ON CONFLICT DO NOTHING
        RETURNING {_PLACE}
    )
    SELECT {", ".join(f"fresh.{name}" for name in _FOUND_OUT)},
        EXISTS (SELECT FROM candidates JOIN first USING ({_PLACE}) WHERE candidates.job = fresh.id)
    FROM fresh"""  # noqa: S608 (names of columns alone)
TAKEN_FOR = 20.0  # seconds, for whoever sees to a further invocation; then another may
_LONGEST_TOKEN = 200
_NOBODYS = ""  # stands for an invocation without a cancellation token, which nobody can withdraw


class Accepted(NamedTuple):
    job: Job
    fresh: bool  # else one that there was
    first: bool  # and it has the right to store the first result on its slide
    joining: Joining | None = None  # for Sectra to let in


class Accepting(Fenced):
    def __init__(self, url: str, cipher: Cipher, *, pool_size: int = POOL) -> None:
        super().__init__(url, cipher, pool_size=pool_size)
        self._coming = self._open_ferry(self._accept_all)

    async def create(self, new: NewJob) -> tuple[Job, bool]:
        """Commit a job, or find the living one that asks for the same. True: it is a new one."""
        accepted = await self.accept(new)
        return accepted.job, accepted.fresh

    async def accept(self, new: NewJob, *, first_for: float = 0.0) -> Accepted:
        """`first_for`: seconds that the right is wanted for to store the first result on the slide. Who asks
        for what there is already is committed as `joining`, and whoever called sees to it first."""
        given = self._given(new, first_for)
        while True:
            begun = await self._coming.take(given)
            if begun is not None:
                self._wake_soon()
                return Accepted(self._begun(new, given, begun), fresh=True, first=begun[-1])
            async with self._transaction() as connection:
                living = select(*WITHOUT_RESULT).where(same_as(new)).with_for_update()
                found = await connection.execute(living)
                if (row := found.mappings().first()) is None:
                    continue  # it ended between the two, and its place is free
                twin = self._job(row)
                if new.origin == Origin.REST and new.caller and new.asks_for_the_same(twin):
                    await self._audit(connection, new.caller, "job asked for", twin)
                waits = await self._note_joining(connection, twin, new) if new.joinable else None
                return Accepted(twin, fresh=False, first=False, joining=waits)

    async def _note_joining(self, connection: AsyncConnection, job: Job, new: NewJob) -> Joining:
        token = new.cancellation_token
        noted = await connection.scalar(
            insert(joining)
            .values(
                job_id=job.id,
                application=new.application,
                cancellation_token=indexable(token) if token else None,
                asked=self._cipher.encrypt(asdict(new)),
                next_at=soon(TAKEN_FOR),
            )
            .returning(joining.c.id)
        )
        return Joining(int(noted), job.id, 1, new)

    async def _accept_all(self, given: Sequence[Mapping[str, Any]]) -> list[Sequence[Any] | None]:
        """None: of those that there are already. In one order everywhere, as two who wait for each other's
        would wait for ever."""
        ordered = sorted(given, key=_asked_for)
        rows = await self._lines.fetch(ACCEPT, accepting(ordered))
        fresh = {row[0]: row for row in rows}
        return [fresh.get(each["job"]) for each in given]

    def _begun(self, new: NewJob, given: Mapping[str, Any], row: Sequence[Any]) -> Job:
        columns = {name: given[name] for name in _KNOWN}
        columns |= dict(zip(_FOUND_OUT, row, strict=False))
        plain = {name: getattr(new, name, None) for name in ENCRYPTED}
        return self._job_of([columns[name] for name in JOB_COLUMNS], plain)

    def _given(self, new: NewJob, first_for: float) -> dict[str, Any]:
        named = {name: getattr(new, name) for name in _GIVEN if name != "cancellation_tokens"}
        named["cancellation_tokens"] = tokens_of(new)
        stored = {name: storable(value) for name, value in named.items()}
        for name in ENCRYPTED:
            if stored.get(name) is not None:
                stored[name] = (self._cipher.encrypt(stored[name]) or b"").decode()
        job_id, salt = uuid4(), secrets.token_hex(16)
        before, after = around_moment(salt, State.RECEIVED, stored)
        detail = {"origin": new.origin}
        told = Event(
            datetime.now(UTC),
            State.RECEIVED.value,
            ACCEPTED,
            detail,
            salt=salt,
            detail_digest=digest_of([salt, detail]),
            job_digest=salt,  # stands for what isn't known
        )
        return {
            **stored,
            "job": job_id,
            "before": before,
            "after": after,
            "salt": salt,
            "event_at": told.at,
            "event_what": told.what,
            "event_detail": detail,
            "event_detail_digest": told.detail_digest,
            "event_written": told.written(job_id),
            "asked_by": new.caller if new.origin == Origin.REST else None,
            "area": area_of(new.input),
            "first_for": first_for,
        }


def accepting(given: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """What `ACCEPT` is run with."""
    return {"all": json.dumps(given, default=str)}


def _asked_for(given: Mapping[str, Any]) -> tuple[str, str, str]:
    return given["join_key"] or "", given["caller"] or "", given["idempotency_key"] or ""


def tokens_of(new: NewJob) -> list[str]:
    if new.cancellation_token:
        return [indexable(new.cancellation_token)]
    return [_NOBODYS] if new.joinable else []


def indexable(token: str) -> str:
    """An index takes no entry of any length."""
    if len(token) <= _LONGEST_TOKEN:
        return token
    return f"sha256:{hashlib.sha256(token.encode()).hexdigest()}"


def same_as(new: NewJob) -> ColumnElement[bool]:
    if new.join_key is not None:
        return and_(jobs.c.join_key == new.join_key, ALIVE)
    return and_(jobs.c.caller == new.caller, jobs.c.idempotency_key == new.idempotency_key)
