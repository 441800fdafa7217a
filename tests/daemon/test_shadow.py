"""A study goes to a second vendor too: seen where it is named, delivered nowhere, in nobody's way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg

from gateway.simulate import milvue
from gateway.simulate.front import Fault
from gateway.simulate.milvue import Behaviour, MilvueState
from gateway.simulate.serve import serve
from tests.peers.gateway import PATIENCE, TRAUMA, Hospital, Patient, hospital

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
