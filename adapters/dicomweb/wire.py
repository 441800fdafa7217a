"""Calls on a vendor's DICOMweb server: the options they follow, their limits, and what it lists of a study.

No address, answer or exception of a library gets into a failure's text: they may hold a credential or a UID.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Annotated, Any

import aiohttp
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

from gateway.contract import NeedsHuman
from gateway.dicom import web
from gateway.kit.options import AwaitedOptions, Url, WebOptions
from gateway.kit.quantities import PositiveSize

_FIELDS = "00080012,00080013,00080016,00080018,00080060,0008103E,0020000D,0020000E"
_CREATED = ("00080012", "00080013")
_LISTING = "listing the instances of the study"


def _read_pattern(value: Any) -> Any:
    try:
        return re.compile(value) if isinstance(value, str) else value
    except re.error as error:
        raise ValueError(f"no regular expression: {error}") from None


class Results(BaseModel):
    """How results are recognised among what is new in the study; an empty list takes all."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    modalities: list[str] = []
    sop_classes: list[str] = []
    series: Annotated[re.Pattern[str] | None, BeforeValidator(_read_pattern)] = None  # in its description


class Options(WebOptions, AwaitedOptions):
    results_url: Url | None = None  # where results are found, if not there
    username: str | None = None
    password: SecretStr | None = None
    token: SecretStr | None = None
    headers: dict[str, SecretStr] = Field(default_factory=dict)
    results: Results = Results()
    push_token: SecretStr | None = None  # the vendor stores its results with us, at /adapters/NAME/studies

    most_result_bytes: PositiveSize = 2 * 2**30


@dataclass(frozen=True, slots=True)
class Listed:
    """What the vendor tells of an instance."""

    sop_instance_uid: str
    series_instance_uid: str
    sop_class_uid: str
    modality: str
    description: str  # of its series
    made_at: str = ""  # another, where a vendor has made it anew under the UID that it had


class Wire:
    """`front` takes studies, `back` has results; mostly they are one server."""

    def __init__(self, options: Options, session: aiohttp.ClientSession) -> None:
        self.options = options
        self.session = session
        self.front = self._peer("vendor", options.url)
        self.back = self._peer("vendor's results server", options.results_url or options.url)
        if options.results_url in (None, options.url):
            self.back = self.front

    def _peer(self, name: str, url: str) -> web.WebPeer:
        options = self.options
        limits = web.Limits(
            options.connect_timeout, options.read_timeout, options.call_timeout, options.least
        )
        password, token = options.password, options.token
        return web.WebPeer(
            name,
            url,
            options.username,
            password.get_secret_value() if password else None,
            token.get_secret_value() if token else None,
            limits,
            {header: value.get_secret_value() for header, value in options.headers.items()},
        )

    async def list_study(self, peer: web.WebPeer, study: str) -> dict[str, Listed]:
        """By SOP instance UID; page by page where the server caps its answers."""
        listed: dict[str, Listed] = {}
        for item in await self._list(peer, study, "/instances", "00080018"):
            told = (web.text_of(item, tag) for tag in ("00080018", "0020000E", "00080016", "00080060"))
            uid, series, sop_class, modality = (text or "" for text in told)
            if not uid or not series:
                raise web.nonsense(peer.name, _LISTING, "with one that has no UID")
            if web.text_of(item, "0020000D") not in (None, study):
                raise NeedsHuman(
                    f"the {peer.name} lists an instance of another study than the one asked for",
                    "Nothing of it is taken. Ask the vendor, then resume the job.",
                )
            description = web.text_of(item, "0008103E") or ""
            made_at = " ".join(filter(None, (web.text_of(item, tag) for tag in _CREATED)))
            listed[uid] = Listed(uid, series, sop_class, modality, description, made_at)
        if self.options.results.series is None or all(each.description for each in listed.values()):
            return listed
        described = {
            web.text_of(item, "0020000E") or "": web.text_of(item, "0008103E") or ""
            for item in await self._list(peer, study, "/series", "0020000E")
        }
        return {
            uid: replace(each, description=each.description or described.get(each.series_instance_uid, ""))
            for uid, each in listed.items()
        }

    async def _list(self, peer: web.WebPeer, study: str, below: str, unique: str) -> list[web.Item]:
        address, query = peer.address(study, below=below), {"includefield": _FIELDS}
        return await web.list_items(self.session, peer, address, query, _LISTING, unique)

    async def greet(self, peer: web.WebPeer) -> None:
        doing = "answering whether it is there"
        address, query = peer.address(below="/studies"), {"limit": "1"}
        async with web.get(
            self.session, peer, address, web.ACCEPT_JSON, doing, query, welcome=(200, 204, 206, 404)
        ) as answer:
            if answer.status == 404:
                raise NeedsHuman(
                    f"the {peer.name} has no DICOMweb at its url (404)",
                    "Correct the adapter's url, or its results_url.",
                )
            if answer.status != 204:
                await web.read_items(answer, peer.name, doing)
