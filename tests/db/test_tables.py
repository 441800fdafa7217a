"""The tables: as migrated as declared, quick when they are full, and silent about patients."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import replace

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from cryptography.fernet import Fernet
from sqlalchemy import Engine as AnyEngine
from sqlalchemy import create_engine, event, update

from gateway.jobs import schema
from gateway.jobs.chain import find_break
from gateway.jobs.cipher import Cipher
from gateway.jobs.engine import Engine
from gateway.jobs.states import State
from gateway.jobs.store import Store
from gateway.jobs.store.reading import Filter
from gateway.jobs.tables import jobs, metadata
from tests.db.crew import BRISK, Script, ask_for, bring, reaches


def rows(url, statement):
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def test_the_migrated_schema_is_the_declared_one(database_url, empty_database_url):
    migrated, declared = (
        create_engine(url.replace("postgresql://", "postgresql+psycopg://", 1))
        for url in (database_url, empty_database_url)
    )
    with migrated.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    metadata.create_all(declared)
    said = (
        "SELECT {} FROM pg_indexes WHERE schemaname = 'public' AND tablename <> 'alembic_version' ORDER BY 1"
    )
    assert rows(database_url, said.format("indexdef")) == rows(empty_database_url, said.format("indexdef"))
    said = "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE contype IN ('c', 'f') ORDER BY 1"
    assert rows(database_url, said) == rows(empty_database_url, said)
    said = (
        "SELECT relname, reloptions FROM pg_class WHERE reloptions IS NOT NULL AND relkind = 'r' ORDER BY 1"
    )
    assert rows(database_url, said) == rows(empty_database_url, said)
    for engine in (migrated, declared):
        engine.dispose()


async def test_replicas_may_migrate_at_once_and_again(empty_database_url):
    assert await schema.revision_of(empty_database_url) is None
    both = await asyncio.gather(*(asyncio.to_thread(schema.migrate, empty_database_url) for _ in range(3)))
    newest = schema.newest()
    assert sorted(both, key=str) == sorted([(None, newest), (newest, newest), (newest, newest)], key=str)
    assert schema.migrate(empty_database_url) == (newest, newest)
    assert await schema.revision_of(empty_database_url) == newest


async def test_who_works_on_the_tables_meanwhile_is_let_through(empty_database_url):
    before = schema.revisions()[0]
    schema.migrate(empty_database_url, to=before)
    with psycopg.connect(empty_database_url) as at_work:
        at_work.execute("SELECT count(*) FROM jobs")
        migrating = asyncio.create_task(asyncio.to_thread(schema.migrate, empty_database_url))
        await asyncio.sleep(0.5)
        with psycopg.connect(empty_database_url, autocommit=True) as another:
            another.execute("SELECT count(*) FROM jobs")  # would wait behind the migration, and it for us
        await asyncio.sleep(2.5)
        at_work.execute("SELECT count(*) FROM job_events")
    assert await migrating == (before, schema.newest())


async def test_nothing_identifying_or_secret_lies_in_clear(store, database_url):
    """Looked for in all columns of all tables, at each step of a job that has them all."""
    new = ask_for(
        patient_id="PATIENT-7",
        callback_token="TOKEN-7",
        caller="ris",
        idempotency_key="k",
        study_instance_uid="1.2",
    )
    job, _ = await store.create(new)
    at = await bring(store, job, State.ANALYSING)
    await store.move(at, to=State.DELIVERING, after=None, result={"summary": "RESULT-7"})
    found = await store.get(job.id)
    assert (found.patient_id, found.callback_token, found.result) == (
        "PATIENT-7",
        "TOKEN-7",
        {"summary": "RESULT-7"},
    )
    told = str([rows(database_url, f"SELECT t::text FROM {table} t") for table in metadata.tables])
    assert "ris" in told
    for secret in ("PATIENT-7", "TOKEN-7", "RESULT-7"):
        assert secret not in told
        assert secret.encode().hex() not in told
    # Nor can the patient's id be guessed: with it or without it, the digest is the same.
    assert replace(new, patient_id="PATIENT-8").request_digest == found.request_digest


async def test_keys_are_rotated_and_a_lost_one_stops_only_its_own_jobs(database_url):
    old, new = (Fernet.generate_key().decode() for _ in range(2))
    stores = [Store(database_url, Cipher(keys), pool_size=2) for keys in ([old], [new, old], [new])]
    before, both, after = stores
    try:
        with_old, _ = await before.create(ask_for(patient_id="P1"))
        with_new, _ = await both.create(ask_for(patient_id="P2"))
        for store, job, patient in ((both, with_old, "P1"), (after, with_new, "P2")):
            seen = await store.get(job.id)
            assert seen is not None and seen.patient_id == patient
        assert len(await after.find()) == 2
        async with Engine(after, database_url, Script(), {}, replace(BRISK, left=0.3)).working():
            await reaches(after, with_new, State.DONE)
            held = await reaches(after, with_old, State.HELD)
        assert "secret_keys" in (held.error_advice or "")
        await both.resume(with_old.id, "me")
        async with Engine(both, database_url, Script(), {}, BRISK).working():
            done = await reaches(both, with_old, State.DONE)
        assert done.patient_id == "P1"
    finally:
        for store in stores:
            await store.close()


# -- the history ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "harm",
    [
        "UPDATE job_events SET what = 'nothing' WHERE id = {}",
        "UPDATE job_events SET at = at + interval '1 s' WHERE id = {}",
        "UPDATE job_events SET detail = '{{}}' WHERE id = {}",
        "UPDATE job_events SET state = 'done' WHERE id = {}",
        "UPDATE job_events SET job_id = (SELECT id FROM jobs WHERE application = 'b') WHERE id = {}",
        "DELETE FROM job_events WHERE id = {}",
    ],
)
async def test_an_edited_or_removed_event_is_found(store, database_url, harm):
    job, _ = await store.create(ask_for())
    await store.create(ask_for(application="b"))
    at = await bring(store, job, State.LOCATING)
    for number in range(4):
        await store.note(at, f"note {number}", {"number": number})
    assert find_break(job.id, await store.events_of(job.id)) is None
    third = rows(database_url, f"SELECT id FROM job_events WHERE job_id = '{job.id}' ORDER BY id")[2][0]
    rows(database_url, harm.format(third))
    assert find_break(job.id, await store.events_of(job.id)) is not None


async def test_whatever_a_detail_holds_the_chain_stays_whole(store):
    """PostgreSQL gives numbers and texts back as it likes; a hash made before must be the hash made after."""
    job, _ = await store.create(ask_for())
    at = await bring(store, job, State.LOCATING)
    odd = {
        "n": [1e20, -0.0, 1.0, 0.1, 1e-7, 2**70, float("nan")],
        "s": "a\0b\ud800é",
        1: (True, None),
        "e": {},
    }
    await store.note(at, "odd\0", odd)
    events = await store.events_of(job.id)
    assert find_break(job.id, events) is None
    assert json.dumps(events[-1].detail["n"][0]) == "100000000000000000000"


async def test_appends_at_once_keep_the_chain_whole(open_store, database_url):
    stores = [open_store(database_url) for _ in range(3)]
    job, _ = await stores[0].create(ask_for())
    at = await bring(stores[0], job, State.DELIVERING)
    places = [f"place {n}" for n in range(30)]
    await stores[0].plan_deliveries(at, places)
    await asyncio.gather(
        *(stores[n % 3].record_delivery(at, place, "done", "delivered") for n, place in enumerate(places))
    )
    events = await stores[0].events_of(job.id)
    assert sum(event.what == "delivered" for event in events) == 30
    assert find_break(job.id, events) is None


async def test_who_follows_the_events_misses_none_that_is_committed_late(store, database_url):
    job, _ = await store.create(ask_for())
    other, _ = await store.create(ask_for())
    last = await store.last_place()
    async with store._transaction() as slow:
        await store._append(slow, await store._locked(slow, job.id), "slow", {})
        await store.cancel(other.id, "me")
        assert await store.events_since(last) == []
    assert [event.what for _, _, event in await store.events_since(last)] == ["slow", "cancelled"]


async def test_nor_one_of_a_transaction_that_began_before_and_wrote_after(store):
    """Numbers and transactions may come in opposite orders: either alone would pass one over."""
    job, _ = await store.create(ask_for())
    other, _ = await store.create(ask_for())
    last = await store.last_place()
    async with store._transaction() as late:
        async with store._transaction() as early:
            await early.execute(update(jobs).where(jobs.c.id == job.id).values(priority=1))
            await store._append(late, await store._locked(late, other.id), "began later, wrote first", {})
            await store._append(early, await store._locked(early, job.id), "began first, wrote later", {})
        heard = await store.events_since(last)
        assert [event.what for _, _, event in heard] == ["began first, wrote later"]
    heard = await store.events_since(heard[-1][0])
    assert [event.what for _, _, event in heard] == ["began later, wrote first"]


# -- a full table -----------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_claiming_and_listing_use_the_indexes_of_a_full_table(store, database_url):
    rows(
        database_url,
        "INSERT INTO jobs (id, department, application, adapter, origin, state, study_instance_uid,"
        " accession_number, slide_id, join_key, cancellation_tokens, created_at)"
        " SELECT gen_random_uuid(), 'd', 'a' || n % 3, 'vendor', 'rest', 'done', '1.2.' || n,"
        " 'A' || n, 's' || n, 'k' || n, ARRAY['t' || n], now() - n * interval '1 s'"
        " FROM generate_series(1, 200000) n",
    )
    for filling in (
        "INSERT INTO instances (job_id, sop_instance_uid, series_instance_uid)"
        " SELECT id, '2.' || study_instance_uid, '3' FROM jobs",
        "INSERT INTO slide_results (server, application, slide_id, job_id)"
        " SELECT 's', 'a', slide_id, id FROM jobs",
        "VACUUM ANALYZE",
    ):
        rows(database_url, filling)
    waiting = [(await store.create(ask_for(application=f"a{n % 3}")))[0] for n in range(50)]
    for job in waiting[:20]:
        [claimed] = await store.claim(1, 1, 60, {})
        await store.move(claimed, to=State.LOCATING, after=0 if job.priority else 3600)
    asked = []

    def note(_, __, statement, parameters, ___, ____):
        asked.append((statement, parameters))

    event.listen(AnyEngine, "before_cursor_execute", note)
    fetch, fetch_together = store._lines.fetch, store._lines.fetch_together

    async def note_one(*statement):
        asked.append(statement)
        return await fetch(*statement)

    async def note_all(*statements):
        asked.extend(statements)
        return await fetch_together(*statements)

    store._lines.fetch, store._lines.fetch_together = note_one, note_all
    new = ask_for(joinable=True, slide_id="s", cancellation_token="t")
    joined, _ = await store.create(new)
    await store.create(new)
    limited = await store.claim(1, 5, 60, {"vendor": 2})
    await store.move(limited[0], what="put back")
    await store.renew(1, [joined.id], 60)
    await store.release_orphans()
    await store.count_by_state()
    await store.crowds()
    await store.cancel_by_token("a", "t")
    page = await store.find(limit=50)
    for wanted in (
        Filter(),
        Filter(state=["held"]),
        Filter(state=["held", "failed"]),
        Filter(state=["done"]),
        Filter(application=["a1"]),
        Filter(adapter=["nobody"]),
        Filter(study_instance_uid=["1.2.5"]),
        Filter(accession_number=["A5"]),
        Filter(slide_id=["s5", "s6"]),
        Filter(department=["none"]),
    ):
        await store.find(wanted, limit=50)
    await store.find(after=(page[-1].created_at, page[-1].id))
    await store.count_for("resume", Filter(state=["held"]))
    async with store.receiving(["vendor"], ["1.2.5"], ["2.1.2.6"]) as found:
        assert found is None, "all have ended"
    await store.holding_peers()
    await store.ended_of([joined.id])
    assert await store.purge({"a1": 30}) == 0
    rows(
        database_url, "UPDATE jobs SET updated_at = now() - interval '2 y' WHERE study_instance_uid = '1.2.7'"
    )
    assert await store.purge({"a1": 30}) == 1
    event.remove(AnyEngine, "before_cursor_execute", note)
    assert len(asked) > 20
    with psycopg.connect(database_url) as connection:
        for statement, parameters in asked:
            if (
                not re.search("jobs|instances|slide_results", statement)
                or "pg_notify" in statement
                or re.match(r"\s*(INSERT|WITH given AS MATERIALIZED)", statement)
            ):
                continue
            plan = "\n".join(row[0] for row in connection.execute(f"EXPLAIN {statement}", parameters))
            for table in ("jobs", "job_events", "instances", "slide_results"):
                assert f"Seq Scan on {table}" not in plan, f"{statement}\n{plan}"
            assert "Index" in plan, f"{statement}\n{plan}"
