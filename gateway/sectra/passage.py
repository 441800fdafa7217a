"""Calls of others that are passed on to Sectra: whatever it answers goes back as it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp

from gateway import json_text
from gateway.contract import Retryable
from gateway.sectra.calls import Caller
from gateway.sectra.failures import tells_staleness
from gateway.sectra.files import SlideFile, stream_files
from gateway.sectra.versions import Server

# A refused token is ours to replace, and a redirect leads away from the configured servers.
_PASSES = (*range(200, 300), 304, *(status for status in range(400, 600) if status != 401))
_LEAF: Mapping[str, Any] = {}
_SIZE: Mapping[str, Any] = {"width": _LEAF, "height": _LEAF}
_FORMAT: Mapping[str, Any] = {"mimeType": _LEAF, "extension": _LEAF}
_NAMED: Mapping[str, Any] = {"displayName": _LEAF}
_TELLS_NOBODY: Mapping[str, Any] = {
    **dict.fromkeys(("id", "isStreamable", "micronsPerPixel", "bodyPart", "examCode", "priority"), _LEAF),
    **dict.fromkeys(("examDescription", "stationName"), _LEAF),
    **dict.fromkeys(("imageSize", "tileSize"), _SIZE),
    **dict.fromkeys(("storedTileFormat", "availableTileFormats", "fileFormat"), _FORMAT),
    **dict.fromkeys(("staining", "block"), _NAMED),
    "focalPlanes": {"id": _LEAF, "offsetUm": _LEAF},
    "opticalPaths": {"id": _LEAF, "description": _LEAF},
    "specimen": {"anatomy": _LEAF, "description": _LEAF},
    "qualityControl": {"status": _LEAF, "versionId": _LEAF},
}
_SLOW_TO_PARSE = 1 << 20


@dataclass(frozen=True, slots=True)
class Answer:
    """`body`: its JSON, if it has any. `stale`: a change was refused since another came before it."""

    status: int
    body: Any
    headers: Mapping[str, str]
    stale: bool = False

    @property
    def good(self) -> bool:
        return 200 <= self.status < 300


class Passage:
    """Raises the three failures only where Sectra doesn't answer, points elsewhere or refuses our token."""

    def __init__(self, call: Caller, server: Server) -> None:
        self._call = call
        self._server = server

    @asynccontextmanager
    async def open(
        self,
        path: str,
        doing: str,
        *,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        transfer: bool = False,
    ) -> AsyncIterator[tuple[aiohttp.ClientResponse, AsyncIterator[bytes]]]:
        """`transfer`: it may take its time, as the download of a slide does."""
        async with self._call.open(
            "GET",
            path,
            doing,
            query=query,
            headers=headers,
            welcome=_PASSES,
            transfer=transfer,
        ) as response:
            yield response, self._call.chunks_of(response, doing)

    def files(self, slide_id: str) -> AsyncGenerator[SlideFile, None]:
        """For who has to look into them on their way."""
        return stream_files(self._call, slide_id)

    async def ask(
        self,
        method: str,
        path: str,
        doing: str,
        *,
        query: Mapping[str, str] | None = None,
        body: object = None,
        headers: Mapping[str, str],
    ) -> Answer:
        async with self._call.open(
            method, path, doing, query=query, body=body, headers=headers, welcome=_PASSES
        ) as response:
            raw = await self._call.bytes_of(response, self._call.limits.json_bytes, doing)
            try:
                parsed = await _parse(raw) if raw else None
            except json_text.NotJson:
                if response.status < 400:
                    raise Retryable(
                        f"Sectra ({self._call.host}) answered something that isn't JSON while {doing}",
                        "Check that the callback address leads to the server itself.",
                        uncertain=method != "GET",
                    ) from None
                parsed = None
            stale = method != "GET" and tells_staleness(response.status, raw)
            return Answer(response.status, parsed, dict(response.headers), stale)

    async def results(
        self,
        method: str,
        application: str,
        rest: str,
        doing: str,
        *,
        body: object = None,
        headers: Mapping[str, str],
    ) -> Answer:
        for path in self._server.paths_of_results(application, rest):
            answer = await self.ask(method, path, doing, body=body, headers=headers)
            if answer.status != 404:
                self._server.found_results(path)
                break
        return answer


async def _parse(raw: bytes) -> Any:
    if len(raw) > _SLOW_TO_PARSE:
        return await asyncio.to_thread(json_text.parse, raw)
    return json_text.parse(raw)


def without_identity(body: Any, allowed: Mapping[str, Any] = _TELLS_NOBODY) -> Any:
    """A description with nothing but what is known not to identify the patient, however deep it lies; a
    server may tell the rest unasked."""
    if isinstance(body, list):
        return [without_identity(each, allowed) for each in body]
    if not isinstance(body, dict):
        return body
    return {name: without_identity(body[name], inner) for name, inner in allowed.items() if name in body}
