"""Who may call: bearer tokens, known by their SHA-256 only."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence
from typing import Literal

from aiohttp import web

from gateway.intake.problems import Problem
from gateway.settings.sections import ApiToken

Role = Literal["viewer", "operator", "admin"]
_RANK: dict[str, int] = {"viewer": 0, "operator": 1, "admin": 2}


class Access:
    def __init__(self, tokens: Sequence[ApiToken]) -> None:
        self._tokens = tokens

    def require(self, request: web.Request, role: Role, *, basic: bool = False) -> str:
        """The caller's name, if the token's role reaches so far. `basic`: also as the password of Basic, for
        callers that know nothing else; whoever opens that to browsers lets other sites call with it."""
        token = _given(request, basic=basic)
        if not token:
            needed = "a token is needed: Authorization: Bearer …"
            schemes = "Bearer"
            if basic:
                needed += " (or Basic with the token as the password)"
                schemes += ', Basic realm="gateway"'
            raise Problem(401, needed, {"WWW-Authenticate": schemes})
        digest = hashlib.sha256(token.encode()).hexdigest()
        for known in self._tokens:
            if hmac.compare_digest(known.sha256.lower(), digest):
                if _RANK[known.role] < _RANK[role]:
                    raise Problem(403, f"this takes the role {role}; the token {known.name} has {known.role}")
                return known.name
        raise Problem(
            401, "this token isn't among api_tokens", {"WWW-Authenticate": 'Bearer error="invalid_token"'}
        )


def shows(request: web.Request, token: str) -> bool:
    """Whether the caller has this one token, as Bearer or as the password of Basic."""
    return hmac.compare_digest(_given(request, basic=True).encode(), token.encode())


def _given(request: web.Request, *, basic: bool) -> str:
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    if basic and scheme.lower() == "basic":
        return _password_of(given)
    return given.strip() if scheme.lower() == "bearer" else ""


def _password_of(given: str) -> str:
    try:
        return base64.b64decode(given, validate=True).decode().partition(":")[2]
    except ValueError:
        return ""
