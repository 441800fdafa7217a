"""What may stand in gateway.yaml for those who watch what arrives, and what becomes of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, time
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from gateway.settings.parts import Part
from gateway.settings.quantities import Duration, Hours, PositiveDuration, Written

_NAMES = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


@dataclass(frozen=True, slots=True)
class Days(Written):
    """`mon-fri`, or `mon,wed,sat-sun`: days of the week, 0 for Monday."""

    numbers: frozenset[int]

    @classmethod
    def parse(cls, value: str) -> Days:
        numbers: set[int] = set()
        for part in value.lower().split(","):
            found = re.fullmatch(r"\s*([a-z]{3})\s*(?:-\s*([a-z]{3})\s*)?", part)
            names = [name for name in (found.groups() if found else ()) if name is not None]
            if not names or not set(names) <= set(_NAMES):
                raise ValueError("days are written like mon-fri or mon,wed,sat-sun")
            first, last = _NAMES.index(names[0]), _NAMES.index(names[-1])
            numbers |= {(first + step) % 7 for step in range((last - first) % 7 + 1)}
        return cls(frozenset(numbers))

    def __str__(self) -> str:
        runs: list[list[int]] = []
        for number in sorted(self.numbers):
            if runs and runs[-1][-1] == number - 1:
                runs[-1].append(number)
            else:
                runs.append([number])
        return ",".join("-".join(dict.fromkeys((_NAMES[run[0]], _NAMES[run[-1]]))) for run in runs)


EVERY_DAY = Days(frozenset(range(7)))


class Expect(Part):
    """How much is to arrive within any such stretch of open hours; less is an alarm."""

    at_least: int = Field(1, ge=1, le=1000)
    within: PositiveDuration
    hours: Hours | None = None  # none: at all hours
    days: Days = EVERY_DAY
    closed_on: list[date] = Field([], alias="except")


def _clock(value: Any) -> time:
    if isinstance(value, time):
        return value
    if not (isinstance(value, str) and re.fullmatch(r"([01]?\d|2[0-3]):[0-5]\d", value.strip())):
        raise ValueError('a time of day is written like "03:00", in quotes')
    return time.fromisoformat(value.strip().zfill(5))


class Reconcile(Part):
    """Once a day: which studies of the last hours does an archive have that were never processed?
    `applications`: whom they would have been for; none: all that are sent studies of this archive."""

    at: Annotated[time, BeforeValidator(_clock)]
    archive: str
    since: PositiveDuration = 26 * 3600.0
    settle: Duration = 900.0  # younger ones may still be arriving
    applications: list[str] = []


class Canary(Part):
    """A test study goes the whole way to the vendor and back, so often."""

    every: PositiveDuration


class Register(Part):
    """What was accepted: another version of the vendor is flagged, or its results are held (`strict`)."""

    owner: str = ""
    purpose: str = ""
    version: str = ""
    accepted: date | None = None
    strict: bool = False
