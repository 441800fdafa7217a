"""What every call on a DICOMweb server has in common: how we sign in, how long we wait, how a failure is
classed, and its JSON, in which any value may be missing, empty or null.

The sentences name the server as the configuration does, never an address: it may hold a patient's UIDs.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final

import aiohttp

from gateway import http
from gateway.contract import Failure, NeedsHuman, Permanent, Retryable
from gateway.dicom.multipart import media_type_of

ACCEPT_JSON: Final = "application/dicom+json"
# Without the asterisk an archive may decompress what it holds, and no instance would be bit-identical.
ACCEPT_DICOM: Final = 'multipart/related; type="application/dicom"; transfer-syntax=*'
READ_BUFFER: Final = 1024 * 1024

_LARGEST_JSON = 256 * 1024 * 1024
_UID = re.compile(r"[0-9.]{1,64}")

Item = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds. `transfer` is for a whole study, however slowly the other side takes it."""

    connect: float = 10
    read: float = 60
    query: float = 120
    transfer: float = 6 * 3600

    def for_query(self) -> aiohttp.ClientTimeout:
        return aiohttp.ClientTimeout(
            total=self.query, connect=self.connect, sock_connect=self.connect, sock_read=self.read
        )

    def for_transfer(self) -> aiohttp.ClientTimeout:
        return aiohttp.ClientTimeout(
            total=self.transfer, connect=self.connect, sock_connect=self.connect, sock_read=self.read
        )


@dataclass(frozen=True, slots=True)
class WebPeer:
    """A DICOMweb server as the configuration names it: `name` is "archive vna"."""

    name: str
    url: str
    username: str | None = None
    password: str | None = None
    token: str | None = None
    limits: Limits = Limits()

    def __repr__(self) -> str:
        return f"WebPeer({self.name})"

    def address(self, path: str) -> str:
        return f"{self.url.rstrip('/')}/{path}"

    def headers(self, accept: str) -> dict[str, str]:
        # Pixels hardly shrink: a server that gzips them only makes the transfer slower.
        headers = {"Accept": accept, "Accept-Encoding": "identity"}
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token}"
        elif self.username is not None:
            pair = f"{self.username}:{self.password or ''}".encode()
            headers["Authorization"] = "Basic " + base64.b64encode(pair).decode("ascii")
        return headers


def require_uid(uid: str) -> str:
    """A UID stands in paths; what isn't one would ask for something else."""
    if not _UID.fullmatch(uid) or ".." in uid:
        raise Permanent("a UID of this study is no DICOM UID", "Check where the UID comes from.")
    return uid


def translated(peer: str, doing: str, *, writes: bool = False) -> AbstractContextManager[None]:
    """Turn what the HTTP client raises into our failures. `writes`: the call changes something over there."""
    return http.translated(_named(peer), doing, writes=writes)


def refusal_of(response: aiohttp.ClientResponse, peer: str, doing: str, *, writes: bool = False) -> Failure:
    """What an unwelcome status means."""
    return http.refusal(_named(peer), response, doing, writes=writes)


def nonsense(peer: str, doing: str, what: str) -> Retryable:
    """An answer that no DICOMweb server gives: a proxy's page, a server that is just starting."""
    return http.nonsense(_named(peer), doing, what)


def _named(name: str) -> http.Peer:
    return http.Peer(
        f"the {name}",
        address="Check that its url in the configuration is that of DICOMweb, and what a proxy in between"
        " answers.",
        credentials="Check its username and password, or its token, in the configuration, and that account's"
        " rights.",
        refusal="Check that its url in the configuration is that of DICOMweb; the server's own log says why.",
        refused=NeedsHuman,
    )


async def read_items(response: aiohttp.ClientResponse, peer: str, doing: str) -> list[Item]:
    """The datasets of an answer in DICOM JSON."""
    kind = media_type_of(response.headers.get("Content-Type", ""))
    if kind not in (ACCEPT_JSON, "application/json"):
        raise nonsense(peer, doing, f"with {kind[:60] or 'no content type'} instead of DICOM JSON")
    asked = _named(peer)
    body = await http.read_body(asked, response, doing, _LARGEST_JSON)
    items = await http.parse_json(asked, body, doing) if body.strip() else []
    if isinstance(items, dict):
        items = [items]
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise nonsense(peer, doing, "with JSON that is no DICOM")
    return items


def values_of(item: Item, tag: str) -> list[Any]:
    element = item.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return [value for value in values if value not in (None, "")] if isinstance(values, list) else []


def text_of(item: Item, tag: str) -> str | None:
    values = values_of(item, tag)
    return (str(values[0]).strip(" \0") or None) if values else None


def number_of(item: Item, tag: str) -> int | None:
    text = text_of(item, tag)
    try:
        return int(float(text)) if text else None
    except (ValueError, OverflowError):
        return None
