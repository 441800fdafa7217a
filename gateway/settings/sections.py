"""What may stand in gateway.yaml: the whole, and its sections, each beside what it belongs to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from pydantic import PrivateAttr, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from gateway.settings.addresses import HttpUrl
from gateway.settings.alerts import Alerts, Email
from gateway.settings.applications import Accept, Application, Choose, Department, Retry, TaggedPolygonInput
from gateway.settings.audit_log import AuditLog
from gateway.settings.effective import revision_of
from gateway.settings.parts import Name, Part, Port, parts_of
from gateway.settings.peers import (
    AdapterSettings,
    Archive,
    CStoreDestination,
    Destination,
    DicomwebArchive,
    Dimse,
    DimseArchive,
    Hl7Destination,
    Sectra,
    SectraArchive,
    SectraServer,
    StowDestination,
    VendorsDoor,
)
from gateway.settings.profiles import Profile
from gateway.settings.quantities import Size
from gateway.settings.sign_in import ROLES, ApiToken, Console, Oidc, Role
from gateway.settings.spool import FolderSpool, S3Spool, Spool
from gateway.settings.traces import Traces
from gateway.settings.transport import ByDimse, ByHttp, Listen, Tls, Trust
from gateway.settings.watching import Reconcile

__all__ = [
    "ROLES",
    "Accept",
    "AdapterSettings",
    "ApiToken",
    "Application",
    "ByDimse",
    "ByHttp",
    "CStoreDestination",
    "Choose",
    "DicomwebArchive",
    "Dimse",
    "DimseArchive",
    "Email",
    "Hl7Destination",
    "Listen",
    "Log",
    "Oidc",
    "Profile",
    "Retry",
    "Role",
    "S3Spool",
    "Sectra",
    "SectraArchive",
    "SectraServer",
    "Settings",
    "StowDestination",
    "TaggedPolygonInput",
    "Tls",
    "Trust",
    "parts_of",
]


class Log(Part):
    """`format`: none chosen is text on a terminal and JSON elsewhere."""

    format: Literal["text", "json"] | None = None
    level: Literal["debug", "info", "warning", "error"] = "info"


class Monitor(Part):
    """For those who watch: /healthz, /readyz and /metrics of whatever part of the gateway runs."""

    host: str = "127.0.0.1"
    port: Port = 9090


def _require_ed25519(load: Callable[..., object], *given: object) -> None:
    try:
        key = load(*given)
    except (ValueError, TypeError):  # TypeError: it has a password
        key = None
    if not isinstance(key, Ed25519PrivateKey | Ed25519PublicKey):
        raise ValueError(  # noqa: TRY004 - so that pydantic says where
            "an Ed25519 key in PEM, without a password; gateway key --seal makes one"
        )


class Settings(BaseSettings):
    model_config = SettingsConfigDict(extra="forbid", frozen=True)

    public_url: HttpUrl | None = None
    listen: Listen = Listen()
    database_url: str | None = None
    migrate_on_start: bool = True
    data_dir: Path = Path("/var/lib/gateway")
    least_free: Size = 10**9  # of data_dir's disk: below it no new work begins
    spool: Spool = FolderSpool()
    secret_keys: list[SecretStr] = []
    seal_key: SecretStr | None = None  # an Ed25519 key in PEM; None: one below data_dir
    trusted_seal_keys: list[str] = []  # of other replicas and of former times: public, in PEM
    api_tokens: list[ApiToken] = []
    console: Console = Console()
    sectra: Sectra = Sectra()
    vendors: VendorsDoor = VendorsDoor()
    archives: dict[Name, Archive] = {}
    dimse: Dimse | None = None
    destinations: dict[Name, Destination] = {}
    adapters: dict[Name, AdapterSettings] = {}
    departments: dict[Name, Department] = {}
    profiles: dict[Name, Profile] = {}
    log: Log = Log()
    monitor: Monitor | None = None
    alerts: Alerts = Alerts()
    reconcile: list[Reconcile] = []
    audit_log: AuditLog | None = None
    traces: Traces | None = None
    _place: Callable[[tuple[int | str, ...]], str] | None = PrivateAttr(None)
    _text: str = PrivateAttr("")
    _files: tuple[Path, ...] = PrivateAttr(())

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

    @field_validator("reconcile", mode="before")
    @classmethod
    def _is_one_or_several(cls, value: Any) -> Any:
        return [value] if isinstance(value, dict) else value

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

    @field_validator("seal_key")
    @classmethod
    def _signs(cls, key: SecretStr | None) -> SecretStr | None:
        if key is not None:
            _require_ed25519(load_pem_private_key, key.get_secret_value().strip().encode(), None)
        return key

    @field_validator("trusted_seal_keys")
    @classmethod
    def _verify(cls, keys: list[str]) -> list[str]:
        for key in keys:
            _require_ed25519(load_pem_public_key, key.strip().encode())
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

    def placed(self, dotted: str, problem: str) -> str:
        """A sentence that names what it is about, with the place of that before it."""
        return problem if self._place is None else f"{self._place(tuple(dotted.split('.')))}: {problem}"

    @property
    def text(self) -> str:
        """As it was written, secrets masked."""
        return self._text

    @property
    def revision(self) -> str:
        return revision_of(self._text)

    @property
    def files(self) -> tuple[Path, ...]:
        """What it was read from."""
        return self._files

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
