"""What the suite asks of the vendor that it is run against: a real server on loopback that speaks the
vendor's wire format, written apart from the adapter, so that a misunderstanding isn't made twice.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import aiohttp

from gateway.contract import Adapter

Step = Literal["submit", "find", "poll"]
Outcome = Literal["empty", "forbidden", "error"]


@dataclass
class Fault:
    """Done to every call of a step. `die`: after the first bytes; `hang`: no byte read, none answered;
    `lost`: all is done as asked, and the connection breaks before the answer."""

    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    die: bool = False
    hang: bool = False
    lost: bool = False
    raw: bytes | None = None


class Vendor(Protocol):
    secret: str  # the credential, which no failure may show
    complete: list[str]  # the studies that arrived whole
    digests: set[str]  # sha256 of each instance of them
    has: set[str]  # the SOP instance UIDs of all that arrived
    sendings: int  # how often a study began to arrive
    received: int  # bytes of studies read so far
    reading: asyncio.Event  # cleared: the vendor stops reading in the middle
    faults: dict[Step, Fault]

    def adapter(
        self, session: aiohttp.ClientSession, work: Path, *, patience: float = 120, most: int | None = None
    ) -> Adapter:
        """`patience`: the limits of time, in seconds; `most`: bytes of all results."""
        ...

    def finish(
        self, study: str, *, results_of: str | None = None, cut: bool = False, size: int = 3_200
    ) -> object:
        """It has one result for the study, or another's; `cut`: only the first half of its bytes."""
        ...

    def end(self, study: str, outcome: Outcome) -> None:
        """It is done, and has no result."""
        ...

    async def stop(self) -> None: ...


NONSENSE = {
    "bytes": Fault(200, {"Content-Type": "application/json"}, b"\xff\xfe{{{"),
    "deep": Fault(200, {"Content-Type": "application/json"}, b"[" * 100_000),
    "types": Fault(200, {"Content-Type": "application/json"}, b'{"status": ["?"], "StudyInstanceUID": null}'),
    "null": Fault(200, {"Content-Type": "application/json"}, b"null"),
    "html": Fault(200, {"Content-Type": "text/html"}, b"<html>Please sign in</html>"),
    "empty": Fault(200, {"Content-Type": "multipart/related"}, b""),
    "raw": Fault(raw=b"\0\1\2 this isn't HTTP\r\n\r\n"),
    "short": Fault(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{"),
    "gzip": Fault(raw=b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc"),
    "chunks": Fault(raw=b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
}
