"""How a loop is run for ever: whatever breaks one of its rounds is told and counted, and then it goes on.

    loop = Loop("housekeeping")
    await loop.run(round, pause=5)        # until it is cancelled
    await loop.until_well(round)          # until one has gone well
    loop.keep(round, ended, pause=5)      # in a thread of its own, until `ended` is set

A round that itself lasts says `loop.well()` once it is past what may fail. Nothing else loops for ever.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, NoReturn

import structlog

from gateway.contract import Failure
from gateway.logs import places_of

log = structlog.get_logger(__name__)

_KEEPS_FAILING = 3  # rounds in a row
_AGAIN = 15.0  # seconds for what a loop has to clean up

failures: Counter[str] = Counter()  # rounds that broke in this process, by the name of their loop
shared: set[type[BaseException]] = (
    set()
)  # what breaks many loops at once, and is told as what it is elsewhere
_running: set[Loop] = set()


class Loop:
    def __init__(self, name: str, *, first: float = 1.0, most: float = 60.0) -> None:
        """`first`, `most`: seconds after a round that broke; they double while it goes on breaking."""
        self.name = name
        self.since: datetime | None = (
            None  # when the first of the rounds broke that broke one after the other
        )
        self.shares_trouble = False
        self._first, self._most = first, most
        self._in_a_row = 0

    @property
    def keeps_failing(self) -> bool:
        return self._in_a_row >= _KEEPS_FAILING

    async def run(self, turn: Callable[[], Awaitable[object]], *, pause: float = 0.0) -> NoReturn:
        _running.add(self)
        try:
            while True:
                try:
                    await turn()
                except Exception as trouble:  # noqa: BLE001 - it must not end in silence, whatever it was
                    await asyncio.sleep(self._fail(trouble))
                else:
                    self.well()
                    await asyncio.sleep(pause)
        finally:
            _running.discard(self)

    async def until_well(self, turn: Callable[[], Awaitable[object]]) -> None:
        done = asyncio.Event()

        async def try_once() -> None:
            await turn()
            done.set()

        async with beside(self.run(try_once, pause=_AGAIN)):
            await done.wait()

    def keep(self, turn: Callable[[], object], ended: threading.Event, *, pause: float = 0.0) -> None:
        _running.add(self)
        try:
            while not ended.is_set():
                try:
                    turn()
                except Exception as trouble:  # noqa: BLE001 - it must not end in silence, whatever it was
                    ended.wait(self._fail(trouble))
                else:
                    self.well()
                    ended.wait(pause)
        finally:
            _running.discard(self)

    def well(self) -> None:
        if self._in_a_row:
            log.info("a loop is well again", loop=self.name, broke=self._in_a_row)
        self._in_a_row, self.since = 0, None

    def _fail(self, trouble: Exception) -> float:
        """Returns the seconds until the next round."""
        self.since = self.since or datetime.now(UTC)
        self._in_a_row += 1
        failures[self.name] += 1
        longest = min(self._first * 2.0 ** min(self._in_a_row - 1, 30), self._most)
        pause = longest * random.uniform(0.8, 1)  # noqa: S311
        cause = _first_of(trouble)
        self.shares_trouble = isinstance(cause, tuple(shared))
        often = self.shares_trouble and self._in_a_row & (
            self._in_a_row - 1
        )  # but for the 1st, 2nd, 4th, 8th
        (log.debug if often else log.error)(
            "a loop broke; it goes on",
            loop=self.name,
            error=type(cause).__name__,
            reason=cause.message if isinstance(cause, Failure) else None,
            times=self._in_a_row,
            again_in=round(pause, 1),
            places=places_of(cause),
        )
        return pause


@asynccontextmanager
async def beside(work: Coroutine[Any, Any, None], again: float = _AGAIN) -> AsyncIterator[None]:
    """It goes on for as long as what stands inside."""
    task = asyncio.create_task(work)
    task.add_done_callback(_tell_its_end)
    try:
        yield
    finally:
        # More than once: before Python 3.12 `wait_for` loses a cancel that comes at the moment of what it
        # waits for, as a connection of the pool; such a loop would keep the process from ending.
        while not task.done():
            task.cancel()
            await asyncio.wait([task], timeout=again)


def failing() -> list[Loop]:
    """Those of this process that broke time after time and weren't well since."""
    return sorted((loop for loop in list(_running) if loop.keeps_failing), key=lambda loop: loop.name)


def running() -> list[str]:
    return sorted({loop.name for loop in list(_running)})


def _tell_its_end(task: asyncio.Task[None]) -> None:
    trouble = None if task.cancelled() else task.exception()
    if trouble is not None:
        cause = _first_of(trouble)
        log.error("what was to go on has ended", error=type(cause).__name__, places=places_of(cause))


def _first_of(trouble: BaseException) -> BaseException:
    while isinstance(trouble, BaseExceptionGroup):
        trouble = trouble.exceptions[0]
    return trouble
