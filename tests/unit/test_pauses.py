"""How long a retry waits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from gateway.settings.sections import Retry


@pytest.mark.parametrize("failed", [1, 2, 3, 7, 8, 5000])
def test_each_failure_doubles_the_pause_up_to_the_most(failed):
    longest = min(600, 5 * 2 ** min(failed - 1, 30))
    pauses = {Retry().pause(failed) for _ in range(50)}
    assert longest / 2 <= min(pauses) < max(pauses) <= longest


def test_never_sooner_than_the_peer_asked_for():
    assert Retry().pause(1, 3000.0) == 3000.0
    assert Retry().pause(1, 0.0) >= 2.5


@given(some.floats(0.001, 3600), some.floats(0.001, 86400), some.integers(1, 10_000), some.floats(0, 86400))
def test_a_pause_is_spread_over_half_of_it_and_stays_within_its_bounds(
    first: float, most: float, failed: int, asked: float
) -> None:
    policy = Retry.model_construct(attempts=8, first=first, most=most)
    longest = min(most, first * 2.0 ** min(failed - 1, 30))
    pause = policy.pause(failed)
    assert longest / 2 <= pause <= longest <= most
    assert asked <= policy.pause(failed, asked) <= max(asked, longest)
