"""What a vendor that reads a slide may see, change and cost: its own slide and case, while its job lives."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
from pydicom import dcmread

from gateway.simulate.front import Fault
from gateway.simulate.slides import list_files
from tests.peers.gateway import Hospital
from tests.peers.ia_vendor import OWN_NAME, ia_vendor
from tests.peers.ia_ward import KIDNEY, call, callbacks, invoke, told, ward


async def test_identifying_data_is_withheld_unless_allowed(tmp_path: Path, database_url: str) -> None:
    with ia_vendor(mode="never", phi=True) as vendor:
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


async def begin_without_names(house: Hospital) -> dict[str, Any]:
    await house.gateway.stop()
    house.configuration["profiles"] = {"research": {}}
    house.configuration["departments"]["emergency"]["applications"][KIDNEY]["deidentify"] = "research"
    await house.start()
    await invoke(house, "slide-wsi")
    return await house.job_on("slide-wsi", "analysing")


async def test_files_leave_without_names_and_what_is_no_dicom_does_not(
    tmp_path: Path, database_url: str
) -> None:
    with ia_vendor(mode="never") as vendor:
        async with ward(tmp_path, database_url, vendor) as house:
            job = await begin_without_names(house)
            status, raw = await call(house, vendor, "slides/slide-wsi/files")
            assert status == 200
            boundary = raw.partition(b"\r\n")[0]
            parts = [part.partition(b"\r\n\r\n") for part in raw.split(boundary)[1:-1]]
            assert parts
            for number, (head, _, body) in enumerate(parts, 1):
                assert f'filename="{number:04}.dcm"'.encode() in head
                ours = dcmread(BytesIO(body.removesuffix(b"\r\n")))
                assert (ours.PatientIdentityRemoved, str(ours.PatientName)) == ("YES", ours.PatientID)
                assert str(ours.StudyInstanceUID).startswith("2.25.")
                assert len(ours.PixelData) > 100
            originals = [
                dcmread(BytesIO(file.data))
                for file in list_files(house.sectra.slides["slide-wsi"])
                if isinstance(file.data, bytes)
            ]
            assert len(originals) == len(parts)
            for original in originals:
                secrets = (original.PatientID, original.AccessionNumber, original.SOPInstanceUID, "level")
                assert not [word for word in secrets if str(word).encode() in raw]
            assert (await call(house, vendor, "slides/slide-wsi/label"))[0] == 403

            await invoke(house, "slide-odd-names")
            await house.job_on("slide-odd-names", "analysing")
            vendor.calls.pop(0)
            status, refusal = await call(house, vendor, "slides/slide-odd-names/files")
            assert status == 403
            assert "a file is no DICOM, and nothing else can be de-identified" in refusal["detail"]
            _, job = await house.api("GET", f"jobs/{job['id']}")
            [files] = told(job)["files"]
            assert files["outcome"] == "200"
            assert files["bytes"] == len(raw)


async def test_what_an_app_writes_by_pseudonyms_stands_on_the_slide_by_the_true_ones(
    tmp_path: Path, database_url: str
) -> None:
    """It is shown its own words again, also by a user who changed them. Here the slide is one file."""
    with ia_vendor(mode="never") as vendor:
        async with ward(tmp_path, database_url, vendor) as house:
            slide = house.sectra.slides["slide-wsi"]
            slide.single_file = True
            first = list_files(slide)[0].data
            assert isinstance(first, bytes)
            original = dcmread(BytesIO(first))
            await begin_without_names(house)
            _, raw = await call(house, vendor, "slides/slide-wsi/files")
            known = dcmread(BytesIO(raw))
            assert str(known.PatientName) == known.PatientID != original.PatientID
            assert known.PixelData == original.PixelData

            theirs = f"ANSWER on {known.PatientID}, in {known.StudyInstanceUID}"
            ours = f"ANSWER on {original.PatientID}, in {original.StudyInstanceUID}"
            stored = await asyncio.to_thread(vendor.store, vendor.calls[0], theirs, str(known.PatientID))
            await house.job_on("slide-wsi", "done")
            [result] = house.results_on("slide-wsi", KIDNEY)
            assert result["displayResult"] == ours
            assert result["displayProperties"] == {"Progress": original.PatientID}
            assert result["data"]["result"]["content"][0]["labels"][0]["label"] == ours

            path = f"applications/{OWN_NAME}/results/{stored['id']}"
            _, read = await call(house, vendor, path)
            _, listed = await call(house, vendor, f"applications/{OWN_NAME}/results/slide/slide-wsi")
            answer = await invoke(house, "slide-wsi", "modify")
            assert answer.body["displayResult"] == f"{ours} (seen)"
            told_again = [stored, read, *listed, vendor.calls[-1]["input"]]
            assert [each["displayResult"] for each in told_again] == [theirs] * 4
            true = (original.PatientID, original.StudyInstanceUID)
            assert not [word for word in true if str(word) in json.dumps([told_again, vendor.calls])]
            [result] = house.results_on("slide-wsi", KIDNEY)
            assert result["displayResult"] == f"{ours} (seen)"


async def test_nothing_but_its_own_slide_and_case(tmp_path: Path, database_url: str) -> None:
    with ia_vendor(mode="never") as vendor:
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
    with ia_vendor(mode="later", steps=0, reads=("slides/{slide}/files",)) as vendor:
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


async def test_too_many_calls_are_slowed_down_and_then_refused(tmp_path: Path, database_url: str) -> None:
    with ia_vendor(mode="never") as vendor:
        async with ward(tmp_path, database_url, vendor, {"rate": "10/min"}) as house:
            await invoke(house, "slide-wsi")
            await house.job_on("slide-wsi", "analysing")
            tries = await asyncio.gather(*(call(house, vendor, "info") for _ in range(40)))
            counted = [status for status, _ in tries]
            assert set(counted) == {200, 429}
            assert counted.count(200) >= 5


async def test_refused_calls_are_no_reading(tmp_path: Path, database_url: str) -> None:
    """They neither count as tiles nor keep a job waiting for quiet."""
    with ia_vendor(mode="never") as vendor:
        async with ward(tmp_path, database_url, vendor, {"rate": "10/min"}) as house:
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
    with ia_vendor(mode="never") as vendor:
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
    with ia_vendor(mode="never") as vendor:
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
