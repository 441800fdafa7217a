"""One connection to our doors: how long it may take over a head, a body, and reading our answer.

Bodies have a least rate instead of a limit, so that a large upload on a slow line arrives and a dripping one
ends. Nothing is inflated, and what isn't HTTP is refused without a word of what was sent.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import structlog
from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from gateway.intake.places import Guest, Places, Stage
from gateway.intake.problems import Problem, answer

log = structlog.get_logger(__name__)

_LEAST_RATE = 1024.0  # bytes a second of a body, while we wait for it
_IDLE = 150.0  # longer than those keep a connection who call us, so that none is closed as they use it
_LINGERS = 2.0


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds: for a TLS handshake, or a request's head; of waiting until a body's rate is judged, again and
    again; for an answer of ours that isn't read on."""

    head: float = 20.0
    body: float = 20.0
    reader: float = 120.0


class Connection(RequestHandler):
    def __init__(
        self, server: web.Server, guest: Guest, places: Places, patience: Patience, vouchers: int = 0
    ) -> None:
        """`vouchers`: who vouched for those who showed a certificate, as the connection was made."""
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            auto_decompress=False,
            keepalive_timeout=_IDLE,
            lingering_time=_LINGERS,
            access_log=None,  # type: ignore[arg-type]
        )
        self.guest = guest
        self.vouchers = vouchers
        self._places = places
        self._patience = patience
        self._head_since: float | None = guest.since
        self._received = 0  # of the body that we wait for
        self._waited = 0.0
        self._unread, self._unread_since = 0, 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.guest.leave = self._leave

    def connection_lost(self, exc: BaseException | None) -> None:
        self._places.free(self.guest)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._received += len(data)
        super().data_received(data)
        now = self._loop.time()
        if self._request_in_progress:
            self._head_since = None
            if self._awaits_body():
                if self.guest.stage is not Stage.SENDING:
                    self.guest.enter(Stage.SENDING, now)
                self.guest.received += len(data)
            elif self.guest.stage is Stage.SENDING:
                self.guest.enter(Stage.SERVED, now)
        elif not self._messages and self._head_since is None and data:
            self._head_since = now

    async def _handle_request(self, *given: Any) -> tuple[web.StreamResponse, bool]:
        self._received, self._waited = 0, 0.0
        self._head_since = None
        request: web.BaseRequest = given[0]
        ended = request.content.is_eof()
        self.guest.enter(Stage.SERVED if ended else Stage.SENDING, self._loop.time())
        try:
            return await super()._handle_request(*given)
        finally:
            self.guest.enter(Stage.IDLE, self._loop.time())

    def _awaits_body(self) -> bool:
        return self._current_request is not None and not self._current_request.content.is_eof()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What aiohttp itself would say quotes the sender."""
        del request, message
        if status < 500:
            refused = answer(status, "this isn't HTTP/1.1 as it is spoken here")
        else:
            log.error("a request broke outside of every door", error=type(exc).__name__)
            refused = answer(status, "an error in the gateway itself; its log says more")
        refused.force_close()
        return refused

    def end(self) -> None:
        """Now, or once the request under way is answered."""
        if self._waiter is None:
            self.close()
        else:
            self.force_close()

    def look(self, now: float, since: float) -> None:
        """Called again and again: `since` seconds have passed since the last time."""
        if self._awaits_body():
            self._judge_body(now, since)
        elif self._head_since is not None and now - self._head_since > self._patience.head:
            self._leave()
        self._judge_reader(now)

    def _judge_body(self, now: float, since: float) -> None:
        if self._reading_paused:  # it is we who are slow
            self.guest.enter(Stage.SERVED, now)
            return
        self._waited += since
        if self._waited < self._patience.body:
            return
        if self._received < _LEAST_RATE * self._waited:
            assert self._current_request is not None
            slow = f"the body comes too slowly: {self._received} B in {self._waited:.0f} s"
            self.close()
            self._current_request.content.set_exception(Problem(408, slow))
            self._current_request.content.feed_eof()
        self._received, self._waited = 0, 0.0

    def _judge_reader(self, now: float) -> None:
        unread = 0 if self.transport is None else self.transport.get_write_buffer_size()
        if unread == 0 or unread < self._unread:
            self._unread_since = now
        elif now - self._unread_since > self._patience.reader:
            self._leave()
        self._unread = unread

    def _leave(self) -> None:
        if self.transport is not None:
            self.transport.abort()
