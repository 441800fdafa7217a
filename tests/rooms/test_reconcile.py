"""Studies of a real Orthanc that nobody has processed: found page by page, told once, and begun once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, time, timedelta
from itertools import chain
from pathlib import Path

import aiohttp
import psycopg
import pytest

from gateway.archives.dicomweb import DicomwebArchive
from gateway.archives.lookup import Lookup
from gateway.contract import Failure
from gateway.dicom.web import Limits
from gateway.jobs.records import NewJob, Origin
from gateway.jobs.states import State
from gateway.jobs.store import Store
from gateway.settings.sections import Settings
from gateway.watch.reconcile import Reconciliation, last_due, start
from tests.peers.dicom_samples import encode, make_study
from tests.peers.orthanc import orthanc

ROOT = "1.2.826.0.1.3680043.10.778"
NOW = datetime(2026, 6, 5, 12).astimezone()
SETTINGS = Settings.model_validate(
    {
        "archives": {"vna": {"kind": "dicomweb", "url": "http://nowhere/dicom-web"}},
        "adapters": {"a": {"kind": "milvue"}},
        "departments": {
            "d": {
                "applications": {
                    "trauma": {
                        "display_name": "Trauma",
                        "adapter": "a",
                        "archives": ["vna"],
                        "accept": {"modalities": ["DX"]},
                        "choose": {"tags": ["PatientName !~ ^TEST"]},
                    },
                    "slides": {"display_name": "Slides", "adapter": "a", "archives": ["vna"]},
                }
            }
        },
        "reconcile": {"at": "03:00", "archive": "vna", "since": "26h"},
    }
)


def write(folder: Path, number: int, made: datetime, modality: str = "DX", name: str = "A^B") -> str:
    study = f"{ROOT}.{number}"
    for index, dataset in enumerate(make_study(2, study=study)):
        dataset.StudyDate, dataset.StudyTime = f"{made:%Y%m%d}", f"{made:%H%M%S}"
        dataset.Modality, dataset.PatientName = modality, name
        (folder / f"{number}-{index}.dcm").write_bytes(encode(dataset))
    return study


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def replica(
    store: Store, archive: DicomwebArchive, clock: datetime = NOW, known: Store | None = None
) -> Reconciliation:
    return Reconciliation(
        SETTINGS,
        known or store,
        Lookup({"vna": archive}, {}),
        {"vna": archive},
        lambda application: application.display_name != "Slides",
        lambda: clock,
    )


async def alerts(url: str) -> list[tuple[str, bool]]:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        found = await connection.execute("SELECT cause, sentence, cleared_at IS NULL FROM alerts ORDER BY id")
        rows = await found.fetchall()
    assert [row[0] for row in rows] == ["reconcile.vna"] * len(rows)
    return [(row[1], row[2]) for row in rows]


async def test_what_was_never_processed_is_found_told_and_begun_once(
    tmp_path: Path, store: Store, database_url: str, session: aiohttp.ClientSession
) -> None:
    files = tmp_path / "files"
    files.mkdir()
    missing = {write(files, 100 + number, NOW - timedelta(hours=number)) for number in range(1, 9)}
    done = write(files, 1, NOW - timedelta(hours=5))
    write(files, 2, NOW - timedelta(hours=5), modality="CT")
    write(files, 3, NOW - timedelta(hours=5), name="TEST^X")
    write(files, 4, NOW - timedelta(hours=27))
    write(files, 5, NOW - timedelta(minutes=5))  # it may still be arriving
    await store.create(NewJob("d", "trauma", "a", Origin.REST, study_instance_uid=done))
    await store.create(NewJob("d", "slides", "a", Origin.REST, study_instance_uid=min(missing)))
    with orthanc(tmp_path / "orthanc", LimitFindResults=3) as running:
        running.upload(files.glob("*.dcm"))
        archive = DicomwebArchive("vna", running.dicomweb, session, limits=Limits(read=10))
        replicas = [replica(store, archive) for _ in range(2)]
        await replicas[0].look()
        assert await store.unprocessed() == [], "its first night is still to come"
        async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
            await connection.execute("UPDATE rounds SET done_at = %s", (NOW - timedelta(days=1),))
        await asyncio.gather(*(each.look() for each in replicas))
        assert {each.study_instance_uid for each in await store.unprocessed()} == missing
        assert await alerts(database_url) == [
            ("8 studies in vna that trauma would have accepted were never processed", True)
        ]
        async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
            told = await connection.execute("SELECT count(*) FROM audit WHERE what = 'archive compared'")
            assert await told.fetchone() == (1,), "one replica compared"

    begun = await asyncio.gather(*(start(SETTINGS, store, "ops") for _ in range(3)))
    jobs = await store.find(limit=100)
    mine = [job for job in jobs if job.application == "trauma" and job.study_instance_uid != done]
    assert sorted(job.study_instance_uid or "" for job in mine) == sorted(missing)
    assert sorted(chain.from_iterable(begun)) == sorted(str(job.id) for job in mine)
    assert {(job.origin, job.state) for job in mine} == {(Origin.NOTIFICATION, State.RECEIVED)}
    await replicas[1].look()
    assert [stands for _, stands in await alerts(database_url)] == [False]


async def test_a_night_on_which_the_archive_is_away_is_made_up_for(
    store: Store, database_url: str, session: aiohttp.ClientSession
) -> None:
    archive = DicomwebArchive("vna", "http://127.0.0.1:1/dicom-web", session)
    await replica(store, archive).look()
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        await connection.execute("UPDATE rounds SET done_at = %s", (NOW - timedelta(days=1),))
        with pytest.raises(Failure):
            await replica(store, archive).look()
        await replica(store, archive).look()  # not at once again
        await connection.execute("UPDATE rounds SET taken_until = now() - interval '1 second'")
        with pytest.raises(Failure):
            await replica(store, archive).look()


def test_a_night_begins_when_the_clock_on_the_wall_says_so() -> None:
    here = datetime(2026, 6, 5, 2, 59).astimezone()
    assert last_due(time(3), here) == datetime(2026, 6, 4, 3).astimezone()
    assert last_due(time(3), here + timedelta(minutes=1)) == datetime(2026, 6, 5, 3).astimezone()
    assert last_due(time(3), datetime(2026, 6, 5, 23, tzinfo=UTC)).tzinfo is not None
