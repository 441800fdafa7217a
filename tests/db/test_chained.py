"""A history is one chain, whoever writes at the same time, and vouches for the job as it is by then."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from gateway.jobs.chain import find_break, find_edit
from gateway.jobs.records import Origin
from gateway.jobs.states import State
from tests.db.crew import ask_for, bring
from tests.db.test_joining import invoke


def on_a_slide(**given):
    about = {"server": "main", "slide_id": "s", "joinable": True, "cancellation_token": "first"}
    return ask_for(**{**about, "origin": Origin.NOTIFICATION, **given})


async def is_whole(store, job_id):
    job, events = await store.get(job_id), await store.events_of(job_id)
    return (find_break(job_id, events), find_edit(job, events)) == (None, None)


async def test_a_worker_that_has_not_heard_of_a_join_vouches_for_it_all_the_same(store):
    job, _ = await store.create(on_a_slide())
    at = await bring(store, job, State.SUBMITTING)
    joined, is_new = await invoke(store, on_a_slide(origin=Origin.SECTRA, cancellation_token="second"))
    assert (joined.id, joined.origin, is_new) == (job.id, Origin.SECTRA, False)
    moved = await store.move(at, to=State.ANALYSING, what="sent")
    assert moved.origin is Origin.SECTRA
    assert await is_whole(store, job.id)


async def test_what_was_learnt_in_a_step_is_vouched_for(store):
    job, _ = await store.create(ask_for(accession_number="A1"))
    at = await bring(store, job, State.LOCATING)
    await store.keep(at, study_instance_uid="1.2.3")
    await store.move(at, to=State.SUBMITTING, promised=3, archive="vna")
    assert await is_whole(store, job.id)
    at = await bring(store, job, State.DELIVERING)
    await store.keep(at, received=2)
    done = await store.move(at, to=State.DONE, after=None, stored=2)
    assert (done.received, done.stored) == (2, 2)
    assert await is_whole(store, job.id)


async def test_many_who_write_at_the_same_time_write_one_chain(store, open_store, database_url):
    job, _ = await store.create(on_a_slide())
    at = await bring(store, job, State.LOCATING)
    other = open_store(database_url)

    async def note(count):
        for number in range(count):
            await store.note(at, f"note {number}", {"at": str(datetime.now(UTC))})

    async def join(count):
        for number in range(count):
            await invoke(other, on_a_slide(cancellation_token=f"token {number}"))
            await other.cancel_by_token("a", f"token {number}")

    await asyncio.gather(note(25), note(25), note(25), join(20))
    events = await store.events_of(job.id)
    assert len([event for event in events if event.what.startswith("note")]) == 75
    assert len([event for event in events if event.what == "joined"]) == 20
    assert len({event.previous_hash for event in events}) == len(events)
    assert await is_whole(store, job.id)
