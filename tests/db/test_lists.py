"""Who lists jobs waits for nothing that no list shows: neither results, which may be large, nor secrets."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import psycopg
import pytest

from gateway.contract import Failure
from gateway.jobs.cipher import Cipher
from gateway.jobs.states import State
from gateway.jobs.store import Store
from gateway.jobs.store.reading import Filter
from tests.db.crew import ask_for, bring

RESULT = {"summary": "R" * 100_000}


class Counting(Cipher):
    decrypted = 0

    def decrypt(self, encrypted: bytes | None) -> Any:
        if encrypted is not None:
            self.decrypted += 1
        return super().decrypt(encrypted)


@pytest.fixture
async def looking(secret_key: str, database_url: str, store: Store) -> Any:
    """A store over jobs with secrets and results, and its cipher."""
    for number in range(3):
        asked = ask_for(patient_id="P", callback_token="T", study_instance_uid=f"1.2.{number}")
        job, _ = await store.create(asked)
        at = await bring(store, job, State.ANALYSING)
        await store.move(at, to=State.HELD, after=None, held_in="analysing", result=RESULT)
    cipher = Counting([secret_key])
    opened = Store(database_url, cipher, pool_size=2)
    yield opened, cipher
    await opened.close()


async def test_nothing_is_decrypted_for_a_list(looking: Any) -> None:
    store, cipher = looking
    listed = await store.find(Filter(state=["held"]))
    assert [job.study_instance_uid for job in listed] == ["1.2.2", "1.2.1", "1.2.0"]
    for job in listed:
        shown = await store.glance(job.id)
        assert shown == job and shown.result is None
        assert await store.events_of(job.id) and await store.deliveries_of(job.id) == []
    assert await store.count_for("resume", Filter(state=["held"])) == 3
    assert cipher.decrypted == 0
    full = await store.get(listed[0].id)
    assert (full.patient_id, full.callback_token, len(full.result["summary"])) == ("P", "T", 100_000)


async def test_who_acts_on_many_reads_no_result_of_them(looking: Any) -> None:
    store, cipher = looking
    done = (await store.act_on_all("resume", Filter(state=["held"]), "ops", 3)).done
    assert len(done) == 3
    assert cipher.decrypted <= 2 * len(done), "the patient's id and the token of what is written, no result"
    assert [job.result for job in done] == [None] * 3
    full = await store.get(done[0].id)
    assert full.result is not None and full.patient_id == "P", "and loses nothing"


def test_a_failure_is_bounded_however_long_its_peer_talks() -> None:
    said = Failure("it refuses", said={"a": "x" * 10**6, **{f"k{n}": n for n in range(1000)}}).said
    assert len(said) <= 20 and len(said["a"]) == 2000


async def test_a_look_begins_no_transaction_and_undoes_none(store, database_url):
    """A rollback would have the driver forget all statements that it has prepared."""
    for _ in range(8):
        assert await store.deliveries_of(uuid4()) == []
    with psycopg.connect(database_url) as connection:
        last = connection.execute(
            "SELECT upper(query) FROM pg_stat_activity WHERE datname = current_database()"
            " AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
        ).fetchall()
    assert any("DELIVERIES" in query for (query,) in last)
    assert not [query for (query,) in last if query.startswith(("BEGIN", "ROLLBACK", "DEALLOCATE"))]
