"""The Sectra servers that we know: callbacks go to them and nowhere else."""

from __future__ import annotations

import posixpath
from urllib.parse import unquote, urlsplit

import aiohttp

from gateway import __version__
from gateway.contract import Failure, Health, NeedsHuman
from gateway.dicom.certificate import certificate_expiry
from gateway.http import nonsense
from gateway.sectra.calls import Caller, Limits
from gateway.sectra.client import SectraClient
from gateway.sectra.failures import NotThere
from gateway.sectra.tokens import ClientCredentials, FixedToken, InvocationToken, TokenSource
from gateway.settings.sections import Sectra, SectraServer

_USUAL_PLACE = "/external/imageanalysis/v1"  # callback_urls may name what is above it
_PORTS = {"http": 80, "https": 443}


class SectraServers:
    def __init__(self, settings: Sectra, session: aiohttp.ClientSession) -> None:
        self._settings = settings
        self._session = session
        self._credentials: dict[tuple[str, str, str], ClientCredentials] = {}

    def name_of(self, url: str) -> str | None:
        """The configured server that a callback url belongs to."""
        for name, server in self._settings.servers.items():
            if any(_lies_below(url, allowed) for allowed in server.callback_urls):
                return name
        return None

    async def check(self, name: str, application: str) -> Health:
        """Whether it is Sectra that answers, and takes our own user if there is one."""
        server = self._settings.servers[name]
        for url in server.callback_urls:
            for place in (url, url + _USUAL_PLACE):
                own = self._own(name, server, place, application)
                try:
                    return await self._ask(place, own)
                except NotThere:
                    continue
                except Failure as failure:
                    return Health(False, failure.sentences)
        advice = f"Correct sectra.servers.{name}.callback_urls."
        return Health(False, f"no Sectra answers at its callback_urls: there is no IA-API. {advice}")

    async def _ask(self, url: str, own: TokenSource | None) -> Health:
        doing, refusals = "checking it", () if own else (401, 403)
        caller = Caller(self._session, url, own or FixedToken("none"), {}, Limits(total=20))
        async with caller.open("GET", "/info", doing, welcome=(200, *refusals), negotiable=False) as answer:
            said = await caller.json_of(answer, doing) if answer.status == 200 else {"apiVersion": ""}
        if not isinstance(said, dict) or "apiVersion" not in said:
            raise nonsense(caller.peer, doing, "as Sectra doesn't")
        expires = await certificate_expiry(url, caller.limits.connect)
        if answer.status != 200:
            return Health(True, "it answers, and wants a token, which comes with each invocation", expires)
        return Health(True, f"Sectra answers{' and takes our user' if own else ''}", expires)

    def client(self, server: str, url: str, application: str, token: str | None) -> SectraClient:
        return SectraClient(
            self._session,
            url,
            self._token_source(server, url, application, token),
            software_version=__version__,
        )

    def _token_source(self, server: str, url: str, application: str, token: str | None) -> str | TokenSource:
        configured = self._settings.servers.get(server)
        if configured is None or self.name_of(url) != server:
            raise NeedsHuman(
                f"the Sectra server {server} of this job is no longer configured with its callback url",
                "Put it back into sectra.servers, then resume the job.",
            )
        own = self._own(server, configured, url, application)
        if token is not None:
            return token if own is None else InvocationToken(token, own)
        if own is None:
            raise NeedsHuman(
                f"there is no token for the Sectra server {server}",
                f"Set username and password under sectra.servers.{server}.",
            )
        return own

    def _own(
        self, server: str, configured: SectraServer, url: str, application: str
    ) -> ClientCredentials | None:
        if configured.username is None or configured.password is None:
            return None
        key = (server, url, application)
        if key not in self._credentials:
            self._credentials[key] = ClientCredentials(
                self._session,
                url,
                application,
                configured.username,
                configured.password.get_secret_value(),
            )
        return self._credentials[key]


def _lies_below(url: str, allowed: str) -> bool:
    """Same scheme, host and port, and a path at or below the allowed one, with no way out of it."""
    try:
        there, here = urlsplit(url), urlsplit(allowed)
        ports = [part.port or _PORTS.get(part.scheme) for part in (there, here)]
    except ValueError:
        return False
    if there.username is not None or there.password is not None or there.query or there.fragment:
        return False
    if (there.scheme, (there.hostname or "").lower()) != (here.scheme, (here.hostname or "").lower()):
        return False
    path = unquote(there.path)
    if ports[0] != ports[1] or "\\" in path or any(ord(letter) < 33 for letter in url):
        return False
    path, base = posixpath.normpath(path or "/"), posixpath.normpath(unquote(here.path) or "/")
    return path == base or path.startswith(base.rstrip("/") + "/")
