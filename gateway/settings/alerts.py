"""Who hears of what is wrong, and how often."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, SecretStr, model_validator

from gateway.settings.addresses import HttpUrl
from gateway.settings.parts import Part, PeerPort, shaped
from gateway.settings.quantities import Duration, PositiveDuration
from gateway.settings.transport import ByHttp, Trust

_Address = Annotated[
    str,
    shaped(r"[^@\s,<>]+@[^@\s,<>]+", "an address is written like it@hospital, with nothing besides"),
]


class Webhook(ByHttp):
    url: HttpUrl
    token: SecretStr | None = None


class Email(Trust):
    """`tls`: none chosen encrypts where the server offers it, before anything is said."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=False)

    host: str
    port: PeerPort = 25
    from_: Annotated[_Address, Field(alias="from")]
    to: Annotated[list[_Address], Field(min_length=1)]
    tls: Literal["none", "starttls", "tls"] | None = None
    username: str | None = None
    password: SecretStr | None = None

    @model_validator(mode="after")
    def _a_password_goes_encrypted(self) -> Email:
        if (self.username is None) != (self.password is None):
            raise ValueError("username and password go together")
        if self.username is not None and self.tls not in ("starttls", "tls"):
            raise ValueError("a password goes encrypted only: set tls to starttls or tls")
        return self


class Alerts(Part):
    """`group`: a cause that comes again so soon is told once. `remind`: how often, while it stands.
    `ask_idle`: a peer that gave no sign for so long is asked how it is, unless it has `hours`; 0s: none."""

    webhook: Webhook | None = None
    email: Email | None = None
    group: Duration = 60.0
    remind: PositiveDuration = 4 * 3600.0
    ask_idle: Duration = 30.0
