"""What a job and its vendor say: one that calls back is polled with what was heard of its calls."""

from __future__ import annotations

from functools import partial

from gateway.contract import (
    SILENCE,
    Adapter,
    Callback,
    CallsBack,
    Finished,
    Gathering,
    Order,
    Pending,
    Sharing,
    WorksOnSlide,
)
from gateway.jobs.records import Job
from gateway.jobs.store import Store
from gateway.work.disguise import Disguise, Disguises
from gateway.work.orders import order_of, ticket_from_json
from gateway.work.vendors import Vendors


class Conversation:
    def __init__(self, store: Store, vendors: Vendors, disguises: Disguises) -> None:
        self._store = store
        self._vendors = vendors
        self._disguises = disguises

    async def open(self, job: Job, adapter: Adapter, *, fresh: bool) -> tuple[Order, Disguise | None]:
        """What the vendor is asked, in words that it may hear."""
        order = order_of(job, callback=await self.callback(job, adapter, fresh=fresh))
        if isinstance(adapter, WorksOnSlide):  # whose calls pass through a door that knows what it may see
            return order, None
        disguise = await self._disguises.of(job)
        return (order if disguise is None else await disguise.order(order)), disguise

    async def callback(self, job: Job, adapter: Adapter, *, fresh: bool) -> Callback | None:
        """Where it calls us, if it does. `fresh`: with a token that nobody holds yet."""
        if not isinstance(adapter, CallsBack):
            return None
        return await self._store.open_grant(job, self._vendors.url_of(job.adapter), fresh=fresh)

    async def another_callback(self, job: Job) -> Callback | None:
        """For one more call, while an earlier one may run: None if the vendor has been heard meanwhile."""
        return await self._store.open_another_grant(job, self._vendors.url_of(job.adapter))

    async def poll(self, job: Job, adapter: Adapter) -> Pending | Finished:
        answer = await self._poll(job, adapter)
        return await self._disguises.restore(job, answer) if isinstance(answer, Finished) else answer

    async def gather(self, job: Job, adapter: Adapter) -> Finished | None:
        """What is there, when its time is over."""
        if not isinstance(adapter, Gathering):
            return None
        found = await adapter.gather(ticket_from_json(job.ticket))
        return None if found is None else await self._disguises.restore(job, found)

    async def _poll(self, job: Job, adapter: Adapter) -> Pending | Finished:
        ticket = ticket_from_json(job.ticket)
        if isinstance(adapter, CallsBack):
            return await adapter.poll(ticket, await self._store.heard_of(job.id) or SILENCE)
        if isinstance(adapter, Sharing):
            return await adapter.poll_among(ticket, partial(self._store.results_of_others, job))
        return await adapter.poll(ticket)

    async def cancel(self, job: Job, adapter: Adapter) -> None:
        """Also what was cancelled in the middle of the vendor's answer."""
        await self._store.sum_up_calls(job.id)
        if job.ticket is not None:
            ticket = ticket_from_json(job.ticket)
        else:
            order, _ = await self.open(job, adapter, fresh=False)
            found = await adapter.find(order)
            if found is None:
                return
            ticket = found
        await adapter.cancel(ticket)
