"""On what terms an archive gives studies: which, when, and how many."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar

from gateway.settings.quantities import Hours, Rate

T = TypeVar("T")
Change = Callable[[Mapping[str, Any], float], tuple[Mapping[str, Any], T]]  # of what was kept, at that time

_SOON = 1.0
_COMES_WITHIN = 60.0  # after the moment that was told; the place is then somebody else's


@dataclass(frozen=True, slots=True)
class Terms:
    only_online: bool = False
    hours: Hours | None = None
    rate: Rate | None = None

    def opens_at(self, now: datetime | None = None) -> datetime | None:
        """None when it is open then. In the server's local time, as the hours are written."""
        if self.hours is None:
            return None
        return self.hours.next_opening(now or datetime.now(UTC))

    @property
    def hours_as_written(self) -> str:
        return "" if self.hours is None else f"{self.hours.opens:%H:%M}-{self.hours.closes:%H:%M}"


class Pulls:
    """The studies fetched from one archive lately, and who waits: never more than `count` within `seconds`.
    Knows no clock: `now` is told, in seconds."""

    def __init__(self, rate: Rate, kept: Mapping[str, Any] | None = None) -> None:
        """`kept`: what `keep` gave."""
        kept = kept or {}
        self._rate = rate
        self._begun: deque[float] = deque(kept.get("begun", ()), maxlen=rate.count)
        self._waiting = [_Waiting(*each) for each in kept.get("waiting", ())]  # in the order of their turns

    def keep(self) -> dict[str, Any]:
        waiting = [[each.who, each.urgent, each.at] for each in self._waiting]
        return {"begun": list(self._begun), "waiting": waiting}

    def ask(self, who: str, now: float, *, urgent: bool = False, beside: bool = False) -> float | None:
        """None where it is the turn of whoever asks, else when it will be. Each is told a place of their own,
        or all would come back at once; the urgent the next. `beside`: only while nobody waits, and half of
        the places stay free for whoever comes then."""
        self._begun = deque(
            (min(begun, now) for begun in self._begun), self._rate.count
        )  # clocks are put back
        places = self._places()
        if beside:
            return self._spare(now, places)
        turn = self._turn(who, now, urgent)
        if turn < sum(at <= now for at in places):
            return None
        rounds, place = divmod(turn, self._rate.count)
        at = max(now, places[place] + rounds * self._rate.seconds)
        self._leave(who)
        self._waiting.insert(turn, _Waiting(who, urgent, at))
        return at

    def take(self, who: str, now: float, *, urgent: bool = False, beside: bool = False) -> float | None:
        """The same, and his turn is taken where it is his."""
        at = self.ask(who, now, urgent=urgent, beside=beside)
        if at is None:
            self._begun.append(now)
            self._leave(who)
        return at

    def give_back(self) -> None:
        if self._begun:
            self._begun.pop()

    def _spare(self, now: float, places: Sequence[float]) -> float | None:
        self._waiting = [each for each in self._waiting if each.at > now - _COMES_WITHIN]
        needed = 1 + (self._rate.count + 1) // 2
        at = sorted(places)[needed - 1] if needed <= len(places) else now + self._rate.seconds
        if at <= now and not self._waiting:
            return None
        return max([at, now + _SOON, *(each.at for each in self._waiting)])

    def _leave(self, who: str) -> None:
        self._waiting = [each for each in self._waiting if each.who != who]

    def _places(self) -> list[float]:
        """When each place of the rate is free, or was."""
        never_taken = [-math.inf] * (self._rate.count - len(self._begun))
        return [*never_taken, *(begun + self._rate.seconds for begun in self._begun)]

    def _turn(self, who: str, now: float, urgent: bool) -> int:
        self._waiting = [each for each in self._waiting if each.at > now - _COMES_WITHIN]
        known = next((turn for turn, each in enumerate(self._waiting) if each.who == who), None)
        if known is not None:
            return known
        return sum(each.urgent for each in self._waiting) if urgent else len(self._waiting)


@dataclass(frozen=True, slots=True)
class _Waiting:
    who: str
    urgent: bool
    at: float


class Ledger(Protocol):
    """Where it is kept what was fetched of each archive, for all who count together."""

    async def change_pulls(self, archive: str, change: Change[T]) -> T: ...


class OwnLedger:
    """For those who count alone."""

    def __init__(self) -> None:
        self._kept: dict[str, Mapping[str, Any]] = {}

    async def change_pulls(self, archive: str, change: Change[T]) -> T:
        self._kept[archive], answer = change(self._kept.get(archive, {}), time.time())
        return answer
