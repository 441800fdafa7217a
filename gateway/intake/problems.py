"""Refusals as application/problem+json: one sentence that a person can act on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import structlog
from aiohttp import web

from gateway.contract import Failure, Retryable
from gateway.jobs.store import DatabaseLost

log = structlog.get_logger(__name__)

_HEADERS_READ = (
    *(
        "Content-Type",
        "Content-Encoding",
        "Range",
        "If-Range",
        "If-None-Match",
        "If-Modified-Since",
        "Accept",
    ),
    *("Host", "Idempotency-Key", "Last-Event-ID", "X-Forwarded-For"),
)
_TITLES = {
    400: "Not understood",
    401: "Who are you?",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    408: "Too slow",
    409: "Not in this state",
    413: "Too large",
    415: "Not this kind",
    417: "Not done here",
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


class WrongToken(Problem):
    """Somebody showed what lets nobody in here: perhaps he guesses."""


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
        _check_words(request)
        _refuse_coded(request)
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


def _check_words(request: web.Request) -> None:
    """Once for all who read them: bytes that are no text, and control characters, end up in no query, no
    header of ours, no file's name. A token is compared byte by byte and needs none of this."""
    if not request.path.isprintable():
        raise Problem(404, "there is nothing at this address")
    for name in _HEADERS_READ:
        if not all(value.isprintable() for value in request.headers.getall(name, ())):
            raise Problem(400, f"the header {name} holds what is no text")


def _refuse_coded(request: web.Request) -> None:
    """A megabyte that inflates to thousands costs the sender nothing."""
    for coding in ",".join(request.headers.getall("Content-Encoding", ())).split(","):
        if coding.strip().lower() not in ("", "identity"):
            raise Problem(
                415, "a body is taken as it is, without Content-Encoding", {"Accept-Encoding": "identity"}
            )


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
