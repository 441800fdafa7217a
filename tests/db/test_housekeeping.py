"""What ended long ago keeps its history and nothing that identifies anybody; files don't stay behind."""

from __future__ import annotations

from dataclasses import replace
from uuid import uuid4

import psycopg
import pytest

from gateway.archives.spool import Spool
from gateway.jobs.chain import find_break
from gateway.jobs.records import PURGED
from gateway.jobs.states import State
from gateway.jobs.store import Refused
from gateway.settings.sections import Settings
from gateway.work.housekeeping import Housekeeping
from tests.db.crew import ask_for, bring


async def ended(store, application, **given):
    job, _ = await store.create(
        ask_for(application=application, patient_id="P", callback_token="T", context={"c": 1})
    )
    at = await bring(store, job, State.DELIVERING)
    return await store.move(at, to=State.DONE, after=None, result={"summary": "R"})


def age(database_url):
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("UPDATE jobs SET updated_at = now() - interval '100 days'")


async def test_identifying_data_is_kept_for_as_long_as_the_application_says(store, database_url):
    short, long, gone = [await ended(store, name) for name in ("short", "long", "no longer configured")]
    alive, _ = await store.create(ask_for(application="short", patient_id="P"))
    age(database_url)
    days = {"short": 30, "long": 365}
    assert await store.purge(days, otherwise=60) == 2
    assert await store.purge(days, otherwise=60) == 0
    for job in (short, gone):
        purged = await store.get(job.id)
        assert (purged.patient_id, purged.callback_token, purged.result, purged.context) == (None,) * 4
        events = await store.events_of(job.id)
        assert events[-1].what == PURGED
        assert find_break(job.id, events) is None
    kept = await store.get(long.id)
    assert (kept.patient_id, kept.callback_token, kept.result) == ("P", "T", {"summary": "R"})
    assert (await store.get(alive.id)).patient_id == "P"


SECRETS = (
    "ACC-77",
    "issuer-77",
    "exam-77",
    "1.2.840.99.1",
    "slide-77",
    "tag-77",
    "cancel-77",
    "PATIENT-77",
    "REF-77",
    "said-77",
)


async def identifying(store):
    """A job that left something that identifies in each place where something may stand."""
    asked = ask_for(
        application="a",
        accession_number="ACC-77",
        study_instance_uid="1.2.840.99.1",
        slide_id="slide-77",
        server="main",
        callback_url="https://pacs.hospital/slide-77",
        callback_token="T",
        patient_id="PATIENT-77",
        input={"tags": ["tag-77"]},
        cancellation_token="cancel-77",
        idempotency_key="ACC-77",
    )
    job, _ = await store.create(asked)
    at = await bring(store, job, State.DELIVERING)
    at = await store.keep(at, accession_number_issuer="issuer-77", exam_id="exam-77")
    await store.plan_deliveries(at, ["ris"])
    await store.record_delivery(at, "ris", "done", "delivered", reference="REF-77")
    await store.note(at, "the vendor answered", {"text": "said-77", "patient": "PATIENT-77"})
    return await store.move(at, to=State.DONE, after=None, result={"summary": "said-77"})


def everything_in(database_url):
    """Every row of every table, as text."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        tables = connection.execute(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"
        ).fetchall()
        return "".join(
            str(row[0])
            for (table,) in tables
            for row in connection.execute(f'SELECT row_to_json(t)::text FROM "{table}" t').fetchall()
        )


async def test_nothing_that_identifies_is_left_anywhere(store, database_url):
    job = await identifying(store)
    assert any(secret in everything_in(database_url) for secret in SECRETS)
    age(database_url)
    assert await store.purge({"a": 30}) == 1
    left = everything_in(database_url)
    assert [secret for secret in SECRETS if secret in left] == []
    events = await store.events_of(job.id)
    assert find_break(job.id, events) is None
    assert "the vendor answered" in [event.what for event in events]


async def test_what_was_done_and_when_outlives_every_setting(store, database_url):
    """For the AI Act's six months and beyond, however soon the patient's data go."""
    job = await identifying(store)
    before = [(event.at, event.state, event.what) for event in await store.events_of(job.id)]
    age(database_url)
    assert await store.purge({"a": 1}) == 1
    after = [(event.at, event.state, event.what) for event in await store.events_of(job.id)]
    assert after[:-1] == before and after[-1][2] == PURGED


async def test_what_could_never_be_told_on_the_slide_is_purged_all_the_same(store, database_url):
    job, _ = await store.create(ask_for(application="a", slide_id="slide-77"))
    await store.cancel(job.id, "me")
    [telling] = await store.claim(1, 1, 60, {})
    age(database_url)
    assert await store.purge({"a": 30}) == 0  # a worker has it
    await store.move(telling, after=3600, updated_at=telling.updated_at)
    age(database_url)
    assert await store.purge({"a": 30}) == 1
    purged = await store.get(job.id)
    assert (purged.slide_id, purged.next_at) == (None, None)


async def test_what_is_purged_can_no_longer_be_begun_again(store, database_url):
    job, _ = await store.create(ask_for(application="a", patient_id="P"))
    await store.cancel(job.id, "me")
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("UPDATE jobs SET next_at = NULL")
    age(database_url)
    assert await store.purge({"a": 30}) == 1
    with pytest.raises(Refused, match="kept no longer"):
        await store.retry(job.id, "me")


def make_old(database_url, job_id, events):
    """As the release before wrote them: hashed with their details in clear."""
    previous = ""
    with psycopg.connect(database_url, autocommit=True) as connection:
        found = connection.execute("SELECT id FROM job_events WHERE job_id = %s ORDER BY id", [job_id])
        for (number,), event in zip(found.fetchall(), events, strict=True):
            old = replace(event, previous_hash=previous, salt=None, detail_digest=None)
            previous, before = old.digest(job_id), previous
            connection.execute(
                "UPDATE job_events SET salt = NULL, detail_digest = NULL, hash = %s, previous_hash = %s"
                " WHERE id = %s",
                [previous, before, number],
            )


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize(
    "harm",
    [
        "UPDATE job_events SET what = 'nothing' WHERE id = {}",
        "UPDATE job_events SET at = at + interval '1 s' WHERE id = {}",
        'UPDATE job_events SET detail = \'{{"put": "in"}}\' WHERE id = {}',
        "UPDATE job_events SET state = 'done' WHERE id = {}",
        "UPDATE job_events SET detail_digest = '' , what = 'nothing' WHERE id = {}",
        "DELETE FROM job_events WHERE id = {}",
    ],
)
async def test_what_is_changed_after_it_was_purged_is_found(store, database_url, harm, old):
    job = await identifying(store)
    if old:
        make_old(database_url, job.id, await store.events_of(job.id))
        assert find_break(job.id, await store.events_of(job.id)) is None
    age(database_url)
    assert await store.purge({"a": 30}) == 1
    assert find_break(job.id, await store.events_of(job.id)) is None
    assert "said-77" not in everything_in(database_url)
    with psycopg.connect(database_url, autocommit=True) as connection:
        found = connection.execute("SELECT id FROM job_events WHERE job_id = %s ORDER BY id", [job.id])
        third = found.fetchall()[2][0]
        connection.execute(harm.format(third))
    assert find_break(job.id, await store.events_of(job.id)) is not None


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
    await store.cancel(told.id, "me")  # it has still to be said on the slide: without files
    foreign = uuid4()
    spool = Spool(tmp_path)
    for job_id in (done.id, alive.id, told.id, foreign):
        (spool.folder(job_id) / "file").write_text("bytes")
    (tmp_path / "spool" / "lost+found").mkdir()
    settings = Settings.model_construct(departments={})
    assert await Housekeeping(settings, store, spool).sweep() == 2
    left = {entry.name for entry in (tmp_path / "spool").iterdir()}
    assert left == {str(alive.id), str(foreign), "lost+found"}
