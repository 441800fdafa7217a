"""Signing in against a service that lies or is down, and out again for every copy of the cookie."""

from __future__ import annotations

import base64
import hmac
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography.fernet import Fernet
from joserfc import jwt
from joserfc.jwk import ECKey

from gateway.console.door import ConsoleDoor
from gateway.console.oidc import RETURN, SignInService
from gateway.console.pages import guarded
from gateway.intake.access import Access
from gateway.intake.callers import Callers
from gateway.intake.ended import EndedVisits
from gateway.intake.guesses import Guesses
from gateway.intake.problems import explain
from gateway.intake.visits import Visits
from gateway.jobs.store import Store
from gateway.settings.sections import Settings

KEYS = [Fernet.generate_key().decode()]


class Service:
    """An OpenID Connect service that says whatever a test has it say."""

    def __init__(self) -> None:
        self.key = ECKey.generate_key("P-256", {"kid": "one", "use": "sig"})
        self.strange = ECKey.generate_key("P-256", {"kid": "one", "use": "sig"})
        self.url = ""
        self.down = False
        self.lie: Mapping[str, Any] = {}
        self.left_out: tuple[str, ...] = ()
        self.seal = "ES256"
        self.nonce = ""

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/.well-known/openid-configuration", self._describe),
            web.get("/keys", self._keys),
            web.post("/token", self._token),
        ]

    async def _describe(self, _: web.Request) -> web.Response:
        if self.down:
            raise web.HTTPServiceUnavailable
        ends = {"authorization_endpoint": "/authorize", "token_endpoint": "/token", "jwks_uri": "/keys"}
        return web.json_response({"issuer": self.url, **{name: self.url + end for name, end in ends.items()}})

    async def _keys(self, _: web.Request) -> web.Response:
        return web.json_response({"keys": [self.key.as_dict(private=False)]})

    async def _token(self, _: web.Request) -> web.Response:
        return web.json_response({"access_token": "a", "token_type": "Bearer", "id_token": self._sealed()})

    def _sealed(self) -> str:
        now = int(time.time())
        told = {
            "iss": self.url,
            "aud": "gateway",
            "sub": "ito",
            "groups": ["it"],
            "iat": now,
            "exp": now + 300,
        }
        told = {**told, "nonce": self.nonce, **self.lie}
        told = {name: value for name, value in told.items() if name not in self.left_out}
        if self.seal in ("none", "HS256"):
            head = {"alg": self.seal, "kid": "one"}
            said = ".".join(_packed(json.dumps(part).encode()) for part in (head, told))
            known = self.key.as_pem(private=False)  # what is public, taken for a secret
            seal = hmac.digest(known, said.encode(), "sha256") if self.seal == "HS256" else b""
            return f"{said}.{_packed(seal)}"
        key = self.strange if self.seal == "stranger" else self.key
        return jwt.encode({"alg": "ES256", "kid": "one"}, told, key)


def _packed(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


@dataclass
class Replica:
    url: str
    ended: EndedVisits


@dataclass
class Browser:
    http: aiohttp.ClientSession
    address: str = "192.0.2.1"
    cookies: dict[str, str] = field(default_factory=dict)

    async def ask(self, url: str, method: str = "GET", **form: str) -> tuple[int, str, str]:
        """The status, where it leads, and what it says."""
        headers = {"X-Forwarded-For": self.address}
        headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        call = self.http.request(method, url, headers=headers, data=form or None, allow_redirects=False)
        async with call as answer:
            for name, morsel in answer.cookies.items():
                self.cookies[name] = morsel.value
            return answer.status, answer.headers.get("Location", ""), await answer.text()

    async def sign_in(self, replica: Replica, service: Service, *, nonce: str = "") -> int:
        status, place, _ = await self.ask(f"{replica.url}/sign-in/oidc")
        if status != 303:
            return status
        asked = parse_qs(urlsplit(place).query)
        service.nonce = nonce or asked["nonce"][0]
        return (await self.ask(f"{replica.url}{RETURN}?code=c&state={asked['state'][0]}"))[0]

    async def is_in(self, replica: Replica) -> bool:
        return (await self.ask(f"{replica.url}/"))[0] == 200


@dataclass
class Hospital:
    stack: AsyncExitStack
    store: Store
    service: Service
    http: aiohttp.ClientSession

    async def open(self, keys: list[str] = KEYS, public_url: str = "http://localhost") -> Replica:
        oidc = {"issuer": self.service.url, "client_id": "gateway", "roles": {"viewer": ["it"]}}
        settings = Settings(public_url=public_url, console={"oidc": oidc})
        assert settings.console.oidc is not None
        ended = EndedVisits(self.store)
        visits = Visits(settings, keys, ended)
        guesses = Guesses(Callers([ip_network("127.0.0.1/32")]), self.store)
        service = SignInService(settings.console.oidc, self.http, public_url)
        access = Access(settings.api_tokens, visits)
        app = web.Application(middlewares=[explain, guesses.build()])
        app.add_routes(ConsoleDoor(settings, self.store, access, visits, guesses, service).routes())
        guarded(app, secure=visits.secure)
        server = TestServer(app, host="127.0.0.1")
        await server.start_server()
        self.stack.push_async_callback(server.close)
        return Replica(str(server.make_url("")).rstrip("/"), ended)


@pytest_asyncio.fixture
async def hospital(store: Store) -> AsyncIterator[Hospital]:
    async with AsyncExitStack() as stack:
        service = Service()
        app = web.Application()
        app.add_routes(service.routes())
        server = TestServer(app, host="127.0.0.1")
        await server.start_server()
        stack.push_async_callback(server.close)
        service.url = str(server.make_url("")).rstrip("/")
        jar = aiohttp.DummyCookieJar()
        http = await stack.enter_async_context(aiohttp.ClientSession(cookie_jar=jar))
        yield Hospital(stack, store, service, http)


def now() -> int:
    return int(time.time())


LIES: Mapping[str, tuple[Mapping[str, Any], tuple[str, ...], str]] = {
    "another audience": ({"aud": "another"}, (), "ES256"),
    "another's party among several": ({"aud": ["gateway", "x"], "azp": "x"}, (), "ES256"),
    "another issuer": ({"iss": "http://evil"}, (), "ES256"),
    "expired": ({"exp": now() - 3600}, (), "ES256"),
    "never expires": ({}, ("exp",), "ES256"),
    "issued when": ({}, ("iat",), "ES256"),
    "for nobody": ({}, ("aud",), "ES256"),
    "of nobody": ({}, ("sub",), "ES256"),
    "without a nonce": ({}, ("nonce",), "ES256"),
    "odd kinds": ({"exp": "soon", "aud": {}, "sub": []}, (), "ES256"),
    "not sealed": ({}, (), "none"),
    "sealed with what is public": ({}, (), "HS256"),
    "sealed by a stranger": ({}, (), "stranger"),
}


async def test_nothing_that_a_service_makes_up_lets_anybody_in(hospital: Hospital) -> None:
    replica, service = await hospital.open(), hospital.service
    for number, (name, (lie, left_out, seal)) in enumerate(LIES.items()):
        service.lie, service.left_out, service.seal = lie, left_out, seal
        browser = Browser(hospital.http, f"192.0.2.{number + 10}")
        assert await browser.sign_in(replica, service) == 403, name
        assert not await browser.is_in(replica), name
    service.lie, service.left_out, service.seal = {}, (), "ES256"
    honest = Browser(hospital.http)
    assert await honest.sign_in(replica, service) == 303 and await honest.is_in(replica)
    used = service.nonce
    again = Browser(hospital.http, "192.0.2.2")
    assert await again.sign_in(replica, service, nonce=used) == 403, "the nonce of another sign-in"
    assert not await again.is_in(replica)


async def test_a_service_that_is_down_makes_nobody_a_guesser(hospital: Hospital) -> None:
    replica, service = await hospital.open(), hospital.service
    service.down = True
    browser = Browser(hospital.http)
    assert [await browser.sign_in(replica, service) for _ in range(30)] == [502] * 30
    service.down = False
    assert await browser.sign_in(replica, service) == 303


async def test_who_signs_out_ends_every_copy_of_his_cookie_at_every_replica(hospital: Hospital) -> None:
    one, other = await hospital.open(), await hospital.open()
    browser, bystander = Browser(hospital.http), Browser(hospital.http, "192.0.2.2")
    for each in (browser, bystander):
        assert await each.sign_in(one, hospital.service) == 303
    stolen = Browser(hospital.http, "192.0.2.66", dict(browser.cookies))
    assert await stolen.is_in(one) and await stolen.is_in(other)
    _, _, page = await browser.ask(f"{one.url}/")
    csrf = page.partition('name="csrf" value="')[2].partition('"')[0]
    assert (await browser.ask(f"{one.url}/sign-out", "POST", csrf=csrf))[0] == 303
    stolen.cookies = {name: value for name, value in stolen.cookies.items() if "visit" in name}
    assert not await stolen.is_in(one)
    await other.ended.look()
    assert not await stolen.is_in(other)
    assert await bystander.is_in(one) and await bystander.is_in(other)


async def test_a_cookie_that_another_key_sealed_opens_nothing(hospital: Hospital) -> None:
    ours = await hospital.open()
    theirs = await hospital.open([Fernet.generate_key().decode()])
    browser = Browser(hospital.http)
    assert await browser.sign_in(theirs, hospital.service) == 303 and await browser.is_in(theirs)
    assert not await browser.is_in(ours)
    rotated = await hospital.open([Fernet.generate_key().decode(), *KEYS])
    assert await browser.sign_in(ours, hospital.service) == 303 and await browser.is_in(rotated)


async def test_over_https_cookies_are_bound_to_our_host_and_browsers_stay_with_it(hospital: Hospital) -> None:
    replica = await hospital.open(public_url="https://gateway.hospital")
    async with hospital.http.get(f"{replica.url}/sign-in") as answer:
        assert answer.headers["Strict-Transport-Security"].startswith("max-age=")
        [cookie] = answer.headers.getall("Set-Cookie")
    name, _, rest = cookie.partition("=")
    assert name.startswith("__Host-") and "Domain" not in rest
    assert {"Secure", "HttpOnly", "Path=/", "SameSite=Lax"} <= {part.strip() for part in rest.split(";")}
    plain = Browser(hospital.http)
    assert await plain.sign_in(replica, hospital.service) == 303
    borrowed = Browser(hospital.http)
    borrowed.cookies = {each.removeprefix("__Host-"): value for each, value in plain.cookies.items()}
    assert await plain.is_in(replica) and not await borrowed.is_in(replica), (
        "one by that name may be anybody's"
    )
