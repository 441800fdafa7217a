"""What callers send, as JSON or as a form: within limits of size and time, and of all in memory at once.

A small body is read at once. Large ones share what memory there is for them, from their first bytes until
their answer is out, because what was made of them is as large; who finds none free waits a little, and is
then asked to come again. They are parsed beside the event loop, one at a time and with a rest after each:
while one is parsed nothing else can run for a moment, and others are to be answered between them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import aiohttp
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from gateway import json_text
from gateway.intake.problems import Problem
from gateway.json_text import BadText, Bounds, TooMuch, Unread, count_values

# Of Sectra's calls the largest honest one is a `modify` or `delete` with a stored result in it. Ours have
# 40,000 points of outlines, at some 47 bytes each; a vendor may store twice that, and it comes back in such a
# call, perhaps written at more length. An invocation with all areas that anybody draws has a tenth.
OF_SECTRA = Bounds(4 * 2**20, 300_000, mended=("context", "imageInfo"))
OF_VENDORS = Bounds(3 * 2**20, 250_000)  # a result
OF_PROGRAMS = Bounds(2**20, 50_000)  # the filter of an action, with hundreds of names
OF_PAGES = Bounds(2**14, 20)  # a form

_WITHIN = 60.0
_FORM = "application/x-www-form-urlencoded"
_SMALL = 2**16
_MEMORY = 200 * 2**20
_OF_A_VALUE = 100  # bytes, as Python keeps it
_PATIENCE = 5.0
_LOOKS = 0.05
_REST = 0.02
_PARSER = ThreadPoolExecutor(1, "json")
_HELD = web.RequestKey("held", int)
T = TypeVar("T")


class Scales:
    """What large bodies weigh together. Any one fits when there is no other."""

    def __init__(self, most: int = _MEMORY) -> None:
        self._most = most
        self._held = 0

    async def weigh(self, request: web.Request, weight: int) -> None:
        if weight <= _SMALL:
            return
        until = asyncio.get_running_loop().time() + _PATIENCE
        more = weight - request.get(_HELD, 0)
        while more > 0 and self._held - request.get(_HELD, 0) > 0 and self._held + more > self._most:
            if asyncio.get_running_loop().time() > until:
                raise Problem(503, "too many large bodies at once; send it again", {"Retry-After": "2"})
            await asyncio.sleep(_LOOKS)
        if more > 0:
            self._held += more
            request[_HELD] = weight

    def give_back(self, request: web.Request) -> None:
        self._held -= request.pop(_HELD, 0)


_scales = Scales()


def _as_it_is(body: Any) -> Any:
    return body


async def read_json(
    request: web.Request, most: Bounds, shape: Callable[[Any], T] = _as_it_is, *, empty: object = None
) -> T:
    """`shape`: makes something of it, which may take as long as the parsing. `empty`: stands for no body."""
    return (await read_sized_json(request, most, shape, empty=empty))[0]


async def read_sized_json(
    request: web.Request,
    most: Bounds,
    shape: Callable[[Any], T] = _as_it_is,
    *,
    empty: object = None,
    within: float = _WITHIN,
) -> tuple[T, int]:
    """And how many bytes it was."""
    raw = await _read(request, most, within)
    await _scales.weigh(request, len(raw) + count_values(raw) * _OF_A_VALUE)

    def parse() -> T:
        return shape(empty if not raw and empty is not None else json_text.read(raw, most))

    def parse_and_rest() -> T:
        try:
            return parse()
        finally:
            time.sleep(_REST)

    try:
        if len(raw) <= _SMALL:
            return parse(), len(raw)
        return await asyncio.get_running_loop().run_in_executor(_PARSER, parse_and_rest), len(raw)
    except Unread as trouble:
        status = 413 if isinstance(trouble, TooMuch) else 422 if isinstance(trouble, BadText) else 400
        raise Problem(status, str(trouble)) from None


async def read_form(request: web.Request) -> dict[str, str]:
    """As the console's own pages send it: whoever sends it in another way isn't one of them."""
    if request.body_exists and request.content_type != _FORM:
        raise Problem(415, f"a form has to be {_FORM}")
    raw = await _read(request, OF_PAGES, _WITHIN)
    try:
        fields = parse_qsl(raw.decode(), keep_blank_values=True, max_num_fields=OF_PAGES.values)
    except ValueError:
        raise Problem(400, "this form can't be read") from None
    return dict(fields)


async def _read(request: web.Request, most: Bounds, within: float) -> bytearray:
    too_large = f"the body is too large: nothing of more than {most.size / 2**20:.2g} MiB belongs here"
    if (request.content_length or 0) > most.size:
        raise Problem(413, too_large)
    raw = bytearray()
    if request.content.is_eof() and request.content.exception() is None:  # all of it has come
        while part := request.content.read_nowait():
            raw += part
        if len(raw) > most.size:
            raise Problem(413, too_large)
        return raw
    try:
        async with asyncio.timeout(within):
            async for part in request.content.iter_any():
                raw += part
                if len(raw) > most.size:
                    raise Problem(413, too_large)
                await _scales.weigh(request, len(raw))
    except TimeoutError:
        raise Problem(408, f"the body didn't come within {within:g} s; send it again") from None
    except (aiohttp.ClientError, HttpProcessingError, web.RequestPayloadError, ConnectionError):
        raise Problem(400, "the body broke off") from None
    return raw


@web.middleware
async def give_back(request: web.Request, handler: Callable[[web.Request], Any]) -> web.StreamResponse:
    """What a request held of the memory for bodies, once it is answered."""
    try:
        response: web.StreamResponse = await handler(request)
    finally:
        _scales.give_back(request)
    return response
