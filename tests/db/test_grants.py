"""Whose token is good for what, and whom a user's change reaches."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import psycopg
import pytest

from gateway.jobs.cipher import Cipher
from gateway.jobs.records import Job
from gateway.jobs.states import State
from gateway.jobs.store import Store
from gateway.jobs.store.grants import ChangedResult
from gateway.jobs.store.rivals import Turn
from tests.db.crew import WAY, ask_for, bring

CALLBACK = {"callback_url": "https://b/", "callback_token": "of B"}


async def analysed(store: Store, server: str, result_id: int, **given: Any) -> tuple[Job, str]:
    """A job of a vendor that calls back, which has stored one result."""
    job, _ = await store.create(
        ask_for(
            origin="sectra",
            slide_id="7",
            server=server,
            callback_url=f"https://{server}/",
            callback_token=f"of {server}",
            joinable=True,
            **given,
        )
    )
    job = await bring(store, job, State.ANALYSING)
    callback = await store.open_grant(job, "https://gateway/adapters/vendor", fresh=True)
    await store.remember_said(job.id, {"id": result_id}, {str(result_id): "1"})
    return job, callback.token


async def finish(store: Store, job: Job) -> None:
    while job.state != State.DONE:
        to = WAY[job.state]
        await store.move(job, to=to, after=None if to == State.DONE else 0.0)
        if to != State.DONE:
            [job] = await store.claim(7, 1, 60, {})
        else:
            return


async def test_a_change_on_another_server_reaches_nobody(store: Store) -> None:
    """Both have a slide 7, of different patients, and each a result 5."""
    job, _ = await analysed(store, "a", 5)
    assert await store.reopen_grant(ChangedResult("b", "a", "7", 5), 60, CALLBACK, "told") is None
    untouched = await store.get(job.id)
    assert untouched is not None
    assert (untouched.server, untouched.callback_url, untouched.callback_token) == ("a", "https://a/", "of a")
    found = await store.reopen_grant(ChangedResult("a", "a", "7", 5), 60, CALLBACK, "told")
    assert found is not None
    assert (found[0].id, found[0].server, found[0].callback_token) == (job.id, "a", "of B")


async def test_a_change_reaches_the_vendor_of_that_result(store: Store) -> None:
    polygon = {"points": [{"x": 0, "y": 0}, {"x": 0, "y": 0.5}, {"x": 0.5, "y": 0}]}
    area = {"type": "taggedPolygon", "content": {"polygon": polygon}}
    first, _ = await analysed(store, "a", 5)
    second, _ = await analysed(store, "a", 6, input=area)
    for result_id, job in ((5, first), (6, second)):
        found = await store.reopen_grant(ChangedResult("a", "a", "7", result_id), 60, {}, "told")
        assert found is not None
        assert found[0].id == job.id
    assert await store.reopen_grant(ChangedResult("a", "a", "7", 8), 60, {}, "told") is None


@pytest.mark.parametrize("ended", ["done", "cancelled"])
async def test_only_a_job_that_is_done_is_opened_again(store: Store, ended: str) -> None:
    job, token = await analysed(store, "a", 5)
    if ended == "cancelled":
        await store.cancel(job.id, "user")
    else:
        await finish(store, job)
    reopened = await store.reopen_grant(ChangedResult("a", "a", "7", 5), 60, {}, "told")
    assert (reopened is not None) == (ended == "done")
    given = await store.begin_call("vendor", token, "files")
    assert given is not None
    assert given.reach == ("all" if ended == "done" else "nothing")


async def test_a_token_whose_job_has_ended_fills_no_table(store: Store, database_url: str) -> None:
    job, token = await analysed(store, "a", 5)
    await store.begin_call("vendor", token, "files")
    await store.cancel(job.id, "user")
    events = await store.events_of(job.id)
    for _ in range(20):
        given = await store.begin_call("vendor", token, "files")
        assert given is not None and given.reach == "nothing"
    with psycopg.connect(database_url) as connection:
        calls = connection.execute(
            "SELECT count(*) FROM vendor_calls WHERE job_id = %s", (job.id,)
        ).fetchone()
    assert calls == (1,)
    assert await store.events_of(job.id) == events


async def called(store: Store) -> tuple[Job, str]:
    """A job of which the vendor has been called, and may run with that token."""
    job, _ = await store.create(
        ask_for(origin="sectra", slide_id="7", server="a", callback_url="https://a/", callback_token="A")
    )
    job = await bring(store, job, State.SUBMITTING)
    return job, (await store.open_grant(job, "https://gateway/adapters/vendor", fresh=True)).token


async def call_again(store: Store, job: Job) -> str | None:
    callback = await store.open_another_grant(job, "https://gateway/adapters/vendor")
    return None if callback is None else callback.token


async def may_write(store: Store, token: str) -> bool:
    given = await store.begin_call("vendor", token, "a new result")
    assert given is not None
    if given.reach != "all" or await store.hear(given.job, given.token_sha256) is not Turn.FIRST:
        return False
    await store.settle(given.job, given.token_sha256, taken=True)
    return True


@pytest.mark.parametrize("first", [0, 1, 2])
async def test_of_several_calls_the_first_that_writes_counts(store: Store, first: int) -> None:
    job, token = await called(store)
    tokens = [token, *[await call_again(store, job) or "" for _ in range(2)]]
    assert len(set(tokens)) == 3
    for each in tokens:  # until one writes all may read
        given = await store.begin_call("vendor", each, "slide info")
        assert given is not None and given.reach == "all"
    assert await may_write(store, tokens[first])
    assert await may_write(store, tokens[first])
    for each in tokens[:first] + tokens[first + 1 :]:
        assert not await may_write(store, each)
        given = await store.begin_call("vendor", each, "slide info")
        assert given is not None and (given.reach, given.outrun) == ("nothing", True)
    # The one that is told of a user's change is the one that counted.
    assert (await store.open_grant(job, "https://g", fresh=False)).token == tokens[first]
    assert await call_again(store, job) is None
    whats = [event.what for event in await store.events_of(job.id)]
    assert sum("was heard first: the others' tokens" in what for what in whats) == 1
    assert sum("whose token has ended" in what for what in whats) == 2  # once of each, however often it tries


async def test_of_those_that_write_at_once_one_counts(
    store: Store, database_url: str, secret_key: str
) -> None:
    """Each at a replica of its own; both had begun before either wrote."""
    another = Store(database_url, Cipher([secret_key]))
    try:
        job, token = await called(store)
        tokens = [token, *[await call_again(store, job) or "" for _ in range(7)]]
        given = [await store.begin_call("vendor", each, "a new result") for each in tokens]
        heard = await asyncio.gather(
            *(
                each.hear(job, one.token_sha256)
                for each, one in zip((store, another) * 4, given, strict=True)
                if one is not None
            )
        )
        assert heard.count(Turn.FIRST) == 1
        assert heard.count(Turn.LATER) == 7
    finally:
        await another.close()


async def turn_of(store: Store, token: str) -> Turn:
    given = await store.begin_call("vendor", token, "a new result")
    assert given is not None
    return Turn.NEVER if given.outrun else await store.hear(given.job, given.token_sha256)


async def test_after_a_first_write_that_was_not_taken_another_may(store: Store) -> None:
    job, token = await called(store)
    second = await call_again(store, job) or ""
    digests = [hashlib.sha256(each.encode()).hexdigest() for each in (token, second)]
    assert await turn_of(store, token) is Turn.FIRST
    assert await turn_of(store, second) is Turn.LATER
    await store.settle(job, digests[1], taken=False)
    assert await turn_of(store, second) is Turn.LATER, "whoever hasn't written settles nothing"
    await store.settle(job, digests[0], taken=False)
    assert await turn_of(store, second) is Turn.FIRST
    assert await turn_of(store, token) is Turn.LATER
    await store.settle(job, digests[1], taken=True)
    assert await turn_of(store, token) is Turn.NEVER
    await store.settle(job, digests[1], taken=False)
    assert await turn_of(store, token) is Turn.NEVER, "what was taken once isn't given back"
    assert (await store.open_grant(job, "https://g", fresh=False)).token == second
    assert "what the vendor wrote first wasn't taken" in str(await store.events_of(job.id))


async def test_whose_writing_was_cut_off_is_not_waited_for(store: Store, database_url: str) -> None:
    job, token = await called(store)
    second = await call_again(store, job) or ""
    assert await turn_of(store, token) is Turn.FIRST
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE grants SET heard_at = now() - interval '3 minutes'")
    assert await turn_of(store, second) is Turn.NEVER
    assert await turn_of(store, token) is Turn.FIRST


async def test_who_writes_while_the_vendor_is_called_again_is_the_only_one(store: Store) -> None:
    job, token = await called(store)
    assert await may_write(store, token)
    assert await call_again(store, job) is None


async def test_what_the_release_before_let_write_counts(store: Store, database_url: str) -> None:
    """It knows the token with the grant alone, and keeps no record of who was heard."""
    job, token = await called(store)
    second = await call_again(store, job)
    assert second is not None
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE grants SET stores = 1 WHERE job_id = %s", (job.id,))
    assert not await may_write(store, token)
    assert await may_write(store, second)


async def test_a_token_of_an_earlier_life_of_the_job_has_ended(store: Store) -> None:
    job, token = await called(store)
    second = await call_again(store, job)
    assert second is not None
    third = (await store.open_grant(job, "https://g", fresh=True)).token
    for each in (token, second):
        assert not await may_write(store, each)
    assert await may_write(store, third)
