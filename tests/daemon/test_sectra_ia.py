"""A vendor's own IA-API app behind the real gateway, in front of a strict Sectra."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.simulate.front import Fault
from tests.peers.gateway import Hospital, hospital
from tests.peers.ia_vendor import OWN_NAME, IaVendor, ia_vendor
from tests.peers.ports import free_port

KIDNEY = "kidney-ai"
FINAL = "ANSWER"


@contextmanager
def given_vendor(**behaviour: Any) -> Iterator[IaVendor]:
    with ia_vendor(**behaviour) as vendor:
        yield vendor


@asynccontextmanager
async def ward(
    folder: Path, database_url: str, vendor: IaVendor, adapter: Any = None, **application: Any
) -> AsyncIterator[Hospital]:
    """A hospital whose only special application is the vendor's."""
    async with hospital(folder, database_url) as house:
        port = free_port()
        house.configuration["listen"]["port"] = port
        house.configuration["public_url"] = f"http://127.0.0.1:{port}"
        house.configuration["adapters"]["kidney"] = {
            "kind": "sectra-ia",
            "url": vendor.url,
            "quiet": "30s",
            "sure_after": "500ms",
            "final_when": f"^{FINAL}",
            **(adapter or {}),
        }
        house.configuration["departments"]["emergency"]["applications"][KIDNEY] = {
            "display_name": "Kidney",
            "adapter": "kidney",
            "settle": "100ms",
            "result_within": "40s",
            "retry": {"attempts": 6, "first": "200ms", "most": "1s"},
            **application,
        }
        await house.start()
        yield house
        given = {call["callbackInfo"]["token"] for call in vendor.calls} - {"void"}
        assert not {token for token in given if token in "".join(each.log for each in house.gateways)}


async def invoke(house: Hospital, slide: str, action: str = "create", **shot: Any) -> Any:
    return await house.fire(slide, action, applicationId=KIDNEY, **shot)


def callbacks(vendor: IaVendor) -> dict[str, str]:
    found: dict[str, str] = vendor.calls[0]["callbackInfo"]
    return found


async def call(
    house: Hospital,
    vendor: IaVendor,
    path: str,
    *,
    method: str = "GET",
    token: str | None = None,
    body: object = None,
) -> tuple[int, Any]:
    """As the vendor, or whoever has stolen its token, would call."""
    there = callbacks(vendor)
    headers = {"Authorization": f"Bearer {token or there['token']}"}
    async with house.http.request(method, f"{there['url']}/{path}", json=body, headers=headers) as response:
        raw = await response.read()
        is_json = response.content_type.endswith("json")
        return response.status, json.loads(raw) if is_json and raw else raw


def told(job: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """What the vendor called, and with what outcome."""
    found: dict[str, list[dict[str, Any]]] = {}
    for event in job["events"]:
        if event["what"].startswith("the vendor called: "):
            found.setdefault(event["what"].removeprefix("the vendor called: "), []).append(event["detail"])
    return found


async def test_an_answer_at_once_takes_the_place_of_the_sign(tmp_path: Path, database_url: str) -> None:
    with given_vendor() as vendor:
        async with ward(tmp_path, database_url, vendor) as house:
            answer = await invoke(house, "slide-wsi", context={"from": "sectra"})
            assert (answer.status, answer.complaints) == (200, [])
            job = await house.job_on("slide-wsi", "done")
            [result] = house.results_on("slide-wsi", KIDNEY)
            assert result["displayResult"] == "ANSWER: 42"
            assert result["applicationVersion"] == "1.2.3"
            assert (result["id"], vendor.last_version) == (vendor.last_id, result["versionId"])
            assert house.results_on("slide-wsi", OWN_NAME) == []
            [first] = vendor.calls
            assert first["applicationId"] == OWN_NAME
            assert first["action"] == "create"
            assert first["input"] == {"type": "wholeSlide"}
            assert first["context"] == {"from": "sectra"}
            assert first["callbackInfo"]["url"].startswith(house.gateway.url)
            assert first["callbackInfo"]["token"] not in house.sectra.tokens
            assert told(job)["a new result"][0]["outcome"] == "201"
            assert [delivery["reference"] for delivery in job["deliveries"]] == [str(result["id"])]
            assert (job["proof"]["promised"], job["proof"]["sent"], job["proof"]["acknowledged"]) == (0, 0, 0)


@pytest.mark.parametrize("hooks", [False, True])
async def test_results_minutes_later_end_done_with_all_that_was_read(
    tmp_path: Path, database_url: str, hooks: bool
) -> None:
    reads = ("slides/{slide}/files", "images/{slide}_files/8/0_0.jpg", "images/{slide}_files/9/0_0_0.jpg")
    with given_vendor(mode="later", reads=reads) as vendor:
        async with ward(tmp_path, database_url, vendor, allow_phi=True) as house:
            if hooks:
                house.sectra.settings.hooks = True
            await invoke(house, "slide-wsi")
            job = await house.job_on("slide-wsi", "done")
            [result] = house.results_on("slide-wsi", KIDNEY)
            assert result["displayResult"] == "ANSWER: 42"
            assert vendor.trouble == []
            heard = told(job)
            assert heard["files"][0]["outcome"] == "200"
            assert heard["files"][0]["bytes"] > 0
            [tiles] = heard["tiles"]
            assert (tiles["tiles"], heard["files"][0]["bytes"] + tiles["bytes"]) == (2, vendor.downloaded)
            assert len(heard[f"a change of result {result['id']}"]) == 4
            assert vendor.calls[0]["context"] == {"threshold": 0.5}


async def test_it_is_done_when_its_last_result_has_been_quiet(tmp_path: Path, database_url: str) -> None:
    with given_vendor(mode="later", final_text="maybe", steps=1, pause=0.0) as vendor:
        async with ward(tmp_path, database_url, vendor, {"quiet": "8s", "final_when": None}) as house:
            await invoke(house, "slide-wsi")
            job = await house.job_on("slide-wsi", "done")
            [result] = house.results_on("slide-wsi", KIDNEY)
            assert result["displayResult"] == "maybe"
            assert vendor.trouble == []
            # What it changes later still passes, and is recorded; anything else does not.
            first = vendor.calls[0]
            await asyncio.to_thread(vendor.store, first, "corrected", None)
            [result] = house.results_on("slide-wsi", KIDNEY)
            assert result["displayResult"] == "corrected"
            for path in ("slides/slide-wsi/files", "images/slide-wsi_files/8/0_0.jpg"):
                assert (await call(house, vendor, path))[0] == 403
            new = {**result, "id": None}
            assert (await call(house, vendor, f"applications/{OWN_NAME}/results", method="POST", body=new))[
                0
            ] == 403
            _, job = await house.api("GET", f"jobs/{job['id']}")
            assert told(job)[f"a change of result {result['id']}"][-1]["outcome"] == "200"


async def test_a_worker_that_begins_late_is_waited_for_in_each_area(
    tmp_path: Path, database_url: str
) -> None:
    """As the public SDK's examples: "queued" at once, and nothing for longer than `quiet`."""
    squares = [
        [{"x": x, "y": 0.1}, {"x": x + 0.2, "y": 0.1}, {"x": x + 0.2, "y": 0.3}, {"x": x, "y": 0.3}]
        for x in (0.1, 0.5)
    ]
    reads = ("slides/{slide}/files", "images/{slide}_files/8/0_0.jpg")
    drawn = {"input": {"tagged_polygon": {"tags": []}}, "result_within": "40s", "allow_phi": True}
    shape = {"mode": "later", "steps": 1, "pause": 0.0, "reads": reads}
    with given_vendor(late=12.0, final_text="7 mitoses", **shape) as vendor:
        given = {"quiet": "8s", "final_when": None}
        async with ward(tmp_path, database_url, vendor, given, **drawn) as house:
            for points in squares:
                content = {"polygon": {"points": points}, "tags": []}
                asked = {"type": "taggedPolygon", "content": content}
                answer = await invoke(house, "slide-wsi", input=asked)
                assert (answer.status, answer.complaints) == (200, [])
            await house.until(lambda: len(house.results_on("slide-wsi", KIDNEY)) == 2, "both are queued")
            jobs = [await house.settled(job["id"]) for job in await house.jobs_on("slide-wsi")]
            assert [job["state"] for job in jobs] == ["done", "done"]
            assert vendor.trouble == []
            texts = [result["displayResult"] for result in house.results_on("slide-wsi", KIDNEY)]
            assert texts == ["7 mitoses", "7 mitoses"]
            assert len({job["deliveries"][0]["reference"] for job in jobs}) == 2


async def test_one_that_stays_at_its_first_answer_is_held_and_keeps_its_rights(
    tmp_path: Path, database_url: str
) -> None:
    with given_vendor(mode="later", late=6.0, steps=0) as vendor:
        given = {"quiet": "200ms", "final_when": None}
        async with ward(tmp_path, database_url, vendor, given, result_within="2s") as house:
            await invoke(house, "slide-wsi")
            job = await house.job_on("slide-wsi", "held")
            assert "no result within 2 s: the vendor stays at its first answer" in job["error"]["message"]
            await house.until(
                lambda: "on hold" in house.results_on("slide-wsi", KIDNEY)[0]["displayResult"],
                "the slide says so",
            )
            await house.settled(job["id"], "done")
            assert vendor.trouble == []
            [result] = house.results_on("slide-wsi", KIDNEY)
            assert result["displayResult"] == "ANSWER: 42"


async def test_one_that_never_stores_is_held_and_a_late_result_wakes_it(
    tmp_path: Path, database_url: str
) -> None:
    with given_vendor(mode="never") as vendor:
        async with ward(tmp_path, database_url, vendor, result_within="1s") as house:
            await invoke(house, "slide-wsi")
            job = await house.job_on("slide-wsi", "held")
            assert "no result within 1 s" in job["error"]["message"]
            await house.until(
                lambda: "on hold" in house.results_on("slide-wsi", KIDNEY)[0]["displayResult"],
                "the slide says so",
            )
            await asyncio.to_thread(vendor.store, vendor.calls[0], "ANSWER: late", None)
            await house.settled(job["id"], "done")
            [result] = house.results_on("slide-wsi", KIDNEY)
            assert result["displayResult"] == "ANSWER: late"


async def test_identifying_data_is_withheld_unless_allowed(tmp_path: Path, database_url: str) -> None:
    with given_vendor(mode="never", phi=True) as vendor:
        async with ward(tmp_path, database_url, vendor) as house:
            patient = house.admit()
            await invoke(house, patient.slide)
            job = await house.job_on(patient.slide, "analysing")
            _, info = await call(house, vendor, f"slides/{patient.slide}/info?scope=extended&includePHI=true")
            _, case = await call(house, vendor, f"slides/{patient.slide}/request/images/info?includePHI=true")
            for what in ("label", "files"):
                status, refusal = await call(house, vendor, f"slides/{patient.slide}/{what}")
                assert (status, "identify" in refusal["detail"]) == (403, True)
            house.sectra.front.faults.append(
                Fault(method="PUT", path="/qualityControl", status=400, body='{"message": "Zyxwvut"}')
            )
            path = f"slides/{patient.slide}/qualityControl"
            status, refusal = await call(house, vendor, path, method="PUT", body={})
            assert (status, refusal["detail"]) == (400, "Sectra answered 400")
            house.sectra.front.faults.clear()
            assert info["imageSize"]["width"] == 4000
            for words in (json.dumps(info), json.dumps(case)):
                assert not {"accessionNumber", "lisSlideId", "studyInstanceUid"} & set(words.split('"'))
                assert patient.accession not in words
            passed = [call for call in house.sectra.front.calls if "scope=extended" in call.query]
            by_vendor = [call for call in passed if call.headers.get("X-Sectra-SoftwareVersion") == "1.2.3"]
            assert by_vendor
            assert not [call for call in by_vendor if "includePHI" in call.query]
            await house.api("POST", f"jobs/{job['id']}/cancel")
            await house.gateway.stop()

            house.configuration["departments"]["emergency"]["applications"][KIDNEY]["allow_phi"] = True
            await house.start()
            vendor.calls.clear()
            await invoke(house, patient.slide)
            await house.job_on(patient.slide, "analysing")
            _, info = await call(house, vendor, f"slides/{patient.slide}/info?scope=extended&includePHI=true")
            assert info["accessionNumber"] == patient.accession
            assert (await call(house, vendor, f"slides/{patient.slide}/label"))[0] == 200
            assert (await call(house, vendor, f"requests/{patient.accession}/images/info"))[0] == 200
            assert (await call(house, vendor, f"slides/{patient.slide}/files"))[0] == 200


async def test_nothing_but_its_own_slide_and_case(tmp_path: Path, database_url: str) -> None:
    with given_vendor(mode="never") as vendor:
        async with ward(tmp_path, database_url, vendor) as house:
            await invoke(house, "slide-wsi")
            await house.job_on("slide-wsi", "analysing")
            await invoke(house, "slide-wsi-2")
            await house.job_on("slide-wsi-2", "analysing")
            mine, other = vendor.calls
            assert mine["slideId"] == "slide-wsi"
            for slide in ("slide-wsi", "slide-wsi-2"):
                await house.until(
                    lambda slide=slide: "at work" in house.results_on(slide, KIDNEY)[0]["displayResult"],
                    "the last sign is there",
                )
            foreign = house.sectra.list_results(KIDNEY, "slide-wsi-2")[0]
            before = len(house.sectra.front.calls)
            results = f"applications/{OWN_NAME}/results"
            result = {**foreign, "slideId": "slide-wsi-2"}
            for method, path, body, expected in (
                ("GET", "slides/slide-wsi-2/info", None, 403),
                ("GET", "slides/slide-wsi-2/files", None, 403),
                ("GET", "slides/slide-wsi%2F..%2Fslide-wsi-2/files", None, 403),
                ("GET", "images/slide-wsi-2_files/8/0_0.jpg", None, 403),
                ("GET", "slides/slide-wsi-2/request/images/info", None, 403),
                ("GET", "requests/SOMEBODY-ELSE/images/info", None, 403),
                ("PUT", "slides/slide-wsi-2/qualityControl", {}, 403),
                ("GET", f"{results}/slide/slide-wsi-2", None, 403),
                ("POST", results, result, 403),
                ("PUT", f"{results}/{foreign['id']}", result, 403),
                ("POST", results, [], 422),
                ("POST", "token?applicationId=x", {}, 404),
                ("GET", "slides/slide-wsi", None, 404),
                ("GET", "", None, 404),
                ("DELETE", f"{results}/{foreign['id']}", None, 404),
            ):
                status, said = await call(house, vendor, path, method=method, body=body)
                assert (path, status) == (path, expected)
                assert said["detail"]
            assert len(house.sectra.front.calls) == before
            # A result of another slide, named by its id alone, is looked at and not shown or changed.
            assert (await call(house, vendor, f"{results}/{foreign['id']}"))[0] == 404
            sly = {**result, "slideId": "slide-wsi", "displayResult": "stolen"}
            assert (await call(house, vendor, f"{results}/{foreign['id']}", method="PUT", body=sly))[0] == 404
            assert house.sectra.list_results(KIDNEY, "slide-wsi-2")[0] == foreign
            # Its own list hides our sign.
            assert await call(house, vendor, f"{results}/slide/slide-wsi") == (200, [])
            # Tokens: none, wrong, of another adapter, of another job.
            for token in ("nonsense", "a" * 600, other["callbackInfo"]["token"]):
                status, _ = await call(house, vendor, "slides/slide-wsi/info", token=token)
                assert status == (403 if token == other["callbackInfo"]["token"] else 401)
            there = callbacks(vendor)
            async with house.http.get(f"{there['url']}/info") as response:
                assert response.status == 401
            async with house.http.get(
                there["url"].replace("/kidney", "/milvue") + "/info",
                headers={"Authorization": f"Bearer {there['token']}"},
            ) as response:
                assert response.status in (401, 404)
            job = await house.job_on("slide-wsi", "analysing")
            refused = [event["detail"].get("outcome", "") for event in job["events"]]
            assert sum("another slide" in refusal for refusal in refused) >= 8


async def test_a_cancel_reaches_the_vendor_and_cuts_off_what_streams(
    tmp_path: Path, database_url: str
) -> None:
    """Also where the door stands in another process than the workers."""
    with given_vendor(mode="later", steps=0, reads=("slides/{slide}/files",)) as vendor:
        async with ward(tmp_path, database_url, vendor, allow_phi=True) as house:
            await house.gateway.stop()
            await house.start("--only", "workers")
            await house.start("--only", "intake")
            await invoke(house, "bulk-2x500GiB")
            await house.until(lambda: vendor.downloaded > 2**24, "bytes stream")
            job = await house.job_on("bulk-2x500GiB", "analysing")
            await house.api("POST", f"jobs/{job['id']}/cancel")
            await house.until(lambda: vendor.trouble, "the stream breaks")
            assert vendor.trouble == ["ChunkedEncodingError"] or vendor.trouble == ["ConnectionError"]
            await house.until(lambda: vendor.cancelled, "the vendor hears of it")
            assert vendor.cancelled == {vendor.calls[0]["cancellationToken"]}
            assert (await call(house, vendor, "slides/bulk-2x500GiB/info"))[0] == 401
            job = await house.job_on("bulk-2x500GiB", "cancelled")
            [files] = told(job)["files"]
            assert files["outcome"].startswith("cut off")
            assert files["bytes"] >= vendor.downloaded
            assert "cancelled" in house.results_on("bulk-2x500GiB", KIDNEY)[0]["displayResult"]


async def test_a_version_that_only_we_replaced_is_still_good(tmp_path: Path, database_url: str) -> None:
    with given_vendor() as vendor:
        async with ward(tmp_path, database_url, vendor) as house:
            await invoke(house, "slide-wsi")
            await house.job_on("slide-wsi", "done")
            first = vendor.calls[0]
            [mine] = house.results_on("slide-wsi", KIDNEY)
            # The next job puts its sign there, while the vendor thinks that its own version stands.
            vendor.mode = "never"
            await invoke(house, "slide-wsi")
            job = await house.job_on("slide-wsi", "analysing")
            [sign] = house.results_on("slide-wsi", KIDNEY)
            assert sign["versionId"] != mine["versionId"]
            path = f"applications/{OWN_NAME}/results/{mine['id']}"
            stale = {**mine, "displayResult": "ANSWER: second"}
            status, stored = await call(
                house,
                vendor,
                path,
                method="PUT",
                body=stale,
                token=vendor.calls[1]["callbackInfo"]["token"],
            )
            assert (status, stored["id"]) == (200, mine["id"])
            await house.settled(job["id"], "done")
            [result] = house.results_on("slide-wsi", KIDNEY)
            assert result["displayResult"] == "ANSWER: second"
            # One that a user has replaced is not.
            before = dict(result)
            house.sectra.results[mine["id"]].body["versionId"] = "the-users"
            assert (await call(house, vendor, path, method="PUT", body=before))[0] == 409
            assert first["callbackInfo"]["token"] != vendor.calls[1]["callbackInfo"]["token"]


async def test_changes_by_the_user_reach_the_vendor(tmp_path: Path, database_url: str) -> None:
    with given_vendor() as vendor:
        async with ward(tmp_path, database_url, vendor) as house:
            await invoke(house, "slide-wsi")
            job = await house.job_on("slide-wsi", "done")
            [mine] = house.results_on("slide-wsi", KIDNEY)
            answer = await invoke(house, "slide-wsi", "modify")
            assert (answer.status, answer.complaints) == (200, [])
            assert answer.body["displayResult"] == "ANSWER: 42 (seen)"
            [now] = house.results_on("slide-wsi", KIDNEY)
            assert (now["id"], now["versionId"]) == (mine["id"], answer.body["versionId"])
            change = vendor.calls[-1]
            assert (change["action"], change["applicationId"]) == ("modify", OWN_NAME)
            assert (change["input"]["id"], change["input"]["versionId"]) == (mine["id"], mine["versionId"])
            # Without an answer of the vendor's the user's change stands as it is.
            vendor.refuses = 500
            answer = await invoke(house, "slide-wsi", "modify")
            assert (answer.status, answer.complaints) == (200, [])
            assert answer.body["displayResult"] == "ANSWER: 42 (seen)"
            vendor.refuses = None
            tile = "images/slide-wsi_files/8/0_0.jpg"
            assert (await call(house, vendor, tile))[0] == 200  # to work on the change
            answer = await invoke(house, "slide-wsi", "delete")
            assert (answer.status, answer.body) == (200, {})
            assert (await call(house, vendor, tile))[0] == 403
            assert (vendor.calls[-1]["action"], vendor.calls[-1]["input"]["id"]) == ("delete", mine["id"])
            _, job = await house.api("GET", f"jobs/{job['id']}")
            said = [event["what"] for event in job["events"]]
            assert "the vendor didn't take the change" in said


async def test_notifications_are_passed_on_and_may_be_ignored(tmp_path: Path, database_url: str) -> None:
    with given_vendor(mode="mute") as vendor:
        async with ward(tmp_path, database_url, vendor, {"quiet": "500ms"}) as house:
            answer = await invoke(house, "slide-wsi", "newImageFiles")
            assert (answer.status, answer.complaints) == (200, [])
            job = await house.job_on("slide-wsi", "done")
            assert house.results_on("slide-wsi", KIDNEY) == []
            [told_] = vendor.calls
            assert told_["imageInfo"]["imageSize"]["width"] == 1024
            assert "accessionNumber" not in told_["imageInfo"]
            assert job["deliveries"][0]["state"] == "done"
            vendor.mode = "at-once"
            await invoke(house, "slide-wsi-2", "newImageFiles")
            await house.job_on("slide-wsi-2", "done")
            [result] = house.results_on("slide-wsi-2", KIDNEY)
            assert result["displayResult"] == "ANSWER: 42"


async def test_a_user_who_joins_an_import_has_the_vendor_called_for_himself(
    tmp_path: Path, database_url: str
) -> None:
    with given_vendor(mode="mute") as vendor:
        async with ward(tmp_path, database_url, vendor) as house:
            await invoke(house, "slide-wsi", "newImageFiles")
            job = await house.job_on("slide-wsi", "analysing")
            vendor.mode = "at-once"
            answer = await invoke(house, "slide-wsi", context={"of": "his"})
            assert answer.body["displayResult"] == "analysis: the vendor is at work"
            await house.settled(job["id"], "done")
            assert [call["action"] for call in vendor.calls] == ["newImageFiles", "create"]
            assert vendor.calls[1]["context"] == {"of": "his"}
            [result] = house.results_on("slide-wsi", KIDNEY)
            assert result["displayResult"] == "ANSWER: 42"


async def test_a_vendor_in_trouble_is_called_again(tmp_path: Path, database_url: str) -> None:
    with given_vendor(refuses=503, refusals_left=2) as vendor:
        async with ward(tmp_path, database_url, vendor) as house:
            await invoke(house, "slide-wsi")
            await house.job_on("slide-wsi", "done")
            assert len(vendor.calls) == 3
            # The rights of an invocation that was refused ended with it.
            assert (await call(house, vendor, "info"))[0] == 401


async def test_a_killed_gateway_neither_loses_nor_doubles_it(tmp_path: Path, database_url: str) -> None:
    with given_vendor(mode="never", phi=True) as vendor:
        async with ward(tmp_path, database_url, vendor) as house:
            gate = house.gates.close("GET", "/slides/slide-wsi/info", skip=2)
            answering = asyncio.create_task(invoke(house, "slide-wsi"))
            await gate.wait()  # the vendor has called back, and its invocation is unanswered
            await answering
            await house.gateway.kill()
            gate.opened.set()
            await house.start()
            job = await house.job_on("slide-wsi", "analysing")
            assert len(vendor.calls) == 1
            await asyncio.to_thread(vendor.store, vendor.calls[0], "ANSWER: after all", None)
            await house.settled(job["id"], "done")


async def test_a_vendor_that_had_not_called_back_yet_is_not_called_twice(
    tmp_path: Path, database_url: str
) -> None:
    held = threading.Event()
    with given_vendor(held=held) as vendor:
        async with ward(tmp_path, database_url, vendor, {"sure_after": "40s"}) as house:
            await invoke(house, "slide-wsi")
            await house.until(lambda: vendor.calls, "the vendor is called")
            await house.gateway.kill()
            await house.start()
            job = await house.job_on("slide-wsi", "submitting")
            while job["waits"] is None:
                job = await house.settled(job["id"], "submitting")
            held.set()
            await house.settled(job["id"], "done")
            assert len(vendor.calls) == 1
            assert len(house.results_on("slide-wsi", KIDNEY)) == 1


async def test_too_many_calls_are_slowed_down_and_then_refused(tmp_path: Path, database_url: str) -> None:
    with given_vendor(mode="never") as vendor:
        async with ward(tmp_path, database_url, vendor, {"rate": "5/s"}) as house:
            await invoke(house, "slide-wsi")
            await house.job_on("slide-wsi", "analysing")
            tries = await asyncio.gather(*(call(house, vendor, "info") for _ in range(40)))
            counted = [status for status, _ in tries]
            assert set(counted) == {200, 429}
            assert counted.count(200) >= 5


async def test_refused_calls_are_no_reading(tmp_path: Path, database_url: str) -> None:
    """They neither count as tiles nor keep a job waiting for quiet."""
    with given_vendor(mode="never") as vendor:
        async with ward(tmp_path, database_url, vendor, {"rate": "5/s"}) as house:
            await invoke(house, "slide-wsi")
            job = await house.job_on("slide-wsi", "analysing")
            tile = "images/slide-wsi_files/8/0_0.jpg"
            tries = await asyncio.gather(*(call(house, vendor, tile) for _ in range(40)))
            assert (await call(house, vendor, "images/slide-wsi_files/8/99_99.jpg"))[0] in (404, 429)
            taken = [status for status, _ in tries].count(200)
            await house.api("POST", f"jobs/{job['id']}/cancel")
            await house.job_on("slide-wsi", "cancelled")
            async with asyncio.timeout(30):
                while not (tiles := told(await house.job_on("slide-wsi")).get("tiles")):
                    await asyncio.sleep(0.1)
            assert 0 < taken < 40
            assert [each["tiles"] for each in tiles] == [taken]


async def test_large_and_broken_messages(tmp_path: Path, database_url: str) -> None:
    with given_vendor(mode="never") as vendor:
        async with ward(tmp_path, database_url, vendor, allow_phi=True) as house:
            big = house.invocation("slide-wsi", applicationId=KIDNEY, context={"x": "y" * 10_000_000})
            status, answer, _ = await house.invoke(big, url=house.app(KIDNEY))
            assert (status, "too large" in answer["detail"]) == (413, True)
            elsewhere = house.invocation("slide-wsi", applicationId=KIDNEY)
            for url in (
                "http://169.254.169.254/latest",
                house.sectra.url.replace("127.0.0.1", "127.0.0.1.nip.io"),
                house.sectra.url.replace("127.0.0.1", "user@127.0.0.1"),
                house.sectra.url + "/../../../../elsewhere",
            ):
                elsewhere["callbackInfo"]["url"] = url
                status, _, _ = await house.invoke(elsewhere, url=house.app(KIDNEY))
                assert (url, status) == (url, 403)
            assert vendor.calls == []
            await invoke(house, "slide-wsi")
            await house.job_on("slide-wsi", "analysing")
            there = callbacks(vendor)
            headers = {"Authorization": f"Bearer {there['token']}", "Content-Type": "application/json"}
            for raw, expected in ((b"{" * 100_000, 400), (b'{"x": NaN}', 400), (b"\xff\xfe", 400)):
                async with house.http.post(
                    f"{there['url']}/applications/x/results", data=raw, headers=headers
                ) as response:
                    assert (raw[:9], response.status) == (raw[:9], expected)
            large = b'{"slideId": "' + b"x" * (33 * 2**20) + b'"}'
            try:
                async with house.http.post(
                    f"{there['url']}/applications/x/results", data=large, headers=headers
                ) as response:
                    assert response.status == 413
            except aiohttp.ClientConnectionError:
                pass  # closed while it was still being sent
            # Sectra pointing elsewhere is followed by nobody.
            house.sectra.front.faults.append(
                Fault(path="/files", status=302, headers={"Location": "http://127.0.0.1:9/steal"})
            )
            status, said = await call(house, vendor, "slides/slide-wsi/files")
            assert (status, "127.0.0.1" in json.dumps(said)) == (502, False)


async def test_one_token_can_neither_fill_the_memory_nor_hold_up_others(
    tmp_path: Path, database_url: str
) -> None:
    with given_vendor(mode="never") as vendor:
        async with ward(tmp_path, database_url, vendor) as house:
            await invoke(house, "slide-wsi")
            await house.job_on("slide-wsi", "analysing")
            results = f"{callbacks(vendor)['url']}/applications/x/results"
            headers = {"Authorization": f"Bearer {callbacks(vendor)['token']}"}
            ended = asyncio.Event()

            async def dribble() -> AsyncIterator[bytes]:
                yield b'{"slideId": "slide-wsi", "displayResult": "'
                await ended.wait()
                yield b'"}'

            async def upload(body: Any) -> int:
                async with house.http.post(results, data=body, headers=headers) as response:
                    return response.status

            uploads = [asyncio.create_task(upload(dribble())) for _ in range(12)]
            done: set[asyncio.Task[int]] = set()
            async with asyncio.timeout(60):
                while len(done) < 8:
                    done, _ = await asyncio.wait(uploads, timeout=0.2)
            assert {task.result() for task in done} == {429}
            ended.set()
            assert {task.result() for task in (await asyncio.wait(uploads))[0]} == {422, 429}  # Sectra's word
            values = b'{"slideId": "slide-wsi", "x": [' + b"[]," * 2_000_000 + b"[]]}"
            assert await upload(values) == 413
            for length in (9 * 2**20, 2**30):  # refused by its announcement
                declared = {**headers, "Content-Length": str(length)}
                async with house.http.post(results, data=dribble(), headers=declared) as response:
                    assert response.status == 413


async def test_what_is_missing_in_the_configuration_is_named(tmp_path: Path, database_url: str) -> None:
    with given_vendor() as vendor:
        async with ward(tmp_path, database_url, vendor) as house:
            await house.gateway.stop()
            applications = house.configuration["departments"]["emergency"]["applications"]
            del applications["milvue-trauma"]["archives"]
            del house.configuration["public_url"]
            with pytest.raises(RuntimeError, match="didn't start") as caught:
                await house.start()
            assert "milvue-trauma.archives is missing" in str(caught.value)
            assert "public_url is missing" in str(caught.value)
