"""Where the token of a call comes from, and where the next one does when it dies.

An invocation brings a token, which lives shorter than the work may take; the hospital can give us a user of
our own for what comes after. What comes first is that Sectra has let the token in.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote

import aiohttp
from yarl import URL

from gateway import http
from gateway.contract import NeedsHuman, Retryable
from gateway.sectra.failures import peer_at, refusal

_ANSWER_LIMIT = 1 << 20


class TokenSource(Protocol):
    """`renewals`: how often a call that was refused with 401 or 403 may come back for another token."""

    @property
    def renewals(self) -> int: ...

    async def token(self) -> str: ...

    async def renew(self, refused: str) -> str | None:
        """A token in place of a refused one; None when there is no other."""
        ...


@dataclass(frozen=True, slots=True)
class FixedToken:
    """The one token there is."""

    value: str
    renewals = 0

    async def token(self) -> str:
        return self.value

    async def renew(self, refused: str) -> str | None:  # noqa: ARG002
        return None

    def __repr__(self) -> str:
        return "FixedToken()"


class InvocationToken:
    """The invocation's token while it lives, then those of our own user."""

    def __init__(self, value: str, then: TokenSource) -> None:
        self._value: str | None = value
        self._then = then

    @property
    def renewals(self) -> int:
        return 1 + self._then.renewals

    async def token(self) -> str:
        return self._value or await self._then.token()

    async def renew(self, refused: str) -> str | None:
        if self._value is None:
            return await self._then.renew(refused)
        self._value = None
        return await self._then.token()


class ClientCredentials:
    """Tokens of our own user. Share one among all calls for the same server and application: a dead token
    is then replaced once, however many calls notice at the same time."""

    renewals = 1

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        application_id: str,
        username: str,
        password: str,
        *,
        timeout: aiohttp.ClientTimeout | None = None,
    ) -> None:
        self._session = session
        self._url = URL(
            f"{url.rstrip('/')}/token?applicationId={quote(application_id, safe='')}", encoded=True
        )
        self._user = base64.b64encode(f"{username}:{password}".encode()).decode()
        self._timeout = timeout or aiohttp.ClientTimeout(total=60, sock_connect=10, sock_read=30)
        self._value: str | None = None
        self._dies = 0.0
        self._asking: asyncio.Task[str] | None = None

    async def token(self) -> str:
        if self._value is not None and time.monotonic() < self._dies:
            return self._value
        return await self._ask()

    async def renew(self, refused: str) -> str | None:
        if self._value == refused:
            self._value = None
        return await self.token()

    async def _ask(self) -> str:
        """All who wait share one request, and its failure; none of them ends it by going away."""
        if self._asking is None:
            self._asking = asyncio.create_task(self._fetch())
            self._asking.add_done_callback(self._asked)
        return await asyncio.shield(self._asking)

    def _asked(self, task: asyncio.Task[str]) -> None:
        self._asking = None
        if not task.cancelled():
            task.exception()  # seen, even when nobody waits any more

    async def _fetch(self) -> str:
        host = self._url.host or ""
        doing = "asking for a token of our own"
        asked = time.monotonic()
        with http.translated(peer_at(host), doing):
            async with self._session.post(
                self._url,
                data={"grant_type": "client_credentials"},
                headers={"Authorization": f"Basic {self._user}"},
                allow_redirects=False,
                timeout=self._timeout,
            ) as response:
                if response.status in (400, 401, 403):
                    raise NeedsHuman(
                        f"Sectra ({host}) answered {response.status} while {doing}",
                        "Check username and password under sectra.servers, and that the user may act for the"
                        " application.",
                    )
                if response.status not in (200, 201):
                    raise await refusal(response, host, doing, writes=False)
                value, lives = _read(await response.content.read(_ANSWER_LIMIT), host)
        self._value = value
        self._dies = asked + lives - min(60.0, lives / 2)
        return value


def _read(body: bytes, host: str) -> tuple[str, float]:
    try:
        answer: Any = json.loads(body)
        fields = {str(name).replace("_", "").lower(): value for name, value in answer.items()}
        value = fields["accesstoken"]
        lives = float(fields.get("expiresin") or 300)
    except (ValueError, KeyError, TypeError, AttributeError):
        value, lives = None, 0.0
    if not isinstance(value, str) or not value or any(mark in value for mark in "\r\n\0"):
        raise Retryable(
            f"Sectra ({host}) answered without a token while asking for a token of our own",
            "Check that the configured address is the IA-API of the server, not a login page.",
        )
    return value, lives
