"""A DICOMweb archive: QIDO-RS, WADO-RS and STOW-RS over the sample studies and whatever is stored later.

It can be made to behave as badly as real ones were seen to: `Manners` in its state or `PUT /control/manners`.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice
from pathlib import Path
from typing import Any, Literal

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from pydantic import BaseModel, ConfigDict

from gateway.simulate import queries
from gateway.simulate.front import Front, build_front, read_model
from gateway.simulate.multipart import Malformed, close_parts, make_boundary, open_part
from gateway.simulate.part10 import Instance, decompress, read_instance, read_posted
from gateway.simulate.samples import make_samples

BASE = "/dicom-web"
PIECE = 64 * 1024
CANNOT_UNDERSTAND, OTHER_STUDY = 0xC000, 0xA900


class Manners(BaseModel):
    """How the archive behaves; the defaults are those of a good one."""

    model_config = ConfigDict(extra="forbid")

    availability: Literal["ONLINE", "NEARLINE", "OFFLINE", "UNAVAILABLE"] | None = "ONLINE"  # None: not told
    odd_json: bool = False  # null and empty values, as some archives answer
    nothing: Literal[200, 204] = 204  # what QIDO answers when nothing matches
    promise_more: int = 0  # added to NumberOfStudyRelatedInstances
    known: int | None = None  # so many instances of a study QIDO lists and counts; WADO sends all
    most: int | None = None  # so many matches are answered at once, with a warning that there are more
    pages: bool = True  # heeds offset: the rest can be had too
    asterisk: bool = True  # knows transfer-syntax=*; some answer 406
    cut_after: int | None = None  # instances sent before the answer breaks, halfway through the next
    cut: Literal["silent", "reset"] = "silent"  # silent: HTTP ends well, only the closing boundary lacks
    pause: float = 0  # seconds between pieces of 64 KiB
    duplicates: int = 0  # how many instances are sent a second time
    refuse: dict[str, int] = {}  # SOPInstanceUID, SOPClassUID or * for any → FailureReason when it is stored


@dataclass
class ArchiveState:
    front: Front = field(default_factory=Front)
    manners: Manners = field(default_factory=Manners)
    instances: dict[str, Instance] = field(default_factory=dict)
    stored: dict[str, bytes] = field(default_factory=dict)  # what came by STOW and was new
    offered: list[str] = field(default_factory=list)  # every SOPInstanceUID that came, again and again too
    retrieved: list[str] = field(default_factory=list)  # every SOPInstanceUID sent whole
    folder: Path | None = None

    @property
    def url(self) -> str:
        return self.front.url + BASE

    def add(self, data: bytes) -> None:
        instance = read_instance(data)
        self.instances[instance.sop] = instance

    def store(self, instance: Instance) -> None:
        """A known SOPInstanceUID keeps its old bytes, and nobody is told."""
        self.offered.append(instance.sop)
        if instance.sop in self.instances:
            return
        self.instances[instance.sop] = instance
        self.stored[instance.sop] = instance.data
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / f"{len(self.stored):05}.dcm").write_bytes(instance.data)


STATE = web.AppKey("archive", ArchiveState)


def _select(request: web.Request, most: int | None = None) -> list[Instance]:
    """`most`: of each study."""
    wanted = request.match_info
    chosen = [
        instance
        for instance in request.app[STATE].instances.values()
        if wanted.get("study", instance.study) == instance.study
        and wanted.get("series", instance.series) == instance.series
        and wanted.get("instance", instance.sop) == instance.sop
    ]
    chosen.sort(key=lambda each: (each.study, each.series, int(each.header.get("InstanceNumber") or 0)))
    studies = groupby(chosen, key=lambda each: each.study)
    return [each for _, study in studies for each in islice(study, most)]


def _answer_json(body: Any, status: int = 200) -> web.Response:
    """Without a charset: clients compare the whole header."""
    headers = {"Content-Type": "application/dicom+json"}
    return web.Response(body=json.dumps(body).encode(), status=status, headers=headers)


def _answer_query(request: web.Request, level: queries.Level) -> web.Response:
    state = request.app[STATE]
    try:
        found = queries.answer(
            _select(request, state.manners.known),
            level,
            [(key, value) for key, value in request.query.items() if key != "offset" or state.manners.pages],
            queries.Told(
                state.url, state.manners.availability, state.manners.promise_more, state.manners.odd_json
            ),
        )
    except queries.WrongQuery as wrong:
        raise web.HTTPBadRequest(text=str(wrong)) from None
    if not found and state.manners.nothing == 204:
        return web.Response(status=204)
    answer = _answer_json(found[: state.manners.most])
    if state.manners.most is not None and len(found) > state.manners.most:
        answer.headers["Warning"] = '299 archive: "There are additional results that can be requested"'
    return answer


async def _query_studies(request: web.Request) -> web.Response:
    return _answer_query(request, "study")


async def _query_series(request: web.Request) -> web.Response:
    return _answer_query(request, "series")


async def _query_instances(request: web.Request) -> web.Response:
    return _answer_query(request, "instance")


async def _send_metadata(request: web.Request) -> web.Response:
    chosen = _select(request)
    if not chosen:
        raise web.HTTPNotFound(text="The archive doesn't have it.")
    whole = [queries.describe_header(each) for each in chosen]
    return _answer_json(whole)


def _check_accept(accept: str) -> None:
    for offer in accept.split(","):
        parts = [part.strip() for part in offer.split(";")]
        kinds = [part[5:].strip('"') for part in parts if part.startswith("type=")]
        if parts[0] == "*/*" or (parts[0] == "multipart/related" and kinds in ([], ["application/dicom"])):
            return
    raise web.HTTPNotAcceptable(text='Only multipart/related; type="application/dicom" can be had here.')


async def _send_instances(request: web.Request) -> web.StreamResponse:
    state, accept = request.app[STATE], request.headers.get("Accept", "*/*")
    _check_accept(accept)
    chosen = _select(request)
    if not chosen or state.manners.availability in ("OFFLINE", "UNAVAILABLE"):
        raise web.HTTPNotFound(text="The archive doesn't have it at hand.")
    as_stored = "transfer-syntax=*" in accept.replace('"', "")
    if as_stored and not state.manners.asterisk:
        raise web.HTTPNotAcceptable(text="There is no transfer syntax of that name.")
    boundary = make_boundary()
    answer = web.StreamResponse(
        headers={"Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}'}
    )
    await answer.prepare(request)
    for number, instance in enumerate([*chosen, *chosen[: state.manners.duplicates]]):
        data, syntax = (instance.data, instance.syntax) if as_stored else decompress(instance)
        head = open_part(boundary, f"application/dicom; transfer-syntax={syntax}")
        if number == state.manners.cut_after:
            await _send_pieces(answer, head + data[: len(data) // 2], state.manners.pause)
            if state.manners.cut == "reset" and request.transport is not None:
                request.transport.abort()
            return answer
        await _send_pieces(answer, head, 0)
        await _send_pieces(answer, data, state.manners.pause)
        await answer.write(b"\r\n")
        state.retrieved.append(instance.sop)
    await answer.write(close_parts(boundary))
    return answer


async def _send_pieces(answer: web.StreamResponse, data: bytes, pause: float) -> None:
    step, view = PIECE if pause else 2**20, memoryview(data)
    for start in range(0, len(view), step):
        await answer.write(view[start : start + step])
        if pause:
            await asyncio.sleep(pause)


async def _store(request: web.Request) -> web.Response:
    """Nothing is kept unless the whole request arrived."""
    state, study = request.app[STATE], request.match_info.get("study")
    arrived: list[Instance] = []
    try:
        async for data in read_posted(request):
            arrived.append(read_instance(data))
    except Malformed as wrong:
        raise web.HTTPBadRequest(text=f"Nothing was stored: {wrong}.") from None
    if not arrived:
        raise web.HTTPBadRequest(text="Nothing was stored: the request has no parts.")
    done: list[Instance] = []
    failed: list[tuple[Instance, int]] = []
    for instance in arrived:
        manners = state.manners.refuse
        refusal = manners.get(instance.sop, manners.get(instance.sop_class, manners.get("*")))
        if refusal is not None:
            failed.append((instance, refusal))
        elif study is not None and instance.study != study:
            failed.append((instance, OTHER_STUDY))
        else:
            state.store(instance)
            done.append(instance)
    status = 200 if not failed else 202 if done else 409
    body = queries.describe_storage(state.url, done, failed)
    return _answer_json(body, status)


def _make_guard(username: str, password: str) -> Middleware:
    expected = "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.headers.get("Authorization", "")
        if request.path.startswith(BASE) and not hmac.compare_digest(given.encode(), expected.encode()):
            raise web.HTTPUnauthorized(headers={"WWW-Authenticate": 'Basic realm="archive"'})
        return await handler(request)

    return guard


async def _put_manners(request: web.Request) -> web.Response:
    request.app[STATE].manners = await read_model(request, Manners)
    return web.json_response({})


def _group(instances: Iterable[Instance]) -> dict[str, dict[str, list[str]]]:
    studies: dict[str, dict[str, list[str]]] = {}
    for each in instances:
        studies.setdefault(each.study, {}).setdefault(each.series, []).append(each.sop)
    return studies


async def _get_state(request: web.Request) -> web.Response:
    state = request.app[STATE]
    return web.json_response(
        {
            "studies": _group(state.instances.values()),
            "stored": list(state.stored),
            "offered": state.offered,
            "retrieved": state.retrieved,
        }
    )


def make_app(
    state: ArchiveState | None = None,
    *,
    files: Sequence[bytes] | None = None,
    username: str = "",
    password: str = "",
) -> web.Application:
    """Holds `files`, by default the sample studies. Basic authentication if a username is given."""
    state = state or ArchiveState()
    for data in files if files is not None else [each for study in make_samples() for each in study.files]:
        state.add(data)
    app = build_front(state.front)
    if username:
        app.middlewares.append(_make_guard(username, password))
    app[STATE] = state
    study, series = BASE + "/studies/{study}", "/series/{series}"
    instance = study + series + "/instances/{instance}"
    get, post = app.router.add_get, app.router.add_post
    get(BASE + "/studies", _query_studies)
    for path in (BASE + "/series", study + "/series"):
        get(path, _query_series)
    for path in (BASE + "/instances", study + "/instances", study + series + "/instances"):
        get(path, _query_instances)
    for path in (study, study + series, instance):
        get(path, _send_instances)
        get(path + "/metadata", _send_metadata)
    for path in (BASE + "/studies", study):
        post(path, _store)
    app.router.add_put("/control/manners", _put_manners)
    get("/control/state", _get_state)
    return app
