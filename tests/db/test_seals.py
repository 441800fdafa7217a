"""Who changes the past is found out, also who owns the whole database: an edit, a removed event, a job cut
short or gone, a seal made anew."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from gateway.jobs import escaped
from gateway.jobs import inspection as looking
from gateway.jobs.chain import digest_events
from gateway.jobs.inspection import Inspection
from gateway.jobs.records import Seal
from gateway.jobs.signing import SealKey, TrustedKeys
from gateway.jobs.states import State
from gateway.jobs.store import Store
from gateway.settings.keys import make_seal_key, seal_key
from gateway.settings.sections import Settings
from gateway.work.sealing import Sealing, seals_file
from tests.db.crew import ask_for, bring
from tests.peers.histories import make_jobs


@pytest.fixture
def sealing(store: Store, tmp_path: Path) -> Sealing:
    return Sealing(settings_in(tmp_path), store)


def settings_in(folder: Path) -> Settings:
    return Settings.model_construct(data_dir=folder, seal_key=None)


def keys_in(folder: Path) -> TrustedKeys:
    return TrustedKeys([SealKey(seal_key(settings_in(folder))).public])


@pytest.fixture
def inspect(store: Store, tmp_path: Path) -> Callable[..., Any]:
    async def run(*against: Path, ours: Path | None = None) -> Inspection:
        inspection = Inspection()
        await inspection.run(store, keys_in(tmp_path), against, ours)
        return inspection

    return run


@pytest.fixture
async def told(store: Store, sealing: Sealing) -> list[Any]:
    """Three jobs with histories, sealed as they went, and a line of the audit for each."""
    jobs = []
    for number in range(3):
        job, _ = await store.create(ask_for(study_instance_uid=f"1.2.{number}", accession_number="A"))
        await bring(store, job, State.ANALYSING)
        jobs.append(await store.cancel(job.id, "ops"))
        [ended] = await store.claim(7, 1, 60, {})
        await store.move(ended, after=None)
        assert await sealing.seal() == 1
    return jobs


def tamper(database_url: str, *statements: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        for statement in statements:
            assert connection.execute(statement).rowcount != 0


async def test_what_nobody_touched_is_intact(store, told, sealing, inspect, tmp_path):
    inspection = await inspect(seals_file(tmp_path))
    assert (inspection.breaks, inspection.unchecked) == ([], [])
    assert (inspection.jobs, inspection.seals, inspection.acts, inspection.outside) == (3, 3, 3, 3)
    assert await sealing.seal() == 0, "nothing has grown since"
    assert inspection.events == sum([len(await store.events_of(job.id)) for job in told])


@pytest.mark.parametrize(
    ("how", "found"),
    [
        ("UPDATE job_events SET what = 'nothing' WHERE id = 2", "event 2 was changed"),
        ("UPDATE job_events SET job_digest = NULL WHERE id = 2", "event 2 was changed"),
        ("DELETE FROM job_events WHERE id = 2", "event 2 doesn't follow"),
        ("DELETE FROM job_events WHERE id = (SELECT max(id) FROM job_events)", "cut short"),
        ("UPDATE jobs SET state = 'done'", "its state isn't what its history says"),
        ("UPDATE jobs SET application = 'another'", "what it is about"),
        ("UPDATE jobs SET adapter = 'another'", "what it is about"),
        ("UPDATE jobs SET study_instance_uid = '1.2.9'", "what it is about"),
        ("UPDATE jobs SET accession_number = 'B'", "what it is about"),
        ("UPDATE jobs SET created_at = created_at - interval '1 h'", "what it is about"),
        ("UPDATE jobs SET stored = 9", "what it is about, or its counts"),
        ("UPDATE seals SET heads = '{}' WHERE id = 2", "seal 2: was changed"),
        ("UPDATE seals SET signature = repeat('0', 128) WHERE id = 2", "seal 2: its signature"),
        ("UPDATE seals SET signature = NULL WHERE id = 2", "seal 2: its signature"),
        ("DELETE FROM seals WHERE id = 2", "seal 3: doesn't follow"),
        ("UPDATE audit SET who = 'nobody' WHERE id = 2", "audit 2: it was changed"),
        ("UPDATE audit SET hash = NULL WHERE id = 2", "audit 2: it was changed"),
        ("DELETE FROM audit WHERE id = 2", "audit up to 2: it was cut short"),
        (
            "INSERT INTO job_events (id, job_id, at, state, what, detail, previous_hash, hash)"
            " OVERRIDING SYSTEM VALUE SELECT 0, job_id, at, state, what, detail, '', hash"
            " FROM job_events WHERE id = 1",
            "event 1 was changed",
        ),
    ],
)
async def test_every_change_of_the_past_is_found_and_named(told, inspect, database_url, how, found):
    tamper(database_url, how)
    breaks = (await inspect()).breaks
    assert any(found in broken for broken in breaks), breaks


async def test_a_job_removed_without_a_trace_is_missed(told, inspect, database_url):
    gone = told[1].id
    tamper(
        database_url,
        f"DELETE FROM job_events WHERE job_id = '{gone}'",
        f"DELETE FROM jobs WHERE id = '{gone}'",
    )
    assert (await inspect()).breaks == [f"job {gone}: sealed by seal 2, and gone or cut short since"]


async def test_a_job_removed_with_all_seals_is_missed_by_those_that_have_left(
    told, inspect, sealing, database_url, tmp_path
):
    """Sealed anew by the gateway itself, which knows no better: the file does."""
    gone = told[1].id
    tamper(
        database_url,
        f"DELETE FROM job_events WHERE job_id = '{gone}'",
        f"DELETE FROM jobs WHERE id = '{gone}'",
        f"DELETE FROM audit WHERE job_id = '{gone}'",
        "DELETE FROM seals",
    )
    for _ in range(2):
        assert (await inspect()).breaks == [], "from within nothing is to be seen"
        breaks = (await inspect(seals_file(tmp_path))).breaks
        assert f"job {gone}: sealed by seal 2, and gone or cut short since" in breaks
        assert any(broken.startswith("seal 2: is gone from the database") for broken in breaks)
        await sealing.seal()


async def rewrite(database_url, store, gone, sign):
    """What the owner of the database can do: all of it anew, without one job, every hash right."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        before = [seal async for _, seal in store.seals()]
        connection.execute("DELETE FROM seals")
        connection.execute("DELETE FROM job_events WHERE job_id = %s", [gone])
        connection.execute("DELETE FROM jobs WHERE id = %s", [gone])
        previous = ""
        for number, seal in enumerate(before, 1):
            events = await store.sealed_events(seal.after_event_id or 0, seal.last_event_id)
            heads = {str(job_id): hashed for _, job_id, hashed in events}
            made = replace(seal, heads=heads, events_digest=digest_events(events), previous_hash=previous)
            made = sign(made)
            previous = made.hash
            values = {**asdict(made), "heads": Jsonb(made.heads), "id": number}
            names, places = ", ".join(values), ", ".join(f"%({name})s" for name in values)
            connection.execute(
                f"INSERT INTO seals ({names}) OVERRIDING SYSTEM VALUE VALUES ({places})", values
            )


async def test_the_owner_of_the_database_cannot_seal_for_us(told, inspect, store, database_url, tmp_path):
    keyless = lambda seal: replace(seal, hash=seal.digest())  # noqa: E731 - our key's name, its old signature
    await rewrite(database_url, store, told[1].id, keyless)
    assert any("its signature isn't of its key" in broken for broken in (await inspect()).breaks)


async def test_seals_of_a_strangers_key_are_not_called_intact(told, inspect, store, database_url, tmp_path):
    await rewrite(database_url, store, told[1].id, SealKey(make_seal_key()).sign)
    inspection = await inspect()
    assert inspection.breaks == [] and "isn't at hand" in inspection.unchecked[0]
    assert any(
        "is another in the database now" in each for each in (await inspect(seals_file(tmp_path))).breaks
    )


def in_the_log(folder: Path, form: str) -> Path:
    """What the gateway has logged of its seals, as it is and as collectors keep it."""
    path = folder / f"gateway-{form}.log"
    with path.open("w") as file:
        for number, seal in escaped.read(seals_file(folder)):
            told = {"seal": number, "hash": seal.hash, "jobs": 1, "event": "sealed", "level": "info"}
            file.write('{"event": "a job has ended", "hash": "none"}\n')
            match form:
                case "json":
                    line = json.dumps(told)
                case "syslog":
                    line = f"<14>Nov 30 21:00:00 host gateway[7]: {json.dumps(told)}"
                case "journal":
                    line = json.dumps({"MESSAGE": json.dumps(told), "_PID": "7"})
                case _:
                    words = [f"\x1b[36m{name}\x1b[0m=\x1b[35m{value}\x1b[0m" for name, value in told.items()]
                    line = f"2026-11-30 21:00:00 [info] sealed  {' '.join(words)}"
            file.write(f"{line}\n")
    return path


@pytest.mark.parametrize("form", ["file", "json", "syslog", "journal", "terminal"])
async def test_who_owns_the_database_and_stole_the_key_is_found_out_by_the_hashes_that_left_it(
    form, told, inspect, store, database_url, tmp_path
):
    outside = seals_file(tmp_path) if form == "file" else in_the_log(tmp_path, form)
    good = await inspect(outside)
    assert (good.breaks, good.unchecked, good.outside) == ([], [], 3)
    await rewrite(database_url, store, told[1].id, SealKey((tmp_path / "seal.key").read_text()).sign)
    within = await inspect()
    assert (within.breaks, within.unchecked) == ([], []), "all is as if it had always been so"
    breaks = (await inspect(outside)).breaks
    assert [each.partition(";")[0] for each in breaks if "another" in each] == [
        f"seal {number}: is another in the database now" for number in (2, 3)
    ]


@pytest.mark.parametrize("form", ["file", "json"])
async def test_all_seals_gone_are_missed_by_the_hashes_that_left(form, told, inspect, database_url, tmp_path):
    outside = seals_file(tmp_path) if form == "file" else in_the_log(tmp_path, form)
    tamper(database_url, "DELETE FROM seals")
    breaks = (await inspect(outside)).breaks
    assert [each for each in breaks if "is gone from the database" in each] == [
        f"seal {number}: is gone from the database; {outside} has it as it was" for number in (1, 2, 3)
    ]


async def test_all_seals_gone_without_any_that_left_is_told_once_new_ones_are_due(
    told, inspect, database_url
):
    tamper(database_url, "DELETE FROM seals")
    assert (await inspect()).unchecked == [], "they may still be made"
    tamper(database_url, "UPDATE job_events SET at = at - interval '2 h'")
    [unclear] = (await inspect()).unchecked
    assert unclear.startswith("what happened since") and "is under no seal" in unclear


@pytest.mark.parametrize(
    ("cut", "found"),
    [
        (lambda lines: b"", "holds no seals"),
        (lambda lines: b"".join(lines)[:-40], "was cut off in its last line"),
        (lambda lines: lines[0] + lines[2], "1 of the database's seals (2 to 2) are missing"),
        (lambda lines: lines[1] + lines[2], "1 of the database's seals (1 to 1) are missing"),
    ],
)
async def test_a_file_that_was_cut_down_proves_nothing(cut, found, told, inspect, tmp_path, monkeypatch):
    file = seals_file(tmp_path)
    file.write_bytes(cut(file.read_bytes().splitlines(keepends=True)))
    monkeypatch.setattr(looking, "_JUST_MADE", timedelta(0))
    inspection = await inspect(file)
    [unclear] = inspection.unchecked
    assert inspection.breaks == [] and found in unclear


async def test_our_own_file_has_every_seal_and_a_copy_may_be_older(told, inspect, tmp_path, monkeypatch):
    file = seals_file(tmp_path)
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:1]))
    assert (await inspect(file, ours=file)).unchecked == [], "another replica may have made them just now"
    monkeypatch.setattr(looking, "_JUST_MADE", timedelta(0))
    assert (await inspect(file)).unchecked == []
    assert "2 of the database's seals (2 to 3) are missing" in (await inspect(file, ours=file)).unchecked[0]


async def test_what_may_not_all_be_committed_yet_is_waited_for(store, sealing, inspect, database_url):
    """Its number is lower, and it commits later: were the higher one sealed before, nobody would miss it."""
    first, _ = await store.create(ask_for())
    async with await psycopg.AsyncConnection.connect(database_url) as slow:
        await slow.execute(
            "INSERT INTO job_events (job_id, at, state, what, detail, previous_hash, hash)"
            " SELECT job_id, at, state, what, detail, hash, 'x' FROM job_events"
        )
        await store.create(ask_for())
        assert await store.settled(0.2) is None
        sealed = asyncio.create_task(sealing.seal())
        await asyncio.sleep(0.2)
        assert not sealed.done()
        await slow.commit()
    assert await sealed == 1
    [(_, seal)] = [each async for each in store.seals()]
    assert seal.heads[str(first.id)] == "x"
    assert len(await store.sealed_events(0, seal.last_event_id)) == 3


async def test_a_transaction_elsewhere_keeps_nothing_from_being_sealed(store, sealing, database_url):
    await store.create(ask_for())
    async with await psycopg.AsyncConnection.connect(database_url) as idle:
        await idle.execute("CREATE TABLE elsewhere ()")  # it has a number, which holds back every snapshot
        assert await sealing.seal() == 1


async def test_a_clock_that_is_ahead_keeps_nothing_from_being_sealed(store, sealing, inspect, database_url):
    job, _ = await store.create(ask_for())
    tamper(database_url, "UPDATE job_events SET at = now() + interval '10 years'")
    assert await sealing.seal() == 1
    tamper(database_url, "DELETE FROM job_events")
    assert f"job {job.id}: it has no history" in (await inspect()).breaks


async def test_a_great_number_is_sealed_in_bounded_stretches(store, sealing, inspect, database_url):
    with psycopg.connect(database_url, autocommit=True) as connection:
        make_jobs(connection, 2500, ["received"])
    assert await sealing.seal() == 3
    assert max([len(seal.heads) async for _, seal in store.seals()]) == 1000
    inspection = await inspect()
    assert (inspection.breaks, inspection.jobs, inspection.seals) == ([], 2500, 3)


async def test_of_several_replicas_each_keeps_all_seals_and_one_makes_them(store, told, inspect, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "seal.key").write_text((tmp_path / "seal.key").read_text())
    replicas = [Sealing(settings_in(each), store) for each in (tmp_path, other)]
    await store.create(ask_for())
    assert sum(await asyncio.gather(*(each.seal() for each in replicas))) == 1
    for each in replicas:
        await each.seal()
    files = [dict(escaped.read(seals_file(each))) for each in (tmp_path, other)]
    assert files[0] == files[1] and list(files[0]) == [1, 2, 3, 4]
    assert (await inspect(seals_file(other))).breaks == []


async def test_a_line_that_a_crash_cut_off_is_written_again(store, told, sealing, inspect, tmp_path):
    file = seals_file(tmp_path)
    file.write_bytes(file.read_bytes()[:-40])
    await store.create(ask_for())
    assert await sealing.seal() == 1
    inspection = await inspect(file)
    assert (inspection.breaks, inspection.outside) == ([], 4)


async def test_seals_of_an_older_release_still_stand(store, inspect, sealing, database_url):
    job, _ = await store.create(ask_for())
    [event] = await store.events_of(job.id)
    old = Seal(datetime.now(UTC), 1, {str(job.id): event.hash}, "")
    old = replace(old, hash=old.digest())
    with psycopg.connect(database_url, autocommit=True) as connection:
        values = [old.at, 1, Jsonb(old.heads), "", old.hash]
        connection.execute(
            "INSERT INTO seals (at, last_event_id, heads, previous_hash, hash) VALUES (%s, %s, %s, %s, %s)",
            values,
        )
    assert await sealing.seal() == 1, "what they cover is sealed again, with a signature"
    inspection = await inspect()
    assert (inspection.breaks, inspection.seals, inspection.unsigned) == ([], 2, 1)
    tamper(database_url, "UPDATE seals SET heads = '{}' WHERE id = 1")
    assert "seal 1: was changed after it was made" in (await inspect()).breaks


async def test_what_is_learnt_of_a_job_on_its_way_is_no_edit(store, sealing, inspect):
    job, _ = await store.create(ask_for())
    at = await bring(store, job, State.LOCATING)
    at = await store.keep(at, study_instance_uid="1.2.3", accession_number="A", slide_width=3)
    at = await store.move(at, after=0, archive="vna")
    [at] = await store.claim(7, 1, 60, {})
    await store.move(at, to=State.FAILED, after=None, promised=3, sent=0)
    await sealing.seal()
    assert (await inspect()).breaks == []


def test_the_file_says_all_of_a_seal(tmp_path: Path) -> None:
    key = SealKey(make_seal_key())
    seal = key.sign(Seal(datetime.now(UTC), 3, {"j": "h"}, "", after_event_id=0, events_digest="d"))
    file = tmp_path / "seals.log"
    assert escaped.last(file) is None
    for number in (1, 2):
        escaped.write(file, number, seal)
    assert list(escaped.read(file)) == [(1, seal), (2, seal)] and escaped.last(file) == (2, seal)
    assert set(json.loads(file.read_text().splitlines()[0])) == {"seal", *(f.name for f in fields(Seal))}
    assert TrustedKeys([key.public]).judge(seal) == "good"
    assert file.stat().st_mode & 0o777 == 0o600
    large = replace(seal, heads={str(number): "h" * 64 for number in range(20_000)})
    escaped.write(file, 3, large)
    assert escaped.last(file) == (3, large)
