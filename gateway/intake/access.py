"""Who may call: bearer tokens, known by their SHA-256 only."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from typing import Literal

from aiohttp import web

from gateway.intake.problems import Problem
from gateway.sections import ApiToken

Role = Literal["viewer", "operator", "admin"]
_RANK: dict[str, int] = {"viewer": 0, "operator": 1, "admin": 2}


class Access:
    def __init__(self, tokens: Sequence[ApiToken]) -> None:
        self._tokens = tokens

    def require(self, request: web.Request, role: Role) -> str:
        """The caller's name, if the token's role reaches so far."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Problem(401, "a token is needed: Authorization: Bearer …", {"WWW-Authenticate": "Bearer"})
        digest = hashlib.sha256(token.strip().encode()).hexdigest()
        for known in self._tokens:
            if hmac.compare_digest(known.sha256.lower(), digest):
                if _RANK[known.role] < _RANK[role]:
                    raise Problem(403, f"this takes the role {role}; the token {known.name} has {known.role}")
                return known.name
        raise Problem(
            401, "this token isn't among api_tokens", {"WWW-Authenticate": 'Bearer error="invalid_token"'}
        )
