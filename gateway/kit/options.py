"""What the options of most vendors begin with; an adapter adds its own, and other defaults where it must."""

from __future__ import annotations

from typing import Annotated

import aiohttp
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from gateway.http import LeastRate
from gateway.kit.quantities import Duration, PositiveDuration, PositiveSize


def _without_slash(url: str) -> str:
    return url.rstrip("/")


Url = Annotated[str, Field(pattern=r"^https?://[^/?#]+[^?#]*$"), AfterValidator(_without_slash)]


class Options(BaseModel):
    """The adapter's part of gateway.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    connect_timeout: PositiveDuration = 10.0
    read_timeout: PositiveDuration = 60.0  # the longest silence, in either direction
    call_timeout: PositiveDuration = 120.0  # the whole of a small call
    least_rate: PositiveSize = 1024  # bytes a second that a transfer must carry, which has no other limit

    @property
    def least(self) -> LeastRate:
        return LeastRate(self.least_rate, self.read_timeout)


class WebOptions(Options):
    url: Url

    def limits(self, *, transfer: bool = False) -> aiohttp.ClientTimeout:
        return aiohttp.ClientTimeout(
            total=None if transfer else self.call_timeout,
            connect=self.connect_timeout,
            sock_connect=self.connect_timeout,
            sock_read=self.read_timeout,
        )


class PolledOptions(Options):
    first_poll: PositiveDuration = 2.0
    slowest_poll: PositiveDuration = 30.0


class AwaitedOptions(PolledOptions):
    """Of a vendor that says nothing of its progress."""

    quiet: Duration = 10.0  # the results are complete once nothing new came for so long
    empty_after: PositiveDuration | None = None  # a vendor that finds nothing returns nothing: by then it has
