"""Which processes of the gateway there are: those that say so, and those that no longer do."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from datetime import UTC, datetime
from uuid import UUID, uuid4

import psycopg
import pytest

from gateway.jobs.records import NewJob, Origin
from gateway.jobs.store import Store
from gateway.jobs.store.replicas import Sign
from gateway.watch.roll import Roll

WORKER = 4711


def sign(host: str, process: int) -> Sign:
    return Sign(uuid4(), host, process, "workers", "0.0.9", datetime(2026, 6, 1, tzinfo=UTC))


async def tell(url: str, statement: str, *given: object) -> None:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute(statement, given)


async def heard(store: Store, sign: Sign, url: str, *, seconds_ago: int) -> UUID:
    await store.beat(sign, 0)
    statement = "UPDATE replicas SET seen_at = now() - make_interval(secs => %s) WHERE id = %s"
    await tell(url, statement, seconds_ago, sign.id)
    return sign.id


async def test_whoever_is_present_says_so_until_he_goes(store: Store, database_url: str) -> None:
    store.revision = "r1"
    job, _ = await store.create(NewJob("d", "trauma", "a", Origin.REST, accession_number="1"))
    await tell(database_url, "UPDATE jobs SET lease_holder = %s WHERE id = %s", WORKER, job.id)
    roll = Roll(store, "intake and workers", lambda: WORKER)
    async with roll.present():
        while not (known := await store.replicas()):
            await asyncio.sleep(0.01)
        [here] = known
        assert (here.host, here.process) == (socket.gethostname(), os.getpid())
        assert (here.does, here.revision, here.at_work) == ("intake and workers", "r1", 1)
        assert not here.silent
        store.revision = "r2"
        await roll.look()
        [later] = await store.replicas()
        assert (later.revision, later.began_at) == ("r2", here.began_at)
        assert later.seen_at > here.seen_at
    assert await store.replicas() == []


@pytest.mark.parametrize("host", ["elsewhere", socket.gethostname()])
async def test_who_went_without_a_word_is_silent_until_another_runs_in_his_place(
    store: Store, database_url: str, host: str
) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    await asyncio.to_thread(ended.wait)
    gone = await heard(store, sign(host, ended.pid), database_url, seconds_ago=90)
    alive = await heard(store, sign(host, os.getppid()), database_url, seconds_ago=90)
    brisk = await heard(store, sign(host, ended.pid), database_url, seconds_ago=20)
    forgotten = await heard(store, sign(host, ended.pid), database_url, seconds_ago=4000)
    assert {each.id: each.silent for each in await store.replicas()} == {
        gone: True,
        alive: True,
        brisk: False,
    }
    roll = Roll(store, "workers", lambda: 0)
    await roll.look()
    left = {each.id for each in await store.replicas()}
    assert {alive, brisk} < left and forgotten not in left
    assert (gone in left) == (host == "elsewhere")
