"""The doors open: who comes is given a place, and leave is taken of whoever keeps one for nothing.

Connections are accepted by ourselves, because to aiohttp they count only once their TLS handshake is over,
and because no want of file descriptors may end the accepting.
"""

from __future__ import annotations

import asyncio
import resource
import socket
import ssl
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager

import structlog
from aiohttp import web

from gateway.intake.connection import Connection, Patience
from gateway.intake.places import Guest, Places
from gateway.intake.porch import Porch
from gateway.intake.problems import answer
from gateway.intake.revolving import Revolving
from gateway.loops import Loop
from gateway.settings.certificates import RenewedContext
from gateway.settings.sections import Listen
from gateway.settings.tree import Misconfigured

log = structlog.get_logger(__name__)

_QUEUE = 512
_CONTINUE = "100-continue"
_AT_ONCE = 64  # before others get their turn
_REST = 0.5  # seconds without accepting, after trouble with it
_SHARE = 4  # of the files that may be open, one in so many for each address that we listen at
_PORCH = 4  # waiting for a place, one for so many places
_LOOKS = 1.0
_GRACE = 2.5  # seconds for requests under way when we stop, then as many again for their cleaning up


def raise_open_files() -> None:
    """To as many as this machine allows."""
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if now != most:  # a service that is confined may not even ask
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


@asynccontextmanager
async def opening(
    doors: web.Application | Revolving,
    listen: Listen,
    tls: ssl.SSLContext | None,
    patience: Patience = Patience(),  # noqa: B008
    given: Sequence[socket.socket] = (),
    place: str = "listen",
) -> AsyncIterator[int]:
    """Yields the port. `given`: sockets that listen already, instead of any of our own. `place`: where the
    configuration says so."""
    most = min(listen.connections, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // _SHARE)
    places = Places(most, listen.connections_per_address, listen.proxies)
    frame = doors.frame if isinstance(doors, Revolving) else doors
    runner = web.AppRunner(frame, access_log=None, shutdown_timeout=_GRACE, handler_cancellation=False)
    await runner.setup()
    assert runner.server is not None
    if isinstance(doors, Revolving):
        runner.server.request_handler = doors.handle
    reception = Reception(runner.server, places, most // _PORCH, tls, patience)
    with ExitStack() as opened:
        try:
            found = given or await _bind(listen.host, listen.port, place)
            listeners = [opened.enter_context(each) for each in found]
            for listener in listeners:
                listener.setblocking(False)
            with reception.receiving(listeners):
                yield listeners[0].getsockname()[1]
        finally:
            opened.close()
            await runner.cleanup()


class Reception:
    def __init__(
        self,
        server: web.Server,
        places: Places,
        porch: int,
        tls: ssl.SSLContext | None,
        patience: Patience,
    ) -> None:
        self._server = server
        self._patience = patience
        self._places = places
        self._tls = tls
        self._porch = Porch(porch, self._admit, enciphered=tls is not None)
        self._loop = asyncio.get_running_loop()
        self._arriving: set[asyncio.Task[None]] = set()
        self._open = False
        self._looked = 0.0
        handle = server.request_handler

        async def serve(request: web.BaseRequest) -> web.StreamResponse:
            if request.headers.get("Expect", _CONTINUE).lower() != _CONTINUE:  # aiohttp's refusal quotes it
                return answer(417, "the request expects what isn't done here")
            return await handle(request)

        server.request_handler = serve

    @contextmanager
    def receiving(self, listeners: list[socket.socket]) -> Iterator[None]:
        self._open = True
        self._looked = self._loop.time()
        every = min(_LOOKS, self._patience.head)
        looking = [
            asyncio.create_task(Loop("connections").run(self._look, pause=every)),
            asyncio.create_task(self._porch.run()),
        ]
        for listener in listeners:
            self._receive(listener)
        try:
            yield
        finally:
            self._open = False
            for listener in listeners:
                self._loop.remove_reader(listener)
            self._porch.close()
            for task in (*looking, *self._arriving):
                task.cancel()

    def _receive(self, listener: socket.socket) -> None:
        if self._open:
            self._loop.add_reader(listener, self._accept, listener)

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(_AT_ONCE):
            try:
                connected, address = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as trouble:
                log.error("no connection can be accepted for a moment", error=trouble.strerror)
                self._loop.remove_reader(listener)
                self._loop.call_later(_REST, self._receive, listener)
                return
            self._welcome(connected, str(address[0]))

    def _welcome(self, connected: socket.socket, address: str) -> None:
        guest = Guest(address, self._loop.time())
        if self._places.take(guest):
            self._begin(connected, guest)
        else:
            self._porch.wait(connected, address)

    def _admit(self, connected: socket.socket, address: str) -> bool:
        guest = Guest(address, self._loop.time())
        admitted = self._places.take(guest, asked=True)
        if admitted:
            self._begin(connected, guest)
        return admitted

    def _begin(self, connected: socket.socket, guest: Guest) -> None:
        connected.setblocking(False)
        task = self._loop.create_task(self._connect(connected, guest))
        guest.leave = task.cancel
        self._arriving.add(task)
        task.add_done_callback(self._arriving.discard)

    async def _connect(self, connected: socket.socket, guest: Guest) -> None:
        within = None if self._tls is None else self._patience.head
        vouchers = self._vouchers()
        try:
            await self._loop.connect_accepted_socket(
                lambda: Connection(self._server, guest, self._places, self._patience, vouchers),
                connected,
                ssl=self._tls,
                ssl_handshake_timeout=within,
            )
        except (OSError, asyncio.CancelledError):  # a TLS handshake that fails is an OSError too
            self._places.free(guest)
            connected.close()

    async def _look(self) -> None:
        before, now = self._looked, self._loop.time()
        self._looked = now
        vouchers = self._vouchers()
        for connection in self._server.connections:
            if isinstance(connection, Connection):
                connection.look(now, now - before)
                if connection.vouchers != vouchers:  # it may ask to be let in again
                    connection.end()

    def _vouchers(self) -> int:
        return self._tls.vouchers() if isinstance(self._tls, RenewedContext) else 0


async def _bind(host: str, port: int, place: str) -> list[socket.socket]:
    try:
        return await _listen(host, port)
    except OSError as error:
        raise Misconfigured([f"{place}: can't listen on {host}, port {port}: {error.strerror}"]) from None


async def _listen(host: str, port: int) -> list[socket.socket]:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    with ExitStack() as opened:
        listeners = [
            opened.enter_context(socket.create_server(address, family=family, backlog=_QUEUE))
            for family, *_, address in dict.fromkeys(found)
        ]
        opened.pop_all()
        return listeners
