"""The app side of Sectra's IA-API: what a registered application answers.

An invocation is acknowledged when its job is committed, and not before. What the acknowledgement shows on
the slide is a courtesy with a short limit; if Sectra is slow, a worker puts it there later.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable
from dataclasses import replace
from urllib.parse import urlsplit

import structlog
from aiohttp import web

from gateway import __version__
from gateway.contract import Failure, Modification
from gateway.delivery.slide import SlideWriter, temporary
from gateway.delivery.slide_status import SlideStatus, place_of, sign_of
from gateway.intake.problems import Problem, read_json
from gateway.jobs.records import Job, NewJob, Origin
from gateway.jobs.store import Store, Superseded
from gateway.jobs.store.grants import ChangedResult
from gateway.sectra.client import API_VERSION
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
from gateway.sectra.results import PatchResult, StoredResult
from gateway.sectra.servers import SectraServers
from gateway.sectra.wire import BadMessage
from gateway.settings.sections import Application, Settings, TaggedPolygonInput
from gateway.work.changes import Changes

log = structlog.get_logger(__name__)

VERSION_HEADERS = {"X-Sectra-ApiVersion": API_VERSION, "X-Sectra-SoftwareVersion": __version__}
_CLICK_MAY_COST = 2.5  # seconds, beyond our own commit
_TEMPLATES = {"whole_slide": "wholeSlide", "multi_area": "multiArea"}

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
    ) -> None:
        self._settings = settings
        self._store = store
        self._servers = servers
        self._status = status
        self._writer = writer
        self._changes = changes
        self._networks = [ipaddress.ip_network(network) for network in settings.sectra.allowed_networks]
        self._late: set[asyncio.Task[StoredResult | None]] = set()
        secret = settings.sectra.secret_path
        self.prefix = f"/ia/{secret}" if secret else "/ia"

    def routes(self) -> list[web.RouteDef]:
        place = self.prefix + "/{application}"
        return [
            web.get(place, self._guarded(self._register)),
            web.get(place + "/info", self._guarded(self._info)),
            web.post(place, self._guarded(self._invoke)),
            web.post(place + "/imagenotification", self._guarded(self._notify)),
        ]

    async def close(self, _: web.Application) -> None:
        if self._late:
            await asyncio.wait(self._late, timeout=5)

    def _guarded(self, handler: Handler) -> Handler:
        async def guarded(request: web.Request) -> web.StreamResponse:
            if self._networks:
                caller = ipaddress.ip_address(request.remote or "0.0.0.0")  # noqa: S104
                if not any(caller in network for network in self._networks):
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
            url=f"{public.scheme or request.scheme}://{request.host}{public.path}{self.prefix}/{name}",
            input_template=template,
        )
        return web.json_response(registration.to_wire())

    async def _info(self, request: web.Request) -> web.Response:
        self._application(request)
        return web.json_response({"apiVersion": API_VERSION, "softwareVersion": __version__})

    async def _invoke(self, request: web.Request) -> web.Response:
        name, department, application = self._application(request)
        try:
            call = parse_invocation(await read_json(request))
        except BadMessage as bad:
            raise Problem(422, "; ".join(bad.faults)) from None
        _check_name(call, name)
        match call:
            case Create():
                body = await self._create(call, name, department, application)
                return web.json_response(body)
            case Modify():
                return web.json_response(await self._modify(call, name, application))
            case Cancel():
                if call.cancellation_token:
                    await self._store.cancel_by_token(name, call.cancellation_token)
                return web.json_response([])
            case Delete():
                await self._delete(call, name, application)
                return web.json_response({})

    async def _notify(self, request: web.Request) -> web.Response:
        name, department, application = self._application(request)
        try:
            call = parse_notification(await read_json(request))
        except BadMessage as bad:
            raise Problem(422, "; ".join(bad.faults)) from None
        _check_name(call, name)
        new = self._new_job(call, name, department, application, Origin.NOTIFICATION)
        await self._commit(replace(new, input={"type": "wholeSlide"}))
        return web.json_response({})

    # -- what we do -----------------------------------------------------------------------------------

    async def _create(self, call: Create, name: str, department: str, application: Application) -> object:
        new = self._new_job(call, name, department, application, Origin.SECTRA)
        job = await self._commit(replace(new, input=call.input.to_wire()))
        if self._settings.sectra.acknowledge == "stored":
            stored = await self._acknowledge(job)
            if stored is not None:
                return stored.to_wire()
        return temporary(place_of(job), sign_of(job))

    async def _commit(self, new: NewJob) -> Job:
        while True:
            try:
                job, fresh = await self._store.create(new)
            except Superseded:
                continue
            log.info(
                "job accepted" if fresh else "job joined",
                job=str(job.id),
                application=job.application,
                origin=new.origin,
            )
            return job

    async def _acknowledge(self, job: Job) -> StoredResult | None:
        task = asyncio.create_task(self._status.acknowledge(job))
        self._late.add(task)
        task.add_done_callback(self._late.discard)
        try:
            # Shielded: a result that is on its way to Sectra is better waited for than sent twice.
            return await asyncio.wait_for(asyncio.shield(task), _CLICK_MAY_COST)
        except TimeoutError:
            task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
            log.warning("acknowledged with a temporary result: Sectra is slow", job=str(job.id))
        except Failure as failure:
            log.warning("acknowledged with a temporary result", job=str(job.id), error=failure.message)
        return None

    async def _modify(self, call: Modify, name: str, application: Application) -> object:
        """The vendor's answer; without one the result stays as the user changed it, buttons released."""
        server = self._server(call)
        answer = await self._tell_change(call, call.input, name, application)
        if answer is not None:
            return answer
        changed = _release_buttons(call.input)
        callback = call.callback_info
        client = self._servers.client(server, callback.url, name, callback.token.get_secret_value())
        try:
            async with asyncio.timeout(_CLICK_MAY_COST):
                stored = await self._writer.change(client, server, name, changed)
                return stored.to_wire()
        except (Failure, TimeoutError) as trouble:
            log.warning("a change by the user couldn't be stored", application=name, error=str(trouble))
            return changed.to_wire()

    async def _tell_change(
        self, call: Modify | Delete, changed: StoredResult, name: str, application: Application
    ) -> object | None:
        if call.callback_info is None:
            return None  # nobody says which server's slide it is
        sectra = {
            "callback_url": call.callback_info.url,
            "callback_token": call.callback_info.token.get_secret_value(),
        }
        answer = await self._changes.tell(
            application.adapter,
            ChangedResult(self._server(call), name, call.slide_id, changed.id),
            Modification(call.action, changed.to_wire()),
            sectra,
            call.context,
        )
        if answer is None or (answer.get("id"), answer.get("slideId")) != (changed.id, call.slide_id):
            return None
        return answer

    async def _delete(self, call: Delete, name: str, application: Application) -> None:
        if call.input is not None:
            await self._tell_change(call, call.input, name, application)
        if call.input is not None and call.callback_info is not None:
            await self._writer.forget(self._server(call), name, call.input.id)

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
            context=call.context,
            cancellation_token=call.cancellation_token,
            joinable=True,
        )


def _check_name(call: Call, name: str) -> None:
    if call.application_id != name:
        raise Problem(422, f"applicationId: this address belongs to the application {name}")


def _release_buttons(result: StoredResult) -> StoredResult:
    if isinstance(result.data.result, PatchResult):
        for action in result.data.result.content.actions:
            action.state = 0
    return result


@web.middleware
async def say_versions(request: web.Request, handler: Handler) -> web.StreamResponse:
    response = await handler(request)
    if f"{request.path}/".startswith("/ia/"):
        response.headers.update(VERSION_HEADERS)
    return response
