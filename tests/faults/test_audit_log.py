"""An audit collector hears all that was done with patients' data, though it is stopped and we are killed."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.peers.collector import Heard, Rsyslog, rsyslog
from tests.peers.gateway import Hospital, Patient, hospital

pytestmark = pytest.mark.slow


async def test_nothing_is_lost_or_out_of_order_while_the_collector_is_stopped_and_the_gateway_killed(
    tmp_path: Path, database_url: str
) -> None:
    async with rsyslog(tmp_path / "collector") as collector, hospital(tmp_path, database_url) as house:
        house.configuration["audit_log"] = {**collector.configured(), "source": "gateway.hospital"}
        await house.start()
        first = await _analysed(house)
        await _until_told(collector, first[1])
        await collector.stop()
        second = await _analysed(house)
        async with asyncio.timeout(60):
            while (peer := await _seen(house))["state"] != "away":
                await asyncio.sleep(0.1)
        assert "audit collector" in peer["why"] and "kept" in peer["advice"]
        await house.until(lambda: "alert" in _kinds_of_alerts(house), "it is told")
        await house.gateway.kill()
        await house.start()
        third = await _analysed(house)
        await collector.start()
        await _until_told(collector, second[1])
        await house.gateway.kill()
        await house.start()
        await house.gateway.stop()
        await house.start()
        await _until_told(collector, third[1])
        async with asyncio.timeout(60):
            while (await _seen(house))["state"] != "well":
                await asyncio.sleep(0.1)
        async with asyncio.timeout(240):  # whoever was killed while telling it has its right for a minute
            while "all-clear" not in _kinds_of_alerts(house):
                await asyncio.sleep(0.1)
        acts = await _acts(database_url)
        await house.until(lambda: acts <= _numbers(collector.heard(), "act").keys(), "all acts are told")
        heard = collector.heard()
        for kind in ("act", "event"):
            once = list(_numbers(heard, kind))
            assert once == sorted(once), f"{kind}s aren't told in their order"
        assert Counter(each.kind for each in heard if each.event == "Application Activity").keys() == {
            "Application Start",
            "Application Stop",
        }
        for patient, job in (first, second, third):
            _is_whole(patient, [each for each in heard if each.job == job])


async def _analysed(house: Hospital) -> tuple[Patient, str]:
    patient = house.admit(2)
    await house.fire(patient.slide)
    return patient, str((await house.job_on(patient.slide, "done"))["id"])


async def _seen(house: Hospital) -> dict[str, Any]:
    _, listed = await house.api("GET", "peers", role="viewer")
    [peer] = [each for each in listed["peers"] if each["kind"] == "audit_log"]
    return dict(peer)


def _kinds_of_alerts(house: Hospital) -> set[str]:
    events = [event for gateway in house.gateways for event in gateway.events()]
    return {event["event"] for event in events if event.get("cause") == "audit_log.syslog"}


async def _until_told(collector: Rsyslog, job: str) -> None:
    """Its last delivery, at least."""
    async with asyncio.timeout(60):
        while not any(each.job == job and "destinations.vna" in each.users for each in collector.heard()):
            await asyncio.sleep(0.1)


async def _acts(database_url: str) -> set[int]:
    async with await psycopg.AsyncConnection.connect(database_url) as line:
        return {number for (number,) in await (await line.execute("SELECT id FROM audit")).fetchall()}


def _numbers(heard: list[Heard], kind: str) -> Counter[int]:
    """How often each record was told, in the order of the first times."""
    return Counter(number for known, number in (each.record for each in heard) if known == kind)


def _is_whole(patient: Patient, heard: list[Heard]) -> None:
    """From the search to the last delivery, each with whose it is."""
    told = {each.record: each for each in heard if each.record[0] == "event"}
    kinds = Counter((each.event, each.outcome) for each in told.values())
    assert kinds["Query", "0"] == 1
    assert kinds["Begin Transferring DICOM Instances", "0"] == 1
    assert kinds["DICOM Instances Transferred", "0"] == 2, "to the vendor, and into the archive"
    assert kinds["Patient Record", "0"] == 2, "asked for, and on the slide"
    for each in told.values():
        if each.event != "Patient Record":
            assert each.things("Study Instance UID") == [patient.study]
            assert len(each.things("Patient Number")) == 1
    [arrived] = [
        each for each in told.values() if "adapters.milvue" in each.users and each.told.endswith("the study")
    ]
    counted = arrived.root.iter("SOPClass")
    assert sum(int(each.get("NumberOfInstances")) for each in counted) == len(patient.instances)
