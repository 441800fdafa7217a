"""Who gets which job, and when: order, limits, waiting, retries, wake-ups."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from sqlalchemy import Engine as AnyEngine
from sqlalchemy import event

from gateway.contract import Busy, NeedsHuman, Permanent, Retryable
from gateway.jobs.engine import Engine
from gateway.jobs.outcomes import Advance, Rest, Wait
from gateway.jobs.states import FINAL, WORKING, State
from gateway.jobs.store.fenced import AtLeast
from gateway.jobs.store.reading import Filter
from gateway.settings.sections import Retry
from tests.db.crew import BRISK, WAY, Script, ask_for, bring, reaches, until


async def test_by_priority_then_age(store):
    made = [(await store.create(ask_for(priority=priority)))[0] for priority in (0, 5, 0, 9, 5)]
    claimed = await store.claim(1, 3, 60, {})
    assert [job.id for job in claimed] == [made[3].id, made[1].id, made[4].id]
    claimed = await store.claim(1, 3, 60, {})
    assert [job.id for job in claimed] == [made[0].id, made[2].id]
    assert await store.claim(1, 3, 60, {}) == []


async def test_what_raises_a_job_never_lowers_it(store):
    """Somebody may have raised it further since the worker took it."""
    job, _ = await store.create(ask_for(priority=5))
    at = await bring(store, job, State.LOCATING)
    for least, priority in ((3, 5), (7, 7)):
        at = await store.keep(at, priority=AtLeast(least))
        assert at.priority == priority


async def test_priority_rules_across_vendors_with_and_without_a_limit(store):
    routine, _ = await store.create(ask_for(adapter="limited"))
    await store.move(await bring(store, routine, State.LOCATING), to=State.SUBMITTING)
    urgent, _ = await store.create(ask_for(adapter="free", priority=9))
    [first] = await store.claim(1, 1, 60, {"limited": 1})
    assert first.id == urgent.id
    [second] = await store.claim(1, 1, 60, {"limited": 1})
    assert second.id == routine.id


async def test_what_nobody_waits_for_leaves_a_place_for_whoever_comes(store, database_url):
    limits = {"vendor": 2}

    async def make(number: int, **given: Any) -> set[UUID]:
        made = [(await store.create(ask_for(**given)))[0].id for _ in range(number)]
        with psycopg.connect(database_url) as connection:
            connection.execute("UPDATE jobs SET state = 'submitting' WHERE state = 'received'")
        return set(made)

    shadows = await make(3, priority=-1, beside=True, application="shadow/a/b")
    [first] = await store.claim(1, 8, 60, limits)
    assert first.id in shadows
    assert await store.claim(1, 8, 60, limits) == []
    real = await make(1)
    assert {each.id for each in await store.claim(1, 8, 60, limits)} == real
    assert len(await store.claim(1, 8, 60, {"vendor": 4})) == 1, "of two that are free one is kept"


async def test_many_workers_share_many_jobs_and_each_step_is_done_once(
    store, open_store, database_url, worker
):
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE worked (job uuid, state text, pid int)")
    jobs = [(await store.create(ask_for(priority=n % 3)))[0] for n in range(60)]
    processes = [worker("count"), worker("count")]
    scripts = [Script() for _ in range(3)]
    async with AsyncExitStack() as stack:
        for process in processes:
            await asyncio.to_thread(process.hears, "took")
        for script in scripts:
            own = open_store(database_url)
            await stack.enter_async_context(Engine(own, database_url, script, {}, BRISK).working())
        for job in jobs:
            await reaches(store, job, State.DONE)
    taken = Counter((job.id, job.state.value) for script in scripts for job in script.taken)
    with psycopg.connect(database_url) as connection:
        taken.update(connection.execute("SELECT job, state FROM worked").fetchall())
        pids = {row[0] for row in connection.execute("SELECT DISTINCT pid FROM worked")}
    assert taken == {(job.id, state.value): 1 for job in jobs for state in WORKING}
    assert len(pids) == 2
    for job in jobs:
        assert [event.state for event in await store.events_of(job.id)] == [*WORKING, State.DONE]


async def test_a_vendor_never_has_more_than_its_limit_across_replicas(store, open_store, database_url):
    most = now = 0

    async def submit(job):
        nonlocal most, now
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.005)
        return Advance(State.ANALYSING, "sent")

    async def poll(job):
        nonlocal now
        await asyncio.sleep(0.005)
        if job.attempt == 1 and job.result_by is None:
            return Wait(after=0.01, values={"result_by": datetime.now(UTC)})
        now -= 1
        return Advance(State.DELIVERING, "ready")

    jobs = [(await store.create(ask_for()))[0] for _ in range(30)]
    async with AsyncExitStack() as stack:
        for _ in range(3):
            script = Script({State.SUBMITTING: submit, State.ANALYSING: poll})
            engine = Engine(open_store(database_url), database_url, script, {"vendor": 2}, BRISK)
            await stack.enter_async_context(engine.working())
        for job in jobs:
            await reaches(store, job, State.DONE)
    assert most == 2


@pytest.mark.parametrize(
    "ending", [NeedsHuman("no"), Permanent("no"), Retryable("later", after=3600)], ids=lambda one: one.kind
)
async def test_a_failure_in_submitting_gives_the_place_back(store, open_store, database_url, ending):
    """And wakes the others, which sleep for longer than this test has patience."""
    first, _ = await store.create(ask_for())
    waiting = asyncio.Event()

    async def submit(job):
        if job.id == first.id:
            await waiting.wait()
            raise ending
        return Advance(State.ANALYSING, "sent")

    going, other = (
        Engine(
            open_store(database_url), database_url, Script({State.SUBMITTING: submit}), {"vendor": 1}, BRISK
        )
        for _ in range(2)
    )
    async with going.working():
        await until(lambda: _is_at_vendor(store, first))  # or the second might be there before it
        second, _ = await store.create(ask_for())
        await reaches(store, second, State.SUBMITTING)
        async with other.working():
            await asyncio.sleep(0.3)  # it has looked, found no place, and dozes
            stopping = asyncio.create_task(going.stop())  # takes no more itself
            await asyncio.sleep(0)
            waiting.set()
            await reaches(store, second, State.DONE)
            await stopping


async def _is_at_vendor(store, job):
    return (await store.get(job.id)).at_vendor


async def test_an_uncertain_failure_keeps_the_place_and_the_doubt(store, database_url):
    """Until the vendor was asked what arrived, a later failure, however certain, proves nothing."""
    job, _ = await store.create(ask_for())
    began = []

    async def submit(job):
        began.append(job.submit_began)
        await store.keep(job, submit_began=True)
        raise Retryable("broken off", uncertain=len(began) == 1)

    async with Engine(
        store, database_url, Script({State.SUBMITTING: submit}), {"vendor": 1}, BRISK
    ).working():
        held = await reaches(store, job, State.HELD)
    assert began == [False, True, True]
    assert held.submit_began


async def test_a_bug_while_sending_counts_as_uncertain(store, database_url):
    job, _ = await store.create(ask_for(patient_id="SECRET-NAME"))
    began = []

    async def submit(job):
        began.append(job.submit_began)
        await store.keep(job, submit_began=True)
        raise KeyError(job.patient_id)

    async with Engine(store, database_url, Script({State.SUBMITTING: submit}), {}, BRISK).working():
        held = await reaches(store, job, State.HELD)
    assert began == [False, True, True]
    assert "KeyError" in (held.error_message or "")
    told = [event for event in await store.events_of(job.id) if "places" in event.detail]
    assert any("submit" in place for place in told[0].detail["places"])
    assert "SECRET" not in str(told)


async def test_waiting_for_a_place_or_for_room_asks_the_database_nothing(store, database_url):
    """A job that is due but can't be taken must not be looked for all the time."""
    asked = 0

    def count(*_):
        nonlocal asked
        asked += 1

    hold = asyncio.Event()

    async def submit(job):
        await hold.wait()
        return Advance(State.ANALYSING, "sent")

    for limits, room in (({"vendor": 1}, 8), ({}, 1)):
        jobs = [(await store.create(ask_for()))[0] for _ in range(3)]
        script = Script(
            {State.SUBMITTING: submit, State.LOCATING: submit} if room == 1 else {State.SUBMITTING: submit}
        )
        hold.clear()
        engine = Engine(store, database_url, script, limits, replace(BRISK, room=room))
        async with engine.working():
            await until(partial(_any_waits, script, jobs))
            await asyncio.sleep(0.3)
            event.listen(AnyEngine, "before_cursor_execute", count)
            await asyncio.sleep(1.0)
            event.remove(AnyEngine, "before_cursor_execute", count)
            assert asked < 10
            for job in jobs:
                await store.cancel(job.id, "test")
            hold.set()
            for job in jobs:
                await reaches(store, job, State.CANCELLED)


async def _any_waits(script, jobs):
    return any(job.state in (State.SUBMITTING, State.LOCATING) for job in script.taken)


async def test_waiting_costs_no_attempt(store, database_url):
    job, _ = await store.create(ask_for())
    polls = 0

    async def poll(job):
        nonlocal polls
        polls += 1
        assert job.attempt == 1
        return Wait(after=0.01) if polls < 8 else Advance(State.DELIVERING, "ready")

    script = Script({State.ANALYSING: poll}, Retry(attempts=2))
    async with Engine(store, database_url, script, {}, BRISK).working():
        await reaches(store, job, State.DONE)
    assert polls == 8


@pytest.mark.parametrize("state", [State.LOCATING, State.SUBMITTING, State.DELIVERING])
async def test_a_peer_that_is_busy_is_waited_for_without_spending_the_budget(store, database_url, state):
    job, _ = await store.create(ask_for())
    tries = 0

    async def ask(job):
        nonlocal tries
        tries += 1
        if tries < 8:
            raise Busy("the quota is used up", "Ask for a larger one.", after=0.01)
        raise Retryable("broken", after=3600)

    script = Script({state: ask}, Retry(attempts=2, first="10ms", most="20ms"))
    async with Engine(store, database_url, script, {}, BRISK).working():

        async def broken():
            return (await store.get(job.id)).error_message == "broken"

        await until(broken)
    waits = await store.get(job.id)
    assert (waits.state, waits.attempt, waits.waits_why) == (state, 1, "broken"), "the whole budget is left"
    told = [event.detail.get("message") for event in await store.events_of(job.id)]
    assert told.count("the quota is used up") == 7


async def test_a_held_job_gives_its_place_back_and_takes_it_again(store):
    """The vendor has the study of the one that was resumed, whoever counts."""
    capacities = {"vendor": 1}
    job, _ = await store.create(ask_for())
    at_vendor = await bring(store, job, State.ANALYSING)
    assert at_vendor.at_vendor
    waiting, _ = await store.create(ask_for())
    await store.move(await bring(store, waiting, State.LOCATING), to=State.SUBMITTING)
    assert await store.claim(1, 1, 60, capacities) == []
    await store.move(at_vendor, to=State.HELD, after=None, held_in=State.ANALYSING.value)
    [claimed] = await store.claim(1, 1, 60, capacities)
    assert claimed.id == waiting.id
    await store.move(claimed)
    await store.move(
        *await store.claim(1, 1, 60, capacities), to=State.HELD, after=None, held_in="submitting"
    )
    await store.resume(job.id, "me")
    [resumed] = await store.claim(1, 1, 60, capacities)
    assert resumed.id == job.id and resumed.at_vendor
    await store.resume(waiting.id, "me")
    assert await store.claim(1, 1, 60, capacities) == []


async def test_a_spent_budget_holds_the_job_and_says_why(store, database_url):
    job, _ = await store.create(ask_for())
    tries = []

    async def locate(job):
        tries.append(job.attempt)
        raise Retryable("the archive doesn't answer", "Look at the archive.")

    async with Engine(store, database_url, Script({State.LOCATING: locate}), {}, BRISK).working():
        held = await reaches(store, job, State.HELD)
        assert tries == [1, 2, 3]
        assert held.held_in == State.LOCATING
        assert (held.error_message, held.error_advice) == (
            "the archive doesn't answer",
            "Look at the archive.",
        )


@pytest.mark.parametrize("failure", [Retryable, NeedsHuman, Permanent])
async def test_what_became_of_a_job_is_told_without_a_budget(store, database_url, failure):
    """Slower and slower; its history isn't filled with the tries."""
    job, _ = await store.create(ask_for())
    tries = []

    async def fail(job):
        raise Permanent("too large")

    async def tell(job):
        tries.append(job)
        if len(tries) < 9:
            raise failure("Sectra doesn't answer")
        return Rest("said so")

    script = Script({State.LOCATING: fail, State.FAILED: tell}, Retry(attempts=2, first="1ms", most="1ms"))
    async with Engine(store, database_url, script, {}, BRISK).working():

        async def told():
            return (await store.get(job.id)).next_at is None

        await until(told)
    assert {(each.state, each.error_message) for each in tries} == {(State.FAILED, "too large")}
    assert len({each.updated_at for each in tries}) == 1
    said = [event.what for event in await store.events_of(job.id)]
    assert said.count("the slide couldn't be told yet") == 2
    assert said[-1] == "said so"


async def test_retry_after_is_honoured_and_backoff_grows_up_to_its_most(store, database_url):
    """Judged by when the job is due, not by a clock of the test."""
    job, _ = await store.create(ask_for())
    policy = Retry(attempts=9, first="100s", most="300s")
    asked_after = {1: None, 2: 5000.0}

    async def locate(job):
        raise Retryable("busy", after=asked_after.get(job.attempt))

    engine = Engine(store, database_url, Script({State.LOCATING: locate}, policy), {}, BRISK)
    pauses = []
    async with engine.working():
        for attempt in range(1, 7):
            waits = await until_attempt(store, job, attempt)
            pauses.append((waits.next_at - waits.updated_at) / timedelta(seconds=1))
            with psycopg.connect(database_url, autocommit=True) as connection:
                connection.execute("UPDATE jobs SET next_at = now()")
                connection.execute("NOTIFY gateway_jobs")
    assert 50 <= pauses[0] <= 100
    assert pauses[1] == 5000
    assert all(150 <= pause <= 300 for pause in pauses[2:])
    assert len(set(pauses)) == len(pauses)


async def until_attempt(store, job, attempt):
    found = None

    async def there():
        nonlocal found
        found = await store.get(job.id)
        return found.state == State.LOCATING and found.attempt == attempt and found.lease_holder is None

    await until(there)
    return found


async def test_every_state_leads_on_or_ends(store, database_url):
    job, _ = await store.create(ask_for())
    async with Engine(store, database_url, Script(), {}, BRISK).working():
        done = await reaches(store, job, *FINAL)
    assert done.next_at is None
    assert list(WAY) == list(WORKING)


async def test_a_stopped_engine_hands_its_jobs_back_unspent(store, open_store, database_url):
    job, _ = await store.create(ask_for())
    begun = asyncio.Event()

    async def locate(job):
        begun.set()
        await asyncio.sleep(3600)

    pace = replace(BRISK, grace=0.05)
    async with Engine(store, database_url, Script({State.LOCATING: locate}), {}, pace).working():
        await asyncio.wait_for(begun.wait(), 20)
    back = await store.get(job.id)
    assert (back.state, back.lease_holder, back.attempt) == (State.LOCATING, None, 0)
    async with Engine(open_store(database_url), database_url, Script(), {}, BRISK).working():
        await reaches(store, job, State.DONE)


async def test_a_broken_loop_begins_again(store, database_url):
    """Not only a lost database: whatever breaks it, the engine goes on."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        engine = Engine(store, database_url, Script(), {"vendor": "none"}, BRISK)  # type: ignore[dict-item]
        job, _ = await store.create(ask_for())
        async with engine.working():
            await asyncio.sleep(0.2)
            assert (await store.get(job.id)).state == State.RECEIVED
            engine._capacities.clear()
            connection.execute("NOTIFY gateway_jobs, 'no job''s number'")
            await reaches(store, job, State.DONE)


async def test_a_moment_that_is_past_by_our_clock_is_waited_for_a_second_by_the_databases(store):
    """Clocks differ: a job that is due when somebody's says so must not be taken up time after time."""
    job, _ = await store.create(ask_for())
    at = await bring(store, job, State.LOCATING)
    waits = await store.move(at, at=datetime.now(UTC) - timedelta(seconds=3), what="closed")
    assert waits.next_at - waits.updated_at == timedelta(seconds=1)
    another, _ = await store.create(ask_for())
    at = await bring(store, another, State.LOCATING)
    waits = await store.move(at, at=datetime.now(UTC) + timedelta(hours=1))
    assert timedelta(minutes=59) < waits.next_at - waits.updated_at <= timedelta(hours=1)


async def test_vendors_that_hang_leave_room_for_the_others_and_routine_for_the_urgent(store, database_url):
    hang = asyncio.Event()

    async def locate(job):
        if job.adapter != "well" and job.priority < 9:
            await hang.wait()
        return Advance(State.SUBMITTING, "found")

    for vendor in ("hangs", "hangs too"):
        for _ in range(12):
            await store.create(ask_for(adapter=vendor))
    script = Script({State.LOCATING: locate})
    pace = replace(BRISK, room=8)
    async with Engine(store, database_url, script, {}, pace, vendors=3).working():
        await until(partial(_any_waits, script, []))
        well, _ = await store.create(ask_for(adapter="well"))
        await reaches(store, well, State.DONE)
        urgent, _ = await store.create(ask_for(adapter="hangs", priority=9))
        await reaches(store, urgent, State.DONE)
        hang.set()


async def test_a_lowered_limit_counts_those_that_are_at_the_vendor(store):
    made = [(await store.create(ask_for()))[0] for _ in range(5)]
    for at in await store.claim(1, 5, 60, {}):
        await store.move(at, to=State.LOCATING)
    for at in await store.claim(1, 5, 60, {}):
        await store.move(at, to=State.SUBMITTING)
    assert (await store.get(made[0].id)).state == State.SUBMITTING
    there = await store.claim(1, 3, 60, {"vendor": 3})
    assert len(there) == 3
    assert await store.claim(1, 5, 60, {"vendor": 2}) == []
    await store.move(there[0], to=State.HELD, after=None, held_in="submitting")
    assert await store.claim(1, 5, 60, {"vendor": 2}) == []
    await store.move(there[1], to=State.HELD, after=None, held_in="submitting")
    assert len(await store.claim(1, 5, 60, {"vendor": 2})) == 1


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(some.lists(some.tuples(some.integers(1, 4), some.integers(0, 3), some.integers(0, 2)), max_size=8))
async def test_whatever_becomes_of_a_limit_no_claim_goes_beyond_it(store, database_url, course):
    """`course`: the limit as it is from then on, how many more come, and how many are done at the vendor."""
    adapter = f"vendor-{uuid4()}"
    there: list[Any] = []
    for limit, more, done in course:
        for _ in range(more):
            job, _ = await store.create(ask_for(adapter=adapter))
            await store.move(await bring(store, job, State.LOCATING), to=State.SUBMITTING, after=3600)
        for job in there[:done]:
            await store.move(job, to=State.FAILED, after=None)
        there = there[done:]
        _put_off_those_that_wait(database_url, adapter, hours=0)
        claimed = await store.claim(1, 10, 3600, {adapter: limit})
        _put_off_those_that_wait(database_url, adapter, hours=1)
        assert not claimed or len(there) + len(claimed) <= limit
        there += claimed
        known = await store.find(Filter(adapter=[adapter], state=[State.SUBMITTING]))
        assert len(there) >= min(limit, len(known)), "a place that is free is taken"


def _put_off_those_that_wait(database_url, adapter, *, hours):
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "UPDATE jobs SET next_at = now() + %s * interval '1 h'"
            " WHERE adapter = %s AND state = 'submitting' AND lease_holder IS NULL",
            [hours, adapter],
        )
