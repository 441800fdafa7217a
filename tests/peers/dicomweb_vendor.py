"""A vendor behind a DICOMweb server, for the tests: told by the standard alone, and able to misbehave."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer
from aiohttp.typedefs import Handler

from adapters.dicomweb.adapter import Dicomweb
from adapters.dicomweb.wire import Options
from gateway.suite.studies import make_instance
from gateway.suite.vendor import Fault, Outcome, Step

TOKEN = "vendor-token-5b2d"
SERIES = "1.2.826.0.1.3680043.10.999.77"


class DicomwebVendor:
    secret = TOKEN

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.complete: list[str] = []
        self.digests: set[str] = set()
        self.received = self.sendings = 0
        self.reading = asyncio.Event()
        self.reading.set()
        self.faults: dict[Step, Fault] = {}
        self.files: dict[str, tuple[dict[str, str], bytes]] = {}  # by SOP instance UID: what it tells, bytes
        self.posted: list[list[str]] = []
        self.answer: Callable[[list[str]], web.Response] | None = None  # to a STOW
        self.keep: Callable[[str], bool] = lambda uid: True  # whether it keeps an instance
        self.page = 1000
        self.cut: Callable[[bytes], bytes] = lambda body: body
        self.seen: list[tuple[str, str]] = []
        self._ended = asyncio.Event()
        self._server = TestServer(self._make_app(), host="127.0.0.1")

    @property
    def url(self) -> str:
        return str(self._server.make_url("/wado")).rstrip("/")

    async def start(self) -> None:
        await self._server.start_server()
        self._url = self.url

    async def stop(self) -> None:
        self._ended.set()
        self.reading.set()
        await self._server.close()

    def adapter(
        self, session: aiohttp.ClientSession, work: Path, *, patience: float = 120, most: int = 2**30
    ) -> Dicomweb:
        limits = {"connect_timeout": patience, "read_timeout": patience, "call_timeout": 4 * patience}
        limits["most_result_bytes"] = most
        given = {"url": self._url, "token": TOKEN, "quiet": "0s", **limits, **self.options}
        return Dicomweb(Options.model_validate(given), session, work)

    @property
    def has(self) -> set[str]:
        return set(self.files)

    def finish(
        self,
        study: str,
        *,
        results_of: str | None = None,
        cut: bool = False,
        size: int = 3_200,
        number: int = 900,
    ) -> str:
        data = make_instance(results_of or study, number, size)
        data = data[: len(data) // 2] if cut else data
        uid = f"{results_of or study}.1.{number}"
        self.add(study, uid, data, series=f"{SERIES}.{number}")
        return uid

    def end(self, study: str, outcome: Outcome) -> None:
        raise NotImplementedError  # it says nothing of how it goes

    def add(self, study: str, uid: str, data: bytes, *, series: str, **told: str) -> None:
        about = {"study": study, "series": series, "modality": "CR", "class": "1.2.840.10008.5.1.4.1.1.1"}
        self.files[uid] = ({**about, **told}, data)

    def _make_app(self) -> web.Application:
        app = web.Application()
        study = "/wado/studies/{study}"
        app.router.add_post("/wado/studies", self._step(("submit",), self._post))
        app.router.add_get("/wado/studies", self._step(("find",), self._query_studies))
        for path in (f"{study}/instances", f"{study}/series"):
            app.router.add_get(path, self._step(("find", "poll"), self._query))
        for path in (f"{study}/series/{{series}}", f"{study}/series/{{series}}/instances/{{sop}}"):
            app.router.add_get(path, self._step(("poll",), self._retrieve))
        return app

    def _step(self, steps: tuple[Step, ...], handle: Handler) -> Handler:
        async def handle_or_not(request: web.Request) -> web.StreamResponse:
            self.seen.append((request.method, request.path))
            fault = next((self.faults[step] for step in steps if step in self.faults), None)
            if fault is not None and fault.lost:
                await handle(request)
                assert request.transport is not None
                request.transport.abort()
                return web.Response()
            if fault is not None:
                return await self._misbehave(request, fault)
            if request.headers.get("Authorization") != f"Bearer {TOKEN}":
                return web.Response(status=401)
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

    async def _post(self, request: web.Request) -> web.Response:
        kind = request.headers["Content-Type"]
        found = re.fullmatch(r'multipart/related; type="application/dicom"; boundary="?([^";]+)"?', kind)
        assert found is not None
        self.sendings += 1
        gathered = bytearray()
        async for chunk in request.content.iter_any():
            await self.reading.wait()
            self.received += len(chunk)
            gathered += chunk
        body, mark = bytes(gathered), found[1].encode()
        if not body.endswith(b"\r\n--%s--\r\n" % mark):
            return web.Response(status=400)
        parts = [part.partition(b"\r\n\r\n")[2] for part in (b"\r\n" + body).split(b"\r\n--%s" % mark)[1:-1]]
        uids = []
        for part in parts:
            study, series, sop = (
                _find(part, tag) for tag in (b"\x20\0\x0d\0", b"\x20\0\x0e\0", b"\x08\0\x18\0")
            )
            uids.append(sop)
            self.digests.add(hashlib.sha256(part).hexdigest())
            if self.keep(sop):
                self.add(study, sop, part, series=series)
        self.posted.append(uids)
        self.complete.append(study)
        if self.answer is not None:
            return self.answer(uids)
        return stored(uids)

    async def _query_studies(self, request: web.Request) -> web.Response:
        return _json([])

    async def _query(self, request: web.Request) -> web.Response:
        study = request.match_info["study"]
        known = {uid: told for uid, (told, _) in self.files.items() if told["study"] == study}
        if request.path.endswith("/series"):
            known = {told["series"]: told for told in known.values()}
        first = int(request.query.get("offset", "0"))
        items = []
        for uid, told in list(known.items())[first : first + self.page]:
            item = {
                "0020000D": {"vr": "UI", "Value": [study]},
                "0020000E": {"vr": "UI", "Value": [told["series"]]},
                "00080060": {"vr": "CS", "Value": [told["modality"]]},
            }
            if request.path.endswith("/series"):
                if "description" in told:
                    item["0008103E"] = {"vr": "LO", "Value": [told["description"]]}
            else:
                if "made_at" in told:
                    item["00080013"] = {"vr": "TM", "Value": [told["made_at"]]}
                item["00080018"] = {"vr": "UI", "Value": [uid]}
                item["00080016"] = {"vr": "UI", "Value": [told["class"]]}
            items.append(item)
        return _json(items) if items else web.Response(status=204)

    async def _retrieve(self, request: web.Request) -> web.Response:
        assert "transfer-syntax=*" in request.headers["Accept"]
        wanted = request.match_info
        body = b"".join(
            b"--B0UNDARY\r\nContent-Type: application/dicom\r\n\r\n%s\r\n" % data
            for uid, (told, data) in self.files.items()
            if told["series"] == wanted["series"] and wanted.get("sop", uid) == uid
        )
        kind = 'multipart/related; type="application/dicom"; boundary=B0UNDARY'
        return web.Response(headers={"Content-Type": kind}, body=self.cut(body + b"--B0UNDARY--\r\n"))


def stored(uids: list[str], failed: dict[str, int] | None = None, status: int = 200) -> web.Response:
    done = [{"00081155": {"vr": "UI", "Value": [uid]}} for uid in uids if uid not in (failed or {})]
    refused = [
        {"00081155": {"vr": "UI", "Value": [uid]}, "00081197": {"vr": "US", "Value": [reason]}}
        for uid, reason in (failed or {}).items()
    ]
    told = {"00081199": {"vr": "SQ", "Value": done}, "00081198": {"vr": "SQ", "Value": refused}}
    return _json(told, status)


def _json(told: Any, status: int = 200) -> web.Response:
    headers = {"Content-Type": "application/dicom+json"}
    return web.Response(status=status, headers=headers, body=json.dumps(told).encode())


def _find(part10: bytes, tag: bytes) -> str:
    found = re.search(re.escape(tag) + rb"UI(..)([0-9.]+)", part10, re.DOTALL)
    assert found is not None
    return found[2][: int.from_bytes(found[1], "little")].decode()
