"""Who guesses tokens is slowed down and told of; who has one isn't."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from structlog.testing import capture_logs

from gateway.intake.access import Access
from gateway.intake.callers import Callers
from gateway.intake.guesses import Guesses
from gateway.intake.listening import opening
from gateway.intake.problems import WrongToken, explain
from gateway.settings.sections import ApiToken, Listen

RIGHT = "right-token-of-a-program"


class Door:
    """As ours are: a token for /api, a step of the path for /ia."""

    def __init__(self) -> None:
        self.audit: list[tuple[str, str, Mapping[str, Any]]] = []
        self.alerts: list[str] = []
        self.told, self.telling = asyncio.Event(), asyncio.Event()
        self.telling.set()
        self.guesses = Guesses(Callers([]), self, tell_after=0.3)
        access = Access([ApiToken(name="ops", sha256=hashlib.sha256(RIGHT.encode()).hexdigest())])

        async def api(request: web.Request) -> web.Response:
            return web.json_response({"who": access.require(request, "viewer")})

        async def ia(request: web.Request) -> web.Response:
            if request.match_info["secret"] != RIGHT:
                raise WrongToken(404, "there is nothing at this address")
            return web.json_response({})

        async def healthz(_: web.Request) -> web.Response:
            return web.json_response({})

        self.app = web.Application(middlewares=[explain, self.guesses.build()])
        self.app.add_routes([web.get("/api/v1/jobs", api), web.get("/ia/{secret}/x", ia)])
        self.app.add_routes([web.get("/healthz", healthz)])
        self.app.on_cleanup.append(self.guesses.close)
        self.port = 0

    async def note_in_audit(self, who: str, what: str, detail: Mapping[str, Any]) -> None:
        self.told.set()
        await self.telling.wait()
        self.audit.append((who, what, detail))

    async def raise_alert(self, cause: str, sentence: str, advice: str) -> bool:
        self.alerts.append(f"{cause}: {sentence}. {advice}")
        return True

    async def clear_alert(self, cause: str) -> bool:
        self.alerts.append(f"{cause}: over")
        return True

    async def try_token(self, token: str, address: str = "127.0.0.1") -> int:
        return await self.ask("/api/v1/jobs", address, {"Authorization": f"Bearer {token}"})

    async def try_path(self, secret: str, address: str = "127.0.0.1") -> int:
        return await self.ask(f"/ia/{secret}/x", address, {})

    async def ask(self, path: str, address: str, headers: dict[str, str]) -> int:
        connector = aiohttp.TCPConnector(local_addr=(address, 0))
        async with (
            aiohttp.ClientSession(connector=connector) as http,
            http.get(f"http://127.0.0.1:{self.port}{path}", headers=headers) as response,
        ):
            if response.status == 429:
                assert 1 <= int(response.headers["Retry-After"]) <= 30
            return response.status


@pytest_asyncio.fixture
async def door() -> AsyncIterator[Door]:
    opened = Door()
    async with opening(opened.app, Listen(port=0), None) as opened.port:
        yield opened


async def test_many_wrong_tokens_close_the_door_to_their_address_and_to_no_other(door: Door) -> None:
    assert await door.try_token(RIGHT, "127.0.0.2") == 200
    told = await asyncio.gather(*(door.try_token(f"wrong-{n}", "127.0.0.2") for n in range(60)))
    assert set(told) == {401, 429} and told.count(401) <= 30, "most aren't even looked at"
    assert await door.try_token("another-right-one", "127.0.0.2") == 429
    assert await door.try_token(RIGHT, "127.0.0.2") == 200, "it was right from there before"
    assert await door.try_token(RIGHT, "127.0.0.3") == 200


async def test_a_token_is_right_only_where_it_was_looked_at(door: Door) -> None:
    assert await door.ask("/healthz", "127.0.0.1", {"Authorization": "Bearer guess"}) == 200
    await asyncio.gather(*(door.try_token(f"wrong-{n}") for n in range(60)))
    assert await door.try_token("guess") == 429


async def test_a_wrong_way_to_ia_never_closes_the_right_one(door: Door) -> None:
    tries = await asyncio.gather(*(door.try_path(f"wrong-{n}") for n in range(60)))
    assert set(tries) == {404}
    assert await door.try_path(RIGHT) == 200


async def test_a_burst_is_told_and_audited_once_and_says_no_token(door: Door) -> None:
    with capture_logs() as said:
        await asyncio.gather(*(door.try_token(f"wrong-{n}") for n in range(15)))
        async with asyncio.timeout(20):
            while not door.audit:
                await asyncio.sleep(0.05)
    assert [event["event"] for event in said] == ["a wrong token", "wrong tokens"]
    assert "wrong-" not in str(said)
    [(who, what, told)] = door.audit
    assert (who, what, told["door"], told["tries"]) == ("nobody", "wrong tokens", "api", 15)
    assert (told["addresses"], told["networks"]) == ({"127.0.0.1": 15}, {"127.0.0.0/24": 15})


async def test_what_comes_while_a_burst_is_told_is_told_with_the_next(door: Door) -> None:
    await door.try_token("wrong-1")
    door.telling.clear()
    async with asyncio.timeout(60):
        await door.told.wait()
        await door.try_token("wrong-2", "127.0.0.9")
        door.telling.set()
        while len(door.audit) < 2:
            await asyncio.sleep(0.05)
    assert [told["addresses"] for _, _, told in door.audit] == [{"127.0.0.1": 1}, {"127.0.0.9": 1}]


async def test_many_raise_an_alarm_that_is_over_with_them_and_few_raise_none(door: Door) -> None:
    await asyncio.gather(*(door.try_token(f"wrong-{n}") for n in range(3)))
    async with asyncio.timeout(20):
        while not door.audit:
            await asyncio.sleep(0.05)
    assert door.alerts == []
    await asyncio.gather(*(door.try_path(f"wrong-{n}") for n in range(15)))
    async with asyncio.timeout(30):
        while door.alerts[-1:] != ["doors.ia: over"]:
            await asyncio.sleep(0.05)
    raised, _ = door.alerts
    assert "/ia, where Sectra calls" in raised and "15 by now" in raised and "wrong-" not in raised


async def test_what_is_no_text_is_no_token(door: Door) -> None:
    for said in (b"Bearer \xff\xfe", b"Bearer", b"Bearer \xc3\xb6", b"Basic \xff"):
        reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
        writer.write(b"GET /api/v1/jobs HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: " + said)
        writer.write(b"\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 401")
        writer.close()


async def test_addresses_without_end_are_not_remembered_without_end(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.intake.guesses._REMEMBERED", 5)
    await asyncio.gather(*(door.try_token("wrong", "127.0.1.1") for _ in range(60)))
    assert await door.try_token("wrong", "127.0.1.1") == 429
    for n in range(5):
        assert await door.try_token("wrong", f"127.0.2.{n + 1}") == 401
    assert await door.try_token("wrong", "127.0.1.1") == 401
