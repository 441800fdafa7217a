"""What Sectra and its users see of the gateway: acknowledgements, changes, cancels, and crowds."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import pytest_asyncio
from aiohttp import ClientSession

from gateway.intake.bodies import OF_VENDORS
from gateway.json_text import count_values
from gateway.simulate.firing import SQUARE
from gateway.simulate.front import Fault
from gateway.simulate.milvue import Behaviour
from tests.peers.dicom_samples import encode, make_instance
from tests.peers.gateway import PATIENCE, TRAUMA, Hospital, hospital

pytestmark = pytest.mark.asyncio(loop_scope="module")

VERSION_HEADERS = ("X-Sectra-ApiVersion", "X-Sectra-SoftwareVersion")
SLOW = Behaviour(delay=600)
RESULTS = f"/applications/{TRAUMA}/results$"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Hospital]:
    async with hospital(tmp_path_factory.mktemp("house")) as opened:
        await opened.start()
        yield opened


@pytest.fixture
def house(running: Hospital) -> Hospital:
    """The one that all tests here share, as if nothing had been disturbed."""
    for state in (running.sectra, running.archive, running.milvue):
        state.front.faults.clear()
    running.gates.open_all()
    return running


def shown(house: Hospital, slide: str) -> str:
    [result] = house.results_on(slide)
    return str(result["displayResult"])


# -- acknowledgements ---------------------------------------------------------------------------------


async def test_a_create_is_answered_with_what_sectra_stored(house: Hospital) -> None:
    patient = house.admit()
    hold = house.gates.close("GET", f"/studies/{patient.study}$")
    answer = await house.fire(patient.slide)
    assert answer.complaints == []
    [stored] = house.results_on(patient.slide)
    assert answer.body["id"] == stored["id"]
    assert "queued" in answer.body["displayResult"]
    assert answer.body["displayProperties"]["Progress"] == "0 %"
    hold.opened.set()
    await house.job_on(patient.slide, "done")
    assert "queued" not in shown(house, patient.slide)


@pytest.mark.parametrize("after", [False, True], ids=["unread", "stored"])
async def test_a_sectra_that_hangs_costs_the_user_nothing_and_gets_one_result(
    house: Hospital, after: bool
) -> None:
    """The result is on its way when the user is answered; the worker must not store a second one."""
    patient = house.admit()
    hold = house.gates.close("POST", RESULTS, after=after)
    answer = await house.fire(patient.slide)
    assert hold.reached.is_set() and answer.complaints == []
    assert "id" not in answer.body and "queued" in answer.body["displayResult"]
    await house.job_on(patient.slide, "analysing", "delivering")
    hold.opened.set()
    await house.job_on(patient.slide, "done")
    assert "Milvue" in shown(house, patient.slide)


async def test_a_sectra_that_is_down_gets_its_result_later(house: Hospital) -> None:
    patient = house.admit()
    house.sectra.front.faults.append(Fault(path="/slides/|/applications/", drop=True))
    answer = await house.fire(patient.slide)
    assert answer.complaints == [] and "id" not in answer.body
    job = await house.job_on(patient.slide, "locating")
    assert house.results_on(patient.slide) == []
    house.sectra.front.faults.clear()
    await house.settled(job["id"], "done")
    assert "Milvue" in shown(house, patient.slide)


# -- cancel, delete, modify ---------------------------------------------------------------------------


async def test_a_cancel_ends_an_analysis_at_work(house: Hospital) -> None:
    patient = house.admit()
    house.milvue.behaviours[patient.study] = SLOW
    await house.fire(patient.slide)
    await house.job_on(patient.slide, "analysing")
    assert (await house.fire(patient.slide, "cancel")).complaints == []
    await house.job_on(patient.slide, "cancelled")
    await house.until(lambda: "cancelled" in shown(house, patient.slide), "the slide says so")


async def test_what_was_cancelled_goes_on_nowhere_while_sectra_is_away(house: Hospital) -> None:
    patient = house.admit()
    house.milvue.behaviours[patient.study] = SLOW
    await house.fire(patient.slide)
    job = await house.job_on(patient.slide, "analysing")
    house.sectra.front.faults.append(Fault(drop=True))
    assert (await house.api("POST", f"jobs/{job['id']}/cancel"))[0] == 200
    said: list[str] = []
    async with asyncio.timeout(PATIENCE):
        while not said:
            job = await house.settled(job["id"], "cancelled")
            told = [each["what"] for each in job["events"] if each["state"] == "cancelled"]
            said = [what for what in told if what.startswith("waiting: ")]
    assert "this analysis" not in str(said) and "the slide is told of the end" in said[-1]
    house.sectra.front.faults.clear()
    await house.until(lambda: "cancelled" in shown(house, patient.slide), "the slide says so")


async def test_a_sign_that_sectra_took_is_taken_back_though_it_refuses_our_token_meanwhile(
    house: Hospital,
) -> None:
    patient = house.admit()
    house.sectra.front.faults.append(Fault(path=f"/slides/{patient.slide}/info$", skip=1, status=401))
    await house.fire(patient.slide)
    assert "queued" in shown(house, patient.slide)
    house.sectra.front.faults[:] = [Fault(status=401)]
    await house.fire(patient.slide, "cancel")
    job = await house.job_on(patient.slide, "cancelled")
    said: list[str] = []
    async with asyncio.timeout(PATIENCE):
        while not said:
            job = await house.settled(job["id"], "cancelled")
            told = [each["what"] for each in job["events"] if each["state"] == "cancelled"]
            said = [what for what in told if "slide" in what]
    house.sectra.front.faults.clear()
    await house.until(lambda: "cancelled" in shown(house, patient.slide), f"the slide says so: {said}")


async def test_a_cancel_while_the_acknowledgement_is_being_stored_leaves_one_result(house: Hospital) -> None:
    patient = house.admit()
    hold = house.gates.close("POST", RESULTS, after=True)
    asking = asyncio.create_task(house.fire(patient.slide))
    await hold.wait()
    assert (await house.fire(patient.slide, "cancel")).body == []
    hold.opened.set()
    assert (await asking).complaints == []
    await house.job_on(patient.slide, "cancelled")
    await house.until(lambda: "cancelled" in shown(house, patient.slide), "the slide says so")


async def test_a_cancel_ends_a_job_that_waits_for_its_retry(house: Hospital) -> None:
    patient = house.admit()
    house.archive.front.faults.append(Fault(path="/dicom-web", status=503, headers={"Retry-After": "3000"}))
    await house.fire(patient.slide)
    await house.until(lambda: house.archive.front.count("GET", "/dicom-web/studies$") > 0, "it asked")
    job = await house.job_on(patient.slide, "locating")
    while job["error"] is None:
        job = await house.settled(job["id"], "locating")
    assert job["error"]["kind"] == "retryable"
    assert (await house.fire(patient.slide, "cancel")).body == []
    job = await house.settled(job["id"], "cancelled")
    await house.until(lambda: "cancelled" in shown(house, patient.slide), "the slide says so")


async def test_a_cancel_in_the_middle_of_sending_sends_nothing_more(house: Hospital) -> None:
    patient = house.admit()
    hold = house.gates.close("GET", f"/studies/{patient.study}$")
    await house.fire(patient.slide)
    await hold.wait()
    await house.fire(patient.slide, "cancel")
    job = await house.job_on(patient.slide, "cancelled")
    hold.opened.set()
    await house.until(lambda: "cancelled" in shown(house, patient.slide), "the slide says so")
    assert house.bytes_arrived(patient) == [0, 0]
    assert [event["what"] for event in job["events"]].count("cancelled") == 1


async def test_a_sectra_away_for_longer_than_any_budget_hears_the_end_all_the_same(house: Hospital) -> None:
    house.show("slide-of-nobody")
    house.sectra.front.faults.append(Fault(path="/results", status=503))
    await house.fire("slide-of-nobody")
    job = await house.job_on("slide-of-nobody", "failed")
    untold = "the slide couldn't be told yet"
    async with asyncio.timeout(60):
        while [event["what"] for event in job["events"]].count(untold) < 6:  # as many as there are tries
            job = await house.settled(job["id"], "failed")
    house.sectra.front.faults.clear()
    await house.until(lambda: house.results_on("slide-of-nobody"), "the slide says so")
    assert "names neither a study" in shown(house, "slide-of-nobody")


async def test_a_result_waits_for_a_sectra_that_is_away_for_longer_than_any_budget(house: Hospital) -> None:
    patient = house.admit()
    hold = house.gates.close("GET", f"/studies/{patient.study}$")
    await house.fire(patient.slide)
    house.sectra.front.faults.append(Fault(path=f"/{TRAUMA}/results", status=503))
    hold.opened.set()
    job = await house.job_on(patient.slide, "delivering")
    async with asyncio.timeout(60):
        while next(each["attempts"] for each in job["deliveries"] if each["destination"] == "sectra") < 7:
            job = await house.settled(job["id"], "delivering")
    house.sectra.front.faults.clear()
    await house.settled(job["id"], "done")
    assert "Milvue" in shown(house, patient.slide)


async def test_asked_for_again_a_held_job_says_why_and_can_be_cancelled(house: Hospital) -> None:
    patient = house.admit(slide=False)
    house.admit(slide=False, twin_of=patient)
    house.show("slide-of-two", accession_number=patient.accession)
    await house.fire("slide-of-two")
    job = await house.job_on("slide-of-two", "held")
    await house.until(lambda: "on hold" in shown(house, "slide-of-two"), "the slide says so")
    await house.fire("slide-of-two", "delete")
    assert house.results_on("slide-of-two") == []
    answer = await house.fire("slide-of-two")
    assert (answer.status, answer.complaints) == (200, [])
    assert job["error"]["message"] in answer.body["displayResult"]
    assert shown(house, "slide-of-two") == answer.body["displayResult"]
    assert [each["id"] for each in await house.jobs_on("slide-of-two")] == [job["id"]]
    await house.fire("slide-of-two", "cancel")
    await house.settled(job["id"], "cancelled")
    await house.until(lambda: "cancelled" in shown(house, "slide-of-two"), "the slide says so")


async def test_asked_for_again_a_job_held_for_a_passing_cause_goes_on(house: Hospital) -> None:
    patient = house.admit()
    house.milvue.behaviours[patient.study] = Behaviour(delay=0, spoil="cut")
    await house.fire(patient.slide)
    job = await house.job_on(patient.slide, "held")
    house.milvue.behaviours[patient.study] = Behaviour(delay=0)
    await house.until(lambda: "on hold" in shown(house, patient.slide), "the slide says so")
    await house.fire(patient.slide, "delete")
    answer = await house.fire(patient.slide)
    assert "on hold" not in answer.body["displayResult"]
    await house.settled(job["id"], "done")
    assert "Milvue" in shown(house, patient.slide)


@pytest.mark.parametrize("action", ["modify", "delete"])
async def test_the_largest_result_that_a_vendor_may_store_can_be_changed_and_deleted(
    house: Hospital, action: str
) -> None:
    patient = house.admit(1)
    await house.fire(patient.slide)
    await house.job_on(patient.slide, "done")
    [stands] = house.results_on(patient.slide)
    outline = [{"x": 0.123456789, "y": 0.987654321}] * 80_000
    content = [{"label": "", "style": None, "polygons": [{"points": outline}]}]
    large = {**stands, "data": {**stands["data"], "result": {"type": "primitive", "content": content}}}
    assert len(json.dumps(large, separators=(",", ":"))) > 0.8 * OF_VENDORS.size
    assert count_values(json.dumps(large).encode()) > 0.9 * OF_VENDORS.values
    body = house.invocation(patient.slide, action=action, input=large)
    status, answer, _ = await house.invoke(body)
    assert status == 200, answer


async def test_a_user_who_joins_what_an_import_began_is_told_that_it_does_not_suit(
    tmp_path: Path, database_url: str
) -> None:
    async with hospital(tmp_path, database_url) as house:
        house.application["accept"] = {"modalities": ["CT"]}
        await house.start()
        ignored, asked = house.admit(), house.admit()
        await house.fire(ignored.slide, "newImageFiles")
        await house.job_on(ignored.slide, "cancelled")
        hold = house.gates.close("GET", "/studies")
        await house.fire(asked.slide, "newImageFiles")
        await hold.wait()
        await house.fire(asked.slide)
        hold.opened.set()
        job = await house.job_on(asked.slide, "failed")
        await house.until(lambda: "failed" in shown(house, asked.slide), "the slide says so")
        assert [event["what"] for event in job["events"]].count("joined") == 1
        assert house.results_on(ignored.slide) == []


async def test_a_deleted_result_is_let_go_and_a_new_analysis_makes_a_new_one(house: Hospital) -> None:
    patient = house.admit()
    await house.fire(patient.slide)
    await house.job_on(patient.slide, "done")
    [first] = house.results_on(patient.slide)
    assert (await house.fire(patient.slide, "delete")).complaints == []
    assert house.results_on(patient.slide) == []
    answer = await house.fire(patient.slide)
    assert answer.body["id"] != first["id"]
    await house.job_on(patient.slide, "done")
    assert "Milvue" in shown(house, patient.slide)
    # and once more, without telling us
    house.sectra.results.clear()
    await house.fire(patient.slide)
    await house.job_on(patient.slide, "done")
    assert "Milvue" in shown(house, patient.slide)


async def test_a_pressed_button_is_released_and_the_change_kept(house: Hospital) -> None:
    patient = house.admit()
    gallery = {
        "slideId": patient.slide,
        "displayResult": "gallery",
        "applicationVersion": "1",
        "data": {
            "context": {"kept": True},
            "result": {
                "type": "patchCollection",
                "content": {
                    "description": "cells",
                    "polygons": [],
                    "patches": [{"tag": 0, "position": {"x": 0.5, "y": 0.5}, "sortKeyValue": 1.0}],
                    "tags": ["mitosis"],
                    "patchSize": 64,
                    "magnification": 20.0,
                    "actions": [{"id": "verify", "state": 0, "name": "Verify", "tooltip": ""}],
                },
            },
        },
    }
    token = house.sectra.mint(TRAUMA)
    headers = {"Authorization": f"Bearer {token}", **house.sectra.headers}
    async with (
        ClientSession() as http,
        http.post(
            f"{house.sectra.url}/applications/{TRAUMA}/results", json=gallery, headers=headers
        ) as answered,
    ):
        before = await answered.json()
    answer = await house.fire(patient.slide, "modify", press="verify")
    assert answer.complaints == []
    [after] = house.results_on(patient.slide)
    assert answer.body == after
    assert after["versionId"] != before["versionId"]
    assert after["data"]["result"]["content"]["actions"][0]["state"] == 0
    assert after["data"]["context"] == {"kept": True}


# -- notifications ------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", [["action"], []])
async def test_a_notification_makes_one_job_however_often_it_comes(
    house: Hospital, missing: list[str]
) -> None:
    patient = house.admit()
    for _ in range(3):
        answer = await house.fire(patient.slide, "newImageFiles", leaveOut=[*missing, "input"])
        assert answer.complaints == []
    job = await house.job_on(patient.slide, "done")
    assert len(await house.jobs_on(patient.slide)) == 1
    assert house.bytes_arrived(patient) == [1, 1]
    assert any(event["what"].startswith("waiting") for event in job["events"])
    assert "Milvue" in shown(house, patient.slide)


async def test_a_study_that_still_arrives_is_not_taken_for_complete(house: Hospital) -> None:
    patient = house.admit(2)
    header = house.archive.instances[patient.instances[0]].header
    second_look = house.gates.close("GET", "/dicom-web/studies$", skip=1)
    await house.fire(patient.slide, "newImageFiles")
    await second_look.wait()
    late = make_instance(patient.study, str(header.SeriesInstanceUID), number=3)
    house.archive.add(encode(late))
    second_look.opened.set()
    job = await house.job_on(patient.slide, "done")
    assert job["proof"]["promised"] == 3
    assert house.bytes_arrived(patient) == [1, 1]
    assert house.milvue.arrivals[str(late.SOPInstanceUID)] == 1


# -- liberal in what is taken -------------------------------------------------------------------------


async def test_what_is_odd_but_understandable_is_taken(house: Hospital) -> None:
    patient = house.admit()
    house.milvue.behaviours[patient.study] = SLOW
    odd: list[dict[str, Any]] = [
        {"context": None},
        {"context": {"nested": [1, {"deep": None}]}, "newField": {"from": "a younger Sectra"}},
        {"cancellationToken": None},
    ]
    for number, fields in enumerate(odd):
        status, body, _ = await house.invoke(house.invocation(patient.slide, **fields))
        assert status == 200, (number, body)
    bare = house.invocation(patient.slide)
    del bare["context"], bare["cancellationToken"]
    assert (await house.invoke(bare))[0] == 200
    assert len(await house.jobs_on(patient.slide)) == 1


async def test_what_a_notification_says_of_the_image_is_not_judged(house: Hospital) -> None:
    patient = house.admit(1)
    odds: list[Any] = [None, [], "text", {"id": 5, "imageSize": "large", "\ud800": "\0"}]
    for odd in odds:
        body = house.invocation(patient.slide, imageInfo=odd, action="newImageFiles")
        status, answer, _ = await house.invoke(body, url=f"{house.app()}/imagenotification")
        assert (status, answer) == (200, {})


async def test_every_answer_tells_our_versions(house: Hospital) -> None:
    url = house.app()
    good = house.invocation("slide-bare")
    elsewhere = {**good, "callbackInfo": {"url": "http://127.0.0.1:1/", "token": "x"}}
    calls: dict[int, tuple[str, str, Any]] = {
        200: ("GET", f"{url}/info", None),
        400: ("POST", url, b"{"),
        403: ("POST", url, elsewhere),
        404: ("GET", house.app("unheard-of"), None),
        405: ("PUT", url, {}),
        413: ("POST", url, b" " * (10 * 2**20)),
        415: ("POST", url, "{}"),
        422: ("POST", url, {**good, "action": "dance"}),
    }
    for status, (method, address, body) in calls.items():
        kind = {"Content-Type": "text/plain" if isinstance(body, str) else "application/json"}
        data = body if isinstance(body, bytes | str) else json.dumps(body)
        async with house.http.request(method, address, data=data, headers=kind) as response:
            assert response.status == status
            assert all(response.headers.get(name) for name in VERSION_HEADERS), status
            if status >= 400:
                assert response.content_type == "application/problem+json"
                problem = await response.json()
                assert problem["status"] == status and len(problem["detail"].split()) >= 4, problem
    for address in (f"{url}/nothing", f"{house.gateway.url}/ia", f"{house.gateway.url}/ia/"):
        async with house.http.get(address) as response:
            assert response.status == 404
            assert all(response.headers.get(name) for name in VERSION_HEADERS), address


async def test_the_registration_can_be_retrieved(house: Hospital) -> None:
    answer = await house.fire("", "registration")
    assert answer.complaints == []
    assert answer.body["url"] == house.app()
    assert answer.body["inputTemplate"] == {"type": "wholeSlide"}


# -- crowds -------------------------------------------------------------------------------------------


async def test_thirty_identical_creates_are_one_job_that_lives_while_one_waits(house: Hospital) -> None:
    patient = house.admit()
    house.milvue.behaviours[patient.study] = SLOW
    answers = await asyncio.gather(
        *(house.fire(patient.slide, cancellationToken=f"cancel-{number}") for number in range(30))
    )
    assert [answer.complaints for answer in answers] == [[]] * 30
    [job] = await house.jobs_on(patient.slide)
    assert len(house.results_on(patient.slide)) == 1
    job = await house.settled(job["id"], "analysing")
    assert [event["what"] for event in job["events"]].count("joined") == 29
    await asyncio.gather(
        *(house.fire(patient.slide, "cancel", cancellationToken=f"cancel-{number}") for number in range(29))
    )
    assert (await house.settled(job["id"], "analysing"))["state"] == "analysing"
    await house.fire(patient.slide, "cancel", cancellationToken="cancel-29")
    await house.settled(job["id"], "cancelled")
    assert house.bytes_arrived(patient) == [1, 1]


async def test_thirty_areas_at_once_are_thirty_jobs_with_a_result_each(house: Hospital) -> None:
    patient = house.admit(1, size=16)
    areas = [
        {"points": [{"x": point["x"] + number / 100, "y": point["y"]} for point in SQUARE["points"]]}
        for number in range(30)
    ]
    answers = await asyncio.gather(
        *(
            house.fire(patient.slide, input={"type": "multiArea", "content": {"polygons": [area]}})
            for area in areas
        )
    )
    assert [answer.complaints for answer in answers] == [[]] * 30
    jobs = await house.jobs_on(patient.slide)
    assert len(jobs) == 30
    for job in jobs:
        await house.settled(job["id"], "done")
    results = house.results_on(patient.slide)
    assert ["Milvue" in result["displayResult"] for result in results] == [True] * 30
    ended = [await house.settled(job["id"], "done") for job in jobs]
    references = {
        each["reference"] for job in ended for each in job["deliveries"] if each["destination"] == "sectra"
    }
    assert references == {str(result["id"]) for result in results}
    # Asked for again, an area's own result is updated; the others stay as they are.
    again = await house.fire(patient.slide, input={"type": "multiArea", "content": {"polygons": [areas[7]]}})
    await house.job_on(patient.slide, "done")
    now = {result["id"]: result["versionId"] for result in house.results_on(patient.slide)}
    [updated] = [result["id"] for result in results if now[result["id"]] != result["versionId"]]
    for answer in (answers[7], again):  # a user who waited too long was told a result without an id
        assert answer.body.get("id", updated) == updated


async def test_a_change_of_what_no_longer_stands_there_changes_nothing(house: Hospital) -> None:
    patient = house.admit()
    house.milvue.behaviours[patient.study] = Behaviour(delay=0.1)
    hold = house.gates.close("GET", f"/studies/{patient.study}$")
    queued = (await house.fire(patient.slide)).body
    hold.opened.set()
    await house.job_on(patient.slide, "done")
    [final] = house.results_on(patient.slide)
    change = house.invocation(patient.slide, action="modify", input={**queued, "displayResult": "mine"})
    status, answer, _ = await house.invoke(change)
    assert (status, answer["id"], answer["versionId"]) == (200, final["id"], final["versionId"])
    assert house.results_on(patient.slide) == [final]


# -- our own trouble ----------------------------------------------------------------------------------


@pytest.mark.asyncio(loop_scope="function")
async def test_a_broken_database_is_our_fault_and_tells_no_secret(tmp_path: Path, database_url: str) -> None:
    async with hospital(tmp_path, database_url) as house:
        house.configuration["sectra"]["acknowledge"] = "temporary"
        await house.start()
        patient = house.admit()
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute("ALTER TABLE jobs RENAME TO lost")
            status, problem, headers = await house.invoke(house.invocation(patient.slide))
            assert status == 500 and "ask again" in problem["detail"]
            assert all(headers.get(name) for name in VERSION_HEADERS)
            status, problem = await house.api(
                "POST", "jobs", {"application": TRAUMA, "accession_number": patient.accession}
            )
            assert status == 500
            connection.execute("ALTER TABLE lost RENAME TO jobs")
        broken = [event for event in house.gateway.events() if event["event"] == "a request broke"]
        assert len(broken) == 2 and "ProgrammingError" in str(broken), "the log says what it was"
        answer = await house.fire(patient.slide)
        assert answer.complaints == [] and "id" not in answer.body
        await house.job_on(patient.slide, "done")
