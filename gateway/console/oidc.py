"""Sign-in by OpenID Connect: the hospital's own service says who somebody is, and of which groups."""

from __future__ import annotations

import base64
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import quote_plus

import aiohttp

from gateway.contract import Failure, Health
from gateway.http import Peer, parse_json, read_body, refusal, translated
from gateway.sessions import Connections
from gateway.settings.sections import Oidc

RETURN = "/sign-in/oidc/return"
_KNOWN_FOR = 3600.0
_KEYS_AGAIN_AFTER = 60.0
_CLOCKS_DIFFER = 60
_LARGEST = 2**20
_TIMEOUT = aiohttp.ClientTimeout(total=15, connect=5)
_ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
_PEER = Peer(
    "the sign-in service",
    address="Check console.oidc.issuer: OpenID Connect's own description is found below it.",
    credentials="Check console.oidc.client_id and client_secret, and the return address that it knows of us.",
    refusal="Check console.oidc, and the return address that it knows of us; its own log says more.",
    trust="Name the authority of its certificate as console.oidc.ca.",
)


class NotSignedIn(Exception):
    """Says why, to the person."""


@dataclass(frozen=True, slots=True)
class Errand:
    """What must come back unchanged."""

    state: str
    nonce: str
    verifier: str


@dataclass(frozen=True, slots=True)
class Person:
    """`subject`: how the service knows them, whatever they call themselves."""

    subject: str
    name: str
    groups: tuple[str, ...]


@dataclass(slots=True)
class _Remembered:
    value: Mapping[str, Any]
    at: float


class SignInService:
    def __init__(self, settings: Oidc, session: aiohttp.ClientSession, public_url: str) -> None:
        self._settings = settings
        self._session = session
        self._return = f"{public_url}{RETURN}"
        self._remembered: dict[str, _Remembered] = {}

    async def begin(self) -> tuple[str, Errand]:
        """Where the browser is sent to."""
        # Takes a third of a second, which whoever signs in by token needn't wait.
        from authlib.oauth2.rfc6749.parameters import prepare_grant_uri
        from authlib.oauth2.rfc7636 import create_s256_code_challenge

        described = await self._describe()
        errand = Errand(secrets.token_urlsafe(24), secrets.token_urlsafe(24), secrets.token_urlsafe(48))
        url = prepare_grant_uri(
            described["authorization_endpoint"],
            self._settings.client_id,
            "code",
            redirect_uri=self._return,
            scope=" ".join(self._settings.scopes),
            state=errand.state,
            nonce=errand.nonce,
            code_challenge=create_s256_code_challenge(errand.verifier),
            code_challenge_method="S256",
        )
        return url, errand

    async def finish(self, errand: Errand, answer: Mapping[str, str]) -> Person:
        described = await self._describe()
        if answer.get("iss", described["issuer"]) != described["issuer"]:
            raise NotSignedIn("another service answered than the one that was asked")
        if "error" in answer:
            code = re.sub(r"[^a-z_]", "", answer["error"][:60])
            raise NotSignedIn(f"the sign-in service says no ({code or 'without a reason'})")
        given = await self._redeem(described, answer.get("code", ""), errand.verifier)
        claims = await self._verify(described, given, errand.nonce)
        if _found(claims, self._settings.roles.claim) is None and "userinfo_endpoint" in described:
            claims = {**await self._ask_more(described, given, claims), **claims}
        name = next((claims[key] for key in ("preferred_username", "email", "sub") if claims.get(key)), "")
        return Person(_printable(str(claims["sub"])), _printable(str(name)), self._groups(claims))

    async def check(self) -> Health:
        try:
            self._remembered.clear()
            described = await self._describe()
            await self._keys(described)
        except Failure as failure:
            return Health(False, failure.sentences)
        except NotSignedIn as wrong:
            return Health(False, f"{wrong}. {_PEER.address}")
        connections = self._session.connector
        expires = (
            connections.expiry_at(self._settings.issuer) if isinstance(connections, Connections) else None
        )
        return Health(True, "the sign-in service describes itself", expires)

    async def _describe(self) -> Mapping[str, Any]:
        doing = "asking what it offers"
        described = await self._remember(f"{self._settings.issuer}/.well-known/openid-configuration", doing)
        if str(described.get("issuer", "")).rstrip("/") != self._settings.issuer:
            raise NotSignedIn("the sign-in service calls itself otherwise than console.oidc.issuer does")
        for needed in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
            if not str(described.get(needed, "")).startswith(("https://", "http://")):
                raise NotSignedIn(f"the sign-in service doesn't say its {needed}")
        return described

    async def _remember(self, url: str, doing: str, known_for: float = _KNOWN_FOR) -> Mapping[str, Any]:
        known = self._remembered.get(url)
        if known is None or time.monotonic() - known.at > known_for:
            known = _Remembered(await self._call("GET", url, doing), time.monotonic())
            self._remembered[url] = known
        return known.value

    async def _keys(self, described: Mapping[str, Any], known_for: float = _KNOWN_FOR) -> Mapping[str, Any]:
        return await self._remember(described["jwks_uri"], "asking for its keys", known_for)

    async def _redeem(self, described: Mapping[str, Any], code: str, verifier: str) -> Mapping[str, Any]:
        settings = self._settings
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._return,
            "code_verifier": verifier,
        }
        headers = {}
        secret = settings.client_secret.get_secret_value() if settings.client_secret else None
        ways = described.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        if secret is not None and "client_secret_basic" in ways:
            pair = f"{quote_plus(settings.client_id)}:{quote_plus(secret)}"
            headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        else:
            form |= {"client_id": settings.client_id} | ({"client_secret": secret} if secret else {})
        doing = "redeeming a sign-in"
        return await self._call("POST", described["token_endpoint"], doing, form=form, headers=headers)

    async def _verify(
        self, described: Mapping[str, Any], given: Mapping[str, Any], nonce: str
    ) -> Mapping[str, Any]:
        from authlib.oidc.core.claims import CodeIDToken
        from joserfc import jwt
        from joserfc.errors import JoseError, MissingKeyError
        from joserfc.jwk import KeySet

        async def read(known_for: float) -> jwt.Token:
            keys = KeySet.import_key_set(cast(Any, await self._keys(described, known_for)))
            return jwt.decode(str(given.get("id_token", "")), keys, algorithms=_ALGORITHMS)

        try:
            try:
                token = await read(_KNOWN_FOR)
            except (MissingKeyError, JoseError, ValueError):  # it may have new keys
                token = await read(_KEYS_AGAIN_AFTER)
            claims = CodeIDToken(
                token.claims,
                token.header,
                {"iss": {"value": described["issuer"]}, "aud": {"value": self._settings.client_id}},
                {
                    "nonce": nonce,
                    "client_id": self._settings.client_id,
                    "access_token": given.get("access_token"),
                },
            )
            claims.validate(leeway=_CLOCKS_DIFFER)
        except (JoseError, ValueError, TypeError, KeyError) as error:
            raise NotSignedIn(
                f"what the sign-in service says can't be believed ({type(error).__name__})"
            ) from None
        return dict(claims)

    async def _ask_more(
        self, described: Mapping[str, Any], given: Mapping[str, Any], claims: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        headers = {"Authorization": f"Bearer {given.get('access_token', '')}"}
        more = await self._call("GET", described["userinfo_endpoint"], "asking who it is", headers=headers)
        if more.get("sub") != claims["sub"]:
            raise NotSignedIn("the sign-in service told of somebody else")
        return more

    def _groups(self, claims: Mapping[str, Any]) -> tuple[str, ...]:
        """Only those that say something here: the others are nobody's business."""
        told = _found(claims, self._settings.roles.claim)
        named = {str(each) for each in told} if isinstance(told, list) else {str(told)}
        roles = self._settings.roles
        return tuple(sorted(named & {*roles.viewer, *roles.operator, *roles.admin}))

    async def _call(
        self,
        method: str,
        url: str,
        doing: str,
        *,
        form: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Mapping[str, Any]:
        sent = {"Accept": "application/json", **(headers or {})}
        with translated(_PEER, doing):
            async with self._session.request(
                method, url, data=form, headers=sent, timeout=_TIMEOUT, allow_redirects=False
            ) as answer:
                if answer.status != 200:
                    raise refusal(_PEER, answer, doing)
                body = await read_body(_PEER, answer, doing, _LARGEST)
        said = await parse_json(_PEER, body, doing)
        if not isinstance(said, dict):
            raise NotSignedIn(f"the sign-in service answered what means nothing while {doing}")
        return said


def _found(claims: Mapping[str, Any], claim: str) -> Any:
    """By its name, or as a path (realm_access.roles)."""
    if claim in claims:
        return claims[claim]
    here: Any = claims
    for step in claim.split("."):
        here = here.get(step) if isinstance(here, dict) else None
    return here


def _printable(name: str) -> str:
    return "".join(letter for letter in name if letter.isprintable())[:120] or "somebody without a name"
