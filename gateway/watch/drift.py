"""Whether a vendor's results have shifted, without knowing what was true: how many are positive, empty, slow,
unsuitable or failed, by application and version of the vendor, compared with its first accepted weeks.

Each rate is watched by CUSUMs of the log-likelihood ratio of exact binomial counts: for odds that doubled or
halved, and for odds six times as high or low, which finds what is rare and leaps. The binomial is right for
rates of a few in a thousand and for days with two studies, where charts with normal limits (Shewhart, EWMA)
cry wolf; and of all that raise as few false alarms a CUSUM sees a lasting shift soonest. While nothing
shifts, each such ratio, begun on any day, reaches e^h with a probability of e^-h at most (Ville): summed over
charts and days that bounds the false alarms, though loosely. So h is set by simulation, above which less
than 5 % of runs of nine weeks raise any (1 to 2 % do; the test counts them in a thousand), while odds that
more than double are flagged within a week at forty studies a day. What the first weeks say is itself
uncertain: each chart begins from the end of that uncertainty that is nearer to what it looks for.

It supposes that studies are alike from day to day: another scanner, or a new season, is flagged as well, and
a person finds out which it was.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from math import log, log2, sqrt

RATES = ("positive", "empty", "slow", "unsuitable", "failed")
_OF_RESULTS = ("positive", "empty", "slow")  # the others are of all that ended
_ODDS = (2.0, 1 / 2, 6.0, 1 / 6)
_LIMIT = 9.0
_SLACK = 2.0  # so far above it is counted, and so far below a flag falls
BASELINE = timedelta(days=28)
LEAST = 200  # that ended, or the first weeks are made longer
_SLOW = 0.9  # of the first weeks' results are faster than what is slow
_SIGMAS = 1.0


def bucket_of(seconds: float) -> int:
    """Of a time to result: four to each doubling."""
    return round(4 * log2(max(seconds, 0.1)))


@dataclass(frozen=True, slots=True)
class Day:
    """`took`: how many results by the bucket of their time."""

    day: date
    results: int = 0
    positive: int = 0
    empty: int = 0
    unsuitable: int = 0
    failed: int = 0
    took: Mapping[int, int] = field(default_factory=dict)

    @property
    def ended(self) -> int:
        return self.results + self.unsuitable + self.failed


@dataclass(frozen=True, slots=True)
class Point:
    """`lower`, `upper`: where a single day's rate lies nearly always."""

    day: date
    count: int
    of: int
    lower: float
    upper: float

    @property
    def rate(self) -> float:
        return self.count / self.of

    @property
    def is_outside(self) -> bool:
        return not self.lower <= self.rate <= self.upper


@dataclass(frozen=True, slots=True)
class Chart:
    """`usual`: the rate of the first weeks. `shifted`: since when it is flagged, and which way."""

    rate: str
    usual: float
    points: tuple[Point, ...]
    shifted: date | None
    higher: bool


def time_within(days: Sequence[Day], share: float) -> float | None:
    """So many seconds took this share of the results, or less; as exactly as they are counted."""
    bucket = _bucket_within(days, share)
    return None if bucket is None else round(2 ** (bucket / 4), 2)


def is_learning(days: Sequence[Day], accepted: date | None = None, today: date | None = None) -> bool:
    first, rest = _split(days, accepted, today)
    return not rest and not _is_enough(first)


def judge(days: Sequence[Day], accepted: date | None = None, today: date | None = None) -> list[Chart]:
    """One chart for each rate; none while the first weeks aren't over. `days` in their order; `accepted`:
    what was before isn't counted; `today`: it has a point as far as it went, and isn't judged yet."""
    first, rest = _split(days, accepted, today)
    if not _is_enough(first):
        return []
    slow, begun = _slow_from(first), [day for day in days if day.day == today]
    return [_chart(rate, first, rest, begun, slow) for rate in RATES]


def _split(days: Sequence[Day], accepted: date | None, today: date | None) -> tuple[list[Day], list[Day]]:
    counted = [day for day in days if day.day != today and (accepted is None or day.day >= accepted)]
    for number, day in enumerate(counted):
        if day.day >= counted[0].day + BASELINE and sum(each.ended for each in counted[:number]) >= LEAST:
            return counted[:number], counted[number:]
    return counted, []


def _is_enough(first: Sequence[Day]) -> bool:
    within = first and first[-1].day >= first[0].day + BASELINE - timedelta(days=1)
    return bool(within) and sum(day.ended for day in first) >= LEAST


def _slow_from(first: Sequence[Day]) -> int:
    fast = _bucket_within(first, _SLOW)
    return 0 if fast is None else fast + 1


def _bucket_within(days: Sequence[Day], share: float) -> int | None:
    took: Counter[int] = Counter()
    for day in days:
        took.update(day.took)
    passed, all_of_them = 0, took.total()
    for bucket in sorted(took):
        passed += took[bucket]
        if passed >= share * all_of_them:
            return bucket
    return None


def _count(rate: str, day: Day, slow: int) -> tuple[int, int]:
    of = day.results if rate in _OF_RESULTS else day.ended
    if rate == "slow":
        return sum(count for bucket, count in day.took.items() if bucket >= slow), sum(day.took.values())
    return getattr(day, rate), of


def _chart(rate: str, first: Sequence[Day], rest: Sequence[Day], begun: Sequence[Day], slow: int) -> Chart:
    met = [_count(rate, day, slow) for day in first]
    number = sum(of for _, of in met)
    usual = (sum(count for count, _ in met) + 0.5) / (number + 1)
    counted = [(day.day, *_count(rate, day, slow)) for day in (*first, *rest, *begun)]
    points = [Point(day, count, of, *_limits(usual, of)) for day, count, of in counted]
    shifted, higher = _follow(counted[len(first) : len(first) + len(rest)], usual, number)
    return Chart(rate, usual, tuple(points), shifted, higher)


def _limits(usual: float, of: int) -> tuple[float, float]:
    if of == 0:
        return 0.0, 1.0
    wide = 3 * sqrt(usual * (1 - usual) / of)
    return max(0.0, usual - wide), min(1.0, usual + wide)


def _follow(counted: Sequence[tuple[date, int, int]], usual: float, number: int) -> tuple[date | None, bool]:
    found: tuple[date | None, bool] = (None, False)
    for odds in _ODDS:
        null = _doubted(usual, number, higher=odds > 1)
        other = null * odds / (1 - null + null * odds)
        hit, miss = log(other / null), log((1 - other) / (1 - null))
        sum_, since = 0.0, None
        for day, count, of in counted:
            sum_ = min(max(0.0, sum_ + count * hit + (of - count) * miss), _LIMIT + _SLACK)
            if sum_ >= _LIMIT:
                since = since or day
            elif sum_ < _LIMIT - _SLACK:
                since = None
        if since is not None and (found[0] is None or since < found[0]):
            found = since, odds > 1
    return found


def _doubted(usual: float, number: int, *, higher: bool) -> float:
    wide = _SIGMAS * sqrt(usual * (1 - usual) / max(1, number))
    return min(0.999, usual + wide) if higher else max(0.5 / (number + 1), usual - wide)
