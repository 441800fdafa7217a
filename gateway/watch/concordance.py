"""How far an application's vendor and its shadow agree: finding by finding, over time, in what time, and what
failed. Pure.

Only studies with a result of both are compared. A vendor that doesn't name a finding hasn't found it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from statistics import median

from gateway.jobs.store.shadows import Pair
from gateway.watch.proportions import Estimate, kappa

ANY = "any finding"
_RESULT = "result"
_BY_DAY = timedelta(days=21)  # as long as it lasts, days are told; then weeks


@dataclass(frozen=True, slots=True)
class Fourfold:
    """Studies in which both found it, one of both, or neither."""

    both: int
    own: int
    shadow: int
    neither: int

    @property
    def studies(self) -> int:
        return self.both + self.own + self.shadow + self.neither

    @property
    def agreement(self) -> float | None:
        return (self.both + self.neither) / self.studies if self.studies else None

    @property
    def kappa(self) -> Estimate | None:
        return kappa([[self.both, self.own], [self.shadow, self.neither]])


@dataclass(frozen=True, slots=True)
class Period:
    """`first`, `last`: its days. `findings`: as in the whole."""

    first: date
    last: date
    findings: Mapping[str, Fourfold]

    def is_so_far(self, today: date) -> bool:
        """Whether there may be more of it."""
        return today <= self.last

    def until(self, today: date) -> date:
        return min(self.last, today)


@dataclass(frozen=True, slots=True)
class Concordance:
    """`findings`: first any at all, then each by its name. `own_ends`, `shadow_ends`: how many came to which
    end. `differing`: the studies of which both didn't find the same, the newest first."""

    shadow: str
    studies: int
    under_way: int
    findings: Mapping[str, Fourfold]
    periods: Sequence[Period]
    own_ends: Mapping[str, int]
    shadow_ends: Mapping[str, int]
    own_seconds: float | None
    shadow_seconds: float | None
    differing: Sequence[Pair]

    @property
    def compared(self) -> int:
        return self.findings[ANY].studies


def compare(pairs: Iterable[Pair]) -> list[Concordance]:
    """Of each shadow; `pairs` the newest first."""
    by_shadow: dict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        by_shadow[pair.shadow].append(pair)
    return [_compare(shadow, each) for shadow, each in sorted(by_shadow.items())]


def _compare(shadow: str, pairs: Sequence[Pair]) -> Concordance:
    ended = [pair for pair in pairs if pair.outcome is not None]
    told = [pair for pair in ended if pair.outcome == pair.own_outcome == _RESULT]
    names = sorted({name for pair in told for name in (*pair.own_found, *pair.found)})
    by_period: dict[tuple[date, date], list[Pair]] = defaultdict(list)
    for pair in reversed(told):
        by_period[_period_of(pair, told)].append(pair)
    return Concordance(
        shadow,
        len(pairs),
        len(pairs) - len(ended),
        _count_all(told, names),
        [Period(*days, _count_all(each, names)) for days, each in by_period.items()],
        Counter(pair.own_outcome or "" for pair in ended),
        Counter(pair.outcome or "" for pair in ended),
        _median(pair.own_seconds for pair in told),
        _median(pair.seconds for pair in told),
        [pair for pair in told if set(pair.own_found) != set(pair.found)],
    )


def _count_all(pairs: Sequence[Pair], names: Sequence[str]) -> dict[str, Fourfold]:
    counts = {ANY: _count((bool(pair.own_found), bool(pair.found)) for pair in pairs)}
    for name in names:
        counts[name] = _count((name in pair.own_found, name in pair.found) for pair in pairs)
    return counts


def _count(said: Iterable[tuple[bool, bool]]) -> Fourfold:
    counts = Counter(said)
    return Fourfold(*(counts[each] for each in ((True, True), (True, False), (False, True), (False, False))))


def _period_of(pair: Pair, told: Sequence[Pair]) -> tuple[date, date]:
    day = pair.began_at.astimezone().date()
    if told[0].began_at - told[-1].began_at < _BY_DAY:
        return day, day
    monday = day - timedelta(days=day.weekday())
    return monday, monday + timedelta(days=6)


def _median(seconds: Iterable[float | None]) -> float | None:
    known = [each for each in seconds if each is not None]
    return median(known) if known else None
