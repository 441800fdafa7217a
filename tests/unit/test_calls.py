"""Calls that wait in silence, by a clock of the test's own."""

from __future__ import annotations

from gateway import traffic
from gateway.calls import Calls

PEER = "archives.of-these-tests"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_who_lets_all_calls_wait_is_named_after_so_long_and_again_after_as_long() -> None:
    clock = Clock()
    calls = Calls(clock)
    clock.now = 100
    with calls.to(PEER):
        clock.now = 119
        assert not list(calls.silent_for(20))
        clock.now = 120
        assert list(calls.silent_for(20)) == [PEER]
        assert not list(calls.silent_for(20))
        clock.now = 140
        assert list(calls.silent_for(20)) == [PEER]
    clock.now = 1000
    assert not list(calls.silent_for(20))


def test_a_byte_or_the_end_of_another_call_is_a_sign() -> None:
    clock = Clock()
    calls = Calls(clock)
    with calls.to(PEER):
        for table in (traffic.received, traffic.sent):
            clock.now += 15
            traffic.count(table, PEER, 1)
            assert not list(calls.silent_for(20))
        clock.now += 15
        with calls.to(PEER):
            assert calls.ended(PEER) == 0
        clock.now += 15
        assert not list(calls.silent_for(20)) and calls.ended(PEER) == 1
        clock.now += 5
        assert list(calls.silent_for(20)) == [PEER]
    assert calls.ended(PEER) is None
