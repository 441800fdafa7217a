"""A slide's files: every way in which they come, break off, lie about their names, and go on."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from sectra_client.mock_server import MockSectraServer

from gateway.contract import Failure, NeedsHuman, Permanent, Retryable
from gateway.sectra.calls import Limits
from gateway.sectra.client import SectraClient

FIRST = random.Random(1).randbytes(3_000_000) + b"\r\n--edg"
SECOND = b"\r\n--edg" + random.Random(2).randbytes(70_000)
HOSTILE = "../../../etc/cron.d/evil\x1b[31m.SVS"


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


@asynccontextmanager
async def wire(*answers: bytes, stall: bool = False) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Says each answer once, as it is written, then hangs up or falls silent; keeps what was asked."""
    asked: list[bytes] = []
    left = list(answers)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(left.pop(0) if left else b"HTTP/1.1 503 No more\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        if stall:
            await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked


def head(status: str, *lines: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, "Connection: close", "", ""]).encode()


def multipart(*parts: tuple[str, bytes], boundary: str = "edge") -> bytes:
    body = b"".join(
        f"\r\n--{boundary}\r\nContent-Type: application/dicom\r\n{disposition}\r\n\r\n".encode() + data
        for disposition, data in parts
    )
    return body + f"\r\n--{boundary}--\r\n".encode()


def named(name: str) -> str:
    return f'Content-Disposition: attachment; filename="{name}"'


def client_of(session: aiohttp.ClientSession, url: str, **limits: float) -> SectraClient:
    return SectraClient(session, url, "token", software_version="0.1", limits=Limits(**limits))  # type: ignore[arg-type]


RELATED = 'Content-Type: multipart/related; type="application/dicom"; boundary="edge"'
STREAM = "Content-Type: application/octet-stream"


@pytest.fixture
def mock(tmp_path: Path) -> Iterator[MockSectraServer]:
    files = [tmp_path / "a.svs", tmp_path / "b.svs"]
    for file, data in zip(files, (FIRST, SECOND), strict=True):
        file.write_bytes(data)
    with MockSectraServer(slide_files={"s": list(files)}).run(port=0, host="127.0.0.1") as server:
        yield server


async def test_the_public_mock_gives_its_files(
    session: aiohttp.ClientSession, mock: MockSectraServer, tmp_path: Path
) -> None:
    client = SectraClient(session, mock.url, "dev-token", software_version="0.1")
    files = await client.download("s", tmp_path / "got")
    assert [(file.name, file.path.read_bytes()) for file in files] == [("a.svs", FIRST), ("b.svs", SECOND)]
    async with aclosing(client.slide_files("s")) as stream:
        read = [(file.name, b"".join([chunk async for chunk in file.chunks()])) async for file in stream]
    assert read == [("a.svs", FIRST), ("b.svs", SECOND)]
    assert [file.name async for file in client.slide_files("s")] == [
        "a.svs",
        "b.svs",
    ]  # unread ones are skipped


async def test_hostile_names_stay_in_the_folder(session: aiohttp.ClientSession, tmp_path: Path) -> None:
    parts = [
        named(HOSTILE), named("..\\..\\x.dcm"), named("/etc/passwd"), named(".."), "X-None: 1",
        "Content-Disposition: attachment; filename=plain.tif",
        "Content-Disposition: form-data; name=f; filename*=UTF-8''Pr%C3%BCfung%2F1.mrxs",
        named("a." + "long" * 2000),
    ]  # fmt: skip
    body = multipart(*((part, b"%d" % number) for number, part in enumerate(parts)))
    folder = tmp_path / "deep" / "folder"
    async with wire(head("200 OK", RELATED, f"Content-Length: {len(body)}") + body) as (url, _):
        files = await client_of(session, url).download("s", folder)
    assert [file.name for file in files[:7]] == [
        "evil_[31m.SVS", "x.dcm", "passwd", "file", "file", "plain.tif", "1.mrxs",
    ]  # fmt: skip
    assert len(files[7].name) <= 120
    assert [file.path.name for file in files] == [
        "0001.svs", "0002.dcm", "0003", "0004", "0005", "0006.tif", "0007.mrxs", "0008",
    ]  # fmt: skip
    assert [file.path.read_bytes() for file in files] == [b"%d" % number for number in range(8)]
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == {file.path for file in files}


async def test_one_file_alone(session: aiohttp.ClientSession, tmp_path: Path) -> None:
    plain = head("200 OK", STREAM, named("a.svs"), f"Content-Length: {len(FIRST)}") + FIRST
    chunked = head("200 OK", STREAM, "Transfer-Encoding: chunked") + b"5\r\nhello\r\n0\r\n\r\n"
    async with wire(plain, chunked) as (url, asked):
        client = client_of(session, url)
        (file,) = await client.download("s", tmp_path)
        assert (file.path.name, file.size, file.path.read_bytes()) == ("0001.svs", len(FIRST), FIRST)
        (file,) = await client.download("s", tmp_path / "again")
        assert (file.name, file.path.read_bytes()) == ("file", b"hello")
    assert b"Accept-Encoding: identity" in asked[0]
    assert b"Range:" not in asked[0] + asked[1]


WHOLE = multipart((named("a.dcm"), FIRST), (named("b.dcm"), SECOND))


PARTS, ALONE = head("200 OK", RELATED), head("200 OK", STREAM)
NOT_WHOLE: dict[str, tuple[bytes, type[Failure]]] = {
    "no closing boundary": (PARTS + WHOLE[:-10], Retryable),
    "cut in a part": (PARTS + WHOLE[: len(FIRST) // 2], Retryable),
    "short of its length": (
        head("200 OK", RELATED, f"Content-Length: {len(WHOLE)}") + WHOLE[:-5000],
        Retryable,
    ),
    "no multipart at all": (PARTS + b"<html>" + b"x" * 100_000, Retryable),
    "no boundary named": (head("200 OK", "Content-Type: multipart/related") + WHOLE, Retryable),
    "no files": (PARTS + b"--edge--\r\n", Permanent),
    "cut stream": (head("200 OK", STREAM, "Content-Length: 100") + b"short", Retryable),
    "cut chunk": (head("200 OK", STREAM, "Transfer-Encoding: chunked") + b"5\r\nhel", Retryable),
    "a stream without length": (ALONE + b"who knows", NeedsHuman),
    "announced too large": (head("200 OK", STREAM, "Content-Length: 9000000") + b"x", Permanent),
    "too large": (PARTS + multipart(("X: 1", bytes(6_000_000))), Permanent),
    "too many": (PARTS + multipart(*[("X: 1", b"")] * 50), Permanent),
    "nothing": (head("204 No Content"), Permanent),
}


@pytest.mark.parametrize(("answer", "kind"), NOT_WHOLE.values(), ids=NOT_WHOLE)
async def test_what_is_not_whole_leaves_no_file(
    session: aiohttp.ClientSession, tmp_path: Path, answer: bytes, kind: type[Failure]
) -> None:
    async with wire(answer) as (url, _):
        client = client_of(session, url, slide_bytes=5_000_000, slide_files=40)
        with pytest.raises(kind) as caught:
            await client.download("s", tmp_path)
    assert isinstance(caught.value, kind)
    assert [path.name for path in tmp_path.iterdir() if path.suffix not in (".part", ".json")] == []
    again = head("200 OK", RELATED) + multipart((named("b.dcm"), SECOND))
    async with wire(again) as (url, _):
        files = await client_of(session, url).download("s", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [files[0].path.name]


async def test_a_cut_stream_tells_the_adapter_that_reads_it(session: aiohttp.ClientSession) -> None:
    read = 0
    async with wire(head("200 OK", RELATED) + WHOLE[:-10]) as (url, _):
        with pytest.raises(Retryable):
            async for file in client_of(session, url).slide_files("s"):
                async for chunk in file.chunks():
                    read += len(chunk)
    assert read >= len(FIRST)


RESUMABLE = (STREAM, named("a.svs"), "Accept-Ranges: bytes", 'ETag: "e1"', f"Content-Length: {len(FIRST)}")


def rest(at: int, etag: str = '"e1"') -> bytes:
    place = f"Content-Range: bytes {at}-{len(FIRST) - 1}/{len(FIRST)}"
    return (
        head("206 Partial Content", STREAM, f"ETag: {etag}", place, f"Content-Length: {len(FIRST) - at}")
        + FIRST[at:]
    )


async def test_a_broken_stream_goes_on_where_it_broke(session: aiohttp.ClientSession, tmp_path: Path) -> None:
    broken = (head("200 OK", *RESUMABLE) + FIRST[:1_000_000], cut(rest(1_000_000), 500_000), rest(1_500_000))
    async with wire(*broken, stall=True) as (url, asked):
        (file,) = await client_of(session, url, read=0.3).download("s", tmp_path)
    assert file.path.read_bytes() == FIRST
    assert b"Range: bytes=1000000-\r\n" in asked[1]
    assert b'If-Range: "e1"\r\n' in asked[1]
    assert b"Range: bytes=1500000-\r\n" in asked[2]


async def test_a_later_call_goes_on_from_the_folder(session: aiohttp.ClientSession, tmp_path: Path) -> None:
    async with wire(head("200 OK", *RESUMABLE) + FIRST[:1_000_000], stall=True) as (url, asked):
        with pytest.raises(Retryable):
            await client_of(session, url, read=0.3).download("s", tmp_path)
        assert len(asked) == 2  # tried at once to go on, in vain
    async with wire(rest(1_000_000)) as (url, asked):
        (file,) = await client_of(session, url).download("s", tmp_path)
    assert (file.name, file.media_type) == ("a.svs", "application/octet-stream")
    assert b"Range: bytes=1000000-\r\n" in asked[0]
    assert (file.path.read_bytes(), file.size) == (FIRST, len(FIRST))
    assert [path.name for path in tmp_path.iterdir()] == ["0001.svs"]


def cut(answer: bytes, size: int) -> bytes:
    """The answer's head and so many bytes of its body."""
    return answer[: answer.index(b"\r\n\r\n") + 4 + size]


CHANGED = bytes(len(FIRST))


@pytest.mark.parametrize(
    "answers",
    [
        pytest.param(
            [head("200 OK", *RESUMABLE[:3], 'ETag: "e2"', RESUMABLE[4]) + CHANGED], id="another file"
        ),
        pytest.param([rest(5), head("200 OK", *RESUMABLE) + CHANGED], id="another place"),
        pytest.param([rest(1_000_000, '"e2"'), head("200 OK", *RESUMABLE) + CHANGED], id="another etag"),
        pytest.param(
            [head("416 Range Not Satisfiable", "Content-Length: 0"), head("200 OK", *RESUMABLE) + CHANGED],
            id="out of range",
        ),
    ],
)
async def test_what_changed_meanwhile_is_fetched_anew(
    session: aiohttp.ClientSession, tmp_path: Path, answers: list[bytes]
) -> None:
    (tmp_path / "0001.svs.part").write_bytes(FIRST[:1_000_000])
    note = {"name": "a.svs", "media_type": "image/x", "etag": '"e1"', "size": len(FIRST)}
    (tmp_path / "download.json").write_text(json.dumps(note))
    async with wire(*answers) as (url, asked):
        (file,) = await client_of(session, url).download("s", tmp_path)
    assert b"Range: bytes=1000000-" in asked[0]
    assert file.path.read_bytes() == CHANGED


async def test_a_change_in_the_middle_of_a_stream_is_no_success(
    session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    other = head("200 OK", *RESUMABLE[:3], 'ETag: "e2"', RESUMABLE[4]) + CHANGED
    async with wire(head("200 OK", *RESUMABLE) + FIRST[:1_000_000], other, stall=True) as (url, _):
        with pytest.raises(Retryable, match="changed while"):
            await client_of(session, url, read=0.3).download("s", tmp_path)
    assert not (tmp_path / "0001.svs").exists()


async def test_a_weak_promise_is_not_relied_on(session: aiohttp.ClientSession, tmp_path: Path) -> None:
    weak = head("200 OK", *RESUMABLE[:3], 'ETag: W/"e1"', RESUMABLE[4]) + FIRST[:1_000_000]
    async with wire(weak, head("200 OK", *RESUMABLE) + FIRST, stall=True) as (url, asked):
        client = client_of(session, url, read=0.3)
        with pytest.raises(Retryable):
            await client.download("s", tmp_path)
        assert len(asked) == 1
        (file,) = await client.download("s", tmp_path)
    assert b"Range:" not in asked[1]
    assert file.path.read_bytes() == FIRST


async def test_a_download_given_up_lets_go_of_all(session: aiohttp.ClientSession, tmp_path: Path) -> None:
    """Cancelled in the middle: nothing hangs, nothing whole is left, and the next one succeeds."""
    async with hanging(FIRST[:2_500_000]) as url:
        download = asyncio.create_task(client_of(session, url).download("s", tmp_path))
        while not list(tmp_path.glob("*.part")):
            await asyncio.sleep(0.01)
        download.cancel()
        with pytest.raises(asyncio.CancelledError):
            await download
    assert [path.name for path in tmp_path.iterdir()] == ["0001.part"]
    async with wire(head("200 OK", RELATED) + WHOLE) as (url, _):
        assert len(await client_of(session, url).download("s", tmp_path)) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0001.dcm", "0002.dcm"]


@asynccontextmanager
async def hanging(data: bytes) -> AsyncIterator[str]:
    async def hang(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(len(FIRST))})
        await response.prepare(request)
        await response.write(data)
        await asyncio.sleep(60)
        return response

    app = web.Application()
    app.router.add_get("/slides/s/files", hang)
    async with TestServer(app) as server:
        yield str(server.make_url("/"))


async def test_a_disk_that_takes_no_more_is_told(session: aiohttp.ClientSession) -> None:
    async with wire(head("200 OK", RELATED) + WHOLE) as (url, _):
        with pytest.raises(Retryable, match="can't be written"):
            await client_of(session, url).download("s", Path("/proc/no-such-folder"))
