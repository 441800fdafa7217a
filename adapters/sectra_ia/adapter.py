"""A vendor's existing IA-API app, unmodified: called as Sectra would call it, and calling back as it would
call Sectra, by way of the gateway.

It reads the slide and stores its results itself, within the errand that its token allows. Nothing tells when
it is done, so a result is final when its text says so; where nobody knows what it would say, when one beyond
the first has stood for a while: the first may be no more than "queued".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import aiohttp
from aiohttp import web
from pydantic import BaseModel

from adapters.sectra_ia.answers import read_answer
from adapters.sectra_ia.wire import Options as SectraIaOptions
from adapters.sectra_ia.wire import Wire
from gateway.contract import (
    SILENCE,
    Call,
    Failure,
    Finished,
    Handler,
    Health,
    Heard,
    Modification,
    NeedsHuman,
    Order,
    Pending,
    Permanent,
    Retryable,
    Route,
    SlideResult,
    Study,
    Ticket,
)
from gateway.sectra.errand import Errand

_LOOKS = 5.0  # seconds between two looks, though a stored result is told at once
_VOID = "void"  # in place of a token, where nothing may be called
_RESULTS = "/{kind:applications|hooks}/{application}/results"
_ID = r"{id:\d{1,18}}"
_TILE = r"{tile:\d{1,3}/\d{1,9}_\d{1,9}(_[A-Za-z0-9.-]{1,32})?\.[A-Za-z0-9]{1,8}}"


class SectraIa:
    Options: ClassVar[type[BaseModel]] = SectraIaOptions
    works_on_slide: ClassVar[Literal[True]] = True

    def __init__(self, options: SectraIaOptions, session: aiohttp.ClientSession, work: Path) -> None:  # noqa: ARG002 (the contract's)
        self._options = options
        self._wire = Wire(options, session)

    async def submit(self, order: Order, study: Study) -> Ticket:  # noqa: ARG002 (the contract's)
        own = await self._registered()
        ticket = self._ticket(order, self._options.application_id or own.get("applicationId"))
        body = {
            **_call(ticket, order),
            "action": "newImageFiles" if order.arrived else "create",
            "context": dict(order.context) or own.get("context") or {},
            "input": order.input or {"type": "wholeSlide"},
        }
        if order.arrived:
            body["imageInfo"] = dict(order.image_info or {})
        answer = await self._invoke("an invocation", body, "/imagenotification" if order.arrived else "")
        return replace(ticket, answered=read_answer(answer, order))

    @property
    def sure_after(self) -> float:
        return self._options.sure_after

    async def find(self, order: Order) -> Ticket | None:
        """It has been called if it called back."""
        if order.callback is None or not order.callback.used:
            return None
        return self._ticket(order, await self._own_name())

    async def poll(self, ticket: Ticket, heard: Heard = SILENCE) -> Pending | Finished:
        stood, quiet = heard.since_told, self._options.quiet
        if stood is None:
            if heard.answered and not ticket.state.get("arrived"):
                return self._judge_answer(heard.answered)
            if ticket.state.get("arrived") and not heard.calls and heard.since_invoked >= quiet:
                return Finished("the vendor leaves this slide alone", empty=True, placed={})
            return Pending(min(_LOOKS, quiet), "the vendor is at work")
        text = str(heard.told.get("text") or "")
        if self._options.final_when is not None:
            if not self._options.final_when.search(text):
                return Pending(_LOOKS, "the vendor's result doesn't match final_when yet")
        elif heard.times_told <= 1:  # "queued" as like as not: its worker may not even have begun
            return Pending(_LOOKS, "the vendor stays at its first answer; if that is final, set final_when")
        else:
            still = stood if heard.since_read is None else min(stood, heard.since_read)
            if still < quiet:
                return Pending(min(_LOOKS, quiet - still), "the vendor is at work")
        return Finished(
            text or "the vendor stored a result without a text",
            properties=heard.told.get("properties") or {},
            placed={"id": heard.told.get("id")},
        )

    def _judge_answer(self, answer: Mapping[str, Any]) -> Pending | Finished:
        """It has stored nothing itself: what it answered is a passing "queued", unless it says otherwise."""
        text = str(answer.get("displayResult") or "")
        if self._options.final_when is None:
            return Pending(
                _LOOKS, "the vendor has answered and stored nothing; if that is final, set final_when"
            )
        if not self._options.final_when.search(text):
            return Pending(_LOOKS, "the vendor is at work; what it answered isn't its final result")
        properties = answer.get("displayProperties") or {}
        return Finished(
            text or "the vendor answered with a result without a text",
            properties=properties,
            slide=SlideResult(text, properties, (answer.get("data") or {}).get("result")),
            version=str(answer.get("applicationVersion") or ""),
        )

    async def modify(self, order: Order, change: Modification) -> Pending | Finished:
        body = {
            **_call(self._ticket(order, await self._own_name()), order),
            "action": change.kind,
            "context": dict(order.context),
            "input": dict(change.result),
        }
        answer = await self._invoke(f"a {change.kind}", body)
        if change.kind == "delete":
            return Finished("the vendor knows of the removal", empty=True, placed={})
        if not isinstance(answer, dict) or "id" not in answer:
            return Pending(self._options.quiet, "the vendor answered without a stored result")
        return Finished(str(answer.get("displayResult") or ""), placed=answer)

    async def cancel(self, ticket: Ticket) -> None:
        state = ticket.state
        body = {
            "applicationId": state.get("application"),
            "slideId": state.get("slide"),
            "callbackInfo": {"url": state.get("callback", ""), "token": _VOID},
            "context": {},
            "cancellationToken": state.get("cancellation"),
            "action": "cancel",
            "input": None,
        }
        try:
            await self._invoke("a cancel", body)
        except Permanent:  # it knows no cancelling, or not this invocation any more
            return

    async def check(self) -> Health:
        try:
            answer = await self._wire.call("the version probe", "GET", "/info")
        except Failure as failure:
            return Health.ill(failure)
        if not isinstance(answer, dict) or "apiVersion" not in answer:
            return Health(ok=False, sentence="What answers is no IA-API app: its info names no apiVersion.")
        return Health(True, "The vendor's app answers and lets us in.", self._wire.certificate_expiry())

    def routes(self) -> Iterable[Route]:
        for method, path, handle in (
            ("GET", "/info", _info),
            ("GET", "/slides/{slide}/info", _slide_info),
            ("GET", "/slides/{slide}/label", _label),
            ("GET", "/slides/{slide}/files", _files),
            ("GET", "/slides/{slide}/request/images/info", _case_images),
            ("PUT", "/slides/{slide}/qualityControl", _set_quality),
            ("GET", "/images/{slide}_files/" + _TILE, _tile),
            ("GET", "/requests/{accession}/images/info", _case),
            ("POST", _RESULTS, _create),
            ("POST", _RESULTS + "/", _create),
            ("GET", _RESULTS + "/slide/{slide}", _list),
            ("GET", f"{_RESULTS}/{_ID}", _read),
            ("PUT", f"{_RESULTS}/{_ID}", _update),
        ):
            yield Route(method, path, _on_slide(handle))

    # -- inside ---------------------------------------------------------------------------------------

    async def _own_name(self) -> object:
        return self._options.application_id or (await self._registered()).get("applicationId")

    async def _registered(self) -> dict[str, Any]:
        """How it names itself, and the context it wants; an app without a registration does as well."""
        try:
            answer = await self._wire.call("the registration", "GET")
        except Permanent:
            return {}
        except Retryable as failure:
            failure.uncertain = False
            raise
        return answer if isinstance(answer, dict) else {}

    async def _invoke(self, what: str, body: dict[str, Any], path: str = "") -> Any:
        answer = await self._wire.call(what, "POST", path, body)
        if answer is not None and not isinstance(answer, dict | list):
            raise Retryable(
                f"the vendor answered {what} in an unknown shape",
                "Check that the adapter's url leads to an IA-API app.",
                uncertain=True,
            )
        return answer

    def _ticket(self, order: Order, application: object) -> Ticket:
        if order.callback is None or order.slide_id is None:
            raise NeedsHuman("the vendor was to be called without a slide", "Ask again from Sectra.")
        return Ticket(
            order.slide_id,
            None,
            {
                "slide": order.slide_id,
                "application": str(application or order.application),
                "callback": order.callback.url,
                "cancellation": f"gateway-{order.job_id}",
                "arrived": order.arrived,
            },
        )


def _call(ticket: Ticket, order: Order) -> dict[str, Any]:
    """What each of Sectra's calls holds."""
    assert order.callback is not None
    return {
        "applicationId": ticket.state["application"],
        "slideId": order.slide_id,
        "callbackInfo": {"url": order.callback.url, "token": order.callback.token},
        "cancellationToken": ticket.state["cancellation"],
    }


# -- what the vendor calls -----------------------------------------------------------------------------


def _on_slide(handle: Callable[[web.Request, Errand], Awaitable[web.StreamResponse]]) -> Handler:
    async def handle_own(request: web.Request, call: Call) -> web.StreamResponse:
        if not isinstance(call, Errand):
            return call.refuse(403, "this job is about no slide")
        if request.match_info.get("slide", call.order.slide_id) != call.order.slide_id:
            return call.refuse(403, "this job is about another slide")
        return await handle(request, call)

    return handle_own


def _wants_phi(request: web.Request) -> bool:
    return request.query.get("includePHI", "").lower() == "true"


async def _info(request: web.Request, errand: Errand) -> web.StreamResponse:  # noqa: ARG001 (a handler's)
    return await errand.info()


async def _slide_info(request: web.Request, errand: Errand) -> web.StreamResponse:
    extended = request.query.get("scope", "").lower() == "extended"
    return await errand.slide_info(extended=extended, phi=_wants_phi(request))


async def _label(request: web.Request, errand: Errand) -> web.StreamResponse:  # noqa: ARG001
    return await errand.label()


async def _files(request: web.Request, errand: Errand) -> web.StreamResponse:  # noqa: ARG001
    return await errand.files()


async def _tile(request: web.Request, errand: Errand) -> web.StreamResponse:
    return await errand.tile(request.match_info["tile"], optical_path=request.query.get("opticalPath"))


async def _case_images(request: web.Request, errand: Errand) -> web.StreamResponse:
    return await errand.case_images(phi=_wants_phi(request))


async def _case(request: web.Request, errand: Errand) -> web.StreamResponse:
    if request.match_info["accession"] != errand.order.accession_number:
        return errand.refuse(403, "this job is about another case")
    return await errand.case_images(phi=_wants_phi(request))


async def _set_quality(request: web.Request, errand: Errand) -> web.StreamResponse:  # noqa: ARG001
    return await errand.set_quality()


async def _list(request: web.Request, errand: Errand) -> web.StreamResponse:  # noqa: ARG001
    return await errand.list_results()


async def _create(request: web.Request, errand: Errand) -> web.StreamResponse:  # noqa: ARG001
    return await errand.create_result()


async def _read(request: web.Request, errand: Errand) -> web.StreamResponse:
    return await errand.read_result(int(request.match_info["id"]))


async def _update(request: web.Request, errand: Errand) -> web.StreamResponse:
    return await errand.update_result(int(request.match_info["id"]))
