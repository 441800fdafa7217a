"""The keys of departments, and the way back from a pseudonym: sealed, and gone with the job."""

from __future__ import annotations

import asyncio

import psycopg
import pytest
from cryptography.fernet import Fernet

from gateway.archives.spool import Spool
from gateway.jobs.cipher import Cipher, Unreadable
from gateway.jobs.states import State
from gateway.jobs.store import Store
from gateway.settings.sections import Settings
from gateway.work.housekeeping import Housekeeping
from tests.db.crew import ask_for, bring
from tests.db.test_housekeeping import age, ended

OLD, NEW = (Fernet.generate_key().decode() for _ in range(2))
ISSUED = {"2.25.1": ("uid", "1.2.840.99"), "PABC": ("patient", "Müller-77")}


def everything(database_url):
    with psycopg.connect(database_url) as connection:
        tables = ("department_keys", "job_keys", "pseudonyms")
        return {table: connection.execute(f"SELECT * FROM {table}").fetchall() for table in tables}


async def test_replicas_that_ask_at_once_get_the_same_key_and_departments_another(store, database_url):
    keys = await asyncio.gather(*(store.department_key("emergency") for _ in range(5)))
    assert len(set(keys)) == 1
    assert len(keys[0]) == 32
    assert await store.department_key("oncology") != keys[0]
    assert keys[0].hex().encode() not in str(everything(database_url)).encode()


async def test_the_key_outlives_the_keys_that_encrypt_it(database_url):
    """The one key goes, the other comes: the pseudonyms of a department stay for ever."""
    made = []
    for keys in ([OLD], [NEW, OLD], [NEW]):
        store = Store(database_url, Cipher(keys))
        made.append(await store.department_key("emergency"))
        await store.close()
    assert len(set(made)) == 1
    forgetful = Store(database_url, Cipher([OLD]))
    with pytest.raises(Unreadable):
        await forgetful.department_key("emergency")
    await forgetful.close()


async def test_the_key_of_a_department_that_sends_nothing_meanwhile_outlives_them_too(database_url, tmp_path):
    before = Store(database_url, Cipher([OLD]))
    keys = {name: await before.department_key(name) for name in ("emergency", "research")}
    await before.close()
    both = Store(database_url, Cipher([NEW, OLD]))
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("INSERT INTO department_keys VALUES ('lost', 'unreadable')")
    await Housekeeping(Settings(), both, Spool(tmp_path)).purge()
    assert await both.renew_department_keys() == 0
    await both.close()
    after = Store(database_url, Cipher([NEW]))
    assert {name: await after.department_key(name) for name in keys} == keys
    await after.close()


async def test_what_was_issued_is_read_back_and_lies_nowhere_in_clear(store, database_url):
    job, _ = await store.create(ask_for())
    another, _ = await store.create(ask_for(slide_id="another"))
    await store.keep_issued(job.id, ISSUED)
    await store.keep_issued(job.id, ISSUED | {"2.25.2": ("uid", "1.2.840.100")})
    assert await store.issued_for(job.id) == ISSUED | {"2.25.2": ("uid", "1.2.840.100")}
    assert await store.issued_for(another.id) == {}
    assert await store.issued_as(job.id, "PABC") == ISSUED["PABC"]
    assert await store.issued_as(job.id, "PXYZ") is await store.issued_as(another.id, "PABC") is None
    lies = str(everything(database_url))
    assert not any(value in lies for _, value in ISSUED.values())


async def test_a_pseudonym_cannot_be_passed_off_as_anothers(store, database_url):
    job, _ = await store.create(ask_for())
    await store.keep_issued(job.id, ISSUED)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "UPDATE pseudonyms SET sealed = (SELECT sealed FROM pseudonyms WHERE pseudonym = 'PABC')"
        )
    with pytest.raises(Unreadable):
        await store.issued_for(job.id)


async def test_the_way_back_ends_when_the_job_is_purged(store, database_url):
    old, young = await ended(store, "short"), await store.create(ask_for(application="short"))
    young = await bring(store, young[0], State.LOCATING)
    for job in (old, young):
        await store.keep_issued(job.id, ISSUED)
    key = await store.department_key("emergency")
    sealed = everything(database_url)
    age(database_url)
    assert await store.purge({"short": 30}) == 1
    assert await store.issued_for(old.id) == {}
    assert await store.issued_for(young.id) == ISSUED
    lies = everything(database_url)
    for row in sealed["pseudonyms"]:
        assert row not in lies["pseudonyms"] or row[0] == young.id
    with psycopg.connect(database_url, autocommit=True) as connection:  # by whoever kept a copy of them
        for row in sealed["pseudonyms"]:
            copied = "INSERT INTO pseudonyms VALUES (%s, %s, %s) ON CONFLICT DO NOTHING"
            connection.execute(copied, row)
        [theirs] = connection.execute("SELECT key FROM job_keys").fetchall()
        connection.execute("INSERT INTO job_keys VALUES (%s, %s)", (old.id, theirs[0]))
    with pytest.raises(Unreadable):
        await store.issued_for(old.id)
    assert [row[0] for row in lies["job_keys"]] == [young.id]
    assert {row[0] for row in lies["pseudonyms"]} == {young.id}
    assert await store.department_key("emergency") == key
