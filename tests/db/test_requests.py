"""What a person can do in each state: resume, retry, cancel."""

from __future__ import annotations

import psycopg
import pytest

from gateway.jobs.chain import find_break, find_edit
from gateway.jobs.engine import Engine
from gateway.jobs.records import InstanceRecord
from gateway.jobs.states import ALIVE, FINAL, WORKING, State
from gateway.jobs.store import DatabaseError, Refused, batches
from gateway.jobs.store.reading import Filter
from tests.db.crew import BRISK, Script, ask_for, bring, reaches
from tests.db.test_tables import rows


async def in_state(store, state, held_in=State.SUBMITTING, choices=()):
    """A job that nobody works on."""
    job, _ = await store.create(ask_for())
    if state in WORKING:
        return await store.move(await bring(store, job, state), after=3600)
    if state == State.DONE:
        return await store.move(await bring(store, job, State.DELIVERING), to=state, after=None)
    at = await bring(store, job, held_in)
    why = {"held_in": held_in.value, "detail": {"choices": list(choices)}} if state == State.HELD else {}
    return await store.move(at, to=state, after=None, **why)


@pytest.mark.parametrize("state", State)
async def test_cancel(store, state):
    job = await in_state(store, state)
    if state in FINAL:
        with pytest.raises(Refused, match=f"the job is {state}"):
            await store.cancel(job.id, "me")
        return
    cancelled = await store.cancel(job.id, "me")
    assert (cancelled.state, cancelled.held_in, cancelled.at_vendor) == (State.CANCELLED, None, False)
    assert dict((await store.events_of(job.id))[-1].detail) == {"by": "me"}


@pytest.mark.parametrize("state", State)
async def test_resume(store, state):
    job = await in_state(store, state)
    if state != State.HELD:
        with pytest.raises(Refused, match="only a held job can be resumed"):
            await store.resume(job.id, "me")
        return
    assert (await store.resume(job.id, "me")).state == State.SUBMITTING
    with pytest.raises(Refused):
        await store.resume(job.id, "me")


@pytest.mark.parametrize("held_in", WORKING)
async def test_a_held_job_resumes_where_it_was_and_goes_on_to_the_end(store, database_url, held_in):
    job = await in_state(store, State.HELD, held_in)
    resumed = await store.resume(job.id, "me")
    assert (resumed.state, resumed.held_in, resumed.attempt) == (held_in, None, 0)
    async with Engine(store, database_url, Script(), {"vendor": 1}, BRISK).working():
        await reaches(store, job, State.DONE)
    assert find_break(job.id, await store.events_of(job.id)) is None


async def test_a_study_is_chosen_only_while_it_is_looked_for(store):
    early, late = [
        await in_state(store, State.HELD, at, ["1.2.3", "1.2.4"]) for at in (State.LOCATING, State.ANALYSING)
    ]
    with pytest.raises(Refused, match="doesn't offer that study"):
        await store.resume(early.id, "me", study_instance_uid="1.2.5")
    assert (await store.resume(early.id, "me", study_instance_uid="1.2.3")).study_instance_uid == "1.2.3"
    with pytest.raises(Refused, match="past the choice of a study"):
        await store.resume(late.id, "me", study_instance_uid="1.2.3")
    assert (await store.get(late.id)).state == State.HELD


async def test_a_choice_offered_before_is_none_any_more(store):
    job = await in_state(store, State.HELD, State.LOCATING, ["1.2.3", "1.2.4"])
    await store.resume(job.id, "me")
    [claimed] = await store.claim(1, 1, 60, {})
    await store.move(claimed, to=State.HELD, after=None, held_in=State.LOCATING.value, detail={})
    with pytest.raises(Refused, match="doesn't offer that study"):
        await store.resume(job.id, "me", study_instance_uid="1.2.3")


@pytest.mark.parametrize(("act", "acted"), [("resume", 1), ("retry", 7), ("cancel", 6)])
async def test_all_that_match_are_acted_on_if_they_are_as_many_as_were_seen(store, database_url, act, acted):
    for state in State:
        await in_state(store, state)
    await store.create(ask_for(application="another"))
    wanted = Filter(application=["a"])
    assert await store.count_for(act, wanted) == acted
    for seen in (acted - 1, acted + 1):
        with pytest.raises(Refused, match=rf"{acted} jobs? match(es)? now, not {seen}"):
            await store.act_on_all(act, wanted, "me", seen)
    assert rows(database_url, "SELECT count(*) FROM audit") == [(0,)]
    few = Filter(application=["a"], id=[job.id for job in await store.find(wanted, limit=99)])
    left = await store.count_left(act, few)
    assert sum(left.values()) == len(State) - acted and set(left) <= {str(state) for state in State}
    assert await store.count_left(act, wanted) == {
        why: count for why, count in left.items() if why not in ("done", "failed", "cancelled")
    }
    did = await store.act_on_all(act, wanted, "me", acted)
    assert (len(did.done), did.passed_over) == (acted, {})
    if act == "retry":
        assert did.tell(act) == "7 jobs retried"
        assert batches.tell_left(left) == "1 cancelled; 1 done"
    assert rows(database_url, "SELECT who, what, count(*) FROM audit GROUP BY 1, 2") == [("me", act, acted)]
    for job in did.done:
        assert dict((await store.events_of(job.id))[-1].detail) == {"by": "me", "one_of": acted}


async def test_many_are_acted_on_in_batches_and_who_has_moved_on_is_passed_over(
    store, database_url, monkeypatch
):
    monkeypatch.setattr(batches, "BATCH", 2)
    failed = [await in_state(store, State.FAILED) for _ in range(4)]
    the_same = {"slide_id": "s", "server": "main", "joinable": True, "callback_token": "t"}
    ended, _ = await store.create(ask_for(**the_same))
    await store.move(await bring(store, ended, State.LOCATING), to=State.FAILED, after=None)
    twin, fresh = await store.create(ask_for(**the_same))
    assert fresh and twin.id != ended.id
    did = await store.act_on_all("retry", Filter(state=["failed"]), "me", 5)
    assert {job.id for job in did.done} == {job.id for job in failed}
    assert list(did.passed_over) == [ended.id] and "another job" in did.passed_over[ended.id]
    assert did.tell("retry") == "4 jobs retried, 1 not: 1 another job is already at work on the same as it"
    assert rows(database_url, "SELECT count(*) FROM audit WHERE what = 'retry'") == [(4,)]
    for job in did.done:
        assert find_break(job.id, await store.events_of(job.id)) is None


@pytest.mark.parametrize("state", State)
async def test_retry(store, state):
    job = await in_state(store, state)
    if state == State.DONE:
        assert (await store.retry(job.id, "me")).id != job.id, "it stays what it is"
        return
    again = await store.retry(job.id, "me")
    expected = State.RECEIVED if state in FINAL else State.SUBMITTING if state == State.HELD else state
    assert again.state == expected
    [claimed] = await store.claim(1, 1, 60, {})
    assert (claimed.id, claimed.attempt) == (job.id, 1)
    with pytest.raises(Refused, match="being worked on"):
        await store.retry(job.id, "me")


async def test_what_failed_begins_again_with_nothing_of_before(store):
    job, _ = await store.create(ask_for())
    at = await bring(store, job, State.SUBMITTING)
    await store.promise(at, [InstanceRecord("1.1", "1")])
    await store.plan_deliveries(at, ["vna"])
    at = await store.keep(at, submit_began=True, sent=1, ticket={"reference": "r"}, result={"summary": "s"})
    await store.move(at, to=State.FAILED, after=None)
    again = await store.retry(job.id, "me")
    assert (again.submit_began, again.sent, again.ticket, again.result) == (False, None, None, None)
    assert await store.instances_of(job.id) == []
    assert await store.deliveries_of(job.id) == []


async def test_what_is_done_is_asked_for_again_as_another_job(store, database_url):
    on_a_slide = {"slide_id": "s", "server": "main", "joinable": True, "callback_token": "t", "priority": 7}
    job, _ = await store.create(ask_for(**on_a_slide, study_instance_uid="1.2.3", patient_id="p"))
    await store.accept_callback(job)
    await store.move(await bring(store, job, State.DELIVERING), to=State.DONE, after=None)
    again = await store.retry(job.id, "me")
    assert (again.state, again.study_instance_uid, again.patient_id) == (State.RECEIVED, "1.2.3", "p")
    assert (again.slide_id, again.callback_token, again.callback_accepted) == ("s", "t", True)
    assert (again.priority, again.submit_began, again.sent) == (7, False, None)
    assert (await store.get(job.id)).state == State.DONE
    first, last = (await store.events_of(again.id))[0], (await store.events_of(job.id))[-1]
    assert (first.detail["of"], last.detail["as"]) == (str(job.id), str(again.id))
    for each in (job, again):
        events = await store.events_of(each.id)
        assert find_break(each.id, events) is None and find_edit(await store.get(each.id), events) is None
    with pytest.raises(Refused, match=f"job {again.id} is already at work on the same"):
        await store.retry(job.id, "me")
    twin, fresh = await store.create(ask_for(**on_a_slide))
    assert (twin.id, fresh) == (again.id, False), "who asks for the same joins it"
    audited = rows(database_url, "SELECT what, job_id FROM audit WHERE who = 'me'")
    assert audited == [("retry", job.id)]


@pytest.mark.parametrize("wish", ["resume", "retry"])
async def test_deliveries_that_were_given_up_are_due_again(store, wish):
    job, _ = await store.create(ask_for())
    at = await bring(store, job, State.DELIVERING)
    await store.plan_deliveries(at, ["done", "given up", "waits"])
    await store.record_delivery(at, "done", "done", "ok", stored=1)
    await store.record_delivery(at, "given up", "held", "no", error="refused")
    await store.record_delivery(at, "waits", "pending", "later", after=3600)
    assert [delivery.is_due for delivery in await store.deliveries_of(job.id)] == [True, True, False]
    await store.move(at, to=State.HELD, held_in=at.state.value)
    await getattr(store, wish)(job.id, "me")
    found = {delivery.destination: delivery for delivery in await store.deliveries_of(job.id)}
    assert (found["done"].state, found["done"].attempts) == ("done", 1)
    assert (found["given up"].state, found["given up"].attempts) == ("pending", 0)
    assert found["given up"].is_due
    assert found["waits"].is_due


async def test_what_cannot_be_audited_is_not_done(store, database_url):
    """Who hears that nothing was accepted asks again: then nothing may have been."""
    held, failed = await in_state(store, State.HELD), await in_state(store, State.FAILED)
    asked = ask_for(caller="ris", idempotency_key="k")
    acts = {
        "resume": lambda: store.resume(held.id, "me"),
        "cancel": lambda: store.cancel(held.id, "me"),
        "retry": lambda: store.retry(failed.id, "me"),
        "job asked for": lambda: store.create(asked),
    }
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("ALTER TABLE audit ADD CONSTRAINT none CHECK (false) NOT VALID")
        for act in acts.values():
            with pytest.raises(DatabaseError):
                await act()
        states = connection.execute("SELECT state FROM jobs ORDER BY state").fetchall()
        assert states == [("failed",), ("held",)]
        connection.execute("ALTER TABLE audit DROP CONSTRAINT none")
        await store.create(asked)
        await store.create(asked)
        await store.create(ask_for(caller="ris", idempotency_key="k", study_instance_uid="another"))
        for what in ("resume", "cancel", "retry"):
            await acts[what]()
        told = connection.execute("SELECT what FROM audit ORDER BY what").fetchall()
    assert told == [("cancel",), ("job asked for",), ("job asked for",), ("resume",), ("retry",)]


def test_every_state_is_met():
    assert {*ALIVE, *FINAL} == set(State)
