"""Refusals as application/problem+json: one sentence that a person can act on."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import structlog
from aiohttp import web

from gateway.contract import Failure, Retryable
from gateway.jobs.store import DatabaseLost

log = structlog.get_logger(__name__)

LARGEST_RESULT = 8 * 2**20  # that a vendor may store, and a user change or delete
LARGEST_REQUEST = LARGEST_RESULT + 2**20  # with all that an invocation has around it
_MOST_VALUES = 1_500_000
_SLOW_TO_PARSE = 2**18
_PARSERS = ThreadPoolExecutor(2, "json")
_DEEPEST = 100  # no message has more levels, and what follows must not run out of stack
_TITLES = {
    400: "Not understood",
    401: "Who are you?",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    408: "Too slow",
    409: "Not in this state",
    413: "Too large",
    422: "Wrong shape",
    429: "Too many",
    500: "Our fault",
    503: "Not now",
}


class Problem(Exception):
    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})


def answer(status: int, detail: str, headers: Mapping[str, str] | None = None) -> web.Response:
    body = {
        "type": "about:blank",
        "title": _TITLES.get(status, "Refused"),
        "status": status,
        "detail": detail,
    }
    return web.json_response(body, status=status, headers=headers, content_type="application/problem+json")


@web.middleware
async def explain(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Whatever goes wrong below ends in a problem, and never shows what is inside."""
    try:
        return await handler(request)
    except Problem as problem:
        return answer(problem.status, problem.detail, problem.headers)
    except web.HTTPRequestEntityTooLarge:
        return answer(413, "the request is too large; nothing of that size belongs here")
    except web.HTTPException as error:
        if error.status < 400:
            raise
        return answer(error.status, _sentence(request, error), _kept(error))
    except Failure as failure:
        status = 503 if isinstance(failure, Retryable) else 409
        return answer(status, failure.sentences)
    except DatabaseLost as trouble:
        log.error("a request found no database", route=_route(request), error=type(trouble).__name__)
        return answer(503, "the database doesn't answer at the moment; nothing was accepted: ask again")
    except Exception:
        log.exception("a request broke", method=request.method, route=_route(request))
        return answer(
            500, "an error in the gateway itself; its log says more. Nothing was accepted: ask again"
        )


async def read_json(request: web.Request) -> object:
    return await parse_json(await request.read())


async def parse_json(raw: bytes) -> object:
    """Few at a time and beside the loop, if they are large: parsing holds up whoever else is served."""
    if sum(map(raw.count, (b",", b"[", b"{"))) > _MOST_VALUES:
        raise Problem(413, f"the body holds more than {_MOST_VALUES} values")
    if len(raw) <= _SLOW_TO_PARSE:
        return _parse(raw)
    return await asyncio.get_running_loop().run_in_executor(_PARSERS, _parse, raw)


def _parse(raw: bytes) -> object:
    try:
        body = json.loads(raw, parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError):
        raise Problem(400, "the body isn't JSON") from None
    if _is_deep(body):
        raise Problem(400, f"the body is nested deeper than {_DEEPEST} levels")
    return body


def _is_deep(body: object) -> bool:
    level = [body]
    for _ in range(_DEEPEST):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True


def _finite(text: str) -> float:
    """Neither JSON nor PostgreSQL knows an infinity; Python reads 1e999 as one."""
    number = float(text)
    return number if math.isfinite(number) else _refuse(text)


def _refuse(text: str) -> float:
    raise ValueError(f"{text} isn't JSON")


def _sentence(request: web.Request, error: web.HTTPException) -> str:
    if error.status == 404:
        return "there is nothing at this address"
    if isinstance(error, web.HTTPMethodNotAllowed):
        return f"{request.method} isn't possible here; allowed: {', '.join(sorted(error.allowed_methods))}"
    return error.reason


def _kept(error: web.HTTPException) -> dict[str, str]:
    return {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}


def _route(request: web.Request) -> str:
    resource = request.match_info.route.resource
    return "" if resource is None else resource.canonical
