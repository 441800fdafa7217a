"""The database's clock is put back by an hour while jobs wait: none is stuck for an hour, and none spins. It
is put forward while they are worked on: nobody takes them from who lives."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from uuid import UUID

import psycopg
import pytest
import structlog

from gateway.jobs.engine import Engine
from gateway.jobs.outcomes import Advance, Outcome, Wait
from gateway.jobs.records import Job
from gateway.jobs.states import WORKING, State
from gateway.jobs.store import Store
from tests.db.crew import BRISK, PATIENCE, Script, ask_for, bring, reaches, until

# Whoever asks for now() finds this one before PostgreSQL's own.
CLOCK = """
CREATE TABLE clock (ahead interval NOT NULL);
INSERT INTO clock VALUES ('1 hour');
CREATE FUNCTION public.now() RETURNS timestamptz STABLE LANGUAGE sql AS
    'SELECT pg_catalog.now() + ahead FROM public.clock';
DO $$ BEGIN
    EXECUTE format('ALTER DATABASE %I SET search_path = public, pg_catalog', current_database());
END $$
"""


@pytest.fixture
def clock(database_url: str) -> Callable[[str], None]:
    def put(ahead: str) -> None:
        with psycopg.connect(database_url) as connection:
            connection.execute("UPDATE public.clock SET ahead = %s", (ahead,))

    with psycopg.connect(database_url) as connection:
        connection.execute(CLOCK)
    return put


async def test_jobs_go_on_though_the_clock_is_put_back_and_take_no_step_too_many(
    clock: Callable[[str], None], database_url: str, open_store: Callable[[str], Store]
) -> None:
    store = open_store(database_url)
    waited: set[object] = set()

    async def wait_once(job: Job) -> Outcome:
        if job.id in waited:
            return Advance(State.SUBMITTING, "found")
        waited.add(job.id)
        return Wait(after=2.0)

    script = Script({State.LOCATING: wait_once})
    made = [(await store.create(ask_for()))[0] for _ in range(3)]
    frozen, _ = await store.create(ask_for(adapter="another"))
    pace = replace(BRISK, slow_poll=0.2)
    with structlog.testing.capture_logs() as said:
        async with Engine(store, database_url, script, {}, pace).working():

            async def all_wait() -> bool:
                return len(waited) == 4

            await until(all_wait)
            clock("0")
            for job in (*made, frozen):
                await reaches(store, job, State.DONE)
    assert len(script.taken) < 4 * 10
    [told] = [line for line in said if "clock was put back" in line["event"]]
    assert 3500 < told["seconds"] <= 3600


async def test_what_a_silent_worker_has_is_freed_and_who_took_his_since_keeps_it(
    clock: Callable[[str], None], database_url: str, open_store: Callable[[str], Store]
) -> None:
    store, replica = open_store(database_url), open_store(database_url)
    job, _ = await store.create(ask_for())
    await bring(store, job, State.LOCATING)  # under a lease of a minute
    assert await store.mind_the_clock() == 0
    clock("0")
    other, _ = await store.create(ask_for(adapter="other"))
    await store.claim(8, 5, 600, {})
    assert [await each.mind_the_clock() > 3500 for each in (store, replica)] == [True, False]
    with psycopg.connect(database_url) as connection:
        leases: dict[UUID, int] = dict(
            connection.execute(
                "SELECT id, extract(epoch FROM leased_until - now())::int FROM jobs"
            ).fetchall()
        )
    assert leases[job.id] <= 60
    assert leases[other.id] > 500
    clock("-3 hours")
    await store.mind_the_clock()
    assert await store.mind_the_clock() == 0


async def test_who_is_at_work_keeps_his_job_though_the_clock_is_put_forward(
    clock: Callable[[str], None], database_url: str, open_store: Callable[[str], Store]
) -> None:
    clock("0")
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def upload(job: Job) -> Outcome:
        begun.set()
        await go_on.wait()
        return Advance(State.ANALYSING, "sent")

    script = Script({State.SUBMITTING: upload})
    stores = [open_store(database_url) for _ in range(2)]
    pace = replace(BRISK, slow_poll=0.2)
    job, _ = await stores[0].create(ask_for())
    with structlog.testing.capture_logs() as said:

        async def all_know() -> bool:
            return sum("clock was put forward" in line["event"] for line in said) == 2

        async with AsyncExitStack() as stack:
            for store in stores:
                await stack.enter_async_context(Engine(store, database_url, script, {}, pace).working())
            await asyncio.wait_for(begun.wait(), PATIENCE)
            await asyncio.gather(*(store.mind_the_clock() for store in stores))
            clock("1 hour")
            await until(all_know)
            assert [await store.release_orphans() for store in stores] == [0, 0]
            go_on.set()
            await reaches(stores[0], job, State.DONE)
    assert [each.state for each in script.taken] == list(WORKING)


async def test_who_was_silent_before_the_clock_was_put_forward_is_so_still(
    clock: Callable[[str], None], database_url: str, open_store: Callable[[str], Store]
) -> None:
    clock("0")
    store = open_store(database_url)
    job, _ = await store.create(ask_for())
    await bring(store, job, State.LOCATING)  # under a lease of a minute
    assert await store.mind_the_clock() == 0
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE jobs SET leased_until = now() - interval '1 s'")
    clock("1 hour")
    await store.mind_the_clock()
    assert await store.release_orphans() == 1
