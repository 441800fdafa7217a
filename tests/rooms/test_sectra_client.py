"""The callback side against the public mock server, and against servers as it doesn't offer them."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from PIL import Image
from sectra_client.mock_server import MockSectraServer
from sectra_client.schemas import AdaptedResult, ImageMetadata, QualityControl, Result

from gateway.contract import Busy, Failure, NeedsHuman, NotLetIn, Permanent, Retryable
from gateway.sectra import results, shapes
from gateway.sectra.calls import Limits
from gateway.sectra.client import SectraClient
from gateway.sectra.failures import VersionConflict
from tests.peers.ports import free_port

QUEUED = results.NewResult(
    slide_id="slide-1",
    display_result="analysis queued",
    display_properties={"Progress": "0 %"},
    application_version="1.2",
    data=results.ResultData(
        result=results.PrimitiveResult(content=[shapes.frame(1000, 500, "analysis queued")])
    ),
)


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


@pytest.fixture
def mock() -> Iterator[MockSectraServer]:
    with MockSectraServer().run(port=0, host="127.0.0.1") as server:
        yield server


def client_of(
    session: aiohttp.ClientSession, url: object, token: str = "dev-token", **kwargs: Any
) -> SectraClient:
    return SectraClient(session, str(url), token, software_version="0.1", **kwargs)


def answering(
    status: int = 200, body: object = None, headers: dict[str, str] | None = None
) -> web.Application:
    """A server that answers everything alike, and keeps what it was asked in `app["asked"]`."""

    async def answer(request: web.Request) -> web.Response:
        request.app[ASKED].append(request)
        return web.Response(
            status=status, text=json.dumps(body), content_type="application/json", headers=headers
        )

    app = web.Application()
    app[ASKED] = []
    app.router.add_route("*", "/{path:.*}", answer)
    return app


ASKED = web.AppKey("asked", list[web.Request])


async def test_a_result_lives_its_life_on_the_public_mock(
    session: aiohttp.ClientSession, mock: MockSectraServer
) -> None:
    client = client_of(session, mock.url + "/")
    stored = await client.create_result("app", QUEUED)
    assert stored.id == 1
    stored.display_result = "done"
    updated = await client.update_result("app", stored)
    assert updated.version_id != stored.version_id
    assert await client.read_result("app", stored.id) == updated
    assert await client.list_results("app", "slide-1") == [updated]
    assert await client.list_results("app", "other") == []
    kept = mock.get_results("app", "slide-1")[0]
    assert (kept.displayResult, kept.displayProperties) == ("done", {"Progress": "0 %"})


async def test_what_is_sent_is_what_the_public_schemas_want(session: aiohttp.ClientSession) -> None:
    bodies: list[Any] = []

    async def store(request: web.Request) -> web.Response:
        bodies.append(await request.json())
        assert request.headers["Authorization"] == "Bearer dev-token"
        assert request.headers["X-Sectra-ApiVersion"] == "1.10"
        assert request.headers["X-Sectra-SoftwareVersion"] == "0.1"
        return web.json_response({**bodies[-1], "id": 5, "versionId": "v2"})

    app = web.Application()
    app.router.add_post("/applications/app/results", store)  # 200, as older servers answer
    app.router.add_put("/applications/app/results/5", store)
    async with TestServer(app) as server:
        client = client_of(session, server.make_url("/"))
        await client.update_result("app", await client.create_result("app", QUEUED))
    Result.model_validate(bodies[0], strict=False, extra="forbid")
    AdaptedResult.model_validate(bodies[1])
    assert isinstance(bodies[1]["data"]["result"]["content"], list)
    assert bodies[1]["versionId"] == "v2"


async def test_slides_cases_labels_and_quality_on_the_public_mock(
    session: aiohttp.ClientSession, mock: MockSectraServer
) -> None:
    described = client_of(session, mock.url)
    info = await described.slide_info("slide-1")
    assert (info.image_size.width, info.image_size.height) == (100_000, 80_000)  # type: ignore[union-attr]
    known = ImageMetadata.model_validate(info.to_wire())
    mock.add_slide(known.model_copy(update={"accessionNumber": "A/1", "id": "slide-1"}))
    mock.add_slide(known.model_copy(update={"accessionNumber": "A/1", "id": "slide-2"}))
    assert [image.id for image in await described.case_images_of_slide("slide-1")] == ["slide-1", "slide-2"]
    label = await described.label("slide-1")
    assert label is not None
    assert label.startswith(b"\xff\xd8")
    await described.set_quality("slide-1", "QualityOk", "v7", application_version="1.2")
    assert mock._quality_controls["slide-1"].versionId == "v7"  # noqa: SLF001
    assert (await described.info()).api_version == "1.10"


async def test_questions_are_asked_as_written(session: aiohttp.ClientSession) -> None:
    app = answering(body={"id": "s"})
    async with TestServer(app) as server:
        client = client_of(session, server.make_url("/C"))
        await client.slide_info("a/b ü?", phi=True)
        await client.slide_info("s", extended=False)
        await client.tile("s", 3, 1, 2, focal_plane="0", extension="png", optical_path="red 1")
        await client.tile("s", 3, 1, 2)
        with pytest.raises(Permanent):
            await client.slide_info("..")
    assert [request.raw_path for request in app[ASKED]] == [
        "/C/slides/a%2Fb%20%C3%BC%3F/info?scope=extended&includePHI=true",
        "/C/slides/s/info",
        "/C/images/s_files/3/1_2_0.png?opticalPath=red+1",
        "/C/images/s_files/3/1_2.jpg",
    ]


async def test_the_version_is_asked_once_and_older_servers_are_told_apart(
    session: aiohttp.ClientSession,
) -> None:
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.path_qs)
        if request.path == "/info":
            return web.json_response({"apiVersion": "1.9", "softwareVersion": "4.1", "more": None})
        return web.json_response([{"id": "s", "staining": None}])

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    async with TestServer(app) as server:
        for _ in range(2):
            client = client_of(session, server.make_url("/"))
            assert [image.id for image in await client.case_images("A1", issuer="X", phi=True)] == ["s"]
            with pytest.raises(Permanent, match=r"speaks IA-API 1\.9; .* needs 1\.10"):
                await client.set_quality("s", "Rejected", "v", application_version="1")
    question = "/requests/A1/images/info?accessionNumberIssuer=X&includePHI=true"
    assert asked == ["/info", question, question]


async def test_results_of_an_older_server_lie_below_hooks(session: aiohttp.ClientSession) -> None:
    asked: list[tuple[str, str]] = []

    async def hooks(request: web.Request) -> web.Response:
        asked.append((request.method, request.path))
        if not request.path.startswith("/hooks/"):
            raise web.HTTPNotFound
        if request.method == "GET":
            return web.json_response(None)
        body = await request.json()
        return web.json_response({**body, "id": "5", "versionId": 1})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", hooks)
    async with TestServer(app) as server:
        stored = await client_of(session, server.make_url("/")).create_result("app", QUEUED)
        assert (stored.id, stored.version_id) == (5, "1")
        assert await client_of(session, server.make_url("/")).list_results("app", "slide-1") == []
    assert asked == [
        ("POST", "/applications/app/results"),
        ("POST", "/hooks/app/results"),
        ("GET", "/hooks/app/results/slide/slide-1"),
    ]


async def test_a_slide_without_a_label_has_none(session: aiohttp.ClientSession) -> None:
    async with TestServer(answering(204)) as server:
        assert await client_of(session, server.make_url("/")).label("s") is None


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (409, None),
        (412, None),
        (422, {"message": "Stale versionId"}),
        (400, "the result was changed concurrently"),
        (422, {"detail": [{"loc": ["body", "versionId"], "msg": "not the current one"}]}),
    ],
)
async def test_a_stale_version_is_a_conflict(
    session: aiohttp.ClientSession, status: int, body: object
) -> None:
    stored = results.StoredResult(**QUEUED.model_dump(), id=1, version_id="old")
    async with TestServer(answering(status, body)) as server:
        with pytest.raises(VersionConflict):
            await client_of(session, server.make_url("/")).update_result("app", stored)


@pytest.mark.parametrize(
    ("status", "headers", "kind", "after", "uncertain"),
    [
        (400, {}, Permanent, None, False),
        (422, {}, Permanent, None, False),
        (413, {}, Permanent, None, False),
        (401, {}, NotLetIn, None, False),
        (403, {}, NotLetIn, None, False),
        (302, {"Location": "https://elsewhere/"}, NeedsHuman, None, False),
        (408, {}, Retryable, None, True),
        (425, {}, Retryable, None, True),
        (429, {"Retry-After": "7"}, Busy, 7.0, False),
        (503, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, Retryable, 0.0, False),
        (500, {"Retry-After": "soon"}, Retryable, None, True),
        (502, {}, Retryable, None, True),
    ],
)
async def test_each_refusal_has_its_kind(
    session: aiohttp.ClientSession,
    status: int,
    headers: dict[str, str],
    kind: type[Failure],
    after: float | None,
    uncertain: bool,
) -> None:
    echo = {"detail": [{"loc": ["body", "slideId"], "input": {"versionId": 1, "name": "DOE^JANE"}}]}
    async with TestServer(answering(status, echo, headers)) as server:
        with pytest.raises(kind) as caught:
            await client_of(session, server.make_url("/"), token="secret").create_result("app", QUEUED)
    failure = caught.value
    assert isinstance(failure, kind) and failure.kind == kind.kind
    assert "storing a result" in failure.message
    assert failure.advice
    assert not any(word in failure.message + failure.advice for word in ("secret", "DOE", "slide-1"))
    if isinstance(failure, Retryable):
        assert (failure.after, failure.uncertain) == (after, uncertain)


@pytest.mark.parametrize("status", [400, 404])
async def test_an_older_server_knows_the_issuer_by_another_name(
    session: aiohttp.ClientSession, status: int
) -> None:
    async def answer(request: web.Request) -> web.Response:
        if request.path == "/info":
            return web.json_response({"apiVersion": "1.9"})
        if request.query.get("accessionNumberIssuerId") != "X":
            return web.Response(status=status)
        return web.json_response([{"id": "s"}])

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    async with TestServer(app) as server:
        client = client_of(session, server.make_url("/"))
        assert [image.id for image in await client.case_images("A1", issuer="X")] == ["s"]
        with pytest.raises(Permanent):
            await client.case_images("A1", issuer="Y")


async def test_an_upgraded_server_is_looked_at_again(session: aiohttp.ClientSession) -> None:
    place = ["hooks"]

    async def answer(request: web.Request) -> web.Response:
        if not request.path.startswith(f"/{place[0]}/"):
            raise web.HTTPNotFound
        return web.json_response({**await request.json(), "id": 5, "versionId": "1"})

    app = web.Application()
    app.router.add_post("/{path:.*}", answer)
    async with TestServer(app) as server:
        client = client_of(session, server.make_url("/"))
        passage, body = client.passage(), QUEUED.to_wire()
        for place[0] in ("hooks", "applications", "hooks"):  # an upgrade, and its end
            assert (await client.create_result("app", QUEUED)).id == 5
        for place[0] in ("applications", "hooks"):
            assert (await passage.results("POST", "app", "", "storing", body=body, headers={})).status == 200


@pytest.mark.parametrize("status", [400, 409, 412, 422, 403, 500])
async def test_a_change_that_is_passed_on_is_stale_as_one_of_ours_is(
    session: aiohttp.ClientSession, status: int
) -> None:
    async with TestServer(answering(status, {"message": "The versionId is stale"})) as server:
        passage = client_of(session, server.make_url("/")).passage()
        answer = await passage.results("PUT", "app", "/1", "updating", body={}, headers={})
        assert (answer.status, answer.stale) == (status, status in (400, 409, 412, 422))
        answer = await passage.results("GET", "app", "/1", "reading", headers={})
        assert not answer.stale


async def test_a_missing_result_is_missing_in_both_places(session: aiohttp.ClientSession) -> None:
    async with TestServer(answering(404)) as server:
        with pytest.raises(Permanent):
            await client_of(session, server.make_url("/")).read_result("app", 3)


async def test_a_redirect_is_not_followed(session: aiohttp.ClientSession) -> None:
    elsewhere = answering(body={"apiVersion": "1.10"})
    async with TestServer(elsewhere) as other:
        moved = answering(307, headers={"Location": str(other.make_url("/info"))})
        async with TestServer(moved) as server:
            with pytest.raises(NeedsHuman, match="points to another address"):
                await client_of(session, server.make_url("/")).info()
    assert elsewhere[ASKED] == []


async def test_silence_unreachable_and_broken_lines_may_be_tried_again(
    session: aiohttp.ClientSession,
) -> None:
    async def hang(_: web.Request) -> web.Response:
        await asyncio.sleep(60)
        return web.Response()

    async def hang_up(request: web.Request) -> web.Response:
        await request.read()
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    app = web.Application()
    app.router.add_get("/info", hang)
    app.router.add_post("/applications/app/results", hang_up)
    async with TestServer(app) as server:
        client = client_of(session, server.make_url("/"), limits=Limits(read=0.05))
        with pytest.raises(Retryable, match="did not answer in time") as silent:
            await client.info()
        assert not silent.value.uncertain
        with pytest.raises(Retryable, match="broke while storing") as broken:
            await client.create_result("app", QUEUED)
        assert broken.value.uncertain
    port = free_port()
    with pytest.raises(Retryable, match="can't be reached") as away:
        await client_of(session, f"http://127.0.0.1:{port}").create_result("app", QUEUED)
    assert not away.value.uncertain
    with pytest.raises(NeedsHuman):
        client_of(session, "no address")


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"<html>log in</html>", Retryable),
        (b"[" * 100_000, Retryable),
        (b'{"id": "", "imageSize": {"width": "DOE"}}', Retryable),
        (b'"' + b"x" * 5000 + b'"', Permanent),
    ],
)
async def test_a_strange_answer_is_told_without_repeating_it(
    session: aiohttp.ClientSession, answer: bytes, kind: type[Failure]
) -> None:
    async def strange(_: web.Request) -> web.Response:
        return web.Response(body=answer)

    app = web.Application()
    app.router.add_get("/slides/s/info", strange)
    limits = Limits(json_bytes=4096 if kind is Permanent else 1 << 20)
    async with TestServer(app) as server:
        with pytest.raises(kind) as caught:
            await client_of(session, server.make_url("/"), limits=limits).slide_info("s")
    assert "DOE" not in caught.value.message


async def test_quality_control_has_the_public_shape(session: aiohttp.ClientSession) -> None:
    bodies: list[Any] = []

    async def answer(request: web.Request) -> web.Response:
        if request.method == "GET":
            return web.json_response({"apiVersion": "1.10"})
        bodies.append(await request.json())
        return web.Response(status=204)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    async with TestServer(app) as server:
        await client_of(session, server.make_url("/")).set_quality(
            "s", "Rejected", "v3", application_version="2"
        )
    assert QualityControl.model_validate(bodies[0], extra="forbid").qualityControl.versionId == "v3"


def picture(width: int, height: int, colour: tuple[int, int, int]) -> bytes:
    written = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(written, "PNG")
    return written.getvalue()


async def test_a_thumbnail_is_put_together_from_tiles(session: aiohttp.ClientSession) -> None:
    """1000 x 600 at tiles of 100: level 10 is full size, so 300 pixels come from level 9 (500 x 300)."""
    wanted: set[str] = set()

    async def info(_: web.Request) -> web.Response:
        size = {"width": 1000, "height": 600}
        formats = [{"extension": "bmp"}, {"extension": "png"}]
        return web.json_response(
            {"id": "s", "imageSize": size, "tileSize": 100, "availableTileFormats": formats[1:]}
        )

    async def tile(request: web.Request) -> web.Response:
        wanted.add(request.match_info["place"])
        column = int(request.match_info["place"].split("_")[0])
        return web.Response(body=picture(100, 100, (255, 0, 0) if column < 2 else (0, 0, 255)))

    app = web.Application()
    app.router.add_get("/slides/s/info", info)
    app.router.add_get("/images/s_files/9/{place}.png", tile)
    async with TestServer(app) as server:
        client = client_of(session, server.make_url("/"))
        made = Image.open(io.BytesIO(await client.thumbnail("s", 300)))
        with pytest.raises(Permanent, match="doesn't know"):
            await client.thumbnail("s", 1000)
    assert wanted == {f"{column}_{row}" for column in range(5) for row in range(3)}
    assert (made.size, made.format) == ((300, 180), "JPEG")
    left, right = made.getpixel((20, 90)), made.getpixel((280, 90))
    assert isinstance(left, tuple)
    assert isinstance(right, tuple)
    assert left[0] > 240 > 20 > left[2]
    assert right[2] > 240 > 20 > right[0]
