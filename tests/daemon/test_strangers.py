"""Whoever makes up a token acts for nobody: where our own user of Sectra's would open everything, and where a
living job could be had for the asking."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio

from gateway.simulate.front import Fault
from gateway.simulate.milvue import Behaviour
from gateway.simulate.sectra_state import PASSWORD, USERNAME
from tests.peers.gateway import TRAUMA, Hospital, Patient, hospital
from tests.peers.ia_vendor import IaVendor, ia_vendor
from tests.peers.ports import free_port

pytestmark = pytest.mark.asyncio(loop_scope="module")

KIDNEY = "kidney-ai"
MADE_UP = "made-up-by-a-stranger"
SLOW = Behaviour(delay=600)


@pytest.fixture(scope="module")
def vendor() -> Iterator[IaVendor]:
    with ia_vendor(mode="later", pause=0.05) as opened:
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory, vendor: IaVendor) -> AsyncIterator[Hospital]:
    async with hospital(tmp_path_factory.mktemp("house")) as opened:
        port = free_port()
        opened.configuration["listen"]["port"] = port
        opened.configuration["public_url"] = f"http://127.0.0.1:{port}"
        opened.configuration["sectra"]["servers"]["main"] |= {"username": USERNAME, "password": PASSWORD}
        adapter = {"kind": "sectra-ia", "url": vendor.url, "final_when": "^ANS", "quiet": "30s"}
        opened.configuration["adapters"]["kidney"] = adapter
        opened.configuration["departments"]["emergency"]["applications"][KIDNEY] = {
            "display_name": "Kidney",
            "adapter": "kidney",
            "settle": "100ms",
        }
        opened.secrets.add(MADE_UP)
        await opened.start()
        yield opened


@pytest.fixture
def house(running: Hospital) -> Hospital:
    for state in (running.sectra, running.archive, running.milvue):
        state.front.faults.clear()
    running.gates.open_all()
    return running


def calls_as_ourselves(house: Hospital) -> int:
    return house.sectra.front.count("POST", "/token$")


async def strange(house: Hospital, slide: str, action: str = "create", **fields: Any) -> tuple[int, Any]:
    """A stranger's call, who knows all but a token of Sectra's."""
    body = house.invocation(slide, action=action, cancellationToken=f"stranger-on-{slide}", **fields)
    body["callbackInfo"]["token"] = fields.get("token", MADE_UP)
    url = house.app(body["applicationId"]) + ("/imagenotification" if action == "newImageFiles" else "")
    status, answer, _ = await house.invoke(body, url=url)
    return status, answer


async def happened_to(house: Hospital, job: dict[str, Any]) -> list[str]:
    _, now = await house.api("GET", f"jobs/{job['id']}")
    return [event["what"] for event in now["events"]]


@pytest.mark.parametrize("action", ["create", "newImageFiles"])
async def test_a_strangers_call_sends_nothing_and_is_held(house: Hospital, action: str) -> None:
    patient, before = house.admit(), calls_as_ourselves(house)
    status, _ = await strange(house, patient.slide, action)
    assert status == (403 if action == "create" else 200)
    job = await house.job_on(patient.slide, "held")
    assert "may be anybody's" in job["error"]["message"] and "ask again" in job["error"]["advice"]
    assert house.bytes_arrived(patient) == [0, 0] and house.results_on(patient.slide) == []
    assert calls_as_ourselves(house) == before


async def test_whose_slide_a_stranger_was_at_has_his_analysis_all_the_same(house: Hospital) -> None:
    patient = house.admit()
    await strange(house, patient.slide, context={"of": "a stranger"})
    job = await house.job_on(patient.slide, "held")
    assert (await house.fire(patient.slide)).complaints == []
    await house.settled(job["id"], "done")
    assert "Milvue" in house.results_on(patient.slide)[0]["displayResult"]
    assert house.bytes_arrived(patient) == [1, 1]


async def test_our_own_user_takes_over_once_the_token_was_let_in(house: Hospital) -> None:
    patient, before = house.admit(), calls_as_ourselves(house)
    hold = house.gates.close("GET", f"/studies/{patient.study}$")
    await house.fire(patient.slide)
    await hold.wait()
    house.sectra.kill_tokens()
    hold.opened.set()
    await house.job_on(patient.slide, "done")
    assert calls_as_ourselves(house) > before
    assert "Milvue" in house.results_on(patient.slide)[0]["displayResult"]


async def test_the_acknowledgement_counts_as_letting_it_in(house: Hospital) -> None:
    """The workers may come to the job long after its token has died."""
    patient = house.admit()
    hold = house.gates.close("GET", f"/slides/{patient.slide}/info$", skip=1)
    await house.fire(patient.slide)
    await hold.wait()
    house.sectra.kill_tokens()
    hold.opened.set()
    await house.job_on(patient.slide, "done")


async def waiting_job(house: Hospital, state: str) -> tuple[Patient, dict[str, Any]]:
    """At the vendor, or held."""
    patient = house.admit()
    if state == "analysing":
        house.milvue.behaviours[patient.study] = SLOW
    else:
        house.admit(slide=False, twin_of=patient)
        house.show(patient.slide, accession_number=patient.accession)
    await house.fire(patient.slide)
    return patient, await house.job_on(patient.slide, state)


@pytest.mark.parametrize("state", ["analysing", "held"])
@pytest.mark.parametrize("action", ["create", "newImageFiles"])
async def test_a_stranger_who_joins_neither_breaks_nor_ends_a_job(
    house: Hospital, action: str, state: str
) -> None:
    patient, job = await waiting_job(house, state)
    asked = house.sectra.front.count("GET", f"/slides/{patient.slide}/info$")
    status, _ = await strange(house, patient.slide, action)
    assert status == (403 if action == "create" else 200)
    await house.until(
        lambda: house.sectra.front.count("GET", f"/slides/{patient.slide}/info$") > asked, "Sectra was asked"
    )
    await strange(house, patient.slide, "cancel")
    now = await house.settled(job["id"], state)
    assert [
        event["what"] for event in now["events"] if event["what"] in ("joined", "cancelled", "resumed")
    ] == []
    if state == "analysing":
        house.milvue.behaviours[patient.study] = Behaviour()
        await house.fire(patient.slide, "cancel")
        await house.settled(job["id"], "cancelled")


async def test_who_joins_while_sectra_is_away_has_joined_when_it_is_back(house: Hospital) -> None:
    patient, job = await waiting_job(house, "analysing")
    house.sectra.front.faults.append(Fault(path=f"/slides/{patient.slide}/", status=503))
    await house.fire(patient.slide)
    assert "joined" not in await happened_to(house, job)
    house.sectra.front.faults.clear()
    while "joined" not in await happened_to(house, job):
        await asyncio.sleep(0.05)
    for _ in range(2):
        await house.fire(
            patient.slide, "cancel", cancellationToken=house.sectra.firings.pop().cancellation_token
        )
    await house.settled(job["id"], "cancelled")


async def test_who_withdraws_before_sectra_is_back_has_never_joined(house: Hospital) -> None:
    patient, job = await waiting_job(house, "analysing")
    first = house.sectra.firings[-1].cancellation_token
    house.sectra.front.faults.append(Fault(path=f"/slides/{patient.slide}/", status=503))
    await house.fire(patient.slide)
    await house.fire(patient.slide, "cancel")
    house.sectra.front.faults.clear()
    await house.fire(patient.slide, "cancel", cancellationToken=first)
    await house.settled(job["id"], "cancelled")


@pytest.mark.parametrize("application", [TRAUMA, KIDNEY])
async def test_a_stranger_neither_changes_nor_removes_a_result(
    house: Hospital, vendor: IaVendor, application: str
) -> None:
    patient = house.admit()
    await house.fire(patient.slide, applicationId=application)
    await house.job_on(patient.slide, "done")
    [stands] = house.results_on(patient.slide, application)
    told, before = len(vendor.calls), calls_as_ourselves(house)
    theirs = {**stands, "displayResult": "a stranger's words"}
    for action, status in (("modify", 403), ("delete", 200)):
        answered, answer = await strange(
            house, patient.slide, action, input=theirs, applicationId=application
        )
        assert answered == status and "stranger's words" not in str(answer)
    assert house.results_on(patient.slide, application) == [stands]
    assert (len(vendor.calls), calls_as_ourselves(house)) == (told, before)
    answer = await house.fire(patient.slide, "modify", applicationId=application)
    assert answer.complaints == [] and answer.body["id"] == stands["id"]


async def test_a_change_names_the_slide_that_it_is_about(house: Hospital) -> None:
    patient, other = house.admit(1), house.admit(1)
    await house.fire(other.slide)
    await house.job_on(other.slide, "done")
    [stands] = house.results_on(other.slide)
    body = house.invocation(patient.slide, action="modify", input=stands)
    assert (await house.invoke(body))[0] == 422


async def test_an_ia_vendor_cannot_invoke_itself_with_the_token_that_we_gave_it(
    house: Hospital, vendor: IaVendor
) -> None:
    patient, other = house.admit(1), house.admit(1)
    await house.fire(patient.slide, applicationId=KIDNEY)
    await house.job_on(patient.slide, "done")
    told, before = len(vendor.calls), calls_as_ourselves(house)
    given = vendor.calls[-1]["callbackInfo"]["token"]
    for action in ("create", "newImageFiles"):
        for application in (KIDNEY, TRAUMA):
            for slide in (patient.slide, other.slide):
                await strange(house, slide, action, token=given, applicationId=application)
    for slide in (patient.slide, other.slide):
        await house.job_on(slide, "held")
    assert (len(vendor.calls), calls_as_ourselves(house)) == (told, before)
    assert house.bytes_arrived(other) == [0]


async def test_versions_are_told_to_anybody_and_change_nothing(house: Hospital) -> None:
    before = calls_as_ourselves(house)
    for rest in ("", "/info"):
        async with house.http.get(house.app() + rest, headers={"Authorization": "Bearer x"}) as answer:
            assert answer.status == 200
    assert calls_as_ourselves(house) == before
