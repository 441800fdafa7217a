"""A loop outlives whatever breaks its rounds, and says so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import structlog
from prometheus_client import REGISTRY

from gateway.contract import Retryable
from gateway.loops import Loop, beside, failing, failures, running
from gateway.watch import figures

assert figures.FIGURES  # what it exports is registered


@asynccontextmanager
async def going(loop: Loop, turn: Callable[[], Awaitable[object]]) -> AsyncIterator[asyncio.Task[None]]:
    task: asyncio.Task[None] = asyncio.create_task(loop.run(turn))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


async def reach(event: asyncio.Event) -> None:
    async with asyncio.timeout(30):
        await event.wait()


async def test_it_goes_on_after_each_break_and_tells_of_them_without_their_words() -> None:
    rounds = 0
    at_last = asyncio.Event()

    async def turn() -> None:
        nonlocal rounds
        rounds += 1
        match rounds:
            case 1:
                raise OSError("Doe^Jane")
            case 2:
                async with asyncio.TaskGroup():
                    raise KeyError("secret")
            case 3:
                raise Retryable("the archive is away")
            case 4:
                return
            case _:
                at_last.set()
                await asyncio.Event().wait()

    loop = Loop("of the test", first=0.01, most=0.02)
    with structlog.testing.capture_logs() as said:
        async with going(loop, turn):
            await reach(at_last)
            assert not failing()
    broke = [line for line in said if line["event"] == "a loop broke; it goes on"]
    assert [line["error"] for line in broke] == ["OSError", "KeyError", "Retryable"]
    assert [line["times"] for line in broke] == [1, 2, 3]
    assert broke[-1]["reason"] == "the archive is away"
    assert "Doe" not in str(said)
    assert "secret" not in str(said)
    assert said[-1] == {"event": "a loop is well again", "log_level": "info", "loop": loop.name, "broke": 3}
    assert failures[loop.name] == 3


async def test_one_that_keeps_failing_is_known_with_since_when_until_it_is_well() -> None:
    broken = True
    often, ended = asyncio.Event(), asyncio.Event()
    loop = Loop("lame", first=0.01, most=0.01)

    async def turn() -> None:
        if loop.keeps_failing:
            often.set()
        if broken:
            raise ValueError
        loop.well()
        ended.set()
        await asyncio.Event().wait()

    async with going(loop, turn):
        await reach(often)
        assert [each.name for each in failing()] == ["lame"]
        assert failing()[0].since is not None
        assert REGISTRY.get_sample_value("gateway_loop_failing", {"loop": "lame"}) == 1
        assert (REGISTRY.get_sample_value("gateway_loop_failures_total", {"loop": "lame"}) or 0) >= 3
        broken = False
        await reach(ended)
        assert not failing()
        assert REGISTRY.get_sample_value("gateway_loop_failing", {"loop": "lame"}) == 0


@pytest.mark.parametrize("breaks", [True, False])
async def test_it_ends_at_once_when_it_is_cancelled(breaks: bool) -> None:
    begun = asyncio.Event()

    async def turn() -> None:
        begun.set()
        if breaks:
            raise ValueError
        await asyncio.Event().wait()

    async with going(Loop("short", first=1000, most=1000), turn) as task:
        await reach(begun)
        assert "short" in running()
    assert task.cancelled()
    assert "short" not in running()


async def test_one_that_lost_the_cancel_ends_all_the_same() -> None:
    begun, came = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        while True:
            begun.set()
            await asyncio.wait_for(came.wait(), 600)
            came.clear()

    async with asyncio.timeout(30):
        async with beside(work(), again=0.05):
            await reach(begun)
            for _ in range(5):
                await asyncio.sleep(0)
            came.set()  # at the moment of the cancel
