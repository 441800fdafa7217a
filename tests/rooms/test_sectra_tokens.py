"""Tokens that die early, and the one user of our own that all calls share."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from gateway.contract import NeedsHuman, Retryable
from gateway.sectra.client import SectraClient
from gateway.sectra.results import NewResult
from gateway.sectra.tokens import ClientCredentials, InvocationToken, TokenSource


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


class Issuer:
    """A server with a token endpoint that lets in the last token it gave, and `extra` ones."""

    def __init__(self) -> None:
        self.given = 0
        self.alive: set[str] = set()
        self.stored: list[str] = []
        self.fields: dict[str, Any] = {"expires_in": 3600}
        self.refuse_with = 0
        self.forbids = False  # says 403 to a dead token
        self.app = web.Application()
        self.app.router.add_post("/token", self._give)
        self.app.router.add_get("/slides/{slide}/info", self._describe)
        self.app.router.add_post("/applications/app/results", self._store)

    async def _give(self, request: web.Request) -> web.Response:
        if self.refuse_with:
            return web.Response(status=self.refuse_with)
        assert request.query["applicationId"] == "app 1"
        assert (await request.post())["grant_type"] == "client_credentials"
        user = base64.b64decode(request.headers["Authorization"].removeprefix("Basic ")).decode()
        assert user == "svc:pass:wörd"
        await asyncio.sleep(0.02)  # so that the others arrive meanwhile
        self.given += 1
        self.alive = {f"own-{self.given}"}
        name = "accessToken" if "expiresIn" in self.fields else "access_token"
        return web.json_response({name: f"own-{self.given}", "token_type": "Bearer", **self.fields})

    def _admit(self, request: web.Request) -> None:
        if request.headers["Authorization"].removeprefix("Bearer ") not in self.alive:
            raise web.HTTPForbidden if self.forbids else web.HTTPUnauthorized

    async def _describe(self, request: web.Request) -> web.Response:
        self._admit(request)
        return web.json_response({"id": request.match_info["slide"]})

    async def _store(self, request: web.Request) -> web.Response:
        body = await request.json()
        self._admit(request)
        self.stored.append(request.headers["Authorization"])
        return web.json_response({**body, "id": 1, "versionId": "v"}, status=201)


@pytest.fixture
async def issuer() -> Issuer:
    return Issuer()


@pytest.fixture
async def url(issuer: Issuer) -> AsyncIterator[str]:
    async with TestServer(issuer.app) as server:
        yield str(server.make_url("/"))


@pytest.fixture
async def own(session: aiohttp.ClientSession, url: str) -> ClientCredentials:
    return ClientCredentials(session, url, "app 1", "svc", "pass:wörd")


def client_of(session: aiohttp.ClientSession, url: str, token: str | TokenSource) -> SectraClient:
    return SectraClient(session, url, token, software_version="0.1")


async def test_twenty_calls_share_one_new_token(
    session: aiohttp.ClientSession, url: str, issuer: Issuer, own: ClientCredentials
) -> None:
    client = client_of(session, url, own)
    await client.slide_info("s")
    issuer.alive.clear()  # dead long before its hour is over
    read = await asyncio.gather(*(client.slide_info(f"s{n}") for n in range(20)))
    assert {info.id for info in read} == {f"s{n}" for n in range(20)}
    assert issuer.given == 2


@pytest.mark.parametrize("forbids", [False, True])
async def test_the_invocations_token_comes_first_and_ours_take_over(
    session: aiohttp.ClientSession, url: str, issuer: Issuer, own: ClientCredentials, forbids: bool
) -> None:
    issuer.forbids = forbids
    issuer.alive = {"invocation"}
    client = client_of(session, url, InvocationToken("invocation", own))
    await client.slide_info("s")
    assert issuer.given == 0
    issuer.alive = set()
    result = NewResult(slide_id="s", display_result="done", application_version="1")
    assert (await client.create_result("app", result)).display_result == "done"
    issuer.alive = set()  # ours can die early too
    await client.create_result("app", result)
    assert issuer.stored == ["Bearer own-1", "Bearer own-2"]


async def test_a_cached_token_that_died_costs_an_invocation_nothing(
    session: aiohttp.ClientSession, url: str, issuer: Issuer, own: ClientCredentials
) -> None:
    await client_of(session, url, own).slide_info("s")
    issuer.alive = set()
    await client_of(session, url, InvocationToken("dead", own)).slide_info("s")
    assert issuer.given == 2


@pytest.mark.parametrize("status", [401, 403])
async def test_a_server_that_refuses_every_token_is_not_asked_for_ever(
    session: aiohttp.ClientSession, url: str, issuer: Issuer, own: ClientCredentials, status: int
) -> None:
    refused = 0

    async def refuse(_: web.Request) -> web.Response:
        nonlocal refused
        refused += 1
        return web.Response(status=status)

    app = web.Application()
    app.router.add_get("/slides/s/info", refuse)
    async with TestServer(app) as server:
        with pytest.raises(NeedsHuman, match="refused our credentials"):
            await client_of(session, str(server.make_url("/")), own).slide_info("s")
        assert (refused, issuer.given) == (2, 2)
        with pytest.raises(NeedsHuman):
            await client_of(session, str(server.make_url("/")), "only one").slide_info("s")
        assert refused == 3
        if status == 403:  # a vendor hears what Sectra says of its call
            passage = client_of(session, str(server.make_url("/")), own).passage()
            answer = await passage.ask("GET", "/slides/s/info", "describing the slide", headers={})
            assert (answer.status, refused) == (403, 5)


async def test_a_token_is_replaced_before_it_dies(
    session: aiohttp.ClientSession, url: str, issuer: Issuer, own: ClientCredentials
) -> None:
    issuer.fields = {"expiresIn": "0.2"}
    assert await own.token() == await own.token() == "own-1"
    await asyncio.sleep(0.2)
    assert await own.token() == "own-2"


@pytest.mark.parametrize(
    ("status", "kind"), [(401, NeedsHuman), (400, NeedsHuman), (503, Retryable), (302, NeedsHuman)]
)
async def test_twenty_calls_share_the_failure_too(
    session: aiohttp.ClientSession,
    url: str,
    issuer: Issuer,
    own: ClientCredentials,
    status: int,
    kind: type[Exception],
) -> None:
    issuer.refuse_with = status
    client = client_of(session, url, own)
    failures = await asyncio.gather(*(client.slide_info("s") for _ in range(20)), return_exceptions=True)
    assert all(isinstance(failure, kind) for failure in failures)
    assert len({id(failure) for failure in failures}) == 1
    assert "wörd" not in str(failures[0])
    issuer.refuse_with = 0
    assert (await client.slide_info("s")).id == "s"


async def test_one_who_leaves_takes_nobody_along(
    session: aiohttp.ClientSession, url: str, issuer: Issuer, own: ClientCredentials
) -> None:
    impatient = asyncio.create_task(own.token())
    patient = asyncio.create_task(own.token())
    await asyncio.sleep(0)
    impatient.cancel()
    assert await patient == "own-1"
    assert impatient.cancelled()


@pytest.mark.parametrize(
    "fields", [{"access_token": None}, {"access_token": "a\r\nHost: b"}, {"expires_in": "soon"}]
)
async def test_an_answer_without_a_usable_token_is_told(
    own: ClientCredentials, issuer: Issuer, fields: dict[str, Any]
) -> None:
    issuer.fields = fields
    with pytest.raises(Retryable, match="without a token"):
        await own.token()
