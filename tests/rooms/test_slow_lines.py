"""A transfer may take its time: whatever moves by HTTP arrives on a slow line, and ends on a dead one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from gateway import http
from gateway.archives.dicomweb import DicomwebArchive
from gateway.contract import Retryable
from gateway.delivery.archive import stow
from gateway.dicom.web import Limits, WebPeer
from gateway.http import LeastRate
from gateway.kit.calls import Caller
from gateway.kit.options import WebOptions
from gateway.sectra.calls import Limits as SectraLimits
from gateway.sectra.client import SectraClient
from gateway.sessions import Sessions
from tests.peers.dicom_samples import encode, make_instance

SILENCE = 2.0
LEAST = LeastRate(50_000, 1.5)
LIMITS = Limits(connect=10, read=SILENCE, query=1, least=LEAST)
INSTANCE = encode(make_instance("1.2.3", "1.2.4", "1.2.5", size=1400))
HEAD = b"HTTP/1.1 200 OK\r\nConnection: close\r\n"

Line = Callable[[asyncio.StreamReader, asyncio.StreamWriter, bytes], Awaitable[None]]


async def throttled(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: bytes) -> None:
    """Less than 1 MB/s either way: longer than a small call may take, but never silent."""
    await _move(reader, writer, answer, piece=100_000, pause=0.1)


async def dripping(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: bytes) -> None:
    """Never silent, and never done."""
    await _move(reader, writer, answer, piece=100, pause=0.1)


async def stalled(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: bytes) -> None:
    await reader.read(20_000)
    if not await _is_sent_to(reader):
        writer.write(answer[: len(answer) // 2])
    await asyncio.sleep(3600)


async def _is_sent_to(reader: asyncio.StreamReader) -> bool:
    try:
        async with asyncio.timeout(0.2):
            return bool(await reader.read(1000))
    except TimeoutError:
        return False


async def _move(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: bytes, *, piece: int, pause: float
) -> None:
    began = await reader.read(100)
    received, rested = len(began), 0
    while began.startswith(b"POST") and (received < len(INSTANCE) or await _is_sent_to(reader)):
        received += len(await reader.read(min(piece, 4096)))
        if received >= rested + piece:  # what waits in the kernel is little, and comes in little pieces
            rested = received
            await asyncio.sleep(pause)
    for start in range(0, len(answer), piece):
        writer.write(answer[start : start + piece])
        await writer.drain()
        await asyncio.sleep(pause)


@asynccontextmanager
async def at_the_end_of(line: Line, answer: bytes) -> AsyncIterator[str]:
    tasks: set[asyncio.Task[None] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        try:
            await line(reader, writer, answer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=4096)
    for listener in server.sockets:
        listener.setsockopt(1, 8, 4096)  # SO_RCVBUF: what waits in it counts as sent
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        for task in tasks:
            if task is not None:
                task.cancel()
        server.close()


def answering(kind: str, body: bytes) -> bytes:
    return HEAD + f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


async def from_an_archive(session: aiohttp.ClientSession, url: str, folder: Path) -> int:
    archive = DicomwebArchive("vna", url, session, limits=LIMITS)
    return sum([len(piece) async for each in archive.retrieve("1.2.3") async for piece in each.chunks()])


async def into_an_archive(session: aiohttp.ClientSession, url: str, folder: Path) -> int:
    path = folder / "result.dcm"
    path.write_bytes(INSTANCE)
    outcome = await stow(session, WebPeer("archive vna", url, limits=LIMITS), [path], "1.2.3")
    assert outcome.unconfirmed == {"1.2.5"}
    return len(INSTANCE)


async def from_sectra(session: aiohttp.ClientSession, url: str, folder: Path) -> int:
    limits = SectraLimits(read=SILENCE, total=1, least=LEAST)
    client = SectraClient(session, url, "token", software_version="0.1", limits=limits)
    return sum(file.size for file in await client.download("slide", folder / "slide"))


async def _vendor(session: aiohttp.ClientSession, url: str) -> Caller:
    options = WebOptions(url=url, read_timeout=SILENCE, call_timeout=1, least_rate=50_000)
    return Caller(http.Peer("the vendor", "", ""), options, session, {})


async def from_a_vendor(session: aiohttp.ClientSession, url: str, folder: Path) -> int:
    vendor = await _vendor(session, url)
    async with vendor.call("returning results", "GET", url, transfer=True) as response:
        return sum([len(chunk) async for chunk in vendor.chunks_of(response, "returning results")])


async def to_a_vendor(session: aiohttp.ClientSession, url: str, folder: Path) -> int:
    async def chunks() -> AsyncGenerator[bytes | memoryview, None]:
        yield INSTANCE

    vendor = await _vendor(session, url)
    body = vendor.outgoing(chunks(), "taking a study")
    async with vendor.call("taking a study", "POST", url, transfer=True, body=body) as response:
        await response.read()
    return len(INSTANCE)


MULTIPART = b"--B\r\nContent-Type: application/dicom\r\n\r\n" + INSTANCE + b"\r\n--B--\r\n"
TRANSFERS = [
    (from_an_archive, answering("multipart/related; type=application/dicom; boundary=B", MULTIPART)),
    (into_an_archive, answering("application/dicom+json", b"[]")),
    (from_sectra, answering("application/octet-stream", INSTANCE)),
    (from_a_vendor, answering("application/dicom", INSTANCE)),
    (to_a_vendor, answering("application/json", b"{}")),
]


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with Sessions() as sessions:
        yield sessions.shared


@pytest.mark.parametrize(("transfer", "answer"), TRANSFERS, ids=lambda each: getattr(each, "__name__", ""))
async def test_a_slow_line_carries_all_of_it(
    session: aiohttp.ClientSession,
    tmp_path: Path,
    transfer: Callable[[aiohttp.ClientSession, str, Path], Awaitable[int]],
    answer: bytes,
) -> None:
    async with at_the_end_of(throttled, answer) as url, asyncio.timeout(90):
        assert await transfer(session, url, tmp_path) == len(INSTANCE)


@pytest.mark.parametrize("line", [stalled, dripping])
@pytest.mark.parametrize(("transfer", "answer"), TRANSFERS, ids=lambda each: getattr(each, "__name__", ""))
async def test_a_dead_one_is_left(
    session: aiohttp.ClientSession,
    tmp_path: Path,
    transfer: Callable[[aiohttp.ClientSession, str, Path], Awaitable[int]],
    answer: bytes,
    line: Line,
) -> None:
    async with at_the_end_of(line, answer) as url, asyncio.timeout(90):
        with pytest.raises(Retryable, match=r"too slow|in time"):
            await transfer(session, url, tmp_path)
