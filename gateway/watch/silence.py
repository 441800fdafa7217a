"""Applications that are sent too little: a source that was cut off, a rule upstream that somebody changed.

Only open hours count. An alarm is raised once for all replicas and stands until enough arrives again. Whoever
has just started has seen no silence yet, and nobody arrives for as long as the gateway isn't there: the time
begins with the process. A paused application raises none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta, tzinfo

import structlog

from gateway.jobs.store import Store
from gateway.loops import Loop
from gateway.settings.quantities import Hours
from gateway.settings.sections import Settings
from gateway.settings.watching import Expect

log = structlog.get_logger(__name__)

_LOOK = 30.0
_DAY, _HOUR = timedelta(days=1), timedelta(hours=1)
_ALL_DAY = Hours(time(), time())


def is_silent(
    expect: Expect,
    arrivals: Sequence[datetime],
    now: datetime,
    since: datetime | None = None,
    zone: tzinfo | None = None,
) -> bool:
    """Whether less than enough came within the last open hours. `arrivals`: the newest first, as many as are
    enough. `since`: for how long anybody has looked; None if always. `zone`: whose clock on the wall; the
    server's, if none is named."""
    begin = arrivals[expect.at_least - 1] if len(arrivals) >= expect.at_least else None
    if begin is None:
        if since is None:
            return True
        begin = since
    elif since is not None:
        begin = max(begin, since)
    within = timedelta(seconds=expect.within)
    if now - begin < within:
        return False
    return open_time(expect, begin, now, zone, enough=within) >= within


def open_time(
    expect: Expect,
    begin: datetime,
    end: datetime,
    zone: tzinfo | None = None,
    *,
    enough: timedelta = timedelta.max,
) -> timedelta:
    """How much of that was open, by the clock on the wall, also on nights when that is put forward or back.
    Looks back from the end until it was `enough`."""
    opened = timedelta()
    for first, last, offset in _stretches(begin, end, zone):
        wall = first + offset, last + offset
        day = wall[1].date()
        while day >= wall[0].date() - _DAY:  # one that began the evening before may last till here
            opened += _overlap(wall, _hours_of(expect, day))
            day -= _DAY
        if opened >= enough:
            break
    return opened


def _stretches(
    begin: datetime, end: datetime, zone: tzinfo | None
) -> Iterator[tuple[datetime, datetime, timedelta]]:
    """Each with its offset from UTC, the last first, an hour at most; in UTC, though they don't say so."""
    begin, now = begin.astimezone(UTC), end.astimezone(UTC)
    while now > begin:
        before = max(begin, now - _HOUR)
        last, first = _offset(now - timedelta.resolution, zone), _offset(before, zone)
        if last != first:
            before = _changed_between(before, now, zone)
        yield before.replace(tzinfo=None), now.replace(tzinfo=None), last
        now = before


def _changed_between(before: datetime, after: datetime, zone: tzinfo | None) -> datetime:
    """To the second: the first moment of the offset that there is just before `after`."""
    last = _offset(after - timedelta.resolution, zone)
    low, high = 0, round((after - before).total_seconds())
    while high - low > 1:
        middle = (low + high) // 2
        if _offset(before + timedelta(seconds=middle), zone) == last:
            high = middle
        else:
            low = middle
    changed = (before + timedelta(seconds=high)).replace(microsecond=0)
    return min(max(changed, before + timedelta.resolution), after - timedelta.resolution)


def _offset(moment: datetime, zone: tzinfo | None) -> timedelta:
    offset = moment.astimezone(zone).utcoffset()
    assert offset is not None
    return offset


def _hours_of(expect: Expect, day: date) -> tuple[datetime, datetime] | None:
    if day.weekday() not in expect.days.numbers or day in expect.closed_on:
        return None
    hours = expect.hours or _ALL_DAY
    opens, closes = datetime.combine(day, hours.opens), datetime.combine(day, hours.closes)
    return opens, closes if closes > opens else closes + _DAY


def _overlap(one: tuple[datetime, datetime], other: tuple[datetime, datetime] | None) -> timedelta:
    if other is None:
        return timedelta()
    return max(timedelta(), min(one[1], other[1]) - max(one[0], other[0]))


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Silence:
    def __init__(self, settings: Settings, store: Store, clock: Callable[[], datetime] = _utc_now) -> None:
        self._applications = {
            name: (application.display_name, application.expect)
            for name, application in settings.applications.items()
            if application.expect is not None
        }
        self._store = store
        self._clock = clock
        began = clock()
        self._since = dict.fromkeys(self._applications, began)

    async def run(self) -> None:
        """Until it is cancelled; at once if nothing is expected."""
        if self._applications:
            await Loop("silence").run(self.look, pause=_LOOK)

    async def look(self) -> None:
        paused = {pause.peer for pause in await self._store.pauses()}
        for name, (called, expect) in self._applications.items():
            assert expect is not None
            cause, now = f"silence.{name}", self._clock()
            if f"applications.{name}" in paused:
                self._since[name] = now
                await self._store.clear_alert(cause)
                continue
            arrivals = await self._store.arrivals(name, expect.at_least)
            if not is_silent(expect, arrivals, now):
                await self._store.clear_alert(cause)
            elif is_silent(expect, arrivals, now, self._since[name]):
                sentence = _tell(called, expect, arrivals)
                if await self._store.raise_alert(cause, sentence, _ADVICE.format(name=name)):
                    log.warning("an application is sent too little", application=name)


_ADVICE = (
    "See whether whatever sends to {name} (Sectra, the modality, the router) is up and still sends there;"
    " pause the application if nothing is meant to come."
)


def _tell(called: str, expect: Expect, arrivals: Sequence[datetime]) -> str:
    last = f", the last at {arrivals[0].astimezone():%Y-%m-%d %H:%M}" if arrivals else ""
    few = "nothing" if expect.at_least == 1 else f"less than {expect.at_least}"
    return f"{called} got {few} within {_hours(expect.within)} of its hours{last}"


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:g} h" if seconds >= 3600 else f"{seconds / 60:g} min"
