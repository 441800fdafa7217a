"""Who has signed in at the console: a sealed cookie says so, for as long as its token or role still holds."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from aiohttp import web

from gateway.intake.ended import EndedVisits
from gateway.intake.problems import Problem
from gateway.jobs.cipher import Cipher, Unreadable
from gateway.settings.sections import ROLES, Role, Settings

CSRF_HEADER = "X-CSRF-Token"
_ENTRY_HOLDS = 900.0  # seconds in which a sign-in is to be finished
_SAFE = ("GET", "HEAD", "OPTIONS")


@dataclass(frozen=True, slots=True)
class Visitor:
    """`csrf`: what a form or call of theirs has to repeat."""

    name: str
    role: Role
    by: Literal["token", "oidc"]
    csrf: str
    until: float

    def may(self, role: Role) -> bool:
        return ROLES.index(self.role) >= ROLES.index(role)


class Visits:
    def __init__(self, settings: Settings, keys: Sequence[str], ended: EndedVisits) -> None:
        self._settings = settings
        self._ended = ended
        self._cipher = Cipher(keys)
        self.secure = settings.listen.tls is not None or (settings.public_url or "").startswith("https://")
        prefix = "__Host-" if self.secure else ""
        self._visit, self._entry = f"{prefix}gateway-visit", f"{prefix}gateway-entry"

    # -- those who are in -----------------------------------------------------------------------------

    def begin_with_token(self, response: web.StreamResponse, sha256: str) -> None:
        self._begin(response, {"by": "token", "sha256": sha256.lower()})

    def begin_with_oidc(self, response: web.StreamResponse, name: str, groups: Sequence[str]) -> None:
        """`groups`: what the claim said that the roles are read from."""
        self._begin(response, {"by": "oidc", "name": name, "groups": list(groups)})

    async def end(self, request: web.Request, response: web.StreamResponse) -> None:
        """For whoever has a copy of the cookie too."""
        told = self._open(request, self._visit)
        if told is not None:
            await self._ended.add(_visit_of(told), told["until"])
        response.del_cookie(self._visit, path="/", secure=self.secure, httponly=True, samesite="Lax")

    def visitor(self, request: web.Request) -> Visitor | None:
        told = self._open(request, self._visit)
        if told is None or _visit_of(told) in self._ended:
            return None
        known = self._by_token(told) if told["by"] == "token" else self._by_oidc(told)
        return None if known is None else Visitor(*known, told["by"], told["csrf"], told["until"])

    def caller(self, request: web.Request) -> Visitor | None:
        """For calls of scripts: what changes something has to repeat the token in a header."""
        visitor = self.visitor(request)
        if visitor is not None and request.method not in _SAFE:
            self.require_own_page(request)
            if not _same(request.headers.get(CSRF_HEADER, ""), visitor.csrf):
                raise Problem(403, f"a call with the console's cookie needs its token as {CSRF_HEADER}")
        return visitor

    def require_own_form(self, request: web.Request, given: str, csrf: str | None) -> None:
        self.require_own_page(request)
        if csrf is None or not _same(given, csrf):
            raise Problem(403, "this form is too old, or isn't one of ours: load the page again")

    def require_own_page(self, request: web.Request) -> None:
        """What a browser says of where a call comes from; others say nothing."""
        if request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
            raise Problem(403, "another site's page made this call")
        origin = request.headers.get("Origin")
        ours = {request.host, urlsplit(self._settings.public_url or "").netloc} - {""}
        if origin is not None and origin.partition("://")[2] not in ours:
            raise Problem(403, "another site's page made this call")

    def require_window(self, request: web.Request) -> None:
        """Of a sign-in that a service takes part in: a person's window is led here and there, and no picture
        or frame of another site's page."""
        if request.headers.get("Sec-Fetch-Dest", "document") != "document":
            raise Problem(403, "another site's page made this call")

    # -- those who come in ----------------------------------------------------------------------------

    def enter(self, request: web.Request) -> dict[str, Any]:
        """What is known of a sign-in under way, or begins with this."""
        return self._open(request, self._entry) or {"csrf": secrets.token_urlsafe(24)}

    def keep_entry(self, response: web.StreamResponse, entry: Mapping[str, Any]) -> None:
        self._set(response, self._entry, dict(entry), _ENTRY_HOLDS)

    def _begin(self, response: web.StreamResponse, told: dict[str, Any]) -> None:
        told["csrf"] = secrets.token_urlsafe(24)
        self._set(response, self._visit, told, self._settings.console.signed_in_for)
        response.del_cookie(self._entry, path="/", secure=self.secure, httponly=True, samesite="Lax")

    def _by_token(self, told: Mapping[str, Any]) -> tuple[str, Role] | None:
        for token in self._settings.api_tokens:
            if token.sha256.lower() == told["sha256"]:
                return token.name, token.role
        return None

    def _by_oidc(self, told: Mapping[str, Any]) -> tuple[str, Role] | None:
        oidc = self._settings.console.oidc
        role = None if oidc is None else oidc.roles.role_of(told["groups"])
        taken = {token.name for token in self._settings.api_tokens}
        name = f"{told['name']} (oidc)" if told["name"] in taken else told["name"]
        return None if role is None else (name, role)

    def _set(self, response: web.StreamResponse, name: str, told: dict[str, Any], holds: float) -> None:
        sealed = self._cipher.encrypt({**told, "purpose": name, "until": time.time() + holds})
        assert sealed is not None
        response.set_cookie(
            name,
            sealed.decode(),
            path="/",
            max_age=int(holds),
            secure=self.secure,
            httponly=True,
            samesite="Lax",
        )

    def _open(self, request: web.Request, name: str) -> dict[str, Any] | None:
        try:
            told = self._cipher.decrypt(request.cookies.get(name, "").encode())
        except (Unreadable, ValueError):
            return None
        good = isinstance(told, dict) and told.get("purpose") == name and told["until"] > time.time()
        return told if good else None


def _visit_of(told: Mapping[str, Any]) -> str:
    """Which one it is, to whoever doesn't have it: its own token isn't kept anywhere."""
    return hashlib.sha256(told["csrf"].encode()).hexdigest()


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode(errors="replace"), wanted.encode())
