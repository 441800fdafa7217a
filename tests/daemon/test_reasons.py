"""Why a job waits, or a delivery fails, is told from the first failure on wherever one looks: in the list, in
`show`, by REST, to whoever follows the events, and in the log."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
import structlog
from typer.testing import CliRunner

from gateway.__main__ import app
from gateway.simulate import milvue
from gateway.simulate.front import Fault
from gateway.simulate.milvue import Behaviour, MilvueState
from gateway.simulate.serve import serve
from tests.peers.gateway import PATIENCE, TOKENS, Hospital, hospital
from tests.peers.ports import free_port
from tests.peers.ris import ris


@dataclass
class Case:
    """An application of its own, which differs so from the usual one. `words`: its reason has them. `pause`:
    what is paused before. `happens`: it is something that happened, and not only the order of things."""

    changes: dict[str, Any]
    words: tuple[str, ...]
    pause: str | None = None
    happens: bool = True


CASES = {
    "ris-down": Case({"deliver": ["gone-ris"]}, ("gone-ris", "is not reachable since")),
    "ris-refuses": Case({"deliver": ["ris"]}, ("ris", "answered AE")),
    "archive-away": Case({"archives": ["gone"]}, ("gone", "is not reachable since")),
    "closed": Case({"archives": ["night"]}, ("night", "outside of its hours")),
    "vendor-away": Case({"adapter": "gone"}, ("Milvue", "is not reachable since")),
    "vendor-busy": Case({"adapter": "busy"}, ("429",)),
    "vendor-busy-later": Case({"adapter": "quota"}, ("429",)),
    "vendor-full": Case({"adapter": "narrow"}, ("narrow takes 1 at a time",), happens=False),
    "vendor-paused": Case({"adapter": "idle"}, ("paused since", "they move house"), "adapters/idle"),
    "paused": Case({}, ("paused since", "they move house"), "applications/paused"),
    "ris-paused": Case({"deliver": ["quiet"]}, ("paused since", "they move house"), "destinations/quiet"),
}


def configure(house: Hospital, ports: dict[str, int], busy: str, quota: str) -> None:
    opening = datetime.now() + timedelta(hours=2)
    configuration = house.configuration
    archives, adapters = configuration["archives"], configuration["adapters"]
    archives["night"] = {**archives["vna"], "hours": f"{opening:%H:%M}-{opening + timedelta(hours=1):%H:%M}"}
    archives["gone"] = {"kind": "dicomweb", "url": f"http://127.0.0.1:{ports['archive']}/dicom-web"}
    differing: dict[str, dict[str, Any]] = {
        "gone": {"url": f"http://127.0.0.1:{ports['vendor']}"},
        "busy": {"url": busy},
        "quota": {"url": quota},
        "narrow": {"max_concurrent": 1},
        "idle": {},
    }
    for name, changes in differing.items():
        adapters[name] = {**adapters["milvue"], **changes}
    configuration["destinations"] |= {
        name: {"kind": "hl7", "host": "127.0.0.1", "port": port, "send_again": ["AE"]}
        for name, port in (("gone-ris", ports["nobody"]), ("ris", ports["ris"]), ("quiet", ports["ris"]))
    }
    usual = {
        **house.application,
        "deliver": ["vna"],
        "retry": {"attempts": 500, "first": "1s", "most": "60s"},
    }
    applications = configuration["departments"]["emergency"]["applications"]
    for name, case in CASES.items():
        applications[name] = {**copy.deepcopy(usual), "display_name": name, **case.changes}


@asynccontextmanager
async def vendors() -> AsyncIterator[tuple[str, str]]:
    """One that takes nothing, and one that takes a study and then answers nobody."""
    async with AsyncExitStack() as stack:
        urls = []
        for method in ("POST", "GET"):
            state = MilvueState()
            state.front.faults.append(
                Fault(
                    method=method,
                    path="/v3/",
                    skip=1 if method == "GET" else 0,
                    status=429,
                    headers={"Retry-After": "600"},
                )
            )
            runner, port = await serve(milvue.make_app(state))
            stack.push_async_callback(runner.cleanup)
            urls.append(f"http://127.0.0.1:{port}")
        yield urls[0], urls[1]


async def ask_all(house: Hospital) -> dict[str, str]:
    """Jobs by case; the one that waits for its place does so behind another."""
    for case in CASES.values():
        if case.pause is not None:
            status, _ = await house.api("POST", f"{case.pause}/pause", {"why": "they move house"})
            assert status == 200
    first = house.admit(1, slide=False)
    house.milvue.behaviours[first.study] = Behaviour(delay=600)
    ahead = await house.ask(application="vendor-full", study_instance_uid=first.study)
    await house.settled(ahead["id"], "analysing")
    jobs = {}
    for name in CASES:
        patient = house.admit(1, slide=False)
        jobs[name] = (await house.ask(application=name, study_instance_uid=patient.study))["id"]
    return jobs


def reason_in(text: str, case: Case) -> bool:
    return all(word in text for word in case.words)


def row_of(table: str, job_id: str) -> str:
    lines = table.splitlines()
    first = next(place for place, line in enumerate(lines) if job_id in line)
    more = takewhile(lambda line: line.startswith(" "), lines[first + 1 :])
    return " ".join(" ".join([lines[first], *more]).split())


async def by_rest(house: Hospital, job_id: str, case: Case) -> dict[str, Any]:
    job: dict[str, Any] = {}
    with_timeout = asyncio.timeout(PATIENCE)
    try:
        async with with_timeout:
            while True:
                _, job = await house.api("GET", f"jobs/{job_id}")
                if job["waits"] is not None and reason_in(job["waits"]["why"], case):
                    return job
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(json.dumps(job, indent=1)) from None


async def command(house: Hospital, *arguments: str) -> str:
    config = str(house.folder / "gateway.yaml")
    told = await asyncio.to_thread(CliRunner().invoke, app, ["jobs", *arguments, "--config", config])
    structlog.reset_defaults()
    assert told.exit_code == 0, told.output
    return told.stdout


async def follow(house: Hospital, wanted: dict[str, Case]) -> set[str]:
    """The jobs of whose reason nobody was told who follows the events."""
    untold = set(wanted)
    headers = {"Authorization": f"Bearer {TOKENS['operator']}", "Last-Event-ID": "0-0"}  # a viewer sees less
    address = f"{house.gateway.url}/api/v1/events"
    try:
        async with asyncio.timeout(PATIENCE), house.http.get(address, headers=headers) as events:
            async for line in events.content:
                if line.startswith(b"data: "):
                    event = json.loads(line.removeprefix(b"data: "))
                    case = wanted.get(event["job_id"])
                    if case is not None and reason_in(json.dumps(event), case):
                        untold.discard(event["job_id"])
                        if not untold:
                            break
    except TimeoutError:
        pass
    return untold


@pytest.mark.timeout(300)
async def test_a_reason_stands_wherever_one_looks_from_the_first_failure_on(
    tmp_path: Path, database_url: str
) -> None:
    async with ris() as listener, vendors() as (busy, quota), hospital(tmp_path, database_url) as house:
        listener.answers = ["AE"] * 1000
        ports = {name: free_port() for name in ("archive", "vendor", "nobody")} | {"ris": listener.port}
        configure(house, ports, busy, quota)
        gateway = await house.start()
        jobs = await ask_all(house)
        shown = {name: await by_rest(house, job_id, CASES[name]) for name, job_id in jobs.items()}

        listed = json.loads(await command(house, "list", "--json"))
        waiting = {job["id"]: (job["waits"], job["error"]) for job in listed}  # none while it is tried
        table = await command(house, "list")
        cases = {job_id: CASES[name] for name, job_id in jobs.items()}
        silent: dict[str, set[str]] = {}
        for name, job_id in jobs.items():
            case = CASES[name]
            places = {
                "list": row_of(table, job_id),
                "list --json": json.dumps(waiting[job_id]),
                "show": await command(house, "show", job_id),
            }
            if case.happens:
                lines = (line for line in gateway.log.splitlines() if job_id in line)
                places["log"] = " ".join(line for line in lines if reason_in(line, case))
            for place, text in places.items():
                if not reason_in(text, case):
                    silent.setdefault(place, set()).add(name)
        happened = {job_id: case for job_id, case in cases.items() if case.happens}
        untold = await follow(house, happened)
        silent |= {"events": {name for name, job_id in jobs.items() if job_id in untold}} if untold else {}
        assert silent == {}
        for name in ("ris-down", "ris-refuses", "ris-paused"):
            [delivery] = shown[name]["deliveries"]
            assert reason_in(f"{delivery['destination']} {delivery['last_error']}", CASES[name])
