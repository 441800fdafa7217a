"""The same thing asked for several times is done once, and ends when the last one withdraws."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

import psycopg
import pytest

from gateway.jobs.chain import find_break
from gateway.jobs.engine import Engine
from gateway.jobs.records import Joining, Origin
from gateway.jobs.states import WORKING, State
from gateway.jobs.store import Refused, Superseded
from tests.db.crew import BRISK, Script, ask_for, bring, reaches


def invocation(token=None, slide="s1", origin=Origin.SECTRA, **given):
    return ask_for(
        origin=origin,
        slide_id=slide,
        server="main",
        callback_url="https://pacs/",
        callback_token=f"secret of {token}",
        cancellation_token=token,
        input={"type": "wholeSlide"},
        joinable=True,
        **given,
    )


async def invoke(store, new):
    """As Sectra does, whose token is let in."""
    accepted = await store.accept(new)
    if (who := accepted.joining) is None:
        return accepted.job, True
    while isinstance(joined := await store.join(who, let_in=True), Joining):
        who = joined
    return joined, joined.id != who.job


async def test_thirty_invocations_at_once_are_one_job_with_thirty_rights_to_cancel(open_store, database_url):
    stores = [open_store(database_url) for _ in range(3)]
    tokens = [f"token-{n}" for n in range(30)]
    made = await asyncio.gather(*(invoke(stores[n % 3], invocation(token)) for n, token in enumerate(tokens)))
    assert len({job.id for job, _ in made}) == 1
    assert sum(fresh for _, fresh in made) == 1
    store, job_id = stores[0], made[0][0].id
    assert sorted((await store.get(job_id)).cancellation_tokens) == sorted(tokens)
    assert find_break(job_id, await store.events_of(job_id)) is None

    left = await asyncio.gather(
        *(stores[n % 3].cancel_by_token("a", token) for n, token in enumerate(tokens[1:]))
    )
    assert all(job.state == State.RECEIVED for job in left)
    assert await store.cancel_by_token("a", tokens[5]) is None
    assert await store.cancel_by_token("another application", tokens[0]) is None
    assert (await store.cancel_by_token("a", tokens[0])).state == State.CANCELLED
    assert await store.cancel_by_token("a", tokens[0]) is None


async def test_a_notification_cannot_be_withdrawn_by_a_users_cancel(store):
    await invoke(store, invocation(None))
    job, fresh = await invoke(store, invocation("user"))
    assert not fresh
    assert (await store.cancel_by_token("a", "user")).state == State.RECEIVED
    assert (await store.get(job.id)).state == State.RECEIVED


async def test_who_joins_while_nothing_is_delivered_is_told_so(store):
    """The vendor of a notified job left the slide alone, and nobody was waiting for it."""
    job, _ = await invoke(store, invocation(origin=Origin.NOTIFICATION))
    claimed = await bring(store, job, State.DELIVERING)
    await store.plan_deliveries(claimed, ["sectra", "vna"])
    await store.record_delivery(claimed, "sectra", "done", "left alone")
    await store.record_delivery(claimed, "vna", "done", "stored", reference="1.2.3", stored=1)
    await invoke(store, invocation("token", origin=Origin.NOTIFICATION))
    assert {each.state for each in await store.deliveries_of(job.id)} == {"done"}
    await invoke(store, invocation("token"))
    states = {each.destination: each.state for each in await store.deliveries_of(job.id)}
    assert states == {"sectra": "pending", "vna": "done"}


@pytest.mark.parametrize("state", WORKING)
async def test_a_user_makes_it_his_job_and_nobody_else_may_end_it_in_silence(store, state):
    made, _ = await invoke(store, invocation(origin=Origin.NOTIFICATION))
    working = await bring(store, made, state)
    await store.keep(working, result_by=datetime(2026, 1, 1, tzinfo=UTC))
    again, _ = await invoke(store, invocation("another", origin=Origin.NOTIFICATION))
    assert (again.origin, again.fence) == (Origin.NOTIFICATION, working.fence)
    joined, fresh = await invoke(store, invocation("user", context={"of": "his"}))
    assert (joined.id, fresh, joined.state) == (made.id, False, state)
    assert (joined.origin, joined.context, joined.result_by) == (Origin.SECTRA, {"of": "his"}, None)
    ignore = store.move(working, to=State.CANCELLED, what="ignored")
    if state == State.SUBMITTING:
        await ignore  # a vendor that is just being called isn't called twice; the step itself looks again
    else:
        with pytest.raises(Superseded):
            await ignore
        [taken] = await store.claim(8, 1, 60, {})
        assert (taken.id, taken.origin) == (made.id, Origin.SECTRA)


@pytest.mark.parametrize("kind", ["retryable", "needs_human"])
async def test_asked_for_again_a_job_goes_on_if_it_was_held_for_a_passing_cause(store, kind):
    made, _ = await invoke(store, invocation("a"))
    working = await bring(store, made, State.SUBMITTING)
    error = {"error_kind": kind, "error_message": "why"}
    await store.move(working, to=State.HELD, after=None, held_in="submitting", **error)
    await invoke(store, invocation("n", origin=Origin.NOTIFICATION))
    assert (await store.get(made.id)).state == State.HELD
    joined, _ = await invoke(store, invocation("b"))
    assert joined.id == made.id
    if kind == "retryable":
        assert (joined.state, joined.error_message) == (State.SUBMITTING, None)
        return
    assert (joined.state, joined.error_message) == (State.HELD, "why")
    assert (await store.cancel_by_token("a", "b")).state == State.CANCELLED


async def test_the_newest_invocation_gives_token_and_urgency(store):
    await invoke(store, invocation("old", priority=7))
    job, _ = await invoke(store, invocation("new", priority=2))
    job = await store.get(job.id)
    assert (job.callback_token, job.priority) == ("secret of new", 7)


async def test_another_slide_or_input_or_a_job_that_has_ended_is_a_new_one(store, database_url):
    first, _ = await invoke(store, invocation("a"))
    other, fresh = await invoke(store, invocation("a", slide="s2"))
    assert fresh
    async with Engine(store, database_url, Script(), {}, BRISK).working():
        await reaches(store, first, State.DONE)
        await reaches(store, other, State.DONE)
    again, fresh = await invoke(store, invocation("b"))
    assert fresh
    assert again.id != first.id


async def test_jobs_are_joined_and_created_while_others_end(store, open_store, database_url):
    """No invocation is lost between a job's end and the next one's beginning."""
    stores = [open_store(database_url) for _ in range(2)]

    async def ask(own, n):
        seen = []
        for turn in range(15):
            job, _ = await invoke(own, invocation(f"{n}-{turn}"))
            seen.append(job)
            await asyncio.sleep(0)
        return seen

    async with Engine(store, database_url, Script(), {}, BRISK).working():
        rounds = await asyncio.gather(*(ask(stores[n % 2], n) for n in range(4)))
        for job in {job.id: job for seen in rounds for job in seen}.values():
            await reaches(store, job, State.DONE)


async def test_an_idempotency_key_gives_one_job_however_many_ask(open_store, database_url):
    stores = [open_store(database_url) for _ in range(3)]
    new = ask_for(caller="ris", idempotency_key="k", study_instance_uid="1.2", patient_id="P1")
    made = await asyncio.gather(*(stores[n % 3].create(new) for n in range(30)))
    assert len({job.id for job, _ in made}) == 1
    assert sum(fresh for _, fresh in made) == 1
    job = made[0][0]
    assert all(new.asks_for_the_same(job) for job, _ in made)
    other = ask_for(caller="ris", idempotency_key="k", study_instance_uid="1.2", patient_id="P2")
    assert not other.asks_for_the_same(job)
    others, fresh = await stores[0].create(ask_for(caller="pacs", idempotency_key="k"))
    assert fresh
    assert others.id != job.id


async def test_a_job_that_began_again_elsewhere_is_not_reopened(store):
    first, _ = await invoke(store, invocation("a"))
    await store.cancel(first.id, "test")
    second, _ = await invoke(store, invocation("b"))
    with pytest.raises(Refused):
        await store.retry(first.id, "test")
    claimed = await store.claim(1, 9, 60, {})
    assert {job.id for job in claimed} == {first.id, second.id}  # one to tell, one to work on
    await store.cancel(second.id, "test")
    results = await asyncio.gather(
        store.retry(first.id, "test"), store.retry(second.id, "test"), return_exceptions=True
    )
    assert [type(answer) for answer in results].count(Refused) == 1


async def test_those_who_ask_at_once_are_committed_together_and_one_that_cant_be_hinders_none(
    store, database_url
):
    asked = [ask_for(server="main", slide_id=f"s{n}") for n in range(40)]
    asked[7] = replace(asked[7], priority=10**6)  # no column holds it
    said = await asyncio.gather(*(store.accept(new, first_for=9) for new in asked[8:]))
    with psycopg.connect(database_url) as connection:
        counted = connection.execute("SELECT count(DISTINCT transaction) FROM job_events").fetchone()
    assert counted == (1,)
    assert all(each.fresh for each in said)
    for each, new in zip(said, asked[8:], strict=True):
        assert await store.get(each.job.id) == each.job
        assert each.job.slide_id == new.slide_id
        assert find_break(each.job.id, await store.events_of(each.job.id)) is None
    mixed = await asyncio.gather(*(store.accept(new) for new in asked[:8]), return_exceptions=True)
    assert [isinstance(each, Exception) for each in mixed] == [False] * 7 + [True]


async def test_of_those_who_ask_at_once_for_the_same_area_one_is_the_first_there(store):
    """Two ways of writing the same outline: two jobs, and one place on the slide."""
    points = [{"x": 0.1, "y": 0.1}, {"x": 0.2, "y": 0.1}, {"x": 0.1, "y": 0.2}]
    drawn = {"type": "taggedPolygon", "content": {"polygon": {"points": points}}}
    again = {"type": "taggedPolygon", "content": {"polygon": {"points": points}, "tags": []}}
    asked = [replace(invocation(str(n)), input=drawn if n < 3 else again) for n in range(4)]
    said = await asyncio.gather(*(store.accept(new, first_for=9) for new in asked))
    assert sum(each.fresh for each in said) == 2
    assert sum(each.first for each in said) == 1
    assert said[3].fresh
