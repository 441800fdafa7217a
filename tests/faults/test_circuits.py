"""A peer that is away, hangs or refuses us, with two gateways: told, waited for, and taken back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from gateway.simulate.front import Fault
from gateway.simulate.milvue import Behaviour
from tests.peers.gateway import PATIENCE, TRAUMA, Hospital, Patient, hospital
from tests.peers.hook import Hook, open_hook
from tests.peers.line import line_to

pytestmark = pytest.mark.slow

TOKEN = "a-token-of-the-webhook"


@asynccontextmanager
async def hooked(house: Hospital) -> AsyncIterator[Hook]:
    async with open_hook() as hook:
        house.configuration["alerts"] = {"webhook": {"url": hook.url, "token": TOKEN}}
        house.secrets.add(TOKEN)
        yield hook


async def waiting_jobs(
    house: Hospital, patients: list[Patient], words: str, application: str = TRAUMA
) -> list[dict[str, Any]]:
    """Each of them waits, and says so everywhere."""
    jobs = []
    for patient in patients:
        async with asyncio.timeout(3 * PATIENCE):  # an archive may search for a minute before it says a word
            while True:
                job = await house.job_on(patient.slide, "received", "locating", "submitting", "analysing")
                if job["waits"] is not None and words in job["waits"]["why"]:
                    break
                await asyncio.sleep(0.1)
        jobs.append(job)

        def says_so(patient: Patient = patient) -> bool:
            return any(words in str(shown) for shown in house.results_on(patient.slide, application))

        try:
            await house.until(says_so, "the slide says what is waited for")
        except AssertionError:
            print(house.results_on(patient.slide, application))
            raise
    return jobs


async def peer_of(house: Hospital, name: str) -> dict[str, Any]:
    _, listed = await house.api("GET", "peers", role="viewer")
    return next(each for each in listed["peers"] if each["name"] == name and each["kind"] != "destinations")


async def whole(house: Hospital, patients: list[Patient], application: str = TRAUMA) -> None:
    for patient in patients:
        await house.job_on(patient.slide, "done")
        assert house.bytes_arrived(patient) == [1] * len(patient.instances)
        [result] = house.results_on(patient.slide, application)
        assert "Milvue" in result["displayResult"]


@pytest.mark.parametrize("how", ["refused", "mute"])
async def test_a_vendor_that_is_away_is_waited_for_by_all_and_told_once(
    tmp_path: Path, database_url: str, how: str
) -> None:
    async with hospital(tmp_path, database_url) as house, hooked(house) as hook:
        vendor = house.configuration["adapters"]["milvue"]
        async with line_to(vendor["url"]) as line:
            vendor |= {"url": line.url, "connect_timeout": "5s", "read_timeout": "5s", "call_timeout": "10s"}
            doomed, survivor = await house.start(), await house.start()
            await (line.cut() if how == "refused" else line.connect(mute=True))
            patients = [house.admit(1) for _ in range(6)]
            for number, patient in enumerate(patients):
                url = f"{(doomed, survivor)[number % 2].url}/ia/milvue-trauma"
                assert (await house.invoke(house.invocation(patient.slide), url=url))[0] == 200
            words = "Milvue is not reachable since" if how == "refused" else "Milvue doesn't answer"
            jobs = await waiting_jobs(house, patients, words)
            assert all(job["attempt"] <= 1 for job in jobs)
            await house.until(lambda: hook.kinds("adapters.milvue") == ["alert"], "an alert goes out")
            peer = await peer_of(house, "milvue")
            assert peer["state"] in ("away", "silent") and peer["jobs_waiting"] >= 1
            await doomed.kill()
            await line.connect()
            await whole(house, patients)
            told = ["alert", "all-clear"]
            await house.until(lambda: hook.kinds("adapters.milvue") == told, "an all-clear goes out")
            assert hook.tokens == {f"Bearer {TOKEN}"}
            assert not any(patient.slide in str(hook.told) for patient in patients)
            assert "is not reachable" in hook.told[0]["sentence"] or "answer" in hook.told[0]["sentence"]


async def test_archives_that_are_away_or_never_answer_are_waited_for_and_delay_no_other(
    tmp_path: Path, database_url: str
) -> None:
    async with hospital(tmp_path, database_url) as house, hooked(house) as hook:
        vna = house.configuration["archives"]["vna"]
        async with line_to(vna["url"]) as line, line_to(vna["url"]) as mute:
            applications = house.configuration["departments"]["emergency"]["applications"]
            for name, url in (("other", vna["url"]), ("mute", mute.url)):
                house.configuration["archives"][name] = {**vna, "url": url}
                applications[name] = {**house.application, "archives": [name], "deliver": ["sectra"]}
            vna |= {"url": line.url}
            await house.start()
            await line.cut()
            await mute.connect(mute=True)
            unanswered = [house.admit(1) for _ in range(2)]
            for patient in unanswered:
                await house.fire(patient.slide, applicationId="mute")
            patients = [house.admit(1) for _ in range(3)]
            for patient in patients:
                await house.fire(patient.slide)
            await waiting_jobs(house, patients, "the archive vna is not reachable since")
            other = house.admit(1)
            await house.fire(other.slide, applicationId="other")
            await house.job_on(other.slide, "done")
            await house.until(lambda: "alert" in hook.kinds("archives.vna"), "an alert goes out")
            await line.connect()
            await whole(house, patients)
            await house.until(lambda: "all-clear" in hook.kinds("archives.vna"), "an all-clear goes out")
            words = "the archive mute doesn't answer since"
            for job in await waiting_jobs(house, unanswered, words, "mute"):
                assert job["attempt"] <= 1
            await house.until(lambda: "alert" in hook.kinds("archives.mute"), "an alert goes out")
            await mute.connect()
            await whole(house, unanswered, "mute")
            assert hook.kinds("archives.other") == []


async def test_an_archive_that_broke_each_study_but_said_it_was_well_is_tried_again_and_serves_all(
    tmp_path: Path, database_url: str
) -> None:
    async with hospital(tmp_path, database_url) as house:
        await house.start()
        house.archive.front.faults.append(Fault(method="GET", path="/studies/.+", drop=True))
        patients = [house.admit(1) for _ in range(4)]
        for patient in patients:
            await house.fire(patient.slide)
        await waiting_jobs(
            house, patients, "says that it is well, but breaks connections off again and again since"
        )
        house.archive.front.faults.clear()
        await whole(house, patients)
        assert (await peer_of(house, "vna"))["state"] == "well"


@pytest.mark.parametrize(
    ("fault", "words"),
    [(Fault(status=503), "answers 503"), (Fault(drop=True), "breaks connections off")],
    ids=["503", "dropped"],
)
async def test_an_archive_that_breaks_while_nobody_needs_it_is_told_and_so_is_its_end(
    tmp_path: Path, database_url: str, fault: Fault, words: str
) -> None:
    async with hospital(tmp_path, database_url) as house, hooked(house) as hook:
        house.configuration["alerts"]["ask_idle"] = "1s"
        vna = house.configuration["archives"]["vna"]
        vna |= {"owner": "the PACS team", "runbook": "https://wiki.hospital/vna"}
        await house.start()
        house.archive.front.faults.append(fault)
        await house.until(lambda: hook.kinds("archives.vna") == ["alert"], "it is told")
        assert f"vna {words} since" in hook.sentence("archives.vna")
        place = urlsplit(vna["url"]).netloc
        assert hook.told[0]["advice"].endswith(
            f" It is archives.vna at {place}, owned by the PACS team; see https://wiki.hospital/vna."
        )
        assert (await peer_of(house, "vna"))["state"] == "failing"
        house.archive.front.faults.clear()
        await house.until(lambda: hook.kinds("archives.vna") == ["alert", "all-clear"], "its end is told")
        assert {each["cause"] for each in hook.told} == {"archives.vna"}


async def test_a_vendor_that_refuses_us_pauses_itself_until_a_person_says_so(
    tmp_path: Path, database_url: str
) -> None:
    async with hospital(tmp_path, database_url) as house, hooked(house) as hook:
        hook.refusing = 503
        milvue = house.configuration["adapters"]["milvue"]
        milvue["hold_after"] = 3
        right, milvue["token"] = milvue["token"], "a-token-that-has-expired"
        first, second = await house.start(), await house.start()
        patients = [house.admit(1) for _ in range(2)]
        for patient in patients:
            await house.fire(patient.slide)
        await waiting_jobs(house, patients, "Milvue refuses our credentials since")
        await house.until(lambda: hook.refused > 0, "an alert is told to nobody yet")
        hook.refusing = None
        while (await peer_of(house, "milvue"))["state"] != "paused":
            await asyncio.sleep(0.1)
        paused, why = "the gateway has paused Milvue", "it refused our credentials 3 times"

        def is_told() -> bool:
            said = [each["sentence"] for each in hook.told]
            return any(each.startswith(f"{paused} since ") and f": {why}; " in each for each in said)

        await house.until(is_told, "the pause is told")
        await waiting_jobs(house, patients, f"{paused}: {why}")
        for gateway in (first, second):
            await gateway.stop()
        milvue["token"] = right
        await house.start()
        status, peer = await house.api("POST", "adapters/milvue/unpause")
        assert (status, peer["state"]) == (200, "refused")
        await whole(house, patients)
        await house.until(lambda: "all-clear" in hook.kinds("adapters.milvue"), "an all-clear goes out")


@pytest.mark.parametrize("kind", ["applications", "adapters"])
async def test_what_a_person_pauses_takes_work_in_and_goes_on_by_itself(
    tmp_path: Path, database_url: str, kind: str
) -> None:
    async with hospital(tmp_path, database_url) as house:
        await house.start()
        await house.start()
        name = {"applications": "milvue-trauma", "adapters": "milvue"}[kind]
        assert (await house.api("POST", f"{kind}/{name}/pause", {"why": "x"}, role="viewer"))[0] == 403
        assert (await house.api("POST", f"{kind}/nobody/pause", {"why": "x"}))[0] == 404
        assert (await house.api("POST", f"{kind}/{name}/pause", {}))[0] == 422
        status, peer = await house.api("POST", f"{kind}/{name}/pause", {"why": "they move house"})
        assert (status, peer["state"], peer["why"]) == (200, "paused", "they move house")
        patients = [house.admit(1) for _ in range(3)]
        for patient in patients:
            if kind == "applications":  # its first sign comes late: who waits doesn't wait for that
                house.sectra.front.faults.append(Fault(method="POST", path="/results", delay=4, times=1))
            await house.fire(patient.slide)
        for job in await waiting_jobs(house, patients, "is paused since"):
            assert "(they move house); this analysis " in job["waits"]["why"]
            assert (job["waits"]["until"], job["attempt"]) == (None, 0)
        assert (await house.api("POST", f"{kind}/{name}/unpause"))[0] == 200
        await whole(house, patients)


async def test_a_paused_destination_gets_its_results_later(tmp_path: Path, database_url: str) -> None:
    async with hospital(tmp_path, database_url) as house:
        await house.start()
        await house.api("POST", "destinations/vna/pause", {"why": "its disk is full"})
        patient = house.admit(1)
        await house.fire(patient.slide)

        def on_the_slide() -> bool:
            return any("Milvue" in each["displayResult"] for each in house.results_on(patient.slide))

        await house.until(on_the_slide, "the result is on the slide")
        async with asyncio.timeout(PATIENCE):
            while (job := await house.job_on(patient.slide, "delivering"))["waits"] is None:
                await asyncio.sleep(0.1)
        assert "the destination vna is paused since" in job["waits"]["why"]
        assert house.stored_of(patient.study) == []
        await house.api("POST", "destinations/vna/unpause")
        await house.job_on(patient.slide, "done")
        assert len(house.stored_of(patient.study)) == 2


async def test_a_quota_is_shared_by_all_jobs_of_its_vendor_and_costs_none_of_them_a_try(
    tmp_path: Path, database_url: str
) -> None:
    async with hospital(tmp_path, database_url) as house:
        house.application["retry"] = {"attempts": 2, "first": "1s", "most": "2s"}
        await house.start()
        await house.start()
        early = house.admit(1)
        house.milvue.behaviours[early.study] = Behaviour(delay=600)
        await house.fire(early.slide)
        await house.job_on(early.slide, "analysing")
        used_up = Fault(method="POST", path="/v3/studies$", status=429, headers={"Retry-After": "2"})
        house.milvue.front.faults.append(used_up)
        first = house.admit(1)
        await house.fire(first.slide)
        await waiting_jobs(house, [first], "takes no more studies for now")
        patients = [first, *(house.admit(1) for _ in range(7))]
        for patient in patients[1:]:
            await house.fire(patient.slide)
        jobs = await waiting_jobs(house, patients, "takes no more studies for now")
        assert all(job["attempt"] == 0 and job["error"]["kind"] == "retryable" for job in jobs)
        async with asyncio.timeout(PATIENCE):  # but while one of them tries
            while (peer := await peer_of(house, "milvue"))["jobs_waiting"] != 8:
                await asyncio.sleep(0.1)
        assert peer["state"] == "busy"

        def refused() -> int:
            return sum(call.status == 429 for call in house.milvue.front.calls)

        several = refused() + 4
        house.milvue.behaviours[early.study] = Behaviour(delay=0)
        house.milvue.studies[early.study].done_at = 0
        await whole(house, [early])  # its results are asked for all the same
        await house.until(lambda: refused() >= several, "one after the other tries")
        house.milvue.front.faults.clear()
        await whole(house, patients)
        assert refused() < 8 * 4, "not each of them each time"
        for patient in patients:
            job = await house.job_on(patient.slide, "done")
            assert not [event for event in job["events"] if event["state"] == "held"]
