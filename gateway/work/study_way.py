"""Jobs of vendors that are sent a study: it is looked for in the archives, and streams from there to them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from gateway.archives.arrived import arrived_name
from gateway.archives.lookup import Found, Lookup, NotYet, Wanted
from gateway.archives.sectra import Slides
from gateway.archives.spool import Spool
from gateway.contract import Adapter, NeedsHuman, Order, Pending, Permanent, Ticket
from gateway.delivery.slide_status import SlideStatus
from gateway.jobs.outcomes import Advance, Outcome, Wait
from gateway.jobs.records import InstanceRecord, Job, Origin
from gateway.jobs.states import State
from gateway.jobs.store import Store
from gateway.settings.sections import Application
from gateway.work.agreement import ImageCheck, asked_of, check_match
from gateway.work.conversation import Conversation
from gateway.work.doubt import doubt
from gateway.work.latecomers import Latecomers
from gateway.work.orders import order_of, ticket_to_json
from gateway.work.shipment import Shipment

URGENT = 9  # doesn't wait for an archive's hours


class StudyWay:
    def __init__(
        self,
        store: Store,
        lookup: Lookup,
        slides: Slides,
        conversation: Conversation,
        status: SlideStatus,
        spool: Spool,
        data_dir: Path,
    ) -> None:
        self._store = store
        self._lookup = lookup
        self._slides = slides
        self._conversation = conversation
        self._status = status
        self._spool = spool
        self._latecomers = Latecomers(store, lookup, spool, data_dir)

    async def locate(self, job: Job, application: Application) -> Outcome:
        if job.study_instance_uid is None and job.accession_number is None:
            raise Permanent(
                "the slide names neither a study nor an accession number",
                "Complete the slide's request in Sectra, then ask again.",
            )
        wanted = self._wanted(job, application)
        try:
            names = application.archives
            if job.origin is Origin.SENT:
                await self._latecomers.complete(job, names, wanted)
                names = [arrived_name(job.application), *names]
            found = await self._lookup.find(names, wanted, self._store.results_among)
        except NotYet as wait:
            if job.origin is not Origin.NOTIFICATION:
                await self._status.show_progress(job, f"waiting: {wait.why}", None)
            return _wait(job, wait)
        if job.origin is Origin.NOTIFICATION and job.promised != len(found.listed):
            self._lookup.give_back(found)
            self._spool.forget_slide(job.id)  # it may be growing
            return Wait(
                after=application.settle,
                what=f"waiting {application.settle:g} s for the study to be complete",
                detail={"instances": len(found.listed)},
                values={"promised": len(found.listed)},
            )
        found.check()
        check_match(job, found.study)
        unasked = ", ".join(found.unasked)
        await self._promise(job, found)
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
            what = f"waiting until {opening:%Y-%m-%d %H:%M}: outside of the hours of {job.archive}"
            return Wait(at=opening, what=what, values={"at_vendor": False})
        callback = await self._conversation.callback(job, adapter, fresh=not job.submit_began)
        order = order_of(job, callback=callback)
        ticket = await self._find(job, adapter, order) if job.submit_began else None
        if ticket is None:
            wait = doubt(job, adapter)
            if wait is not None:
                return wait
            job, ticket = await self._send(job, application, adapter, order)
        sent, acknowledged = await self._store.record_acknowledged(job, ticket.acknowledged)
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
        self, job: Job, application: Application, adapter: Adapter, order: Order
    ) -> tuple[Job, Ticket]:
        """What the vendor hasn't confirmed yet."""
        found = await self._lookup.find_again(
            job.archive or "", self._wanted(job, application), self._store.results_among
        )
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
        there = len(promised) - len(missing)
        job = await self._store.keep(
            job, "sending to the vendor", submit_began=True, sent=there, doubted_until=None
        )
        shipment = Shipment(
            self._lookup.archive(job.archive or "", self._slides.of(job)),
            order.study_instance_uid,
            missing,
            found.listed,
            application.accept.max_bytes,
            ImageCheck(job),
            partial(self._store.record_sent, job),
            partial(self._store.acknowledge, job),
            partial(self._store.forget_acknowledged, job),
            self._spool.folder(job.id),
        )
        ticket = await adapter.submit(order, shipment)
        if there and ticket.acknowledged is not None:
            before = {each.sop_instance_uid for each in promised} - missing.keys()
            ticket = replace(ticket, acknowledged=tuple(sorted(before.union(ticket.acknowledged))))
        return job, ticket

    async def _find(self, job: Job, adapter: Adapter, order: Order) -> Ticket | None:
        """After a crash or a broken connection: what the vendor already has isn't sent again."""
        ticket = await adapter.find(order)
        if ticket is None:
            return None
        if ticket.acknowledged is None and (job.sent or 0) < (job.promised or 0):
            # The vendor knows the study, but not all of it from us: our bytes had not all left.
            await self._store.note(job, "the vendor doesn't have the whole study from us; sending the rest")
            return None
        if ticket.acknowledged is not None:
            ours = {each.sop_instance_uid for each in await self._store.instances_of(job.id)}
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


def _wait(job: Job, wait: NotYet) -> Wait:
    detail: dict[str, object] = {"archives": list(wait.remarks)}
    if wait.trouble is None:
        what = f"waiting until {wait.at:%Y-%m-%d %H:%M:%S}: {wait.why}"
        return Wait(at=wait.at, what=what, why=wait.why, detail=detail)
    what = f"waiting: {wait.why}"
    detail["advice"] = wait.trouble.advice
    return Wait(at=wait.at, what=None if job.waits_why == wait.why else what, why=wait.why, detail=detail)
