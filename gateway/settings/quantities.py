"""Durations, sizes, rates and opening hours as people write them in the configuration."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta, tzinfo
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
BYTES = {"B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
BYTES |= {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_WRITTEN = {1.0: "s", 60.0: "min", 3600.0: "h"}
_PER = {"s": 1.0, "sec": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "hour": 3600.0}
_LONGEST = 100 * 366 * 86400.0
_LARGEST = 2**63 - 1


def read_duration(value: Any) -> float:
    """`500ms`, `5s`, `10m`, `24h`, `1d` in seconds; a plain number is seconds already."""
    seconds = _read_number(value, SECONDS)
    if seconds is None or seconds > _LONGEST:
        raise ValueError("a duration is written like 500ms, 5s, 10m or 24h")
    return float(seconds)


def read_size(value: Any) -> int:
    """`2GB` in bytes; a plain whole number is bytes already."""
    size = None if isinstance(value, float) else _read_number(value, BYTES)
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


class Written:
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
class Rate(Written):
    """`20/min`: so many in so many seconds."""

    count: int
    seconds: float

    @classmethod
    def parse(cls, value: str) -> Rate:
        found = re.fullmatch(r"\s*(\d+)\s*/\s*([a-z]+)\s*", value)
        if found is None or found[2] not in _PER or int(found[1]) == 0:
            raise ValueError("a rate is written like 5/s, 20/min or 100/h")
        return cls(int(found[1]), _PER[found[2]])

    def __str__(self) -> str:
        return f"{self.count}/{_WRITTEN[self.seconds]}"


@dataclass(frozen=True, slots=True)
class Hours(Written):
    """`19:00-07:00`: the opening hours, in the server's local time; they may pass midnight."""

    opens: time
    closes: time

    @classmethod
    def parse(cls, value: str) -> Hours:
        found = re.fullmatch(r"\s*(\d\d?:\d\d)\s*-\s*(\d\d?:\d\d)\s*", value)
        try:
            if found is not None:
                opens, closes = (time.fromisoformat(each.zfill(5)) for each in found.groups())
        except ValueError:
            found = None
        if found is None:
            raise ValueError("hours are written like 19:00-07:00")
        if opens == closes:
            raise ValueError(f"{value.strip()} is no time at all, or all day; for all day, leave hours out")
        return cls(opens, closes)

    def __str__(self) -> str:
        return f"{self.opens:%H:%M}-{self.closes:%H:%M}"

    def are_open(self, clock: time) -> bool:
        if self.opens < self.closes:
            return self.opens <= clock < self.closes
        return clock >= self.opens or clock < self.closes

    def next_opening(self, now: datetime, zone: tzinfo | None = None) -> datetime | None:
        """None when it is open at `now`, else when it opens next: by the clock on the wall, also on nights
        when that is put forward or back. `zone`: where the wall is; the server's, if none is named."""
        if self.are_open(now.astimezone(zone).time()):
            return None
        days = [now.astimezone(zone).date() + timedelta(days=day) for day in range(_DAYS)]
        openings = [
            datetime.combine(day, self.opens).replace(tzinfo=zone, fold=fold)
            for day in days
            for fold in (0, 1)
        ]
        moments = [opening.astimezone(UTC) for opening in openings] + _changes(now, zone)
        soonest = min(
            moment for moment in moments if moment > now and self.are_open(moment.astimezone(zone).time())
        )
        return soonest.astimezone(zone)


_DAYS = 4  # in one of them it opens, whatever the clock does


def _changes(now: datetime, zone: tzinfo | None) -> list[datetime]:
    """When the clock on the wall will be put forward or back, as long as we look ahead."""

    def offset(minute: int) -> timedelta | None:
        return (begin + timedelta(minutes=minute)).astimezone(zone).utcoffset()

    begin, hours = now.astimezone(UTC).replace(second=0, microsecond=0), range(0, _DAYS * 24 * 60, 60)
    found = []
    for hour in hours:
        if offset(hour) != offset(hour + 60):
            minute = bisect_left(range(60), True, key=lambda past: offset(hour + past + 1) != offset(hour))
            found.append(begin + timedelta(minutes=hour + minute + 1))
    return found
