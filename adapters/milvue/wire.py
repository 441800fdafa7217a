"""Calls on Milvue: the options they follow, their limits, and what their failures mean to us."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Annotated, Any, Literal

import aiohttp
from pydantic import ConfigDict, Field, SecretStr, field_validator
from yarl import URL

from gateway.contract import Busy, Failure, NeedsHuman
from gateway.kit import calls
from gateway.kit.options import PolledOptions, WebOptions
from gateway.kit.quantities import PositiveDuration, PositiveSize

TOKEN_HEADER = "x-goog-meta-owner"  # noqa: S105
_MOST_JSON = 16 * 2**20
_PEER = calls.Peer(
    "Milvue",
    address="Check the adapter's `url`, and what a proxy between the gateway and Milvue answers.",
    credentials="Put a valid token into the adapter's `token`, then resume the job.",
    refusal="See whether the study suits the product, and whether Milvue takes the adapter's options.",
    reach="See whether the gateway reaches Milvue's address (firewall, proxy, name service).",
    sure=frozenset(),
)
_RENDERING = (
    *("output_format", "language", "output_selection", "recap_theme"),
    *("structured_report_format", "static_report_format", "timezone"),
)


Command = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]


class Options(WebOptions, PolledOptions):
    """What isn't given isn't sent: Milvue's own default holds."""

    model_config = ConfigDict(populate_by_name=True)

    token: Annotated[SecretStr, Field(min_length=1)]
    commands: Annotated[tuple[Command, ...], Field(min_length=1)]
    signed_url: bool = False

    output_format: Literal["overlay", "highbit", "gsps"] | None = None
    language: Literal["fr", "en", "es", "de", "it", "pt"] | None = None
    output_selection: Literal["all", "no_recap", "no_negatives", "none"] | None = None
    recap_theme: Literal["dark", "light"] | None = None
    structured_report_format: Literal["lite", "normal", "full", "none"] | None = None
    static_report_format: Literal["rgb", "pdf", "none"] | None = None
    timezone: str | None = None

    organization_id: Annotated[str | None, Field(alias="organizationId")] = None
    site_id: Annotated[str | None, Field(alias="siteId")] = None
    analysis_id: Annotated[str | None, Field(alias="analysisId")] = None

    sure_after: PositiveDuration = 20.0  # after a broken sending, its status may not tell at once
    most_result_bytes: PositiveSize = 2 * 2**30

    @field_validator("commands")
    @classmethod
    def _each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) != len(value):
            raise ValueError("each command is named once")
        return value

    def rendering(self) -> dict[str, str]:
        return {name: str(value) for name in _RENDERING if (value := getattr(self, name)) is not None}

    def origin(self) -> dict[str, str]:
        given = {
            "organizationId": self.organization_id,
            "siteId": self.site_id,
            "analysisId": self.analysis_id,
        }
        return {name: value for name, value in given.items() if value is not None}


class Wire:
    def __init__(self, options: Options, session: aiohttp.ClientSession) -> None:
        self.options = options
        self._caller = calls.Caller(_PEER, options, session, {TOKEN_HEADER: options.token.get_secret_value()})

    def call(
        self, what: str, method: str, url: str, **sent: Any
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        return self._caller.call(_dealing_with(what), method, url, **sent)

    def outgoing(self, chunks: AsyncGenerator[bytes | memoryview, None], what: str) -> calls.Outgoing:
        return self._caller.outgoing(chunks, _dealing_with(what))

    def chunks_of(self, response: aiohttp.ClientResponse, what: str) -> AsyncIterator[bytes]:
        return self._caller.chunks_of(response, _dealing_with(what))

    async def read_json(
        self, response: aiohttp.ClientResponse, what: str, *, uncertain: bool = False
    ) -> dict[str, Any]:
        body = await calls.read_body(_PEER, response, _dealing_with(what), _MOST_JSON)
        return self.decode(body, what, uncertain=uncertain)

    def decode(self, data: bytes, what: str, *, uncertain: bool = False) -> dict[str, Any]:
        """An object, without the token where Milvue repeats it: its words may be kept."""
        try:
            said = json.loads(data)
        except (ValueError, RecursionError):
            said = None
        if not isinstance(said, dict):
            raise calls.nonsense(
                _PEER, _dealing_with(what), "with something that is no JSON object", writes=uncertain
            )
        if isinstance(said.get("message"), str):
            said["message"] = said["message"].replace(self.options.token.get_secret_value(), "(token)")
        return said

    async def refuse(
        self, response: aiohttp.ClientResponse, what: str, *, uncertain: bool = False
    ) -> Failure:
        """The failure that the status means, with Milvue's words where it gives some."""
        try:
            said = await self.read_json(response, what)
        except (Failure, aiohttp.ClientError, OSError):
            said = {}  # the status has said the important thing
        return refusal(response, what, said, uncertain=uncertain)

    async def greet(self, path: str) -> None:
        """Whether it is Milvue that answers, by what it says of a study that isn't there."""
        what = "the status"
        async with self.call(what, "GET", self.options.url + path) as response:
            if response.status not in (200, 404):
                raise await self.refuse(response, what)
            if not {"status", "message"} & set(await self.read_json(response, what)):
                raise calls.nonsense(_PEER, _dealing_with(what), "as Milvue doesn't")

    async def ask(
        self, what: str, path: str, params: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, Any]]:
        """A small question: 200 with what Milvue says, or 404 with nothing; anything else is a failure."""
        url = self.options.url + path
        headers = {"Accept": "application/json"}
        async with self.call(what, "GET", url, params=params or {}, headers=headers) as response:
            if response.status == 404:
                return 404, {}
            if response.status != 200:
                raise await self.refuse(response, what)
            return 200, await self.read_json(response, what)


def heard(said: Mapping[str, Any]) -> dict[str, Any]:
    """Milvue's own words, for a failure's detail."""
    message = said.get("message")
    return {"milvue": message[:500]} if isinstance(message, str) and message else {}


def refusal(
    response: aiohttp.ClientResponse, what: str, said: Mapping[str, Any], *, uncertain: bool = False
) -> Failure:
    """What a status other than success means. `uncertain`: what was sent may count in spite of a 5xx."""
    doing, detail = _dealing_with(what), heard(said)
    if response.status == 404:
        return NeedsHuman(
            f"Milvue answered 404 while {doing}: it doesn't know the address",
            "Check the adapter's `url`, organization, site and analysis, then resume the job.",
            detail=detail,
        )
    if response.status == 429:
        after = calls.retry_after(response.headers.get("Retry-After"))
        return Busy(
            f"Milvue answered 429 while {doing}: its quota is used up",
            "It is tried again later; lower `max_concurrent` or ask Milvue for a larger quota if it recurs.",
            after=60.0 if after is None else after,
        )
    return calls.refusal(_PEER, response, doing, writes=uncertain, detail=detail)


def check_signed(url: Any, options: Options) -> str:
    """The token and the images go with each signed url: never from https back to"""
    allowed = ("https://",) if options.url.startswith("https://") else ("https://", "http://")
    try:
        safe = isinstance(url, str) and url.startswith(allowed) and bool(URL(url, encoded=True).host)
    except ValueError:
        safe = False
    if not safe:
        raise NeedsHuman(
            "Milvue gave a signed url that isn't safe to use",
            "Ask Milvue why; meanwhile `signed_url: false` sends the study directly.",
        )
    return str(url)


def _dealing_with(what: str) -> str:
    return f"dealing with {what}"
