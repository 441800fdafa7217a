"""What every call on a DICOMweb server has in common: how we sign in, how long we wait, how a failure is
classed, and its JSON, in which any value may be missing, empty or null.

The sentences name the server as the configuration does, never an address: it may hold a patient's UIDs.
"""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import AsyncGenerator, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final

import aiohttp

from gateway import http
from gateway.contract import Failure, NeedsHuman, Permanent, Retryable
from gateway.dicom import items
from gateway.dicom.multipart import media_type_of
from gateway.dicom.outgoing import Outgoing

ACCEPT_JSON: Final = "application/dicom+json"
# Without the asterisk an archive may decompress what it holds, and no instance would be bit-identical.
ACCEPT_DICOM: Final = 'multipart/related; type="application/dicom"; transfer-syntax=*'
ACCEPT_PLAIN: Final = 'multipart/related; type="application/dicom"; transfer-syntax=1.2.840.10008.1.2.1'
READ_BUFFER: Final = 1024 * 1024

Item = items.Item

_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_LONGEST_UID = 64
_LARGEST_JSON = 32 * 1024 * 1024
_PAGE = 2000  # items, of who gives more than that at once
_MOST_PAGES = 2000
_MOST_ITEMS = 200_000
_QUICKLY_READ = 64 * 1024
_READING = ThreadPoolExecutor(1, "long-lists")  # more threads at once leave the event loop fewer turns
_ACCEPT_AS_GIVEN: Final = 'multipart/related; type="application/dicom"'  # some don't know the asterisk


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds. `read` is the longest silence, `query` the whole of a small call."""

    connect: float = 10
    read: float = 60
    query: float = 120
    least: http.LeastRate = http.LEAST_RATE

    def for_query(self) -> aiohttp.ClientTimeout:
        return aiohttp.ClientTimeout(
            total=self.query, connect=self.connect, sock_connect=self.connect, sock_read=self.read
        )

    def for_transfer(self) -> aiohttp.ClientTimeout:
        return aiohttp.ClientTimeout(
            total=None, connect=self.connect, sock_connect=self.connect, sock_read=self.read
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
    more_headers: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __repr__(self) -> str:
        return f"WebPeer({self.name})"

    def address(
        self,
        study: str | None = None,
        series: str | None = None,
        instance: str | None = None,
        *,
        below: str = "",
    ) -> str:
        """Of what the UIDs name, or of what lies below it."""
        return _write_uri(self.url.rstrip("/"), study, series, instance) + below

    def headers(self, accept: str) -> dict[str, str]:
        # Pixels hardly shrink: a server that gzips them only makes the transfer slower.
        headers = {"Accept": accept, "Accept-Encoding": "identity"}
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token}"
        elif self.username is not None:
            pair = f"{self.username}:{self.password or ''}".encode()
            headers["Authorization"] = "Basic " + base64.b64encode(pair).decode("ascii")
        return {**headers, **self.more_headers}


def require_uid(uid: str) -> str:
    """A UID stands in paths; what isn't one would ask for something else."""
    _write_uri("https://nowhere", uid)
    return uid


def _write_uri(base: str, study: str | None, series: str | None = None, instance: str | None = None) -> str:
    address = base
    for kind, uid in (("studies", study), ("series", series), ("instances", instance)):
        if uid is None:
            break
        if len(uid) > _LONGEST_UID or not _UID.fullmatch(uid):
            raise Permanent("a UID of this study is no DICOM UID", "Check where the UID comes from.")
        address += f"/{kind}/{uid}"
    return address


@asynccontextmanager
async def get(
    session: aiohttp.ClientSession,
    peer: WebPeer,
    address: str,
    accept: str,
    doing: str,
    query: Mapping[str, str] | None = None,
    *,
    welcome: tuple[int, ...] = (200, 204, 404),
) -> AsyncGenerator[aiohttp.ClientResponse, None]:
    """An answer whose status is welcome. Instances are asked for as they are stored, and of a server that
    knows no such wish, as it gives them."""
    transfer = accept in (ACCEPT_DICOM, ACCEPT_PLAIN)
    with translated(peer.name, doing):
        for wish in (ACCEPT_DICOM, _ACCEPT_AS_GIVEN) if accept == ACCEPT_DICOM else (accept,):
            async with session.get(
                address,
                params=query,
                headers=peer.headers(wish),
                timeout=peer.limits.for_transfer() if transfer else peer.limits.for_query(),
                allow_redirects=False,  # our credentials go to nobody else
                read_bufsize=READ_BUFFER,
            ) as answer:
                if answer.status == 406 and wish == ACCEPT_DICOM:
                    continue
                if answer.status == 206 and transfer:
                    raise partial(peer.name, doing)
                if answer.status not in welcome:
                    raise refusal_of(answer, peer.name, doing)
                yield answer
                return


@asynccontextmanager
async def post(
    session: aiohttp.ClientSession,
    peer: WebPeer,
    address: str,
    chunks: AsyncGenerator[bytes | memoryview, None],
    doing: str,
    headers: Mapping[str, str],
) -> AsyncGenerator[tuple[aiohttp.ClientResponse, Outgoing], None]:
    """The answer, and what became of the body: it may come before all is sent."""
    limits = peer.limits
    body = Outgoing(chunks, limits.read, f"the {peer.name}", doing, limits.least)
    try:
        with translated(peer.name, doing, writes=True):
            async with (
                asyncio.timeout(None) as body.patience,
                session.post(
                    address,
                    data=body.stream(),
                    headers={**peer.headers(ACCEPT_JSON), **headers},
                    timeout=limits.for_transfer(),
                    allow_redirects=False,
                ) as answer,
            ):
                yield answer, body
    except Failure as failure:
        raise body.trouble or failure from None
    finally:
        await body.close()


async def list_items(
    session: aiohttp.ClientSession,
    peer: WebPeer,
    address: str,
    query: Mapping[str, str],
    doing: str,
    unique: str,
    *,
    promised: int | None = None,
) -> list[Item]:
    """All that match, each once by its `unique` tag, page by page where the server caps its answers.
    `promised` spares the empty page."""
    keep = {unique, *query, *query.get("includefield", "").split(",")}
    listed: dict[str, Item] = {}
    offset = 0
    capped = False
    limit: dict[str, str] = {}
    for _ in range(_MOST_PAGES):
        # Beyond the end some answer 400; so do those that know no pages, whose first is all there is.
        welcome = (200, 204, 206, 404, *((400,) if offset else ()))
        asked = {**query, **limit, **({"offset": str(offset)} if offset else {})}
        try:
            async with get(session, peer, address, ACCEPT_JSON, doing, asked, welcome=welcome) as answer:
                found = answer.status in (200, 206)
                page = await read_items(answer, peer.name, doing, keep) if found else []
                says_capped = tells_part(answer)
        except Overlong:
            if limit:
                raise
            limit = {"limit": str(_PAGE)}
            continue
        known = len(listed)
        for item in page:
            listed.setdefault(text_of(item, unique) or "", item)
        offset += len(page)
        if len(listed) == promised:
            return list(listed.values())
        if len(listed) == known:
            if capped:
                raise partial(peer.name, doing)
            return list(listed.values())
        if len(listed) > _MOST_ITEMS:
            break
        capped = says_capped
    raise nonsense(peer.name, doing, "with pages that have no end")


def tells_part(answer: aiohttp.ClientResponse) -> bool:
    """Whether a server says that it knows more than it has answered."""
    warnings = answer.headers.getall("Warning", ())
    return answer.status == 206 or any(said.strip().startswith("299") for said in warnings)


class Partial(Retryable):
    """The server knows more than it tells."""


def partial(peer: str, doing: str) -> Partial:
    return Partial(
        f"the {peer} told only a part while {doing}, and keeps the rest to itself",
        "If this goes on, have it answer such questions whole, or page by page.",
    )


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


class Overlong(NeedsHuman):
    """An answer that may come in pages instead."""


async def read_items(
    response: aiohttp.ClientResponse, peer: str, doing: str, keep: Collection[str] | None = None
) -> list[Item]:
    """The datasets of an answer in DICOM JSON; of each what stands under the tags to keep."""
    kind = media_type_of(response.headers.get("Content-Type", ""))
    if kind not in (ACCEPT_JSON, "application/json"):
        raise nonsense(peer, doing, f"with {kind[:60] or 'no content type'} instead of DICOM JSON")
    reader, read = items.ItemReader(keep), bytearray()
    in_turn = asyncio.get_running_loop().run_in_executor
    is_large = False
    who = replace(_named(peer), refused=Overlong)
    try:
        async for part in http.parts_of(who, response, doing, _LARGEST_JSON):
            read += part
            if len(read) >= _QUICKLY_READ:
                is_large = True
                await in_turn(_READING, reader.feed, bytes(read))
                read.clear()
        reader.feed(bytes(read))
        return await in_turn(_READING, reader.finish) if is_large else reader.finish()
    except items.TooMany as error:
        raise Overlong(
            f"{who.name} answered with more than any real answer holds while {doing}: {error}",
            "Nothing of that size belongs there: its makers should know.",
        ) from None
    except items.NoItems as error:
        raise nonsense(peer, doing, f"with something that is no DICOM JSON: {error}") from None


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
