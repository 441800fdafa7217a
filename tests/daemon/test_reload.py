"""A changed configuration is in force without a restart, or refused as a whole, in each process of a gateway;
no job is lost over it, and no SIGHUP ends one."""

from __future__ import annotations

import asyncio
import copy
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import structlog
import yaml
from typer.testing import CliRunner

from gateway.__main__ import app
from gateway.settings.load import load
from gateway.simulate.milvue import Behaviour
from tests.peers.gateway import PATIENCE, TRAUMA, Gateway, Hospital, hospital

IN_FORCE = "another configuration is in force"
REFUSED = "a changed configuration is refused; the one before stays in force"


def write(house: Hospital, configuration: Any) -> None:
    beside = house.folder / "gateway.new"
    beside.write_text(configuration if isinstance(configuration, str) else yaml.safe_dump(configuration))
    beside.rename(house.folder / "gateway.yaml")


async def told(gateway: Gateway, event: str, times: int) -> dict[str, Any]:
    async with asyncio.timeout(PATIENCE):
        while len(found := [each for each in gateway.events() if each["event"] == event]) < times:
            assert gateway.process.returncode is None, gateway.log[-2000:]
            await asyncio.sleep(0.05)
    return found[-1]


@asynccontextmanager
async def told_by_all(house: Hospital, event: str) -> AsyncIterator[list[dict[str, Any]]]:
    """What each of them says of it by the end."""
    counted = [
        len([each for each in gateway.events() if each["event"] == event]) for gateway in house.gateways
    ]
    said: list[dict[str, Any]] = []
    yield said
    for gateway, before in zip(house.gateways, counted, strict=True):
        said.append(await told(gateway, event, before + 1))


def taken(gateway: Gateway, revision: str) -> bool:
    return any(each["event"] == IN_FORCE and each["revision"] == revision for each in gateway.events())


def alerts_of(house: Hospital) -> list[dict[str, Any]]:
    events = (each for gateway in house.gateways for each in gateway.events())
    return [
        each for each in events if each["event"] == "alert" and each["cause"].startswith("configuration.")
    ]


def hang_up(house: Hospital) -> None:
    for gateway in house.gateways:
        gateway.process.send_signal(signal.SIGHUP)


@asynccontextmanager
async def hanging_up(house: Hospital) -> AsyncIterator[None]:
    """On whoever starts meanwhile, again and again from the moment on that its program begins to run."""

    async def bombard() -> None:
        while len(house.gateways) < 2:
            await asyncio.sleep(0.005)
        process = house.gateways[1].process
        assert process.pid is not None
        ignored = 0
        while not ignored & 1 << (signal.SIGHUP - 1):
            status = Path(f"/proc/{process.pid}/status").read_text()
            ignored = int(status.partition("SigIgn:")[2].split()[0], 16)
            await asyncio.sleep(0.001)
        while process.returncode is None:
            process.send_signal(signal.SIGHUP)
            await asyncio.sleep(0.01)

    task = asyncio.create_task(bombard())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def stop_amid_signals(gateway: Gateway) -> int:
    async def bombard() -> None:
        with suppress(ProcessLookupError):
            while gateway.process.pid is not None and gateway.process.returncode is None:
                os.kill(gateway.process.pid, signal.SIGHUP)  # send_signal would take its exit code away
                await asyncio.sleep(0.005)

    task = asyncio.create_task(bombard())
    try:
        return await gateway.stop()
    finally:
        task.cancel()
        await asyncio.wait([task])


async def until_waits(house: Hospital, job: dict[str, Any], why: str) -> None:
    async with asyncio.timeout(PATIENCE):
        while why not in ((await house.api("GET", f"jobs/{job['id']}"))[1]["waits"] or {"why": ""})["why"]:
            await asyncio.sleep(0.05)


async def show(house: Hospital) -> dict[str, Any]:
    arguments = ["config", "show", "--json", "--config", str(house.folder / "gateway.yaml")]
    shown = await asyncio.to_thread(CliRunner().invoke, app, arguments)
    structlog.reset_defaults()
    return dict(json.loads(shown.stdout))


@pytest.mark.timeout(300)
async def test_a_changed_configuration_is_in_force_or_refused(tmp_path: Path, database_url: str) -> None:
    async with hospital(tmp_path, database_url) as house:
        token = tmp_path / "token"
        token.write_text(house.milvue.token)
        house.secrets.add("another-secret-of-milvue")
        house.configuration["adapters"]["milvue"]["token"] = f"${{file:{token}}}"
        intake = await house.start("--only", "intake")
        async with hanging_up(house):
            await house.start("--only", "workers", cold=True)
            patient = house.admit(slide=False)
            house.gateways.reverse()
            before = await house.ask(study_instance_uid=patient.study)
            before = await house.settled(before["id"], "done")

        opening = datetime.now() + timedelta(hours=2)
        more = copy.deepcopy(house.configuration)
        applications = more["departments"]["emergency"]["applications"]
        applications["second"] = {**applications[TRAUMA], "display_name": "Second"}
        hours = f"{opening:%H:%M}-{opening + timedelta(hours=1):%H:%M}"
        more["archives"]["night"] = {**more["archives"]["vna"], "hours": hours}
        applications["nightly"] = {**applications[TRAUMA], "display_name": "Nightly", "archives": ["night"]}
        more["adapters"]["milvue"]["max_concurrent"] = 1
        status, _ = await house.api("POST", "jobs", {"application": "second", "study_instance_uid": "1.2"})
        assert status == 404
        write(house, more)
        hang_up(house)
        revision = load(house.folder / "gateway.yaml", {}).revision
        for gateway in house.gateways:
            await house.until(partial(taken, gateway, revision), "it is in force")
        house.milvue.behaviours[patient.study] = Behaviour(delay=0.1)
        job = await house.ask(application="second", study_instance_uid=patient.study)
        done = await house.settled(job["id"], "done")
        assert done["revision"] == revision != before["revision"]
        closed = await house.ask(application="nightly", study_instance_uid=patient.study)
        await until_waits(house, closed, "outside of its hours")

        for wrong, sentence in (
            ("departments: 5", "line 1: departments"),
            ({**more, "data_dir": str(tmp_path / "other")}, "data_dir can't be changed"),
            ({**more, "listen": {"host": "127.0.0.1", "port": 1}}, "listen can't be changed"),
            ({**more, "dimse": {"port": 1}}, "dimse can't be changed"),
            ({**more, "adapters": {"milvue": {"kind": "nobody"}}}, "nobody"),
        ):
            async with told_by_all(house, REFUSED) as said:
                write(house, wrong)
                hang_up(house)
            assert all(sentence in " ".join(each["problems"]) for each in said)
            async with house.http.get(f"{intake.url}/readyz") as answer:
                assert answer.status == 200 and "refused" in (await answer.json())["configuration"]
        async with house.http.get(f"{intake.url}/metrics") as answer:
            assert "gateway_configuration_refused 1.0" in await answer.text()
        await house.until(lambda: alerts_of(house), "somebody is told")
        sentence = alerts_of(house)[0]["sentence"]
        assert "the one before stays in force" in sentence
        assert (await house.api("GET", f"jobs/{job['id']}"))[1]["state"] == "done"
        async with told_by_all(house, IN_FORCE):
            write(house, more)
        async with house.http.get(f"{intake.url}/metrics") as answer:
            assert "gateway_configuration_refused 0.0" in await answer.text()
        _, kept = await house.api("GET", "revisions")
        assert kept["in_force"]["revision"] == revision == (await show(house))["in_force"]["revision"]
        assert "nobody" in kept["revisions"][0]["refused"][0]
        assert house.milvue.token not in json.dumps(kept)
        assert (await house.api("GET", "revisions", role="viewer"))[0] == 403

        house.milvue.behaviours[patient.study] = Behaviour(delay=600)
        at_work = await house.ask(application="second", study_instance_uid=patient.study)
        await house.settled(at_work["id"], "analysing")
        other = house.admit(slide=False)
        next_one = await house.ask(application="second", study_instance_uid=other.study)
        await until_waits(house, next_one, "milvue takes 1 at a time")
        assert (await house.api("GET", "jobs", role="viewer"))[0] == 200
        fewer = copy.deepcopy(more)
        fewer["departments"]["emergency"]["applications"].pop("second")
        fewer["api_tokens"] = [each for each in fewer["api_tokens"] if each["role"] != "viewer"]
        fewer["adapters"]["milvue"]["max_concurrent"] = 4
        fewer["archives"]["night"].pop("hours")
        house.milvue.behaviours[patient.study] = Behaviour(delay=0.1)
        async with told_by_all(house, IN_FORCE):
            write(house, fewer)  # and nobody sends a signal
        assert (await house.api("GET", "jobs", role="viewer"))[0] == 401
        await house.settled(closed["id"], "done")  # long before the hour that it waited for
        held = await house.settled(next_one["id"], "held")
        assert "second" in held["error"]["message"] and held["error"]["advice"]

        house.milvue.token = "another-secret-of-milvue"
        async with told_by_all(house, IN_FORCE):
            token.write_text(house.milvue.token)
        later = await house.ask(application="nightly", study_instance_uid=other.study)
        await house.settled(later["id"], "done")

        async with told_by_all(house, IN_FORCE):
            write(house, more)
            hang_up(house)
        assert (await house.api("POST", f"jobs/{next_one['id']}/resume"))[0] == 200
        await house.settled(next_one["id"], "done")
        _, kept = await house.api("GET", "revisions", params={"limit": "500"})
        in_force = [each["revision"] for each in kept["revisions"] if not each["refused"]]
        assert in_force[0] == in_force[2] == revision and in_force[-1] == before["revision"]
        assert len(in_force) == 4, "each once, however many come to run under it"
        assert [await stop_amid_signals(gateway) for gateway in house.gateways] == [0, 0]
