"""Who collects traces, and of which part of all jobs."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, SecretStr

from gateway.settings.addresses import HttpUrl
from gateway.settings.transport import ByHttp


class Traces(ByHttp):
    """`endpoint`: of OTLP over HTTP, as http://collector:4318."""

    endpoint: HttpUrl
    token: SecretStr | None = None
    sample: Annotated[float, Field(gt=0, le=1)] = 0.1
