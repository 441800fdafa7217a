"""What may stand in gateway.yaml: its sections, and at the end the whole."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from cryptography.fernet import Fernet
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from gateway.settings.quantities import Duration, Hours, Rate, Size
from gateway.settings.rules import Pattern, Rule, SopClass


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


class SectraArchive(_Archive):
    """Gives a job the DICOM files of its own slide, from the server that the slide is on."""

    kind: Literal["sectra"]


Archive = Annotated[DicomwebArchive | DimseArchive | SectraArchive, Field(discriminator="kind")]


class KnownPeer(Part):
    ae_title: AeTitle
    host: str


class Dimse(Part):
    ae_title: AeTitle = "GATEWAY"
    host: str = "127.0.0.1"
    port: Port = 11112
    peers: list[KnownPeer] = []


class _Keeping(Part):
    archive: Name
    make: tuple[Literal["sr", "capture"], ...] = ("sr", "capture")  # of a vendor's findings


class StowDestination(_Keeping):
    kind: Literal["stow"]


class CStoreDestination(_Keeping):
    kind: Literal["c-store"]


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
    send_again: tuple[
        Literal["AE", "AR", "CE", "CR"], ...
    ] = ()  # refusals after which the same is sent again
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
    tags: list[str]  # none: the user draws, and chooses nothing


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

    def pause(self, failed: int, asked: float | None = None) -> float:
        """Seconds until the next try after so many that failed; never less than the peer asked for."""
        grown = min(self.most, self.first * 2.0 ** min(failed - 1, 30))
        return max(grown * random.uniform(0.5, 1.0), asked or 0.0)  # noqa: S311 - jitter


class Application(Part):
    display_name: str
    manufacturer: str = ""
    input: Literal["whole_slide", "multi_area"] | TaggedPolygonInput = "whole_slide"
    adapter: Name
    archives: list[Name] = []
    when_unreachable: Literal["wait", "next"] = "wait"
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


class Settings(BaseSettings):
    model_config = SettingsConfigDict(extra="forbid", frozen=True)

    public_url: HttpUrl | None = None
    listen: Listen = Listen()
    database_url: str | None = None
    migrate_on_start: bool = True
    data_dir: Path = Path("/var/lib/gateway")
    least_free: Size = 10**9  # of data_dir's disk: below it no new work begins
    secret_keys: list[SecretStr] = []
    api_tokens: list[ApiToken] = []
    sectra: Sectra = Sectra()
    archives: dict[Name, Archive] = {}
    dimse: Dimse | None = None
    destinations: dict[Name, Destination] = {}
    adapters: dict[Name, AdapterSettings] = {}
    departments: dict[Name, Department] = {}
    _place: Callable[[tuple[int | str, ...]], str] | None = PrivateAttr(None)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)

    @field_validator("database_url")
    @classmethod
    def _is_postgresql(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith("postgresql://"):
            raise ValueError("a database url begins with postgresql://")
        return value

    @field_validator("secret_keys")
    @classmethod
    def _are_fernet_keys(cls, keys: list[SecretStr]) -> list[SecretStr]:
        for place, key in enumerate(keys, 1):
            try:
                Fernet(key.get_secret_value().strip())
            except ValueError:
                raise ValueError(f"key {place} isn't 32 bytes in url-safe base64") from None
        return keys

    @model_validator(mode="after")
    def _keys_guard_a_shared_database(self) -> Settings:
        if self.database_url is not None and not self.secret_keys:
            raise ValueError(
                "secret_keys is missing: a database of its own needs a key to encrypt tokens with "
                "(32 bytes, url-safe base64)"
            )
        return self

    def told(self, loc: tuple[int | str, ...], sentence: str) -> str:
        """With its place in the configuration, for those who find out later what is wrong there."""
        dotted = ".".join(map(str, loc))
        return f"{dotted} {sentence}" if self._place is None else f"{self._place(loc)}: {dotted} {sentence}"

    @property
    def applications(self) -> dict[str, Application]:
        """Of all departments: no two have one of the same name."""
        return {
            name: application
            for department in self.departments.values()
            for name, application in department.applications.items()
        }

    def application(self, name: str) -> tuple[str, Application] | None:
        """The department and the application of that id."""
        for department, part in self.departments.items():
            if name in part.applications:
                return department, part.applications[name]
        return None
