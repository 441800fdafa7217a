"""What ended long ago keeps its history and nothing that identifies anybody; files don't stay behind."""

from __future__ import annotations

from uuid import uuid4

import psycopg

from gateway.archives.spool import Spool
from gateway.jobs.chain import find_break
from gateway.jobs.states import State
from gateway.settings.sections import Settings
from gateway.work.housekeeping import Housekeeping
from tests.db.crew import ask_for, bring


async def ended(store, application, **given):
    job, _ = await store.create(
        ask_for(application=application, patient_id="P", callback_token="T", context={"c": 1})
    )
    at = await bring(store, job, State.DELIVERING)
    return await store.move(at, to=State.DONE, after=None, result={"summary": "R"})


async def test_identifying_data_is_kept_for_as_long_as_the_application_says(store, database_url):
    short, long, gone = [await ended(store, name) for name in ("short", "long", "no longer configured")]
    alive, _ = await store.create(ask_for(application="short", patient_id="P"))
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("UPDATE jobs SET updated_at = now() - interval '100 days'")
    days = {"short": 30, "long": 365}
    assert await store.purge(days, otherwise=60) == 2
    assert await store.purge(days, otherwise=60) == 0
    for job in (short, gone):
        purged = await store.get(job.id)
        assert (purged.patient_id, purged.callback_token, purged.result, purged.context) == (None,) * 4
        events = await store.events_of(job.id)
        assert events[-1].what == "what identified the patient was removed"
        assert find_break(job.id, events) is None
    kept = await store.get(long.id)
    assert (kept.patient_id, kept.callback_token, kept.result) == ("P", "T", {"summary": "R"})
    assert (await store.get(alive.id)).patient_id == "P"


async def test_more_than_one_helping_is_purged(store, database_url):
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO jobs (id, department, application, adapter, origin, state, context, updated_at)"
            " SELECT gen_random_uuid(), 'd', 'a', 'v', 'rest', 'failed', '{}', now() - interval '2 days'"
            " FROM generate_series(1, 1001)"
        )
    assert await store.purge({"a": 1}) == 1001


async def test_files_of_ended_jobs_are_swept_and_all_others_stay(store, tmp_path):
    done = await ended(store, "a")
    alive, _ = await store.create(ask_for())
    told, _ = await store.create(ask_for())
    await store.cancel(told.id, "me")  # it has still to be said on the slide
    foreign = uuid4()
    spool = Spool(tmp_path)
    for job_id in (done.id, alive.id, told.id, foreign):
        (spool.folder(job_id) / "file").write_text("bytes")
    (tmp_path / "spool" / "lost+found").mkdir()
    settings = Settings.model_construct(departments={})
    assert await Housekeeping(settings, store, spool).sweep() == 1
    left = {entry.name for entry in (tmp_path / "spool").iterdir()}
    assert left == {str(alive.id), str(told.id), str(foreign), "lost+found"}
