"""The adapter for IA-API apps: what every adapter must do, how it calls, and when it takes a vendor for done.

The passage of the vendor's own calls is held to a real gateway in tests/daemon/test_sectra_ia.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, ClassVar

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from pydantic import ValidationError

from adapters.sectra_ia.adapter import SectraIa
from adapters.sectra_ia.wire import Options
from gateway.contract import (
    Callback,
    Failure,
    Finished,
    Heard,
    Modification,
    NeedsHuman,
    Order,
    Pending,
    Retryable,
    Ticket,
)
from gateway.suite.contract import CallsContract, stored
from gateway.suite.studies import STUDY, GivenStudy
from gateway.suite.vendor import NONSENSE, Fault, Step

PASSWORD = "password-of-the-app-77"
CALLBACK = Callback("http://127.0.0.1:9/adapters/kidney", "token-of-the-job-31")
ORDER = Order("job-1", "kidney-ai", STUDY, slide_id="slide-1", callback=CALLBACK)


class App:
    """A vendor's app that notes how it is called, and misbehaves when told to."""

    secret = PASSWORD

    def __init__(self) -> None:
        self.faults: dict[Step, Fault] = {}
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.answer: Any = {"slideId": "slide-1", "displayResult": "queued"}
        self.options: dict[str, Any] = {}
        self.registration: Any = {"applicationId": "vendors-own", "context": {"threshold": 1}}
        self._ended = asyncio.Event()
        app = web.Application()
        app.router.add_get("/ia", self._register)
        app.router.add_get("/ia/info", self._info)
        app.router.add_post("/ia{rest:(/imagenotification)?}", self._invoke)
        self._server = TestServer(app, host="127.0.0.1")

    async def start(self) -> None:
        await self._server.start_server()
        self._url = str(self._server.make_url("/ia"))

    async def stop(self) -> None:
        self._ended.set()
        await self._server.close()

    def adapter(
        self, session: aiohttp.ClientSession, work: Path, *, patience: float = 120, most: int | None = None
    ) -> SectraIa:
        limits = {"connect_timeout": patience, "read_timeout": patience, "call_timeout": 4 * patience}
        given = {"url": self._url, "username": "gateway", "password": PASSWORD, **limits, **self.options}
        return SectraIa(Options.model_validate(given), session, work)

    async def _register(self, request: web.Request) -> web.StreamResponse:
        if self.registration is None:
            return web.Response(status=404)
        return web.json_response(self.registration)

    async def _info(self, request: web.Request) -> web.StreamResponse:
        return await self._misbehave(request, "find") or web.json_response({"apiVersion": "1.8"})

    async def _invoke(self, request: web.Request) -> web.StreamResponse:
        self.calls.append((request.match_info["rest"], await request.json()))
        return await self._misbehave(request, "submit") or web.json_response(self.answer)

    async def _misbehave(self, request: web.Request, step: Step) -> web.StreamResponse | None:
        fault = self.faults.get(step)
        if fault is None:
            return None
        assert request.transport is not None
        if fault.hang:
            await self._ended.wait()
        if fault.raw is not None:
            request.transport.write(fault.raw)
            request.transport.close()
        return web.Response(status=fault.status or 200, headers=fault.headers, body=fault.body)


@pytest.fixture
async def vendor() -> AsyncIterator[App]:
    vendor = App()
    await vendor.start()
    yield vendor
    await vendor.stop()


@pytest.fixture
async def adapter(vendor: App, tmp_path: Path) -> AsyncIterator[SectraIa]:
    async with aiohttp.ClientSession() as session:
        yield vendor.adapter(session, tmp_path)


class TestCalls(CallsContract):
    steps: ClassVar[tuple[Step, ...]] = ("submit",)  # what it hears, it hears by being called
    order: ClassVar[Order] = ORDER
    certain: ClassVar[tuple[int, ...]] = (500, 503)
    # An app may answer what it likes, as long as it is JSON or nothing.
    nonsense: ClassVar[dict[str, Fault]] = {
        name: fault for name, fault in NONSENSE.items() if name not in ("types", "null", "empty")
    }

    @pytest.fixture
    async def vendor(self) -> AsyncIterator[App]:
        vendor = App()
        await vendor.start()
        yield vendor
        await vendor.stop()


TICKET = Ticket("slide-1", state={"slide": "slide-1"})


def heard(text: str = "", **said: Any) -> Heard:
    return Heard(**{"calls": 1, "since_invoked": 10.0, "told": {"id": 7, "text": text}, **said})


async def test_it_is_called_as_sectra_would(vendor: App, adapter: SectraIa) -> None:
    ticket = stored(await adapter.submit(ORDER, GivenStudy()))
    [(path, call)] = vendor.calls
    assert path == ""
    assert call == {
        "applicationId": "vendors-own",
        "slideId": "slide-1",
        "callbackInfo": {"url": CALLBACK.url, "token": CALLBACK.token},
        "cancellationToken": "gateway-job-1",
        "action": "create",
        "context": {"threshold": 1},
        "input": {"type": "wholeSlide"},
    }
    assert CALLBACK.token not in repr(ticket)
    assert CALLBACK.token not in repr(ORDER)
    await adapter.cancel(ticket)
    _, cancel = vendor.calls[-1]
    assert (cancel["action"], cancel["cancellationToken"]) == ("cancel", "gateway-job-1")
    assert cancel["applicationId"] == "vendors-own"
    assert CALLBACK.token not in str(cancel)


async def test_an_app_that_knows_no_cancel_or_registration(vendor: App, adapter: SectraIa) -> None:
    vendor.registration = None
    ticket = await adapter.submit(ORDER, GivenStudy())
    assert vendor.calls[0][1]["applicationId"] == "kidney-ai"
    assert vendor.calls[0][1]["context"] == {}
    vendor.faults["submit"] = Fault(404)
    await adapter.cancel(ticket)


async def test_what_was_called_is_known_by_its_calls(vendor: App, adapter: SectraIa) -> None:
    assert await adapter.find(ORDER) is None
    used = Callback(CALLBACK.url, CALLBACK.token, used=True)
    found = await adapter.find(Order("job-1", "kidney-ai", STUDY, slide_id="slide-1", callback=used))
    assert found is not None
    assert found.state["cancellation"] == "gateway-job-1"
    assert vendor.calls == []
    await adapter.cancel(found)
    assert vendor.calls[-1][1]["applicationId"] == "vendors-own"


@pytest.mark.parametrize(
    ("final_when", "said", "done"),
    [
        (None, {}, False),
        (None, {"calls": 0, "since_invoked": 999.0}, False),
        (None, {"since_told": 999.0, "times_told": 1, "text": "queued"}, False),
        (None, {"since_told": 1.0, "times_told": 2, "text": "working"}, False),
        (None, {"since_told": 61.0, "times_told": 2, "text": "working"}, True),
        (None, {"since_told": 61.0, "times_told": 2, "since_read": 3.0}, False),
        ("^FINAL", {"since_told": 61.0, "times_told": 2, "text": "working"}, False),
        ("^FINAL", {"since_told": 0.0, "times_told": 1, "text": "FINAL: 3 cells"}, True),
        ("^FINAL", {"since_told": 0.0, "times_told": 2, "since_read": 0.0, "text": "FINAL: 3 cells"}, True),
    ],
)
async def test_when_it_is_done(
    vendor: App, tmp_path: Path, final_when: str | None, said: dict[str, Any], done: bool
) -> None:
    vendor.options["final_when"] = final_when
    async with aiohttp.ClientSession() as session:
        answer = await vendor.adapter(session, tmp_path).poll(TICKET, heard(**said))
    assert isinstance(answer, Finished) is done
    if isinstance(answer, Finished):
        assert answer.placed == {"id": 7}
        assert not answer.empty
    else:
        assert 0 < answer.after <= 5


RESULT = {"slideId": "slide-1", "displayResult": "FINAL: 3", "displayProperties": {"Cells": 3}}


@pytest.mark.parametrize(
    ("final_when", "done"), [(None, False), ("^FINAL", True), ("^READY", False), ("", True)]
)
async def test_an_answer_is_final_if_its_text_says_so(
    vendor: App, tmp_path: Path, final_when: str | None, done: bool
) -> None:
    drawn = {"type": "primitive", "content": {"labels": [{"location": {"x": 0.5, "y": 0.1}, "label": "3"}]}}
    vendor.answer = {**RESULT, "applicationVersion": "9", "data": {"context": {}, "result": drawn}}
    vendor.options["final_when"] = final_when
    async with aiohttp.ClientSession() as session:
        adapter = vendor.adapter(session, tmp_path)
        ticket = await adapter.submit(ORDER, GivenStudy())
        assert ticket.answered is not None and "FINAL" not in repr(ticket)
        assert "FINAL" not in str(ticket.state), "which is stored as it is"
        told = Heard(calls=0, since_invoked=1.0, told=ticket.answered)
        answer = await adapter.poll(stored(ticket), told)
        assert isinstance(answer, Finished) is done
        if isinstance(answer, Finished):
            assert answer.placed is None and answer.slide is not None
            assert (answer.summary, answer.version) == ("FINAL: 3", "9")
            assert answer.slide.display_properties == {"Cells": 3}
            assert answer.slide.data is not None
            [primitive] = answer.slide.data["content"]
            assert primitive["labels"][0]["label"] == "3"


@pytest.mark.parametrize("answer", [None, [], {}, {"status": "ok"}, {**RESULT, "id": 7, "versionId": "a"}])
async def test_an_answer_that_is_no_result_or_is_stored_is_left_alone(
    vendor: App, adapter: SectraIa, answer: Any
) -> None:
    vendor.answer = answer
    assert (await adapter.submit(ORDER, GivenStudy())).answered is None


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        ({**RESULT, "slideId": "slide-2"}, NeedsHuman),
        ({**RESULT, "data": ["no result"]}, Retryable),
        ({**RESULT, "displayProperties": {"much": "x" * 2**22}}, NeedsHuman),
    ],
)
async def test_an_answer_that_is_no_good_is_refused_without_its_words(
    vendor: App, adapter: SectraIa, answer: Any, failure: type[Failure]
) -> None:
    vendor.answer = answer
    with pytest.raises(failure) as caught:
        await adapter.submit(ORDER, GivenStudy())
    assert "FINAL" not in f"{caught.value} {caught.value.advice}"
    assert not isinstance(caught.value, Retryable) or caught.value.uncertain, "it may have begun"


async def test_a_notification_may_be_ignored(adapter: SectraIa) -> None:
    ticket = Ticket("slide-1", state={"slide": "slide-1", "arrived": True})
    answer = await adapter.poll(ticket, heard(calls=0, since_invoked=61.0))
    assert isinstance(answer, Finished)
    assert (answer.empty, answer.placed) == (True, {})
    assert isinstance(await adapter.poll(ticket, heard(since_invoked=61.0)), Pending)


async def test_changes_are_told_and_answered(vendor: App, adapter: SectraIa) -> None:
    result = {"id": 7, "versionId": "a", "slideId": "slide-1", "displayResult": "x"}
    vendor.answer = {**result, "versionId": "b"}
    answer = await adapter.modify(ORDER, Modification("modify", result))
    assert isinstance(answer, Finished)
    assert answer.placed == vendor.answer
    assert vendor.calls[-1][1]["input"] == result
    vendor.answer = {"slideId": "slide-1"}
    assert isinstance(await adapter.modify(ORDER, Modification("modify", result)), Pending)
    vendor.answer = {}
    assert isinstance(await adapter.modify(ORDER, Modification("delete", result)), Finished)
    assert vendor.calls[-1][1]["action"] == "delete"


@pytest.mark.parametrize(
    "wrong",
    [{"url": "ftp://x"}, {"url": "http://x", "quiet": "soon"}, {"url": "http://x", "final_when": "("}, {}],
)
def test_wrong_options_are_told(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SectraIa.Options.model_validate(wrong)


def test_no_secret_is_shown() -> None:
    options = SectraIa.Options.model_validate(
        {"url": "http://x", "password": PASSWORD, "headers": {"X-Key": PASSWORD}}
    )
    assert PASSWORD not in repr(options)
