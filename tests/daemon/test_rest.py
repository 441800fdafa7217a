"""/api/v1 as other systems and operators use it."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from io import BytesIO
from typing import Any

import pydicom
import pytest
import pytest_asyncio

from gateway.simulate.milvue import Behaviour
from tests.peers.dicom_samples import encode
from tests.peers.gateway import PATIENCE, TOKENS, TRAUMA, Hospital, hospital, unknown_study

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Hospital]:
    async with hospital(tmp_path_factory.mktemp("house")) as opened:
        applications = opened.configuration["departments"]["emergency"]["applications"]
        applications["second"] = {**applications[TRAUMA], "deliver": ["sectra"]}
        await opened.start()
        yield opened


async def test_a_key_names_one_request_however_often_it_is_sent(house: Hospital) -> None:
    patient = house.admit(slide=False)
    asked = {"application": TRAUMA, "study_instance_uid": patient.study, "idempotency_key": "night-17"}
    answers = await asyncio.gather(*(house.api("POST", "jobs", asked) for _ in range(10)))
    assert sorted(status for status, _ in answers) == [200] * 9 + [202]
    assert len({job["id"] for _, job in answers}) == 1
    job = await house.settled(answers[0][1]["id"], "done")
    status, again = await house.api("POST", "jobs", asked)
    assert (status, again["id"], again["state"]) == (200, job["id"], "done")
    status, problem = await house.api("POST", "jobs", {**asked, "priority": 9})
    assert status == 409 and job["id"] in problem["detail"]
    status, other = await house.api("POST", "jobs", asked, role="admin")
    assert status == 202 and other["id"] != job["id"], "keys belong to their caller"
    await house.settled(other["id"], "done")
    assert job["proof"] == {"promised": 2, "sent": 2, "acknowledged": 2, "received": 2, "stored": 2}
    assert sorted(house.stored_of(patient.study)) == sorted(set(house.stored_of(patient.study)))


async def test_a_key_may_stand_in_the_header(house: Hospital) -> None:
    patient = house.admit(slide=False)
    asked, key = {"application": TRAUMA, "study_instance_uid": patient.study}, {"Idempotency-Key": "night-18"}
    status, job = await _ask(house, asked, key)
    assert status == 202
    for again in (asked, {**asked, "idempotency_key": "night-18"}):
        status, same = await _ask(house, again, key)
        assert (status, same["id"]) == (200, job["id"])
    status, problem = await _ask(house, {**asked, "idempotency_key": "another"}, key)
    assert status == 409 and "differ" in problem["detail"]
    assert (await _ask(house, asked, {"Idempotency-Key": "x" * 201}))[0] == 422
    await house.settled(job["id"], "done")


LISTED = {
    *("id", "department", "application", "adapter", "state", "attempt", "next_at", "priority", "created_at"),
    *("updated_at", "study", "slide_id", "waits", "error", "proof", "revision", "vendor_reference"),
}
SHAPES = {
    "study": {"study_instance_uid", "accession_number", "archive"},
    "waits": {"until", "why"},
    "error": {"kind", "message", "advice"},
    "proof": {"promised", "sent", "acknowledged", "received", "stored"},
    "events": {"at", "state", "what", "detail"},
    "analyses": {"name", "sentence"},
    "deliveries": {"destination", "state", "attempts", "reference", "last_error", "next_at"},
}


async def test_a_job_has_these_fields_and_no_others(house: Hospital) -> None:
    patient = house.admit(slide=False)
    house.milvue.behaviours[patient.study] = Behaviour(delay=600)
    url, headers = f"{house.gateway.url}/api/v1/jobs", {"Authorization": f"Bearer {TOKENS['operator']}"}
    body = {"application": TRAUMA, "study_instance_uid": patient.study}
    async with house.http.post(url, json=body, headers=headers) as answer:
        job = await answer.json()
        assert answer.headers["Location"] == f"/api/v1/jobs/{job['id']}"
    async with asyncio.timeout(PATIENCE):
        while (waiting := (await house.api("GET", f"jobs/{job['id']}"))[1])["waits"] is None:
            await asyncio.sleep(0.05)
    await house.api("POST", f"jobs/{job['id']}/cancel")
    done = await house.settled(
        (await house.ask(study_instance_uid=house.admit(slide=False).study))["id"], "done"
    )
    failed = await house.settled((await house.ask(study_instance_uid=unknown_study()))["id"], "failed")
    met = set()
    for told in (waiting, done, failed):
        # said: by a peer, for operators. analyses: where the vendor was asked for several.
        assert told.keys() - {"said", "analyses"} == LISTED | {"events", "deliveries"}
        for name, keys in SHAPES.items():
            given = told.get(name)
            for part in given if isinstance(given, list) else [given]:
                if part is not None:
                    met.add(name)
                    assert part.keys() == keys, name
    assert met == set(SHAPES)
    states = [("state", "failed"), ("state", "done"), ("application", TRAUMA), ("limit", "500")]
    _, listed = await house.api("GET", "jobs", params=states)
    assert listed.keys() == {"jobs", "next_cursor"} and {done["id"], failed["id"]} <= {
        each["id"] for each in listed["jobs"]
    }
    assert {each["state"] for each in listed["jobs"]} == {"done", "failed"}
    assert all(each.keys() == LISTED for each in listed["jobs"])


async def _ask(house: Hospital, body: object, headers: dict[str, str]) -> tuple[int, Any]:
    authorised = {"Authorization": f"Bearer {TOKENS['operator']}", **headers}
    url = f"{house.gateway.url}/api/v1/jobs"
    async with house.http.post(url, json=body, headers=authorised) as answer:
        return answer.status, await answer.json()


async def test_an_accession_number_and_a_patient_find_the_study(house: Hospital) -> None:
    patient = house.admit(slide=False)
    other = house.admit(slide=False, twin_of=patient)
    header = house.archive.instances[other.instances[0]].header
    job = await house.ask(accession_number=f" {patient.accession} ", patient_id=str(header.PatientID))
    job = await house.settled(job["id"], "done")
    assert job["study"]["study_instance_uid"] == other.study
    assert house.bytes_arrived(patient) == [0, 0] and house.bytes_arrived(other) == [1, 1]


async def test_a_job_that_has_nowhere_to_deliver_to_is_done(house: Hospital) -> None:
    patient = house.admit(slide=False)
    job = await house.ask(study_instance_uid=patient.study, application="second")
    job = await house.settled(job["id"], "done")
    assert job["deliveries"] == [] and job["proof"]["received"] == 2 and job["proof"]["stored"] is None


async def test_jobs_are_listed_by_filter_and_page(house: Hospital) -> None:
    study = unknown_study()
    asked = [(await house.ask(study_instance_uid=study))["id"] for _ in range(5)]
    asked += [(await house.ask(study_instance_uid=study, application="second"))["id"] for _ in range(2)]
    for job_id in asked:
        await house.settled(job_id, "failed")

    async def listed(**filters: str) -> list[str]:
        ids: list[str] = []
        cursor: dict[str, str] = {}
        while True:
            status, page = await house.api("GET", "jobs", params={"limit": "3", **filters, **cursor})
            assert status == 200 and len(page["jobs"]) <= 3
            ids += [job["id"] for job in page["jobs"]]
            if page["next_cursor"] is None:
                return ids
            assert len(page["jobs"]) == 3
            cursor = {"cursor": page["next_cursor"]}

    assert await listed(study=study) == asked[::-1], "newest first, each once"
    assert await listed(study=study, application="second") == asked[:4:-1]
    assert await listed(study=study, state="failed", department="emergency") == asked[::-1]
    assert await listed(study=study, state="done") == []
    assert await listed(study=study, department="nowhere") == []
    _, middle = await house.api("GET", f"jobs/{asked[3]}")
    assert await listed(study=study, since=middle["created_at"]) == asked[:2:-1]


async def test_a_failed_job_begins_again_when_a_person_says_so(house: Hospital) -> None:
    patient = house.admit(slide=False)
    absent = [house.archive.instances.pop(uid) for uid in patient.instances]
    job = await house.ask(study_instance_uid=patient.study)
    failed = await house.settled(job["id"], "failed")
    assert failed["error"]["kind"] == "permanent"
    status, problem = await house.api("POST", f"jobs/{job['id']}/resume")
    assert status == 409 and "held" in problem["detail"]
    for instance in absent:
        house.archive.instances[instance.sop] = instance
    assert (await house.api("POST", f"jobs/{job['id']}/retry"))[0] == 200
    done = await house.settled(job["id"], "done")
    assert done["error"] is None and done["proof"]["stored"] == 2
    for act in ("cancel", "resume"):
        status, _ = await house.api("POST", f"jobs/{job['id']}/{act}")
        assert status == 409, act


async def test_what_is_done_is_analysed_again_as_a_new_job(house: Hospital) -> None:
    patient = house.admit()
    await house.fire(patient.slide)
    job = await house.job_on(patient.slide, "done")
    async with house.http.post(
        f"{house.gateway.url}/api/v1/jobs/{job['id']}/retry",
        headers={"Authorization": f"Bearer {TOKENS['operator']}"},
    ) as response:
        again = await response.json()
        assert response.status == 202
        assert response.headers["Location"] == f"/api/v1/jobs/{again['id']}"
    assert again["id"] != job["id"] and again["slide_id"] == patient.slide
    done = await house.settled(again["id"], "done")
    assert done["proof"]["stored"] == 2 and done["study"] == job["study"]
    assert house.bytes_arrived(patient) == [2, 2]
    assert len(house.results_on(patient.slide)) == 1
    _, before = await house.api("GET", f"jobs/{job['id']}")
    assert (before["state"], before["events"][-1]["detail"]["as"]) == ("done", again["id"])


async def test_another_patients_study_is_never_sent(house: Hospital) -> None:
    patient = house.admit(slide=False)
    other = house.archive.instances[house.admit(slide=False).instances[0]].header
    job = await house.ask(study_instance_uid=patient.study, patient_id=str(other.PatientID))
    held = await house.settled(job["id"], "held")
    assert "another patient id" in held["error"]["message"]
    [both] = [said["words"] for said in held["said"]]
    assert both["expected"]["patient_id"] == other.PatientID != both["met"]["patient_id"]
    job = await house.ask(study_instance_uid=patient.study, accession_number=str(other.AccessionNumber))
    held = await house.settled(job["id"], "held")
    assert "another accession number" in held["error"]["message"]
    await house.api("POST", f"jobs/{job['id']}/resume")
    await house.settled(job["id"], "held")
    assert house.bytes_arrived(patient) == [0, 0]


async def test_images_of_two_patients_under_one_study_are_never_sent_whole(house: Hospital) -> None:
    """Mixed up in the archive: whose result would it be?"""
    patient = house.admit(count=3, slide=False)
    stranger = pydicom.dcmread(BytesIO(house.archive.instances[patient.instances[1]].data))
    stranger.PatientID = "SOMEBODY-ELSE"
    house.archive.add(encode(stranger))
    job = await house.ask(study_instance_uid=patient.study)
    held = await house.settled(job["id"], "held")
    assert held["error"]["message"].endswith("aren't all of one patient: another patient id")
    assert house.bytes_arrived(patient)[1] == 0
    assert held["proof"]["acknowledged"] is None


async def test_a_held_job_that_offers_no_choice_takes_none(house: Hospital) -> None:
    patient, stranger = house.admit(slide=False), house.admit(slide=False)
    header = house.archive.instances[stranger.instances[0]].header
    job = await house.ask(study_instance_uid=patient.study, patient_id=str(header.PatientID))
    await house.settled(job["id"], "held")
    chosen = {"study_instance_uid": stranger.study}
    assert (await house.api("POST", f"jobs/{job['id']}/resume", chosen))[0] == 409
    assert house.bytes_arrived(patient) == house.bytes_arrived(stranger) == [0, 0]


async def test_a_held_job_goes_on_with_the_study_a_person_chose(house: Hospital) -> None:
    patient = house.admit(slide=False)
    twin = house.admit(slide=False, twin_of=patient)
    job = await house.ask(accession_number=patient.accession)
    stranger = house.admit(slide=False)
    held = await house.settled(job["id"], "held")
    assert held["error"]["kind"] == "needs_human"
    status, problem = await house.api(
        "POST", f"jobs/{job['id']}/resume", {"study_instance_uid": stranger.study}
    )
    assert status == 409 and "doesn't offer" in problem["detail"]
    choices = [event["detail"].get("choices") for event in held["events"]]
    assert sorted([patient.study, twin.study]) in choices
    status, _ = await house.api("POST", f"jobs/{job['id']}/resume", {"study_instance_uid": twin.study})
    assert status == 200
    await house.settled(job["id"], "done")
    assert house.bytes_arrived(patient) == [0, 0] and house.bytes_arrived(twin) == [1, 1]


async def test_all_jobs_held_for_one_cause_are_resumed_at_once(house: Hospital) -> None:
    patient = house.admit(slide=False)
    house.admit(slide=False, twin_of=patient)
    asked = [(await house.ask(accession_number=patient.accession))["id"] for _ in range(3)]
    for job_id in asked:
        await house.settled(job_id, "held")
    chosen = {"state": "held", "accession_number": [patient.accession]}
    action = {"do": "resume", "filter": chosen, "expect": 3}
    for wrong in ({"expect": 4}, {"expect": 2}):
        status, problem = await house.api("POST", "jobs/actions", {**action, **wrong})
        assert status == 409 and "3 jobs match" in problem["detail"]
    status, problem = await house.api("POST", "jobs/actions", {**action, "filter": {"sate": "held"}})
    assert status == 422 and problem["detail"].startswith("filter.sate: isn't known here; allowed: state, ")
    assert problem["detail"].endswith("; did you mean state?")
    twins = [
        uid
        for uid, kept in house.archive.instances.items()
        if uid not in patient.instances and kept.header.AccessionNumber == patient.accession
    ]
    for uid in twins:
        del house.archive.instances[uid]
    status, acted = await house.api("POST", "jobs/actions", action)
    assert (status, sorted(acted["jobs"])) == (200, sorted(asked))
    for job_id in asked:
        await house.settled(job_id, "done")
    _, listed = await house.api("GET", "jobs", params={"accession_number": patient.accession})
    assert {job["id"] for job in listed["jobs"]} == set(asked)
    assert (await house.api("POST", "jobs/actions", action))[0] == 409


async def test_a_cancel_by_a_person_ends_a_job(house: Hospital) -> None:
    patient = house.admit(slide=False)
    house.milvue.behaviours[patient.study] = Behaviour(delay=600)
    job = await house.ask(study_instance_uid=patient.study)
    await house.settled(job["id"], "analysing")
    status, cancelled = await house.api("POST", f"jobs/{job['id']}/cancel")
    assert (status, cancelled["state"]) == (200, "cancelled")
    house.milvue.behaviours[patient.study] = Behaviour(delay=0)
    assert (await house.api("POST", f"jobs/{job['id']}/retry"))[0] == 200
    await house.settled(job["id"], "done")


async def test_events_are_told_as_they_happen_and_again_to_who_comes_back(house: Hospital) -> None:
    headers = {"Authorization": f"Bearer {TOKENS['viewer']}"}
    patients = [house.admit(1, slide=False) for _ in range(8)]

    async def read(since: str | None, jobs: set[str], asked: asyncio.Event) -> list[dict[str, Any]]:
        """Until each of the jobs was seen to end."""
        seen: list[dict[str, Any]] = []
        left = {} if since is None else {"Last-Event-ID": since}
        async with house.http.get(
            f"{house.gateway.url}/api/v1/events", headers={**headers, **left}
        ) as stream:
            assert stream.content_type == "text/event-stream"
            number = ""
            async for line in stream.content:
                asked.set()
                name, _, value = line.decode().strip().partition(": ")
                if name == "id":
                    number = value
                if name == "data":
                    seen.append({"id": number, **json.loads(value)})
                ended = {event["job_id"] for event in seen if event["state"] == "done"}
                if jobs and jobs <= ended:
                    break
        return seen

    jobs: set[str] = set()
    listening = asyncio.Event()
    reader = asyncio.create_task(read(None, jobs, listening))
    await listening.wait()
    asked = await asyncio.gather(*(house.ask(study_instance_uid=each.study) for each in patients))
    jobs |= {job["id"] for job in asked}
    seen = await reader
    for job_id in jobs:
        job = await house.settled(job_id, "done")
        told = [(event["state"], event["what"]) for event in seen if event["job_id"] == job_id]
        assert told == [(event["state"], event["what"]) for event in job["events"]], "none lost, none twice"
    again = await read(seen[3]["id"], jobs, asyncio.Event())
    first = [event["id"] for event in seen[4:]]
    assert [event["id"] for event in again][: len(first)] == first
    await asyncio.sleep(1.5)  # time to notice that the listeners have gone
    assert "a request broke" not in house.gateway.log


async def test_who_may_do_what(house: Hospital) -> None:
    job = await house.ask(study_instance_uid=unknown_study())
    reading = [("GET", "jobs"), ("GET", f"jobs/{job['id']}"), ("GET", "openapi.json")]
    acting = [
        ("POST", "jobs"),
        ("POST", "jobs/actions"),
        *(("POST", f"jobs/{job['id']}/{act}") for act in ("retry", "cancel", "resume")),
    ]
    for method, path in (*reading, *acting, ("GET", "events")):
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKENS['admin']}"}):
            async with house.http.request(
                method, f"{house.gateway.url}/api/v1/{path}", headers=headers, json={}
            ) as response:
                assert response.status == 401 and "WWW-Authenticate" in response.headers, (path, headers)
                assert response.content_type == "application/problem+json"
    for method, path in reading:
        assert (await house.api(method, path, role="viewer"))[0] == 200
    for method, path in acting:
        status, problem = await house.api(method, path, {}, role="viewer")
        assert status == 403 and "operator" in problem["detail"], path


async def test_a_viewer_learns_nobodys_identity_and_an_operators_look_is_written_down(
    house: Hospital,
) -> None:
    patient = house.admit(1)
    job = await house.ask(study_instance_uid=patient.study, accession_number=patient.accession)
    seen = await house.settled(job["id"], "done")
    assert seen["study"]["accession_number"] == patient.accession and seen["vendor_reference"]
    headers = {"Authorization": f"Bearer {TOKENS['viewer']}", "Last-Event-ID": "0-0"}
    told = ""
    async with house.http.get(f"{house.gateway.url}/api/v1/events", headers=headers) as stream:
        async for line in stream.content:
            told += line.decode()
            if job["id"] in told and '"done"' in told.rpartition(job["id"])[2]:
                break
    for path in (f"jobs/{job['id']}", f"jobs?study={patient.study}"):
        status, shown = await house.api("GET", path, role="viewer")
        assert status == 200 and job["id"] in json.dumps(shown), path
        told += json.dumps(shown).replace(path, "")
    for secret in (patient.study, patient.accession, seen["vendor_reference"]):
        assert secret not in told, secret
    await house.api("GET", f"jobs/{job['id']}")
    _, acts = await house.api("GET", "audit", params={"job": job["id"], "what": "looked at"})
    assert [each["who"] for each in acts["acts"]] == ["operator"]


async def test_who_did_what_is_told(house: Hospital) -> None:
    job = await house.ask(study_instance_uid=unknown_study())
    assert (await house.api("GET", "audit", role="viewer"))[0] == 403
    status, told = await house.api("GET", "audit", params={"job": job["id"]})
    acts = [(each["who"], each["what"], each["job_id"]) for each in told["acts"]]
    assert status == 200 and ("operator", "job asked for", job["id"]) in acts
    _, page = await house.api("GET", "audit", params={"limit": "1"})
    _, after = await house.api("GET", "audit", params={"limit": "1", "cursor": page["next_cursor"]})
    assert after["acts"][0]["id"] < page["acts"][0]["id"]
    for wrong in ("cursor=x", "job=1", "since=now", "who=", "colour=red", "limit=0"):
        assert (await house.api("GET", f"audit?{wrong}"))[0] == 422, wrong


@pytest.mark.parametrize(
    "name",
    ["state", "department", "application", "adapter", "study", "accession_number", "slide_id", "since"],
)
async def test_an_empty_filter_is_refused_and_not_taken_for_none(house: Hospital, name: str) -> None:
    empty = f"{name}: is empty; give it a value, or leave it out"
    status, problem = await house.api("GET", f"jobs?{name}=")
    assert (status, problem["detail"]) == (422, empty)
    if name != "since":
        status, problem = await house.api("GET", f"jobs?{name}=done&{name}=")
        assert status == 422 and empty in problem["detail"]
        action = {"do": "resume", "filter": {name: []}, "expect": 0}
        status, problem = await house.api("POST", "jobs/actions", action)
        assert (status, problem["detail"]) == (422, f"filter.{empty}")


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("jobs?aplication=milvue", "application"),
        ("jobs?state=hled", "held"),
        ("audit?woh=ops", "who"),
        ("revisions?limt=5", "limit"),
    ],
)
async def test_the_nearest_name_is_offered_for_one_that_is_unknown(
    house: Hospital, path: str, meant: str
) -> None:
    status, problem = await house.api("GET", path)
    assert status == 422 and problem["detail"].endswith(f"; did you mean {meant}?"), problem


async def test_the_document_describes_what_is_there(house: Hospital) -> None:
    _, document = await house.api("GET", "openapi.json")
    told = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert {
        ("POST", "/api/v1/jobs"),
        ("GET", "/api/v1/jobs"),
        ("GET", "/api/v1/jobs/{id}"),
        *(("POST", f"/api/v1/jobs/{{id}}/{act}") for act in ("retry", "cancel", "resume")),
        ("POST", "/api/v1/jobs/actions"),
        *(
            ("POST", f"/api/v1/{kind}/{{name}}/{act}")
            for kind in ("applications", "adapters", "destinations")
            for act in ("pause", "unpause")
        ),
        *(("GET", f"/api/v1/{name}") for name in ("peers", "audit", "revisions", "events", "openapi.json")),
    } <= told
    for method, path in told:
        url = house.gateway.url + path.replace("{id}", "0").replace("{name}", "milvue")
        async with house.http.request(method, url) as response:
            assert response.status == 401, path  # 404 or 405 if there were no such route


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"application": TRAUMA},
        {"application": 7, "study_instance_uid": "1.2"},
        {"application": TRAUMA, "study_instance_uid": "1.2/../3"},
        {"application": TRAUMA, "study_instance_uid": "1.2", "priority": 10},
        {"application": TRAUMA, "study_instance_uid": "1.2", "unknown": 1},
        {"application": TRAUMA, "accession_number": ""},
        {"application": TRAUMA, "accession_number": "  "},
        {"application": TRAUMA, "accession_number": "a\x00b"},
        {"application": TRAUMA, "accession_number": "\ud800"},
        {"application": TRAUMA, "study_instance_uid": "1.2", "idempotency_key": "\x00"},
        ["application"],
        None,
    ],
)
async def test_a_wrong_request_is_refused_in_a_sentence(house: Hospital, body: object) -> None:
    status, problem = await house.api("POST", "jobs", body)
    assert status == 422 or (status == 400 and body is None), problem
    assert len(problem["detail"].split()) >= 3


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("jobs?limit=0", 422),
        ("jobs?limit=501", 422),
        ("jobs?limit=%C2%B2", 422),
        ("jobs?limit=" + "9" * 5000, 422),
        ("jobs?cursor=nonsense", 422),
        ("jobs?cursor=%C2%B2", 422),
        ("jobs?since=yesterday", 422),
        ("jobs?since=0001-01-01T00:00:00%2B14:00", 422),
        ("jobs?state=lost", 422),
        ("jobs?colour=red", 422),
        ("jobs?study=%00", 422),
        ("jobs?application=%00", 422),
        ("jobs/none", 404),
        ("jobs/00000000-0000-0000-0000-000000000000", 404),
        ("nothing", 404),
    ],
)
async def test_a_wrong_question_is_refused(house: Hospital, path: str, status: int) -> None:
    answered, body = await house.api("GET", path)
    assert answered == status, body


async def test_an_odd_last_event_id_is_no_trouble(house: Hospital) -> None:
    for odd in ("²", "-1", "9" * 40, "x"):
        headers = {"Authorization": f"Bearer {TOKENS['viewer']}", "Last-Event-ID": odd}
        async with house.http.get(f"{house.gateway.url}/api/v1/events", headers=headers) as stream:
            assert stream.status in (200, 422), odd
    assert "a request broke" not in house.gateway.log


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "OPTIONS"])
@pytest.mark.parametrize(
    "path",
    ["/healthz", f"/ia/{TRAUMA}", f"/dicomweb/{TRAUMA}/studies", "/adapters/milvue/x", "/api/v1/jobs", "/no"],
)
async def test_no_body_is_inflated_for_anybody(house: Hospital, method: str, path: str) -> None:
    bomb = gzip.compress(b"[" * 2**20)
    for coding in ("gzip", "x-gzip, identity", "deflate", "br"):
        headers = {"Content-Encoding": coding, "Content-Type": "application/json"}
        async with house.http.request(
            method,
            house.gateway.url + path,
            data=bomb,
            headers=headers,
            skip_auto_headers=["Accept-Encoding"],
        ) as response:
            assert response.status == 415
            assert response.headers["Content-Type"].startswith("application/problem+json")
            assert response.headers["Accept-Encoding"] == "identity"


async def test_what_was_sent_to_us_is_nobody_elses(house: Hospital) -> None:
    for folder in (house.folder / "data").rglob("*"):
        if folder.is_dir() and "postgres" not in folder.parts:
            assert folder.stat().st_mode & 0o077 == 0, folder
