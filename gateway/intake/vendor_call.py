"""A vendor's call for the job of its token, whatever that is about: what is recorded of it, and kept."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from gateway.contract import Failure, Order, Retryable
from gateway.intake import problems
from gateway.intake.problems import Problem
from gateway.jobs.states import State
from gateway.jobs.store import Store
from gateway.jobs.store.grants import Grant
from gateway.jobs.store.rivals import Turn
from gateway.work.orders import order_of

OUTRUN = "another call for the same job was heard first, and this token has ended"


@dataclass
class Written:
    taken: bool = False


class VendorCall:
    """Implements the contract's `Call`. `what`, `size` and `outcome` are for the record."""

    def __init__(self, given: Grant, store: Store, what: str) -> None:
        self.order: Order = order_of(given.job)
        self.what = what
        self.size = 0
        self.outcome = "answered"
        self.is_tile = False
        self._given = given
        self._store = store

    def refuse(self, status: int, sentence: str) -> web.StreamResponse:
        self.outcome = f"refused: {sentence}"
        return problems.answer(status, sentence)

    async def tell(self, said: Mapping[str, Any]) -> None:
        async with self._writing() as written:
            await self._keep(said, {})
            written.taken = True

    @asynccontextmanager
    async def _writing(self) -> AsyncIterator[Written]:
        """Around anything that the vendor writes: of several calls for one job only the first may whose words
        are `taken`. Where nobody knows whether they are, they count as taken by no other."""
        who = self._given.job, self._given.token_sha256
        turn = await self._store.hear(*who)
        if turn is Turn.NEVER:
            raise Problem(401, OUTRUN)
        if turn is Turn.LATER:
            raise Problem(
                503, "another call for the same job is just writing; try again", {"Retry-After": "1"}
            )
        written = Written()
        try:
            yield written
        except (Failure, Problem) as failure:
            if not (isinstance(failure, Retryable) and failure.uncertain):
                await self._store.settle(*who, taken=False)
            raise
        await self._store.settle(*who, taken=written.taken)

    async def _keep(self, said: Mapping[str, Any], results: Mapping[str, str]) -> None:
        job = self._given.job
        await self._store.remember_said(job.id, said, results)
        if job.state == State.HELD and job.held_in == State.ANALYSING:
            await self._store.go_on(job.id, "the vendor's result")
