"""The doors as a server: how long each part of a call may take, and what isn't HTTP."""

from __future__ import annotations

import asyncio
import gc
import resource
import socket
import ssl
import zlib
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
import pytest_asyncio
from aiohttp import web
from structlog.testing import capture_logs

from gateway.intake.connection import Patience
from gateway.intake.listening import opening
from gateway.intake.problems import explain
from gateway.settings.sections import Listen
from tests.peers.certificates import Authority

HASTY = Patience(head=0.5, body=0.5, reader=1.0)


async def echo(request: web.Request) -> web.Response:
    return web.json_response({"size": len(await request.read())})


async def pour(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b"x" * 2**20)


def doors() -> web.Application:
    app = web.Application(middlewares=[explain], client_max_size=2**30)
    app.add_routes([web.route("*", "/echo", echo), web.get("/pour", pour)])
    return app


@pytest_asyncio.fixture
async def port() -> AsyncIterator[int]:
    async with opening(doors(), Listen(port=0), None, HASTY) as opened:
        yield opened


async def say(port: int, *words: bytes, every: float = 0.0) -> bytes:
    """All that is answered until we are left."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for word in words:
            with suppress(OSError):
                writer.write(word)
                await writer.drain()
            await asyncio.sleep(every)
        async with asyncio.timeout(20):
            with suppress(OSError):
                return await reader.read()
            return b""
    finally:
        writer.close()


async def test_a_head_that_trickles_is_not_waited_for(port: int) -> None:
    assert await say(port) == b""
    assert await say(port, b"GET /ec") == b""
    told = await say(port, b"GET /echo HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /ec", every=0.1)
    assert told.startswith(b"HTTP/1.1 200") and told.count(b"HTTP/1.1") == 1


async def test_a_body_that_drips_is_refused_and_a_slow_one_arrives(port: int) -> None:
    head = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10000\r\n\r\n"
    told = await say(port, head, b"x", every=0.1)
    assert told.startswith(b"HTTP/1.1 408") and b"application/problem+json" in told
    head = head.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    told = await say(port, head, *[b"x" * 500] * 20, every=0.1)
    assert told.startswith(b"HTTP/1.1 200") and b'"size": 10000' in told


async def test_nothing_is_inflated_before_anybody_has_looked_at_it() -> None:
    """The refusal comes too late where the reader has inflated by then."""
    bare = web.Application(client_max_size=2**30)
    bare.add_routes([web.post("/echo", echo)])
    async with opening(bare, Listen(port=0), None) as port:
        for coding, wbits in (("gzip", 31), ("deflate", 15)):
            squeeze = zlib.compressobj(9, wbits=wbits)
            packed = squeeze.compress(bytes(2**20)) + squeeze.flush()
            head = f"POST /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Encoding: {coding}\r\n"
            told = await say(port, f"{head}Content-Length: {len(packed)}\r\n\r\n".encode() + packed)
            assert f'"size": {len(packed)}'.encode() in told


async def test_who_does_not_read_his_answer_is_left(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1)
    writer.write(b"GET /pour HTTP/1.1\r\nHost: x\r\n\r\n")
    await reader.read(10)
    await asyncio.sleep(3)  # the reader takes no more than it is asked for
    async with asyncio.timeout(20):
        with suppress(OSError):
            while await reader.read(2**20):
                pass
    writer.close()


@pytest.mark.parametrize(
    "words",
    [
        b"NONSENSE-OF-A-STRANGER\r\n\r\n",
        b"GET /echo HTTP/1.1\r\nHost: x\r\nBad\x00Header: secret-of-a-stranger\r\n\r\n",
        b"GET /echo HTTP/1.1\r\nHost: x\r\nX-Long: " + b"secret-of-a-stranger" * 1000 + b"\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: secret-of-a-stranger\r\n\r\n",
        b"GET /echo HTTP/1.1\r\nHost: x\r\nExpect: secret-of-a-stranger\r\nConnection: close\r\n\r\n",
        b"GET /echo HTTP/1.1\r\nHost: x\r\nExpect: stranger\xff\r\nConnection: close\r\n\r\n",
    ],
)
async def test_what_is_no_http_is_refused_and_not_repeated(port: int, words: bytes) -> None:
    told = await say(port, words)
    assert told.startswith((b"HTTP/1.0 4", b"HTTP/1.1 4")) and b"application/problem+json" in told
    assert b"stranger" not in told.lower()


async def test_silence_amid_a_tls_handshake_ends_and_gives_way(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    ours = authority.certify("gateway")
    listen = Listen(port=0, connections_per_address=5)
    async with opening(doors(), listen, ours.server, Patience()) as port:
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(30)]
        context = ssl.create_default_context(cafile=authority.path)
        async with asyncio.timeout(20):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
            writer.write(b"GET /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert (await reader.read()).startswith(b"HTTP/1.1 200")
        writer.close()
        for _, each in silent:
            each.close()
    async with opening(doors(), listen, ours.server, HASTY) as port:
        assert await say(port) == b""


@pytest.mark.parametrize("enciphered", [False, True], ids=["plain", "tls"])
async def test_in_a_storm_from_the_same_address_whoever_asks_is_served(
    tmp_path: Path, enciphered: bool
) -> None:
    """More than change places in a second, silent or amid their heads, and none keeps an honest call out."""
    authority = Authority(tmp_path)
    ours = authority.certify("gateway").server if enciphered else None
    context = ssl.create_default_context(cafile=authority.path) if enciphered else None
    async with opening(doors(), Listen(port=0, connections_per_address=20), ours, Patience()) as port:
        silent = await asyncio.gather(*(asyncio.open_connection("127.0.0.1", port) for _ in range(150)))
        for _, each in silent[::2]:
            each.write(b"POST /echo HTTP/1.1\r\nHost: x\r\n")
        for _ in range(10):
            async with asyncio.timeout(20):
                reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
                writer.write(b"GET /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                assert (await reader.read()).startswith(b"HTTP/1.1 200")
            writer.close()
        for _, each in silent:
            each.close()


async def test_out_of_descriptors_the_port_rests_and_goes_on(port: int) -> None:
    gc.collect()  # nothing is to be closed meanwhile
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket() as wire, capture_logs() as told:
        wire.setblocking(False)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wire.fileno() + 1, hard))
        try:
            await asyncio.get_running_loop().sock_connect(wire, ("127.0.0.1", port))
            async with asyncio.timeout(20):
                while len(told) < 2:
                    await asyncio.sleep(0.05)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert {line["event"] for line in told} == {"no connection can be accepted for a moment"}
    assert len(told) < 10, "it rests between"
    answered = await say(port, b"GET /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert answered.startswith(b"HTTP/1.1 200")
