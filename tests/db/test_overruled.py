"""Whoever has lost a job writes nothing more: after a cancel, a takeover, a death, a freeze."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import suppress
from dataclasses import replace

import psycopg
import pytest
import structlog
from sqlalchemy.exc import SQLAlchemyError

from gateway.contract import Retryable
from gateway.embedded import server as embedded
from gateway.jobs.engine import Engine
from gateway.jobs.outcomes import Advance
from gateway.jobs.schema import migrate
from gateway.jobs.states import WORKING, State
from gateway.jobs.store import Superseded
from gateway.jobs.store.queue import LIMIT_LOCK, LOCK_PLACES
from gateway.settings.sections import Retry
from tests.db.crew import BRISK, PATIENCE, WAY, Script, ask_for, bring, reaches, until, writes_of


def all_rows(url):
    tables = ("jobs", "job_events", "instances", "deliveries")
    with psycopg.connect(url) as connection:
        return [connection.execute(f"SELECT * FROM {name} ORDER BY 1, 2").fetchall() for name in tables]


@pytest.mark.parametrize("state", WORKING)
@pytest.mark.parametrize("by", ["cancel", "successor"])
async def test_all_writes_of_a_loser_are_void(store, database_url, state, by):
    fresh, _ = await store.create(ask_for())
    job = await bring(store, fresh, state)
    if by == "cancel":
        await store.cancel(job.id, "test")
    else:
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute("UPDATE jobs SET leased_until = now() - interval '1 s'")
        [successor] = await store.claim(8, 1, 60, {})
        assert (successor.id, successor.attempt) == (job.id, 2)
        assert "worker silent; another goes on" in [event.what for event in await store.events_of(job.id)]
    before = all_rows(database_url)
    for name, write in writes_of(store, job).items():
        with pytest.raises(Superseded):
            await write()
            pytest.fail(f"{name} was written")
    assert all_rows(database_url) == before


@pytest.mark.parametrize("when", ["at work", "waits for a retry", "held"])
async def test_a_cancel_wins_at_once(store, open_store, database_url, when):
    job, _ = await store.create(ask_for())
    begun, stopped = asyncio.Event(), asyncio.Event()

    async def submit(job):
        if when != "at work":
            raise Retryable("not now", after=3600)
        begun.set()
        try:
            await asyncio.sleep(3600)
        finally:
            stopped.set()

    policy = Retry(attempts=1 if when == "held" else 5)
    engine = Engine(store, database_url, Script({State.SUBMITTING: submit}, policy), {}, BRISK)
    with structlog.testing.capture_logs() as said:
        async with engine.working():
            if when == "at work":
                await asyncio.wait_for(begun.wait(), 20)
            else:
                await reaches(store, job, State.HELD if when == "held" else State.SUBMITTING)
                await until(lambda: _has_tried(store, job))
            await open_store(database_url).cancel(job.id, "somebody")
            if when == "at work":
                await asyncio.wait_for(stopped.wait(), 20)
                await until(lambda: _said(said, "a step is stopped: its job was overruled"))
            cancelled = await reaches(store, job, State.CANCELLED)
            await until(lambda: _is_at_rest(store, job))
    assert not cancelled.at_vendor
    last = [(event.state, event.what) for event in await store.events_of(job.id)][-1]
    assert last == (State.CANCELLED, "cancelled")


async def _has_tried(store, job):
    return (await store.get(job.id)).error_kind is not None


async def _is_at_rest(store, job):
    found = await store.get(job.id)
    return found.next_at is None and found.lease_holder is None


async def _said(said, what):
    return any(what in line["event"] for line in said)


async def test_a_result_that_comes_after_a_cancel_is_dropped_and_the_log_says_so(store, database_url):
    job, _ = await store.create(ask_for())

    async def submit(job):
        await store.cancel(job.id, "somebody")
        return Advance(WAY[job.state], "sent all the same")

    with structlog.testing.capture_logs() as said:
        async with Engine(store, database_url, Script({State.SUBMITTING: submit}), {}, BRISK).working():
            await reaches(store, job, State.CANCELLED)
            await until(lambda: _is_at_rest(store, job))
            await until(lambda: _said(said, "its job"))
    assert "sent all the same" not in [event.what for event in await store.events_of(job.id)]


async def test_a_killed_process_is_replaced_long_before_its_lease_ends(store, database_url, worker):
    job, _ = await store.create(ask_for())
    doomed = worker("hang", lease=180)
    await asyncio.to_thread(doomed.hears, "took")
    async with Engine(store, database_url, Script(), {}, BRISK).working():
        await asyncio.sleep(0.5)  # let it look at its neighbour
        doomed.kill()
        killed = time.monotonic()
        await reaches(store, job, State.DONE)
        print(f"done {(time.monotonic() - killed) * 1000:.0f} ms after the kill")
    assert "worker lost; another goes on" in [event.what for event in await store.events_of(job.id)]


async def test_a_frozen_process_loses_its_job_with_its_lease_and_all_it_writes_is_void(
    store, database_url, worker
):
    job, _ = await store.create(ask_for())
    frozen = worker("freeze", lease=2)
    await asyncio.to_thread(frozen.hears, "took")
    frozen.freeze()
    script = Script()
    pace = replace(BRISK, slow_poll=0.5)
    async with Engine(store, database_url, script, {}, pace).working():
        await reaches(store, job, State.DONE)
        before = all_rows(database_url)
        frozen.thaw()
        frozen.says("go on")
        void = [await asyncio.to_thread(frozen.hears, "void") for _ in writes_of(store, job)]
        assert void == list(writes_of(store, job))
        assert all_rows(database_url) == before
    assert [job.state for job in script.taken] == list(WORKING)


async def test_a_job_that_kills_its_workers_is_held_not_tried_for_ever(store, database_url, worker):
    job, _ = await store.create(ask_for())
    for attempt in (1, 2, 3):
        doomed = worker("die")
        assert (await asyncio.to_thread(doomed.hears, "took")).split()[-1] == str(attempt)
        await asyncio.to_thread(doomed.process.wait)
    async with Engine(store, database_url, Script(), {}, BRISK).working():
        held = await reaches(store, job, State.HELD)
    assert held.held_in == State.RECEIVED
    assert held.error_message == "tried 3 times without an end: worker lost"


async def test_a_frozen_transaction_keeps_no_vendor_from_the_others(store, open_store, database_url):
    """A replica that stops in the middle of a claim holds the vendor's lock; the server takes it away."""
    job, _ = await store.create(ask_for())
    await store.move(await bring(store, job, State.LOCATING), to=State.SUBMITTING)
    frozen = open_store(database_url)
    async with frozen._lines.line() as line:
        await line.execute("BEGIN")
        await line.execute(LOCK_PLACES, {"lock": LIMIT_LOCK, "adapters": ["vendor"]})
        [claimed] = await store.claim(1, 1, 60, {"vendor": 1})
        assert claimed.id == job.id
        await line.close()


async def reaches_in_the_end(store, job):
    """Of a server whose first process was killed the others go on answering, for a moment."""
    async with asyncio.timeout(4 * PATIENCE):
        while True:
            with suppress(SQLAlchemyError):
                await reaches(store, job, State.DONE)
                return
            await asyncio.sleep(0.1)


async def test_a_restarted_database_is_waited_for(open_store, tmp_path):
    """Killed in the middle of the work: it comes back, and every job ends."""

    async def slowly(job):
        await asyncio.sleep(0.02)
        return Advance(WAY[job.state], "went on")

    policy = Retry(attempts=50, first="20ms", most="50ms")
    async with embedded.serve(tmp_path, fast=True) as url:
        await asyncio.to_thread(migrate, url)
        store = open_store(url)
        jobs = [(await store.create(ask_for()))[0] for _ in range(40)]
        script = Script(dict.fromkeys(WORKING, slowly), policy)
        async with Engine(store, url, script, {"vendor": 3}, BRISK).working():
            await reaches(store, jobs[0], State.DONE)
            pid = int((tmp_path / "postgres" / "cluster" / "postmaster.pid").read_text().split()[0])
            os.kill(pid, 9)
            later = None
            while later is None:
                try:
                    later, _ = await store.create(ask_for())
                except SQLAlchemyError:
                    await asyncio.sleep(0.1)
            for job in [*jobs, later]:
                await reaches_in_the_end(store, job)


async def test_a_database_that_is_down_at_first_is_waited_for(open_store, tmp_path):
    async with embedded.serve(tmp_path, fast=True) as url:
        await asyncio.to_thread(migrate, url)
        store = open_store(url)
        job, _ = await store.create(ask_for())
        await store.close()
        pid = int((tmp_path / "postgres" / "cluster" / "postmaster.pid").read_text().split()[0])
        os.kill(pid, 9)
        with structlog.testing.capture_logs() as said:
            async with Engine(store, url, Script(), {}, BRISK).working():
                await until(lambda: _said(said, "a loop broke; it goes on"))
                await reaches_in_the_end(store, job)
