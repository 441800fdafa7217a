"""The simulated Sectra: met with the public client, with wrong calls, and with an app that it calls."""

from __future__ import annotations

import asyncio
import copy
import io
import tracemalloc

import pytest
import requests
import sectra_client.client
from aiohttp import web
from PIL import Image
from sectra_client import SectraClient
from sectra_client.schemas import AdaptedResult, QualityControl, Result
from sectra_client.utils.errors import SectraRequestError

from gateway.simulate.patients import HAND, SLIDE
from gateway.simulate.samples import make_samples
from gateway.simulate.sectra import make_app
from gateway.simulate.sectra_state import PASSWORD, USERNAME, SectraState, Settings
from gateway.simulate.serve import serve

VERSIONS = {"X-Sectra-ApiVersion": "1.10", "X-Sectra-SoftwareVersion": "4.2.0.0"}
RESULT = {
    "slideId": "slide-hand",
    "displayResult": "analysis queued",
    "displayProperties": {"Progress": "0 %", "score": 0.5},
    "applicationVersion": "1.0",
    "attachments": [],
    "data": {
        "context": {},
        "result": {
            "type": "primitive",
            "content": [
                {
                    "style": {"strokeStyle": "#FFA500", "fillStyle": None, "size": 2},
                    "polygons": [{"points": [{"x": 0, "y": 0}, {"x": 1, "y": 0}, {"x": 1, "y": 0.75}]}],
                    "polylines": [],
                    "labels": [{"location": {"x": 0.1, "y": 0.1}, "label": "queued"}],
                }
            ],
        },
    },
}


@pytest.fixture
async def sectra():
    sectra_client.client._info_cache.clear()  # noqa: SLF001
    state = SectraState()
    runner, _ = await serve(make_app(state))
    yield state
    await runner.cleanup()


def ask(state, method, path, token=None, headers=VERSIONS, **more):
    headers = {"Authorization": f"Bearer {token or state.mint()}", **headers}
    return requests.request(method, state.url + path, headers=headers, timeout=20, **more)


async def test_the_public_client_can_do_everything(sectra, tmp_path):
    def talk():
        with SectraClient(sectra.url, sectra.mint("app"), _allow_http=True) as client:
            assert client.version_info.apiVersion == "1.10"
            plain = client.get_image_metadata("slide-hand")
            assert (plain.studyInstanceUid, plain.accessionNumber, plain.bodyPart) == (None, None, None)
            extended = client.get_image_metadata("slide-hand", extended=True)
            assert (extended.studyInstanceUid, extended.bodyPart) == (None, "HAND")
            full = client.get_image_metadata("slide-hand", extended=True, phi=True)
            assert full.studyInstanceUid == HAND.study_instance_uid
            case = client.get_image_infos_in_case(SLIDE.accession_number, phi=True)
            assert {each.id for each in case} == {"slide-wsi", "slide-wsi-2"}
            assert client.get_image_infos_in_case_by_slide_id("slide-wsi") != []
            assert client.get_label_image("slide-hand").convert_to_pil().size == (240, 160)
            paths = client.download_slide_files("slide-wsi", tmp_path)
            assert tuple(path.read_bytes() for path in paths) == make_samples()[-1].files
            made = client.create_results("app", Result(**RESULT))
            assert client.get_result_by_result_id("app", made.id) == made
            change = AdaptedResult(**{**made.model_dump(), "displayResult": "done"})
            changed = client.update_results("app", made.id, change)
            assert (changed.displayResult, changed.id) == ("done", made.id)
            assert client.get_all_results("slide-hand", "app") == [changed]
            with pytest.raises(SectraRequestError) as stale:
                client.update_results("app", made.id, change)
            assert stale.value.status_code == 409
            control = full.qualityControl
            ok = {"status": "QualityOk", "versionId": control.versionId}
            client.set_quality_control(
                "slide-hand", QualityControl(applicationVersion="1", qualityControl=ok)
            )
            after = client.get_image_metadata("slide-hand", extended=True)
            assert after.qualityControl.status.value == "QualityOk"

    await asyncio.to_thread(talk)
    assert [stored.body["displayResult"] for stored in sectra.results.values()] == ["done"]


async def test_wrong_results_are_refused(sectra):
    path = "/applications/app/results"

    async def post(change):
        result = copy.deepcopy(RESULT)
        change(result)
        return (await asyncio.to_thread(ask, sectra, "POST", path, json=result)).status_code

    inner = lambda result: result["data"]["result"]  # noqa: E731
    point = lambda result: inner(result)["content"][0]["polygons"][0]["points"][0]  # noqa: E731
    assert await post(lambda result: None) == 201
    assert await post(lambda result: inner(result).update(content=inner(result)["content"][0])) == 422
    assert await post(lambda result: result.update(surprise=1)) == 422
    assert await post(lambda result: point(result).update(x="0.5")) == 422
    assert await post(lambda result: point(result).update(z=1)) == 422
    assert await post(lambda result: result["displayProperties"].update(ready=True)) == 422
    assert await post(lambda result: result["displayProperties"].update(boxes=[1])) == 422
    assert await post(lambda result: result.update(id=5)) == 422
    assert await post(lambda result: result.update(slideId="nowhere")) == 404
    assert await post(lambda result: point(result).update(y=1.2)) == 201
    warnings = [stored.warnings for stored in sectra.results.values()]
    assert warnings == [[], ["1 points lie outside the slide"]]


async def test_tokens_versions_and_paths_are_checked(sectra):
    def status(*args, **more):
        return ask(sectra, *args, **more).status_code

    def talk():
        info = "/slides/slide-hand/info"
        assert status("GET", info) == 200
        assert status("GET", info, token="made-up") == 401
        assert status("GET", info, token=sectra.mint(seconds=-1)) == 401
        assert status("GET", info, headers={}) == 400
        assert status("GET", "/info", headers={}) == 200
        assert status("GET", info, headers={**VERSIONS, "X-Sectra-ApiVersion": "1.11"}) == 400
        assert status("GET", info + "?scope=everything") == 400
        token = sectra.mint("app")
        assert status("POST", "/applications/other/results", token=token, json=RESULT) == 403
        assert status("POST", "/hooks/app/results", token=token, json=RESULT) == 404
        sectra.settings = Settings(api_version="1.5", hooks=True, token_calls=2, created=200)
        old = {**VERSIONS, "X-Sectra-ApiVersion": "1.5"}
        token = sectra.mint("app")
        assert status("POST", "/hooks/app/results", token=token, headers=old, json=RESULT) == 200
        assert status("GET", "/slides/slide-hand/request/images/info", token=token, headers=old) == 404
        assert status("GET", info, token=token, headers=old) == 401  # it died before its time
        url, form = sectra.url + "/token?applicationId=app", {"grant_type": "client_credentials"}
        got = requests.post(url, data=form, auth=(USERNAME, PASSWORD), timeout=20).json()
        assert (got["token_type"], got["expires_in"]) == ("Bearer", 3600)
        assert status("GET", info, token=got["access_token"], headers=old) == 200
        assert requests.post(url, data=form, auth=(USERNAME, "wrong"), timeout=20).status_code == 401

    await asyncio.to_thread(talk)


async def test_tiles_and_files_are_made_when_asked_for(sectra):
    def talk():
        tip = ask(sectra, "GET", "/images/slide-accession_files/0/0_0.jpg")
        assert Image.open(io.BytesIO(tip.content)).size == (1, 1)
        edge = ask(sectra, "GET", "/images/slide-accession_files/15/78_58.png?opticalPath=0")
        assert Image.open(io.BytesIO(edge.content)).size == (20_000 - 78 * 256, 15_000 - 58 * 256)
        assert ask(sectra, "GET", "/images/slide-accession_files/15/79_0.jpg").status_code == 404
        assert ask(sectra, "GET", "/images/slide-bare_files/15/0_0_2.jpg").status_code == 200
        assert ask(sectra, "GET", "/images/slide-bare_files/15/0_0_3.jpg").status_code == 404
        assert ask(sectra, "GET", "/slides/slide-wsi-2/label").status_code == 204
        single = ask(sectra, "GET", "/slides/slide-wsi-2/files")
        assert single.headers["Content-Disposition"] == 'attachment; filename="slide.svs"'
        piece = ask(
            sectra, "GET", "/slides/slide-wsi-2/files", headers={**VERSIONS, "Range": "bytes=999-1999998"}
        )
        assert (piece.status_code, piece.content) == (206, single.content[999:1999999])
        bulk = ask(sectra, "GET", "/slides/bulk-3x5MiB/files")
        assert bulk.content.count(b"Content-Disposition: attachment") == 3
        assert len(bulk.content) > 15 * 2**20

    await asyncio.to_thread(talk)


async def test_it_calls_an_app_and_judges_the_answer(sectra):
    seen = []

    async def answer(request):
        body = await request.json()
        seen.append((request.path, body))
        replies = {"create": RESULT, "modify": body.get("input"), "cancel": [], "delete": {"no": 1}}
        return web.json_response(replies.get(body["action"], {}), headers=VERSIONS)

    app = web.Application()
    app.router.add_post("/ia/app{tail:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/ia/app"
    control = sectra.front.url + "/control/fire"

    async def fire(action, **more):
        shot = {"url": url, "applicationId": "app", "slideId": "slide-hand", "action": action, **more}
        return (await asyncio.to_thread(requests.post, control, json=shot, timeout=20)).json()

    try:
        assert (await fire("modify"))["complaints"] == ["The app has no such result on the slide."]
        for kind in ("wholeSlide", "taggedPolygon", "multiArea"):
            told = await fire("create", input=kind)
            assert (told["status"], told["complaints"]) == (200, [])
            assert seen[-1][1]["input"]["type"] == kind
        token = seen[-1][1]["callbackInfo"]["token"]
        made = await asyncio.to_thread(
            ask, sectra, "POST", "/applications/app/results", token=token, json=RESULT
        )
        assert (await fire("modify"))["body"] == made.json()
        assert (await fire("cancel"))["complaints"] == []
        assert seen[-1][1]["cancellationToken"] == seen[-2][1]["cancellationToken"]
        assert (await fire("newImageFiles"))["complaints"] == []
        assert seen[-1][0] == "/ia/app/imagenotification"
        assert "accessionNumber" not in seen[-1][1]["imageInfo"]
        assert (await fire("delete"))["complaints"] == ["the answer to delete has to be {}"]
        assert sectra.results == {}
    finally:
        await runner.cleanup()
    assert (await fire("create"))["status"] == 0


async def test_disturbances_can_be_asked_for(sectra):
    path, url = "/applications/app/results", sectra.front.url

    def disturb(*faults):
        wanted = {"faults": [{"method": "POST", "path": "/results$", "times": 1, **each} for each in faults]}
        assert requests.put(url + "/control/faults", json=wanted, timeout=20).ok

    def post():
        return ask(sectra, "POST", path, json=RESULT, allow_redirects=False)

    def talk():
        elsewhere = {"status": 307, "headers": {"Location": "http://127.0.0.1:9/away"}}
        disturb({"status": 503}, {"status": 429, "headers": {"Retry-After": "3"}}, elsewhere)
        assert [post().status_code for _ in range(4)] == [503, 429, 307, 201]
        disturb({"drop": True})
        with pytest.raises(requests.ConnectionError):
            post()
        assert len(sectra.results) == 1
        disturb({"drop_answer": True})
        with pytest.raises(requests.ConnectionError):
            post()
        assert len(sectra.results) == 2  # it was stored, and nobody was told
        token = sectra.mint("app")
        assert requests.post(url + "/control/kill-tokens", timeout=20).ok
        assert ask(sectra, "GET", "/slides/slide-hand/info", token=token).status_code == 401
        assert (
            requests.put(url + "/control/faults", json={"faults": [{"typo": 1}]}, timeout=20).status_code
            == 422
        )
        log = requests.get(url + "/control/log", timeout=20).json()
        assert log[0]["path"].endswith("/applications/app/results")
        assert [call["status"] for call in log if call["method"] == "POST"][:4] == [503, 429, 307, 201]

    await asyncio.to_thread(talk)


async def test_huge_files_cost_no_memory(sectra):
    """256 GiB in four files: only the beginning is read, and nothing is made before it is asked for."""

    def talk():
        tracemalloc.start()
        try:
            answer = ask(sectra, "GET", "/slides/bulk-4x64GiB/files", stream=True)
            taken = sum(len(chunk) for chunk, _ in zip(answer.iter_content(2**20), range(64), strict=False))
            answer.close()
            return taken, tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    taken, peak = await asyncio.to_thread(talk)
    assert taken > 32 * 2**20
    assert peak < 24 * 2**20


async def test_the_page_draws_results(sectra, tmp_path):
    path = "/applications/app/results"
    strange = {**copy.deepcopy(RESULT), "displayResult": "<b>queued</b>"}
    assert (await asyncio.to_thread(ask, sectra, "POST", path, json=strange)).ok
    chromium = await asyncio.create_subprocess_exec(
        "chromium",
        *("--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=3000", "--dump-dom"),
        *(f"--user-data-dir={tmp_path}", f"{sectra.front.url}/?slide=slide-hand"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        page = (await asyncio.wait_for(chromium.communicate(), 60))[0].decode()
    finally:
        if chromium.returncode is None:
            chromium.kill()
            await chromium.wait()
    assert '<polygon stroke="#FFA500"' in page
    assert 'points="0,0 1,0 1,0.75"' in page
    assert "<td>Progress</td><td>0 %</td>" in page
    assert "&lt;b&gt;queued&lt;/b&gt;" in page
    assert "<b>queued</b>" not in page
