"""A vendor, installed by somebody else, that takes a study and calls back: with and without a slide."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp.test_utils import TestServer

from tests.peers.gateway import TRAUMA, Hospital, hospital
from tests.peers.herald import HeraldVendor, install
from tests.peers.ports import free_port


@pytest.fixture
async def vendor() -> HeraldVendor:
    return HeraldVendor()


@pytest.fixture
async def house(
    tmp_path: Path, database_url: str, vendor: HeraldVendor, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Hospital]:
    installed = tmp_path / "installed"
    installed.mkdir()
    install(installed)
    monkeypatch.setenv("PYTHONPATH", str(installed))
    own = free_port()
    async with (
        TestServer(vendor.make_app(), host="127.0.0.1") as server,
        hospital(tmp_path, database_url) as house,
    ):
        house.configuration["listen"]["port"] = own
        house.configuration["public_url"] = f"http://127.0.0.1:{own}"
        house.configuration["adapters"]["herald"] = {
            "kind": "herald",
            "url": str(server.make_url("/")),
            "token": "t",
        }
        house.application.update(adapter="herald", deliver=["sectra"])
        await house.start(cold=True)  # its adapter was installed after the house was imported
        yield house
        tokens = {token for _, token in vendor.called}
        assert not {token for token in tokens if token in "".join(each.log for each in house.gateways)}


async def test_what_it_tells_ends_the_job(house: Hospital, vendor: HeraldVendor) -> None:
    patient = house.admit(slide=False)
    asked = await house.ask(study_instance_uid=patient.study)
    async with asyncio.timeout(30):
        await vendor.arrived.wait()
    await house.settled(asked["id"], "analysing")
    assert await vendor.tell({"summary": "nobody's"}, token="another") == 401
    assert await vendor.tell({"summary": "2 fractures"}) == 200
    job = await house.settled(asked["id"], "done")
    assert (job["proof"]["promised"], job["proof"]["sent"], job["proof"]["acknowledged"]) == (2, 2, 2)
    assert sum(event["what"] == "the vendor called: POST /done" for event in job["events"]) == 1
    assert await vendor.tell({"summary": "too late"}) == 401
    assert len(vendor.received) == 1


async def test_what_it_tells_before_it_has_answered_counts(house: Hospital, vendor: HeraldVendor) -> None:
    vendor.early = {"summary": "no fracture"}
    patient = house.admit()
    await house.fire(patient.slide)
    await house.job_on(patient.slide, "done")
    (result,) = house.results_on(patient.slide, TRAUMA)
    assert result["displayResult"] == "no fracture"
