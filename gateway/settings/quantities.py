"""Durations, sizes, rates and opening hours as people write them in the configuration."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import Annotated, Any

from pydantic import BeforeValidator, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {"B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_BYTES |= {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_PER = {"s": 1.0, "sec": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "hour": 3600.0}


def read_duration(value: Any) -> float:
    """`500ms`, `5s`, `10m`, `24h` in seconds."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)\s*", value) if isinstance(value, str) else None
    if found is None:
        raise ValueError("a duration is written like 500ms, 5s, 10m or 24h")
    return float(found[1]) * _SECONDS[found[2]]


def read_size(value: Any) -> int:
    """`2GB` in bytes; a plain number is bytes already."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kKMGT]?i?B)\s*", value) if isinstance(value, str) else None
    if found is None or found[2] not in _BYTES:
        raise ValueError("a size is written like 500MB, 2GB or 1TiB")
    return int(float(found[1]) * _BYTES[found[2]])


Duration = Annotated[float, BeforeValidator(read_duration)]
Size = Annotated[int, BeforeValidator(read_size)]


class _Written:
    """A value that the configuration writes as a string; pydantic reads it through `parse`."""

    @classmethod
    def parse(cls, value: str) -> Any:
        raise ValueError(value)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def read(value: Any) -> Any:
            return value if isinstance(value, cls) else cls.parse(value if isinstance(value, str) else "")

        return core_schema.no_info_plain_validator_function(read)


@dataclass(frozen=True, slots=True)
class Rate(_Written):
    """`20/min`: so many in so many seconds."""

    count: int
    seconds: float

    @classmethod
    def parse(cls, value: str) -> Rate:
        found = re.fullmatch(r"\s*(\d+)\s*/\s*([a-z]+)\s*", value)
        if found is None or found[2] not in _PER or int(found[1]) == 0:
            raise ValueError("a rate is written like 5/s, 20/min or 100/h")
        return cls(int(found[1]), _PER[found[2]])


@dataclass(frozen=True, slots=True)
class Hours(_Written):
    """`19:00-07:00`: the opening hours, in the server's local time; they may pass midnight."""

    opens: time
    closes: time

    @classmethod
    def parse(cls, value: str) -> Hours:
        found = re.fullmatch(r"\s*(\d\d?:\d\d)\s*-\s*(\d\d?:\d\d)\s*", value)
        try:
            if found is not None:
                return cls(time.fromisoformat(found[1].zfill(5)), time.fromisoformat(found[2].zfill(5)))
        except ValueError:
            pass
        raise ValueError("hours are written like 19:00-07:00")

    def next_opening(self, now: datetime) -> datetime | None:
        """None when it is open at `now`, else when it opens next."""
        clock = now.time().replace(tzinfo=None)
        if self.opens == self.closes:
            return None
        if self.opens < self.closes:
            is_open = self.opens <= clock < self.closes
        else:
            is_open = clock >= self.opens or clock < self.closes
        if is_open:
            return None
        opening = now.replace(hour=self.opens.hour, minute=self.opens.minute, second=0, microsecond=0)
        return opening if opening > now else opening + timedelta(days=1)
