"""The keys are changed replica by replica, and no job is held for it."""

from __future__ import annotations

from dataclasses import replace

import structlog
from cryptography.fernet import Fernet

from gateway.jobs.cipher import Cipher
from gateway.jobs.engine import Engine
from gateway.jobs.left import LeftToOthers
from gateway.jobs.states import WORKING, State
from gateway.jobs.store import Store
from tests.db.crew import BRISK, Script, ask_for, reaches, until

OLD, NEW = (Fernet.generate_key().decode() for _ in range(2))


async def test_what_one_replica_cannot_read_another_does_at_once(database_url):
    """Both at work, the job stored with the key that only one of them has."""
    before, after = Store(database_url, Cipher([OLD])), Store(database_url, Cipher([NEW, OLD]))
    mine, theirs = Script(), Script()
    jobs = [(await after.create(ask_for(patient_id=f"P{number}")))[0] for number in range(12)]
    with structlog.testing.capture_logs() as said:
        async with Engine(before, database_url, mine, {"vendor": 2}, BRISK).working():
            await until(lambda: _waits(after, jobs))
            left = [line["job"] for line in said if "left to other replicas" in line["event"]]
            assert set(left) == {str(job.id) for job in jobs}
            async with Engine(after, database_url, theirs, {"vendor": 2}, BRISK).working():
                for job in jobs:
                    await reaches(after, job, State.DONE)
    assert mine.taken == []
    assert all(job.patient_id for job in theirs.taken)
    for job in jobs:
        told = await after.events_of(job.id)
        assert [event.state for event in told] == [*WORKING, State.DONE], "no job's history is filled with it"
    await before.close()
    await after.close()


async def _waits(store, jobs):
    return all([(await store.get(job.id)).waits_why for job in jobs])


async def test_in_two_phases_every_replica_reads_what_every_other_stores(database_url):
    """First all learn the new key, then all store with it: at no time does anybody have to leave a job."""
    for keys in (([OLD], [OLD, NEW]), ([OLD, NEW], [NEW, OLD])):
        stores = [Store(database_url, Cipher(each)) for each in keys]
        jobs = [(await store.create(ask_for(patient_id="P")))[0] for store in stores for _ in range(3)]
        scripts = [Script(), Script()]
        async with (
            Engine(stores[0], database_url, scripts[0], {}, BRISK).working(),
            Engine(stores[1], database_url, scripts[1], {}, BRISK).working(),
        ):
            for job in jobs:
                await reaches(stores[0], job, State.DONE)
        assert not any(job.unreadable for script in scripts for job in script.taken)
        for store in stores:
            await store.close()


async def test_what_nobody_can_read_is_a_persons_after_long(database_url):
    gone = Store(database_url, Cipher([OLD]))
    job, _ = await gone.create(ask_for(patient_id="P"))
    store = Store(database_url, Cipher([NEW]))
    async with Engine(store, database_url, Script(), {}, replace(BRISK, left=3600)).working():
        await until(lambda: _waits(store, [job]))
        left = await store.get(job.id)
        assert left is not None and left.state == State.RECEIVED
    async with Engine(store, database_url, Script(), {}, replace(BRISK, left=0.3)).working():
        held = await reaches(store, job, State.HELD)
    assert "isn't among secret_keys" in (held.error_message or "")
    await gone.close()
    await store.close()


async def test_one_that_moves_on_elsewhere_is_waited_for_anew(store):
    now = 0.0
    left = LeftToOthers(100, lambda: now)
    job, _ = await store.create(ask_for())
    assert left.leave(job)
    assert left.ids == [job.id]
    now = 99.0
    assert left.ids == []
    assert left.leave(job)
    now = 130.0
    moved = replace(job, updated_at=(await store.create(ask_for()))[0].updated_at)
    assert left.leave(moved)
    now = 231.0
    assert not left.leave(moved)
