"""The VNA, the vendor's token, the RIS and the database are broken one after the other, with two gateways,
one of which has workers alone, and with the waits that hold where nobody configures any: each is told in a
sentence, by webhook, e-mail, metric, REST, console and command, mended with one action, and followed by an
all-clear."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from html import unescape
from pathlib import Path

import aiohttp
import pytest
import structlog
import yaml
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from gateway.__main__ import app
from tests.peers.gateway import TOKENS, Hospital, hospital
from tests.peers.hook import open_hook
from tests.peers.letters import letters
from tests.peers.line import line_to
from tests.peers.ports import free_port
from tests.peers.ris import ris
from tests.soak.postgres import Postgres, postgres

pytestmark = pytest.mark.slow

IN_FORCE = "another configuration is in force"


async def figures(house: Hospital, url: str) -> dict[tuple[str, ...], float]:
    async with house.http.get(f"{url}/metrics") as response:
        text = await response.text()
    families = text_string_to_metric_families(text)
    return {(each.name, *each.labels.values()): each.value for family in families for each in family.samples}


async def until_metric(house: Hospital, url: str, name: tuple[str, ...], value: float) -> None:
    async with asyncio.timeout(60):
        while True:
            with suppress(aiohttp.ClientConnectionError):  # it may only be starting
                if (await figures(house, url)).get(name) == value:
                    return
            await asyncio.sleep(0.3)


async def console(house: Hospital, url: str) -> str:
    headers = {"Authorization": f"Bearer {TOKENS['operator']}"}
    async with house.http.get(url, headers=headers) as page:
        return " ".join(unescape(re.sub("<[^>]*>", " ", await page.text())).split())


async def command(house: Hospital) -> str:
    arguments = ["jobs", "list", "--config", str(house.folder / "gateway.yaml")]
    told = await asyncio.to_thread(CliRunner().invoke, app, arguments)
    structlog.reset_defaults()
    return " ".join(told.output.split())


async def until_said(ask: Callable[[], Awaitable[str]], sentence: str) -> None:
    said = ""
    try:
        async with asyncio.timeout(60):
            while sentence not in (said := await ask()):
                await asyncio.sleep(0.5)
    except TimeoutError:
        raise AssertionError(f"not said: {sentence}; but: {said}") from None


async def test_what_breaks_is_told_once_everywhere_and_so_is_its_end(tmp_path: Path) -> None:
    async with postgres(tmp_path / "postgres") as server:
        await _tell_all(tmp_path, server)


async def _tell_all(folder: Path, server: Postgres) -> None:
    async with (
        hospital(folder, server.url) as house,
        open_hook() as hooked,
        ris() as listener,
        line_to(house.configuration["archives"]["vna"]["url"]) as vna,
        line_to(f"tcp://127.0.0.1:{listener.port}") as to_ris,
    ):
        with letters() as post:
            monitor = free_port()
            house.configuration["archives"]["vna"]["url"] = vna.url
            ris_port = int(to_ris.url.rpartition(":")[2])
            house.configuration["destinations"]["ris"] = {
                "kind": "hl7",
                "host": "127.0.0.1",
                "port": ris_port,
            }
            house.application["deliver"] = ["sectra", "ris"]
            house.configuration["alerts"] = {
                "webhook": {"url": hooked.url},
                "email": {
                    "host": "127.0.0.1",
                    "port": post.port,
                    "from": "gw@hospital.example",
                    "to": ["it@hospital.example"],
                },
            }
            house.configuration["departments"]["emergency"]["contact"] = "er@hospital.example"
            both = await house.start()
            house.configuration["monitor"] = {"port": monitor}
            await house.start("--only", "workers")
            house.gateways.reverse()
            watched = f"http://127.0.0.1:{monitor}"

            async def is_told(cause: str, peer_state: str | None, *words: str, shown: str = "") -> None:
                last = ["reminder" if peer_state == "paused" else "alert"]  # then once more, when it pauses
                await house.until(lambda: hooked.kinds(cause)[-1:] == last, f"{cause} is told")
                await house.until(lambda: post.about(cause)[-1:] == last, f"{cause} is told by mail")
                assert all(word in hooked.sentence(cause) for word in words), hooked.sentence(cause)
                if peer_state is not None:
                    shown_as = "paused_by_gateway" if peer_state == "paused" else peer_state
                    await until_metric(house, watched, ("gateway_peer_state", cause, shown_as), 1)
                    _, listed = await house.api("GET", "peers", role="viewer")
                    kind, _, name = cause.partition(".")
                    [peer] = [
                        each for each in listed["peers"] if (each["kind"], each["name"]) == (kind, name)
                    ]
                    assert peer["state"] == peer_state and peer["why"]

                said = shown or words[0].removesuffix(" since")
                await until_said(partial(console, house, both.url), said)
                await until_said(partial(command, house), said)

            async def is_over(cause: str) -> None:
                await house.until(lambda: hooked.kinds(cause)[-1:] == ["all-clear"], f"{cause} is over")
                await house.until(lambda: post.about(cause)[-1:] == ["all-clear"], f"{cause} is over by mail")
                if cause != "database":
                    await until_metric(house, watched, ("gateway_peer_state", cause, "well"), 1)

            await vna.cut()
            patient = house.admit(1)
            await house.fire(patient.slide)
            await is_told(
                "archives.vna", "away", "vna is not reachable since", "emergency job", "nothing is lost"
            )
            await vna.connect()
            await is_over("archives.vna")
            await house.job_on(patient.slide, "done")

            right, house.milvue.token = house.milvue.token, "another"
            patient = house.admit(1)
            await house.fire(patient.slide)
            await is_told(
                "adapters.milvue",
                "paused",
                "Milvue refuses our credentials since",
                shown="refused our credentials 5 times",
            )
            house.milvue.token = right
            await house.api("POST", "adapters/milvue/unpause", {})
            await is_over("adapters.milvue")
            await house.job_on(patient.slide, "done")

            await to_ris.cut()
            patient = house.admit(1)
            await house.fire(patient.slide)
            await is_told("destinations.ris", "away", "ris is not reachable since")
            await to_ris.connect()
            await is_over("destinations.ris")
            await house.job_on(patient.slide, "done")

            await server.end(signal.SIGQUIT)
            await is_told(
                "database",
                None,
                "the database doesn't answer since",
                "nothing is lost",
                shown="database runs where database_url says",
            )
            house.application["display_name"] = "Milvue of another name"
            (house.folder / "gateway.yaml").write_text(yaml.safe_dump(house.configuration))
            await until_metric(house, watched, ("gateway_database_up",), 0)
            assert ("gateway_jobs_ended_total", "milvue-trauma", "done") in await figures(
                house, both.url
            ) | await figures(house, watched)
            await server.start()
            await is_over("database")
            workers = house.gateways[0]  # what it was told to read meanwhile isn't forgotten
            await house.until(lambda: IN_FORCE in workers.log, "the changed configuration is taken")
            await until_metric(house, watched, ("gateway_database_up",), 1)
            patient = house.admit(1)
            await house.fire(patient.slide)
            await house.job_on(patient.slide, "done")

            for cause in ("archives.vna", "adapters.milvue", "destinations.ris", "database"):
                told = ["alert", *["reminder"] * (cause == "adapters.milvue"), "all-clear"]
                assert hooked.kinds(cause) == told == post.about(cause), cause
            assert post.recipients == {"it@hospital.example", "er@hospital.example"}
            said = str(hooked.told) + str(post.texts)
            assert "Zyxwvut" not in said and "slide-0" not in said
