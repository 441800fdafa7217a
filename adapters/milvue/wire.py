"""Calls on Milvue: the options they follow, their limits, and what their failures mean to us."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Annotated, Any, Literal

import aiohttp
from pydantic import ConfigDict, Field, IPvAnyNetwork, SecretStr, field_validator
from yarl import URL

from gateway.contract import Busy, Failure, NeedsHuman
from gateway.kit import calls
from gateway.kit.brake import brake_of
from gateway.kit.named import CLOUDS, is_at_home, may_be_called
from gateway.kit.options import PolledOptions, WebOptions
from gateway.kit.quantities import PositiveDuration, PositiveSize

TOKEN_HEADER = "x-goog-meta-owner"  # noqa: S105
_MOST_JSON = 16 * 2**20
_PEER = calls.Peer(
    "Milvue",
    address="Check the adapter's `url`, and what a proxy between the gateway and Milvue answers.",
    credentials="Put a valid token into the adapter's `token`.",
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
    signed_url_hosts: tuple[str, ...] = CLOUDS  # where signed urls may lead, besides Milvue's own server
    signed_url_networks: tuple[IPvAnyNetwork, ...] = ()  # private ones, where those hosts may lie
    uploads_at_once: Annotated[int, Field(ge=1, le=64)] = 8  # of one study, by signed urls
    upload_rate: PositiveSize | None = None  # bytes a second at most, of all studies together

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
        self._brake = brake_of(session)
        self._caller = calls.Caller(_PEER, options, session, {TOKEN_HEADER: options.token.get_secret_value()})

    def call(
        self, what: str, method: str, url: str, **sent: Any
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        return self._caller.call(_dealing_with(what), method, url, **sent)

    def call_signed(
        self, what: str, method: str, url: str, headers: Mapping[str, str] | None = None, **sent: Any
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """The token goes to Milvue's own server, and to whom its signature obliges us to tell it."""
        given = dict(headers or {})
        if is_at_home(url, self.options.url):
            return self.call(what, method, url, transfer=True, headers=given, **sent)
        if TOKEN_HEADER in URL(url, encoded=True).query.get("X-Goog-SignedHeaders", "").lower().split(";"):
            given[TOKEN_HEADER] = self.options.token.get_secret_value()
        abroad = self.options.signed_url_networks
        return self.call(what, method, url, transfer=True, headers=given, abroad=abroad, **sent)

    def outgoing(self, chunks: AsyncGenerator[bytes | memoryview, None], what: str) -> calls.Outgoing:
        if self.options.upload_rate is not None:
            chunks = self._brake.slow(chunks, self.options.upload_rate)
        return self._caller.outgoing(chunks, _dealing_with(what))

    def chunks_of(self, response: aiohttp.ClientResponse, what: str) -> AsyncIterator[bytes]:
        return self._caller.chunks_of(response, _dealing_with(what))

    async def read_json(
        self, response: aiohttp.ClientResponse, what: str, *, uncertain: bool = False
    ) -> dict[str, Any]:
        body = await calls.read_body(_PEER, response, _dealing_with(what), _MOST_JSON)
        return await self.decode(body, what, uncertain=uncertain)

    async def decode(self, data: bytes, what: str, *, uncertain: bool = False) -> dict[str, Any]:
        """An object, without the token where Milvue repeats it: its words may be kept."""
        said = await calls.parse_json(_PEER, data, _dealing_with(what), writes=uncertain)
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

    async def tell(self, what: str, path: str) -> bool:
        """False: it knows nothing of what is told of."""
        async with self.call(what, "POST", self.options.url + path) as response:
            if response.status == 404:
                return False
            if not 200 <= response.status < 300:
                raise await self.refuse(response, what)
            return True


def heard(said: Mapping[str, Any]) -> dict[str, Any]:
    """Milvue's own words, for operators."""
    message = said.get("message")
    return {"milvue": message[:500]} if isinstance(message, str) and message else {}


def refusal(
    response: aiohttp.ClientResponse, what: str, said: Mapping[str, Any], *, uncertain: bool = False
) -> Failure:
    """What a status other than success means. `uncertain`: what was sent may count in spite of a 5xx."""
    doing, words = _dealing_with(what), heard(said)
    if response.status == 404:
        return NeedsHuman(
            f"Milvue answered 404 while {doing}: it doesn't know the address",
            "Check the adapter's `url`, organization, site and analysis, then resume the job.",
            said=words,
        )
    if response.status == 429:
        after = calls.retry_after(response.headers.get("Retry-After"))
        return Busy(
            f"Milvue answered 429 while {doing}: its quota is used up",
            "It is tried again later; lower `max_concurrent` or ask Milvue for a larger quota if it recurs.",
            after=60.0 if after is None else after,
        )
    return calls.refusal(_PEER, response, doing, writes=uncertain, said=words)


def check_signed(url: Any, options: Options) -> str:
    """Images go to each signed url: never from https back to http, nor to a host that nobody has allowed."""
    if not may_be_called(url, options.url, options.signed_url_hosts):
        raise NeedsHuman(
            "Milvue gave a signed url that isn't safe to use, or leads to a host that isn't allowed",
            "Ask Milvue which hosts it uses, and name them in the adapter's `signed_url_hosts`; meanwhile"
            " `signed_url: false` sends the study directly.",
            said={"host": _host_of(url)},
        )
    return str(url)


def _host_of(url: Any) -> str:
    try:
        return str(URL(str(url)).host)[:255]
    except ValueError:
        return ""


def _dealing_with(what: str) -> str:
    return f"dealing with {what}"
