"""The lookout and the rate of an archive."""

from __future__ import annotations

import asyncio
import json

import pytest

from gateway.archives.lookout import Lookout
from gateway.archives.terms import Pulls
from gateway.contract import NeedsHuman, Unreachable
from gateway.settings.quantities import Rate


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


async def refused(lookout: Lookout, archive: Archive) -> Unreachable:
    with pytest.raises(Unreachable) as caught:
        await lookout.call(archive)
    return caught.value


async def test_who_finds_an_archive_away_ends_the_wait_of_all_others() -> None:
    lookout, archive, never = Lookout("vna", grace=0.01), Archive(), asyncio.Event()
    waiting = 0

    async def wait() -> str:
        nonlocal waiting
        waiting += 1
        await never.wait()
        return "found"

    others = [asyncio.create_task(lookout.call(wait)) for _ in range(10)]
    while waiting < 10:
        await asyncio.sleep(0)
    await refused(lookout, archive)
    ended = await asyncio.gather(*others, return_exceptions=True)
    assert {type(failure) for failure in ended} == {Unreachable}


@pytest.mark.parametrize("failure", [None, NeedsHuman("wrong password")])
async def test_whoever_asks_later_is_kept_from_nothing(failure: Exception | None) -> None:
    lookout, archive = Lookout("vna", grace=0.01), Archive()
    await refused(lookout, archive)
    archive.failure = failure
    if failure is None:
        assert await lookout.call(archive) == "found"
    else:
        with pytest.raises(NeedsHuman):
            await lookout.call(archive)
    slow = asyncio.create_task(lookout.call(lambda: asyncio.sleep(0.1, "found")))
    assert await slow == "found"


def test_a_rate_holds_in_every_window_and_each_who_waits_is_told_another_time() -> None:
    rate = Rate(3, 60.0)
    pulls = Pulls(rate)
    for now in (1000, 1010, 1020):
        assert pulls.take(str(now), now) is None
    assert [pulls.ask(who, 1030) for who in "abcd"] == [1060, 1070, 1080, 1120]
    assert pulls.ask("b", 1030) == 1070, "asked again, told the same"
    pulls = Pulls(rate, json.loads(json.dumps(pulls.keep())))
    assert pulls.take("a newcomer", 1060) is not None, "it is the turn of the one who waited"
    assert pulls.take("a", 1060) is None
    assert pulls.take("b", 1060) is not None
    pulls.give_back()
    assert pulls.take("b", 1060) is None


def test_the_urgent_take_the_next_place_and_the_others_keep_their_order() -> None:
    pulls, now = Pulls(Rate(1, 60.0)), 1000.0
    pulls.take("first", now)
    routine = [f"routine {number}" for number in range(30)]
    for who in routine:
        pulls.ask(who, now)
    assert [pulls.ask(who, now, urgent=True) for who in ("urgent", "urgent too")] == [1060, 1120]
    came: list[str] = []
    for _ in range(5):
        now += 60.0
        waiting = [who for who in (*routine, "urgent", "urgent too") if who not in came]
        # Who comes at the time that was told, and is overtaken, waits on in its turn.
        came += [who for who in waiting if pulls.take(who, now, urgent=who.startswith("urgent")) is None]
    assert came == ["urgent", "urgent too", *routine[:3]]


def test_a_place_that_nobody_comes_for_is_the_next_ones() -> None:
    pulls = Pulls(Rate(1, 10.0))
    pulls.take("first", 1000)
    pulls.ask("cancelled", 1000)
    pulls.ask("second", 1000)
    assert pulls.take("second", 1030) is not None
    assert pulls.take("second", 1080) is None


def test_a_clock_that_is_put_back_delays_nobody_by_more_than_the_rate() -> None:
    pulls = Pulls(Rate(2, 60.0))
    assert [pulls.take(who, 10_000.0) for who in ("a", "b")] == [None, None]
    pulls = Pulls(Rate(2, 60.0), pulls.keep())
    assert pulls.take("c", 6_400.0) == 6_460.0
    assert pulls.take("c", 6_460.0) is None


def test_what_nobody_waits_for_leaves_half_of_a_rate_free() -> None:
    pulls = Pulls(Rate(4, 60.0))
    taken = [pulls.take(f"shadow {number}", 10.0 + number, beside=True) for number in range(4)]
    assert taken == [None, None, 70.0, 70.0], "from when two of four are free again besides its own"
    assert [pulls.take(f"real {number}", 20.0) for number in range(2)] == [None, None]
    assert pulls.ask("real 3", 20.0) == 70.0
    assert pulls.ask("shadow 2", 75.0, beside=True) == 80.0
    assert Pulls(Rate(1, 60.0)).ask("shadow", 0.0, beside=True) == 60.0
    waited_for = Pulls(Rate(4, 60.0))
    for number in range(5):
        waited_for.take(f"real {number}", 0.0)
    assert waited_for.ask("shadow", 62.0, beside=True) == 63.0, "somebody waits, though all are free"
