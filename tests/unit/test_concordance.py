"""How two vendors agree on the same studies: counted, and over time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from uuid import uuid4

from hypothesis import given
from hypothesis import strategies as some

from gateway.jobs.store.shadows import Pair
from gateway.watch.concordance import ANY, Fourfold, compare

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)  # a Monday


def pair(
    own: Sequence[str] = (),
    found: Sequence[str] = (),
    *,
    days: int = 0,
    outcome: str | None = "result",
    own_outcome: str | None = "result",
    seconds: float | None = None,
) -> Pair:
    at = NOON + timedelta(days=days)
    made = own_outcome, "1", seconds, own, outcome, "2", seconds and 2 * seconds, found
    return Pair("trauma", "second", uuid4(), uuid4(), at, *made)


def test_what_is_counted() -> None:
    pairs = [
        pair(["fracture"], ["fracture"], seconds=10),
        pair(["fracture", "effusion"], ["fracture"], seconds=30),
        pair([], ["effusion"], seconds=20),
        pair(),
        pair(["fracture"], outcome="failed"),
        pair(outcome="result", own_outcome="failed"),
        pair(outcome=None, own_outcome=None),
    ]
    [told] = compare(pairs)
    assert (told.studies, told.compared, told.under_way) == (7, 4, 1)
    assert dict(told.findings) == {
        ANY: Fourfold(2, 0, 1, 1),
        "effusion": Fourfold(0, 1, 1, 2),
        "fracture": Fourfold(2, 0, 0, 2),
    }
    assert told.findings["fracture"].agreement == 1.0
    assert told.findings["effusion"].agreement == 0.5
    assert (told.own_seconds, told.shadow_seconds) == (20, 40)
    assert told.shadow_ends == {"result": 5, "failed": 1}
    assert told.own_ends == {"result": 5, "failed": 1}
    assert list(told.differing) == pairs[1:3]


def test_days_are_told_of_weeks_and_weeks_of_months() -> None:
    def periods(*days: int) -> list[tuple[str, str]]:
        [told] = compare([pair(days=each) for each in sorted(days, reverse=True)])
        return [(str(each.first), str(each.last)) for each in told.periods]

    assert periods(0, 0, 3) == [("2026-03-02", "2026-03-02"), ("2026-03-05", "2026-03-05")]
    assert periods(0, 6, 21) == [("2026-03-02", "2026-03-08"), ("2026-03-23", "2026-03-29")]


def test_a_week_is_told_as_far_as_it_went() -> None:
    [told] = compare([pair(days=each) for each in (23, 6, 0)])
    before, last = told.periods[-2:]
    today = date(2026, 3, 25)
    assert (last.first, last.until(today), last.is_so_far(today)) == (date(2026, 3, 23), today, True)
    assert (before.until(today), before.is_so_far(today)) == (before.last, False)
    assert last.is_so_far(last.last) and not last.is_so_far(last.last + timedelta(days=1))


labels = some.lists(some.sampled_from(["fracture", "effusion", "mass"]), unique=True, max_size=3)


@given(some.lists(some.builds(pair, labels, labels, days=some.integers(0, 60)), min_size=1, max_size=40))
def test_each_study_is_in_one_place_of_each_table_and_in_one_period(pairs: list[Pair]) -> None:
    pairs.sort(key=lambda each: each.began_at, reverse=True)
    [told] = compare(pairs)
    for name, counts in told.findings.items():
        assert counts.studies == len(pairs)
        over_time = [period.findings[name] for period in told.periods]
        assert sum(each.both for each in over_time) == counts.both
        assert sum(each.studies for each in over_time) == counts.studies
    found = Counter(name for each in pairs for name in each.own_found)
    assert all(told.findings[name].both + told.findings[name].own == count for name, count in found.items())
    assert [period.first for period in told.periods] == sorted({period.first for period in told.periods})
