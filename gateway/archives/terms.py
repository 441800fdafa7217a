"""On what terms an archive gives studies: which, when, and how many."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from gateway.settings.quantities import Hours, Rate


@dataclass(frozen=True, slots=True)
class Terms:
    only_online: bool = False
    hours: Hours | None = None
    rate: Rate | None = None

    def opens_at(self) -> datetime | None:
        """None when it is open now. In the server's local time, as the hours are written."""
        if self.hours is None:
            return None
        opening = self.hours.next_opening(datetime.now())
        return None if opening is None else opening.astimezone()

    @property
    def hours_as_written(self) -> str:
        return "" if self.hours is None else f"{self.hours.opens:%H:%M}-{self.hours.closes:%H:%M}"


class Pulls:
    """The studies fetched from one archive lately: never more than `count` within `seconds`.

    Counted in this process alone: with three replicas an archive may see three times its rate.
    """

    def __init__(self, rate: Rate | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._clock = clock
        self._begun: deque[float] = deque(maxlen=rate.count if rate else 1)
        self._waiting: deque[float] = deque()  # what those who wait were told

    def free(self) -> bool:
        rate = self._rate
        return rate is None or len(self._begun) < rate.count or self._clock() >= self._begun[0] + rate.seconds

    def take(self) -> None:
        self._begun.append(self._clock())

    def give_back(self) -> None:
        if self._begun:
            self._begun.pop()

    def free_at(self) -> datetime:
        """Each who asks is told a place of their own, or all would come back at once."""
        if self._rate is None or self.free():
            return datetime.now().astimezone()
        now = self._clock()
        while self._waiting and self._waiting[0] <= now:
            self._waiting.popleft()
        rounds, place = divmod(len(self._waiting), self._rate.count)
        at = self._begun[place] + (1 + rounds) * self._rate.seconds
        self._waiting.append(at)
        return (datetime.now() + timedelta(seconds=at - now)).astimezone()
