"""What systemd and Kubernetes are told."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import aiohttp
import psycopg
from aiohttp import web
from aiohttp.test_utils import TestServer

from gateway.intake.health import HealthDoor
from gateway.intake.problems import explain
from gateway.jobs.store import Store
from gateway.loops import Loop
from gateway.settings.sections import Settings
from gateway.watch.figures import Figures


async def test_a_loop_that_keeps_failing_is_named_and_nothing_of_what_it_said(
    store: Store, database_url: str
) -> None:
    async def fail() -> None:
        raise ValueError("Doe^Jane")

    doors = web.Application()
    doors.add_routes(HealthDoor(store, database_url, Figures(Settings(), store, str)).routes())
    async with TestServer(doors) as server, aiohttp.ClientSession() as session:
        url = server.make_url("/readyz")
        assert await _asked(session, url) == (200, {"status": "ready"})
        loop = Loop("sealing", first=0.01, most=0.01)
        task: asyncio.Task[None] = asyncio.create_task(loop.run(fail))
        async with asyncio.timeout(30):
            while not loop.keeps_failing:
                await asyncio.sleep(0.01)
        status, told = await _asked(session, url)
        assert status == 200
        assert loop.since is not None
        assert told == {
            "status": "ready",
            "failing": [{"loop": "sealing", "since": loop.since.strftime("%Y-%m-%dT%H:%M:%SZ")}],
        }
        task.cancel()
        await asyncio.wait([task])
        assert await _asked(session, url) == (200, {"status": "ready"})


async def test_a_database_that_stands_still_is_told_at_once_and_costs_one_connection(
    store: Store, database_url: str
) -> None:
    doors = web.Application(middlewares=[explain])
    doors.add_routes(HealthDoor(store, database_url, Figures(Settings(), store, str)).routes())
    async with (
        TestServer(doors) as server,
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(30)) as session,
    ):
        url = server.make_url("/readyz")
        assert await _asked(session, url) == (200, {"status": "ready"})
        frozen = _sessions(database_url)
        for process in frozen:
            os.kill(process, signal.SIGSTOP)
        try:
            for _ in range(8):  # more than there are connections
                status, told = await _asked(session, url)
                assert status == 503
                assert told["detail"] == "the database doesn't answer; check that it runs and can be reached"
            assert _sessions(database_url) == frozen
        finally:
            for process in frozen:
                os.kill(process, signal.SIGCONT)
        async with asyncio.timeout(30):
            while await _asked(session, url) != (200, {"status": "ready"}):
                await asyncio.sleep(0.05)


def _sessions(url: str) -> set[int]:
    ours = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    with psycopg.connect(url) as connection:
        return {pid for (pid,) in connection.execute(ours)}


async def _asked(session: aiohttp.ClientSession, url: Any) -> tuple[int, Any]:
    async with session.get(url) as response:
        return response.status, await response.json(content_type=None)
