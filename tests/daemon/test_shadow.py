"""A study goes to a second vendor too: seen where it is named, delivered nowhere, in nobody's way."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
import structlog
from typer.testing import CliRunner

from gateway.__main__ import app
from gateway.simulate import milvue
from gateway.simulate.front import Fault
from gateway.simulate.milvue import Behaviour, MilvueState
from gateway.simulate.serve import serve
from tests.peers.gateway import PATIENCE, TOKENS, TRAUMA, Hospital, Patient, hospital

NAMED = f"shadow/{TRAUMA}/second"


@asynccontextmanager
async def with_second_vendor(folder: Path, url: str) -> AsyncIterator[tuple[Hospital, MilvueState]]:
    """Which the application has as its shadow."""
    second = MilvueState(behaviours={"*": Behaviour(delay=0.1)})
    runner, port = await serve(milvue.make_app(second))
    try:
        async with hospital(folder, url) as house:
            adapters = house.configuration["adapters"]
            adapters["second"] = {**adapters["milvue"], "url": f"http://127.0.0.1:{port}"}
            house.application["shadow"] = ["second"]
            yield house, second
    finally:
        await runner.cleanup()


async def shadow_jobs(house: Hospital, *states: str) -> list[dict[str, Any]]:
    """Once there are some in such a state."""
    async with asyncio.timeout(PATIENCE):
        while True:
            _, listed = await house.api("GET", "jobs", params={"application": NAMED})
            if found := [job for job in listed["jobs"] if job["state"] in states]:
                return found
            await asyncio.sleep(0.1)


def rows(url: str, query: str) -> list[Any]:
    with psycopg.connect(url) as connection:
        return connection.execute(query).fetchall()


async def compared(url: str, number: int) -> list[Any]:
    asked = "SELECT own_outcome, own_found, outcome, found, of::text FROM shadows WHERE outcome IS NOT NULL"
    async with asyncio.timeout(PATIENCE):
        while len(found := await asyncio.to_thread(rows, url, asked)) < number:
            await asyncio.sleep(0.1)
    return found


async def run_on(house: Hospital) -> tuple[Patient, dict[str, Any]]:
    patient = house.admit()
    await house.fire(patient.slide)
    return patient, await house.job_on(patient.slide, "done")


async def test_the_study_goes_to_the_shadow_too_and_nothing_of_it_goes_anywhere(tmp_path, database_url):
    async with with_second_vendor(tmp_path, database_url) as (house, second):
        second.behaviours["*"].finds = []
        await house.start()
        patient, job = await run_on(house)
        [shadow] = await shadow_jobs(house, "done")
        assert set(second.arrivals) == set(patient.instances)
        assert set(second.arrivals.values()) == {1}
        [told] = await compared(database_url, 1)
        assert told == ("result", ["fracture"], "result", [], job["id"])

        results = house.results_on(patient.slide)
        assert len(results) == 1, "on the slide stands the real result alone"
        assert len(house.stored_of(patient.study)) == job["proof"]["stored"]
        _, whole = await house.api("GET", f"jobs/{shadow['id']}")
        assert (whole["deliveries"], whole["priority"], whole["slide_id"]) == ([], -1, None)
        _, listed = await house.api("GET", "jobs")
        assert [each["id"] for each in listed["jobs"]] == [job["id"]]
        _, of_study = await house.api("GET", "jobs", params={"study": patient.study})
        assert [each["id"] for each in of_study["jobs"]] == [job["id"]]
        async with house.http.get(f"{house.gateway.url}/metrics") as answer:
            assert "shadow/" not in await answer.text()
        async with asyncio.timeout(PATIENCE):
            while not (
                counted := await asyncio.to_thread(rows, database_url, "SELECT application FROM tallies")
            ):
                await asyncio.sleep(0.2)
        assert {row[0] for row in counted} == {TRAUMA}
        assert patient.accession not in str(
            await asyncio.to_thread(rows, database_url, "SELECT * FROM shadows")
        )


async def compare(house: Hospital, *more: str) -> str:
    config = str(house.folder / "gateway.yaml")
    asked = ["compare", "--application", TRAUMA, "--since", "2026-01-31", "--config", config, *more]
    told = await asyncio.to_thread(CliRunner().invoke, app, asked)
    structlog.reset_defaults()
    assert told.exit_code == 0, told.output
    return told.stdout


async def look_at_quality(house: Hospital) -> str:
    shown = {"Authorization": f"Bearer {TOKENS['viewer']}"}
    async with house.http.get(f"{house.gateway.url}/quality", headers=shown) as answer:
        assert answer.status == 200
        return await answer.text()


async def test_how_far_both_agree_is_told_exactly(tmp_path, database_url):
    """Of eight studies, by what each vendor is told to find in them."""
    fracture, effusion = ["fracture"], ["effusion"]
    said: list[tuple[list[str], list[str]]] = [(fracture, fracture)] * 3
    said += [(fracture, []), ([], effusion), (fracture + effusion, effusion), ([], []), ([], [])]
    async with with_second_vendor(tmp_path, database_url) as (house, second):
        await house.start()
        assert "no study of milvue-trauma went to a shadow since" in await compare(house)
        for own, tried in said:
            patient = house.admit(1)
            for vendor, finds in ((house.milvue, own), (second, tried)):
                wanted = {"study": patient.study, "delay": 0.1, "finds": finds}
                async with house.http.put(f"{vendor.url}/control/behaviour", json=wanted) as answer:
                    assert answer.status == 200
            await house.fire(patient.slide)
        await compared(database_url, len(said))
        told = json.loads(await compare(house, "--json"))
        [shadow] = told["shadows"]
        counted = [shadow[name] for name in ("shadow", "studies", "compared", "under_way")]
        assert counted == ["second", 8, 8, 0]
        assert shadow["ended"] == {"own": {"result": 8}, "shadow": {"result": 8}}
        four = {
            each["finding"]: [each[name] for name in ("both", "own", "shadow", "neither")]
            for each in shadow["findings"]
        }
        assert four == {"any finding": [4, 1, 1, 2], "effusion": [1, 0, 1, 6], "fracture": [3, 2, 0, 3]}
        [of_bones] = [each for each in shadow["findings"] if each["finding"] == "fracture"]
        assert of_bones["agreement"] == 0.75
        chance = 5 / 8 * 3 / 8 + 3 / 8 * 5 / 8
        assert abs(of_bones["kappa"] - (6 / 8 - chance) / (1 - chance)) < 1e-9
        assert of_bones["kappa_95"][0] < of_bones["kappa"] < of_bones["kappa_95"][1]
        assert len(shadow["differ"]) == 3
        assert shadow["median_seconds"]["own"] > 0 and shadow["median_seconds"]["shadow"] > 0
        page = await look_at_quality(house)
        assert "Shadow agreement with second" in page
        fractures = page.partition('<th scope="row">fracture</th>')[2].partition("</tr>")[0]
        assert re.findall(">([^<]+)</td>", fractures)[:2] == ["3", "2"]
        assert "</time> so far" in page, "of today"
        assert "75\u00a0%" in page and "8 with a result of both" in page
        written = await compare(house)
        assert all(len(line) <= 110 for line in written.splitlines())
        assert "milvue-trauma and its shadow second" in written and "75.0 %" in written
        last = of_bones["over_time"][-1]
        assert last["so_far"] and last["first"] == last["last"]


async def test_a_shadow_that_fails_or_is_held_is_nobodys_trouble(tmp_path, database_url):
    async with with_second_vendor(tmp_path, database_url) as (house, second):
        house.application["retry"] = {"attempts": 2, "first": "100ms", "most": "200ms"}
        await house.start()
        second.behaviours["*"].outcome = "error"
        await run_on(house)
        await shadow_jobs(house, "failed")
        second.front.faults[:] = [Fault(method="POST", path="/v3/studies", status=403)]
        await run_on(house)
        await shadow_jobs(house, "held")
        assert sorted(row[2] for row in await compared(database_url, 2)) == ["failed", "held"]
        assert await asyncio.to_thread(rows, database_url, "SELECT cause FROM alerts") == []
        opened = "SELECT peer FROM circuits WHERE state = 'open'"
        assert await asyncio.to_thread(rows, database_url, opened) == []


async def test_a_shadow_gets_a_study_by_a_profile_of_its_own(tmp_path, database_url):
    async with with_second_vendor(tmp_path, database_url) as (house, second):
        house.configuration["profiles"] = {"research": {}}
        other = {**house.application, "adapter": "second", "deidentify": "research", "shadow": []}
        house.configuration["departments"]["emergency"]["applications"]["blind"] = other
        house.application["shadow"] = ["blind"]
        await house.start()
        patient, _ = await run_on(house)
        [told] = await compared(database_url, 1)
        assert (told[2], told[3]) == ("result", ["fracture"])
        assert list(house.milvue.studies) == [patient.study]
        assert list(second.studies) != [patient.study]
        assert set(second.arrivals).isdisjoint(patient.instances)
        got = "".join(str(header) for study in second.studies.values() for header in study.headers.values())
        assert patient.accession not in got and "Zyxwvut" not in got


async def test_a_kill_makes_no_second_shadow_and_loses_none(tmp_path, database_url):
    async with with_second_vendor(tmp_path, database_url) as (house, second):
        first = await house.start()
        gate = house.gates.close("GET", "/v3/smarturgences")
        patient = house.admit()
        await house.fire(patient.slide)
        await gate.wait()
        await first.kill()
        gate.opened.set()
        await house.start()
        await house.job_on(patient.slide, "done")
        assert len(await compared(database_url, 1)) == 1
        assert set(second.arrivals.values()) == {1}
