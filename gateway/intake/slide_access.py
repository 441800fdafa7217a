"""A vendor's call on its way to the Sectra of its job: what passes, in which shape, and what comes back."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Any

from aiohttp import web

from gateway.contract import Failure, Retryable
from gateway.delivery.slide_status import author_of, place_of
from gateway.delivery.vendor_results import VendorResults
from gateway.intake import problems
from gateway.intake.bodies import OF_VENDORS, read_sized_json
from gateway.intake.nameless import Nameless
from gateway.intake.problems import Problem
from gateway.intake.streams import Stream, Streams
from gateway.intake.vendor_call import VendorCall
from gateway.jobs.records import Place
from gateway.jobs.store import Store
from gateway.jobs.store.grants import Grant
from gateway.privacy.returning import OnSlide
from gateway.sectra.calls import segment
from gateway.sectra.known import known_quality, known_result
from gateway.sectra.passage import Answer, Passage, without_identity
from gateway.sectra.wire import BadMessage
from gateway.work.disguise import Disguise, Disguises

_TEXT = 4000
_PROPERTIES = 200
_ASKED = ("Range", "If-Range", "If-None-Match", "If-Modified-Since", "Accept")
_ANSWERED = (
    *("Content-Type", "Content-Disposition", "Content-Range", "Accept-Ranges", "ETag", "Last-Modified"),
    *("X-Sectra-ApiVersion", "X-Sectra-SoftwareVersion", "Retry-After"),
)
_VERSIONS = {"X-Sectra-ApiVersion": r"\d{1,3}\.\d{1,3}", "X-Sectra-SoftwareVersion": r"[\w.+ -]{1,64}"}
_EXPLAINED = (400, 409, 412, 415, 422)  # about what the vendor itself has sent


class SlideAccess(VendorCall):
    """Implements `gateway.sectra.errand.Errand`."""

    def __init__(
        self,
        request: web.Request,
        given: Grant,
        passage: Passage,
        store: Store,
        results: VendorResults,
        streams: Streams,
        disguises: Disguises,
        *,
        allow_phi: bool,
    ) -> None:
        super().__init__(given, store, "an unknown call")
        self.outcome = "unanswered"
        self._request = request
        self._place: Place = place_of(given.job)
        self._slide = f"/slides/{segment(self._place.slide_id)}"
        self._passage = passage
        self._results = results
        self._streams = streams
        self._disguises = disguises
        self._allow_phi = allow_phi
        self._versions = {
            name: request.headers[name]
            for name, shape in _VERSIONS.items()
            if re.fullmatch(shape, request.headers.get(name, ""))
        }

    # -- the slide ------------------------------------------------------------------------------------

    async def info(self) -> web.StreamResponse:
        self.what = "info"
        return self._say(
            await self._passage.ask("GET", "/info", "asking for its version", headers=self._versions)
        )

    async def slide_info(self, *, extended: bool, phi: bool) -> web.StreamResponse:
        self.what = "slide info"
        query = {"scope": "extended"} if extended else {}
        return await self._describe(f"{self._slide}/info", query, phi=phi)

    async def case_images(self, *, phi: bool) -> web.StreamResponse:
        self.what = "slides of the case"
        self._check_alive()
        return await self._describe(f"{self._slide}/request/images/info", {}, phi=phi)

    async def label(self) -> web.StreamResponse:
        self.what = "label"
        self._check_alive(identifies=True)
        return await self._pass_on(f"{self._slide}/label", {})

    async def files(self) -> web.StreamResponse:
        self.what = "files"
        disguise = None if self._allow_phi else await self._disguises.of(self._given.job)
        self._check_alive(identifies=disguise is None)
        if disguise is not None:
            return await self._stream(partial(self._send_nameless, disguise))
        return await self._pass_on(f"{self._slide}/files", {}, transfer=True)

    async def tile(self, place: str, *, optical_path: str | None = None) -> web.StreamResponse:
        self.what = f"tile {place}"
        self.is_tile = True
        query = {"opticalPath": optical_path} if optical_path else {}
        path = f"/images/{segment(self._place.slide_id)}_files/{place}"
        self._check_alive()
        return await self._pass_on(path, query)

    async def set_quality(self) -> web.StreamResponse:
        self.what = "quality control"
        self._check_alive()
        body = await self._rebuilt(known_quality, await self._read_body())
        path = f"{self._slide}/qualityControl"
        doing = "setting the slide's quality control"
        async with self._writing() as written:
            answer = await self._passage.ask("PUT", path, doing, body=body, headers=self._versions)
            written.taken = answer.good
        return self._say(answer)

    # -- results --------------------------------------------------------------------------------------

    async def list_results(self) -> web.StreamResponse:
        self.what = "results"
        answer = await self._results.list(self._passage, self._place, self._versions)
        if self._given.reach == "results" and isinstance(answer.body, list):
            theirs = [result for result in answer.body if str(result.get("id")) in self._given.results]
            answer = Answer(answer.status, theirs, answer.headers)
        return await self._say_results(answer)

    async def read_result(self, result_id: int) -> web.StreamResponse:
        self.what = f"result {result_id}"
        self._check_theirs(result_id)
        answer = await self._results.read(self._passage, self._place, result_id, self._versions)
        return await self._say_results(answer)

    async def create_result(self) -> web.StreamResponse:
        self.what = "a new result"
        self._check_alive()
        body = await self._read_result()
        author = author_of(self._given.job)
        async with self._writing() as written:
            answer = await self._results.create(self._passage, self._place, author, body, self._versions)
            written.taken = answer.good
        return await self._stored(answer)

    async def update_result(self, result_id: int) -> web.StreamResponse:
        self.what = f"a change of result {result_id}"
        self._check_theirs(result_id)
        body = await self._read_result()
        if body.get("id", result_id) not in (result_id, str(result_id)):
            raise Problem(422, "id: the address names another result")
        own = {int(known) for known in self._given.results}
        body["id"] = result_id
        place, author = self._place, author_of(self._given.job)
        async with self._writing() as written:
            answer = await self._results.update(
                self._passage, place, author, result_id, body, self._versions, own=own
            )
            written.taken = answer.good
        return await self._stored(answer)

    async def _stored(self, answer: Answer) -> web.StreamResponse:
        result = answer.body
        if answer.good and isinstance(result, dict) and isinstance(result.get("id"), int):
            await self._keep(_shown(result), {str(result["id"]): str(result.get("versionId", ""))})
        return await self._say_results(answer)

    async def _say_results(self, answer: Answer) -> web.StreamResponse:
        if answer.good and answer.body is not None:
            words = await self._disguises.on_slide(self._given.job)
            answer = replace(answer, body=await asyncio.to_thread(_known, answer.body, words))
        return self._say(answer)

    # -- what passes ----------------------------------------------------------------------------------

    def _check_alive(self, *, identifies: bool = False) -> None:
        if identifies and not self._allow_phi:
            raise Problem(
                403, f"the slide's {self.what} may identify the patient, which this application may not see"
            )
        if self._given.reach != "all":
            raise Problem(403, "the job has ended: only its results can still be changed")

    def _check_theirs(self, result_id: int) -> None:
        if self._given.reach == "results" and str(result_id) not in self._given.results:
            raise Problem(403, "the job has ended: only its own results can still be changed")

    async def _describe(self, path: str, query: Mapping[str, str], *, phi: bool) -> web.StreamResponse:
        asked = {**query, "includePHI": "true"} if phi and self._allow_phi else dict(query)
        answer = await self._passage.ask(
            "GET", path, "describing the slide", query=asked, headers=self._versions
        )
        if answer.good and not self._allow_phi:
            answer = Answer(answer.status, without_identity(answer.body), answer.headers)
        return self._say(answer)

    async def _pass_on(
        self, path: str, query: Mapping[str, str], *, transfer: bool = False
    ) -> web.StreamResponse:
        headers = {name: self._request.headers[name] for name in _ASKED if name in self._request.headers}
        headers |= {**self._versions, "Accept-Encoding": "identity"}

        async def send(response: web.StreamResponse, stream: Stream) -> web.StreamResponse:
            async with self._passage.open(
                path, f"reading {self.what}", query=query, headers=headers, transfer=transfer
            ) as (answer, chunks):
                if answer.status >= 400:
                    return self._refused(answer.status, None, answer.headers)
                kept = _kept(answer.headers)
                if not self._allow_phi:
                    kept.pop("Content-Disposition", None)  # a file's name may be a patient's
                response.set_status(answer.status)
                response.headers.update(kept)
                await self._pump(response, chunks, stream)
            return response

        return await self._stream(send)

    async def _send_nameless(
        self, disguise: Disguise, response: web.StreamResponse, stream: Stream
    ) -> web.StreamResponse:
        async with aclosing(self._passage.files(self._place.slide_id)) as files:
            nameless = Nameless(files, disguise)
            if not await nameless.begin():
                raise Problem(403, f"nothing of the slide's files may leave: {nameless.left_out}")
            response.headers.update(nameless.headers)
            await self._pump(response, nameless.chunks(), stream)
        if nameless.left_out:
            self.outcome += f"; left out: {nameless.left_out}"
        return response

    async def _stream(
        self, send: Callable[[web.StreamResponse, Stream], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        response = web.StreamResponse()
        with self._streams.open(self._given.job.id, self._request) as stream:
            try:
                return await send(response, stream)
            except asyncio.CancelledError:
                if stream.cut is None:
                    raise
                stream.forgive()
                self.outcome = f"cut off: {stream.cut}"
            except Failure as failure:
                if not response.prepared:
                    raise
                self.outcome = f"broken off: {failure.message}"
                stream.abort()
        return response if response.prepared else web.Response(status=499)

    async def _pump(self, response: web.StreamResponse, chunks: Any, stream: Stream) -> None:
        try:
            await response.prepare(self._request)
            async for chunk in chunks:
                stream.size += len(chunk)  # before it is known: what is cut off in the middle may have left
                await response.write(chunk)
            await response.write_eof()
        except ConnectionResetError:  # also where a write meets our own cut before the cancellation does
            self.outcome = "broken off: the vendor left" if stream.cut is None else f"cut off: {stream.cut}"
        else:
            self.outcome = str(response.status)
        finally:
            self.size = stream.size

    def _say(self, answer: Answer) -> web.StreamResponse:
        if answer.status >= 400:
            return self._refused(answer.status, answer.body, answer.headers)
        self.outcome = str(answer.status)
        headers = {name: answer.headers[name] for name in _VERSIONS if name in answer.headers}
        if answer.body is None:
            return web.Response(status=answer.status, headers=headers)
        response = web.json_response(answer.body, status=answer.status, headers=headers)
        self.size = len(response.body) if isinstance(response.body, bytes) else 0
        return response

    def _refused(self, status: int, body: object, headers: Mapping[str, str]) -> web.StreamResponse:
        """Sectra's no, in its own words only where they are about what the vendor sent, and may identify."""
        self.outcome = str(status)
        told = f"Sectra answered {status}"
        if self._allow_phi and status in _EXPLAINED and isinstance(body, dict):
            told += "".join(
                f": {body[key]}" for key in ("message", "detail") if isinstance(body.get(key), str)
            )
        kept = {name: headers[name] for name in (*_VERSIONS, "Retry-After") if name in headers}
        return problems.answer(status, told[:1000], kept)

    # -- what the vendor sends ------------------------------------------------------------------------

    async def _read_result(self) -> dict[str, Any]:
        body = await self._read_body()
        data = body.get("data")
        result = data.get("result") if isinstance(data, dict) else None
        if isinstance(result, dict) and result.get("type") == "primitive":
            content = result.get("content")
            if isinstance(content, dict):
                result["content"] = [content]  # the older form, which newer servers refuse
        body = await self._rebuilt(partial(known_result, strict=True), body)
        if body.setdefault("slideId", self._place.slide_id) != self._place.slide_id:
            raise Problem(403, "slideId: this job is about another slide")
        words = await self._disguises.on_slide(self._given.job)
        return body if words is None else await asyncio.to_thread(words.restored, body)

    @staticmethod
    async def _rebuilt(rebuild: Callable[[Any], dict[str, Any]], body: dict[str, Any]) -> dict[str, Any]:
        try:
            return await asyncio.to_thread(rebuild, body)
        except BadMessage as bad:
            raise Problem(422, "; ".join(bad.faults)) from None

    async def _read_body(self) -> dict[str, Any]:
        body: object
        body, self.size = await read_sized_json(self._request, OF_VENDORS)
        if not isinstance(body, dict):
            raise Problem(422, "the body must be a JSON object")
        return body


def explain_failure(failure: Failure) -> web.Response:
    """Without a word of where our Sectra is: that is the hospital's affair."""
    if isinstance(failure, Retryable):
        wait = {"Retry-After": str(round(failure.after or 5))}
        return problems.answer(503, "Sectra can't be reached at the moment; try again", wait)
    return problems.answer(502, "Sectra can't be asked for this job any more; the hospital's IT knows why")


def _known(body: Any, words: OnSlide | None) -> Any:
    """As the vendor may hear it."""
    if isinstance(body, list):
        return [_known(each, words) for each in body]
    result = known_result(body)
    return result if words is None else words.disguised(result)


def _kept(headers: Mapping[str, str]) -> dict[str, str]:
    kept = {name: headers[name] for name in _ANSWERED if name in headers}
    if "Content-Length" in headers and "Content-Encoding" not in headers:
        kept["Content-Length"] = headers["Content-Length"]
    return kept


def _shown(result: Mapping[str, Any]) -> dict[str, Any]:
    properties = result.get("displayProperties")
    kept = list(properties.items())[:_PROPERTIES] if isinstance(properties, dict) else []
    return {
        "id": result["id"],
        "text": str(result.get("displayResult") or "")[:_TEXT],
        "properties": {
            str(name): value[:_TEXT] if isinstance(value, str) else value
            for name, value in kept
            if isinstance(value, str | int | float)
        },
    }
