"""Whose token is good for what, and whom a user's change reaches."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from gateway.jobs.records import Job
from gateway.jobs.states import State
from gateway.jobs.store import Store
from gateway.jobs.store.grants import ChangedResult
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
