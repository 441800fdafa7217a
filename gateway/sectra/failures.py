"""Every way in which a call on Sectra fails, as one of the three failures.

The sentences name the server and what was being done, never an address's path or a message's content: both
may identify a patient.
"""

from __future__ import annotations

import json
import re

import aiohttp

from gateway import http
from gateway.contract import Failure, Permanent, Retryable

_STALE = re.compile(r"version[\s_-]*id|stale|optimistic|concurren|out[\s-]of[\s-]date", re.IGNORECASE)


class VersionConflict(Retryable):
    """Somebody updated the result since it was read: read it again and repeat the update on that."""


class NotThere(Permanent):
    """What was asked for doesn't exist over there (any more)."""


def peer_at(host: str) -> http.Peer:
    return http.Peer(
        f"Sectra ({host})",
        address="Check that the callback address, and sectra.servers in the configuration, lead to the IA-API"
        " itself, not to a proxy's or login page.",
        credentials="Set username and password under sectra.servers, so that work can outlive the token of"
        " an invocation; if they are set, check them, that user's rights, and that the applicationId"
        " registered in Sectra is ours.",
        refusal="Compare the server's IA-API version with those named in the manual; its own log says why.",
    )


async def refusal(response: aiohttp.ClientResponse, host: str, doing: str, *, writes: bool) -> Failure:
    """What an unwelcome status means."""
    status = response.status
    where = f"Sectra ({host}) answered {status} while {doing}"
    if status == 404:
        return NotThere(f"{where}: it doesn't know what was asked for", "Has it been removed in Sectra?")
    if writes and await is_stale(response):
        return VersionConflict(
            f"{where}: somebody has changed it meanwhile", "Read it again and repeat the change."
        )
    return http.refusal(peer_at(host), response, doing, writes=writes)


async def is_stale(response: aiohttp.ClientResponse) -> bool:
    """Whether a change was refused since another came before it."""
    if response.status in (400, 422):
        with http.translated(peer_at(response.url.host or ""), "refusing a change", writes=True):
            return tells_staleness(response.status, await response.content.read(65536))
    return tells_staleness(response.status)


def tells_staleness(status: int, body: bytes = b"") -> bool:
    """409 and 412 say so themselves, but some servers refuse a stale version as a bad request. Those that
    list their complaints with places repeat the whole body too, where the word stands in any case: there
    only the places count."""
    if status not in (400, 422):
        return status in (409, 412)
    text = body.decode("utf-8", "replace")
    try:
        detail = json.loads(text)["detail"]
        if isinstance(detail, list):
            text = " ".join(str(complaint["loc"]) for complaint in detail)
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    return bool(_STALE.search(text))
