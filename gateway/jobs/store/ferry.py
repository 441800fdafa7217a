"""Statements that many want to commit at once go together: whoever comes while others are being committed is
committed with all who came meanwhile, and nobody waits for company."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

_BOATS = 2  # while one commits, the other is filled
_SEATS = 64


class Ferry(Generic[T, R]):
    def __init__(
        self, cross: Callable[[Sequence[T]], Awaitable[Sequence[R]]], is_whole: Callable[[Exception], bool]
    ) -> None:
        """`cross`: for all of them at once, or for none. `is_whole`: whether a failure is everybody's; after
        any other each of them tries by himself."""
        self._cross = cross
        self._is_whole = is_whole
        self._waiting: list[tuple[T, asyncio.Future[R]]] = []
        self._under_way: set[asyncio.Task[None]] = set()

    async def take(self, passenger: T) -> R:
        crossed: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((passenger, crossed))
        if len(self._under_way) < _BOATS:
            boat = asyncio.create_task(self._go(), name="committing what came in")
            self._under_way.add(boat)
            boat.add_done_callback(self._under_way.discard)
        return await crossed

    async def close(self) -> None:
        if self._under_way:
            await asyncio.wait(self._under_way)

    async def _go(self) -> None:
        while waiting := [each for each in self._waiting if not each[1].done()]:  # some may have gone
            aboard, self._waiting = waiting[:_SEATS], waiting[_SEATS:]
            try:
                await self._carry(aboard)
            except BaseException:
                for _, crossed in aboard:
                    crossed.cancel()
                raise

    async def _carry(self, aboard: Sequence[tuple[T, asyncio.Future[R]]]) -> None:
        try:
            answers = await self._cross([passenger for passenger, _ in aboard])
        except Exception as trouble:  # noqa: BLE001 - told to those whom it concerns
            if len(aboard) == 1 or self._is_whole(trouble):
                for _, crossed in aboard:
                    _settle(crossed, trouble)
                return
            for alone in aboard:
                await self._carry([alone])
        else:
            for (_, crossed), answer in zip(aboard, answers, strict=True):
                _settle(crossed, answer)


def _settle(crossed: asyncio.Future[Any], answer: Any) -> None:
    with suppress(asyncio.InvalidStateError):  # whoever asked has gone
        if isinstance(answer, Exception):
            crossed.set_exception(answer)
        else:
            crossed.set_result(answer)
