"""What is small on the wire and large behind it costs neither the memory nor the patience of others."""

from __future__ import annotations

import asyncio
import gzip
import time
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from itertools import count
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from gateway import http
from gateway.archives.dicomweb import DicomwebArchive
from gateway.contract import NeedsHuman, Retryable
from gateway.dicom import web as dicomweb
from gateway.dicom.annotations import read_findings
from gateway.dicom.heading import read_heading
from gateway.dicom.part10 import ImageReader, NotDicom, without_pixels
from gateway.dicom.reading import read_before, read_whole
from gateway.dicom.references import references_of
from gateway.dicom.whole import WholeCheck, check_whole
from gateway.kit.shelf import Shelf
from gateway.sessions import open_session
from gateway.settings.certificates import calling
from gateway.settings.sections import Trust
from tests.peers.bombs import deflated_bomb, long_header, nested

MIB = 2**20
STUDY, SERIES, SOP = "1.2.3", "1.2.4", "1.2.5"
PATIENCE = 120


@pytest.fixture(scope="module")
def bomb() -> bytes:
    data = deflated_bomb(STUDY, SERIES, SOP)
    assert len(data) < 4 * MIB
    return data


@contextmanager
def sparing(most: int = 200 * MIB) -> Iterator[None]:
    """No more memory than this on top."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()


@asynccontextmanager
async def serving(answer: Callable[[asyncio.StreamWriter], object]) -> AsyncIterator[str]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        told = answer(writer)
        if asyncio.iscoroutine(told):
            await told
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def head(kind: str, length: int | None, *more: str) -> bytes:
    lines = ["HTTP/1.1 200 OK", f"Content-Type: {kind}", *more, "Connection: close"]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def test_an_instance_of_an_archive_that_inflates_without_end_is_given_up(bomb: bytes) -> None:
    def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(head("application/dicom", len(bomb)) + bomb)

    with sparing():
        async with serving(answer) as url, aiohttp.ClientSession() as session:
            with pytest.raises(Retryable, match="larger than any real one"):
                async for instance in DicomwebArchive("vna", url, session).retrieve(STUDY):
                    async for _ in instance.chunks():
                        pass


async def test_of_a_bomb_only_the_header_is_read(bomb: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bomb.dcm"
    path.write_bytes(bomb)

    async def chunks() -> AsyncIterator[bytes]:
        yield bomb

    with sparing(300 * MIB):
        assert read_before(path, keywords=["PatientID"]).PatientID == "P3"
        assert read_before(path, 0x00200011).StudyInstanceUID == STUDY
        assert references_of(path)[0] == []
        header, _ = await read_heading(chunks(), 0x00200011)
        assert header.SeriesInstanceUID == SERIES
        assert read_findings(path) == ()
        assert len(without_pixels(bomb)) < 4 * MIB
        with pytest.raises(NotDicom):
            check_whole(path)


def test_a_bomb_is_never_read_whole(bomb: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bomb.dcm"
    path.write_bytes(bomb)
    with sparing(800 * MIB), pytest.raises(NotDicom):
        read_whole(path)


async def test_a_packed_result_is_inflated_within_limits(bomb: bytes, tmp_path: Path) -> None:
    """Twice packed, even."""
    with sparing():
        for data, gzipped in ((bomb, False), (gzip.compress(bomb), True), (gzip_of_zeros(2**31), True)):
            shelf = Shelf(tmp_path, STUDY, 8 * 2**30)
            file = shelf.begin(gzipped=gzipped)
            with pytest.raises(Retryable):
                try:
                    await file.write(data)
                    await file.finish()
                finally:
                    file.close()
            assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 400 * MIB


def gzip_of_zeros(size: int) -> bytes:
    squeezer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join([*(squeezer.compress(bytes(MIB)) for _ in range(size // MIB)), squeezer.flush()])


@pytest.mark.parametrize("depth", [70, 20_000])
def test_sequences_nested_without_end_are_no_instance(depth: int, tmp_path: Path) -> None:
    path = tmp_path / "nested.dcm"
    path.write_bytes(nested(STUDY, SERIES, SOP, depth))
    with pytest.raises(NotDicom, match="nested"):
        check_whole(path)


def test_what_overflows_the_reader_is_no_instance_either(tmp_path: Path) -> None:
    path = tmp_path / "nested.dcm"
    path.write_bytes(nested(STUDY, SERIES, SOP, 20_000))
    for read in (read_before, read_whole, read_findings):
        with pytest.raises(NotDicom):
            read(path)


def test_reports_of_real_depth_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "nested.dcm"
    path.write_bytes(nested(STUDY, SERIES, SOP, 30))
    assert check_whole(path).sop_instance_uid == SOP
    assert read_whole(path).ContentSequence


async def test_a_header_that_trickles_in_is_looked_at_now_and_then() -> None:
    """Looked at for each of its eight bytes, it would take hours."""
    data = long_header(200_000)

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(head("application/dicom", None, "Transfer-Encoding: chunked"))
        for at in range(0, len(data), 8):
            piece = data[at : at + 8]
            writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            if at % 64 == 0:
                await asyncio.sleep(0)
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    async with (
        asyncio.timeout(PATIENCE),
        serving(answer) as url,
        aiohttp.ClientSession() as session,
    ):
        got = b""
        async for instance in DicomwebArchive("vna", url, session).retrieve(STUDY):
            got = b"".join([chunk async for chunk in instance.chunks()])
    assert got == data


def test_a_file_meta_that_trickles_in_is_looked_at_now_and_then() -> None:
    check = WholeCheck()
    data = b"\0" * 128 + b"DICM" + b"\2\0\x01\1OB\0\0" + (2**20).to_bytes(4, "little") + bytes(2**20)
    for at in range(0, len(data), 4):
        check.feed(data[at : at + 4])


async def test_a_heading_that_trickles_in_is_looked_at_now_and_then() -> None:
    data = long_header(700_000)
    began = time.process_time()
    async with asyncio.timeout(PATIENCE):
        heading, taken = await read_heading(in_pieces(data, 64), 0x00200011)
    assert heading.StudyInstanceUID == STUDY and data.startswith(taken)
    assert time.process_time() - began < 30, "of its own; looked at for each piece, it takes many minutes"


async def test_a_width_that_trickles_in_is_looked_for_now_and_then() -> None:
    data, reader = long_header(100_000), ImageReader()
    began = time.process_time()
    async for piece in in_pieces(data, 16):
        reader.feed(piece)
    assert reader.width() == 2
    assert time.process_time() - began < 10, "of its own; looked for in each piece, it takes minutes"


async def in_pieces(data: bytes, size: int) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


async def test_a_small_instance_that_trickles_in_is_whole() -> None:
    data = long_header(0)
    check = WholeCheck()
    for at in range(len(data)):
        check.feed(data[at : at + 1])
    assert check.finish().sop_instance_uid == SOP


async def test_a_heading_that_nests_without_end_is_told_in_a_sentence() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield nested(STUDY, SERIES, SOP, 20_000)

    with pytest.raises(NeedsHuman, match="can't be read"):
        await read_heading(chunks())


# -- lists ------------------------------------------------------------------------------------------------


def item(uid: str) -> dict[str, object]:
    told = {"00080018": uid, "0020000E": SERIES, "0020000D": STUDY, "00080060": "CT"}
    return {tag: {"vr": "UI", "Value": [value]} for tag, value in told.items()}


async def test_a_list_that_comes_packed_is_not_unpacked() -> None:
    squeezer = zlib.compressobj(9, zlib.DEFLATED, 31)
    packed = b"".join(
        [squeezer.compress(b"["), *(squeezer.compress(b"{}," * 2**20) for _ in range(300)), squeezer.flush()]
    )

    def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(head("application/dicom+json", len(packed), "Content-Encoding: gzip") + packed)

    with sparing(100 * MIB):
        async with serving(answer) as url, open_session(calling("test", Trust())) as session:
            with pytest.raises(Retryable, match="something packed"):
                await DicomwebArchive("vna", url, session).list_instances(STUDY)


async def test_a_study_that_comes_packed_is_not_unpacked() -> None:
    packed = gzip.compress(long_header(0))

    def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(head("application/dicom", len(packed), "Content-Encoding: gzip") + packed)

    async with serving(answer) as url, open_session(calling("test", Trust())) as session:
        with pytest.raises(Retryable, match="something packed"):
            async for _ in DicomwebArchive("vna", url, session).retrieve(STUDY):
                pass
        async with session.get(url) as response:
            assert await response.read() == packed


async def test_a_list_longer_than_any_is_asked_for_in_pages_and_then_given_up() -> None:
    asked: list[str] = []

    async def listing(request: web.Request) -> web.StreamResponse:
        asked.append(request.query_string)
        response = web.StreamResponse(headers={"Content-Type": "application/dicom+json"})
        await response.prepare(request)
        with suppress(ConnectionError):
            await response.write(b"[")
            while True:
                await response.write(b"{}," * 2**18)
        return response

    async with archive(listing) as vna:
        with sparing(), pytest.raises(NeedsHuman, match="more than"):
            await vna.list_instances(STUDY)
    assert len(asked) == 2 and "limit=2000" in asked[1]


async def test_who_gives_too_much_at_once_is_asked_for_pages() -> None:
    padding = {"vr": "LT", "Value": ["x" * 40_000]}
    items = [{**item(f"{SOP}.{number}"), "00104000": padding} for number in range(1000)]

    async def listing(request: web.Request) -> web.StreamResponse:
        offset, limit = int(request.query.get("offset", 0)), int(request.query.get("limit", 10**9))
        page = items[offset : offset + min(limit, 300)] if "limit" in request.query else items
        return web.json_response(page, content_type="application/dicom+json")

    async with archive(listing) as vna:
        listed = await vna.list_instances(STUDY)
    assert [each.sop_instance_uid for each in listed] == [f"{SOP}.{number}" for number in range(1000)]


async def test_pages_without_end_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicomweb, "_MOST_PAGES", 20)
    pages = count()

    async def listing(_: web.Request) -> web.StreamResponse:
        return web.json_response([item(f"{SOP}.{next(pages)}")], content_type="application/dicom+json")

    async with archive(listing) as vna:
        with pytest.raises(Retryable, match="pages that have no end"):
            await vna.list_instances(STUDY)
    assert next(pages) == 20


async def test_instances_without_end_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicomweb, "_MOST_ITEMS", 500)
    numbers = count()

    async def listing(_: web.Request) -> web.StreamResponse:
        page = [item(f"{SOP}.{next(numbers)}") for _ in range(200)]
        return web.json_response(page, content_type="application/dicom+json")

    async with archive(listing) as vna:
        with pytest.raises(Retryable, match="pages that have no end"):
            await vna.list_instances(STUDY)


@asynccontextmanager
async def archive(
    listing: Callable[[web.Request], Awaitable[web.StreamResponse]],
) -> AsyncIterator[DicomwebArchive]:
    app = web.Application()
    app.router.add_get("/studies/{study}/instances", listing)
    async with TestServer(app) as server, open_session(calling("test", Trust())) as session:
        yield DicomwebArchive("vna", str(server.make_url("")).rstrip("/"), session)


@pytest.mark.parametrize("depth", [70, 20_000])
async def test_a_result_nested_without_end_is_asked_for_again_and_no_more(tmp_path: Path, depth: int) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield nested(STUDY, SERIES, SOP, depth)

    with pytest.raises(Retryable, match="isn't DICOM"):
        await Shelf(tmp_path, STUDY, 2**30).keep(chunks())


async def test_an_answer_of_nothing_but_values_is_not_read() -> None:
    body = b"[" + b"{}," * (5 * MIB) + b"{}]"
    peer = http.Peer("the vendor", address="", credentials="")
    with sparing(10 * MIB), pytest.raises(Retryable, match="more values than any real"):
        await http.parse_json(peer, body, "telling something")
