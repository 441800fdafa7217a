"""What pages say of many jobs at once, and that it takes no longer for all those that ended."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg
from sqlalchemy import event

from gateway.console.causes import tell_causes
from gateway.contract import NeedsHuman
from gateway.jobs.states import State
from gateway.jobs.store import Store
from gateway.jobs.store.reading import Filter
from gateway.jobs.store.replicas import Sign
from gateway.settings.sections import Settings
from tests.db.crew import ask_for, bring

_ENDED = """INSERT INTO jobs (id, department, application, adapter, origin, state, created_at, updated_at,
  study_instance_uid, accession_number, ticket)
SELECT gen_random_uuid(), 'd', CASE n %% 2 WHEN 0 THEN 'a' ELSE 'b' END, 'v', 'rest',
  CASE n %% 20 WHEN 0 THEN 'failed' ELSE 'done' END, now() - n * interval '40 seconds',
  now() - n * interval '40 seconds' + interval '30 seconds', '1.2.' || n, 'A' || n,
  jsonb_build_object('reference', 'R' || n) FROM generate_series(1, %s) n"""


async def test_troubles_are_told_once_each_and_found_again(store: Store, database_url: str) -> None:
    made = [(await store.create(ask_for()))[0] for _ in range(5)]
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        for job, message in zip(
            made, ("no such study", "no such study", "the token is refused"), strict=False
        ):
            await connection.execute(
                "UPDATE jobs SET state = 'held', held_in = 'locating', next_at = NULL,"
                " error_kind = 'needs_human', error_message = %s, error_advice = 'Mend it.' WHERE id = %s",
                [message, job.id],
            )
        await connection.execute(
            "UPDATE jobs SET state = 'delivering' WHERE id = ANY(%s)", [[job.id for job in made[3:]]]
        )
        await connection.execute(
            "INSERT INTO deliveries (job_id, destination, last_error, next_at)"
            " VALUES (%s, 'ris', 'it says no', now()), (%s, 'vna', NULL, now())",
            [made[3].id, made[4].id],
        )
    told = await store.tell_troubles()
    assert sorted((each.jobs, each.state, each.destination, each.message) for each in told) == [
        (1, "delivering", "ris", "it says no"),
        (1, "held", None, "the token is refused"),
        (2, "held", None, "no such study"),
    ]
    for each in told:
        named = {"cause": [each.cause]} if each.cause else {"failing": [each.destination]}
        wanted = Filter(state=[State(each.state)], **named)
        assert await store.count(wanted) == each.jobs == len(await store.find(wanted))
    held = Filter(state=[State.HELD], cause=[told[0].cause or ""])
    assert len((await store.act_on_all("resume", held, "somebody", 2)).done) == 2
    under_way = {(each.doing, each.jobs) for each in await store.tell_under_way()}
    assert under_way == {("waiting", 4), (None, 1)}
    assert await store.count(Filter(doing=["waiting"])) == 4


async def test_what_a_process_is_at_work_on_is_found_by_its_number(store: Store, database_url: str) -> None:
    made = [(await store.create(ask_for()))[0] for _ in range(3)]
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        await connection.execute(
            "UPDATE jobs SET lease_holder = 7, canary = id = %s WHERE id <> %s", [made[1].id, made[0].id]
        )
    sign = Sign(uuid4(), "node-1", 1, "workers", "1.0", datetime.now(UTC))
    await store.beat(sign, 7)
    [replica] = await store.replicas()
    assert (replica.worker, replica.at_work) == (7, 2)
    found = await store.find(Filter(lease_holder=[replica.worker]))
    assert {job.id for job in found} == {job.id for job in made[1:]}


async def test_where_a_study_has_to_be_chosen_the_button_leads_to_the_jobs(store: Store) -> None:
    """Resumed without a choice they would be held again at once."""
    why, ids = NeedsHuman("2 studies match", "Resume it.", detail={"choices": ["1.2", "1.3"]}), []
    for leads_to, fields in (("/jobs/{id}", set()), ("/jobs", {"state", "cause"})):
        job, _ = await store.create(ask_for())
        ids.append(job.id)
        at = await bring(store, job, State.LOCATING)
        await store.move(
            at,
            to=State.HELD,
            after=None,
            held_in=State.LOCATING.value,
            detail=dict(why.detail),
            error_kind="needs_human",
            error_message=str(why),
            error_advice=why.advice,
        )
        [cause] = await tell_causes(Settings(), store)
        assert cause.button is not None and "choose" in cause.button.label
        assert (cause.button.address, set(cause.button.fields)) == (leads_to.format(id=job.id), fields)
        assert "Resume" not in cause.advice and cause.jobs == len(ids)


async def test_any_identifier_finds_the_job(store: Store, database_url: str) -> None:
    wanted = ask_for(study_instance_uid="1.2.3", accession_number="A1", slide_id="slide-1")
    job, _ = await store.create(wanted)
    await store.create(ask_for(study_instance_uid="1.2.4"))
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        await connection.execute(
            """UPDATE jobs SET ticket = '{"reference": "V-77"}' WHERE id = %s""", [job.id]
        )
    for words in ("1.2.3", "A1", "slide-1", "V-77", "a1", "SLIDE-1", "v-77"):
        assert [found.id for found in await store.search(words)] == [job.id], words
    assert await store.search("A") == []


async def test_what_nobody_asked_for_is_no_answer_to_an_identifier(store: Store) -> None:
    """By its own id it is found: whoever has that, means it."""
    about = {"study_instance_uid": "1.2.3", "accession_number": "A1"}
    job, _ = await store.create(ask_for(**about))
    tried, _ = await store.create(ask_for(**about, application="shadow/a/b", beside=True))
    await store.create(ask_for(**about, application="canary/v", canary=True))
    for words in ("1.2.3", "A1"):
        assert [found.id for found in await store.search(words)] == [job.id], words
    assert await store.find_by_prefix(tried.id.hex) == [tried.id]


async def test_what_ended_long_ago_costs_a_page_nothing(store: Store, database_url: str) -> None:
    """No statement of a page reads more than the last day's jobs, of seven weeks that ended."""
    now = datetime.now(UTC)

    async def ask() -> None:
        await store.tell_troubles()
        await store.tell_under_way()
        await store.tell_hours(["a", "b"], now - timedelta(hours=24), now - timedelta(hours=12))
        await store.search("A17")
        await store.find(Filter(application=["a"], state=[State.FAILED]), limit=51)
        await store.count(Filter(doing=["waiting"]))
        await store.count(Filter(failing=["ris"]))
        await store.count(Filter(state=[State.HELD], cause=["x"]))

    asked: list[tuple[str, Any]] = []
    engine = store._single.sync_engine
    event.listen(engine, "before_cursor_execute", lambda *told: asked.append((told[2], told[3])))
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        await connection.execute(_ENDED, [100_000])
        await connection.execute("ANALYZE jobs")
        await ask()
        for statement, values in asked:
            explain = await connection.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", values)
            plan = (await explain.fetchall())[0][0][0]["Plan"]
            read = max(_read(each) for each in _parts(plan))
            assert read <= 3000, (read, statement)
    hours = await store.tell_hours(["a", "b"], now - timedelta(hours=24), now - timedelta(hours=12))
    whole = {each.application: each for each in hours if each.hour is None}
    assert 1000 < whole["a"].done + whole["b"].done < 2200
    assert whole["a"].median is not None and round(whole["a"].median) == 30
    assert len(hours) > 40


def _parts(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(part for each in plan.get("Plans", []) for part in _parts(each))]


def _read(part: dict[str, Any]) -> int:
    removed = part.get("Rows Removed by Filter", 0) + part.get("Rows Removed by Index Recheck", 0)
    return int((part["Actual Rows"] + removed) * part["Actual Loops"])
