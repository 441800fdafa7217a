"""Milvue's side of the wire for the tests, told by its interface alone, and able to misbehave in each way."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import ssl
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer
from aiohttp.typedefs import Handler

from adapters.milvue.adapter import Milvue
from adapters.milvue.wire import Options
from gateway.contract import Ticket
from gateway.suite.studies import STUDY, make_instance
from gateway.suite.vendor import Fault, Outcome, Step

TOKEN = "milvue-token-3f9a1c"
SIGNATURE = "signature-77e1"
TICKET = Ticket(STUDY, state={"study": STUDY, "polls": 0})
RESULT = make_instance(STUDY, 900, 3_200)


def multipart(parts: list[tuple[str, bytes]], *, closed: bool = True) -> tuple[str, bytes]:
    body = b"".join(
        b"--B0UNDARY\r\nContent-Type: %s\r\n\r\n%s\r\n" % (kind.encode(), data) for kind, data in parts
    )
    return (
        'multipart/related; type="application/dicom"; boundary=B0UNDARY',
        body + b"--B0UNDARY--\r\n" * closed,
    )


Answer = tuple[int, str, bytes]


def said(code: int = 200, /, **words: Any) -> tuple[int, str, bytes]:
    return code, "application/json", json.dumps(words).encode()


def parts(*parts: tuple[str, bytes], closed: bool = True) -> tuple[int, str, bytes]:
    return 200, *multipart(list(parts), closed=closed)


def json_part(**words: Any) -> tuple[str, bytes]:
    return "application/json", json.dumps(words).encode()


def dicom(data: bytes) -> tuple[str, bytes]:
    return "application/dicom", data


def zipped(data: bytes) -> tuple[str, bytes]:
    return "application/dicom+gzip", data


class MilvueVendor:
    secret = TOKEN
    kind: type[Milvue] = Milvue

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.complete: list[str] = []
        self.has: set[str] = set()
        self.digests: set[str] = set()
        self.received = self.sendings = 0
        self.reading = asyncio.Event()
        self.reading.set()
        self.faults: dict[Step, Fault] = {}
        self.posts = self.puts = 0
        self.put_faults: dict[int, int] = {}  # the number of a PUT → the status it is refused with
        self.broken: dict[str, int] = {}  # by instance: the status that each of its PUTs is refused with
        self.good_for: int | None = None  # so many PUTs, after which what was signed till now is void
        self.together = 1  # so many PUTs have to be under way before the first is answered
        self.most_together = 0
        self.waiting: dict[str, set[str]] = {}  # by study: the instances to be put
        self.status: dict[str, str] = {}
        self.results: dict[str, Answer] = {}  # by command
        self.findings: dict[str, Answer] = {}
        self.files: dict[str, bytes] = {}  # results behind signed urls
        self.calls: list[web.BaseRequest] = []
        self.blobs = ""  # whose server signed urls lead to
        self.signature = f"sig={SIGNATURE}"
        self._signings = 0
        self._under_way = 0
        self._met = asyncio.Event()
        self._ended = asyncio.Event()
        self._server = TestServer(self._make_app(), host="127.0.0.1")

    @property
    def url(self) -> str:
        return str(self._server.make_url("")).rstrip("/")

    async def start(self, tls: ssl.SSLContext | None = None) -> None:
        await self._server.start_server(ssl=tls)
        self._url = self.url
        self.blobs = self.blobs or self.url

    async def stop(self) -> None:
        self._ended.set()
        self.reading.set()
        await self._server.close()

    def adapter(
        self, session: aiohttp.ClientSession, work: Path, *, patience: float = 120, most: int = 2**30
    ) -> Milvue:
        limits = {"connect_timeout": patience, "read_timeout": patience, "call_timeout": 4 * patience}
        limits["most_result_bytes"] = most
        given = {"url": self._url, "token": TOKEN, "commands": ["smarturgences"], **limits, **self.options}
        return self.kind(Options.model_validate(given), session, work)

    def finish(
        self, study: str, *, results_of: str | None = None, cut: bool = False, size: int = 3_200
    ) -> None:
        result = make_instance(results_of or study, 900, size)
        result = result[: len(result) // 2] if cut else result
        self.status[study] = "done"
        if self.options.get("signed_url"):
            self.answer_signed("smarturgences", {"0": result})
        else:
            self.results["smarturgences"] = (200, *multipart([("application/dicom", result)]))

    def end(self, study: str, outcome: Outcome) -> None:
        self.status[study] = "error" if outcome == "error" else "done"
        said = json.dumps({"StudyInstanceUID": study, "status": outcome}).encode()
        self.results["smarturgences"] = (200, "application/json", said)

    def answer_signed(self, command: str, files: dict[str, bytes]) -> None:
        self.files = files
        urls = [f"{self.blobs}/file/{name}?{self.signature}" for name in files]
        self.results[command] = (
            200,
            "application/json",
            json.dumps({"status": "done", "signed_urls": urls}).encode(),
        )

    def _make_app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/v3/studies", self._step("submit", self._post))
        app.router.add_put("/blob/{study}/{sop}", self._put)
        app.router.add_get("/v3/studies/{study}/status", self._step(None, self._get_status))
        app.router.add_get("/v3/studies/{study}", self._step("poll", self._get_results))
        app.router.add_get("/v3/{command}/{study}", self._step("poll", self._get_findings))
        app.router.add_get("/file/{name}", self._get_file)
        return app

    def _step(self, step: Step | None, handle: Handler) -> Handler:
        async def handle_or_not(request: web.Request) -> web.StreamResponse:
            self.calls.append(request)
            # the status is asked by find, poll and check
            fault = self.faults.get(step) if step else self.faults.get("find") or self.faults.get("poll")
            if fault is not None and fault.lost:
                await handle(request)
                assert request.transport is not None
                request.transport.abort()
                return web.Response()
            if fault is not None:
                return await self._misbehave(request, fault)
            if request.headers.get("x-goog-meta-owner") != TOKEN:
                return web.json_response({"message": "forbidden"}, status=403)
            return await handle(request)

        return handle_or_not

    async def _misbehave(self, request: web.Request, fault: Fault) -> web.StreamResponse:
        assert request.transport is not None
        if fault.hang:
            await self._ended.wait()
        if fault.die:
            await request.content.readany()
            request.transport.abort()
        if fault.raw is not None:
            await request.content.read()
            request.transport.write(fault.raw)
            request.transport.close()
        if fault.status is not None and fault.status != 200:
            return web.Response(status=fault.status, headers=fault.headers, body=fault.body)
        await request.content.read()
        return web.Response(headers=fault.headers, body=fault.body)

    async def _read(self, request: web.Request) -> bytes:
        gathered = bytearray()
        async for chunk in request.content.iter_any():
            await self.reading.wait()
            self.received += len(chunk)
            gathered += chunk
        return bytes(gathered)

    async def _post(self, request: web.Request) -> web.Response:
        self.sendings += 1
        kind = request.headers["Content-Type"]
        found = re.fullmatch(r'multipart/related; type="application/dicom"; boundary="?([^";]+)"?', kind)
        body = await self._read(request)
        if found is None or not body.endswith(b"\r\n--%s--\r\n" % found[1].encode()):
            return web.json_response({"message": "invalid"}, status=400)
        parts = [
            part.partition(b"\r\n\r\n")[2]
            for part in (b"\r\n" + body).split(b"\r\n--%s" % found[1].encode())[1:-1]
        ]
        self.posts += 1
        uids = {sop: study for part in parts for study, sop in [_uids(part)]}
        (study,) = set(uids.values())
        if request.query["signed_url"] == "true":
            assert all(part.endswith(b"\xe0\x7f\x10\0OB\0\0\0\0\0\0") for part in parts), (
                "pixels weren't emptied"
            )
            self.waiting[study] = set(uids)
            self._signings += 1
            signed = f"{self.signature}%2Fa&signing={self._signings}"
            urls = {sop: f"{self.blobs}/blob/{study}/{sop}?{signed}" for sop in uids}
            return web.json_response({"StudyInstanceUID": study, "signed_urls": urls})
        self.digests = {hashlib.sha256(part).hexdigest() for part in parts}
        self.has |= uids.keys()
        self._complete(study)
        return web.json_response({"StudyInstanceUID": study, "message": "received"})

    async def _put(self, request: web.Request) -> web.Response:
        self.calls.append(request)
        self.puts += 1
        study, sop = request.match_info["study"], request.match_info["sop"]
        assert request.headers["x-goog-meta-owner"] == TOKEN
        assert request.headers["x-ms-blob-type"] == "BlockBlob"
        assert request.headers["Content-Type"] == "application/dicom"
        number = self.puts
        query = request.raw_path.partition("?")[2].partition("&signing=")
        assert query[0] == f"sig={SIGNATURE}%2Fa", "a signed url was written anew"
        if request.content_length is None:
            return web.Response(status=411)
        self._under_way += 1
        self.most_together = max(self.most_together, self._under_way)
        if self._under_way >= self.together:
            self._met.set()
        await self._met.wait()
        data = await self._read(request)
        self._under_way -= 1
        void = self.good_for is not None and number > self.good_for and query[2] == "1"
        status = 403 if void else self.put_faults.get(number) or self.broken.get(sop)
        if status:
            return web.Response(status=status, text="<Error>AuthenticationFailed</Error>")
        assert _uids(data) == (study, sop)
        self.digests.add(hashlib.sha256(data).hexdigest())
        self.has.add(sop)
        self.waiting[study].discard(sop)
        if not self.waiting[study]:
            self._complete(study)
        return web.Response(status=201)

    def _complete(self, study: str) -> None:
        self.complete.append(study)
        self.status.setdefault(study, "running")

    async def _get_status(self, request: web.Request) -> web.Response:
        study = request.match_info["study"]
        if study not in self.status:
            return web.json_response({"message": "not found"}, status=404)
        return web.json_response({"StudyInstanceUID": study, "status": self.status[study], "version": "3"})

    async def _get_results(self, request: web.Request) -> web.Response:
        status, kind, body = self.results.get(
            request.query["inference_command"], (200, "application/json", b'{"status": "running"}')
        )
        return web.Response(status=status, headers={"Content-Type": kind}, body=body)

    async def _get_findings(self, request: web.Request) -> web.Response:
        command = request.match_info["command"]
        status, kind, body = self.findings.get(command, (200, "application/json", b'{"status": "empty"}'))
        return web.Response(status=status, headers={"Content-Type": kind}, body=body)

    async def _get_file(self, request: web.Request) -> web.Response:
        self.calls.append(request)
        assert request.headers["x-goog-meta-owner"] == TOKEN
        data = self.files.get(request.match_info["name"])
        return web.Response(status=403) if data is None else web.Response(body=data)


def _uids(part10: bytes) -> tuple[str, str]:
    def find(tag: bytes) -> str:
        found = re.search(re.escape(tag) + rb"UI(..)([0-9.]+)", part10, re.DOTALL)
        assert found is not None
        return found[2][: int.from_bytes(found[1], "little")].decode()

    return find(b"\x20\0\x0d\0"), find(b"\x08\0\x18\0")
