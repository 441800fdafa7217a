"""Who is told what was done with patients' data."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field

from gateway.settings.addresses import SyslogAddress
from gateway.settings.transport import Trust


class AuditLog(Trust):
    """`source`: by what name we tell it, if not by the host of public_url."""

    syslog: SyslogAddress
    source: Annotated[str, Field(min_length=1)] | None = None

    @property
    def host(self) -> str:
        return urlsplit(self.syslog).hostname or ""

    @property
    def port(self) -> int:
        return urlsplit(self.syslog).port or 6514
