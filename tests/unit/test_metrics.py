"""Every metric is documented, named as Prometheus wants it, and told without asking the database."""

from __future__ import annotations

import asyncio
import subprocess
from datetime import timedelta
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from prometheus_client.parser import text_string_to_metric_families

from gateway import traffic
from gateway.intake import problems
from gateway.intake.health import HealthDoor
from gateway.jobs.cipher import Cipher
from gateway.jobs.store import Store
from gateway.loops import Loop, beside, failing
from gateway.sessions import Sessions
from gateway.settings.sections import Settings
from gateway.watch.catalogue import table
from gateway.watch.figures import Figures

NOWHERE = "postgresql://gateway@127.0.0.1:9/none"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    vna = {"kind": "dicomweb", "url": "http://127.0.0.1:9/dicom-web"}
    return Settings(data_dir=tmp_path, archives={"vna": vna})


def test_the_table_is_that_of_the_code() -> None:
    told = Path(__file__).parents[2].joinpath("deploy/metrics.md").read_text()
    assert table() in told, "put there what `python -m gateway.watch.catalogue` prints"


async def test_they_are_told_while_the_database_is_away(settings: Settings, secret_key: str) -> None:
    store = Store(NOWHERE, Cipher([secret_key]))
    figures = Figures(settings, store, lambda: "abcdef")
    doors = web.Application()
    doors.add_routes(HealthDoor(store, NOWHERE, figures).routes())
    await figures.collect_all()
    async with (
        TestServer(doors) as server,
        aiohttp.ClientSession() as session,
        session.get(server.make_url("/metrics")) as response,
    ):
        text = await response.text()
        assert response.status == 200
    await store.close()
    told = {
        sample.name: sample for family in text_string_to_metric_families(text) for sample in family.samples
    }
    assert told["gateway_database_up"].value == 0
    assert told["gateway_disk_free_bytes"].value > 0
    assert told["gateway_build_info"].labels["revision"] == "abcdef"
    assert "gateway_figures_age_seconds" not in told, "nothing was ever heard of the database"
    checked = subprocess.run(["promtool", "check", "metrics"], input=text, text=True, capture_output=True)
    ours = [line for line in (checked.stdout + checked.stderr).splitlines() if line.startswith("gateway_")]
    assert (ours, checked.returncode in (0, 3)) == ([], True), checked.stderr


async def test_bytes_are_counted_for_whom_the_configuration_names(settings: Settings) -> None:
    async def answer(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(body=b"y" * 50_000)

    doors = web.Application(client_max_size=2**20)
    doors.router.add_post("/dicom-web", answer)
    async with TestServer(doors) as server:
        url = server.make_url("/dicom-web")
        vna = {"kind": "dicomweb", "url": str(url)}
        known = Settings(archives={"vna": vna})
        before = {peer: (traffic.sent[peer], traffic.received[peer]) for peer in ("archives.vna", "others")}
        for configured in (known, None):
            async with (
                Sessions(configured) as sessions,
                sessions.shared.post(url, data=b"x" * 70_000) as response,
            ):
                assert len(await response.read()) == 50_000
        for peer, (sent, received) in before.items():
            assert traffic.sent[peer] - sent >= 70_000, peer
            assert 50_000 <= traffic.received[peer] - received < 52_000, peer


@pytest.mark.parametrize(
    ("loop", "up", "status"), [("engine", True, 503), ("engine", False, 200), ("quality", True, 200)]
)
async def test_a_process_whose_work_stands_still_says_that_it_should_begin_anew(
    settings: Settings, secret_key: str, loop: str, up: bool, status: int
) -> None:
    """Not while it only waits for the database, or lacks something that no work depends on."""

    async def breaks() -> None:
        raise OSError

    store = Store(NOWHERE, Cipher([secret_key]))
    figures = Figures(settings, store, lambda: "abcdef")
    figures.database_up = up
    doors = web.Application(middlewares=[problems.explain])
    doors.add_routes(HealthDoor(store, NOWHERE, figures, patience=timedelta(0)).routes())
    async with (
        beside(Loop(loop, first=0.001, most=0.001).run(breaks)),
        TestServer(doors) as server,
        aiohttp.ClientSession() as session,
    ):
        while not failing():
            await asyncio.sleep(0.001)
        async with session.get(server.make_url("/healthz")) as response:
            assert response.status == status
    await store.close()
