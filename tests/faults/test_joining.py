"""Who asks for what is under way already is told so, and his right to it outlives whoever told him."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from gateway.simulate.front import Fault
from gateway.simulate.milvue import Behaviour
from tests.peers.gateway import Gate, Hospital, Patient, hospital

pytestmark = pytest.mark.slow

SLOW = Behaviour(delay=600)


async def under_way(house: Hospital) -> tuple[Patient, dict[str, Any]]:
    """A slide was imported, and the vendor is at work on it: nobody waits."""
    patient = house.admit()
    house.milvue.behaviours[patient.study] = SLOW
    await house.fire(patient.slide, "newImageFiles")
    return patient, await house.job_on(patient.slide, "analysing")


def asked_who_it_is(house: Hospital, patient: Patient) -> Gate:
    """The next question to Sectra whether it knows a token waits here."""
    return house.gates.close("GET", f"/slides/{patient.slide}/info$")


async def happened_to(house: Hospital, job: dict[str, Any]) -> list[str]:
    _, now = await house.api("GET", f"jobs/{job['id']}")
    return [event["what"] for event in now["events"]]


async def has_joined(house: Hospital, job: dict[str, Any]) -> None:
    async with asyncio.timeout(90):
        while "joined" not in await happened_to(house, job):
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("acknowledge", ["stored", "temporary"])
async def test_who_was_told_that_the_job_is_his_too_has_it_though_all_die(
    tmp_path: Path, database_url: str, acknowledge: str
) -> None:
    async with hospital(tmp_path, database_url) as house:
        house.configuration["sectra"]["acknowledge"] = acknowledge
        first = await house.start()
        patient, job = await under_way(house)
        gate = asked_who_it_is(house, patient)
        assert (await house.fire(patient.slide)).complaints == []
        await gate.wait()
        assert "joined" not in await happened_to(house, job)
        await first.kill()
        gate.opened.set()
        await house.start()
        await has_joined(house, job)
        assert (await house.fire(patient.slide, "cancel")).status == 200
        # the notification's share in it is nobody's to withdraw
        assert "one of its invocations was cancelled" in await happened_to(house, job)
        assert (await happened_to(house, job)).count("joined") == 1


async def test_who_withdraws_after_a_kill_has_never_joined(tmp_path: Path, database_url: str) -> None:
    async with hospital(tmp_path, database_url) as house:
        first = await house.start()
        patient, job = await under_way(house)
        house.sectra.front.faults.append(Fault(path=f"/slides/{patient.slide}/info", status=503))
        await house.fire(patient.slide)
        await first.kill()
        await house.start()
        await house.fire(patient.slide, "cancel")
        house.sectra.front.faults.clear()
        await house.fire(patient.slide)  # and one that comes later has
        await has_joined(house, job)
        assert (await happened_to(house, job)).count("joined") == 1


async def test_of_two_replicas_one_lets_him_in_and_any_takes_his_cancel(
    tmp_path: Path, database_url: str
) -> None:
    async with hospital(tmp_path, database_url) as house:
        doomed = await house.start()
        patient, job = await under_way(house)
        survivor = await house.start()
        house.gateways.append(doomed)
        gate = asked_who_it_is(house, patient)
        assert (await house.fire(patient.slide)).complaints == []
        await gate.wait()
        house.gateways.append(survivor)
        other = asked_who_it_is(house, patient)
        assert not other.reached.is_set()
        await doomed.kill()
        await other.wait()
        assert "joined" not in await happened_to(house, job)
        other.opened.set()
        await has_joined(house, job)
        await house.fire(patient.slide, "cancel")
        assert "one of its invocations was cancelled" in await happened_to(house, job)
        assert (await happened_to(house, job)).count("joined") == 1


async def test_a_cancel_at_another_replica_withdraws_who_is_joining(
    tmp_path: Path, database_url: str
) -> None:
    async with hospital(tmp_path, database_url) as house:
        asked = await house.start()
        patient, job = await under_way(house)
        survivor = await house.start()
        house.gateways.append(asked)
        gate = asked_who_it_is(house, patient)
        await house.fire(patient.slide)
        await gate.wait()
        house.gateways.append(survivor)
        await house.fire(patient.slide, "cancel")
        gate.opened.set()
        await house.fire(patient.slide)
        await has_joined(house, job)
        assert (await happened_to(house, job)).count("joined") == 1


async def test_a_strangers_token_joins_nothing_after_a_kill_either(tmp_path: Path, database_url: str) -> None:
    async with hospital(tmp_path, database_url) as house:
        first = await house.start()
        patient, job = await under_way(house)
        house.sectra.front.faults.append(Fault(path=f"/slides/{patient.slide}/info", status=503))
        body = house.invocation(patient.slide)
        body["callbackInfo"]["token"] = "made-up-by-a-stranger"
        house.secrets.add("made-up-by-a-stranger")
        await house.invoke(body)
        await first.kill()
        house.sectra.front.faults.clear()
        second = await house.start()
        await house.until(
            lambda: any(each["event"] == "an invocation couldn't be seen to" for each in second.events()),
            "he is refused",
        )
        await house.invoke({**body, "action": "cancel"})
        now = await house.settled(job["id"], "analysing")
        assert not {"joined", "cancelled"} & {event["what"] for event in now["events"]}


async def test_whose_job_ended_before_he_was_let_in_has_one_of_his_own(
    tmp_path: Path, database_url: str
) -> None:
    async with hospital(tmp_path, database_url) as house:
        first = await house.start()
        patient, job = await under_way(house)
        gate = asked_who_it_is(house, patient)
        await house.fire(patient.slide)
        await gate.wait()
        await first.kill()
        gate.opened.set()
        house.sectra.front.faults.append(Fault(path=f"/slides/{patient.slide}/info", status=503))
        await house.start()
        assert (await house.api("POST", f"jobs/{job['id']}/cancel"))[0] == 200
        house.sectra.front.faults.clear()
        house.milvue.behaviours[patient.study] = Behaviour()
        async with asyncio.timeout(90):
            while len(await house.jobs_on(patient.slide)) < 2:
                await asyncio.sleep(0.05)
        assert (await house.job_on(patient.slide, "done"))["id"] != job["id"]
