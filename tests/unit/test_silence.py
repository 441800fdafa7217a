"""Too little came: only open hours count, by the clock on the wall, also on nights when that changes."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as some
from pydantic import ValidationError

from gateway.settings.watching import Days, Expect
from gateway.watch.silence import is_silent, open_time

BERLIN = ZoneInfo("Europe/Berlin")
ZONES = [ZoneInfo(name) for name in ("Europe/Berlin", "Australia/Lord_Howe", "America/Santiago", "UTC")]
CHANGES = [datetime(2026, month, day, tzinfo=UTC) for month, day in ((3, 29), (10, 25), (4, 5), (9, 6))]
MINUTE = timedelta(minutes=1)


def expecting(**keys: object) -> Expect:
    return Expect.model_validate({"within": "4h", "hours": "07:00-19:00", "days": "mon-fri", **keys})


def is_open(expect: Expect, moment: datetime, zone: ZoneInfo) -> bool:
    """A second way to say it: minute by minute."""
    wall = moment.astimezone(zone)
    hours = expect.hours
    if hours is None or hours.opens == hours.closes:
        begins = wall.date() - timedelta(days=hours is not None and wall.time() < hours.opens)
        return begins.weekday() in expect.days.numbers and begins not in expect.closed_on
    past_midnight = hours.opens > hours.closes and wall.time() < hours.closes
    day = wall.date() - timedelta(days=past_midnight)
    return (
        hours.are_open(wall.time()) and day.weekday() in expect.days.numbers and day not in expect.closed_on
    )


times = some.builds(time, some.integers(0, 23), some.sampled_from([0, 30]))
nights = some.builds(
    lambda change, past: change + timedelta(minutes=past),
    some.sampled_from(CHANGES),
    some.integers(-24 * 60, 24 * 60),
)


@settings(max_examples=50)
@given(times, times, some.sampled_from(ZONES), nights, some.integers(0, 36 * 60), some.booleans())
def test_open_time_is_what_the_clock_on_the_wall_says(
    opens: time, closes: time, zone: ZoneInfo, begin: datetime, minutes: int, closed: bool
) -> None:
    assume(opens != closes)  # such hours are refused
    expect = expecting(
        hours=f"{opens:%H:%M}-{closes:%H:%M}",
        days="sat-sun" if closed else "mon-sun",
        **({"except": [begin.date().isoformat()]} if closed else {}),
    )
    counted = sum(is_open(expect, begin + step * MINUTE, zone) for step in range(minutes))
    assert open_time(expect, begin, begin + minutes * MINUTE, zone) == counted * MINUTE


@pytest.mark.parametrize(
    ("last", "now", "silent"),
    [
        ("2026-06-05 15:00", "2026-06-05 18:59", False),
        ("2026-06-05 15:00", "2026-06-05 19:00", True),
        ("2026-06-05 15:01", "2026-06-08 06:59", False),  # over the weekend
        ("2026-06-05 15:01", "2026-06-08 07:01", True),
        ("2026-06-05 06:00", "2026-06-05 10:59", False),  # what came before it opened counts for nothing
        ("2026-12-24 17:00", "2026-12-28 08:59", False),  # over Christmas
        ("2026-12-24 17:00", "2026-12-28 09:00", True),
    ],
)
def test_only_open_hours_count(last: str, now: str, silent: bool) -> None:
    expect = expecting(**{"except": ["2026-12-25"]})
    came = datetime.fromisoformat(last).replace(tzinfo=BERLIN)
    assert (
        is_silent(expect, [came], datetime.fromisoformat(now).replace(tzinfo=BERLIN), zone=BERLIN) is silent
    )


def test_several_may_have_to_come() -> None:
    expect = expecting(at_least=3, days="mon-sun")
    now = datetime(2026, 6, 5, 12, tzinfo=BERLIN)
    came = [now - timedelta(hours=hours) for hours in (1, 2, 3)]
    assert not is_silent(expect, came, now, zone=BERLIN)
    assert is_silent(expect, came, now + timedelta(hours=1), zone=BERLIN)
    assert is_silent(expect, came[:2], now, zone=BERLIN)
    assert not is_silent(expect, came[:2], now, now - timedelta(hours=3), zone=BERLIN), "seen for too short"


def arrivals_of(seed: int, begin: datetime, days: int) -> list[datetime]:
    """By day one each quarter of an hour or so; by night and at the weekend a few."""
    chance, now, came = random.Random(seed), begin, []
    while now < begin + timedelta(days=days):
        now += timedelta(minutes=chance.expovariate(1 / 15))
        wall = now.astimezone(BERLIN)
        if (6 <= wall.hour < 20 and wall.weekday() < 5) or chance.random() < 0.1:
            came.append(now)
    return came


def alarms(expect: Expect, came: Sequence[datetime], begin: datetime, days: int) -> list[datetime]:
    """When one was raised, looking each quarter of an hour; it stands until enough came again."""
    raised, stands = [], False
    for step in range(days * 96):
        now = begin + step * 15 * MINUTE
        seen = bisect_right(came, now)
        last = came[max(0, seen - expect.at_least) : seen][::-1]
        if stands:
            stands = is_silent(expect, last, now, zone=BERLIN)
        elif is_silent(expect, last, now, begin, BERLIN):
            raised.append(now)
            stands = True
    return raised


@pytest.mark.parametrize("begin", [datetime(2026, 3, 23, tzinfo=UTC), datetime(2026, 10, 19, tzinfo=UTC)])
def test_clean_fortnights_raise_none_and_a_cut_source_one_in_time(begin: datetime) -> None:
    expect = expecting()
    for seed in range(4):
        came = arrivals_of(seed, begin, 14)
        assert alarms(expect, came, begin, 14) == [], seed
        cut = begin + timedelta(days=random.Random(seed).uniform(1, 9))
        mended = cut + timedelta(days=4)
        [raised] = alarms(expect, [each for each in came if not cut < each < mended], begin, 14)
        within = open_time(expect, cut, raised, BERLIN)
        assert within <= timedelta(hours=4, minutes=15), seed


def test_days_are_read() -> None:
    assert Days.parse("mon-fri").numbers == set(range(5))
    assert Days.parse("Sat-mon, wed").numbers == {5, 6, 0, 2}
    for wrong in ("", "monday", "mon-", "fri-mon-tue"):
        with pytest.raises(ValueError, match="written like mon-fri"):
            Days.parse(wrong)
    with pytest.raises(ValidationError):
        expecting(within="0s")
    assert expecting(**{"except": ["2026-12-25"]}).closed_on == [date(2026, 12, 25)]
