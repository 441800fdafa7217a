"""A worker's writes: only while it still has the job (the same state, holder and fence number), and with the
event that tells of it, in one statement.

An event is made before anybody knows what it follows: under the lock of the job's row, PostgreSQL puts in the
hash of the event before, and hashes the whole. What the event vouches for must be as the worker knows it; who
hasn't seen the latest of it (a user joined) looks and tries again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from psycopg.types.json import Jsonb

from gateway.jobs.chain import ABOUT, vouched_for
from gateway.jobs.records import Event, Job, Origin, storable
from gateway.jobs.states import State
from gateway.jobs.store.database import ENCRYPTED, JOB_COLUMNS, Database, Superseded

IN_JSON = ("ticket", "input", "context")
OF_JOBS = ", ".join(f"jobs.{name}" for name in JOB_COLUMNS)
_PLAIN = "{value}"
_ABOUT = frozenset(ABOUT)
_KNOWN = "what it is about is known"  # its history vouches for these columns, so it has to hear of them

OURS = "id = %(job)s AND state = %(state)s AND lease_holder = %(holder)s AND fence = %(fence)s"
HELD = f"held AS MATERIALIZED (UPDATE jobs SET updated_at = now() WHERE {OURS} RETURNING id)"
_LATEST = f"SELECT {OF_JOBS} FROM jobs WHERE {OURS}"

# `event_before` is a function that sees what was committed while the row's lock was waited for: the statement
# itself sees what there was when it began.
_WRITE = f"""
    UPDATE jobs SET {{changes}}
    WHERE {OURS}{{as_known}}
    RETURNING {OF_JOBS}"""
_WRITE_AND_TELL = f"""
    WITH moved AS MATERIALIZED ({_WRITE}),
    link AS MATERIALIZED (SELECT id, event_before(id) AS previous FROM moved),
    told AS (
        INSERT INTO job_events
            (job_id, at, state, what, detail, previous_hash, hash, salt, detail_digest, job_digest)
        SELECT id, %(event_at)s, %(event_state)s, %(event_what)s, %(event_detail)s, previous,
            encode(sha256(convert_to(replace(%(event_written)s, %(event_salt)s, previous), 'UTF8')), 'hex'),
            %(event_salt)s, %(event_detail_digest)s, %(event_job_digest)s
        FROM link
    ){{and_said}}{{and_also}}
    SELECT * FROM moved"""
_AND_SAID = """,
    said AS (INSERT INTO said (job_id, what, words) SELECT id, %(said_with)s, %(said)s FROM moved)"""


@dataclass(frozen=True, slots=True)
class In:
    """So many seconds from now, by the database's clock."""

    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Plus:
    """So many more than there are."""

    number: int = 1


@dataclass(frozen=True, slots=True)
class AtLeast:
    """Whatever it is now, unless that is less."""

    number: int


_SAID: dict[type, str] = {
    AtLeast: "greatest(jobs.{name}, {value})",
    In: "now() + {value} * interval '1 second'",
    Plus: "jobs.{name} + {value}",
}


class Fenced(Database):
    async def _write(
        self,
        job: Job,
        values: Mapping[str, Any],
        what: str | None,
        detail: Mapping[str, Any] | None = None,
        said: Mapping[str, Any] | None = None,
        *,
        said_with: str | None = None,
        also: str = "",
        also_given: Mapping[str, Any] | None = None,
    ) -> Job:
        """`said`: a peer's own words, which may hold anything, so that they are kept encrypted. `also`: what
        is written besides, if the job (`moved`) and its event are."""
        if what is None and not _ABOUT.isdisjoint(values):
            what = _KNOWN
        ours = _ours(job)
        given = ours | {f"new_{name}": self._parameter(name, value) for name, value in values.items()}
        changes = tuple((name, _SAID.get(type(value), _PLAIN)) for name, value in values.items())
        vouched = () if what is None else vouched_for(State(values.get("state", job.state)))
        known = tuple(name for name in vouched if name not in values)
        words = self._cipher.encrypt(storable(dict(said))) if what is not None and said else None
        if words is not None:
            given |= {"said": words, "said_with": storable(said_with or what)}
        given |= also_given or {}
        statement = _statement(changes, known, what is not None, words is not None, also)
        latest = job
        while True:
            if what is not None:
                given |= {f"known_{name}": _as_stored(getattr(latest, name)) for name in known}
                now = {name: value for name, value in values.items() if name in {*vouched, "state"}}
                given |= _told(self._link(_with(latest, now), what, detail or {}), job)
            if rows := await self._lines.fetch(statement, given):
                return self._job_of(rows[0])
            if what is None or not (rows := await self._lines.fetch(_LATEST, ours)):
                raise Superseded(f"job {job.id} has moved on")
            latest = self._job_of(rows[0])

    async def _with_held(self, job: Job, statement: str, **given: Any) -> list[tuple[Any, ...]]:
        """A statement that touches the job's row (`HELD`), and does the rest only if we still have it."""
        if rows := await self._lines.fetch(statement, _ours(job) | given):
            return rows
        raise Superseded(f"job {job.id} has moved on")

    def _parameter(self, name: str, value: Any) -> Any:
        match value:
            case In():
                return float(value.seconds)
            case Plus() | AtLeast():
                return value.number
        if name in ENCRYPTED:
            return self._cipher.encrypt(value)
        if name in IN_JSON:
            return None if value is None else Jsonb(storable(value))
        return storable(value)


def _ours(job: Job) -> dict[str, Any]:
    return {"job": job.id, "state": job.state.value, "holder": job.lease_holder, "fence": job.fence}


@cache
def _statement(
    changes: tuple[tuple[str, str], ...], known: tuple[str, ...], tells: bool, repeats: bool, also: str
) -> str:
    said = ", ".join(f"{name} = {how.format(name=name, value=f'%(new_{name})s')}" for name, how in changes)
    as_known = "".join(
        f" AND {name} = ANY(%(known_{name})s)"
        if name == "origin"
        else f" AND {name} IS NOT DISTINCT FROM %(known_{name})s"
        for name in known
    )
    if not tells:
        return _WRITE.format(changes=said, as_known=as_known)
    besides = {"and_said": _AND_SAID if repeats else "", "and_also": f", {also}" if also else ""}
    return _WRITE_AND_TELL.format(changes=said, as_known=as_known, **besides)


def _as_stored(value: Any) -> Any:
    return value.stored if isinstance(value, Origin) else value


def _with(job: Job, values: Mapping[str, Any]) -> Job:
    changed = {name: storable(value) for name, value in values.items()}
    return replace(job, **(changed | {"state": State(changed.get("state", job.state))}))


def _told(event: Event, job: Job) -> dict[str, Any]:
    """Its salt, which is nowhere else in what is hashed, stands where the hash of the one before belongs."""
    return {
        "event_at": event.at,
        "event_state": event.state,
        "event_what": event.what,
        "event_detail": Jsonb(event.detail),
        "event_salt": event.salt,
        "event_detail_digest": event.detail_digest,
        "event_job_digest": event.job_digest,
        "event_written": replace(event, previous_hash=event.salt or "").written(job.id),
    }
