"""Who changes the past is found out: an edit, a removed event, a job cut short or gone, a seal made anew."""

from __future__ import annotations

from datetime import timedelta

import psycopg
import pytest

from gateway.jobs.chain import verify
from gateway.jobs.states import State
from tests.db.crew import ask_for, bring

AT_ONCE = timedelta(0)


@pytest.fixture
async def told(store):
    """Three jobs with histories, sealed twice."""
    jobs = []
    for _ in range(3):
        job, _ = await store.create(ask_for())
        jobs.append(await bring(store, job, State.ANALYSING))
        await store.seal(AT_ONCE)
    return jobs


def tamper(database_url, *statements):
    with psycopg.connect(database_url, autocommit=True) as connection:
        for statement in statements:
            assert connection.execute(statement).rowcount != 0


async def test_what_nobody_touched_is_intact(store, told):
    inspection = await verify(store)
    assert (inspection.breaks, inspection.jobs, inspection.seals) == ([], 3, 3)
    assert await store.seal(AT_ONCE) is None, "nothing has grown since"
    assert inspection.events == sum([len(await store.events_of(job.id)) for job in told])


@pytest.mark.parametrize(
    ("how", "found"),
    [
        ("UPDATE job_events SET what = 'nothing' WHERE id = 2", "event 2 was changed"),
        ("DELETE FROM job_events WHERE id = 2", "event 2 doesn't follow"),
        ("DELETE FROM job_events WHERE id = (SELECT max(id) FROM job_events)", "cut short"),
        ("UPDATE jobs SET state = 'done'", "its state isn't what its history says"),
        ("UPDATE seals SET heads = '{}' WHERE id = 2", "seal 2: was changed"),
        ("DELETE FROM seals WHERE id = 2", "seal 3: doesn't follow"),
    ],
)
async def test_every_change_of_the_past_is_found_and_named(store, told, database_url, how, found):
    tamper(database_url, how)
    assert any(found in broken for broken in (await verify(store)).breaks)


async def test_a_job_removed_without_a_trace_is_missed(store, told, database_url):
    gone = told[1].id
    tamper(
        database_url,
        f"DELETE FROM job_events WHERE job_id = '{gone}'",
        f"DELETE FROM jobs WHERE id = '{gone}'",
    )
    assert (await verify(store)).breaks == [f"job {gone}: sealed by seal 2, and gone or cut short since"]


async def test_what_may_not_all_be_committed_yet_is_not_sealed(store):
    await store.create(ask_for())
    assert await store.seal() is None
