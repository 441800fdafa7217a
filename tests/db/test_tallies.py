"""What became of jobs is counted once, by day, application and version, and stays when they are purged."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.types.json import Jsonb

from gateway.contract import NeedsHuman
from gateway.jobs.records import NewJob, Origin
from gateway.jobs.store import Store
from gateway.settings.sections import Application, Settings
from gateway.watch.drift import bucket_of
from gateway.watch.quality import QualityWatch, days_of, verdicts_of
from gateway.work.register import check_version

AT = datetime(2026, 6, 5, 12, tzinfo=UTC)


async def tell(url: str, job: UUID, state: str, what: str, **detail: Any) -> None:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute(
            "INSERT INTO job_events (job_id, at, state, what, detail, previous_hash, hash)"
            " VALUES (%s, %s, %s, %s, %s, '', '')",
            (job, AT, state, what, Jsonb(detail)),
        )


async def made(store: Store, url: str, version: str | None = "3.2", *, canary: bool = False) -> UUID:
    job, _ = await store.create(NewJob("d", "trauma", "a", Origin.REST, accession_number="1", canary=canary))
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute("UPDATE jobs SET vendor_version = %s WHERE id = %s", (version, job.id))
    return job.id


async def test_each_is_counted_once_whoever_counts(store: Store, database_url: str) -> None:
    await store.tally()  # from now on
    for positive in (True, True, False):
        job = await made(store, database_url)
        await tell(database_url, job, "delivering", "the vendor is done", took=4, positive=positive)
        await tell(database_url, job, "done", "done", stored=1)
    canary = await made(store, database_url, canary=True)
    await tell(database_url, canary, "delivering", "the vendor is done", took=4, positive=True)
    empty = await made(store, database_url)
    await tell(database_url, empty, "delivering", "the vendor found nothing", took=8, empty=True)
    for unsuitable in (True, False):
        job = await made(store, database_url, None)
        await tell(database_url, job, "failed", "failed", message="m", unsuitable=unsuitable)
        await tell(database_url, job, "failed", "said so on the slide")
    ignored = await made(store, database_url, None)
    await tell(database_url, ignored, "cancelled", "ignored", reason="r")
    for _ in range(3):
        await asyncio.gather(*(store.tally() for _ in range(3)))

    days = days_of(await store.tallies(date(2026, 6, 1)))
    [seen] = days["trauma", "3.2"]
    assert (seen.results, seen.positive, seen.empty, dict(seen.took)) == (4, 2, 1, {4: 3, 8: 1})
    assert (seen.unsuitable, seen.failed, seen.ended) == (2, 1, 7), "of the version that was seen last"
    assert days.keys() == {("trauma", "3.2")}


async def test_a_result_that_users_change_counts_once_for_its_version(
    store: Store, database_url: str
) -> None:
    job = await made(store, database_url)
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        await connection.execute(
            "INSERT INTO slide_results (server, application, slide_id, result_id, result_of)"
            " VALUES ('pacs', 'trauma', 's', 7, %s)",
            (job,),
        )
    for what in ("changed", "changed", "deleted"):
        await store.count_verdict("pacs", "trauma", 7, what, AT)
    await store.count_verdict("pacs", "trauma", 8, "deleted", AT)  # not ours
    await store.count_verdict("another", "trauma", 7, "deleted", AT)

    told = await store.tallies(AT.astimezone().date())
    assert verdicts_of(told) == {("trauma", "3.2"): {"changed": 1, "deleted": 1}}
    said = [each.what for each in await store.events_of(job)]
    changed, removed = "a user changed its result on the slide", "a user removed its result from the slide"
    assert said == ["accepted", changed, changed, removed], "each of them stands in the history"


def application(*, strict: bool, version: str = "3.2") -> Application:
    register = {"version": version, "strict": strict}
    return Application.model_validate({"display_name": "Trauma", "adapter": "a", "register": register})


async def test_a_version_that_nobody_accepted_is_told_or_holds_the_job_until_it_is(
    store: Store, database_url: str
) -> None:
    async def causes() -> list[tuple[str, bool]]:
        async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
            found = await connection.execute("SELECT cause, cleared_at IS NULL FROM alerts ORDER BY id")
            return [(row[0], row[1]) for row in await found.fetchall()]

    for version in ("3.2", ""):
        await check_version(store, "trauma", application(strict=True), version)
    assert await causes() == []

    for _ in range(2):
        await check_version(store, "trauma", application(strict=False), "4.0")
    assert await causes() == [("register.trauma.4.0", True)]
    with pytest.raises(NeedsHuman, match=r"version 4\.0") as held:
        await check_version(store, "trauma", application(strict=True), "4.0")
    assert "register.version" in (held.value.advice or "")

    accepted = application(strict=True, version="4.0")
    await check_version(store, "trauma", accepted, "4.0")
    settings = Settings.model_validate({"departments": {"d": {"applications": {"trauma": accepted}}}})
    await QualityWatch(settings, store).judge()
    assert await causes() == [("register.trauma.4.0", False)]


def test_times_are_in_buckets_of_a_fifth() -> None:
    assert bucket_of(60) == bucket_of(61) < bucket_of(75) < bucket_of(120) == bucket_of(60) + 4
