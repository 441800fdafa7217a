"""The breaker and the rate of an archive, by a clock that the test turns."""

from __future__ import annotations

import asyncio
from datetime import datetime

import pytest

from gateway.archives.breaker import Breaker
from gateway.archives.terms import Pulls
from gateway.contract import NeedsHuman, Unreachable
from gateway.settings.quantities import Rate


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Archive:
    """Away until told otherwise; counts who asks."""

    def __init__(self) -> None:
        self.asked = 0
        self.failure: Exception | None = Unreachable("it is away")

    async def __call__(self) -> str:
        self.asked += 1
        await asyncio.sleep(0)
        if self.failure is not None:
            raise self.failure
        return "found"


async def refused(breaker: Breaker, archive: Archive) -> Unreachable:
    with pytest.raises(Unreachable) as caught:
        await breaker.call(archive)
    return caught.value


async def test_an_archive_that_is_away_is_asked_by_one_at_a_time_at_growing_pauses() -> None:
    clock, archive = Clock(), Archive()
    breaker = Breaker("vna", first=5, most=20, clock=clock)
    await refused(breaker, archive)
    for pause in (5, 10, 20, 20):
        asked = archive.asked
        clock.now += pause - 0.1
        known = await refused(breaker, archive)
        assert archive.asked == asked
        assert known.after == pytest.approx(0.1)
        assert known.message.startswith("the archive vna is unreachable since ")
        clock.now += 0.1
        await asyncio.gather(*(refused(breaker, archive) for _ in range(20)))
        assert archive.asked == asked + 1
    clock.now += 20
    archive.failure = None
    assert await breaker.call(archive) == "found"
    assert breaker.since is None
    archive.failure = Unreachable("it is away")
    await refused(breaker, archive)
    clock.now += 5  # the pause begins anew
    archive.failure = NeedsHuman("wrong password")
    with pytest.raises(NeedsHuman):
        await breaker.call(archive)
    assert breaker.since is None  # it has answered


async def test_who_finds_an_archive_away_ends_the_wait_of_all_others() -> None:
    breaker, archive, never = Breaker("vna", grace=0.01), Archive(), asyncio.Event()
    waiting = 0

    async def wait() -> str:
        nonlocal waiting
        waiting += 1
        await never.wait()
        return "found"

    others = [asyncio.create_task(breaker.call(wait)) for _ in range(10)]
    while waiting < 10:
        await asyncio.sleep(0)
    await refused(breaker, archive)
    ended = await asyncio.gather(*others, return_exceptions=True)
    assert {type(failure) for failure in ended} == {Unreachable}


async def test_a_cancelled_probe_leaves_the_next_one_its_turn() -> None:
    clock, archive, never = Clock(), Archive(), asyncio.Event()
    breaker = Breaker("vna", first=5, clock=clock)
    await refused(breaker, archive)
    clock.now += 5
    probe = asyncio.create_task(breaker.call(never.wait))
    await asyncio.sleep(0)
    probe.cancel()
    with pytest.raises(asyncio.CancelledError):
        await probe
    archive.failure = None
    assert await breaker.call(archive) == "found"


def test_a_rate_holds_in_every_window_and_each_who_waits_is_told_another_time() -> None:
    clock = Clock()
    pulls = Pulls(Rate(3, 60.0), clock)
    for second in (0, 10, 20):
        clock.now = 1000.0 + second
        assert pulls.free()
        pulls.take()
    clock.now = 1030.0
    assert not pulls.free()
    told = [pulls.free_at() for _ in range(4)]
    waits = [(at - told[0]).total_seconds() for at in told]
    assert waits == pytest.approx([0, 10, 20, 60], abs=0.5)
    assert told[0] > datetime.now().astimezone()
    clock.now = 1060.0
    assert pulls.free()
    pulls.take()
    assert not pulls.free()
    pulls.give_back()
    assert pulls.free()
