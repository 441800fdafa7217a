"""Durations, sizes, rates and opening hours as people write them in the configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {"B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_BYTES |= {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_PER = {"s": 1.0, "sec": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "hour": 3600.0}
_LONGEST = 100 * 366 * 86400.0
_LARGEST = 2**63 - 1


def read_duration(value: Any) -> float:
    """`500ms`, `5s`, `10m`, `24h`, `1d` in seconds; a plain number is seconds already."""
    seconds = _read_number(value, _SECONDS)
    if seconds is None or seconds > _LONGEST:
        raise ValueError("a duration is written like 500ms, 5s, 10m or 24h")
    return float(seconds)


def read_size(value: Any) -> int:
    """`2GB` in bytes; a plain whole number is bytes already."""
    size = None if isinstance(value, float) else _read_number(value, _BYTES)
    if size is None or size > _LARGEST:
        raise ValueError("a size is written like 500MB, 2GB or 1TiB")
    return int(size)


def _read_number(value: Any, units: Mapping[str, float]) -> float | None:
    """Never negative and never NaN; None if it isn't written so."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value if value >= 0 else None
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*", value) if isinstance(value, str) else None
    return None if found is None or found[2] not in units else float(found[1]) * units[found[2]]


Duration = Annotated[float, BeforeValidator(read_duration)]
PositiveDuration = Annotated[Duration, Field(gt=0)]
Size = Annotated[int, BeforeValidator(read_size)]
PositiveSize = Annotated[Size, Field(gt=0)]


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
