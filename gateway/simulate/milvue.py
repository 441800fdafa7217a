"""Milvue's API v3: takes studies by STOW or signed urls, and answers made-up but real result objects.

What it does with a study is settled by `Behaviour` in its state or `PUT /control/behaviour`, how many it
takes by `PUT /control/quota`; what arrived, and how often, stands in the state and in `GET /control/state`.
`guides` tells all of that to whoever writes an adapter.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import time
import zlib
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic import BaseModel, ConfigDict
from pydicom.dataset import Dataset
from pydicom.uid import UID

from gateway.simulate import milvue_results
from gateway.simulate.front import Front, build_front, read_model
from gateway.simulate.multipart import Malformed, close_parts, make_boundary, open_part
from gateway.simulate.part10 import Instance, measure_pixels, read_body, read_instance, read_posted
from gateway.simulate.patients import make_uid

TOKEN = "simulated-milvue-token"  # noqa: S105 (it opens nothing but this simulator)
VERSION = "3.2.0"
COMMANDS = ("smarturgences", "smartxpert", "detection", "measures", "trauma", "smartchest")
OPTIONS = {
    "signed_url": ("true", "false"),
    "inference_command": COMMANDS,
    "output_format": ("overlay", "highbit", "gsps"),
    "language": ("fr", "en", "es", "de", "it", "pt"),
    "output_selection": ("all", "no_recap", "no_negatives", "none"),
    "recap_theme": ("dark", "light"),
    "structured_report_format": ("lite", "normal", "full", "none"),
    "static_report_format": ("rgb", "pdf", "none"),
}
FREE_OPTIONS = ("timezone", "organizationId", "siteId", "analysisId")


# `running`: for ever; `bare`: done, without what a result holds; `unknown`: its findings' address knows
# nothing of the study.
Outcome: TypeAlias = Literal[
    "done",
    "running",
    "empty",
    "empty-json",
    "error",
    "forbidden",
    "formatting-error",
    "quota",
    "bare",
    "unknown",
]


Storage: TypeAlias = Literal["own", "google", "azure"]
_SIGNED: dict[Storage, str] = {
    "own": "sig={}",
    "azure": "sv=2024-11-04&sr=b&sp=cw&sig={}%3D",
    "google": "X-Goog-Algorithm=GOOG4-RSA-SHA256&X-Goog-SignedHeaders=content-type%3Bhost%3Bx-goog-meta-owner"
    "&X-Goog-Signature={}",
}
_REFUSED = "<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>{}</Message></Error>"


class Quota(BaseModel):
    """How many more studies are taken; then 429, with `Retry-After` if it says so."""

    model_config = ConfigDict(extra="forbid")

    left: int | None = None
    retry_after: float | None = None


class Behaviour(BaseModel):
    """How a study is treated."""

    model_config = ConfigDict(extra="forbid")

    delay: float = 0.5  # seconds from the last byte until it is done
    outcome: Outcome = "done"
    outcomes: dict[str, Outcome] = {}  # of single commands; the study's is then that of the others
    finds: list[str] = list(milvue_results.FOUND)  # of a study that is done; none: all is normal
    gzip: bool = False
    json_in_multipart: bool = False
    report: bool = True  # a structured report beside the picture
    asks_anew: bool = False  # who announces the rest of a study by signed urls is asked for all of it
    storage: Storage = "own"  # whose urls are signed, and want the headers that it wants
    urls_hold: float | None = None  # seconds, for uploads

    def of(self, command: str) -> Outcome:
        return self.outcomes.get(command, self.outcome)

    spoil: Literal["not-dicom", "cut", "bomb", "other-study", "other-patient"] | None = None


class BehaviourFor(Behaviour):
    study: str = "*"


@dataclass(frozen=True, slots=True)
class Arrival:
    """What is remembered of an instance: not its pixels, or a large study would fill the memory."""

    header: Dataset
    digest: str
    size: int
    data: bytes = b""

    @classmethod
    def of(cls, instance: Instance, keep_data: bool) -> Arrival:
        digest = hashlib.sha256(instance.data).hexdigest()
        return cls(instance.header, digest, len(instance.data), instance.data if keep_data else b"")


@dataclass
class Study:
    headers: dict[str, Dataset] = field(default_factory=dict)
    first: bytes = b""
    signed: set[str] = field(default_factory=set)
    missing: set[str] = field(default_factory=set)  # signed for, but not yet arrived
    urls: dict[str, tuple[str, float, Storage]] = field(
        default_factory=dict
    )  # by signature: of what, till when
    signings: int = 0
    posts: int = 0  # complete ones; a set of signed uploads counts once
    done_at: float | None = None
    interesting: int = 0


@dataclass
class MilvueState:
    front: Front = field(default_factory=Front)
    token: str = TOKEN
    behaviours: dict[str, Behaviour] = field(default_factory=lambda: {"*": Behaviour()})
    studies: dict[str, Study] = field(default_factory=dict)
    arrivals: Counter[str] = field(default_factory=Counter)  # SOPInstanceUID → how often its bytes arrived
    digests: dict[str, str] = field(default_factory=dict)  # SOPInstanceUID → sha256 of what arrived last
    received_bytes: int = 0
    quota: Quota = field(default_factory=Quota)
    uploads: int = 0  # under way to signed urls
    most_uploads: int = 0

    @property
    def url(self) -> str:
        return self.front.url

    @property
    def posts(self) -> dict[str, int]:
        return {uid: study.posts for uid, study in self.studies.items()}

    def behaviour(self, study: str) -> Behaviour:
        return self.behaviours.get(study) or self.behaviours["*"]

    def keep(self, arrived: Arrival) -> None:
        study = self.studies.setdefault(str(arrived.header.StudyInstanceUID), Study())
        sop = str(arrived.header.SOPInstanceUID)
        study.headers[sop] = arrived.header
        if arrived.data and not study.first:
            study.first = arrived.data
        self.arrivals[sop] += 1
        self.digests[sop] = arrived.digest
        self.received_bytes += arrived.size

    def finish(self, uid: str) -> None:
        self.studies[uid].posts += 1
        self.studies[uid].done_at = time.monotonic() + self.behaviour(uid).delay

    def describe_status(self, uid: str) -> tuple[str, str]:
        study = self.studies[uid]
        if study.done_at is None:
            return "running", f"{len(study.missing)} instances haven't arrived"
        if time.monotonic() < study.done_at or self.behaviour(uid).outcome == "running":
            return "running", "The study is being analysed"
        if self.behaviour(uid).outcome == "error":
            return "error", "The analysis failed"
        return "done", "The analysis is done"


STATE = web.AppKey("milvue", MilvueState)


def _refuse(status: int, message: str, **more: Any) -> web.Response:
    return web.json_response({"message": message, **more}, status=status)


@web.middleware
async def _check(request: web.Request, handler: Handler) -> web.StreamResponse:
    state = request.app[STATE]
    if request.path.startswith("/control/"):
        return await handler(request)
    if request.headers.get("x-goog-meta-owner") != state.token:
        return _refuse(403, "Forbidden: x-goog-meta-owner isn't a valid token")
    for name, value in request.query.items():
        if name not in OPTIONS and name not in FREE_OPTIONS and not request.path.startswith("/blob/"):
            return _refuse(422, f"Unknown parameter {name}")
        if name in OPTIONS and value not in OPTIONS[name]:
            return _refuse(422, f"{name} has to be one of {', '.join(OPTIONS[name])}")
    return await handler(request)


async def _read_study(request: web.Request, headers_only: bool) -> list[Arrival]:
    arrived: list[Arrival] = []
    async for data in read_posted(request):
        instance = read_instance(data)
        if headers_only and measure_pixels(instance):
            raise Malformed("pixel data has to be empty when signed urls are asked for")
        arrived.append(Arrival.of(instance, keep_data=not arrived))
    if len({each.header.StudyInstanceUID for each in arrived}) != 1:
        raise Malformed("all instances have to be of one study, and there has to be one")
    return arrived


async def _post_study(request: web.Request) -> web.Response:
    state, signed = request.app[STATE], request.query.get("signed_url", "false") == "true"
    try:
        arrived = await _read_study(request, signed)
    except Malformed as wrong:
        return _refuse(400, f"Invalid request: {wrong}")
    uid = str(arrived[0].header.StudyInstanceUID)
    if state.behaviour(uid).outcome == "quota" or state.quota.left == 0:
        return _refuse_more(state.quota)
    if state.quota.left is not None:
        state.quota.left -= 1
    if signed:
        study = state.studies.setdefault(uid, Study())
        before = study.signed if state.behaviour(uid).asks_anew else set()
        study.signed = before | {str(each.header.SOPInstanceUID) for each in arrived}
        study.missing = set(study.signed)
        study.done_at = None
        study.signings += 1
        urls = {sop: _sign(state, uid, sop) for sop in study.signed}
        return web.json_response({"StudyInstanceUID": uid, "signed_urls": urls})
    for each in arrived:
        state.keep(each)
    state.finish(uid)
    return web.json_response(
        {
            "StudyInstanceUID": uid,
            "message": "Study received",
            "retrieve_url": f"{state.url}/v3/studies/{uid}",
        }
    )


def _refuse_more(quota: Quota) -> web.Response:
    refusal = _refuse(429, "Quota exceeded", example="Try again when the next period begins")
    if quota.retry_after is not None:
        refusal.headers["Retry-After"] = f"{quota.retry_after:g}"
    return refusal


def _sign(state: MilvueState, uid: str, sop: str) -> str:
    study, behaviour = state.studies[uid], state.behaviour(uid)
    signature = make_uid("sig", sop, str(study.signings))[-12:]
    until = float("inf") if behaviour.urls_hold is None else time.monotonic() + behaviour.urls_hold
    study.urls[signature] = sop, until, behaviour.storage
    return f"{state.url}/blob/{uid}/{sop}?{_SIGNED[behaviour.storage].format(signature)}"


def _refuse_url(why: str) -> web.Response:
    """As stores do."""
    return web.Response(status=403, text=_REFUSED.format(why), content_type="application/xml")


async def _put_blob(request: web.Request) -> web.Response:
    state = request.app[STATE]
    state.uploads += 1
    state.most_uploads = max(state.most_uploads, state.uploads)
    try:
        return await _take_blob(request)
    finally:
        state.uploads -= 1


async def _take_blob(request: web.Request) -> web.Response:
    state, uid, sop = request.app[STATE], request.match_info["study"], request.match_info["sop"]
    study = state.studies.get(uid)
    signature = (request.query.get("sig") or request.query.get("X-Goog-Signature") or "").rstrip("=")
    if study is None or signature not in study.urls or study.urls[signature][0] != sop:
        return _refuse_url("This url wasn't signed")
    _, until, storage = study.urls[signature]
    if time.monotonic() > until:
        return _refuse_url("Request has expired")
    if request.content_type != "application/dicom":
        return _refuse(400, "Content-Type: application/dicom is needed")
    if storage != "google" and request.headers.get("x-ms-blob-type") != "BlockBlob":
        return _refuse(400, "x-ms-blob-type: BlockBlob is needed")
    if request.content_length is None:
        return _refuse(411, "Content-Length is needed")
    try:
        instance = read_instance(await read_body(request))
    except Malformed as wrong:
        return _refuse(400, f"Invalid request: {wrong}")
    if (instance.study, instance.sop) != (uid, sop):
        return _refuse(400, "Another instance was announced for this url")
    state.keep(Arrival.of(instance, keep_data=not study.first))
    if sop in study.missing:
        study.missing.discard(sop)
        if not study.missing:
            state.finish(uid)
    return web.Response(status=201)


def _find(request: web.Request) -> tuple[str, Study]:
    uid = request.match_info["study"]
    study = request.app[STATE].studies.get(uid)
    if study is None:
        raise web.HTTPNotFound(
            text=json.dumps({"message": "Study not found"}), content_type="application/json"
        )
    return uid, study


async def _get_status(request: web.Request) -> web.Response:
    uid, _ = _find(request)
    status, message = request.app[STATE].describe_status(uid)
    return web.json_response(
        {"StudyInstanceUID": uid, "status": status, "version": VERSION, "message": message}
    )


def _pack(parts: list[tuple[str, bytes]], closed: bool = True) -> web.Response:
    boundary = make_boundary()
    body = b"".join(open_part(boundary, kind) + data + b"\r\n" for kind, data in parts)
    if closed:
        body += close_parts(boundary)
    kind = f'multipart/related; type="application/dicom"; boundary={boundary}'
    return web.Response(body=body, headers={"Content-Type": kind})


def _make_bomb() -> bytes:
    """4 GiB of zeros in 4 MB: one deflated block again and again."""
    squeezer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    block = squeezer.compress(bytes(16 * 2**20)) + squeezer.flush(zlib.Z_FULL_FLUSH)
    return gzip.compress(b"")[:10] + block * 256


def make_results(study: Study, command: str, behaviour: Behaviour) -> list[bytes]:
    header = next(iter(study.headers.values()))
    if behaviour.spoil is not None and behaviour.spoil.startswith("other-"):
        header = Dataset()
        header.update(next(iter(study.headers.values())))
        if behaviour.spoil == "other-study":
            header.StudyInstanceUID = UID(make_uid("another study", str(header.StudyInstanceUID)))
        else:
            header.PatientID, header.PatientName = "SIM-9999", "Synthetic^Somebody^Else"
    results = [milvue_results.make_capture(header, study.first, command, behaviour.finds)]
    return (
        [*results, milvue_results.make_report(header, command, behaviour.finds)]
        if behaviour.report
        else results
    )


_INSTEAD = {
    "running": ("running", "The study is being analysed"),
    "forbidden": ("forbidden", "Not in your contract"),
    "empty-json": ("empty", "Nothing"),
    "error": ("error", "The analysis failed"),
}


def _judge(state: MilvueState, uid: str, command: str) -> dict[str, Any] | None:
    """The JSON that stands in place of results, if any."""
    status, message = state.describe_status(uid)
    if status == "done":
        status, message = _INSTEAD.get(state.behaviour(uid).of(command), (status, message))
    if status == "done":
        return None
    return {"StudyInstanceUID": uid, "status": status, "version": VERSION, "message": message}


async def _get_results(request: web.Request) -> web.Response:
    state, (uid, study) = request.app[STATE], _find(request)
    behaviour, command = state.behaviour(uid), request.query.get("inference_command", "")
    if not command:
        return _refuse(422, "inference_command is missing")
    instead = _judge(state, uid, command)
    if instead is not None:
        if behaviour.json_in_multipart:
            return _pack([("application/json", json.dumps(instead).encode())])
        return web.json_response(instead)
    outcome = behaviour.of(command)
    if outcome == "formatting-error":
        return _refuse(500, "Error formatting study")
    results = [] if outcome == "empty" else make_results(study, command, behaviour)
    if request.query.get("signed_url") == "true":
        urls = [f"{state.url}/blob/{uid}/result/{command}/{number}" for number in range(len(results))]
        return web.json_response({"status": "done" if urls else "empty", "signed_urls": urls})
    if behaviour.spoil == "bomb":
        return _pack([("application/dicom+gzip", _make_bomb())])
    if behaviour.spoil == "not-dicom":
        results = [b"<html>Bad gateway</html>"]
    if behaviour.spoil == "cut":
        return _pack([("application/dicom", results[0][: len(results[0]) // 2])], closed=False)
    if behaviour.gzip:
        return _pack([("application/dicom+gzip", gzip.compress(each, 1)) for each in results])
    return _pack([("application/dicom", each) for each in results])


async def _get_result_blob(request: web.Request) -> web.Response:
    state, (uid, study) = request.app[STATE], _find(request)
    results = make_results(study, request.match_info["command"], state.behaviour(uid))
    number = int(request.match_info["number"])
    if number >= len(results):
        return _refuse(404, "No such result")
    return web.Response(body=results[number], content_type="application/dicom")


async def _get_findings(request: web.Request) -> web.Response:
    state, (uid, study) = request.app[STATE], _find(request)
    command = request.path.split("/")[2]
    outcome = state.behaviour(uid).of(command)
    instead = _judge(state, uid, command)
    if instead is not None:
        return web.json_response(instead)
    if outcome == "unknown":
        return _refuse(404, "Study not found")
    if outcome == "bare":
        return web.json_response({"StudyInstanceUID": uid, "status": "done", "version": VERSION})
    headers = list(study.headers.values())
    if command == "smartxpert":
        return web.json_response(milvue_results.describe_expert(headers, VERSION))
    language, finds = request.query.get("language", "en"), state.behaviour(uid).finds
    found = milvue_results.describe_urgences(headers, VERSION, language, finds)
    return web.json_response(found)


async def _post_interesting(request: web.Request) -> web.Response:
    uid, study = _find(request)
    study.interesting += 1
    return web.json_response({"StudyInstanceUID": uid, "message": "Flagged"})


async def _get_state(request: web.Request) -> web.Response:
    state = request.app[STATE]
    studies = {
        uid: {
            "posts": study.posts,
            "instances": len(study.headers),
            "missing": len(study.missing),
            "signings": study.signings,
            "interesting": study.interesting,
        }
        for uid, study in state.studies.items()
    }
    return web.json_response(
        {
            "studies": studies,
            "arrivals": dict(state.arrivals),
            "digests": state.digests,
            "received_bytes": state.received_bytes,
            "most_uploads_at_once": state.most_uploads,
        }
    )


async def _put_behaviour(request: web.Request) -> web.Response:
    wanted = await read_model(request, BehaviourFor)
    behaviour = Behaviour(**wanted.model_dump(exclude={"study"}))
    request.app[STATE].behaviours[wanted.study] = behaviour
    return web.json_response({})


async def _put_quota(request: web.Request) -> web.Response:
    request.app[STATE].quota = await read_model(request, Quota)
    return web.json_response({})


def make_app(state: MilvueState | None = None) -> web.Application:
    state = state or MilvueState()
    app = build_front(state.front)
    app.middlewares.append(_check)
    app[STATE] = state
    app.router.add_post("/v3/studies", _post_study)
    app.router.add_get("/v3/studies/{study}", _get_results)
    app.router.add_get("/v3/studies/{study}/status", _get_status)
    app.router.add_get("/v3/smarturgences/{study}", _get_findings)
    app.router.add_get("/v3/smartxpert/{study}", _get_findings)
    app.router.add_post("/v3/interesting/{study}", _post_interesting)
    app.router.add_put("/blob/{study}/{sop}", _put_blob)
    app.router.add_get(r"/blob/{study}/result/{command}/{number:\d+}", _get_result_blob)
    app.router.add_get("/control/state", _get_state)
    app.router.add_put("/control/behaviour", _put_behaviour)
    app.router.add_put("/control/quota", _put_quota)
    return app
