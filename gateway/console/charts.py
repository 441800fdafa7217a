"""Small charts as plain shapes, with the same numbers as text for those who don't see them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from itertools import pairwise

from gateway.console import wording
from gateway.jobs.store.overview import Hour
from gateway.watch.drift import Point

WIDTH, HEIGHT, STEP = 120, 28, 5
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 356, 8, 92  # of a course
_APART = 3  # days between two points of its line


@dataclass(frozen=True, slots=True)
class Bar:
    x: int
    y: float
    height: float
    told: str


@dataclass(frozen=True, slots=True)
class Bars:
    """How much was done in each hour of the last day. `told`: all of it, in words."""

    bars: Sequence[Bar]
    told: Sequence[tuple[str, str, str, str]]
    summary: str


def draw_bars(hours: Sequence[tuple[datetime, Hour | None]]) -> Bars:
    most = max((hour.done for _, hour in hours if hour is not None), default=0)
    bars, told = [], []
    for place, (begin, hour) in enumerate(hours):
        done = 0 if hour is None else hour.done
        height = round((HEIGHT - 2) * done / most, 1) if most and done else 0.0
        height = max(height, 1.5) if done else 0.6
        median = None if hour is None else hour.median
        words = f"{begin.astimezone():%H:00}: {done} done"
        if median is not None:
            words += f", half of them within {wording.span(median)}"
        bars.append(Bar(place * STEP, round(HEIGHT - height, 1), height, words))
        if hour is not None and done:
            row = (wording.span(hour.median), wording.span(hour.slowest))
            told.append((f"{begin.astimezone():%H:00}", str(done), *row))
    whole = sum(hour.done for _, hour in hours if hour is not None)
    summary = f"{wording.count(whole)} done in the last day, at most {most} in an hour" if whole else "none"
    return Bars(bars, told, summary)


def percent(share: float) -> str:
    digits = 0 if share == 0 or share >= 0.0995 else 1 if share >= 0.00995 else 2
    return f"{100 * share:.{digits}f}\u00a0%"


def share(count: int, of: int) -> str:
    return percent(count / of) if of else "–"


@dataclass(frozen=True, slots=True)
class Mark:
    """A day; `outside` of its limits."""

    x: float
    y: float
    outside: bool
    told: str


@dataclass(frozen=True, slots=True)
class Course:
    """A rate day by day, over the band where days nearly always lie. `begun`: of the last one, which isn't
    over and not judged. `shifted`: since when it is flagged."""

    marks: Sequence[Mark]
    begun: Mark | None
    line: str
    band: str
    usual: float
    shifted: float | None
    highest: str
    first: str
    last: str
    summary: str


def draw_course(
    points: Sequence[Point], usual: float, shifted: date | None, *, apart: int = _APART, so_far: bool = False
) -> Course:
    """Days on which there was nothing to count leave a gap, if there are more than `apart`. `so_far`: the
    last point is of a time that isn't over."""
    whole, begun = (points[:-1], points[-1:]) if so_far else (points, ())
    seen = [point for point in whole if point.of]
    uppers = sorted(point.upper for point in seen)
    usually_below = uppers[len(uppers) // 2] if uppers else 0.0
    highest = min(1.0, 1.1 * max([usual, usually_below, *(point.rate for point in seen)], default=1.0)) or 1.0
    first = points[0].day
    days = max(1, (points[-1].day - first).days)

    def across(day: date) -> float:
        return round(_LEFT + (_RIGHT - _LEFT) * (day - first).days / days, 1)

    def up(value: float) -> float:
        return round(_BOTTOM - (_BOTTOM - _TOP) * min(value, highest) / highest, 1)

    def mark(point: Point, since: str = "") -> Mark:
        told = f"{point.day:%d %b}{since}: {point.count} of {point.of}, {share(point.count, point.of)}"
        return Mark(across(point.day), up(point.rate), not since and point.is_outside, told)

    marks = [mark(each) for each in seen]
    edge = [(across(each.day), up(each.upper)) for each in seen]
    edge += [(across(each.day), up(each.lower)) for each in reversed(seen)]
    outside = sum(mark.outside for mark in marks)
    return Course(
        marks,
        next((mark(each, " so far") for each in begun if each.of), None),
        _write_line(seen, marks, apart),
        " ".join(f"{x},{y}" for x, y in edge),
        up(usual),
        None if shifted is None or shifted < first else across(shifted),
        percent(highest),
        f"{first:%d %b}",
        f"{points[-1].day:%d %b}{' so far' if so_far else ''}",
        f"usually {percent(usual)}, {_tell_outside(outside)} of {len(seen)} outside the limits",
    )


def _write_line(seen: Sequence[Point], marks: Sequence[Mark], apart: int) -> str:
    if not marks:
        return ""
    line = f"M{marks[0].x} {marks[0].y}"
    for (before, _), (point, mark) in pairwise(zip(seen, marks, strict=True)):
        line += f"{'L' if (point.day - before.day).days <= apart else 'M'}{mark.x} {mark.y}"
    return line


def _tell_outside(days: int) -> str:
    return "no day" if days == 0 else wording.count(days, "day")
