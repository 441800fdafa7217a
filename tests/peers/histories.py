"""Jobs by the hundred thousand, with true histories, as fast as they can be written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from gateway.jobs.chain import ABOUT, digest_job
from gateway.jobs.records import Event

_AT_ONCE = 20_000
_WAY = ("received", "locating", "submitting", "analysing", "delivering", "done")
_COPY = (
    "COPY job_events (job_id, at, state, what, detail, previous_hash, hash, salt, detail_digest, job_digest)"
    " FROM STDIN"
)


def make_jobs(connection: psycopg.Connection[Any], count: int, way: Sequence[str] = _WAY) -> None:
    """Each ended in the last state of its way."""
    while count > 0:
        _make(connection, min(count, _AT_ONCE), way)
        count -= _AT_ONCE


def _make(connection: psycopg.Connection[Any], count: int, way: Sequence[str]) -> None:
    names: tuple[str, ...] = (
        "id",
        "state",
        "created_at",
        "archive",
        "promised",
        "sent",
        "acknowledged",
        "received",
        "stored",
    )
    names += ABOUT
    rows = connection.execute(
        "INSERT INTO jobs (id, department, application, adapter, origin, state, study_instance_uid)"
        " SELECT gen_random_uuid(), 'd', 'a', 'v', 'rest', %s, '1.2.' || n FROM generate_series(1, %s) n"
        f" RETURNING {', '.join(names)}",
        [way[-1], count],
    ).fetchall()
    with connection.cursor().copy(_COPY) as out:
        for row in rows:
            job = SimpleNamespace(**dict(zip(names, row, strict=True)))
            previous = ""
            for state in way:
                job.state = state
                event = Event(datetime.now(UTC), state, "went on", {"n": 1}, previous, salt="s")
                event = replace(event, detail_digest=event.digest_detail(), job_digest=digest_job(job, "s"))
                hashed = event.digest(job.id)
                told = (job.id, event.at, event.state, event.what, Jsonb(event.detail), previous, hashed)
                out.write_row((*told, event.salt, event.detail_digest, event.job_digest))
                previous = hashed
