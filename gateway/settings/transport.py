"""How we are reached, and how we reach others: addresses, certificates, proxies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, model_validator

from gateway.settings.addresses import Network
from gateway.settings.parts import Part, Port, Positive


def proxy_url(value: SecretStr) -> SecretStr:
    try:
        parts = urlsplit(value.get_secret_value())
        good = parts.scheme == "http" and parts.hostname and parts.path in ("", "/") and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise ValueError(
            "a proxy is written like http://proxy.hospital:3128 or http://user:password@proxy:3128"
        )
    return value


class Tls(Part):
    """What we show those who call us, and whom we ask for a certificate. `subjects`: as who, in a name of the
    certificate; with `*` for anything."""

    certificate: Path
    key: Path
    client_ca: Path | None = None
    subjects: list[Annotated[str, Field(min_length=1)]] = []

    @model_validator(mode="after")
    def _somebody_vouches(self) -> Tls:
        if self.subjects and self.client_ca is None:
            raise ValueError("subjects are those of client certificates: client_ca is missing")
        return self


class Trust(Part):
    """Whom we trust and what we show when we call: `{}` trusts the machine's certificate authorities."""

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None  # none: it lies in the same file

    @model_validator(mode="after")
    def _a_key_is_of_a_certificate(self) -> Trust:
        if self.key is not None and self.certificate is None:
            raise ValueError("a key belongs to a certificate: certificate is missing")
        return self


class ByHttp(Trust):
    proxy: Annotated[SecretStr, AfterValidator(proxy_url)] | None = None  # it may hold a password

    @property
    def names_trust(self) -> bool:
        return self.ca is not None or self.certificate is not None

    @property
    def is_special(self) -> bool:
        return self.names_trust or self.proxy is not None


class ByDimse(Trust):
    tls: bool = False  # as the machine trusts; an authority or certificate of its own says so too

    @property
    def is_secured(self) -> bool:
        return self.tls or self.ca is not None or self.certificate is not None


class Listen(Part):
    """`proxies` may hold any number of connections, and are believed whom they call for."""

    host: str = "127.0.0.1"
    port: Port = 8080
    tls: Tls | None = None
    connections: Positive = 500
    connections_per_address: Positive = 200
    proxies: list[Network] = []  # may hold any number of them, and their X-Forwarded-For is believed
