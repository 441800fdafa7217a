"""Who may call: bearer tokens, known by their SHA-256 only, and those who have signed in at the console."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence

from aiohttp import web

from gateway.intake.problems import Problem, WrongToken
from gateway.intake.visits import Visits
from gateway.settings.sections import ROLES, ApiToken, Role

RIGHT = web.RequestKey("right", bool)  # what the caller showed was looked at, and lets in somebody


class Access:
    def __init__(self, tokens: Sequence[ApiToken], visits: Visits | None = None) -> None:
        self._tokens = tokens
        self._visits = visits

    def require(self, request: web.Request, role: Role, *, basic: bool = False) -> str:
        """The caller's name, if the token's role reaches so far. `basic`: also as the password of Basic, for
        callers that know nothing else; whoever opens that to browsers lets other sites call with it."""
        token = _given(request, basic=basic)
        visitor = None if token or basic or self._visits is None else self._visits.caller(request)
        if visitor is not None:
            if not visitor.may(role):
                raise Problem(403, f"this takes the role {role}; you have signed in as {visitor.role}")
            return visitor.name
        if not token:
            needed = "a token is needed: Authorization: Bearer …"
            schemes = "Bearer"
            if basic:
                needed += " (or Basic with the token as the password)"
                schemes += ', Basic realm="gateway"'
            raise Problem(401, needed, {"WWW-Authenticate": schemes})
        known = self._require_known(request, token)
        if ROLES.index(known.role) < ROLES.index(role):
            raise Problem(403, f"this takes the role {role}; the token {known.name} has {known.role}")
        return known.name

    def bearer(self, request: web.Request) -> ApiToken | None:
        """The token that is shown; none if none is."""
        token = _given(request, basic=False)
        return self._require_known(request, token) if token else None

    def _require_known(self, request: web.Request, token: bytes) -> ApiToken:
        known = self.known(token)
        if known is None:
            raise WrongToken(
                401, "this token isn't among api_tokens", {"WWW-Authenticate": 'Bearer error="invalid_token"'}
            )
        request[RIGHT] = True
        return known

    def known(self, token: bytes) -> ApiToken | None:
        digest = hashlib.sha256(token).hexdigest()
        for known in self._tokens:
            if hmac.compare_digest(known.sha256.lower(), digest):
                return known
        return None

    def allows(self, request: web.Request, role: Role) -> bool:
        """Of one who has been let in already: whether the role reaches further."""
        try:
            self.require(request, role)
        except Problem:
            return False
        return True


def shows(request: web.Request, token: str) -> bool:
    """Whether the caller has this one token, as Bearer or as the password of Basic."""
    request[RIGHT] = hmac.compare_digest(_given(request, basic=True), token.encode())
    return request[RIGHT]


def _given(request: web.Request, *, basic: bool) -> bytes:
    """As bytes: what isn't text is no token of ours, and no trouble either."""
    said = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
    scheme, _, given = said.partition(b" ")
    if basic and scheme.lower() == b"basic":
        return _password_of(given)
    return given.strip() if scheme.lower() == b"bearer" else b""


def _password_of(given: bytes) -> bytes:
    try:
        return base64.b64decode(given, validate=True).partition(b":")[2]
    except ValueError:
        return b""
