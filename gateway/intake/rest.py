"""/api/v1: other systems ask for jobs here, operators look after them."""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Annotated, Any
from uuid import UUID

from aiohttp import web
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from gateway.intake import audit, quality, reconcile, revisions
from gateway.intake.access import Access
from gateway.intake.bodies import OF_PROGRAMS, read_json
from gateway.intake.looks import Looks
from gateway.intake.openapi import CURSOR, describe
from gateway.intake.peers import PauseRequest, PeerList, PeerView
from gateway.intake.problems import Problem
from gateway.intake.shapes import PAGED, Line, Number, limit_of, moment, read
from gateway.intake.views import JobList, JobView, view
from gateway.jobs.records import Job, NewJob, Origin, Said
from gateway.jobs.states import State
from gateway.jobs.store import Refused, Store
from gateway.jobs.store.batches import Act
from gateway.jobs.store.reading import EVERY_JOB, Filter, Place
from gateway.nearest import did_you_mean
from gateway.settings.sections import Settings


def _whole(value: object) -> object:
    """What JSON calls an integer: neither a text nor a truth, but 5.0 too."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1:
        raise ValueError("a whole number is expected here")
    return int(value)


_Priority = Annotated[int, Field(ge=0, le=9)]
_Count = Annotated[int, Field(ge=0, le=10**9)]
_Uid = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)*$", max_length=64)]
_EPOCH, _STEP = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)
_EVENTS_PAUSE = 1.0
_MOST_LISTENERS = 100
_NOT_IN_LISTS = {"analyses", "events", "deliveries", "said"}


class JobRequest(BaseModel):
    """Ask for an analysis of one study."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "anyOf": [
                {"required": [name], "properties": {name: {"type": "string"}}}
                for name in ("study_instance_uid", "accession_number")
            ]
        },
    )

    application: Line
    study_instance_uid: _Uid | None = None
    accession_number: Number | None = None
    patient_id: Number | None = None
    priority: Annotated[_Priority, BeforeValidator(_whole, json_schema_input_type=_Priority)] | None = None
    idempotency_key: Line | None = None

    @model_validator(mode="after")
    def _names_a_study(self) -> JobRequest:
        if self.study_instance_uid is None and self.accession_number is None:
            raise ValueError("study_instance_uid or accession_number is needed")
        return self


class Resumption(BaseModel):
    """What a person decided, for a job held because two studies match."""

    model_config = ConfigDict(extra="forbid")

    study_instance_uid: _Uid | None = None


def _several(given: object) -> object:
    return given if isinstance(given, list) else [given]


_LEFT_OUT: Any = Field(default_factory=list)  # no default for the schema to tell, which nobody may send
_SOME = Field(min_length=1)  # to ask for none of all would be taken for asking for each
_Any = Annotated[
    list[Line],
    _SOME,
    BeforeValidator(_several, json_schema_input_type=Annotated[list[Line], _SOME] | Line),
]
_Numbers = Annotated[
    list[Number],
    _SOME,
    BeforeValidator(_several, json_schema_input_type=Annotated[list[Number], _SOME] | Number),
]


class JobFilter(BaseModel):
    """Which jobs are meant; of several values, any."""

    model_config = ConfigDict(extra="forbid")

    state: Annotated[
        list[State],
        _SOME,
        BeforeValidator(_several, json_schema_input_type=Annotated[list[State], _SOME] | State),
    ] = _LEFT_OUT
    department: _Any = _LEFT_OUT
    application: _Any = _LEFT_OUT
    adapter: _Any = _LEFT_OUT
    study: _Any = _LEFT_OUT
    accession_number: _Numbers = _LEFT_OUT
    slide_id: _Any = _LEFT_OUT
    since: Annotated[datetime | None, BeforeValidator(moment)] = None

    def filter(self) -> Filter:
        named = self.model_dump(exclude={"study"})
        return Filter(**named, study_instance_uid=self.study)


class JobsAction(BaseModel):
    """Do the same to all jobs that match and that it can be done to: `expect` of them, else to none."""

    model_config = ConfigDict(extra="forbid")

    do: Act
    filter: JobFilter
    expect: Annotated[_Count, BeforeValidator(_whole, json_schema_input_type=_Count)]


class RestDoor:
    def __init__(self, settings: Settings, store: Store, access: Access) -> None:
        self._settings = settings
        self._store = store
        self._access = access
        self._looks = Looks(store, "the API")
        self._closing = asyncio.Event()
        self._listeners = 0

    async def close(self, _: web.Application) -> None:
        """Whoever listens for events is told to go, since they would for ever."""
        self._closing.set()

    def routes(self) -> list[web.RouteDef]:
        api = "/api/v1"
        return [
            web.post(f"{api}/jobs", self._create),
            web.get(f"{api}/jobs", self._list),
            web.post(f"{api}/jobs/actions", self._act_on_all),
            web.route("*", f"{api}/jobs/actions", _only_posted),
            web.get(f"{api}/jobs/{{id}}", self._show),
            web.post(f"{api}/jobs/{{id}}/{{act:retry|cancel|resume}}", self._act),
            web.get(f"{api}/events", self._events),
            web.get(f"{api}/openapi.json", self._openapi),
        ]

    async def _create(self, request: web.Request) -> web.Response:
        who = self._access.require(request, "operator")
        asked = read(JobRequest, _with_key(request, await read_json(request, OF_PROGRAMS)))
        found = self._settings.application(asked.application)
        if found is None:
            known = sorted(self._settings.applications)
            listed = f"{', '.join(known) or 'none'}{did_you_mean(asked.application, known)}"
            raise Problem(404, f"there is no application of this name; known: {listed}")
        department, application = found
        new = NewJob(
            department=department,
            application=asked.application,
            adapter=application.adapter,
            origin=Origin.REST,
            priority=application.priority if asked.priority is None else asked.priority,
            study_instance_uid=asked.study_instance_uid,
            accession_number=asked.accession_number,
            patient_id=asked.patient_id,
            caller=who,
            idempotency_key=asked.idempotency_key,
        )
        job, fresh = await self._store.create(new)
        if not fresh and not new.asks_for_the_same(job):
            raise Problem(409, f"this idempotency_key was used for another request (job {job.id})")
        return await self._answer(job, 202 if fresh else 200)

    async def _list(self, request: web.Request) -> web.Response:
        self._access.require(request, "viewer")
        asked: dict[str, Any] = {name: request.query.getall(name) for name in request.query}
        limit = limit_of(asked.pop("limit", ["50"])[0])
        after = _read_cursor(asked.pop("cursor", [None])[0])
        asked |= {name: asked[name][0] for name in ("since",) if name in asked}
        found = await self._store.find(read(JobFilter, asked, PAGED).filter(), limit=limit + 1, after=after)
        page = found[:limit]
        cursor = _write_cursor(page[-1]) if len(found) > limit else None
        identified = self._access.allows(request, "operator")
        shown = [view(job, identified=identified) for job in page]
        listed = JobList(jobs=shown, next_cursor=cursor)
        return web.Response(
            text=listed.model_dump_json(exclude={"jobs": {"__all__": _NOT_IN_LISTS}}),
            content_type="application/json",
        )

    async def _show(self, request: web.Request) -> web.Response:
        who = self._access.require(request, "viewer")
        job = await self._store.glance(_job_id(request))
        if job is None:
            raise Problem(404, "there is no job of this id")
        if not self._access.allows(request, "operator"):
            return await self._answer(job, identified=False)
        await self._looks.note(who, job.id)
        return await self._answer(job, said=await self._store.said_of(job.id, who))

    async def _act(self, request: web.Request) -> web.Response:
        who = self._access.require(request, "operator")
        job_id, act = _job_id(request), request.match_info["act"]
        values: dict[str, Any] = {}
        if act == "resume":
            choice = read(Resumption, await read_json(request, OF_PROGRAMS, empty={}))
            values = choice.model_dump(exclude_none=True)
        if await self._store.glance(job_id) is None:
            raise Problem(404, "there is no job of this id")
        try:
            if act == "retry":
                job = await self._store.retry(job_id, who)
            elif act == "cancel":
                job = await self._store.cancel(job_id, who)
            else:
                job = await self._store.resume(job_id, who, **values)
        except Refused as refused:
            raise Problem(409, str(refused)) from None
        return await self._answer(job, 200 if job.id == job_id else 202)

    async def _act_on_all(self, request: web.Request) -> web.Response:
        who = self._access.require(request, "operator")
        asked = read(JobsAction, await read_json(request, OF_PROGRAMS))
        try:
            acted = await self._store.act_on_all(asked.do, asked.filter.filter(), who, asked.expect)
        except Refused as refused:
            raise Problem(409, str(refused)) from None
        return web.json_response(
            {
                "do": asked.do,
                "told": acted.tell(asked.do),
                "jobs": [str(job.id) for job in acted.done],
                "passed_over": [{"id": str(job), "why": why} for job, why in acted.passed_over.items()],
            }
        )

    async def _events(self, request: web.Request) -> web.StreamResponse:
        """Server-sent: each event of each job, from now on or from Last-Event-ID."""
        self._access.require(request, "viewer")
        if self._listeners >= _MOST_LISTENERS:
            raise Problem(503, "too many listen for events already", {"Retry-After": "30"})
        last = _last_event(request.headers.get("Last-Event-ID", ""))
        if last is None:
            last = await self._store.last_place()
        response = web.StreamResponse(headers={"Cache-Control": "no-cache"})
        response.content_type = "text/event-stream"
        self._listeners += 1
        try:
            with suppress(ConnectionResetError):  # whoever listened has gone
                await response.prepare(request)
                await self._tell_events(response, last, self._access.allows(request, "operator"))
        finally:
            self._listeners -= 1
        return response

    async def _tell_events(self, response: web.StreamResponse, last: Place, identified: bool) -> None:
        await response.write(b": listening\n\n")
        while not self._closing.is_set():
            told = await self._store.events_since(last)
            meant = await self._store.among({job_id for _, job_id, _ in told}, EVERY_JOB) if told else set()
            for place, job_id, event in told:
                last = place
                if job_id not in meant:
                    continue
                data = json.dumps(
                    {
                        "job_id": str(job_id),
                        "at": event.at.isoformat(),
                        "state": event.state,
                        "what": event.what,
                        "detail": event.detail if identified else {},
                    }
                )
                await response.write(f"id: {place[0]}-{place[1]}\nevent: job\ndata: {data}\n\n".encode())
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), _EVENTS_PAUSE)
            await response.write(b": \n\n")

    async def _openapi(self, request: web.Request) -> web.Response:
        self._access.require(request, "viewer")
        return web.json_response(describe_api())

    async def _answer(
        self, job: Job, status: int = 200, said: list[Said] | None = None, *, identified: bool = True
    ) -> web.Response:
        events, deliveries = await asyncio.gather(
            self._store.events_of(job.id), self._store.deliveries_of(job.id)
        )
        shown = view(job, events, deliveries, said, identified=identified)
        empty = {name for name in ("said", "analyses") if not getattr(shown, name)}
        text = shown.model_dump_json(exclude=empty)
        place = {"Location": f"/api/v1/jobs/{job.id}"} if status == 202 else None
        return web.Response(text=text, status=status, headers=place, content_type="application/json")


@cache
def describe_api() -> dict[str, Any]:
    return describe(
        *(JobRequest, Resumption, JobsAction, JobView, JobList, PauseRequest, PeerView, PeerList),
        beside=(*reconcile.OPERATIONS, *audit.OPERATIONS, *quality.OPERATIONS, *revisions.OPERATIONS),
    )


def _with_key(request: web.Request, body: object) -> object:
    """The key may also stand in the header that other APIs have it in."""
    key = request.headers.get("Idempotency-Key")
    if key is None or not isinstance(body, dict):
        return body
    if body.get("idempotency_key") not in (None, key):
        raise Problem(409, "the header Idempotency-Key and idempotency_key differ: give one of them")
    return {**body, "idempotency_key": key}


async def _only_posted(request: web.Request) -> web.Response:
    """It isn't the id of a job either."""
    raise web.HTTPMethodNotAllowed(request.method, ["POST"])


def _job_id(request: web.Request) -> UUID:
    try:
        return UUID(request.match_info["id"])
    except ValueError:
        raise Problem(404, "there is no job of this id") from None


def _last_event(text: str) -> Place | None:
    """Nonsense is as good as nothing: the listener then hears what comes from now on."""
    found = re.fullmatch(r"([0-9]{1,18})-([0-9]{1,18})", text)
    return None if found is None else (int(found[1]), int(found[2]))


def _write_cursor(job: Job) -> str:
    return f"{(job.created_at - _EPOCH) // _STEP}-{job.id}"


def _read_cursor(text: str | None) -> tuple[datetime, UUID] | None:
    if text is None:
        return None
    if not re.fullmatch(CURSOR.strip("^$"), text):
        raise Problem(422, "cursor: take it from next_cursor of the page before")
    steps, _, job_id = text.partition("-")
    return _EPOCH + int(steps) * _STEP, UUID(job_id)
