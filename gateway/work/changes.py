"""What a user changed in a result or removed, as the vendor that made it is told of it."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import structlog

from gateway.archives.spool import Spool
from gateway.contract import Callback, Failure, Finished, Interactive, Modification, Order
from gateway.jobs.records import Job
from gateway.jobs.store import Store
from gateway.jobs.store.grants import ChangedResult
from gateway.work.disguise import Disguises
from gateway.work.orders import order_of
from gateway.work.vendors import Vendors

log = structlog.get_logger(__name__)

_VENDOR_ANSWERS_WITHIN = 25.0  # a user waits for it
_REOPENED = 600.0  # what a change by the user may take the vendor


class Changes:
    def __init__(self, store: Store, vendors: Vendors, spool: Spool, disguises: Disguises) -> None:
        self._store = store
        self._vendors = vendors
        self._spool = spool
        self._disguises = disguises

    async def tell(
        self,
        adapter_name: str,
        changed: ChangedResult,
        change: Modification,
        sectra: Mapping[str, str],
        context: Mapping[str, Any],
    ) -> Mapping[str, Any] | None:
        """A user has changed or deleted a result: the vendor's answer. None when there is none to give, and
        the job's history says why. `sectra`: where to call back now, and with what token."""
        work = await asyncio.to_thread(self._spool.aside)
        try:
            adapter = self._vendors.make(adapter_name, work)
            if not isinstance(adapter, Interactive):
                return None
            told = f"the user's {change.kind} of a result is told to the vendor"
            # Of what was deleted nothing is left to work on: only the job's results stay open.
            seconds = _REOPENED if change.kind == "modify" else 0.0
            reopened = await self._store.reopen_grant(changed, seconds, sectra, told)
            if reopened is None:
                return None
            job, token = reopened
            order = order_of(job, callback=Callback(self._vendors.url_of(adapter_name), token, used=True))
            order = replace(order, context=dict(context) or order.context)
            words = await self._disguises.on_slide(job)
            if words is None:
                return await self._ask(adapter, job, order, change)
            change = replace(change, result=await asyncio.to_thread(words.disguised, change.result))
            answer = await self._ask(adapter, job, order, change)
            return None if answer is None else await asyncio.to_thread(words.restored, answer)
        finally:
            await asyncio.to_thread(shutil.rmtree, work, ignore_errors=True)

    async def _ask(
        self, adapter: Interactive, job: Job, order: Order, change: Modification
    ) -> Mapping[str, Any] | None:
        try:
            async with asyncio.timeout(_VENDOR_ANSWERS_WITHIN):
                answer = await adapter.modify(order, change)
        except (Failure, TimeoutError) as trouble:
            why = (
                trouble.message
                if isinstance(trouble, Failure)
                else f"no answer within {_VENDOR_ANSWERS_WITHIN:g} s"
            )
            await self._store.note_change(job.id, "the vendor didn't take the change", {"message": why})
            log.warning("a vendor didn't take a change", job=str(job.id), error=why)
            return None
        return answer.placed if isinstance(answer, Finished) else None
