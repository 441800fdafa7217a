"""Peers that die, hang, cut, refuse and forget in the middle of the work, and bugs of our own."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import pytest_asyncio

from gateway.simulate import sectra_state
from gateway.simulate.archive import Manners
from gateway.simulate.front import Fault
from gateway.simulate.milvue import Behaviour
from tests.peers.gateway import TRAUMA, Hospital, Patient, hospital

pytestmark = pytest.mark.slow


@pytest_asyncio.fixture
async def house(tmp_path: Path, database_url: str) -> AsyncIterator[Hospital]:
    async with hospital(tmp_path, database_url) as opened:
        opened.application["retry"]["attempts"] = 4
        yield opened


async def whole(house: Hospital, patient: Patient) -> dict[str, Any]:
    job = await house.job_on(patient.slide, "done")
    assert house.bytes_arrived(patient) == [1] * len(patient.instances)
    [result] = house.results_on(patient.slide)
    assert "Milvue" in result["displayResult"]
    assert len(house.stored_of(patient.study)) == 2
    return job


async def waiting(house: Hospital, patient: Patient, *states: str) -> dict[str, Any]:
    """Its job, once it waits for a peer that is away."""
    while True:
        job = await house.job_on(patient.slide, *states)
        waits = job["waits"]
        if waits is not None and not waits["until"] and not waits["why"].startswith("waiting for its turn"):
            return job
        await asyncio.sleep(0.1)


# -- Milvue -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("done", [False, True], ids=["nothing-arrived", "all-arrived"])
async def test_a_broken_upload_is_asked_about_before_it_is_repeated(house: Hospital, done: bool) -> None:
    await house.start()
    patient = house.admit()
    house.milvue.front.faults.append(
        Fault(method="POST", path="/v3/studies$", times=1, drop=not done, drop_answer=done)
    )
    await house.fire(patient.slide)
    await whole(house, patient)
    assert house.milvue.posts == {patient.study: 1}
    first = [call.method for call in house.milvue.front.calls][:3]
    assert first[:2] == ["POST", "GET"], "asked before anything is sent again"


async def test_a_broken_signed_upload_goes_on_with_what_is_missing(house: Hospital) -> None:
    house.configuration["adapters"]["milvue"]["signed_url"] = True
    await house.start()
    patient = house.admit(4)
    house.milvue.front.faults += [
        Fault(method="PUT", path="/blob/", skip=2, times=1, drop=True),
        Fault(method="PUT", path="/blob/", skip=1, times=1, status=503),
    ]
    await house.fire(patient.slide)
    await whole(house, patient)
    assert house.milvue.posts == {patient.study: 1}


async def test_a_quota_is_waited_for_and_a_person_may_try_at_once(house: Hospital) -> None:
    await house.start()
    patient = house.admit()
    house.milvue.behaviours[patient.study] = Behaviour(outcome="quota")
    await house.fire(patient.slide)
    job = await house.job_on(patient.slide, "submitting")
    while job["error"] is None:
        job = await house.settled(job["id"], "submitting")
    assert job["error"]["kind"] == "retryable" and "quota" in job["error"]["message"], job["error"]
    assert house.bytes_arrived(patient) == [0, 0]
    house.milvue.behaviours[patient.study] = Behaviour(delay=0)
    assert (await house.api("POST", f"jobs/{job['id']}/retry"))[0] == 200
    await whole(house, patient)


async def test_a_vendor_that_never_ends_holds_the_job_and_can_be_waited_for(house: Hospital) -> None:
    house.application["result_within"] = "1s"
    await house.start()
    patient = house.admit()
    house.milvue.behaviours[patient.study] = Behaviour(delay=600)
    await house.fire(patient.slide)
    job = await house.job_on(patient.slide, "held")
    assert "no result within 1 s" in job["error"]["message"]
    house.milvue.behaviours[patient.study] = Behaviour(delay=0)
    house.milvue.studies[patient.study].done_at = 0
    await house.api("POST", f"jobs/{job['id']}/resume")
    await whole(house, patient)


async def test_a_result_that_comes_after_all_is_taken_up_by_itself(house: Hospital) -> None:
    house.application["result_within"] = "1s"
    await house.start()
    patient = house.admit()
    house.milvue.behaviours[patient.study] = Behaviour(delay=600)
    await house.fire(patient.slide)
    await house.job_on(patient.slide, "held")
    await house.until(
        lambda: "on hold" in house.results_on(patient.slide)[0]["displayResult"], "the slide says so"
    )

    def asked() -> int:
        return sum(call.path.endswith("/status") for call in house.milvue.front.calls)

    before = asked()
    await house.until(lambda: asked() > before, "it is asked again")
    job = await house.job_on(patient.slide, "held")
    assert "no result within 1 s" in job["error"]["message"]
    house.milvue.studies[patient.study].done_at = 0
    done = await whole(house, patient)
    [event] = [each for each in done["events"] if each["what"].startswith("goes on by itself")]
    assert event["state"] == "analysing"
    assert done["proof"]["sent"] == 2 and house.milvue.posts == {patient.study: 1}


async def test_a_vendor_that_takes_no_questions_is_waited_for_beyond_its_time(house: Hospital) -> None:
    house.application["result_within"] = "2s"
    await house.start()
    patient = house.admit()
    silent = Fault(method="GET", path="/v3/studies/", status=429, headers={"Retry-After": "1"}, times=6)
    house.milvue.front.faults.append(silent)
    await house.fire(patient.slide)
    done = await whole(house, patient)
    assert not [event for event in done["events"] if event["state"] == "held"]
    assert silent.times == 0


async def test_results_that_are_lost_are_not_waited_for_without_end(house: Hospital) -> None:
    house.application["result_within"] = "2s"
    house.application["retry"] = {"attempts": 100, "first": "100ms", "most": "100ms"}
    await house.start()
    patient = house.admit()
    house.archive.front.faults.append(Fault(method="POST", path="/studies", status=503))
    await house.fire(patient.slide)
    job = await house.job_on(patient.slide, "delivering")
    house.milvue.behaviours[patient.study] = Behaviour(delay=600)
    house.milvue.studies[patient.study].done_at = time.monotonic() + 600
    shutil.rmtree(house.folder / "data" / "spool" / job["id"])
    held = await house.settled(job["id"], "held")
    assert "no result within 2 s" in held["error"]["message"]
    assert [event["what"] for event in held["events"]].count("collecting the results again") == 1
    house.archive.front.faults.clear()
    house.milvue.studies[patient.study].done_at = 0
    await house.api("POST", f"jobs/{job['id']}/resume")
    await whole(house, patient)


async def test_a_delivery_that_fails_says_so_at_once_and_everywhere(house: Hospital) -> None:
    await house.start()
    patient = house.admit()
    busy = Fault(method="POST", path="/studies", status=503, headers={"Retry-After": "3000"})
    house.archive.front.faults.append(busy)
    await house.fire(patient.slide)
    job = await house.job_on(patient.slide, "delivering")
    while job["waits"] is None:
        job = await house.settled(job["id"], "delivering")
    failing = next(each for each in job["deliveries"] if each["destination"] == "vna")
    assert failing["state"] == "pending" and "503" in failing["last_error"]
    assert failing["next_at"] is not None and job["waits"]["until"] == job["next_at"]
    for told in (job["waits"]["why"], job["error"]["message"]):
        assert told == f"not delivered everywhere: {failing['last_error']}" and "vna" in told
    [listed] = await house.jobs_on(patient.slide)
    assert (listed["error"], listed["waits"]) == (job["error"], job["waits"])
    said = [line for line in house.gateway.events() if line.get("destination") == "vna"]
    assert said[0]["error"] == failing["last_error"] and said[0]["after"] >= 3000
    house.archive.front.faults.clear()
    await house.api("POST", f"jobs/{job['id']}/retry")
    done = await whole(house, patient)
    assert (done["error"], done["waits"]) == (None, None)


async def test_jobs_go_on_by_themselves_once_a_wrong_token_is_mended(house: Hospital) -> None:
    milvue = house.configuration["adapters"]["milvue"]
    right, milvue["token"] = milvue["token"], "a-token-that-has-expired"
    await house.start()
    patients = [house.admit() for _ in range(2)]
    for patient in patients:
        await house.fire(patient.slide)
        waits = await waiting(house, patient, "submitting")
        assert waits["waits"]["why"].startswith("Milvue refuses our credentials since ")
    await house.gateway.stop()
    milvue["token"] = right
    await house.start()
    for patient in patients:
        await whole(house, patient)


@pytest.mark.parametrize("fetching", [False, True], ids=["looking", "fetching"])
async def test_jobs_go_on_by_themselves_once_an_archive_is_back(house: Hospital, fetching: bool) -> None:
    house.application["retry"] = {"attempts": 2, "first": "10ms", "most": "20ms"}
    await house.start()
    patient = house.admit()
    away = Fault(method="GET", path=f"/studies/{patient.study}$" if fetching else "/dicom-web", status=503)
    house.archive.front.faults.append(away)
    await house.fire(patient.slide)
    if fetching:  # it is well, and yet doesn't give this one study
        await house.job_on(patient.slide, "held")
    else:
        waits = await waiting(house, patient, "locating")
        assert waits["waits"]["why"].startswith("the archive vna answers 503 since ")
    house.archive.front.faults.clear()
    done = await whole(house, patient)
    again = "goes on by itself: archives.vna answers again"
    assert (again in [event["what"] for event in done["events"]]) == fetching


async def test_a_result_on_the_slide_outlasts_the_wait_for_another_destination(house: Hospital) -> None:
    """Neither that the way elsewhere is barred nor that it is free again is worth as much as the result."""
    await house.start()
    assert (await house.api("POST", "destinations/vna/pause", {"why": "new disks"}))[0] == 200
    patient = house.admit()
    await house.fire(patient.slide)
    job = await house.job_on(patient.slide, "delivering")
    while job["waits"] is None:
        job = await house.settled(job["id"], "delivering")
    [result] = house.results_on(patient.slide)
    assert result["displayResult"].startswith("Milvue")
    assert (await house.api("POST", "destinations/vna/unpause", {}))[0] == 200
    await whole(house, patient)


async def test_a_delivery_goes_on_by_itself_once_its_destination_is_back(house: Hospital) -> None:
    house.application["retry"] = {"attempts": 2, "first": "10ms", "most": "20ms"}
    await house.start()
    patient = house.admit()
    house.archive.front.faults.append(Fault(method="POST", path="/studies", status=503))
    await house.fire(patient.slide)
    held = await house.job_on(patient.slide, "held")
    assert held["error"]["message"].startswith("not delivered everywhere: the archive vna ")
    house.archive.front.faults.clear()
    done = await whole(house, patient)
    assert "goes on by itself: destinations.vna answers again" in [event["what"] for event in done["events"]]


# -- archives -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "manners",
    [
        Manners(cut_after=1, cut="silent"),
        Manners(cut_after=1, cut="reset"),
        Manners(cut_after=0, cut="silent"),
        Manners(promise_more=1),
        Manners(duplicates=1),
    ],
    ids=["cut", "reset", "cut-first", "promises-more", "twice"],
)
async def test_a_study_that_does_not_come_whole_is_never_taken_for_whole(
    house: Hospital, manners: Manners
) -> None:
    await house.start()
    patient = house.admit(3)
    house.archive.manners = manners
    await house.fire(patient.slide)
    job = await house.job_on(patient.slide, "held")
    assert job["error"]["kind"] == "retryable" and "vna" in job["error"]["message"]
    assert house.milvue.posts == {}
    house.archive.manners = Manners()
    await house.api("POST", f"jobs/{job['id']}/resume")
    await whole(house, patient)


# -- Sectra -------------------------------------------------------------------------------------------


async def test_a_token_that_dies_early_waits_for_a_person_or_the_next_click(house: Hospital) -> None:
    await house.start()
    patient = house.admit()
    gate = house.gates.close("GET", "/v3/studies/[^/]+/status$")
    await house.fire(patient.slide)
    await gate.wait()
    house.sectra.kill_tokens()
    gate.opened.set()
    job = await house.job_on(patient.slide, "held")
    assert "refused our credentials (401)" in job["error"]["message"]
    assert {each["destination"]: each["state"] for each in job["deliveries"]} == {
        "sectra": "held",
        "vna": "done",
    }
    await house.fire(patient.slide)  # brings a new token to the job that is there
    await house.api("POST", f"jobs/{job['id']}/resume")
    assert (await whole(house, patient))["id"] == job["id"]


async def test_a_user_of_our_own_outlives_the_tokens(house: Hospital) -> None:
    server = house.configuration["sectra"]["servers"]["main"]
    server |= {"username": sectra_state.USERNAME, "password": sectra_state.PASSWORD}
    await house.start()
    patient = house.admit()
    gate = house.gates.close("GET", "/v3/studies/[^/]+/status$")
    await house.fire(patient.slide)
    await gate.wait()
    house.sectra.kill_tokens()
    gate.opened.set()
    await whole(house, patient)


@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_a_sectra_that_errs_for_a_while_gets_one_result(house: Hospital, method: str) -> None:
    await house.start()
    patient = house.admit()
    house.sectra.front.faults.append(
        Fault(method=method, path=f"/applications/{TRAUMA}/results", times=3, status=500)
    )
    await house.fire(patient.slide)
    await whole(house, patient)


async def test_an_answer_that_sectra_lost_makes_no_second_result(house: Hospital) -> None:
    await house.start()
    patient = house.admit()
    house.sectra.front.faults.append(
        Fault(method="POST", path=f"/applications/{TRAUMA}/results", times=1, drop_answer=True)
    )
    await house.fire(patient.slide)
    await whole(house, patient)


# -- ourselves ----------------------------------------------------------------------------------------


async def test_a_bug_of_our_own_is_tried_again_then_held_and_tells_where(
    house: Hospital, database_url: str
) -> None:
    first = await house.start()
    patient = house.admit()
    gate = house.gates.close("GET", "/v3/studies/[^/]+/status$")
    await house.fire(patient.slide)
    await gate.wait()
    [job] = await house.jobs_on(patient.slide)
    await first.kill()
    secret = "what-nobody-may-read"
    house.secrets.add(secret)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("UPDATE jobs SET ticket = jsonb_build_object('state', %s::text)", (secret,))
    gate.opened.set()
    await house.start()
    held = await house.job_on(patient.slide, "held")
    assert "KeyError" in held["error"]["message"] and "gateway itself" in held["error"]["message"]
    assert [event["what"][:3] for event in held["events"]].count("try") == 2, "the killed one was the first"
    [*_, last] = [event for event in held["events"] if event["what"] == "held"]
    assert any("ticket_from_json" in place for place in last["detail"]["places"]), last
    assert secret not in str(held)
    broken = [event for event in house.gateway.events() if event["event"] == "a step broke"]
    assert broken and all(event["job"] == job["id"] for event in broken)


async def test_a_database_that_dies_is_waited_for(tmp_path: Path) -> None:
    """The embedded one, which comes back by itself."""
    async with hospital(tmp_path) as house:
        await house.start()
        patient, later = house.admit(), house.admit()
        gate = house.gates.close("GET", "/v3/studies/[^/]+/status$")
        await house.fire(patient.slide)
        await gate.wait()
        pid = (tmp_path / "data/postgres/cluster/postmaster.pid").read_text().split()[0]
        os.kill(int(pid), signal.SIGKILL)
        gate.opened.set()
        statuses = set()
        while 200 not in statuses:
            status, problem, _ = await house.invoke(house.invocation(later.slide))
            assert status in (200, 503), problem
            statuses.add(status)
        ended = "embedded database ended unexpectedly; starting it again"
        await house.until(lambda: ended in house.gateway.log, "the database was gone")
        await whole(house, patient)
        await whole(house, later)


async def test_a_user_hears_soon_that_the_database_stands_still(house: Hospital, database_url: str) -> None:
    """While it does; who asks again once it goes on gets one job, whatever became of the first call."""
    await house.start()
    patient = house.admit()
    with psycopg.connect(database_url) as other:
        other.execute("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE")
        async with asyncio.timeout(25):  # by itself PostgreSQL gives up after thirty
            status, problem, headers = await house.invoke(house.invocation(patient.slide))
        assert (status, headers["Retry-After"]) == (503, "5")
        assert "ask again" in problem["detail"]
        other.rollback()
    assert (await house.invoke(house.invocation(patient.slide)))[0] == 200
    await whole(house, patient)
    assert len(await house.jobs_on(patient.slide)) == 1


async def test_a_spool_that_is_gone_is_said_and_can_be_mended(house: Hospital) -> None:
    await house.start()
    spool = Path(house.configuration["data_dir"]) / "spool"
    shutil.rmtree(spool)
    spool.write_text("in the way")
    patient = house.admit()
    await house.fire(patient.slide)
    job = await house.job_on(patient.slide, "held")
    assert "worker lost" not in job["error"]["message"], job["error"]
    spool.unlink()
    spool.mkdir()
    await house.api("POST", f"jobs/{job['id']}/resume")
    await whole(house, patient)
