"""One call on Sectra: headers, token, limits, failures."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import aiohttp
from yarl import URL

from gateway import http
from gateway.contract import NeedsHuman, Permanent
from gateway.sectra.failures import peer_at, refusal
from gateway.sectra.tokens import TokenSource
from gateway.settings.addresses import leads_astray


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds and bytes. `read` is the longest silence; a slide's files may take their time at no less than
    `least`, any other call has its `total`."""

    connect: float = 10.0
    read: float = 60.0
    total: float = 120.0
    least: http.LeastRate = http.LEAST_RATE
    json_bytes: int = 64 << 20
    image_bytes: int = 32 << 20
    slide_bytes: int = 1 << 40
    slide_files: int = 10_000


class Caller:
    """Calls below one callback address. It never follows a redirect: the token is for this server only."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        token: TokenSource,
        headers: Mapping[str, str],
        limits: Limits,
        step_back: Callable[[], Awaitable[bool]] | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self.host = _host_of(self.url)
        self.peer = peer_at(self.host)
        self.limits = limits
        self._session = session
        self._token = token
        self.headers = dict(headers)
        self._step_back = step_back

    @asynccontextmanager
    async def open(
        self,
        method: str,
        path: str,
        doing: str,
        *,
        query: Mapping[str, str] | None = None,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        welcome: tuple[int, ...] = (200,),
        transfer: bool = False,
        negotiable: bool = True,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer, if its status is welcome. A refused token is replaced and the call repeated, and so is
        one that an older server refuses for speaking a version younger than its own."""
        writes = method != "GET"
        data = None if body is None else json.dumps(body, allow_nan=False).encode()
        url = URL(self.url + path, encoded=True).update_query(query or {})
        token = await self._token.token()
        spare = self._token.renewals
        while True:
            sent = {**self.headers, **(headers or {}), "Authorization": f"Bearer {token}"}
            if data is not None:
                sent["Content-Type"] = "application/json"
            with http.translated(self.peer, doing, writes=writes):
                async with self._session.request(
                    method,
                    url,
                    data=data,
                    headers=sent,
                    allow_redirects=False,
                    timeout=self._timeout(transfer),
                    read_bufsize=1 << 20,
                ) as response:
                    status = response.status
                    if status in (401, 403) and spare:
                        spare -= 1
                        renewed = await self._token.renew(token)
                        if renewed is not None:
                            token = renewed
                            continue
                    if status in welcome:
                        yield response
                        return
                    failure = await refusal(response, self.host, doing, writes=writes)
            if status == 400 and negotiable and self._step_back and await self._step_back():
                negotiable = False
                continue
            raise failure

    async def read(
        self, path: str, doing: str, query: Mapping[str, str] | None = None, *, negotiable: bool = True
    ) -> Any:
        """The JSON at a place."""
        async with self.open("GET", path, doing, query=query, negotiable=negotiable) as response:
            return await self.json_of(response, doing)

    async def json_of(self, response: aiohttp.ClientResponse, doing: str) -> Any:
        body = await self.bytes_of(response, self.limits.json_bytes, doing)
        return await http.parse_json(self.peer, body, doing, writes=response.method != "GET")

    async def bytes_of(self, response: aiohttp.ClientResponse, limit: int, doing: str) -> bytes:
        return await http.read_body(self.peer, response, doing, limit)

    def chunks_of(self, response: aiohttp.ClientResponse, doing: str) -> AsyncIterator[bytes]:
        return http.chunks_of(response, http.Pace(self.peer.name, doing, self.limits.least))

    def _timeout(self, transfer: bool) -> aiohttp.ClientTimeout:
        limits = self.limits
        return aiohttp.ClientTimeout(
            total=None if transfer else limits.total,
            connect=limits.total,
            sock_connect=limits.connect,
            sock_read=limits.read,
        )


def _host_of(url: str) -> str:
    try:
        host = URL(url, encoded=True).host
    except ValueError:
        host = None
    if not host:
        raise NeedsHuman(
            "the callback address of Sectra is no usable address",
            "Correct sectra.servers in the configuration, or the address that Sectra sends.",
        )
    return host


def segment(name: str | int) -> str:
    """A name as one step of a path, whatever is in it."""
    text = str(name)
    if not text or leads_astray(text):
        raise Permanent("Sectra named a slide or application that is no usable name", "Look at it in Sectra.")
    return quote(text, safe="")
