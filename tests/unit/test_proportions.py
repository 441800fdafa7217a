"""Intervals and agreement, against what is published."""

from __future__ import annotations

from math import isclose

import pytest
from hypothesis import given
from hypothesis import strategies as some

from gateway.watch.proportions import kappa, proportion


@pytest.mark.parametrize(
    ("count", "of", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_as_newcombe_has_it(count: int, of: int, low: float, high: float) -> None:
    """Two-sided confidence intervals for the single proportion, Statistics in Medicine 17 (1998), table I."""
    found = proportion(count, of)
    assert found is not None
    assert (round(found.low, 4), round(found.high, 4)) == (low, high)


@given(some.integers(1, 2000).flatmap(lambda of: some.tuples(some.integers(0, of), some.just(of))))
def test_an_interval_holds_its_share_and_mirrors_its_complement(counts: tuple[int, int]) -> None:
    count, of = counts
    found, other = proportion(count, of), proportion(of - count, of)
    assert found is not None and other is not None
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert isclose(found.low, 1 - other.high, abs_tol=1e-9)
    assert isclose(found.high, 1 - other.low, abs_tol=1e-9)
    assert proportion(0, 0) is None


def test_kappa_as_sas_has_it_for_two_dermatologists() -> None:
    """PROC FREQ's example of tests and measures of agreement: 0.3449, 95 % 0.2030 to 0.4868."""
    found = kappa([[10, 4, 1, 0], [5, 10, 12, 2], [2, 4, 12, 5], [0, 2, 6, 13]])
    assert found is not None
    assert (round(found.value, 4), round(found.low, 4), round(found.high, 4)) == (0.3449, 0.2030, 0.4868)


@pytest.mark.parametrize(
    ("table", "value"),
    [([[20, 5], [10, 15]], 0.4), ([[5, 5], [5, 5]], 0.0), ([[3, 0], [0, 7]], 1.0), ([[0, 5], [5, 0]], -1.0)],
)
def test_kappa_of_a_fourfold_table(table: list[list[int]], value: float) -> None:
    found = kappa(table)
    assert found is not None and isclose(found.value, value, abs_tol=1e-12)
    assert found.tells == (value not in (1.0, -1.0)), "of what never differs no doubt can be told"
    assert -1 <= found.low <= found.value + 1e-12 and found.value - 1e-12 <= found.high <= 1


@pytest.mark.parametrize("table", [[[0, 0], [4, 113]], [[0, 7], [0, 301]], [[0, 0], [1, 2]]])
def test_what_one_of_both_never_finds_tells_nothing_of_how_far_they_agree(table: list[list[int]]) -> None:
    """Kappa is nothing then whatever the other finds, and no certainty of that."""
    found = kappa(table)
    assert found is not None and not found.tells
    assert f"{found.value:.2f}" == "0.00"


@pytest.mark.parametrize("table", [[[0, 0], [0, 0]], [[9, 0], [0, 0]], [[0, 0], [0, 9]]])
def test_there_is_no_kappa_where_both_say_the_same_of_everything(table: list[list[int]]) -> None:
    assert kappa(table) is None


@given(some.lists(some.integers(0, 300), min_size=4, max_size=4))
def test_kappa_does_not_mind_who_is_who(four: list[int]) -> None:
    both, own, other, neither = four
    found, turned = kappa([[both, own], [other, neither]]), kappa([[both, other], [own, neither]])
    assert (found is None) == (turned is None)
    if found is not None and turned is not None:
        assert isclose(found.value, turned.value, abs_tol=1e-9)
        assert isclose(found.low, turned.low, abs_tol=1e-6)
        assert found.low <= found.value + 1e-9 and found.value <= found.high + 1e-9
