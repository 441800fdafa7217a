"""The sections of gateway.yaml, and what each may hold. `settings.py` reads them and checks that they fit."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    field_validator,
)

from gateway.quantities import Duration, Hours, Rate, Size
from gateway.rules import Pattern, Rule, SopClass


def _http_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("a url begins with http:// or https:// and names a host")
    return value.rstrip("/")


def _name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", value):
        raise ValueError("a name has letters, digits, dots, dashes and underscores, 63 at the most")
    return value


HttpUrl = Annotated[str, AfterValidator(_http_url)]
Name = Annotated[str, AfterValidator(_name)]
AeTitle = Annotated[str, Field(min_length=1, max_length=16, pattern=r"^[!-\[\]-~ ]+$")]
Port = Annotated[int, Field(ge=0, le=65535)]
Positive = Annotated[int, Field(ge=1)]


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Tls(Part):
    certificate: Path
    key: Path
    client_ca: Path | None = None


class Listen(Part):
    host: str = "127.0.0.1"
    port: Port = 8080
    tls: Tls | None = None


class ApiToken(Part):
    name: Name
    role: Literal["viewer", "operator", "admin"] = "viewer"
    sha256: Annotated[str, Field(pattern=r"^[0-9a-fA-F]{64}$")]


class SectraServer(Part):
    callback_urls: Annotated[list[HttpUrl], Field(min_length=1)]
    username: str | None = None
    password: SecretStr | None = None


class Sectra(Part):
    acknowledge: Literal["stored", "temporary"] = "stored"
    servers: dict[Name, SectraServer] = {}
    allowed_networks: list[str] = []
    secret_path: str | None = None


class _Archive(Part):
    only_online: bool = False
    hours: Hours | None = None
    rate: Rate | None = None


class DicomwebArchive(_Archive):
    kind: Literal["dicomweb"]
    url: HttpUrl
    username: str | None = None
    password: SecretStr | None = None
    token: SecretStr | None = None


class DimseArchive(_Archive):
    kind: Literal["dimse"]
    host: str
    port: Port
    ae_title: AeTitle
    retrieve: Literal["move", "get"] | None = None  # None: C-MOVE where we have a storage service


Archive = Annotated[DicomwebArchive | DimseArchive, Field(discriminator="kind")]


class Peer(Part):
    ae_title: AeTitle
    host: str


class Dimse(Part):
    ae_title: AeTitle = "GATEWAY"
    host: str = "127.0.0.1"
    port: Port = 11112
    peers: list[Peer] = []


class StowDestination(Part):
    kind: Literal["stow"]
    archive: Name


class CStoreDestination(Part):
    kind: Literal["c-store"]
    archive: Name


class Hl7Tls(Part):
    """`{}` trusts the machine's certificate authorities."""

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None


class Hl7Destination(Part):
    kind: Literal["hl7"]
    host: str
    port: Port
    sending_application: str = "GATEWAY"
    sending_facility: str = ""
    receiving_application: str = ""
    receiving_facility: str = ""
    format: Literal["text", "pdf"] = "text"
    template: str | None = None  # the template itself: ${file:/etc/gateway/oru.txt} puts a file's text here
    tls: Hl7Tls | None = None


Destination = Annotated[
    StowDestination | CStoreDestination | Hl7Destination,
    Field(discriminator="kind"),
]


class AdapterSettings(BaseModel):
    """What the engine must know of a vendor; all other keys are the adapter's own options."""

    model_config = ConfigDict(extra="allow", frozen=True)

    kind: Name
    max_concurrent: Positive | None = None
    rate: Rate = Rate(100, 1.0)  # calls back, for each job

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class TaggedPolygon(Part):
    tags: Annotated[list[str], Field(min_length=1)]


class TaggedPolygonInput(Part):
    tagged_polygon: TaggedPolygon


class Accept(Part):
    """An empty list accepts all."""

    modalities: list[str] = []
    staining: list[str] = []
    body_parts: list[str] = []
    exam_codes: list[str] = []
    priorities: list[str] = []
    min_microns_per_pixel: float | None = None
    max_microns_per_pixel: float | None = None
    max_pixels: Positive | None = None
    max_bytes: Size | None = None


class Choose(Part):
    """Which instances of a study go to the vendor; an empty list chooses all.

    All `tags` must hold; of the others, one entry. Results of others and our own never go, but a class of
    objects that `sop_classes` names isn't taken for results by its class alone."""

    modalities: list[str] = []
    sop_classes: list[SopClass] = []
    series: list[Pattern] = []  # found in the series' description
    tags: list[Rule] = []


class Retry(Part):
    attempts: Positive = 8
    first: Duration = 5.0
    most: Duration = 600.0


class Application(Part):
    display_name: str
    manufacturer: str = ""
    input: Literal["whole_slide", "multi_area"] | TaggedPolygonInput = "whole_slide"
    adapter: Name
    archives: list[Name] = []
    deliver: list[Name] = ["sectra"]
    deidentify: Literal[False] | Name = False
    accept: Accept = Accept()
    choose: Choose = Choose()
    priority: Annotated[int, Field(ge=0, le=9)] = 0
    settle: Duration = 10.0
    ae_title: AeTitle | None = None  # studies sent to it start this application
    result_within: Duration = 1800.0
    allow_phi: bool = False
    shadow: list[Name] = []
    retry: Retry = Retry()
    keep_days: Positive = 365

    @field_validator("input", mode="before")
    @classmethod
    def _input_is_known(cls, value: Any) -> Any:
        if isinstance(value, str) and value not in ("whole_slide", "multi_area"):
            raise ValueError("allowed: whole_slide, multi_area, {tagged_polygon: {tags: [A, B]}}")
        return value


class DepartmentHl7(Part):
    template: str | None = None


class Department(Part):
    contact: str = ""
    hl7: DepartmentHl7 | None = None
    applications: dict[Name, Application] = {}
