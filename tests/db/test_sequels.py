"""What a vendor finished of a done job has one job of its own, whoever dies or asks again meanwhile."""

from __future__ import annotations

import asyncio

import pytest

from gateway.jobs.records import Job
from gateway.jobs.states import State
from gateway.jobs.store import Store
from gateway.jobs.store.reading import Filter
from tests.db.crew import ask_for, bring

WHAT = "the vendor has finished more of it"


async def done(store: Store) -> Job:
    job, _ = await store.create(ask_for(study_instance_uid="1.2.3"))
    return await store.move(await bring(store, job, State.DELIVERING), to=State.DONE, after=None)


async def test_several_who_ask_at_once_begin_one(store: Store) -> None:
    job = await done(store)
    begun = await asyncio.gather(*(store.begin_sequel(job, WHAT) for _ in range(4)))
    assert len([each for each in begun if each is not None]) == 1
    assert len(await store.find(Filter())) == 2


@pytest.mark.parametrize("end", [State.FAILED, State.CANCELLED, State.HELD, State.DONE])
async def test_who_died_after_it_was_begun_begins_no_other_whatever_became_of_it(
    store: Store, end: State
) -> None:
    job = await done(store)
    sequel = await store.begin_sequel(job, WHAT)
    assert sequel is not None
    [at] = await store.claim(7, 1, 60, {})
    assert (at.id, at.state) == (sequel, State.ANALYSING)
    if end == State.DONE:
        await store.move(at, to=State.DELIVERING)
        [at] = await store.claim(7, 1, 60, {})
    held_in = State.ANALYSING.value if end == State.HELD else None
    await store.move(at, to=end, after=None, held_in=held_in)
    assert await store.begin_sequel(job, WHAT) is None
    assert len(await store.find(Filter())) == 2
    events = [event.what for event in await store.events_of(job.id)]
    assert events.count(WHAT) == 1
