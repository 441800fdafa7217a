"""The callback side of the IA-API: all that an app may ask of Sectra or store there.

A client belongs to one callback address and one token source and is cheap to make; what is worth
remembering of a server lives with the HTTP session.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import aiohttp

from gateway.contract import Failure, Permanent, Retryable
from gateway.sectra.calls import Caller, Limits, segment
from gateway.sectra.download import DownloadedFile, download_files
from gateway.sectra.files import SlideFile, stream_files
from gateway.sectra.messages import AppInfo, CaseImage, ImageInfo, QualityStatus
from gateway.sectra.passage import Passage
from gateway.sectra.results import NewResult, StoredResult
from gateway.sectra.tiles import LARGEST_THUMBNAIL, assemble, extension_for, level_for
from gateway.sectra.tokens import FixedToken, TokenSource
from gateway.sectra.versions import (
    CASE_IMAGES,
    QUALITY_CONTROL,
    Version,
    parse_version,
    server_at,
)
from gateway.sectra.wire import BadMessage, Message, read

API_VERSION = "1.10"
_VERSION = "X-Sectra-ApiVersion"
_TILES_AT_ONCE = 8
M = TypeVar("M", bound=Message)


class SectraClient:
    """Raises the three failures of `gateway.contract` only, and `VersionConflict`, which is one of them."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        token: str | TokenSource,
        *,
        software_version: str,
        api_version: str = API_VERSION,
        limits: Limits | None = None,
    ) -> None:
        self._call = Caller(
            session,
            url,
            FixedToken(token) if isinstance(token, str) else token,
            {_VERSION: api_version, "X-Sectra-SoftwareVersion": software_version},
            limits or Limits(),
            self._step_back,
        )
        self._server = server_at(session, self._call.url)
        self._speak(self._server.info)

    def passage(self) -> Passage:
        """For calls of others that are passed on below this address, with this token."""
        return Passage(self._call, self._server)

    async def info(self) -> AppInfo:
        """The server's versions, asked once an hour."""
        if (known := self._server.info) is not None:
            return known
        doing = "asking for its version"
        answer = await self._call.read("/info", doing, negotiable=False)
        info = self._understand(AppInfo, answer, doing)
        self._server.info = info
        self._speak(info)
        return info

    def _speak(self, info: AppInfo | None) -> None:
        """An elder server refuses what is younger than itself: speak its version."""
        spoken = self._call.headers[_VERSION]
        if info is not None and () < parse_version(info.api_version) < parse_version(spoken):
            self._call.headers[_VERSION] = info.api_version

    async def _step_back(self) -> bool:
        spoken = self._call.headers[_VERSION]
        try:
            await self.info()
        except Failure:
            return False
        return self._call.headers[_VERSION] != spoken

    async def slide_info(self, slide_id: str, *, extended: bool = True, phi: bool = False) -> ImageInfo:
        """`phi`: with what identifies the patient, if the application may see it."""
        query = {"scope": "extended"} if extended else {}
        doing = "reading the slide's information"
        answer = await self._call.read(f"/slides/{segment(slide_id)}/info", doing, query | _phi(phi))
        return self._understand(ImageInfo, answer, doing)

    async def lets_in(self, slide_id: str) -> bool:
        """Whether our token opens the slide. One that an invocation brought, with nothing to fall back on,
        tells Sectra's own invocations from anybody else's."""
        doing = "asking whether a token opens the slide"
        path, welcome = f"/slides/{segment(slide_id)}/info", (200, 401, 403, 404)
        async with self._call.open("GET", path, doing, welcome=welcome) as response:
            if response.status != 200:
                return False
            self._understand(ImageInfo, await self._call.json_of(response, doing), doing)
            return True

    async def label(self, slide_id: str) -> bytes | None:
        """The photograph of the slide's label as JPEG, if there is one. It may show a patient's name."""
        doing = "reading the slide's label"
        path = f"/slides/{segment(slide_id)}/label"
        async with self._call.open("GET", path, doing, welcome=(200, 204)) as response:
            return await self._call.bytes_of(response, self._call.limits.image_bytes, doing) or None

    def slide_files(self, slide_id: str) -> AsyncGenerator[SlideFile, None]:
        """The slide's original files as they come: each has a name and `chunks()`. Whole only when the walk
        ends without a failure. Who leaves it early closes it (`contextlib.aclosing`)."""
        return stream_files(self._call, slide_id)

    async def download(self, slide_id: str, folder: Path) -> list[DownloadedFile]:
        """The slide's original files into a folder of their own, all or none. Called again after a failure
        it goes on, where the server allows it."""
        return await download_files(self._call, slide_id, folder)

    async def tile(
        self,
        slide_id: str,
        level: int,
        column: int,
        row: int,
        *,
        focal_plane: str | None = None,
        extension: str = "jpg",
        optical_path: str | None = None,
    ) -> bytes:
        """One tile of the Deep Zoom pyramid; level 0 is a single pixel."""
        doing = "reading a tile of the slide"
        plane = f"_{segment(focal_plane)}" if focal_plane is not None else ""
        place = f"{level}/{column}_{row}{plane}.{segment(extension)}"
        query = {"opticalPath": optical_path} if optical_path is not None else {}
        path = f"/images/{segment(slide_id)}_files/{place}"
        async with self._call.open("GET", path, doing, query=query) as response:
            return await self._call.bytes_of(response, self._call.limits.image_bytes, doing)

    async def thumbnail(self, slide_id: str, max_size: int = 1024) -> bytes:
        """The whole slide as a JPEG, its longer edge at most `max_size` pixels."""
        max_size = max(1, min(max_size, LARGEST_THUMBNAIL))
        info = await self.slide_info(slide_id)
        level, extension = level_for(info, max_size), extension_for(info)
        turn = asyncio.Semaphore(_TILES_AT_ONCE)
        tiles: dict[tuple[int, int], bytes] = {}

        async def fetch(column: int, row: int) -> None:
            async with turn:
                tiles[column, row] = await self.tile(slide_id, level.number, column, row, extension=extension)

        try:
            async with asyncio.TaskGroup() as group:
                for column, row in level.places():
                    group.create_task(fetch(column, row))
        except* Failure as failures:
            failure = failures.exceptions[0]
        else:
            return await assemble(level, tiles, max_size)
        raise failure

    async def case_images(
        self, accession_number: str, *, issuer: str | None = None, phi: bool = False
    ) -> list[CaseImage]:
        """All slides of a case."""
        path = f"/requests/{segment(accession_number)}/images/info"
        if not issuer:
            return await self._case(path, _phi(phi))
        try:
            return await self._case(path, {"accessionNumberIssuer": issuer, **_phi(phi)})
        except Permanent:  # as older servers call it
            return await self._case(path, {"accessionNumberIssuerId": issuer, **_phi(phi)})

    async def case_images_of_slide(self, slide_id: str, *, phi: bool = False) -> list[CaseImage]:
        """All slides of the case that a slide belongs to."""
        return await self._case(f"/slides/{segment(slide_id)}/request/images/info", _phi(phi))

    async def create_result(self, application_id: str, result: NewResult) -> StoredResult:
        """Stores what was never stored. If it fails as uncertain, list before storing again."""
        doing = "storing a result"
        sent = result.to_wire()
        answer = await self._results("POST", application_id, "", doing, sent)
        return self._understand(StoredResult, {**sent, **_fields(answer)}, doing, writes=True)

    async def read_result(self, application_id: str, result_id: int) -> StoredResult:
        doing = "reading a result"
        answer = await self._results("GET", application_id, f"/{segment(result_id)}", doing)
        return self._understand(StoredResult, answer, doing)

    async def list_results(self, application_id: str, slide_id: str) -> list[StoredResult]:
        """This application's results on a slide."""
        doing = "listing the results on the slide"
        answer = await self._results("GET", application_id, f"/slide/{segment(slide_id)}", doing)
        return [self._understand(StoredResult, item, doing) for item in self._items(answer, doing)]

    async def update_result(self, application_id: str, result: StoredResult) -> StoredResult:
        """Replaces a result; `VersionConflict` if its version isn't the current one."""
        doing = "updating a result"
        sent = result.to_wire()
        answer = await self._results("PUT", application_id, f"/{segment(result.id)}", doing, sent)
        if not answer:
            return await self.read_result(application_id, result.id)
        return self._understand(StoredResult, {**sent, **_fields(answer)}, doing, writes=True)

    async def set_quality(
        self, slide_id: str, status: QualityStatus, version_id: str, *, application_version: str
    ) -> None:
        """Sets the slide's quality control; `version_id` is the one that was read with the slide."""
        doing = "setting the slide's quality control"
        await self._need(QUALITY_CONTROL, doing)
        body = {
            "applicationVersion": application_version,
            "qualityControl": {"status": status, "versionId": version_id},
        }
        path = f"/slides/{segment(slide_id)}/qualityControl"
        async with self._call.open("PUT", path, doing, body=body, welcome=(200, 201, 204)):
            return

    async def _case(self, path: str, query: Mapping[str, str]) -> list[CaseImage]:
        doing = "listing the slides of a case"
        await self._need(CASE_IMAGES, doing)
        answer = await self._call.read(path, doing, query)
        return [self._understand(CaseImage, item, doing) for item in self._items(answer, doing)]

    async def _results(
        self, method: str, application_id: str, rest: str, doing: str, body: object = None
    ) -> Any:
        paths = self._server.paths_of_results(application_id, rest)
        for path in paths:
            welcome = (200, 201, 204, *(() if path == paths[-1] else (404,)))
            async with self._call.open(method, path, doing, body=body, welcome=welcome) as response:
                if response.status == 404:
                    continue
                self._server.found_results(path)
                if response.status == 204:
                    return None
                return await self._call.json_of(response, doing)
        raise AssertionError("the last place either answers or raises")

    async def _need(self, version: Version, doing: str) -> None:
        info = await self.info()
        if parse_version(info.api_version) < version:
            needed = ".".join(map(str, version))
            raise Permanent(
                f"Sectra ({self._call.host}) speaks IA-API {info.api_version}; {doing} needs {needed}",
                "Upgrade the Sectra server, or choose an application that does without it.",
            )

    def _items(self, answer: Any, doing: str) -> list[Any]:
        if isinstance(answer, list):
            return answer
        if answer is None:
            return []
        raise self._riddle(["body: must be a list"], doing)

    def _understand(self, model: type[M], answer: object, doing: str, *, writes: bool = False) -> M:
        try:
            return read(model, answer)
        except BadMessage as error:
            raise self._riddle(error.faults, doing, writes=writes) from error

    def _riddle(self, faults: list[str], doing: str, *, writes: bool = False) -> Retryable:
        said = "; ".join(faults[:3])
        return Retryable(
            f"Sectra ({self._call.host}) answered in an unknown shape while {doing}: {said}",
            "Compare the server's IA-API version with the versions named in the manual.",
            uncertain=writes,
        )


def _phi(wanted: bool) -> dict[str, str]:
    return {"includePHI": "true"} if wanted else {}


def _fields(answer: object) -> Mapping[str, Any]:
    return answer if isinstance(answer, Mapping) else {}
