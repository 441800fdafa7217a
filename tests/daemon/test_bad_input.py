"""Whatever is wrong with a request, its study or its slide ends in one clear sentence where it is needed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from gateway.simulate import patients
from gateway.simulate.front import Fault
from gateway.simulate.milvue import Behaviour
from tests.peers.gateway import TRAUMA, Hospital, hospital, unknown_study

pytestmark = pytest.mark.asyncio(loop_scope="module")
PICKY = "picky"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Hospital]:
    async with hospital(tmp_path_factory.mktemp("house")) as opened:
        opened.application["retry"]["attempts"] = 3
        applications = opened.configuration["departments"]["emergency"]["applications"]
        accept = {"modalities": ["DX"], "staining": ["HE"], "max_bytes": "30kB"}
        applications[PICKY] = {**applications[TRAUMA], "accept": accept}
        await opened.start()
        yield opened


@pytest.fixture
def house(running: Hospital) -> Hospital:
    for state in (running.sectra, running.archive, running.milvue):
        state.front.faults.clear()
    return running


def is_sentence(text: str) -> bool:
    return len(text.split()) >= 3 and "Traceback" not in text and "Error(" not in text


async def waits(house: Hospital, slide: str, why: str) -> dict[str, Any]:
    """In the job and on the slide: for whom."""
    while (job := await house.job_on(slide, "locating"))["waits"] is None or job["waits"]["until"]:
        await asyncio.sleep(0.05)
    assert job["waits"]["why"].startswith(why), job
    await house.until(
        lambda: any(why in result["displayResult"] for result in house.results_on(slide)),
        "the slide says why",
    )
    return job


async def ended(house: Hospital, slide: str, state: str, kind: str, *words: str, app: str = TRAUMA) -> None:
    """In the job and on the slide: the state, the kind, and the words that say why."""
    job = await house.job_on(slide, "done", "failed", "held", "cancelled")
    assert (job["state"], job["error"]["kind"]) == (state, kind), job
    assert is_sentence(job["error"]["message"]) and is_sentence(job["error"]["advice"]), job["error"]
    for word in words:
        assert word in job["error"]["message"], job["error"]
    title = {"failed": "analysis failed", "held": "analysis on hold"}[state]

    def said() -> bool:
        return any(title in result["displayResult"] for result in house.results_on(slide, app))

    await house.until(said, f"the slide says {title}")
    [result] = house.results_on(slide, app)
    assert job["error"]["message"] in result["displayResult"]
    assert result["displayProperties"]["Advice"] == job["error"]["advice"]


# -- refused at the door ------------------------------------------------------------------------------

BODY: dict[str, Any] = {
    "applicationId": TRAUMA,
    "slideId": "slide-door",
    "callbackInfo": {"url": "SECTRA", "token": "a-token"},
    "cancellationToken": "c",
    "action": "create",
    "input": {"type": "wholeSlide"},
}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"\xff\xfe\x00", 400),
        (b"[" * 100_000, 400),
        (json.dumps({**BODY, "context": {"a": float("nan")}}).encode(), 400),
        (json.dumps(BODY)[:-1].encode() + b', "context": {"a": 1e999}}', 400),
        (b"null", 422),
        (b"[]", 422),
        (b'"create"', 422),
        ({}, 422),
        ({**BODY, "applicationId": "another"}, 422),
        ({**BODY, "applicationId": None}, 422),
        ({**BODY, "slideId": ""}, 422),
        ({**BODY, "slideId": {"id": 1}}, 422),
        ({**BODY, "slideId": "x" * 5000}, 422),
        ({**BODY, "slideId": 5}, 422),
        ({**BODY, "slideId": "slide\0door"}, 422),
        ({**BODY, "applicationId": "\udead"}, 422),
        ({**BODY, "cancellationToken": "half \ud83d"}, 422),
        ({**BODY, "callbackInfo": {"url": "SECTRA", "token": "a\r\nX-Evil: b"}}, 422),
        ({**BODY, "callbackInfo": {"url": "SECTRA", "token": "tök"}}, 422),
        ({**BODY, "input": {"type": "wholeSlide", "more": ["\udfff"]}}, 422),
        ({**BODY, "callbackInfo": None}, 422),
        ({**BODY, "callbackInfo": {"url": "SECTRA"}}, 422),
        ({**BODY, "callbackInfo": {"url": 5, "token": []}}, 422),
        ({**BODY, "action": "explode"}, 422),
        ({**BODY, "input": None}, 422),
        ({**BODY, "input": {"type": "starfish"}}, 422),
        ({**BODY, "input": {"type": "taggedPolygon", "content": {"polygon": {"points": "many"}}}}, 422),
        ({**BODY, "input": {"type": "multiArea", "content": {"polygons": [{"points": [{"x": "a"}]}]}}}, 422),
        ({**BODY, "context": "text"}, 422),
        ({**BODY, "action": "modify", "input": {"slideId": "slide-door"}}, 422),
    ],
)
async def test_what_cannot_be_understood_is_refused_in_a_sentence(
    house: Hospital, body: Any, status: int
) -> None:
    if isinstance(body, dict):
        body = json.loads(json.dumps(body).replace("SECTRA", house.sectra.url))
    for url in (house.app(), f"{house.app()}/imagenotification"):
        if url != house.app() and isinstance(body, dict) and "action" in body and "input" in body:
            continue  # a notification has neither to have
        answered, problem, headers = await house.invoke(body, url=url)
        assert answered == status, problem
        assert headers["Content-Type"].startswith("application/problem+json")
        assert is_sentence(problem["detail"]), problem
    assert await house.jobs_on("slide-door") == []


async def test_deep_and_odd_contexts_are_kept_or_refused_but_never_our_fault(house: Hospital) -> None:
    patient = house.admit(1)
    house.milvue.behaviours[patient.study] = Behaviour(delay=600)
    for depth in (50, 99, 200, 400, 800, 5000):
        context = b'{"a":' * depth + b"1" + b"}" * depth
        body = json.dumps(house.invocation(patient.slide)).encode()
        body = body.replace(b'"context": {}', b'"context": ' + context)
        status, problem, _ = await house.invoke(body)
        assert status in (200, 400, 422), (depth, problem)
    for odd in ({"a\x00": "\x00"}, {"\ud800": "\udfff"}, {"big": 10**400}):
        status, problem, _ = await house.invoke(house.invocation(patient.slide, context=odd))
        assert status == 200, problem


@pytest.mark.parametrize(
    "trick",
    [
        "http://127.0.0.1:1/SectraPathologyServer/",
        "http://HOST.evil/SectraPathologyServer/",
        "http://evil/?HOST/SectraPathologyServer/",
        "http://evil#HOST/SectraPathologyServer/",
        "http://HOST@evil/SectraPathologyServer/",
        "http://user:word@HOST/SectraPathologyServer/",
        "http://HOST/SectraPathologyServer/../admin",
        "http://HOST/SectraPathologyServer/%2e%2e/admin",
        "http://HOST/SectraPathologyServer/x/%2e%2e%2f%2e%2e%2fadmin",
        "http://HOST/SectraPathologyServer/%252e%252e/admin",
        "http://HOST/SectraPathologyServer/?",
        "http://HOST/SectraPathologyServer/#",
        "http://HOST/SectraPathologyServer\\..\\admin",
        "http://HOST/SectraPathologyServerEvil/",
        "http://HOST/sectrapathologyserver/",
        "http://HOST/",
        "https://HOST/SectraPathologyServer/",
        "ftp://HOST/SectraPathologyServer/",
        "//HOST/SectraPathologyServer/",
        "HOST/SectraPathologyServer/",
        "http://HOST/SectraPathologyServer/\r\nX-Evil: 1",
        "http://HOST/SectraPathologyServer/?next=http://evil",
        "http://[::1/SectraPathologyServer/",
        "http://127.1:PORT/SectraPathologyServer/",
    ],
)
async def test_callbacks_go_to_configured_servers_only(house: Hospital, trick: str) -> None:
    host = house.sectra.front.url.removeprefix("http://")
    url = trick.replace("HOST", host).replace("PORT", host.rpartition(":")[2])
    for action, more in (
        ("create", {}),
        ("modify", {"input": {"slideId": "slide-trick", "id": 1, "versionId": "v"}}),
        ("newImageFiles", {}),
    ):
        body = house.invocation("slide-trick", action=action, **more)
        body["callbackInfo"]["url"] = url
        address = house.app() + ("/imagenotification" if action == "newImageFiles" else "")
        status, problem, _ = await house.invoke(body, url=address)
        assert (status, is_sentence(problem["detail"])) == (403, True), (action, problem)
        assert "evil" not in problem["detail"]
    assert await house.jobs_on("slide-trick") == []


@pytest.mark.parametrize("kind", ["HTTP://{}/SectraPathologyServer/x", "http://{}/SectraPathologyServer"])
async def test_the_same_address_in_other_letters_is_the_same(house: Hospital, kind: str) -> None:
    patient = house.admit(1)
    body = house.invocation(patient.slide)
    body["callbackInfo"]["url"] = kind.format(house.sectra.front.url.removeprefix("http://"))
    assert (await house.invoke(body))[0] == 200
    assert len(await house.jobs_on(patient.slide)) == 1


# -- permanent: failed --------------------------------------------------------------------------------


async def test_a_slide_without_study_or_accession_fails(house: Hospital) -> None:
    assert (await house.fire("slide-bare")).complaints == []
    await ended(house, "slide-bare", "failed", "permanent", "neither a study nor an accession number")


async def test_a_study_that_no_archive_has_fails(house: Hospital) -> None:
    house.show("slide-lost", study_instance_uid=unknown_study())
    await house.fire("slide-lost")
    await ended(house, "slide-lost", "failed", "permanent", "no archive has the study")


async def test_a_slide_that_sectra_does_not_know_fails(house: Hospital) -> None:
    await house.fire("slide-unheard-of")
    job = await house.job_on("slide-unheard-of", "failed")
    assert job["error"]["kind"] == "permanent" and is_sentence(job["error"]["message"])


@pytest.mark.parametrize(
    ("slide", "words"),
    [
        ("slide-chest", "larger than this application accepts"),
        ("slide-wsi", "SM"),
        ("slide-wsi-2", "Ki-67"),
    ],
)
async def test_a_study_that_does_not_suit_fails_and_says_what_would(
    house: Hospital, slide: str, words: str
) -> None:
    await house.fire(slide, applicationId=PICKY)
    await ended(house, slide, "failed", "permanent", words, app=PICKY)
    arrived = patients.CHEST.study_instance_uid in house.milvue.studies
    assert not arrived, "nothing that doesn't suit arrives whole"


@pytest.mark.parametrize("outcome", ["error", "forbidden"])
async def test_what_milvue_refuses_is_said_on_the_slide(house: Hospital, outcome: Any) -> None:
    patient = house.admit()
    house.milvue.behaviours[patient.study] = Behaviour(delay=0, outcome=outcome)
    await house.fire(patient.slide)
    job = await house.job_on(patient.slide, "failed", "held")
    assert job["error"]["kind"] in ("permanent", "needs_human")
    await ended(house, patient.slide, job["state"], job["error"]["kind"], "Milvue")


async def test_nothing_found_is_a_result_and_no_failure(house: Hospital) -> None:
    patient = house.admit()
    house.milvue.behaviours[patient.study] = Behaviour(delay=0, outcome="empty-json")
    await house.fire(patient.slide)
    job = await house.job_on(patient.slide, "done")
    assert job["proof"]["received"] == 0 and house.stored_of(patient.study) == []
    [result] = house.results_on(patient.slide)
    assert "no result" in result["displayResult"]


async def test_findings_without_objects_of_the_vendor_are_a_result(house: Hospital) -> None:
    patient = house.admit()
    house.milvue.behaviours[patient.study] = Behaviour(delay=0, outcome="empty")
    await house.fire(patient.slide)
    assert (await house.job_on(patient.slide, "done"))["proof"]["received"] == 0


# -- a person is needed: held -------------------------------------------------------------------------


async def test_two_studies_of_one_accession_wait_for_a_person(house: Hospital) -> None:
    first = house.admit(slide=False)
    house.admit(slide=False, twin_of=first)
    house.show("slide-twins", accession_number=first.accession)
    await house.fire("slide-twins")
    await ended(house, "slide-twins", "held", "needs_human", "2 studies")
    [job] = await house.jobs_on("slide-twins")
    status, _ = await house.api("POST", f"jobs/{job['id']}/resume", {"study_instance_uid": first.study})
    assert status == 200
    await house.settled(job["id"], "done")
    [result] = house.results_on("slide-twins")
    assert "Milvue" in result["displayResult"]


@pytest.mark.parametrize("status", [401, 403])
async def test_an_archive_that_refuses_the_password_is_waited_for(house: Hospital, status: int) -> None:
    patient = house.admit()
    house.archive.front.faults.append(Fault(path="/dicom-web", status=status))
    await house.fire(patient.slide)
    job = await waits(house, patient.slide, "the archive vna refuses our credentials since ")
    house.archive.front.faults.clear()
    await house.settled(job["id"], "done")


async def test_a_destination_that_refuses_holds_the_job_and_can_be_mended(house: Hospital) -> None:
    patient = house.admit()
    house.archive.front.faults.append(Fault(method="POST", path="/dicom-web", status=403))
    await house.fire(patient.slide)
    job = await house.job_on(patient.slide, "held")
    assert "vna" in job["error"]["message"]
    assert {each["destination"]: each["state"] for each in job["deliveries"]} == {
        "sectra": "done",
        "vna": "held",
    }
    house.archive.front.faults.clear()
    await house.api("POST", f"jobs/{job['id']}/resume")
    job = await house.settled(job["id"], "done")
    assert job["proof"]["stored"] == 2
    [result] = house.results_on(patient.slide)
    assert "Milvue" in result["displayResult"], "a result that is there isn't covered by trouble elsewhere"


@pytest.mark.parametrize("spoil", ["other-study", "other-patient"])
async def test_a_result_of_somebody_else_goes_nowhere(house: Hospital, spoil: Any) -> None:
    patient = house.admit()
    house.milvue.behaviours[patient.study] = Behaviour(delay=0, spoil=spoil)
    before = len(house.archive.stored)
    await house.fire(patient.slide)
    await ended(house, patient.slide, "held", "needs_human", "another")
    assert len(house.archive.stored) == before


# -- retryable: tried again, then held ----------------------------------------------------------------


async def test_an_archive_that_stays_down_is_waited_for(house: Hospital) -> None:
    patient = house.admit()
    house.archive.front.faults.append(Fault(path="/dicom-web", status=503))
    await house.fire(patient.slide)
    job = await waits(house, patient.slide, "the archive vna answers 503 since ")
    house.archive.front.faults.clear()
    job = await house.settled(job["id"], "done")
    assert house.bytes_arrived(patient) == [1, 1]


@pytest.mark.parametrize("spoil", ["cut", "not-dicom", "bomb"])
async def test_a_result_that_is_broken_is_asked_for_again_and_then_held(house: Hospital, spoil: Any) -> None:
    patient = house.admit()
    house.milvue.behaviours[patient.study] = Behaviour(delay=0, spoil=spoil)
    await house.fire(patient.slide)
    job = await house.job_on(patient.slide, "held")
    assert house.stored_of(patient.study) == []
    house.milvue.behaviours[patient.study] = Behaviour(delay=0)
    await house.api("POST", f"jobs/{job['id']}/resume")
    await house.settled(job["id"], "done")
    assert len(house.stored_of(patient.study)) == 2
    assert house.bytes_arrived(patient) == [1, 1], "nothing was sent again for it"
