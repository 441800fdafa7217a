"""How each peer is reached by HTTP: through which proxy, trusting whom, and showing which certificate; and
that whom a peer names isn't reached where that is none of its business."""

from __future__ import annotations

import ipaddress
import socket
import ssl
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import partial
from types import SimpleNamespace, TracebackType
from typing import TYPE_CHECKING, Any, Self

import aiohttp
from aiohttp.client_proto import ResponseHandler
from yarl import URL

from gateway import spans, traffic
from gateway.settings.certificates import calling
from gateway.settings.sections import ByHttp, Settings, Trust

if TYPE_CHECKING:
    from aiohttp import ClientRequest
    from aiohttp.abc import ResolveResult
    from aiohttp.client import ClientTimeout
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace

_UNSENT = 1 << 17
_EMBEDDING = ipaddress.ip_network("64:ff9b::/96")  # IPv4 behind a translator
_WORLDWIDE = ipaddress.ip_network("2000::/3")  # of IPv6; Python takes for global what is only unassigned

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class PrivateAddress(Exception):
    """A name leads into a network that is nobody else's business."""


_besides: ContextVar[tuple[Network, ...] | None] = ContextVar("besides", default=None)


@contextmanager
def abroad(besides: Iterable[Network]) -> Iterator[None]:
    """Within it a call reaches public addresses alone, and such of these networks, whatever a name service
    says; through a proxy it is the proxy that resolves names. PrivateAddress, if there is none."""
    mark = _besides.set(tuple(besides))
    try:
        yield
    finally:
        _besides.reset(mark)


def is_public(address: str, besides: Iterable[Network] = ()) -> bool:
    """An address within another counts as that other."""
    found: ipaddress.IPv4Address | ipaddress.IPv6Address = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        within = found.ipv4_mapped or found.sixtofour
        if found in _EMBEDDING:
            within = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        found = within or found
    if any(found in network for network in besides):
        return True
    if found.version == 6 and found not in _WORLDWIDE:
        return False
    return found.is_global and not found.is_multicast


class _Counted(ResponseHandler):
    """Whatever comes in is counted, also what nobody reads any more."""

    peer = traffic.OTHERS

    def data_received(self, data: bytes) -> None:
        traffic.count(traffic.received, self.peer, len(data))
        super().data_received(data)


class Connections(aiohttp.TCPConnector):
    """Their writing tells how fast the line is: without a bound, megabytes would wait in the kernel, and a
    slow line that still sends them look silent. Remembers until when the certificates hold that were shown.

    `named`: the configuration names an authority or a certificate for them."""

    def __init__(
        self, tls: ssl.SSLContext, peers: Mapping[URL, str] | None = None, *, named: bool = False
    ) -> None:
        super().__init__(limit=0, limit_per_host=0, socket_factory=_open_socket, ssl=tls)
        self._factory = partial(_Counted, loop=self._loop)  # type: ignore[assignment]
        self.tls = tls
        self.named = named
        self._peers = peers or {}
        self._expiries: dict[URL, datetime] = {}

    async def connect(self, req: ClientRequest, traces: list[Trace], timeout: ClientTimeout) -> Connection:
        besides = _besides.get()
        if besides is not None and req.proxy is not None:
            with _anywhere():
                return await self.connect(req, traces, timeout)
        connection = await super().connect(req, traces, timeout)
        peer = connection.transport.get_extra_info("peername") if connection.transport else None
        if besides is not None and peer and not is_public(str(peer[0]), besides):  # it was open already
            connection.release()
            raise PrivateAddress
        if isinstance(connection.protocol, _Counted):
            connection.protocol.peer = self.peer_at(req.url)
        shown = connection.transport.get_extra_info("peercert") if connection.transport else None
        if shown:
            self._expiries[req.url.origin()] = expiry_in(shown)
        return connection

    async def _resolve_host(
        self, host: str, port: int, traces: Sequence[Trace] | None = None
    ) -> list[ResolveResult]:
        found = await super()._resolve_host(host, port, traces)
        besides = _besides.get()
        if besides is not None:
            found = [each for each in found if is_public(each["host"], besides)]
            if not found:
                raise PrivateAddress
        return found

    def expiry_at(self, url: str) -> datetime | None:
        return self._expiries.get(URL(url).origin())

    def peer_at(self, url: URL) -> str:
        return self._peers.get(url.origin(), traffic.OTHERS)


class Sessions:
    """All that share the machine's authorities and no proxy share a session."""

    def __init__(self, settings: Settings | None = None) -> None:
        self._stack = AsyncExitStack()
        self._peers = {} if settings is None else dict(_peers_of(settings))
        self._traced = settings is not None and settings.traces is not None
        self.shared = self._open(calling("certificates", Trust()))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def to(self, place: str, reached: ByHttp) -> aiohttp.ClientSession:
        """`place`: where the configuration says how."""
        if not reached.is_special:
            return self.shared
        proxy = reached.proxy.get_secret_value() if reached.proxy else None
        return self._open(calling(place, reached), proxy, named=reached.names_trust)

    def _open(
        self, tls: ssl.SSLContext, proxy: str | None = None, *, named: bool = False
    ) -> aiohttp.ClientSession:
        session = open_session(tls, proxy, self._peers, named=named, traced=self._traced)
        self._stack.push_async_callback(session.close)
        return session


def open_session(
    tls: ssl.SSLContext,
    proxy: str | None = None,
    peers: Mapping[URL, str] | None = None,
    *,
    named: bool = False,
    traced: bool = False,
) -> aiohttp.ClientSession:
    """`peers`: how the configuration names whom, by its origin. `traced`: each call is a span of its step."""
    connector = Connections(tls, peers, named=named)

    async def count_sent(_: object, __: object, chunk: aiohttp.TraceRequestChunkSentParams) -> None:
        traffic.count(traffic.sent, connector.peer_at(chunk.url), len(chunk.chunk))

    counting = aiohttp.TraceConfig()
    counting.on_request_chunk_sent.append(count_sent)
    if traced:
        _trace(counting, connector)
    return aiohttp.ClientSession(
        connector=connector,
        trace_configs=[counting],
        cookie_jar=aiohttp.DummyCookieJar(),
        read_bufsize=2**20,
        proxy=proxy,
        auto_decompress=False,  # nobody is asked to pack: what comes packed anyhow may hold anything
    )


def _trace(config: aiohttp.TraceConfig, connector: Connections) -> None:
    async def begin(_: object, call: SimpleNamespace, started: aiohttp.TraceRequestStartParams) -> None:
        peer = connector.peer_at(started.url)
        said = {"http.request.method": started.method, "peer.service": peer}
        call.span = spans.begin_call(f"{started.method} {peer}", said)

    async def end(_: object, call: SimpleNamespace, ended: aiohttp.TraceRequestEndParams) -> None:
        status = ended.response.status
        failed = str(status) if status >= 400 else ""
        spans.end_call(call.span, failed, **{"http.response.status_code": status})

    async def fail(_: object, call: SimpleNamespace, broken: aiohttp.TraceRequestExceptionParams) -> None:
        spans.end_call(call.span, type(broken.exception).__name__)

    config.on_request_start.append(begin)
    config.on_request_end.append(end)
    config.on_request_exception.append(fail)


def _peers_of(settings: Settings) -> Iterator[tuple[URL, str]]:
    """By origin; where several are at one, the first has what passes."""
    for kind in ("adapters", "archives"):
        for name, part in getattr(settings, kind).items():
            url = part.options.get("url") if kind == "adapters" else getattr(part, "url", None)
            if isinstance(url, str) and url.startswith(("http://", "https://")):
                yield URL(url).origin(), f"{kind}.{name}"
    for name, server in settings.sectra.servers.items():
        for url in server.callback_urls:
            yield URL(url).origin(), f"sectra.{name}"


@contextmanager
def _anywhere() -> Iterator[None]:
    mark = _besides.set(None)
    try:
        yield
    finally:
        _besides.reset(mark)


def expiry_in(shown: Any) -> datetime:
    """Of a certificate as the ssl module tells it."""
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(shown["notAfter"]), UTC)


def _open_socket(address: tuple[Any, ...]) -> socket.socket:
    family, kind, protocol, *_ = address
    opened = socket.socket(family, kind, protocol)
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT)
    return opened
