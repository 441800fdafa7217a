"""A shift is flagged within a week, and what doesn't shift hardly ever: seeded."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pytest

from gateway.watch.drift import LEAST, RATES, Day, is_learning, judge

BEGIN = date(2026, 1, 5)
USUAL = {"positive": 0.25, "empty": 0.1, "unsuitable": 0.03, "failed": 0.01}


BUCKETS = range(18, 29)  # of times to a result
SHARES = [0.02, 0.04, 0.09, 0.14, 0.18, 0.19, 0.14, 0.1, 0.06, 0.03, 0.01]


def days_of(
    chance: np.random.Generator, number: int, rates: dict[str, float], *, first: int = 0, slower: int = 0
) -> list[Day]:
    """About forty studies a day."""
    ended = chance.poisson(40, number)
    unsuitable = chance.binomial(ended, rates["unsuitable"])
    failed = chance.binomial(ended - unsuitable, rates["failed"])
    results = ended - unsuitable - failed
    positive, empty = (chance.binomial(results, rates[name]) for name in ("positive", "empty"))
    took = chance.multinomial(results, SHARES)
    return [
        Day(
            BEGIN + timedelta(days=first + step),
            *(int(results[step]), int(positive[step]), int(empty[step])),
            *(int(unsuitable[step]), int(failed[step])),
            {bucket + slower: int(many) for bucket, many in zip(BUCKETS, took[step], strict=True)},
        )
        for step in range(number)
    ]


def flagged(days: list[Day]) -> dict[str, date]:
    return {chart.rate: chart.shifted for chart in judge(days) if chart.shifted is not None}


def test_false_alarms_are_rare() -> None:
    chance = np.random.default_rng(20260105)
    alarms = sum(bool(flagged(days_of(chance, 28 + 62, USUAL))) for _ in range(1000))
    assert alarms <= 50, "at most 5 % of a thousand runs in which nothing shifts"


@pytest.mark.parametrize(
    ("rate", "then"),
    [
        ("positive", 0.45),
        ("positive", 0.08),
        ("empty", 0.3),
        ("unsuitable", 0.18),
        ("failed", 0.12),
        ("slow", 4),
    ],
)
def test_a_shift_is_flagged_within_seven_days(rate: str, then: float) -> None:
    missed = 0
    for seed in range(30):
        chance = np.random.default_rng(seed)
        before = days_of(chance, 28 + 30, USUAL)
        rates = USUAL if rate == "slow" else {**USUAL, rate: then}
        after = days_of(chance, 7, rates, first=58, slower=int(then) if rate == "slow" else 0)
        missed += rate not in flagged(before + after)
        [chart] = [each for each in judge(before + after) if each.rate == rate]
        assert chart.shifted is None or chart.higher is (rate == "slow" or then > USUAL[rate])
    assert missed <= 1


def test_it_learns_for_four_weeks_and_enough_studies_and_no_earlier_than_accepted() -> None:
    days = days_of(np.random.default_rng(1), 60, USUAL)
    assert judge(days[:27]) == [] and is_learning(days[:27])
    assert [chart.rate for chart in judge(days[:28])] == list(RATES)
    accepted = BEGIN + timedelta(days=40)
    assert judge(days, accepted) == [] and is_learning(days, accepted)
    few = [Day(BEGIN + timedelta(days=step), 2, 1) for step in range(60)]
    assert sum(day.ended for day in few) < LEAST and judge(few) == []


def test_a_day_that_is_not_over_is_shown_and_not_judged() -> None:
    days = days_of(np.random.default_rng(2), 60, USUAL)
    today = days[-1].day + timedelta(days=1)
    begun = [*days, Day(today, results=400, positive=400, failed=300)]
    assert {"positive", "failed"} <= set(flagged(begun))
    shown, before = judge(begun, today=today), judge(days)
    assert [(each.usual, each.shifted) for each in shown] == [(each.usual, each.shifted) for each in before]
    assert all(each.points[:-1] == other.points for each, other in zip(shown, before, strict=True))
    assert [each.points[-1].day for each in shown] == [today] * len(RATES)
    assert judge(days[:28], today=days[27].day) == [] and is_learning(days[:28], today=days[27].day)


def test_what_is_mended_is_flagged_no_longer() -> None:
    chance = np.random.default_rng(3)
    days = days_of(chance, 58, USUAL) + days_of(chance, 7, {**USUAL, "failed": 0.3}, first=58)
    assert "failed" in flagged(days)
    assert "failed" not in flagged(days + days_of(chance, 42, USUAL, first=65))
