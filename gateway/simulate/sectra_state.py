"""What the simulated Sectra knows: slides, tokens, stored results, and how it is set to behave."""

from __future__ import annotations

import secrets
import time
import uuid
from dataclasses import dataclass, field
from typing import Any, Literal

from aiohttp import web
from pydantic import BaseModel, ConfigDict

from gateway.simulate.front import Front
from gateway.simulate.sectra_messages import NewResult, list_points
from gateway.simulate.slides import Slide, find_bulk, make_slides

BASE = "/SectraPathologyServer/external/imageanalysis/v1"
USERNAME, PASSWORD = "simulated-user", "simulated-password"  # they open only this simulator


class Settings(BaseModel):
    """How the server behaves; any part can be changed while it runs, also by `PUT /control/settings`."""

    model_config = ConfigDict(extra="forbid")

    api_version: str = "1.10"
    software_version: str = "4.2.0.0"
    hooks: bool = False  # an old server: results are under /hooks/{app} instead of /applications/{app}
    created: int = 201  # older servers answer 200
    token_seconds: float = 3600
    token_calls: int | None = None  # tokens die after so many calls, whatever their expires_in promised
    camel_case: bool = False  # accessToken instead of access_token
    stale: Literal[400, 409, 412, 422] = 409  # how a change of an older version is refused
    issuer: str = "accessionNumberIssuer"  # as this server calls it; older ones: accessionNumberIssuerId
    form_data: bool = False  # files come as multipart/form-data, as from one mock in use


@dataclass
class Token:
    application_id: str  # empty: any
    expires: float
    calls: int | None


@dataclass
class Stored:
    application_id: str
    body: dict[str, Any]
    versions: int = 1
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Firing:
    application_id: str
    slide_id: str
    token: str
    cancellation_token: str


@dataclass
class SectraState:
    front: Front = field(default_factory=Front)
    settings: Settings = field(default_factory=Settings)
    slides: dict[str, Slide] = field(default_factory=lambda: {each.id: each for each in make_slides()})
    tokens: dict[str, Token] = field(default_factory=dict)
    results: dict[int, Stored] = field(default_factory=dict)
    quality: dict[str, dict[str, str]] = field(default_factory=dict)
    firings: list[Firing] = field(default_factory=list)
    apps: dict[str, str] = field(default_factory=dict)  # applicationId → url, as they were registered
    last_id: int = 0
    _ids: dict[tuple[str, str], list[int]] = field(default_factory=dict)  # by application and slide

    @property
    def url(self) -> str:
        """The callback url that invocations carry."""
        return self.front.url + BASE

    @property
    def headers(self) -> dict[str, str]:
        return {
            "X-Sectra-ApiVersion": self.settings.api_version,
            "X-Sectra-SoftwareVersion": self.settings.software_version,
        }

    def offers(self, version: str) -> bool:
        return parse_version(self.settings.api_version) >= parse_version(version)

    def find_slide(self, slide_id: str) -> Slide | None:
        return self.slides.get(slide_id) or find_bulk(slide_id)

    def mint(self, application_id: str = "", seconds: float | None = None) -> str:
        token = secrets.token_urlsafe(24)
        lifetime = self.settings.token_seconds if seconds is None else seconds
        self.tokens[token] = Token(application_id, time.monotonic() + lifetime, self.settings.token_calls)
        return token

    def kill_tokens(self) -> None:
        """Before their time, as happens to real ones."""
        self.tokens.clear()

    def use_token(self, value: str) -> Token | None:
        token = self.tokens.get(value)
        if token is None or token.expires <= time.monotonic() or token.calls == 0:
            return None
        if token.calls is not None:
            token.calls -= 1
        return token

    def read_quality(self, slide_id: str) -> dict[str, str]:
        return self.quality.setdefault(slide_id, {"status": "NotSet", "versionId": uuid.uuid4().hex})

    def list_results(self, application_id: str, slide_id: str) -> list[dict[str, Any]]:
        ids = self._ids.get((application_id, slide_id), [])
        return [self.results[each].body for each in ids if each in self.results]

    def store(self, application_id: str, result: NewResult, body: dict[str, Any]) -> dict[str, Any]:
        self.last_id += 1
        kept = {"attachments": [], "displayProperties": {}, **body}
        kept |= {"id": self.last_id, "versionId": uuid.uuid4().hex}
        self.results[self.last_id] = Stored(application_id, kept, warnings=self._warn(result))
        self._ids.setdefault((application_id, kept["slideId"]), []).append(self.last_id)
        return kept

    def replace(self, stored: Stored, result: NewResult, body: dict[str, Any]) -> dict[str, Any]:
        kept = {"attachments": [], "displayProperties": {}, **body}
        stored.body = kept | {"id": stored.body["id"], "versionId": uuid.uuid4().hex}
        stored.versions += 1
        stored.warnings = self._warn(result)
        return stored.body

    def _warn(self, result: NewResult) -> list[str]:
        """What a server takes, and what looks wrong to the user all the same."""
        slide = self.find_slide(result.slideId)
        lowest = slide.height / slide.width if slide else 1.0
        outside = [
            point
            for point in list_points(result)
            if not (-0.001 <= point.x <= 1.001 and -0.001 <= point.y <= lowest + 0.001)
        ]
        return [f"{len(outside)} points lie outside the slide"] if outside else []


STATE = web.AppKey("sectra", SectraState)


def parse_version(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
