"""Every way in which a call on Sectra fails, as one of the three failures.

The sentences name the server and what was being done, never an address's path or a message's content: both
may identify a patient.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import aiohttp

from gateway.contract import Failure, NeedsHuman, Permanent, Retryable

LONGEST_WAIT = 3600.0
_STALE = re.compile(r"version[\s_-]*id|stale|optimistic|concurren|out[\s-]of[\s-]date", re.IGNORECASE)


class VersionConflict(Retryable):
    """Somebody updated the result since it was read: read it again and repeat the update on that."""


class NotThere(Permanent):
    """What was asked for doesn't exist over there (any more)."""


@contextmanager
def translated(host: str, doing: str, *, writes: bool = False) -> Iterator[None]:
    """Turn what the HTTP client raises into our failures. `writes`: the call changes something over there."""
    try:
        yield
    except aiohttp.ClientSSLError as error:  # the certificate errors too
        raise NeedsHuman(
            f"Sectra ({host}) can't be trusted while {doing}: its certificate was refused.",
            "Install the hospital's certificate authority here, or renew the server's certificate.",
        ) from error
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
        raise Retryable(
            f"Sectra ({host}) can't be reached while {doing}.",
            "Check that the server runs, and the name, port and firewall between it and this machine.",
        ) from error
    except TimeoutError as error:
        raise Retryable(
            f"Sectra ({host}) did not answer in time while {doing}.",
            "Check the load of the server and the network between it and this machine.",
            uncertain=writes,
        ) from error
    except aiohttp.InvalidURL as error:
        raise NeedsHuman(
            f"The callback address of Sectra ({host}) is no usable address.",
            "Correct sectra.servers in the configuration, or the address that Sectra sends.",
        ) from error
    except aiohttp.ClientError as error:
        raise Retryable(
            f"The connection to Sectra ({host}) broke while {doing}.",
            "Check the network and any proxy between the server and this machine.",
            uncertain=writes,
        ) from error


async def refusal(response: aiohttp.ClientResponse, host: str, doing: str, *, writes: bool) -> Failure:
    """What an unwelcome status means."""
    status = response.status
    where = f"Sectra ({host}) answered {status} while {doing}"
    if 300 <= status < 400:
        return NeedsHuman(
            f"{where}: it points to another address, and callbacks go to configured servers only.",
            "Configure the address that the server itself uses, without a redirect.",
        )
    if status == 401:
        return NeedsHuman(
            f"{where}: the token is refused.",
            "Set username and password under sectra.servers, so that work can outlive the invocation's token;"
            " if they are set, check them.",
        )
    if status == 403:
        return NeedsHuman(
            f"{where}: the token has no right to it.",
            "It may belong to another application: compare the applicationId registered in Sectra with ours,"
            " and the rights of the user.",
        )
    if status == 404:
        return NotThere(f"{where}: it doesn't know what was asked for.", "Has it been removed in Sectra?")
    if status in (409, 412) or (status in (400, 422) and writes and await _speaks_of_versions(response)):
        return VersionConflict(
            f"{where}: somebody has changed it meanwhile.", "Read it again and repeat the change."
        )
    if status == 429 or status >= 500:
        return Retryable(
            f"{where}.",
            "Sectra is busy or broken; its own log says more.",
            after=retry_after(response.headers.get("Retry-After")),
            uncertain=writes and status not in (429, 503),
        )
    if status < 300:
        return Permanent(f"{where}, which says nothing.", "Look at the slide in Sectra.")
    return Permanent(
        f"{where}: it refuses what was sent.",
        "Compare the server's IA-API version with the versions named in the manual; its own log says why.",
    )


def retry_after(text: str | None) -> float | None:
    """Seconds, or a date; nonsense is as good as nothing."""
    if not text:
        return None
    if text.strip().isdigit():
        return min(float(text), LONGEST_WAIT)
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    wait = (at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return min(max(wait, 0.0), LONGEST_WAIT)


async def _speaks_of_versions(response: aiohttp.ClientResponse) -> bool:
    """Some servers refuse a stale version as a bad request. Those that list their complaints with places
    repeat the whole body too, where the word stands in any case: there only the places count."""
    text = (await response.content.read(65536)).decode("utf-8", "replace")
    try:
        detail = json.loads(text)["detail"]
        if isinstance(detail, list):
            text = " ".join(str(complaint["loc"]) for complaint in detail)
    except (ValueError, KeyError, TypeError):
        pass
    return bool(_STALE.search(text))
