"""A pod that ends, as Kubernetes ends it: SIGTERM while jobs are amid everything, and SIGKILL if it hasn't
ended within its grace period."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.simulate.milvue import Behaviour
from tests.peers.gateway import Gate, Hospital, Patient, hospital

pytestmark = pytest.mark.slow

WORKERS = Path(__file__).parents[2] / "deploy" / "kubernetes" / "base" / "workers.yaml"
POD = yaml.safe_load(WORKERS.read_text())["spec"]["template"]["spec"]
# What is left of it after SIGTERM.
GRACE = (
    POD["terminationGracePeriodSeconds"] - POD["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
)
BY_LEASE = ("worker silent; another goes on", "worker lost; another goes on")


async def held_at(house: Hospital, method: str, path: str, *, after: bool) -> tuple[Patient, Gate]:
    """A patient whose job stands amid this call; `after` the peer has done what it asks for."""
    gate = house.gates.close(method, path, after=after)
    patient = house.admit(1)
    await house.fire(patient.slide)
    await gate.wait()
    return patient, gate


def told(job: dict[str, Any]) -> list[str]:
    return [event["what"] for event in job["events"]]


async def test_a_pod_that_ends_hands_over_what_is_under_way_and_loses_and_doubles_nothing(
    tmp_path: Path, database_url: str
) -> None:
    async with hospital(tmp_path, database_url) as house:
        ending = await house.start()
        deliveries = [
            await held_at(house, "POST", "/dicom-web/studies", after=after) for after in (False, True)
        ]
        uploads = [await held_at(house, "POST", "/v3/studies$", after=after) for after in (False, True)]
        house.milvue.behaviours["*"] = Behaviour(delay=15)
        polls = [house.admit(1) for _ in range(3)]
        for patient in polls:
            await house.fire(patient.slide)
            await house.job_on(patient.slide, "analysing")
        polls.append((await held_at(house, "GET", "/v3/studies/[^/]+/status$", after=True))[0])

        await house.start()
        ending.process.terminate()
        later = [house.admit(1) for _ in range(2)]
        for patient in later:  # asked of the other meanwhile
            await house.fire(patient.slide)
        async with asyncio.timeout(GRACE):
            assert await ending.process.wait() == 0, "it would have been killed"

        amid = [patient for patient, _ in (*deliveries, *uploads)]
        for patient in (*amid, *polls, *later):
            job = await house.job_on(patient.slide, "done")
            assert not set(told(job)).intersection(BY_LEASE), "the other goes on at once"
            if patient in amid:
                assert "handed back at shutdown" in told(job)
            assert job["proof"]["received"] == job["proof"]["stored"] > 0
            assert house.bytes_arrived(patient) == [1], "nothing is sent twice"
            assert len(house.results_on(patient.slide)) == 1
            assert len(house.stored_of(patient.study)) == job["proof"]["stored"]
