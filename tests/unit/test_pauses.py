"""How long a retry waits."""

from __future__ import annotations

import pytest

from gateway.settings.sections import Retry


@pytest.mark.parametrize("failed", [1, 2, 3, 7, 8, 5000])
def test_each_failure_doubles_the_pause_up_to_the_most(failed):
    longest = min(600, 5 * 2 ** min(failed - 1, 30))
    pauses = {Retry().pause(failed) for _ in range(50)}
    assert longest / 2 <= min(pauses) < max(pauses) <= longest


def test_never_sooner_than_the_peer_asked_for():
    assert Retry().pause(1, 3000.0) == 3000.0
    assert Retry().pause(1, 0.0) >= 2.5
