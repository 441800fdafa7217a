"""Studies that are sent to us by STOW-RS: POST /dicomweb/{application}/studies, and …/studies/{study}.

An upload is taken as a whole: its instances lie aside until its closing boundary has come, then all that can
be kept is kept, and only then answered, instance by instance (PS3.18). Of one that breaks off nothing was
acknowledged, and nothing stays; so no vendor gets half a study. What is kept goes the way of what comes by
C-STORE.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from gateway.archives.awaited import file_of
from gateway.contract import Header, Permanent
from gateway.dicom.arrival import MISMATCH, NOT_UNDERSTOOD
from gateway.dicom.multipart import (
    Data,
    Event,
    Malformed,
    Parser,
    PartBegin,
    PartEnd,
    boundary_of,
    media_type_of,
)
from gateway.dicom.part10 import NotDicom
from gateway.dicom.reading import loaded
from gateway.dicom.staging import Gauge, Staging
from gateway.dicom.web import require_uid
from gateway.dicom.whole import WholeCheck
from gateway.intake.access import Access, shows
from gateway.intake.incoming import Taking
from gateway.intake.problems import Problem, WrongToken
from gateway.intake.returned import Returned
from gateway.settings.sections import Settings

log = structlog.get_logger(__name__)

_PIECE = 2**20
MOST_INSTANCES = 100_000
_MOST_STRANGE = 1000  # parts of an upload that are no instance
_SILENCE = 60.0
_TAKEN = "multipart/related; type=application/dicom, or application/dicom"


class StowDoor:
    """`staging` must lie on the file system of data_dir. `longest_silence`: seconds amid an upload."""

    def __init__(
        self,
        settings: Settings,
        access: Access,
        staging: Staging,
        incoming: Taking,
        returned: Returned | None = None,
        push_tokens: Mapping[str, str] | None = None,
        *,
        longest_silence: float = _SILENCE,
    ) -> None:
        self._settings = settings
        self._access = access
        self._staging = staging
        self._incoming = incoming
        self._returned = returned
        self._push_tokens = push_tokens or {}
        self._silence = longest_silence

    def routes(self) -> list[web.RouteDef]:
        below = "/dicomweb/{application}/studies"
        return [web.post(below, self._store), web.post(f"{below}/{{study}}", self._store)]

    def routes_of_vendors(self) -> list[web.RouteDef]:
        routes = []
        for name in self._push_tokens:
            below, serve = f"/adapters/{name}/studies", partial(self._take_back, name)
            routes += [web.post(below, serve), web.post(f"{below}/{{study}}", serve)]
        return routes

    async def prepare(self, _: web.Application) -> None:
        """Once the doors open: what a dead process has left is void."""
        await asyncio.to_thread(self._staging.prepare)

    async def _store(self, request: web.Request) -> web.Response:
        caller = self._access.require(request, "operator", basic=True)
        application = request.match_info["application"]
        if self._settings.application(application) is None:
            raise Problem(404, "no application of this name is configured")

        def keep(upload: Upload) -> None:
            self._incoming.keep_upload(application, upload.folder, upload.whole.values())

        return await self._receive(request, keep, application=application, caller=caller)

    async def _take_back(self, name: str, request: web.Request) -> web.Response:
        """A vendor's results, each to the job that it belongs to."""
        if not shows(request, self._push_tokens[name]):
            raise WrongToken(401, "this takes the push_token of the adapter", {"WWW-Authenticate": "Bearer"})

        returned = self._returned
        assert returned is not None

        def keep(upload: Upload) -> None:
            for uid, reply in returned.keep([name], list(upload.whole.values())).items():
                if reply.status:
                    header, path = upload.whole.pop(uid)
                    path.unlink(missing_ok=True)
                    upload.failed.append((header, reply.status))

        return await self._receive(request, keep, adapter=name)

    async def _receive(
        self, request: web.Request, keep: Callable[[Upload], None], **said: str
    ) -> web.Response:
        await loaded()
        parser = _parser_for(request.headers.get("Content-Type", ""))
        upload = Upload(self._staging, request.match_info.get("study"))
        try:
            await self._read(request, parser, upload)
            if upload.count == 0:
                raise Problem(400, "the body has no instance in it")
            await asyncio.to_thread(keep, upload)
        except OSError as error:
            log.error("an upload can't be kept", error=error.strerror or str(error))
            why = "there is no room for it, or what keeps it is broken; nothing was kept: send it again later"
            raise Problem(503, why, {"Retry-After": "60"}) from None
        finally:
            await asyncio.to_thread(upload.clear)
        log.info(
            "an upload was kept",
            **said,
            instances=len(upload.whole),
            refused=len(upload.failed),
        )
        return upload.answer()

    async def _read(self, request: web.Request, parser: Parser | _Single, upload: Upload) -> None:
        """Gathered to pieces that are worth a write each."""
        gathered = bytearray()
        try:
            while not parser.complete:
                async with asyncio.timeout(self._silence):
                    chunk = await request.content.readany()
                gathered += chunk
                if len(gathered) >= _PIECE or not chunk:
                    piece, gathered = bytes(gathered), bytearray()
                    await asyncio.to_thread(upload.take, parser.feed(piece))
                if not chunk:
                    await asyncio.to_thread(upload.take, parser.feed(b""))
                    parser.close()
        except TimeoutError:
            raise Problem(408, "the upload stood still for too long; nothing of it was kept") from None
        except Malformed as error:
            raise Problem(400, f"{error}; nothing of it was kept") from None
        except (aiohttp.ClientError, HttpProcessingError, web.RequestPayloadError, ConnectionError) as error:
            log.warning("an upload broke off; nothing of it was kept", error=type(error).__name__)
            raise Problem(400, "the upload broke off; nothing of it was kept") from None


@dataclass(slots=True)
class _Part:
    path: Path
    gauge: Gauge
    announced: str | None
    check: WholeCheck = field(default_factory=WholeCheck)
    lost: bool = False
    size: int = 0
    descriptor: int | None = None  # of its file, once there is anything to write

    def open(self) -> int:
        if self.descriptor is None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self.descriptor = os.open(self.path, flags, 0o600)
        return self.descriptor

    def close(self) -> None:
        if self.descriptor is not None:
            os.close(self.descriptor)


class Upload:
    """The instances of one request. When that is cancelled, its thread goes on: clearing waits for it."""

    def __init__(self, staging: Staging, study: str | None) -> None:
        self.whole: dict[str, tuple[Header, Path]] = {}
        self.failed: list[tuple[Header | None, int]] = []
        self.folder = staging.fresh()
        self._staging = staging
        self._study = study
        self._part: _Part | None = None
        self._strange = 0
        self._lock = threading.Lock()
        self._cleared = False

    @property
    def count(self) -> int:
        return len(self.whole) + len(self.failed)

    def take(self, events: Iterator[Event]) -> None:
        with self._lock:
            if self._cleared:
                return
            for event in events:
                if isinstance(event, PartBegin):
                    self._begin(event)
                elif isinstance(event, Data):
                    self._write(event.data)
                else:
                    self._end()

    def clear(self) -> None:
        with self._lock:
            self._cleared = True
            if self._part is not None:
                self._part.close()
            shutil.rmtree(self.folder, ignore_errors=True)  # what was kept is no longer there

    def answer(self) -> web.Response:
        told: dict[str, Any] = {}
        if self.whole:
            stored = [_reference(header) for header, _ in self.whole.values()]
            told["00081199"] = {"vr": "SQ", "Value": stored}
        named = [
            {**_reference(header), "00081197": {"vr": "US", "Value": [reason]}}
            for header, reason in self.failed
            if header is not None
        ]
        if named:
            told["00081198"] = {"vr": "SQ", "Value": named}
        nameless = [
            {"00081197": {"vr": "US", "Value": [reason]}} for header, reason in self.failed if header is None
        ]
        if nameless:
            told["0008119A"] = {"vr": "SQ", "Value": nameless}
        status = 200 if not self.failed else 202 if self.whole else 409
        return web.Response(
            status=status, body=json.dumps(told).encode(), content_type="application/dicom+json"
        )

    def _begin(self, event: PartBegin) -> None:
        if self.count >= MOST_INSTANCES:
            raise Malformed(f"an upload holds {MOST_INSTANCES} instances at the most")
        if self._strange >= _MOST_STRANGE:
            raise Malformed(f"more than {_MOST_STRANGE} of its parts are no instance")
        self.folder.mkdir(mode=0o700, exist_ok=True)
        gauge = Gauge(self._staging.require_room)
        self._part = _Part(self.folder / "part", gauge, event.headers.get("content-length"))

    def _write(self, data: bytes | memoryview) -> None:
        part = self._part
        assert part is not None
        part.size += len(data)
        if part.lost:
            return  # what is still to come of it is read and forgotten
        try:
            part.check.feed(data)
        except NotDicom:
            part.lost = True
            return
        part.gauge.count(len(data))
        view = memoryview(data)
        while view:
            view = view[os.write(part.open(), view) :]

    def _end(self) -> None:
        part, self._part = self._part, None
        assert part is not None
        try:
            header, reason = self._judge(part)
            if header is not None and reason is None:
                os.fsync(part.open())  # now, while the rest is still on its way
        finally:
            part.close()
        if header is None or reason is not None:
            part.path.unlink(missing_ok=True)
            self._strange += header is None
            self.failed.append((header, reason or NOT_UNDERSTOOD))
            return
        twice = self.whole.pop(header.sop_instance_uid, None)
        if twice is not None:
            twice[1].unlink()
        place = file_of(self.folder / header.study_instance_uid, header.sop_instance_uid)
        place.parent.mkdir(mode=0o700, exist_ok=True)
        part.path.rename(place)
        self.whole[header.sop_instance_uid] = header, place

    def _judge(self, part: _Part) -> tuple[Header | None, int | None]:
        """Which instance it is, if it says so, and why it can't be kept."""
        header = part.check.header
        if header is None:
            return None, NOT_UNDERSTOOD
        try:
            require_uid(header.study_instance_uid)
            require_uid(header.sop_instance_uid)
        except Permanent:
            return None, NOT_UNDERSTOOD
        if part.lost or part.announced not in (None, str(part.size)):
            return header, NOT_UNDERSTOOD
        try:
            part.check.finish()
        except NotDicom:
            return header, NOT_UNDERSTOOD
        return header, MISMATCH if self._study not in (None, header.study_instance_uid) else None


class _Single:
    """A body that is one instance itself. HTTP tells its end for sure in a request."""

    def __init__(self) -> None:
        self._begun = False
        self.complete = False

    def feed(self, data: bytes) -> Iterator[Event]:
        if data:
            if not self._begun:
                self._begun = True
                yield PartBegin({})
            yield Data(data)
        elif self._begun:
            yield PartEnd()

    def close(self) -> None:
        self.complete = True


def _parser_for(content_type: str) -> Parser | _Single:
    kind = media_type_of(content_type)
    if kind == "application/dicom":
        return _Single()
    inner = [
        value.strip().strip('"').lower()
        for name, _, value in (parameter.partition("=") for parameter in content_type.split(";")[1:])
        if name.strip().lower() == "type"
    ]
    if kind != "multipart/related" or inner not in ([], ["application/dicom"]):
        raise Problem(415, f"this takes instances as {_TAKEN}", {"Accept": _TAKEN})
    try:
        return Parser(boundary_of(content_type))
    except Malformed as error:
        raise Problem(400, str(error)) from None


def _reference(header: Header) -> dict[str, Any]:
    return {
        "00081150": {"vr": "UI", "Value": [header.sop_class_uid]},
        "00081155": {"vr": "UI", "Value": [header.sop_instance_uid]},
    }
