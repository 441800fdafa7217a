"""What stands in front of every simulated server: its address, the log of the calls that it saw, and faults.

Faults are asked for in the state or with `PUT /control/faults`: answers with any status or redirect, delays,
connections dropped before the work or after it. Neither /control nor a server's page is logged or disturbed.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from dataclasses import dataclass, field
from typing import Any, TypeVar

from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic import BaseModel, ConfigDict, ValidationError

Body = TypeVar("Body", bound=BaseModel)


class Fault(BaseModel):
    """Disturbs the calls whose method and path match; the first fault that applies is taken."""

    model_config = ConfigDict(extra="forbid")

    method: str = ".*"
    path: str = ".*"
    skip: int = 0  # let so many pass first
    times: int | None = None
    delay: float = 0
    status: int | None = None
    headers: dict[str, str] = {}
    body: str = ""
    drop: bool = False  # close the connection, nothing done
    drop_answer: bool = False  # do the work, then close the connection without an answer


@dataclass(slots=True)
class Call:
    method: str
    path: str
    query: str
    headers: dict[str, str]
    status: int | None = None


@dataclass
class Front:
    url: str = ""
    calls: deque[Call] = field(default_factory=lambda: deque(maxlen=20_000))
    faults: list[Fault] = field(default_factory=list)

    def take_fault(self, method: str, path: str) -> Fault | None:
        for fault in self.faults:
            if not (re.fullmatch(fault.method, method) and re.search(fault.path, path)) or fault.times == 0:
                continue
            if fault.skip > 0:
                fault.skip -= 1
                continue
            if fault.times is not None:
                fault.times -= 1
            return fault
        return None

    def count(self, method: str, path: str) -> int:
        return sum(bool(call.method == method and re.search(path, call.path)) for call in self.calls)


FRONT = web.AppKey("front", Front)


async def read_model(request: web.Request, kind: type[Body]) -> Body:
    """A body for /control; wrong ones are said, so that no test disturbs nothing unnoticed."""
    try:
        return kind.model_validate_json(await request.read())
    except ValidationError as wrong:
        raise web.HTTPUnprocessableEntity(text=str(wrong)) from None


def _cut_connection(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()


@web.middleware
async def stand_in_front(request: web.Request, handler: Handler) -> web.StreamResponse:
    if request.path == "/" or request.path.startswith("/control/"):
        return await handler(request)
    front = request.app[FRONT]
    call = Call(request.method, request.path, request.query_string, dict(request.headers))
    front.calls.append(call)
    fault = front.take_fault(request.method, request.path)
    if fault is not None:
        await asyncio.sleep(fault.delay)
        if fault.drop:
            _cut_connection(request)
        if fault.drop or fault.status is not None:
            call.status = fault.status
            return web.Response(status=fault.status or 500, headers=fault.headers, text=fault.body)
    try:
        answer = await handler(request)
    except web.HTTPException as refusal:
        call.status = refusal.status
        raise
    except ConnectionError:  # whoever asked has left in the middle of the answer
        call.status = 499
        return web.Response(status=499)
    call.status = answer.status
    if fault is not None and fault.drop_answer:
        _cut_connection(request)
    return answer


class Faults(BaseModel):
    faults: list[Fault]


async def _put_faults(request: web.Request) -> web.Response:
    request.app[FRONT].faults[:] = (await read_model(request, Faults)).faults
    return web.json_response({})


async def _get_log(request: web.Request) -> web.Response:
    calls: list[dict[str, Any]] = [
        {"method": call.method, "path": call.path, "query": call.query, "status": call.status}
        for call in request.app[FRONT].calls
    ]
    return web.json_response(calls)


def build_front(front: Front) -> web.Application:
    app = web.Application(middlewares=[stand_in_front], client_max_size=256 * 2**20)
    app[FRONT] = front
    app.router.add_put("/control/faults", _put_faults)
    app.router.add_get("/control/log", _get_log)
    return app
