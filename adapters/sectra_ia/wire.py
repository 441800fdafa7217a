"""Calls on a vendor's IA-API app, as Sectra makes them: options, limits, and what its failures mean to us."""

from __future__ import annotations

import base64
import re
from datetime import datetime
from typing import Any

import aiohttp
from pydantic import Field, SecretStr

from gateway.dicom.certificate import certificate_expiry
from gateway.kit.calls import Caller, Peer, parse_json, read_body, refusal
from gateway.kit.options import WebOptions
from gateway.kit.quantities import PositiveDuration
from gateway.sectra.client import API_VERSION

_MOST_JSON = 32 * 2**20
_PEER = Peer(
    "the vendor",
    address="Check that the adapter's url leads to the app itself, not to a proxy's or login page.",
    credentials="Check username, password and headers of the adapter.",
    late="If it works long before it answers, raise the adapter's read_timeout and call_timeout.",
    sure=frozenset((500, 501, 503)),  # the app itself says no: it has not taken the call
)


class Options(WebOptions):
    application_id: str | None = None  # as the vendor calls itself; else asked of it
    final_when: re.Pattern[str] | None = None  # its result is final when its text matches
    quiet: PositiveDuration = 60.0  # without that: when one beyond its first has stood for so long
    sure_after: PositiveDuration = 60.0  # after a broken call: who hasn't called back by then is called again
    username: str | None = None
    password: SecretStr | None = None
    headers: dict[str, SecretStr] = Field(default_factory=dict)

    read_timeout: PositiveDuration = 120.0  # the longest silence: some answer only when they are done
    call_timeout: PositiveDuration = 300.0

    def credentials(self) -> dict[str, str]:
        given = {name: value.get_secret_value() for name, value in self.headers.items()}
        if self.username is not None:
            password = self.password.get_secret_value() if self.password else ""
            user = base64.b64encode(f"{self.username}:{password}".encode()).decode()
            given["Authorization"] = f"Basic {user}"
        return given


class Wire:
    def __init__(self, options: Options, session: aiohttp.ClientSession) -> None:
        self._options = options
        self._session = session
        sent = {
            **options.credentials(),
            "Accept": "application/json",
            "X-Sectra-ApiVersion": API_VERSION,
            "X-Sectra-SoftwareVersion": "4.2",
        }
        self._caller = Caller(_PEER, options, session, sent)

    async def call(self, what: str, method: str, path: str = "", body: object = None) -> Any:
        """The JSON that is answered; None for an empty answer."""
        doing, writes = f"dealing with {what}", method != "GET"
        async with self._caller.call(doing, method, self._options.url + path, json=body) as response:
            raw = await read_body(_PEER, response, doing, _MOST_JSON)
            if not 200 <= response.status < 300:
                said = self._heard(response.status, raw, body)
                raise refusal(_PEER, response, doing, writes=writes, said=said)
        return await parse_json(_PEER, raw, doing, writes=writes) if raw.strip() else None

    def _heard(self, status: int, raw: bytes, body: object) -> dict[str, Any]:
        """The app's own words, without what it may repeat of ours."""
        words = raw[:2000].decode("utf-8", "replace")
        info = body.get("callbackInfo") if isinstance(body, dict) else None
        secrets = [value.get_secret_value() for value in self._options.headers.values()]
        secrets += [self._options.password.get_secret_value()] if self._options.password else []
        secrets += [str(info["token"])] if isinstance(info, dict) else []
        for secret in filter(None, secrets):
            words = words.replace(secret, "(secret)")
        return {"status": status, "answer": words[:500]}

    def certificate_expiry(self) -> datetime | None:
        return certificate_expiry(self._session, self._options.url)
