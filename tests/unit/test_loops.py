"""A loop outlives whatever breaks its rounds, and says so."""

from __future__ import annotations

import ast
import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

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


HOUSE = Path(figures.__file__).parents[2]
# Loops that aren't run by a `Loop` themselves, and what sees to them.
SEEN_TO = {
    "gateway/jobs/engine.py _claim_for_ever": "the engine's own loop, whose group it is in",
    "gateway/jobs/engine.py _renew_for_ever": "the engine's own loop, whose group it is in",
    "gateway/jobs/engine.py _look_after_others": "the engine's own loop, whose group it is in",
    "gateway/jobs/presence.py watch": "the engine's own loop, whose group it is in",
    "gateway/jobs/answering.py keep": "the command that asked, which ends it",
    "gateway/intake/rest.py _tell_events": "whoever listens, who sees it end",
    "gateway/sectra/files.py chunks": "whoever reads the file, who sees it end",
    "gateway/commands/watching.py _show": "the person who looks",
    "gateway/commands/watching.py _tell": "the person who looks",
}
THREADS = {
    "gateway/dicom/acceptor.py start": "loops by `keep`",
    "gateway/intake/neighbours.py start": "loops by `keep`",
    "gateway/dicom/association.py exchange": "ends with its exchange",
}
TIMERS = {"gateway/intake/listening.py _accept": "once, after a failure"}


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


def test_a_thread_goes_on_after_each_break_until_it_is_told_to_end() -> None:
    ended = threading.Event()
    rounds = 0

    def turn() -> None:
        nonlocal rounds
        rounds += 1
        if rounds < 3:
            raise ValueError
        ended.set()

    loop = Loop("of a thread", first=0.01, most=0.01)
    thread = threading.Thread(target=loop.keep, args=(turn, ended))
    thread.start()
    thread.join(60)
    assert rounds == 3
    assert failures[loop.name] == 2
    assert loop.name not in running()


async def test_what_has_to_go_well_once_is_tried_until_it_does() -> None:
    rounds = 0

    async def turn() -> None:
        nonlocal rounds
        rounds += 1
        if rounds < 3:
            raise OSError

    loop = Loop("to begin with", first=0.01, most=0.01)
    async with asyncio.timeout(60):
        await loop.until_well(turn)
    assert rounds == 3
    assert loop.name not in running()


async def test_what_was_to_go_on_doesnt_end_in_silence() -> None:
    async def work() -> None:
        raise KeyError("Doe^Jane")

    with structlog.testing.capture_logs() as said:
        async with asyncio.timeout(60), beside(work()):
            while not said:
                await asyncio.sleep(0.01)
    (line,) = said
    assert (line["event"], line["error"]) == ("what was to go on has ended", "KeyError")
    assert "Doe" not in str(said)


def test_nothing_else_loops_for_ever() -> None:
    assert {place for place in sites(loops_for_ever) if "/simulate/" not in place} == {
        "gateway/loops.py run",
        "gateway/loops.py keep",
        *SEEN_TO,
    }


def test_no_thread_and_no_timer_makes_a_loop_of_its_own() -> None:
    assert sites(lambda function: calls(function, {"Thread", "Timer"})) == {*THREADS}
    assert sites(lambda function: calls(function, {"call_later", "call_at"})) == {*TIMERS}


def test_what_may_fail_stands_inside_of_the_loop() -> None:
    """What is awaited before one could end it in silence."""

    def waits_before(function: Function) -> bool:
        awaited = [node for node in own(function) if isinstance(node, ast.Await)]
        runs = [node for node in awaited if ".run(" in ast.unparse(node) and "Loop(" in ast.unparse(node)]
        return bool(runs) and awaited.index(runs[0]) > 0

    assert sites(waits_before) == set()


Function = ast.FunctionDef | ast.AsyncFunctionDef


def sites(wanted: Callable[[Function], bool]) -> set[str]:
    """The functions of ours that are so."""
    return {
        f"{path.relative_to(HOUSE)} {function.name}"
        for room in ("gateway", "adapters")
        for path in (HOUSE / room).rglob("*.py")
        for function in ast.walk(ast.parse(path.read_text()))
        if isinstance(function, Function) and wanted(function)
    }


def own(node: ast.AST) -> Iterator[ast.AST]:
    """What is done in a function itself, in the order in which it is written."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield child
            yield from own(child)


def loops_for_ever(function: Function) -> bool:
    return any(isinstance(node, ast.While) and is_endless(node) for node in own(function))


def is_endless(loop: ast.While) -> bool:
    """Nothing in it ends it, but for what others set."""
    until = ast.unparse(loop.test)
    ends_elsewhere = until.startswith("not ") and ("self._" in until or ".is_set()" in until)
    if not isinstance(loop.test, ast.Constant) and not ends_elsewhere:
        return False
    waits = any(
        isinstance(node, ast.Await) or (isinstance(node, ast.Call) and "wait" in ast.unparse(node.func))
        for node in own(loop)
    )
    inner = {
        each
        for node in own(loop)
        if isinstance(node, ast.While | ast.For | ast.AsyncFor)
        for each in own(node)
        if isinstance(each, ast.Break)
    }
    leaves = any(isinstance(node, ast.Return | ast.Break) and node not in inner for node in own(loop))
    return waits and not leaves


def calls(function: Function, names: set[str]) -> bool:
    return any(
        isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in names
        for node in own(function)
    )
