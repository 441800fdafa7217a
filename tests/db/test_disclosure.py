"""gateway evidence --patient: what was done with one patient's data, told to whoever asks and to no log."""

from __future__ import annotations

import stat
from pathlib import Path

import psycopg

from gateway.jobs.records import SENDING, InstanceRecord
from gateway.jobs.states import State
from gateway.jobs.store.acts import ActFilter
from tests.db.crew import ask_for, bring
from tests.db.test_housekeeping import age, ended
from tests.db.test_looking_commands import command, environment

__all__ = ["command", "environment"]

PATIENT, STUDY, CT = "P-4711", "1.2.840.99.1", "1.2.840.10008.5.1.4.1.1.2"


async def sent(store, **given):
    """A job of the patient that has sent one of its two instances."""
    job, _ = await store.create(ask_for(adapter="milvue", study_instance_uid=STUDY, **given))
    at = await bring(store, job, State.SUBMITTING)
    records = [InstanceRecord(f"{STUDY}.{n}", f"{STUDY}.9", CT, bytes=500) for n in (1, 2)]
    await store.promise(at, records)
    await store.record_sent(at, records)
    await store.note(at, SENDING)
    return job


async def test_all_that_was_done_with_a_patients_data(store, command, tmp_path: Path):
    named = await sent(store, patient_id=f"{PATIENT} ")
    unnamed, _ = await store.create(ask_for(study_instance_uid=STUDY, application="later"))
    other, _ = await store.create(ask_for(patient_id="P-471", application="other"))
    await store.create(ask_for())
    result = await command("evidence", "--patient", PATIENT, "--out", str(tmp_path / "out"))
    assert result.exit_code == 0, result.output
    (path,) = (tmp_path / "out").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert PATIENT not in result.output + path.name
    told = path.read_text()
    assert str(named.id) in told and str(unnamed.id) in told and str(other.id) not in told
    assert "| CT Image Storage | 2 | 0 | 1,000 |" in told and "milvue (m), with the patient's own" in told
    assert SENDING in told and "1 never learnt" in told
    acts = await store.find_acts(ActFilter(what=["disclosures reported"]))
    assert {act.job_id for act in acts} == {named.id, unnamed.id}
    assert not any(PATIENT in str(act) for act in acts)


async def test_without_a_folder_it_is_printed_and_the_id_may_come_by_a_pipe(store, command):
    await sent(store, patient_id=PATIENT)
    result = await command("evidence", "--patient", "-", input=f"{PATIENT}\n")
    assert result.exit_code == 0 and PATIENT in result.stdout and PATIENT not in result.stderr


async def test_what_is_purged_or_stored_with_another_key_is_said(store, database_url, command):
    await ended(store, "short")
    age(database_url)
    await store.purge({"short": 30})
    await store.create(ask_for(patient_id=PATIENT))
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("UPDATE jobs SET patient_id = 'gAAAAA' WHERE patient_id IS NOT NULL")
    told = (await command("evidence", "--patient", PATIENT)).stdout
    assert "0 jobs" in told and "1 were purged" in told and "1 can't be read" in told
    [act] = await store.find_acts(ActFilter(what=["disclosures reported"]))
    assert act.job_id is None and act.detail == {"jobs": 0}
