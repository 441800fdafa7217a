"""Jobs of vendors that are sent a study: it is looked for in the archives, and streams from there to them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable
from contextvars import ContextVar
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import UUID

from gateway.archives.arrived import Brought, arrived_name
from gateway.archives.lookup import Found, Lookup, NotYet, Wanted
from gateway.archives.sectra import Slides
from gateway.archives.spool import Spool
from gateway.contract import Adapter, NeedsHuman, Order, Pending, Ticket
from gateway.delivery.slide_status import SlideStatus
from gateway.jobs.outcomes import Advance, Outcome, Wait
from gateway.jobs.records import SENDING, TRIAL, InstanceRecord, Job, Origin
from gateway.jobs.states import State
from gateway.jobs.store import Store
from gateway.settings.sections import Application
from gateway.work.agreement import ImageCheck, asked_of, check_match, require_named
from gateway.work.conversation import Conversation
from gateway.work.disguise import Disguise
from gateway.work.doubt import doubt
from gateway.work.latecomers import Latecomers
from gateway.work.orders import ticket_to_json
from gateway.work.shipment import Shipment
from gateway.work.strata import STRATA, Strata

URGENT = 9  # doesn't wait for an archive's hours
UNTIL = "waiting until"  # says who waits for a moment
# By the task that looked: it sends at once what it has just found, and whoever has waited looks again.
_just_found: ContextVar[tuple[UUID, Found] | None] = ContextVar("just found", default=None)


class StudyWay:
    def __init__(
        self,
        store: Store,
        lookup: Lookup,
        slides: Slides,
        conversation: Conversation,
        status: SlideStatus,
        spool: Spool,
        brought_by: Callable[[Job], Brought],
    ) -> None:
        self._store = store
        self._lookup = lookup
        self._slides = slides
        self._conversation = conversation
        self._status = status
        self._spool = spool
        self._latecomers = Latecomers(store, lookup, spool, brought_by)

    async def locate(self, job: Job, application: Application) -> Outcome:
        require_named(asked_of(job))
        wanted = self._wanted(job, application)
        try:
            names = application.archives
            if job.origin is Origin.SENT:
                await self._latecomers.complete(job, names, wanted)
                names = [arrived_name(job.application), *names]
            found = await self._lookup.find(names, wanted, self._store.results_among)
        except NotYet as wait:
            if wait.trouble is not None:
                wait.trouble.detail.setdefault("archives", list(wait.remarks))
                raise wait.trouble from None
            if job.origin is not Origin.NOTIFICATION:
                await self._status.show_progress(job, f"waiting: {wait.why}", None)
            what = f"{UNTIL} {wait.at:%Y-%m-%d %H:%M:%S}: {wait.why}"
            return Wait(at=wait.at, what=what, why=wait.why, detail={"archives": list(wait.remarks)})
        if job.origin is Origin.NOTIFICATION and job.promised != len(found.listed):
            await self._lookup.give_back(found)
            await asyncio.to_thread(self._spool.forget_slide, job.id)  # it may be growing
            return Wait(
                after=application.settle,
                what=f"waiting {application.settle:g} s for the study to be complete",
                detail={"instances": len(found.listed)},
                values={"promised": len(found.listed)},
            )
        found.check()
        check_match(asked_of(job), found.study)
        unasked = ", ".join(found.unasked)
        await self._promise(job, found)
        _just_found.set((job.id, found))
        return Advance(
            State.SUBMITTING,
            f"found in {found.archive}" + (f"; {unasked} wasn't asked" if unasked else ""),
            {
                "instances": len(found.instances),
                "left_out": sum(found.left_out.values()),
                "left_out_because": dict(found.left_out),
                "archives": list(found.remarks),
            },
            {
                "archive": found.archive,
                "unasked": unasked or None,
                "study_instance_uid": found.study.study_instance_uid,
                "accession_number": job.accession_number or (found.study.identity.accession_number or None),
                "patient_id": job.patient_id or (found.study.identity.patient_id or None),
                "promised": len(found.instances),
            },
        )

    def _wanted(self, job: Job, application: Application) -> Wanted:
        return Wanted(
            asked_of(job),
            application.accept.modalities,
            application.choose,
            urgent=job.priority >= URGENT,
            beside=job.beside,
            slide=self._slides.of(job),
            when_unreachable=application.when_unreachable,
        )

    async def _promise(self, job: Job, found: Found) -> None:
        records = [
            InstanceRecord(each.sop_instance_uid, each.series_instance_uid, each.sop_class_uid)
            for each in found.instances
        ]
        await self._store.promise(job, records)

    async def submit(self, job: Job, application: Application, adapter: Adapter) -> Outcome:
        opening = self._lookup.opens_at(job.archive or "", urgent=job.priority >= URGENT)
        if opening is not None and not job.submit_began:  # it has waited for its place at the vendor till now
            what = f"{UNTIL} {opening:%Y-%m-%d %H:%M}: outside of the hours of {job.archive}"
            return Wait(at=opening, what=what, values={"at_vendor": False})
        order, disguise = await self._conversation.open(job, adapter, fresh=not job.submit_began)
        ticket = await self._find(job, adapter, order, disguise) if job.submit_began else None
        if ticket is None:
            wait = doubt(job, adapter)
            if wait is not None:
                return wait
            job, ticket = await self._send(job, application, adapter, order, disguise)
        sent, acknowledged = await self._store.record_acknowledged(
            job, await self._acknowledged(job, ticket, disguise)
        )
        if not job.promised == sent == acknowledged:
            raise NeedsHuman(
                f"the counts differ: {job.promised} instances promised by the archive, {sent} sent,"
                f" {acknowledged} acknowledged by the vendor",
                "Ask the vendor what arrived, then retry or cancel the job.",
            )
        return Advance(
            State.ANALYSING,
            "the vendor has the study",
            {"sent": sent, "acknowledged": acknowledged},
            {
                "ticket": ticket_to_json(ticket),
                "sent": sent,
                "acknowledged": acknowledged,
                "result_by": datetime.now(UTC) + timedelta(seconds=application.result_within),
            },
        )

    async def _take_changed(self, job: Job, found: Found) -> Job:
        """While it waited for its place at the vendor, or because the archive had listed only a part."""
        found.check()
        await self._promise(job, found)
        said = f"the study has changed in {found.archive}: {len(found.instances)} instances are sent now"
        return await self._store.keep(job, said, promised=len(found.instances))

    async def _send(
        self,
        job: Job,
        application: Application,
        adapter: Adapter,
        order: Order,
        disguise: Disguise | None,
    ) -> tuple[Job, Ticket]:
        """What the vendor hasn't confirmed yet."""
        found = await self._found(job, application)
        promised = await self._store.instances_of(job.id)
        if {each.sop_instance_uid for each in promised} != {
            each.sop_instance_uid for each in found.instances
        }:
            job = await self._take_changed(job, found)
            promised = await self._store.instances_of(job.id)
        await self._status.show_progress(job, "sending", 0.0)
        missing = {each.sop_instance_uid: each for each in promised if not each.acknowledged}
        if not missing:  # and yet the vendor doesn't have it
            await self._store.forget_acknowledged(job)
            missing = {each.sop_instance_uid: replace(each, acknowledged=False) for each in promised}
        if disguise is not None:
            await disguise.announce(
                uid for each in promised for uid in (each.sop_instance_uid, each.series_instance_uid)
            )
        there = len(promised) - len(missing)
        job = await self._store.keep(job, SENDING, submit_began=True, sent=there, doubted_until=None)
        check = Strata(ImageCheck(job))
        shipment = Shipment(
            self._lookup.archive(job.archive or "", self._slides.of(job)),
            job.study_instance_uid or "",
            missing,
            found.listed,
            application.accept.max_bytes,
            check,
            partial(self._store.record_sent, job),
            partial(self._store.acknowledge, job),
            partial(self._store.forget_acknowledged, job),
            self._spool.folder(job.id),
            disguise,
        )
        ticket = await adapter.submit(order, shipment)
        if job.application.startswith(TRIAL) and check.known:
            job = await self._store.keep(job, context={**(job.context or {}), STRATA: check.known})
        if there and ticket.acknowledged is not None:
            before = _aliases({each.sop_instance_uid for each in promised} - missing.keys(), disguise)
            ticket = replace(ticket, acknowledged=tuple(sorted({*before, *ticket.acknowledged})))
        return job, ticket

    async def _found(self, job: Job, application: Application) -> Found:
        """What the archive has of the study by now."""
        just = _just_found.get()
        _just_found.set(None)
        if just is not None and just[0] == job.id:
            return just[1]
        return await self._lookup.find_again(
            job.archive or "", self._wanted(job, application), self._store.results_among
        )

    async def _acknowledged(
        self, job: Job, ticket: Ticket, disguise: Disguise | None
    ) -> Collection[str] | None:
        """By the UIDs that we know them by."""
        if ticket.acknowledged is None or disguise is None:
            return ticket.acknowledged
        ours = _aliases((each.sop_instance_uid for each in await self._store.instances_of(job.id)), disguise)
        return [ours.get(uid, uid) for uid in ticket.acknowledged]

    async def _find(
        self, job: Job, adapter: Adapter, order: Order, disguise: Disguise | None
    ) -> Ticket | None:
        """After a crash or a broken connection: what the vendor already has isn't sent again."""
        ticket = await adapter.find(order)
        if ticket is None:
            return None
        if ticket.acknowledged is None and job.sent is None:  # brought back from a backup: what left since?
            ours = {each.sop_instance_uid for each in await self._store.instances_of(job.id)}
            what = "the vendor knows the study already, and is taken at its word; nothing is sent again"
            await self._store.note(job, what)
            return replace(ticket, acknowledged=tuple(sorted(ours)))
        if ticket.acknowledged is None and (job.sent or 0) < (job.promised or 0):
            # The vendor knows the study, but not all of it from us: our bytes had not all left.
            await self._store.note(job, "the vendor doesn't have the whole study from us; sending the rest")
            return None
        if ticket.acknowledged is not None:
            promised = (each.sop_instance_uid for each in await self._store.instances_of(job.id))
            ours = set(_aliases(promised, disguise))
            there = ours.intersection(ticket.acknowledged)  # the vendor may hold more than what we send
            if there != ours:
                what = "only part of the study had arrived"
                await self._store.note(job, what, {"arrived": len(there)})
                return None
            ticket = replace(ticket, acknowledged=tuple(sorted(there)))
        await self._store.note(job, "the study had arrived already; nothing is sent again")
        return ticket

    async def is_to_call_again(self, job: Job) -> bool:  # noqa: ARG002 (the ways')
        return False

    async def tell_progress(self, job: Job, answer: Pending) -> None:
        await self._status.show_progress(job, answer.note or "analysing", answer.progress)


def _aliases(uids: Iterable[str], disguise: Disguise | None) -> dict[str, str]:
    """By what the vendor knows each by."""
    return {uid if disguise is None else disguise.alias(uid): uid for uid in uids}
