"""A vendor's own IA-API app behind the real gateway, in front of a strict Sectra."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from gateway.simulate.front import Fault
from tests.peers.ia_vendor import OWN_NAME, ia_vendor
from tests.peers.ia_ward import KIDNEY, call, invoke, told, ward


async def test_an_answer_at_once_takes_the_place_of_the_sign(tmp_path: Path, database_url: str) -> None:
    with ia_vendor() as vendor:
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


async def test_an_answer_that_nobody_stored_is_stored_for_the_vendor(
    tmp_path: Path, database_url: str
) -> None:
    """Its text says that it is final. The first comes broken, and is asked for anew; so is the second, which
    isn't of the shape of a result."""
    spoiled = ["cut", {"displayResult": "ANSWER: 41", "data": ["no result"]}]
    with ia_vendor(mode="inline", spoiled=spoiled) as vendor:
        async with ward(tmp_path, database_url, vendor) as house:
            await invoke(house, "slide-wsi")
            job = await house.job_on("slide-wsi", "done")
            [result] = house.results_on("slide-wsi", KIDNEY)
            assert result["displayResult"] == "ANSWER: 42"
            [drawn] = result["data"]["result"]["content"]
            assert [point["y"] for point in drawn["polygons"][0]["points"]] == [0, 0, 0.75, 0.75]
            assert len(vendor.calls) == 3
            assert [delivery["reference"] for delivery in job["deliveries"]] == [str(result["id"])]


async def test_an_answer_that_nobody_stored_waits_for_sectra(tmp_path: Path, database_url: str) -> None:
    with ia_vendor(mode="inline") as vendor:
        vendor.held = threading.Event()
        async with ward(tmp_path, database_url, vendor) as house:
            await invoke(house, "slide-wsi")
            await house.until(lambda: bool(vendor.calls), "the vendor is called")
            house.sectra.front.faults.append(Fault(status=503))
            vendor.held.set()
            await house.job_on("slide-wsi", "delivering")
            house.sectra.front.faults.clear()
            await house.job_on("slide-wsi", "done")
            [result] = house.results_on("slide-wsi", KIDNEY)
            assert result["displayResult"] == "ANSWER: 42" and len(vendor.calls) == 1


@pytest.mark.parametrize("hooks", [False, True])
async def test_results_minutes_later_end_done_with_all_that_was_read(
    tmp_path: Path, database_url: str, hooks: bool
) -> None:
    reads = ("slides/{slide}/files", "images/{slide}_files/8/0_0.jpg", "images/{slide}_files/9/0_0_0.jpg")
    with ia_vendor(mode="later", reads=reads) as vendor:
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
    with ia_vendor(mode="later", final_text="maybe", steps=1, pause=0.0) as vendor:
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
    with ia_vendor(late=12.0, final_text="7 mitoses", **shape) as vendor:
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
    with ia_vendor(mode="later", late=6.0, steps=0) as vendor:
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
    with ia_vendor(mode="never") as vendor:
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


async def test_a_version_that_only_we_replaced_is_still_good(tmp_path: Path, database_url: str) -> None:
    with ia_vendor() as vendor:
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
    with ia_vendor() as vendor:
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
    with ia_vendor(mode="mute") as vendor:
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
    with ia_vendor(mode="mute") as vendor:
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
    with ia_vendor(refuses=503, refusals_left=2) as vendor:
        async with ward(tmp_path, database_url, vendor) as house:
            await invoke(house, "slide-wsi")
            await house.job_on("slide-wsi", "done")
            assert len(vendor.calls) == 3
            # The rights of an invocation that was refused ended with it.
            assert (await call(house, vendor, "info"))[0] == 401


async def test_a_killed_gateway_neither_loses_nor_doubles_it(tmp_path: Path, database_url: str) -> None:
    with ia_vendor(mode="never", phi=True) as vendor:
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
    with ia_vendor(held=held) as vendor:
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


async def test_what_is_missing_in_the_configuration_is_named(tmp_path: Path, database_url: str) -> None:
    with ia_vendor() as vendor:
        async with ward(tmp_path, database_url, vendor) as house:
            await house.gateway.stop()
            applications = house.configuration["departments"]["emergency"]["applications"]
            del applications["milvue-trauma"]["archives"]
            del house.configuration["public_url"]
            with pytest.raises(RuntimeError, match="didn't start") as caught:
                await house.start()
            assert "milvue-trauma.archives is missing" in str(caught.value)
            assert "public_url is missing" in str(caught.value)
