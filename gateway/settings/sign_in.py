"""Who may call /api and sign in to the console, and as what."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import SecretStr, field_validator

from gateway.settings.addresses import HttpUrl
from gateway.settings.parts import Name, Part, shaped
from gateway.settings.quantities import Duration
from gateway.settings.transport import ByHttp

Role = Literal["viewer", "operator", "admin"]
ROLES: tuple[Role, ...] = ("viewer", "operator", "admin")  # each may what the one before may


class ApiToken(Part):
    name: Name
    role: Role = "viewer"
    sha256: Annotated[str, shaped(r"[0-9a-fA-F]{64}", "64 hexadecimal digits, which gateway token makes")]


class OidcRoles(Part):
    """Who is what, by a claim's values; whose values name no role isn't let in."""

    claim: str = "groups"
    viewer: list[str] = []
    operator: list[str] = []
    admin: list[str] = []

    def role_of(self, groups: Collection[str]) -> Role | None:
        """The highest."""
        return next(
            (role for role in reversed(ROLES) if not set(getattr(self, role)).isdisjoint(groups)), None
        )


class Oidc(ByHttp):
    issuer: HttpUrl
    client_id: str
    client_secret: SecretStr | None = None
    scopes: list[str] = ["openid", "profile", "email"]
    roles: OidcRoles

    @field_validator("issuer")
    @classmethod
    def _is_safe(cls, issuer: str) -> str:
        parts = urlsplit(issuer)
        if parts.scheme != "https" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
            raise ValueError("an issuer is asked by https")
        return issuer


class Console(Part):
    oidc: Oidc | None = None
    signed_in_for: Duration = 8 * 3600.0
