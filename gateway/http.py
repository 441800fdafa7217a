"""Every way in which a call by HTTP fails, as one of our failures.

Who is called, and what a person can do about it, are the caller's words; which failure it is, is decided
here for all. No exception of a library, no address and nothing of an answer gets into a failure or its
causes: they may hold a credential or a patient's name.
"""

from __future__ import annotations

import asyncio
import json
import math
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp

from gateway.contract import Busy, Failure, NeedsHuman, NotLetIn, Permanent, Retryable, Unreachable, Untrusted
from gateway.json_text import count_values

_LONGEST_WAIT = 3600.0
_PROXY = "Check the `proxy` in its configuration, and that the proxy runs and takes calls of this machine."
_EXPIRED, _ANOTHERS = 10, (62, 64)  # as OpenSSL numbers them: a name, an address
_ALERTS = "ALERT_CERTIFICATE", "ALERT_BAD_CERTIFICATE", "ALERT_UNKNOWN_CA", "ALERT_ACCESS_DENIED"
_SHOW = "Set `certificate` and `key` to one of an authority that it trusts."
_SPEAK = "Check that it speaks TLS 1.2 or later at its port, and whether it asks for a `certificate` of ours."
_BUSY_FOR = 30.0  # where the peer doesn't say for how long
_SLOW_TO_PARSE = 1 << 18
_MOST_VALUES = 1_500_000


class Unanswered(Retryable):
    """The call was made and no answer came: what it asks for may still be on its way there."""


class Faltering(Retryable):
    """It answered that it is itself in trouble: 5xx."""


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
    trust: str = "Name the authority of its certificate as its `ca`, or have the certificate renewed."
    busy: str = "It is busy or broken; its own log says more."
    sure: frozenset[int] = field(default=frozenset((503,)))


@contextmanager
def translated(peer: Peer, doing: str, *, writes: bool = False) -> Iterator[None]:
    """Turn what the HTTP client raises into our failures. `writes`: the call changes something over there."""
    try:
        yield
    except aiohttp.ClientSSLError as error:  # the certificate errors too
        why, advice = distrust(error)
        raise Untrusted(f"{peer.name} can't be trusted while {doing}: {why}", advice or peer.trust) from None
    except aiohttp.ClientProxyConnectionError:
        raise Unreachable(f"the proxy to {peer.name} can't be reached while {doing}", _PROXY) from None
    except aiohttp.ClientHttpProxyError as error:
        raise _hindrance(peer, doing, error.status) from None
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
        raise Unreachable(f"{peer.name} can't be reached while {doing}", peer.reach) from None
    except TimeoutError:
        raise Unanswered(
            f"{peer.name} did not answer in time while {doing}", peer.late, uncertain=writes
        ) from None
    except aiohttp.InvalidURL:
        raise NeedsHuman(f"the url of {peer.name} is no usable address", peer.address) from None
    except (aiohttp.ClientError, OSError) as error:
        if isinstance(error.__cause__, ssl.SSLError):  # an alert, which TLS 1.3 sends after the handshake
            why, advice = distrust(error.__cause__)
            raise NotLetIn(f"{peer.name} can't be reached while {doing}: {why}", advice) from None
        broken = Unanswered(
            f"the connection to {peer.name} broke while {doing}",
            "Check the network and any proxy between the server and this machine.",
            uncertain=writes,
        )
        broken.manner = "breaks connections off"
        raise broken from None


def distrust(error: Exception) -> tuple[str, str]:
    """Why a server isn't trusted, and what to do about it; nothing, where its authority isn't known."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        error = error.certificate_error
    elif isinstance(error.__cause__, ssl.SSLError):
        error = error.__cause__
    if not isinstance(error, ssl.SSLCertVerificationError):
        if isinstance(error, ssl.SSLError) and any(word in str(error.reason) for word in _ALERTS):
            return "it wants another certificate of ours", _SHOW
        return "the TLS handshake failed", _SPEAK
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
    said: Mapping[str, Any] | None = None,
) -> Failure:
    """What an unwelcome status means. `said`: the peer's own words, if it was asked for them."""
    failure = _unwelcome(peer, response, doing, writes, said)
    failure.manner = f"answers {response.status}"
    return failure


def _unwelcome(
    peer: Peer, response: aiohttp.ClientResponse, doing: str, writes: bool, said: Mapping[str, Any] | None
) -> Failure:
    status = response.status
    where = f"{peer.name} answered {status} while {doing}"
    if status == 407:
        return _hindrance(peer, doing, status)
    if status in (401, 403):
        refused = f"{peer.name} refused our credentials ({status}) while {doing}"
        return NotLetIn(refused, peer.credentials, said=said)
    if status == 429:
        after = retry_after(response.headers.get("Retry-After"))
        return Busy(where, peer.busy, after=_BUSY_FOR if after is None else after, said=said)
    if status in (408, 425) or status >= 500:
        return Faltering(
            where,
            peer.busy,
            after=retry_after(response.headers.get("Retry-After")),
            uncertain=writes and status not in peer.sure,
            said=said,
        )
    if 300 <= status < 400:
        return NeedsHuman(
            f"{where}: it points to another address",
            "Configure the address that the server itself uses, without a redirect.",
            said=said,
        )
    if status < 300:
        return Retryable(f"{where}, which means nothing here", peer.address, uncertain=writes, said=said)
    return peer.refused(f"{where}: it refuses the request", peer.refusal, said=said)


def _hindrance(peer: Peer, doing: str, status: int) -> Failure:
    """What a proxy means that says no."""
    if status in (401, 403, 407):
        refused = f"the proxy doesn't let us through to {peer.name} ({status}) while {doing}"
        return NotLetIn(refused, "Check the user and password in its `proxy`, and what that proxy allows.")
    return Unreachable(
        f"the proxy answered {status} instead of reaching {peer.name} while {doing}", peer.reach
    )


def nonsense(peer: Peer, doing: str, what: str, *, writes: bool = False) -> Retryable:
    """An answer that no such server gives: a proxy's page, a server that is just starting."""
    strange = Retryable(f"{peer.name} answered {what} while {doing}", peer.address, uncertain=writes)
    strange.manner = f"answers {what}"
    return strange


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
    while chunk := await pace.read(next_chunk(response)):
        yield chunk


async def next_chunk(response: aiohttp.ClientResponse) -> bytes:
    """Nothing, once that was all. Chunks of HTTP may be tiny, so they are gathered; anything else is passed
    on as it came off the socket, which spares a copy of every byte."""
    if "Transfer-Encoding" in response.headers:
        return await response.content.readany()
    return (await response.content.readchunk())[0]


async def read_body(peer: Peer, response: aiohttp.ClientResponse, doing: str, most: int) -> bytes:
    """The whole answer, if it isn't larger than any sensible one."""
    return b"".join([part async for part in parts_of(peer, response, doing, most)])


async def parts_of(
    peer: Peer, response: aiohttp.ClientResponse, doing: str, most: int
) -> AsyncIterator[bytes]:
    """Of an answer as it comes, up to where it is larger than any sensible one."""
    packed = response.headers.get("Content-Encoding", "identity").lower()
    if packed != "identity":  # nobody asked for that, and it may hold anything
        raise nonsense(peer, doing, "with something packed", writes=response.method != "GET")
    size = 0
    async for part in response.content.iter_any():
        size += len(part)
        if size > most:
            raise peer.refused(
                f"{peer.name} answered with more than {most / (1 << 20):g} MiB while {doing}",
                "Nothing of that size belongs there: its makers should know.",
            )
        yield part


async def parse_json(peer: Peer, body: bytes, doing: str, *, writes: bool = False) -> Any:
    """A large one is read in a thread, so that others don't wait for it, and one whose values would take a
    hundred times its size isn't."""
    if len(body) > _SLOW_TO_PARSE and count_values(body) > _MOST_VALUES:
        raise nonsense(peer, doing, "with more values than any real answer has", writes=writes)
    try:
        return await asyncio.to_thread(json.loads, body) if len(body) > _SLOW_TO_PARSE else json.loads(body)
    except (ValueError, RecursionError):
        raise nonsense(peer, doing, "with something that isn't JSON", writes=writes) from None
