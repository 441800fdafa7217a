"""Every way in which a call by HTTP fails, as one of our failures.

Who is called, and what a person can do about it, are the caller's words; which failure it is, is decided
here for all. No exception of a library, no address and nothing of an answer gets into a failure or its
causes: they may hold a credential or a patient's name.
"""

from __future__ import annotations

import asyncio
import json
import math
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp

from gateway.contract import Busy, Failure, NeedsHuman, NotLetIn, Permanent, Retryable, Unreachable

_LONGEST_WAIT = 3600.0
_EXPIRED, _ANOTHERS = 10, (62, 64)  # as OpenSSL numbers them: a name, an address
_BUSY_FOR = 30.0  # where the peer doesn't say for how long
_SLOW_TO_PARSE = 1 << 20
_UNSENT = 1 << 17


class Unanswered(Retryable):
    """The call was made and no answer came: what it asks for may still be on its way there."""


def connector() -> aiohttp.TCPConnector:
    """Connections whose writing tells how fast the line is: without a bound, megabytes would wait in the
    kernel, and a slow line that still sends them look silent."""

    def open_socket(address: tuple[Any, ...]) -> socket.socket:
        family, kind, protocol, *_ = address
        opened = socket.socket(family, kind, protocol)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT)
        return opened

    return aiohttp.TCPConnector(limit=0, limit_per_host=0, socket_factory=open_socket)


@dataclass(frozen=True, slots=True)
class Peer:
    """Whom we call: how a sentence names it, and the advice that goes with each of its failures.

    `refused`: the failure when it understands us and says no. `sure`: by these it also says that it has done
    nothing of what was asked."""

    name: str
    address: str  # advice when its address is no usable one, or something else answers there
    credentials: str
    refusal: str = "Its own log says why."
    refused: type[Failure] = Permanent
    reach: str = "Check that the server runs, and the name, port and firewall between it and this machine."
    late: str = "Check the load of the server and the network between it and this machine."
    trust: str = "Install the authority of its certificate here, or have the certificate renewed."
    busy: str = "It is busy or broken; its own log says more."
    sure: frozenset[int] = field(default=frozenset((503,)))


@contextmanager
def translated(peer: Peer, doing: str, *, writes: bool = False) -> Iterator[None]:
    """Turn what the HTTP client raises into our failures. `writes`: the call changes something over there."""
    try:
        yield
    except aiohttp.ClientSSLError as error:  # the certificate errors too
        why, advice = distrust(error)
        raise NotLetIn(f"{peer.name} can't be trusted while {doing}: {why}", advice or peer.trust) from None
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
        raise Unreachable(f"{peer.name} can't be reached while {doing}", peer.reach) from None
    except TimeoutError:
        raise Unanswered(
            f"{peer.name} did not answer in time while {doing}", peer.late, uncertain=writes
        ) from None
    except aiohttp.InvalidURL:
        raise NeedsHuman(f"the url of {peer.name} is no usable address", peer.address) from None
    except (aiohttp.ClientError, OSError):
        raise Unanswered(
            f"the connection to {peer.name} broke while {doing}",
            "Check the network and any proxy between the server and this machine.",
            uncertain=writes,
        ) from None


def distrust(error: Exception) -> tuple[str, str]:
    """Why a server isn't trusted, and what to do about it; nothing, where its authority isn't known."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        error = error.certificate_error
    if not isinstance(error, ssl.SSLCertVerificationError):
        return "the TLS handshake failed", "Check that it speaks TLS at its port, and in which versions."
    if error.verify_code == _EXPIRED:
        return "its certificate has expired", "Have it renewed, and check this machine's clock."
    if error.verify_code in _ANOTHERS:
        return "its certificate is another host's", "Configure the name that its certificate is for."
    return "its certificate is of an authority that isn't known here", ""


def refusal(
    peer: Peer,
    response: aiohttp.ClientResponse,
    doing: str,
    *,
    writes: bool = False,
    detail: Mapping[str, Any] | None = None,
) -> Failure:
    """What an unwelcome status means."""
    status = response.status
    where = f"{peer.name} answered {status} while {doing}"
    if status in (401, 403, 407):
        refused = f"{peer.name} refused our credentials ({status}) while {doing}"
        return NotLetIn(refused, peer.credentials, detail=detail)
    if status == 429:
        after = retry_after(response.headers.get("Retry-After"))
        return Busy(where, peer.busy, after=_BUSY_FOR if after is None else after, detail=detail)
    if status in (408, 425) or status >= 500:
        return Retryable(
            where,
            peer.busy,
            after=retry_after(response.headers.get("Retry-After")),
            uncertain=writes and status not in peer.sure,
            detail=detail,
        )
    if 300 <= status < 400:
        return NeedsHuman(
            f"{where}: it points to another address",
            "Configure the address that the server itself uses, without a redirect.",
            detail=detail,
        )
    if status < 300:
        return Retryable(f"{where}, which means nothing here", peer.address, uncertain=writes, detail=detail)
    return peer.refused(f"{where}: it refuses the request", peer.refusal, detail=detail)


def nonsense(peer: Peer, doing: str, what: str, *, writes: bool = False) -> Retryable:
    """An answer that no such server gives: a proxy's page, a server that is just starting."""
    return Retryable(f"{peer.name} answered {what} while {doing}", peer.address, uncertain=writes)


def retry_after(text: str | None) -> float | None:
    """Seconds, or a date; nonsense is as good as nothing."""
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        try:
            at = parsedate_to_datetime(text)
        except ValueError:
            return None
        seconds = (at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return min(max(seconds, 0.0), _LONGEST_WAIT) if math.isfinite(seconds) else None


@dataclass(frozen=True, slots=True)
class LeastRate:
    """What a transfer must carry while we wait for the other side: it may take as long as it needs, but a
    stalled or dripping one ends. `over`: seconds of waiting after which that is judged, again and again."""

    bytes_a_second: float = 1024.0
    over: float = 60.0


LEAST_RATE = LeastRate()


class Pace:
    """Of one transfer. How long our own side takes doesn't count."""

    def __init__(self, peer: str, doing: str, least: LeastRate, *, writes: bool = False) -> None:
        self._peer, self._doing, self._least, self._writes = peer, doing, least, writes
        self._waited = 0.0
        self._carried = 0

    async def read(self, chunk: Awaitable[bytes]) -> bytes:
        began = time.monotonic()
        data = await chunk
        self.count(len(data), time.monotonic() - began)
        return data

    def count(self, size: int, seconds: float) -> None:
        self._carried += size
        self._waited += seconds
        if self._waited < self._least.over:
            return
        if self._carried < self._least.bytes_a_second * self._waited:
            raise Unanswered(
                f"{self._peer} is too slow while {self._doing}: {self._carried} B in {self._waited:.0f} s",
                "Check the network and any proxy between the server and this machine.",
                uncertain=self._writes,
            )
        self._waited, self._carried = 0.0, 0


async def chunks_of(response: aiohttp.ClientResponse, pace: Pace) -> AsyncIterator[bytes]:
    while chunk := await pace.read(response.content.readany()):
        yield chunk


async def read_body(peer: Peer, response: aiohttp.ClientResponse, doing: str, most: int) -> bytes:
    """The whole answer, if it isn't larger than any sensible one."""
    parts: list[bytes] = []
    size = 0
    async for part in response.content.iter_any():
        parts.append(part)
        size += len(part)
        if size > most:
            raise peer.refused(
                f"{peer.name} answered with more than {most / (1 << 20):g} MiB while {doing}",
                "Nothing of that size belongs there: its makers should know.",
            )
    return b"".join(parts)


async def parse_json(peer: Peer, body: bytes, doing: str, *, writes: bool = False) -> Any:
    """A large one is read in a thread, so that others don't wait for it."""
    try:
        return await asyncio.to_thread(json.loads, body) if len(body) > _SLOW_TO_PARSE else json.loads(body)
    except (ValueError, RecursionError):
        raise nonsense(peer, doing, "with something that isn't JSON", writes=writes) from None
