"""/api/v1: other systems ask for jobs here, operators look after them."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated, Any, NoReturn, TypeVar
from uuid import UUID

from aiohttp import web
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from gateway.intake.access import Access
from gateway.intake.openapi import describe
from gateway.intake.problems import Problem, read_json
from gateway.intake.views import JobList, JobView, view
from gateway.jobs.records import Job, NewJob, Origin
from gateway.jobs.states import State
from gateway.jobs.store import Refused, Store
from gateway.jobs.store.reading import Filter, Place
from gateway.jobs.store.requests import Act
from gateway.settings.sections import Settings


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("control characters don't belong here")
    return text


_Text = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_printable)]
_Uid = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)*$", max_length=64)]
_MOMENT = TypeAdapter(datetime)
_EVENTS_PAUSE = 1.0
M = TypeVar("M", bound=BaseModel)


class JobRequest(BaseModel):
    """Ask for an analysis of one study."""

    model_config = ConfigDict(extra="forbid")

    application: _Text
    study_instance_uid: _Uid | None = None
    accession_number: _Text | None = None
    patient_id: _Text | None = None
    priority: Annotated[int, Field(ge=0, le=9)] | None = None
    idempotency_key: _Text | None = None

    @model_validator(mode="after")
    def _names_a_study(self) -> JobRequest:
        if self.study_instance_uid is None and self.accession_number is None:
            raise ValueError("study_instance_uid or accession_number is needed")
        return self


class Resumption(BaseModel):
    """What a person decided, for a job held because two studies match."""

    model_config = ConfigDict(extra="forbid")

    study_instance_uid: _Uid | None = None


def _moment(text: object) -> datetime | None:
    try:
        return None if text is None else _MOMENT.validate_python(text).astimezone(UTC)
    except (ValidationError, OverflowError):
        raise ValueError("a date and time as in 2026-01-31T12:00:00Z") from None


def _several(given: object) -> object:
    return given if isinstance(given, list) else [given]


_Any = Annotated[list[_Text], BeforeValidator(_several)]


class JobFilter(BaseModel):
    """Which jobs are meant; of several values, any."""

    model_config = ConfigDict(extra="forbid")

    state: Annotated[list[State], BeforeValidator(_several)] = []
    department: _Any = []
    application: _Any = []
    adapter: _Any = []
    study: _Any = []
    accession_number: _Any = []
    slide_id: _Any = []
    since: Annotated[datetime | None, BeforeValidator(_moment)] = None

    def filter(self) -> Filter:
        named = self.model_dump(exclude={"study"})
        return Filter(**named, study_instance_uid=self.study)


class JobsAction(BaseModel):
    """Do the same to all jobs that match and that it can be done to: `expect` of them, else to none."""

    model_config = ConfigDict(extra="forbid")

    do: Act
    filter: JobFilter
    expect: Annotated[int, Field(ge=0)]


class RestDoor:
    def __init__(self, settings: Settings, store: Store, access: Access) -> None:
        self._settings = settings
        self._store = store
        self._access = access

    def routes(self) -> list[web.RouteDef]:
        api = "/api/v1"
        return [
            web.post(f"{api}/jobs", self._create),
            web.get(f"{api}/jobs", self._list),
            web.post(f"{api}/jobs/actions", self._act_on_all),
            web.get(f"{api}/jobs/{{id}}", self._show),
            web.post(f"{api}/jobs/{{id}}/{{act:retry|cancel|resume}}", self._act),
            web.get(f"{api}/events", self._events),
            web.get(f"{api}/openapi.json", self._openapi),
        ]

    async def _create(self, request: web.Request) -> web.Response:
        who = self._access.require(request, "operator")
        asked = _read(JobRequest, await read_json(request))
        found = self._settings.application(asked.application)
        if found is None:
            known = ", ".join(sorted(self._settings.applications))
            raise Problem(404, f"there is no application of this name; known: {known or 'none'}")
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
        limit = _limit(asked.pop("limit", ["50"])[0])
        after = _read_cursor(asked.pop("cursor", [None])[0])
        asked |= {name: asked[name][0] for name in ("since",) if name in asked}
        found = await self._store.find(_read(JobFilter, asked).filter(), limit=limit + 1, after=after)
        page = found[:limit]
        cursor = _write_cursor(page[-1]) if len(found) > limit else None
        listed = JobList(jobs=[view(job) for job in page], next_cursor=cursor)
        return web.Response(
            text=listed.model_dump_json(exclude={"jobs": {"__all__": {"events", "deliveries"}}}),
            content_type="application/json",
        )

    async def _show(self, request: web.Request) -> web.Response:
        self._access.require(request, "viewer")
        job = await self._store.get(_job_id(request))
        if job is None:
            raise Problem(404, "there is no job of this id")
        return await self._answer(job)

    async def _act(self, request: web.Request) -> web.Response:
        who = self._access.require(request, "operator")
        job_id, act = _job_id(request), request.match_info["act"]
        values: dict[str, Any] = {}
        if act == "resume" and request.can_read_body and await request.read():
            choice = _read(Resumption, await read_json(request))
            values = choice.model_dump(exclude_none=True)
        if await self._store.get(job_id) is None:
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
        return await self._answer(job)

    async def _act_on_all(self, request: web.Request) -> web.Response:
        who = self._access.require(request, "operator")
        asked = _read(JobsAction, await read_json(request))
        try:
            acted = await self._store.act_on_all(asked.do, asked.filter.filter(), who, asked.expect)
        except Refused as refused:
            raise Problem(409, str(refused)) from None
        return web.json_response({"do": asked.do, "jobs": [str(job.id) for job in acted]})

    async def _events(self, request: web.Request) -> web.StreamResponse:
        """Server-sent: each event of each job, from now on or from Last-Event-ID."""
        self._access.require(request, "viewer")
        last = _last_event(request.headers.get("Last-Event-ID", ""))
        if last is None:
            last = await self._store.last_place()
        response = web.StreamResponse(headers={"Cache-Control": "no-cache"})
        response.content_type = "text/event-stream"
        with suppress(ConnectionResetError):  # whoever listened has gone
            await response.prepare(request)
            await self._tell_events(response, last)
        return response

    async def _tell_events(self, response: web.StreamResponse, last: Place) -> NoReturn:
        await response.write(b": listening\n\n")
        while True:
            for place, job_id, event in await self._store.events_since(last):
                last = place
                data = json.dumps(
                    {
                        "job_id": str(job_id),
                        "at": event.at.isoformat(),
                        "state": event.state,
                        "what": event.what,
                        "detail": event.detail,
                    }
                )
                await response.write(f"id: {place[0]}-{place[1]}\nevent: job\ndata: {data}\n\n".encode())
            await asyncio.sleep(_EVENTS_PAUSE)
            await response.write(b": \n\n")

    async def _openapi(self, request: web.Request) -> web.Response:
        self._access.require(request, "viewer")
        return web.json_response(describe(JobRequest, Resumption, JobsAction, JobView, JobList))

    async def _answer(self, job: Job, status: int = 200) -> web.Response:
        events, deliveries = await asyncio.gather(
            self._store.events_of(job.id), self._store.deliveries_of(job.id)
        )
        text = view(job, events, deliveries).model_dump_json()
        return web.Response(text=text, status=status, content_type="application/json")


def _read(model: type[M], body: object) -> M:
    try:
        return model.model_validate(body)
    except ValidationError as error:
        faults = [
            f"{'.'.join(map(str, fault['loc'])) or 'body'}: {fault['msg'].removeprefix('Value error, ')}"
            for fault in error.errors(include_input=False)
        ]
        raise Problem(422, "; ".join(faults)) from None


def _job_id(request: web.Request) -> UUID:
    try:
        return UUID(request.match_info["id"])
    except ValueError:
        raise Problem(404, "there is no job of this id") from None


def _limit(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,3}", text) or not 1 <= int(text) <= 500:
        raise Problem(422, "limit: a number from 1 to 500")
    return int(text)


def _last_event(text: str) -> Place | None:
    """Nonsense is as good as nothing: the listener then hears what comes from now on."""
    found = re.fullmatch(r"([0-9]{1,18})-([0-9]{1,18})", text)
    return None if found is None else (int(found[1]), int(found[2]))


def _write_cursor(job: Job) -> str:
    return base64.urlsafe_b64encode(f"{job.created_at.isoformat()} {job.id}".encode()).decode()


def _read_cursor(text: str | None) -> tuple[datetime, UUID] | None:
    if text is None:
        return None
    try:
        at, _, job_id = base64.urlsafe_b64decode(text).decode().rpartition(" ")
        return datetime.fromisoformat(at), UUID(job_id)
    except ValueError:
        raise Problem(422, "cursor: take it from next_cursor of the page before") from None
