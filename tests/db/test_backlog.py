"""What waits costs nothing: whoever looks for work touches only what can go. Counted, and not by a clock."""

from __future__ import annotations

import json

import psycopg
import pytest

from gateway.jobs.states import State
from gateway.jobs.store.queue import LOOK
from tests.db.crew import ask_for

_LIMITS = {"limited": 3}
_FEW = 40  # pages: some for each step down an index

_KINDS = {
    "wait for a place": ("submitting", "now() - interval '1 h'"),
    "wait for their time": ("analysing", "now() + interval '1 h'"),
    "wait for an archive to open": ("locating", "now() + interval '9 h'"),
}


def fill(url, state, next_at, count=20_000):
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO jobs (id, department, application, adapter, origin, state, next_at, at_vendor)"
            f" SELECT gen_random_uuid(), 'd', 'a', 'limited', 'rest', %s, {next_at}, %s"
            " FROM generate_series(1, %s)",
            (state, state == "analysing", count),
        )
        connection.execute(
            "UPDATE jobs SET at_vendor = true WHERE id IN"
            " (SELECT id FROM jobs WHERE state = 'submitting' LIMIT 3)"
        )
        connection.execute("VACUUM ANALYZE jobs")


def touched(url, room=32):
    """Pages that a look at the queue reads, and the rows it finds."""
    given = {"room": room, "adapters": list(_LIMITS), "capacities": list(_LIMITS.values()), "but": []}
    with psycopg.connect(url, options="-c enable_seqscan=off") as connection:
        connection.execute(LOOK, given)  # what PostgreSQL has to know of its own tables, it knows then
        [[[told]]] = connection.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {LOOK}", given).fetchall()
    assert "Seq Scan" not in json.dumps(told)
    return told["Plan"]["Shared Hit Blocks"] + told["Plan"]["Shared Read Blocks"]


@pytest.mark.parametrize("kind", _KINDS)
async def test_a_backlog_that_cannot_go_is_not_touched(store, database_url, kind):
    fill(database_url, *_KINDS[kind])
    assert touched(database_url) < _FEW
    outlook = await store.look(32, _LIMITS)
    assert [due for due in outlook.due if due.needs_place] == []
    job, _ = await store.create(ask_for(adapter="free"))
    assert touched(database_url) < _FEW
    [claimed] = (
        await store.claim(1, 32, 60, _LIMITS) if kind != "wait for a place" else await only(store, "free")
    )
    assert claimed.id == job.id


async def only(store, adapter):
    claimed = await store.claim(1, 32, 60, _LIMITS)
    return [job for job in claimed if job.adapter == adapter]


async def test_a_place_goes_to_who_waits_for_it_whatever_the_backlog(store, database_url):
    fill(database_url, *_KINDS["wait for a place"])
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("UPDATE jobs SET at_vendor = false, next_at = NULL WHERE at_vendor")
    claimed = await store.claim(1, 32, 60, _LIMITS)
    assert [job.state for job in claimed] == [State.SUBMITTING] * 3
    assert touched(database_url) < _FEW


async def test_what_went_through_the_queue_leaves_its_index_soon(store, database_url):
    """However large the table: a look steps over what is left of the jobs that were due before."""
    fill(database_url, *_KINDS["wait for their time"])
    told: list[str] = []
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.add_notice_handler(lambda notice: told.append(notice.message_primary or ""))
        connection.execute("UPDATE jobs SET next_at = NULL WHERE id IN (SELECT id FROM jobs LIMIT 30)")
        connection.execute("VACUUM (VERBOSE) jobs")
        [[threshold, share]] = connection.execute(
            "SELECT (SELECT option_value::int FROM pg_options_to_table(reloptions)"
            " WHERE option_name = 'autovacuum_vacuum_threshold'),"
            " (SELECT option_value::float FROM pg_options_to_table(reloptions)"
            " WHERE option_name = 'autovacuum_vacuum_scale_factor')"
            " FROM pg_class WHERE oid = 'jobs'::regclass"
        ).fetchall()
    assert "index scan needed" in "".join(told)
    assert threshold + share * 1_000_000 < 5_000
