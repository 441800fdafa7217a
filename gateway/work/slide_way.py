"""Jobs of vendors that call back: they work on the slide itself; no archive is asked and nothing is sent."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import structlog

from gateway.archives.spool import Spool
from gateway.contract import Adapter, Callback, Failure, Finished, Modification, NeedsHuman, Permanent, Ticket
from gateway.delivery.slide_status import SlideStatus
from gateway.jobs.outcomes import Advance, Outcome, Wait
from gateway.jobs.records import Job, Origin
from gateway.jobs.states import State
from gateway.jobs.store import Store
from gateway.jobs.store.grants import ChangedResult
from gateway.sectra.passage import without_identity
from gateway.settings.sections import Application, Settings
from gateway.work.orders import NoInstances, order_of, ticket_to_json
from gateway.work.vendors import Vendors

log = structlog.get_logger(__name__)

_USER_WAITS = 25.0
_REOPENED = 600.0  # what a change by the user may take the vendor


class SlideWay:
    def __init__(
        self, settings: Settings, store: Store, vendors: Vendors, status: SlideStatus, spool: Spool
    ) -> None:
        self._settings = settings
        self._store = store
        self._vendors = vendors
        self._status = status
        self._spool = spool

    def locate(self, job: Job, application: Application) -> Outcome:
        if job.slide_id is None:
            raise Permanent(
                "this application's vendor works on slides in Sectra, and the job has none",
                "Ask for it on the slide, in Sectra.",
            )
        if job.origin is Origin.NOTIFICATION and job.promised is None:
            return Wait(
                after=application.settle,
                what=f"waiting {application.settle:g} s for the slide to be complete",
                values={"promised": 0},
            )
        return Advance(State.SUBMITTING, "the vendor reads the slide itself", {}, {"promised": 0})

    async def submit(self, job: Job, application: Application, adapter: Adapter) -> Outcome:
        callback = await self._store.open_grant(job, self._url(job.adapter), fresh=not job.submit_began)
        ticket = await adapter.find(order_of(job, callback=callback)) if job.submit_began else None
        if ticket is None:
            image_info = None
            if job.origin is Origin.NOTIFICATION:
                info = await self._status.client_of(job).slide_info(job.slide_id or "")
                image_info = without_identity(info.to_wire())
            job = await self._store.keep(job, "calling the vendor", submit_began=True, sent=0)
            order = order_of(job, callback=callback, image_info=image_info)
            ticket = await adapter.submit(order, NoInstances(order.study_instance_uid))
        return Advance(
            State.ANALYSING,
            "the vendor has been called",
            {},
            {
                "ticket": ticket_to_json(ticket),
                "sent": 0,
                "acknowledged": 0,
                "result_by": datetime.now(UTC) + timedelta(seconds=application.result_within),
            },
        )

    async def find(self, job: Job, adapter: Adapter) -> Ticket | None:
        """What a job that was cancelled in the middle of the vendor's answer has to call off."""
        callback = await self._store.open_grant(job, self._url(job.adapter), fresh=False)
        return await adapter.find(order_of(job, callback=callback))

    async def tell_change(
        self,
        adapter_name: str,
        changed: ChangedResult,
        change: Modification,
        sectra: Mapping[str, str],
        context: Mapping[str, Any],
    ) -> Mapping[str, Any] | None:
        """A user has changed or deleted a result: the vendor's answer. None when there is none to give, and
        the job's history says why. `sectra`: where to call back now, and with what token."""
        if not self._vendors.kind(adapter_name).interactive:
            return None
        told = f"the user's {change.kind} of a result is told to the vendor"
        reopened = await self._store.reopen_grant(changed, _REOPENED, sectra, told)
        if reopened is None:
            return None
        job, token = reopened
        order = order_of(job, callback=Callback(self._url(adapter_name), token, used=True))
        order = replace(order, context=dict(context) or order.context)
        work = uuid4()  # the job's own folder may be in use, or gone
        try:
            adapter = self._vendors.make(adapter_name, self._spool.folder(work))
            async with asyncio.timeout(_USER_WAITS):
                answer = await adapter.modify(order, change)
        except (Failure, TimeoutError) as trouble:
            why = trouble.message if isinstance(trouble, Failure) else f"no answer within {_USER_WAITS:g} s"
            await self._store.note_change(job.id, "the vendor didn't take the change", {"message": why})
            log.warning("a vendor didn't take a change", job=str(job.id), error=why)
            return None
        finally:
            self._spool.remove(work)
        return answer.placed if isinstance(answer, Finished) else None

    def _url(self, adapter: str) -> str:
        if self._settings.public_url is None:
            raise NeedsHuman(
                f"the vendor of adapters.{adapter} can't call us: nobody says where we are",
                "Set public_url, then resume the job.",
            )
        return f"{self._settings.public_url}/adapters/{adapter}"
