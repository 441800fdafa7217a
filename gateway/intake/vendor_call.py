"""A vendor's call for the job of its token, whatever that is about: what is recorded of it, and kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiohttp import web

from gateway.contract import Order
from gateway.intake import problems
from gateway.intake.problems import Problem
from gateway.jobs.states import State
from gateway.jobs.store import Store
from gateway.jobs.store.grants import Grant
from gateway.work.orders import order_of

OUTRUN = "another call for the same job was heard first, and this token has ended"


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
        await self._require_first()
        await self._keep(said, {})

    async def _require_first(self) -> None:
        """Before anything that the vendor writes: of several calls for one job only the first may."""
        if not await self._store.hear(self._given.job, self._given.token_sha256):
            raise Problem(401, OUTRUN)

    async def _keep(self, said: Mapping[str, Any], results: Mapping[str, str]) -> None:
        job = self._given.job
        await self._store.remember_said(job.id, said, results)
        if job.state == State.HELD and job.held_in == State.ANALYSING:
            await self._store.go_on(job.id, "the vendor's result")
