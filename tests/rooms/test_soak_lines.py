"""The lines of the soak: what each trouble looks like to who calls, and what the journal says of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.soak.line import Line, opened
from tests.soak.patients import Patient

PATIENT = Patient(4, 1, 16)


@dataclass
class Peer:
    line: Line
    session: aiohttp.ClientSession
    served: list[int] = field(default_factory=list)

    async def ask(self, data: bytes = b"") -> tuple[int, bytes]:
        async with self.session.post(f"{self.line.url}/studies/{PATIENT.study}", data=data) as answer:
            return answer.status, await answer.read()


@pytest_asyncio.fixture
async def peer() -> AsyncIterator[Peer]:
    served: list[int] = []

    async def serve(request: web.Request) -> web.Response:
        served.append(len(await request.read()))
        return web.Response(body=b"done" * 500)

    app = web.Application()
    app.router.add_post("/studies/{study}", serve)
    server = TestServer(app, host="127.0.0.1")
    await server.start_server()
    assert server.port is not None
    line = Line("peer", [server.port], "http")
    try:
        async with opened([line]), aiohttp.ClientSession() as session:
            yield Peer(line, session, served)
    finally:
        await server.close()


async def test_what_is_asked_is_passed_on_and_noted(peer: Peer) -> None:
    [data] = PATIENT.make_study()
    for _ in range(2):
        assert await peer.ask(data) == (200, b"done" * 500)
    assert peer.served == [len(data)] * 2
    first, second = peer.line.journal
    assert first.head.startswith("POST /studies/") and first.answered is not None and not first.lost
    assert second.carries == set(PATIENT.uids)
    assert PATIENT.study in second.mentions


@pytest.mark.parametrize(("trouble", "status"), [("401", 401), ("429", 429), ("503", 503)])
async def test_a_refusal_leaves_the_peer_alone(peer: Peer, trouble: str, status: int) -> None:
    await peer.line.disturb(trouble, 0)
    assert (await peer.ask(b"x" * 100_000))[0] == status
    await peer.line.heal()
    assert (await peer.ask())[0] == 200
    assert peer.served == [0]


@pytest.mark.parametrize(
    ("trouble", "number", "done"),
    [("down", 0, 0), ("garbage", 1, 0), ("lost", 0, 1), ("cut", 0, 1), ("cut", 1, 0)],
)
async def test_a_broken_line_breaks_and_is_mended(peer: Peer, trouble: str, number: int, done: int) -> None:
    await peer.line.disturb(trouble, number)
    with pytest.raises(aiohttp.ClientError):
        await peer.ask(b"x" * 100_000)
    assert len(peer.served) == done
    assert all(each.lost for each in peer.line.journal)
    await peer.line.heal()
    assert (await peer.ask())[0] == 200


async def test_a_hung_line_says_nothing_until_it_is_mended(peer: Peer) -> None:
    await peer.line.disturb("hung", 0)
    with pytest.raises(TimeoutError):
        await peer.session.post(
            f"{peer.line.url}/studies/{PATIENT.study}", timeout=aiohttp.ClientTimeout(total=0.3)
        )
    await peer.line.heal()
    assert (await peer.ask())[0] == 200
    assert peer.served == [0]
