"""Who is sent too little raises one alarm, whichever replica sees it, and an arrival clears it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import psycopg

from gateway.jobs.records import NewJob, Origin
from gateway.jobs.store import Store
from gateway.settings.sections import Settings
from gateway.watch.silence import Silence

NOW = datetime(2026, 6, 5, 9, tzinfo=UTC)


@dataclass
class Clock:
    now: datetime = NOW

    def __call__(self) -> datetime:
        return self.now


def settings() -> Settings:
    application = {"display_name": "Trauma", "adapter": "a", "expect": {"within": "4h"}}
    other = {"display_name": "Chest", "adapter": "a"}
    return Settings.model_validate(
        {"departments": {"d": {"applications": {"trauma": application, "x": other}}}}
    )


async def came(store: Store, url: str, at: datetime, application: str = "trauma") -> None:
    job, _ = await store.create(NewJob("d", application, "a", Origin.REST, accession_number="1"))
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute("UPDATE jobs SET created_at = %s WHERE id = %s", (at, job.id))


async def told(url: str) -> list[tuple[str, str, bool]]:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        found = await connection.execute("SELECT cause, sentence, cleared_at IS NULL FROM alerts ORDER BY id")
        return [(row[0], row[1], row[2]) for row in await found.fetchall()]


async def test_one_alarm_whoever_sees_it_and_an_arrival_clears_it(store: Store, database_url: str) -> None:
    clock = Clock()
    replicas = [Silence(settings(), store, clock) for _ in range(3)]

    async def look() -> list[tuple[str, str, bool]]:
        for _ in range(2):
            await asyncio.gather(*(each.look() for each in replicas))
        return await told(database_url)

    await came(store, database_url, NOW)
    await came(store, database_url, NOW + timedelta(hours=3), "x")
    clock.now = NOW + timedelta(hours=3, minutes=59)
    assert await look() == []
    clock.now = NOW + timedelta(hours=4)
    [(cause, sentence, stands)] = await look()
    assert (cause, stands) == ("silence.trauma", True)
    assert sentence.startswith("Trauma got nothing within 4 h of its hours, the last at 2026-06-05 ")

    replicas = [Silence(settings(), store, clock)]  # one that has just started takes nothing back
    assert [stands for _, _, stands in await look()] == [True]
    await came(store, database_url, clock.now + timedelta(minutes=1))
    clock.now += timedelta(minutes=2)
    assert [stands for _, _, stands in await look()] == [False]


async def test_who_was_not_there_or_is_paused_raises_none(store: Store, database_url: str) -> None:
    clock = Clock()
    await came(store, database_url, NOW - timedelta(days=2))
    silence = Silence(settings(), store, clock)  # started again after two days
    await silence.look()
    clock.now += timedelta(hours=3)
    await silence.look()
    await store.pause("applications.trauma", "the scanner is serviced", "ops")
    clock.now += timedelta(hours=9)
    await silence.look()
    assert await told(database_url) == []
    await store.unpause("applications.trauma", "ops")
    clock.now += timedelta(hours=3, minutes=59)
    await silence.look()
    assert await told(database_url) == [], "what didn't come while it was paused isn't missed"
    clock.now += timedelta(minutes=1)
    await silence.look()
    assert len(await told(database_url)) == 1
    await store.pause("applications.trauma", "the scanner is serviced", "ops")
    await silence.look()
    assert [stands for _, _, stands in await told(database_url)] == [False]
