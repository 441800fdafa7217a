"""The Sectra servers that we know: callbacks go to them and nowhere else."""

from __future__ import annotations

from functools import lru_cache
from urllib.parse import urlsplit

import aiohttp

from gateway import __version__
from gateway.contract import Failure, Health, NeedsHuman
from gateway.dicom.certificate import certificate_expiry
from gateway.http import nonsense
from gateway.sectra.calls import Caller, Limits
from gateway.sectra.client import SectraClient
from gateway.sectra.failures import NotThere
from gateway.sectra.tokens import ClientCredentials, FixedToken, InvocationToken, TokenSource
from gateway.sessions import Sessions
from gateway.settings.addresses import is_plain
from gateway.settings.sections import Sectra, SectraServer

_USUAL_PLACE = "/external/imageanalysis/v1"  # callback_urls may name what is above it
_PORTS = {"http": 80, "https": 443}


class SectraServers:
    def __init__(self, settings: Sectra, sessions: Sessions) -> None:
        self._settings = settings
        self._sessions = {
            name: sessions.to(f"sectra.servers.{name}", server) for name, server in settings.servers.items()
        }
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
            for place in _places(url):
                own = self._own(name, server, place, application)
                try:
                    return await self._ask(self._sessions[name], place, own)
                except NotThere:
                    continue
                except Failure as failure:
                    return Health.ill(failure)
        advice = f"Correct sectra.servers.{name}.callback_urls."
        another = NeedsHuman("no Sectra answers at its callback_urls: there is no IA-API", advice)
        another.manner = "isn't at its callback_urls: there is no IA-API"
        return Health(False, f"{another.message}. {advice}", failure=another)

    async def _ask(self, session: aiohttp.ClientSession, url: str, own: TokenSource | None) -> Health:
        doing, refusals = "checking it", () if own else (401, 403)
        caller = Caller(session, url, own or FixedToken("none"), {}, Limits(total=20))
        async with caller.open("GET", "/info", doing, welcome=(200, *refusals), negotiable=False) as answer:
            said = await caller.json_of(answer, doing) if answer.status == 200 else {"apiVersion": ""}
        if not isinstance(said, dict) or "apiVersion" not in said:
            raise nonsense(caller.peer, doing, "as Sectra doesn't")
        expires = certificate_expiry(session, url)
        if answer.status != 200:
            return Health(True, "it answers, and wants a token, which comes with each invocation", expires)
        return Health(True, f"Sectra answers{' and takes our user' if own else ''}", expires)

    def has_user(self, server: str) -> bool:
        """Whether we have one of our own there."""
        configured = self._settings.servers.get(server)
        return configured is not None and configured.username is not None

    def own_clients(self, application: str) -> list[SectraClient]:
        """Ours at each server that has a user of ours, wherever its IA-API may be."""
        return [
            self.client(name, place, application, None, own=True)
            for name, server in self._settings.servers.items()
            if self.has_user(name)
            for url in server.callback_urls
            for place in _places(url)
        ]

    def client(
        self, server: str, url: str, application: str, token: str | None, *, own: bool
    ) -> SectraClient:
        """`own`: our user may take over when the token dies. Never before Sectra has let it in: else whoever
        makes one up acts as us."""
        tokens = self._token_source(server, url, application, token, own)
        return SectraClient(
            self._sessions[server],
            url,
            tokens,
            software_version=__version__,
        )

    def _token_source(
        self, server: str, url: str, application: str, token: str | None, may_own: bool
    ) -> str | TokenSource:
        configured = self._settings.servers.get(server)
        if configured is None or self.name_of(url) != server:
            raise NeedsHuman(
                f"the Sectra server {server} of this job is no longer configured with its callback url",
                "Put it back into sectra.servers, then resume the job.",
            )
        own = self._own(server, configured, url, application) if may_own else None
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
                self._sessions[server],
                url,
                application,
                configured.username,
                configured.password.get_secret_value(),
            )
        return self._credentials[key]


def _places(url: str) -> list[str]:
    """Where its IA-API may be."""
    return [url] if url.rstrip("/").endswith(_USUAL_PLACE) else [url, url.rstrip("/") + _USUAL_PLACE]


@lru_cache(256)
def _lies_below(url: str, allowed: str) -> bool:
    """Same scheme, host and port, and a path at or below the allowed one, with no way out of it."""
    try:
        there, here = urlsplit(url), urlsplit(allowed)
        ports = [part.port or _PORTS.get(part.scheme) for part in (there, here)]
    except ValueError:
        return False
    if not is_plain(url) or there.username is not None or there.password is not None:
        return False
    if (there.scheme, (there.hostname or "").lower()) != (here.scheme, (here.hostname or "").lower()):
        return False
    path, base = there.path.rstrip("/") + "/", here.path.rstrip("/") + "/"
    return ports[0] == ports[1] and path.startswith(base)
