"""Opening hours by the clock on the wall, also on the nights when that is put forward or back."""

from __future__ import annotations

import time as clock
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from gateway.settings.quantities import Hours

BERLIN = ZoneInfo("Europe/Berlin")
# Put forward and back by an hour, by half of one, at midnight, in the other half of the year, never.
ZONES = [
    ZoneInfo(name)
    for name in (
        *("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Santiago"),
        *("Africa/Cairo", "Asia/Kathmandu", "UTC"),
    )
]
CHANGES = [datetime(2026, month, day, tzinfo=UTC) for month, day in ((3, 29), (10, 25), (4, 5), (9, 6))]

times = some.builds(time, some.integers(0, 23), some.sampled_from([0, 15, 30, 59]))
nights = some.builds(
    lambda change, past: change + timedelta(seconds=past),
    some.sampled_from(CHANGES),
    some.integers(-30 * 3600, 30 * 3600),
)
any_time = some.datetimes(datetime(2025, 1, 1), datetime(2028, 1, 1), timezones=some.just(UTC))


def is_open(hours: Hours, moment: datetime, zone: ZoneInfo) -> bool:
    return hours.are_open(moment.astimezone(zone).time())


@settings(max_examples=300)
@given(times, times, some.sampled_from(ZONES), nights | any_time)
def test_it_opens_at_the_first_minute_at_which_it_is_open(
    opens: time, closes: time, zone: ZoneInfo, now: datetime
) -> None:
    hours = Hours(opens, closes)
    opening = hours.next_opening(now, zone)
    if opening is None:
        assert is_open(hours, now, zone)
        return
    assert opening > now
    assert is_open(hours, opening, zone)
    minute = now
    while (minute := minute + timedelta(minutes=1)) < opening:
        assert not is_open(hours, minute, zone)


@pytest.mark.parametrize(
    ("hours", "now", "opening"),
    [  # put forward: 01:59 is followed by 03:00; put back: 02:59 by 02:00
        ("02:00-03:00", "2026-03-29T00:59:59+00:00", "2026-03-30T02:00:00+02:00"),
        ("02:00-03:00", "2026-03-29T01:30:00+00:00", "2026-03-30T02:00:00+02:00"),
        ("02:30-04:00", "2026-03-29T00:30:00+00:00", "2026-03-29T03:00:00+02:00"),
        ("02:30-04:00", "2026-03-29T01:10:00+00:00", None),
        ("02:00-03:00", "2026-10-25T00:10:00+00:00", None),
        ("02:00-03:00", "2026-10-25T01:10:00+00:00", None),
        ("02:00-03:00", "2026-10-25T02:00:00+00:00", "2026-10-26T02:00:00+01:00"),
        ("02:30-02:45", "2026-10-25T00:50:00+00:00", "2026-10-25T02:30:00+01:00"),
        ("01:00-02:30", "2026-10-25T00:40:00+00:00", "2026-10-25T02:00:00+01:00"),
    ],
)
def test_on_the_nights_when_the_clocks_change(hours: str, now: str, opening: str | None) -> None:
    told = Hours.parse(hours).next_opening(datetime.fromisoformat(now), BERLIN)
    expected = None if opening is None else datetime.fromisoformat(opening)
    assert (told and told.timestamp()) == (expected and expected.timestamp())


def test_without_a_zone_the_wall_is_the_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    clock.tzset()
    try:
        for change in CHANGES:
            for hour in range(-8, 8):
                now = change + timedelta(hours=hour, minutes=7)
                for hours in (Hours.parse("02:00-03:00"), Hours.parse("02:30-01:00")):
                    here, there = hours.next_opening(now), hours.next_opening(now, BERLIN)
                    assert (here and here.timestamp()) == (there and there.timestamp())
    finally:
        monkeypatch.undo()
        clock.tzset()


@pytest.mark.parametrize("hours", ["07:00-07:00", "0:00-00:00"])
def test_hours_that_open_and_close_at_once_are_refused(hours: str) -> None:
    with pytest.raises(ValueError, match="leave hours out"):
        Hours.parse(hours)
