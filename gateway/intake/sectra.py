"""The app side of Sectra's IA-API: what a registered application answers.

An invocation is acknowledged when its job is committed, and not before. What the acknowledgement shows on
the slide is a courtesy with a short limit; if Sectra is slow, a worker puts it there later.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from typing import Any, TypeVar
from urllib.parse import urlsplit

import structlog
from aiohttp import web

from gateway import __version__
from gateway.contract import Failure, NotLetIn
from gateway.delivery.slide import FIRST_FOR, SlideWriter, temporary
from gateway.delivery.slide_status import SlideStatus, place_of, sign_of
from gateway.intake.bodies import OF_SECTRA, read_json
from gateway.intake.callers import Callers, is_within
from gateway.intake.certified import ClientCertificates
from gateway.intake.corrections import CLICK_MAY_COST, Corrections
from gateway.intake.problems import Problem, WrongToken
from gateway.jobs.records import Job, Joining, NewJob, Origin
from gateway.jobs.states import WORKING
from gateway.jobs.store import DatabaseError, Store
from gateway.jobs.store.accepting import Accepted
from gateway.sectra.client import API_VERSION
from gateway.sectra.known import known_context, known_input
from gateway.sectra.messages import (
    Call,
    Cancel,
    Create,
    Delete,
    InputTemplate,
    Modify,
    Registration,
    TagChoice,
    parse_invocation,
    parse_notification,
)
from gateway.sectra.results import StoredResult
from gateway.sectra.servers import SectraServers
from gateway.sectra.wire import BadMessage
from gateway.settings.sections import Application, Settings, TaggedPolygonInput
from gateway.work.admission import Admission, Stranger
from gateway.work.changes import Changes

log = structlog.get_logger(__name__)

VERSION_HEADERS = {"X-Sectra-ApiVersion": API_VERSION, "X-Sectra-SoftwareVersion": __version__}
_COMMIT_MAY_TAKE = 10.0  # seconds in which a user hears that the database doesn't answer
_LONG = 1.0  # seconds for the first sign, in which others may have given up
_MOST_LATE = 500  # the others are seen to when there is room
_TEMPLATES = {"whole_slide": "wholeSlide", "multi_area": "multiArea"}

T = TypeVar("T")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class SectraDoor:
    def __init__(
        self,
        settings: Settings,
        store: Store,
        servers: SectraServers,
        status: SlideStatus,
        writer: SlideWriter,
        changes: Changes,
        admission: Admission,
    ) -> None:
        self._settings = settings
        self._store = store
        self._servers = servers
        self._status = status
        self._corrections = Corrections(store, servers, writer, changes, self._require_sectra)
        self._admission = admission
        self._certificates = ClientCertificates(settings.listen.tls)
        self._callers = Callers(settings.listen.proxies)
        self._late: set[asyncio.Task[Any]] = set()
        secret = settings.sectra.secret_path
        self._secret = secret.get_secret_value() if secret else ""
        self._prefix = f"/ia/{self._secret}" if secret else "/ia"

    def routes(self) -> list[web.RouteDef]:
        place = "/ia/{secret}/{application}" if self._secret else "/ia/{application}"
        return [
            web.get(place, self._guarded(self._register)),
            web.get(place + "/info", self._guarded(self._info)),
            web.post(place, self._guarded(self._invoke)),
            web.post(place + "/imagenotification", self._guarded(self._notify)),
        ]

    async def close(self, _: web.Application) -> None:
        if not self._late:
            return
        _done, late = await asyncio.wait(list(self._late), timeout=5)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=5)

    def _guarded(self, handler: Handler) -> Handler:
        allowed = self._settings.sectra.allowed_networks

        async def guarded(request: web.Request) -> web.StreamResponse:
            said = request.match_info.get("secret", "").encode("utf-8", "replace")
            if not hmac.compare_digest(said, self._secret.encode()):
                raise WrongToken(404, "there is nothing at this address")
            self._certificates.require(request)
            if allowed:
                caller = self._callers.address(request)
                if caller is None or not is_within(caller, allowed):
                    raise Problem(403, "calls from this address aren't allowed (sectra.allowed_networks)")
            return await handler(request)

        return guarded

    # -- what Sectra asks -----------------------------------------------------------------------------

    async def _register(self, request: web.Request) -> web.Response:
        name, _, application = self._application(request)
        if isinstance(application.input, TaggedPolygonInput):
            tags = application.input.tagged_polygon.tags
            template = InputTemplate(type="taggedPolygon", content=TagChoice(tags=list(tags)))
        else:
            template = InputTemplate.model_validate({"type": _TEMPLATES[application.input]})
        public = urlsplit(self._settings.public_url or "")
        registration = Registration(
            application_id=name,
            display_name=application.display_name,
            manufacturer=application.manufacturer,
            url=f"{public.scheme or request.scheme}://{request.host}{public.path}{self._prefix}/{name}",
            input_template=template,
        )
        return web.json_response(registration.to_wire())

    async def _info(self, request: web.Request) -> web.Response:
        self._application(request)
        return web.json_response({"apiVersion": API_VERSION, "softwareVersion": __version__})

    async def _invoke(self, request: web.Request) -> web.Response:
        name, department, application = self._application(request)
        try:
            call = await _read(request, parse_invocation)
        except BadMessage as bad:
            raise Problem(422, "; ".join(bad.faults)) from None
        _check_name(call, name)
        match call:
            case Create():
                body = await self._create(call, name, department, application)
                return web.json_response(body)
            case Modify():
                made = self._new_job(call, name, department, application, Origin.SECTRA)
                return web.json_response(await self._corrections.modify(call, made))
            case Cancel():
                await self._cancel(call, name)
                return web.json_response([])
            case Delete():
                if call.input is not None and call.callback_info is not None:
                    made = self._new_job(call, name, department, application, Origin.SECTRA)
                    await self._corrections.delete(call, call.input, made)
                return web.json_response({})

    async def _notify(self, request: web.Request) -> web.Response:
        name, department, application = self._application(request)
        try:
            call = await _read(request, parse_notification)
        except BadMessage as bad:
            raise Problem(422, "; ".join(bad.faults)) from None
        _check_name(call, name)
        new = self._new_job(call, name, department, application, Origin.NOTIFICATION)
        new = replace(new, input={"type": "wholeSlide"})
        accepted = await self._commit(new)
        self._begin_joining(accepted)
        return web.json_response({})

    # -- what we do -----------------------------------------------------------------------------------

    async def _create(self, call: Create, name: str, department: str, application: Application) -> object:
        new = self._new_job(call, name, department, application, Origin.SECTRA)
        new = replace(new, input=known_input(call.input.to_wire()))
        waits = self._settings.sectra.acknowledge == "stored"
        accepted = await self._commit(new, first_for=FIRST_FOR if waits else 0.0)
        job, stored = accepted.job, None
        if not waits:
            self._begin_joining(accepted)
        elif accepted.joining is None or len(self._late) < _MOST_LATE:
            stored = await self._in_time(self._begin(self._answer(accepted, new)), job)
        return temporary(place_of(job), sign_of(job)) if stored is None else stored.to_wire()

    async def _commit(self, new: NewJob, *, first_for: float = 0.0) -> Accepted:
        try:
            async with asyncio.timeout(_COMMIT_MAY_TAKE):
                accepted = await self._store.accept(new, first_for=first_for)
        except TimeoutError:
            log.error("an invocation wasn't acknowledged: the database is slow", application=new.application)
            # It may yet be committed: whoever asks again then joins that job.
            sentence = "the database doesn't answer at the moment: ask again; nothing is done twice for that"
            raise Problem(503, sentence, {"Retry-After": "5"}) from None
        job, said = accepted.job, "job accepted" if accepted.fresh else "job asked for again"
        log.info(said, job=str(job.id), application=job.application, origin=new.origin)
        return accepted

    async def _answer(self, accepted: Accepted, new: NewJob) -> StoredResult | None:
        job = accepted.job
        if accepted.joining is not None:
            joined = await self._join(accepted.joining)
            if joined is None:
                return None
            job = joined
        began = asyncio.get_running_loop().time()
        try:
            stored = await self._status.acknowledge(job, first=accepted.first)
        except NotLetIn:
            if not job.callback_accepted:
                await self._require_sectra(new)
            raise
        if asyncio.get_running_loop().time() - began > _LONG:
            self._begin(self._tell_meanwhile(job))
        if not job.callback_accepted and self._servers.has_user(new.server or ""):
            await self._store.accept_callback(job)  # so that our user takes over, however soon the token dies
        return stored

    async def _tell_meanwhile(self, job: Job) -> None:
        """It may have begun to wait for somebody, and whoever was to say so on the slide hadn't the patience
        for the first sign to be there."""
        now = await self._store.get(job.id)
        if now is not None and now.waits_for is not None and now.waits_why and now.state in WORKING:
            await self._status.show_progress(now, now.waits_why, None)

    async def _join(self, who: Joining) -> Job | None:
        try:
            return await self._admission.let_in(who)
        except Stranger as stranger:
            raise Problem(403, stranger.message) from None

    async def _require_sectra(self, call: NewJob) -> None:
        try:
            await self._admission.require(call)
        except Stranger as stranger:
            raise Problem(403, stranger.message) from None

    def _begin_joining(self, accepted: Accepted) -> None:
        if accepted.joining is not None and len(self._late) < _MOST_LATE:
            self._begin(self._join(accepted.joining))

    def _begin(self, answering: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """What goes on when its caller has been answered."""
        task = asyncio.create_task(answering)
        self._late.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._late.discard(task)
        trouble = None if task.cancelled() else task.exception()
        if isinstance(trouble, Failure | Problem):
            log.warning("an invocation couldn't be seen to", error=str(trouble))
        elif isinstance(trouble, DatabaseError):
            log.warning("an invocation is left for later", error=type(trouble).__name__)
        elif trouble is not None:
            log.error("an invocation broke", exc_info=trouble)

    async def _in_time(self, answering: asyncio.Task[StoredResult | None], job: Job) -> StoredResult | None:
        try:
            # Shielded: a result that is on its way to Sectra is better waited for than sent twice.
            return await asyncio.wait_for(asyncio.shield(answering), CLICK_MAY_COST)
        except TimeoutError:
            log.warning("acknowledged with a temporary result: Sectra is slow", job=str(job.id))
        except Failure:
            log.warning("acknowledged with a temporary result", job=str(job.id))
        return None

    async def _cancel(self, call: Cancel, name: str) -> None:
        if call.cancellation_token:
            await self._store.cancel_by_token(name, call.cancellation_token)

    # -- inside ---------------------------------------------------------------------------------------

    def _application(self, request: web.Request) -> tuple[str, str, Application]:
        name = request.match_info["application"]
        found = self._settings.application(name)
        if found is None:
            raise Problem(404, "there is no application of this name; compare the url registered in Sectra")
        return name, *found

    def _server(self, call: Call) -> str:
        if call.callback_info is None:
            raise Problem(422, "callbackInfo: is missing")
        server = self._servers.name_of(call.callback_info.url)
        if server is None:
            raise Problem(
                403,
                "callbackInfo.url isn't below any of sectra.servers; callbacks go only to configured servers",
            )
        return server

    def _new_job(
        self, call: Call, name: str, department: str, application: Application, origin: Origin
    ) -> NewJob:
        server = self._server(call)
        assert call.callback_info is not None
        return NewJob(
            department=department,
            application=name,
            adapter=application.adapter,
            origin=origin,
            priority=application.priority,
            slide_id=call.slide_id,
            server=server,
            callback_url=call.callback_info.url,
            callback_token=call.callback_info.token.get_secret_value(),
            context=known_context(call.context),
            cancellation_token=call.cancellation_token,
            joinable=True,
        )


async def _read(request: web.Request, shape: Callable[[Any], T]) -> T:
    """Any page in a browser can have it send JSON as another kind, without asking: what is no JSON at all
    does no harm, and is told so."""

    def shaped(body: Any) -> T:
        if request.content_type != "application/json":
            raise Problem(415, "the body has to be application/json")
        return shape(body)

    return await read_json(request, OF_SECTRA, shaped)


def _check_name(call: Call, name: str) -> None:
    if call.application_id != name:
        raise Problem(422, f"applicationId: this address belongs to the application {name}")


@web.middleware
async def say_versions(request: web.Request, handler: Handler) -> web.StreamResponse:
    response = await handler(request)
    if f"{request.path}/".startswith("/ia/"):
        response.headers.update(VERSION_HEADERS)
    return response
