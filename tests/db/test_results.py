"""Results that went through us are known again, so that no vendor gets them as its input."""

from __future__ import annotations

from gateway.jobs.records import InstanceRecord
from gateway.jobs.states import State
from tests.db.crew import ask_for, bring


async def test_results_are_known_again_however_often_they_were_recorded(store):
    job, _ = await store.create(ask_for())
    job = await bring(store, job, State.DELIVERING)
    await store.record_results(job, {"1.2.3", "1.2.4"})
    await store.record_results(job, {"1.2.4", "1.2.5"})
    await store.record_results(job, set())
    assert await store.results_among(["1.2.4", "1.2.5", "1.2.6"]) == {"1.2.4", "1.2.5"}
    assert await store.results_among([]) == set()
    many = [f"1.2.{number}" for number in range(70_000)]  # a slide in tiles
    assert await store.results_among(many) == {"1.2.3", "1.2.4", "1.2.5"}


async def test_an_input_that_a_vendor_returns_under_its_old_uid_stays_an_input(store):
    job, _ = await store.create(ask_for())
    job = await bring(store, job, State.DELIVERING)
    await store.promise(job, [InstanceRecord("1.2.3", "1.2"), InstanceRecord("1.2.4", "1.2")])
    await store.record_results(job, {"1.2.4", "1.2.5"})
    assert await store.results_among(["1.2.3", "1.2.4", "1.2.5"]) == {"1.2.5"}


async def test_results_of_other_vendors_are_told_from_ones_own(store):
    theirs, _ = await store.create(ask_for(adapter="another"))
    await store.record_results(await bring(store, theirs, State.DELIVERING), {"1.2.3"})
    own, _ = await store.create(ask_for(slide_id="slide-2"))
    own = await bring(store, own, State.DELIVERING)
    await store.record_results(own, {"1.2.4"})
    assert await store.results_of_others(own, ["1.2.3", "1.2.4", "1.2.5"]) == {"1.2.3"}
