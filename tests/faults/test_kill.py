"""The gateway dies at the worst moments. Another goes on; nothing is lost, and nothing is done twice."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from gateway.simulate.front import Fault
from gateway.simulate.milvue import Behaviour
from tests.peers.gateway import PATIENCE, TRAUMA, Hospital, Patient, hospital

pytestmark = pytest.mark.slow

RESULTS = f"/applications/{TRAUMA}/results"
FINAL = "Milvue smarturgences"


async def arrived_once(house: Hospital, patient: Patient, *, on_its_way: int = 0) -> None:
    job = await house.job_on(patient.slide, "done")
    count = len(patient.instances)
    assert job["proof"] == {
        "promised": count,
        "sent": count,
        "acknowledged": count,
        "received": 2,
        "stored": 2,
    }
    assert all(house.bytes_arrived(patient))
    assert sum(house.bytes_arrived(patient)) <= count + on_its_way
    [result] = house.results_on(patient.slide)
    assert FINAL in result["displayResult"]
    assert len(house.stored_of(patient.study)) == 2


MOMENTS = {
    "acknowledging": ("POST", f"{RESULTS}$", "", "received"),
    "locating": ("GET", "/dicom-web/studies$", "", "locating"),
    "listing": ("GET", "/dicom-web/studies/[^/]+/instances$", "", "locating"),
    "fetching": ("GET", "/dicom-web/studies/[^/]+$", "", "submitting"),
    "sending": ("POST", "/v3/studies$", "", "submitting"),
    "polling": ("GET", "/v3/studies/[^/]+/status$", "", "analysing"),
    "collecting": ("GET", "/v3/studies/[^/]+$", "", "analysing"),
    "showing": ("PUT", f"{RESULTS}/", FINAL, "delivering"),
    "storing": ("POST", "/dicom-web/studies", "", "delivering"),
}


@pytest.mark.parametrize("after", [False, True], ids=["asked", "done-unanswered"])
@pytest.mark.parametrize("moment", MOMENTS)
async def test_a_kill_at_any_moment_loses_and_doubles_nothing(
    tmp_path: Path, database_url: str, moment: str, after: bool
) -> None:
    method, path, body, state = MOMENTS[moment]
    async with hospital(tmp_path, database_url) as house:
        first = await house.start()
        patient = house.admit()
        gate = house.gates.close(method, path, after=after, body=body)
        await house.fire(patient.slide)
        await gate.wait()
        [job] = await house.jobs_on(patient.slide)
        whole = moment == "fetching" and after  # by its last boundary, though the answer hasn't ended
        if moment != "acknowledging" and not whole:  # there the worker has begun as well
            assert job["state"] == state
        await first.kill()
        gate.opened.set()  # what the dead one had asked for is done all the same
        await house.start()
        await arrived_once(house, patient)


async def test_a_job_that_was_only_accepted_is_not_lost(tmp_path: Path, database_url: str) -> None:
    async with hospital(tmp_path, database_url) as house:
        intake = await house.start("--only", "intake")
        patient = house.admit()
        assert (await house.fire(patient.slide)).complaints == []
        [job] = await house.jobs_on(patient.slide)
        assert job["state"] == "received"
        await intake.kill()
        await house.start()
        await arrived_once(house, patient)


@pytest.mark.parametrize("signed", [False, True], ids=["stream", "signed-urls"])
async def test_a_kill_in_the_middle_of_the_bytes(tmp_path: Path, signed: bool) -> None:
    """With the embedded database, which dies with the gateway and is there again with the next one."""
    async with hospital(tmp_path) as house:
        house.configuration["adapters"]["milvue"] |= {"signed_url": signed, "uploads_at_once": 1}
        first = await house.start()
        patient = house.admit(4, size=512)  # half a megabyte each
        house.archive.manners.pause = 0.05
        await house.fire(patient.slide)
        so_far = 5 if signed else 1  # the first walk brings the headers

        def is_under_way() -> bool:
            there = any(house.bytes_arrived(patient)) or not signed
            return there and len(house.archive.retrieved) > so_far

        await house.until(is_under_way, "bytes are on their way")
        await first.kill()
        if signed:
            assert 0 < sum(house.bytes_arrived(patient)) < 4
        else:
            assert house.milvue.posts == {}
        house.archive.manners.pause = 0
        await house.start()
        # an instance that was put, and whose answer died with the gateway, is put once more in its place
        await arrived_once(house, patient, on_its_way=1 if signed else 0)


@pytest.mark.parametrize("asks_anew", [False, True])
async def test_another_machine_puts_only_what_is_missing(
    tmp_path: Path, database_url: str, asks_anew: bool
) -> None:
    """The first one's folder is gone with it. Whatever Milvue asks for then is put."""
    async with hospital(tmp_path, database_url) as house:
        house.configuration["adapters"]["milvue"] |= {"signed_url": True, "uploads_at_once": 1}
        first = await house.start()
        patient = house.admit(4)
        house.milvue.behaviours[patient.study] = Behaviour(asks_anew=asks_anew)
        gate = house.gates.close("PUT", "/blob/", skip=2)
        await house.fire(patient.slide)
        await gate.wait()
        job = await house.job_on(patient.slide, "submitting")
        assert sum(house.bytes_arrived(patient)) == 2
        await first.kill()
        shutil.rmtree(tmp_path / "data" / "spool" / job["id"])
        await house.start()
        await arrived_once(house, patient, on_its_way=2 if asks_anew else 0)
        asked = [call.path for call in house.milvue.front.calls if call.method == "POST"]
        assert len(asked) == 2 + asks_anew, "new urls for what is missing"


async def test_a_kill_amid_several_uploads_loses_none_and_repeats_only_what_was_on_its_way(
    tmp_path: Path, database_url: str
) -> None:
    async with hospital(tmp_path, database_url) as house:
        house.configuration["adapters"]["milvue"]["signed_url"] = True
        first = await house.start()
        patient = house.admit(12)
        gate = house.gates.close("PUT", "/blob/", skip=4)
        await house.fire(patient.slide)
        await gate.wait()
        await first.kill()
        await house.start()
        await arrived_once(house, patient, on_its_way=8)  # as many as go at once
        assert house.milvue.posts == {patient.study: 1}


async def test_a_vendor_that_is_slow_to_know_is_asked_again_before_it_is_sent_more(
    tmp_path: Path, database_url: str
) -> None:
    """All bytes had left, and for a moment Milvue's status knows nothing of them."""
    async with hospital(tmp_path, database_url) as house:
        house.configuration["adapters"]["milvue"]["sure_after"] = "60s"
        first = await house.start()
        patient = house.admit()
        gate = house.gates.close("POST", "/v3/studies$", after=True)
        await house.fire(patient.slide)
        await gate.wait()
        house.milvue.front.faults.append(Fault(method="GET", path="/status$", times=1, status=404))
        await first.kill()
        gate.opened.set()
        await house.start()
        job = await house.job_on(patient.slide, "submitting")
        async with asyncio.timeout(PATIENCE):
            while "asked again before anything is sent again" not in str(job["waits"]):
                job = await house.settled(job["id"], "submitting")
        assert (await house.api("POST", f"jobs/{job['id']}/retry"))[0] == 200  # at once
        await arrived_once(house, patient)


async def test_a_stop_on_request_hands_the_work_over(tmp_path: Path, database_url: str) -> None:
    async with hospital(tmp_path, database_url) as house:
        first = await house.start()
        patient = house.admit()
        gate = house.gates.close("GET", "/v3/studies/[^/]+/status$")
        await house.fire(patient.slide)
        await gate.wait()
        first.process.terminate()
        await house.until(lambda: any(e["event"] == "stopping" for e in first.events()), "it stops")
        gate.opened.set()
        assert await first.stop() == 0
        await house.start()
        await arrived_once(house, patient)
