"""What is done in each state. A step looks, acts and says what came of it; the engine writes it down."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import structlog

from gateway.archives.arrived import arrived_name
from gateway.archives.lookup import Lookup, NotYet, Wanted
from gateway.archives.spool import Spool
from gateway.contract import (
    Adapter,
    Failure,
    Finished,
    NeedsHuman,
    Order,
    Pending,
    Permanent,
    Retryable,
    Ticket,
    Unsuitable,
)
from gateway.delivery.dispatch import Dispatch
from gateway.delivery.slide_status import SlideStatus
from gateway.jobs.outcomes import Advance, Outcome, Rest, Wait
from gateway.jobs.records import InstanceRecord, Job, Origin
from gateway.jobs.states import State
from gateway.jobs.store import Store
from gateway.settings.sections import Application, Retry, Settings
from gateway.work import results
from gateway.work.orders import order_of, ticket_from_json, ticket_to_json, with_heard
from gateway.work.shipment import Shipment
from gateway.work.slide_way import SlideWay
from gateway.work.suitability import check_slide
from gateway.work.vendors import Vendors

log = structlog.get_logger(__name__)

URGENT = 9  # doesn't wait for an archive's hours
_DISK_PAUSE = 30.0
_DISK_FULL = "waiting: the disk of data_dir is nearly full"
_MAKE_ROOM = "Make room there; the job then goes on by itself."
IGNORED = "ignored"  # a notification outside of what the application accepts


class JobSteps:
    def __init__(
        self,
        settings: Settings,
        store: Store,
        lookup: Lookup,
        vendors: Vendors,
        status: SlideStatus,
        dispatch: Dispatch,
        spool: Spool,
    ) -> None:
        self._settings = settings
        self._store = store
        self._lookup = lookup
        self._vendors = vendors
        self._status = status
        self._dispatch = dispatch
        self._spool = spool
        self.slide_way = SlideWay(settings, store, vendors, status, spool)
        self._steps: dict[State, Callable[[Job], Awaitable[Outcome]]] = {
            State.RECEIVED: self._begin,
            State.LOCATING: self._locate,
            State.SUBMITTING: self._submit,
            State.ANALYSING: self._poll,
            State.DELIVERING: self._deliver,
            State.HELD: self._tell,
            State.FAILED: self._tell,
            State.CANCELLED: self._tell,
        }

    async def take(self, job: Job) -> Outcome:
        try:
            return await self._steps[job.state](job)
        except Unsuitable as reason:
            if job.origin is not Origin.NOTIFICATION:
                raise
            values = {"error_kind": IGNORED, "error_message": reason.message, "error_advice": reason.advice}
            return Advance(State.CANCELLED, "ignored", {"reason": reason.message}, values)

    def retry_of(self, job: Job) -> Retry:
        found = self._settings.application(job.application)
        return Retry() if found is None else found[1].retry

    def contact_of(self, job: Job) -> str:
        department = self._settings.departments.get(job.department)
        return "" if department is None else department.contact

    def _application(self, job: Job) -> Application:
        found = self._settings.application(job.application)
        if found is None:
            raise NeedsHuman(
                f"the application {job.application} is no longer configured",
                "Put it back into its department, then resume the job; or cancel the job.",
            )
        return found[1]

    def _adapter(self, job: Job) -> Adapter:
        return self._vendors.make(job.adapter, self._spool.folder(job.id))

    def _calls_back(self, job: Job) -> bool:
        return not self._vendors.kind(job.adapter).needs_study

    # -- received, locating ---------------------------------------------------------------------------

    async def _begin(self, job: Job) -> Outcome:
        self._application(job)
        return Advance(State.LOCATING, "begun")

    async def _locate(self, job: Job) -> Outcome:
        application = self._application(job)
        job = await self._read_slide(job, application)
        if self._calls_back(job):
            return self.slide_way.locate(job, application)
        if job.study_instance_uid is None and job.accession_number is None:
            raise Permanent(
                "the slide names neither a study nor an accession number",
                "Complete the slide's request in Sectra, then ask again.",
            )
        wanted = Wanted(
            job.study_instance_uid,
            job.accession_number,
            job.patient_id,
            application.accept.modalities,
            application.choose,
            urgent=job.priority >= URGENT,
        )
        try:
            names = application.archives
            if job.origin is Origin.SENT:
                names = [arrived_name(job.application), *names]
            found = await self._lookup.find(names, wanted, self._store.results_among)
        except NotYet as wait:
            what = f"waiting until {wait.at:%Y-%m-%d %H:%M:%S}: {wait.why}"
            return Wait(at=wait.at, what=what, detail={"archives": list(wait.remarks)})
        if job.origin is Origin.NOTIFICATION and job.promised != found.listed:
            self._lookup.give_back(found)
            return Wait(
                after=application.settle,
                what=f"waiting {application.settle:g} s for the study to be complete",
                detail={"instances": found.listed},
                values={"promised": found.listed},
            )
        found.check()
        await self._store.promise(
            job,
            [
                InstanceRecord(one.sop_instance_uid, one.series_instance_uid, one.sop_class_uid)
                for one in found.instances
            ],
        )
        return Advance(
            State.SUBMITTING,
            f"found in {found.archive}",
            {
                "instances": len(found.instances),
                "left_out": sum(found.left_out.values()),
                "left_out_because": dict(found.left_out),
                "archives": list(found.remarks),
            },
            {
                "archive": found.archive,
                "study_instance_uid": found.study.study_instance_uid,
                "accession_number": job.accession_number or found.study.accession_number,
                "patient_id": job.patient_id or found.study.patient_id,
                "promised": len(found.instances),
            },
        )

    async def _read_slide(self, job: Job, application: Application) -> Job:
        """Which study the slide belongs to, asked of Sectra once."""
        if job.slide_id is None or job.slide_width is not None:
            return job
        info = await self._status.client_of(job).slide_info(job.slide_id, phi=True)
        check_slide(application.accept, info)
        size = info.image_size
        job = await self._store.keep(
            job,
            slide_width=size.width if size else 1000,
            slide_height=size.height if size else 1000,
            study_instance_uid=job.study_instance_uid or info.study_instance_uid,
            accession_number=job.accession_number or info.accession_number,
            accession_number_issuer=info.accession_number_issuer,
            exam_id=info.exam_id,
        )
        if job.origin is not Origin.NOTIFICATION:
            await self._status.show_queued(job)
        return job

    # -- submitting -----------------------------------------------------------------------------------

    async def _submit(self, job: Job) -> Outcome:
        application = self._application(job)
        if self._spool.is_full and not job.submit_began:
            log.error("no new work begins: the disk of data_dir is nearly full", job=str(job.id))
            said = job.error_message == _DISK_FULL
            full = {"error_kind": Retryable.kind, "error_message": _DISK_FULL, "error_advice": _MAKE_ROOM}
            return Wait(
                after=_DISK_PAUSE, what=None if said else _DISK_FULL, values={**full, "at_vendor": False}
            )
        adapter = self._adapter(job)
        if self._calls_back(job):
            return await self.slide_way.submit(job, application, adapter)
        order = order_of(job)
        opening = self._lookup.opens_at(job.archive or "", urgent=job.priority >= URGENT)
        if opening is not None and not job.submit_began:  # it has waited for its place at the vendor till now
            what = f"waiting until {opening:%Y-%m-%d %H:%M}: outside of the hours of {job.archive}"
            return Wait(at=opening, what=what, values={"at_vendor": False})
        ticket = await self._find_at_vendor(job, adapter, order) if job.submit_began else None
        if ticket is None:
            await self._status.show_progress(job, "sending", 0.0)
            job = await self._store.keep(job, "sending to the vendor", submit_began=True, sent=0)
            chosen = {one.sop_instance_uid: one for one in await self._store.instances_of(job.id)}
            shipment = Shipment(
                self._lookup.archive(job.archive or ""),
                order.study_instance_uid,
                chosen,
                application.accept.max_bytes,
                lambda sent: self._store.record_sent(job, sent),
                self._spool.folder(job.id),
            )
            ticket = await adapter.submit(order, shipment)
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

    async def _find_at_vendor(self, job: Job, adapter: Adapter, order: Order) -> Ticket | None:
        """After a crash or a broken connection: what the vendor already has isn't sent again."""
        ticket = await adapter.find(order)
        if ticket is None:
            return None
        if ticket.acknowledged is None and (job.sent or 0) < (job.promised or 0):
            # The vendor knows the study, but not from us: our bytes had not all left.
            await self._store.note(job, "the vendor knows the study from before; sending again")
            return None
        if ticket.acknowledged is not None:
            ours = {one.sop_instance_uid for one in await self._store.instances_of(job.id)}
            arrived = ours.intersection(ticket.acknowledged)  # the vendor may hold more than what we send
            if arrived != ours:
                what = "only part of the study had arrived"
                await self._store.note(job, what, {"arrived": len(arrived)})
                return None
            ticket = replace(ticket, acknowledged=tuple(sorted(arrived)))
        await self._store.note(job, "the study had arrived already; nothing is sent again")
        return ticket

    # -- analysing ------------------------------------------------------------------------------------

    async def _poll(self, job: Job) -> Outcome:
        application = self._application(job)
        if job.ticket is None:
            raise NeedsHuman("the job has no ticket of its vendor", "Retry the job from the beginning.")
        self._spool.empty(job.id)
        ticket = ticket_from_json(job.ticket)
        if self._calls_back(job):
            ticket = with_heard(ticket, await self._store.heard_of(job.id))
        answer = await self._adapter(job).poll(ticket)
        now = datetime.now(UTC)
        if isinstance(answer, Finished):
            return await self._collect(job, application, answer)
        self._spool.remove(job.id)
        deadline = job.result_by or now + timedelta(seconds=application.result_within)
        if now >= deadline:
            raise NeedsHuman(
                f"no result within {application.result_within:g} s",
                "Ask the vendor for the state of the study; resume the job to wait on.",
            )
        nobody_asked = job.origin is Origin.NOTIFICATION
        if not (nobody_asked and self._calls_back(job)):  # the vendor may ignore the slide
            await self._status.show_progress(job, answer.note or "analysing", answer.progress)
        pause = min(answer.after, max(0.05, (deadline - now).total_seconds()))
        values: dict[str, object] = {"result_by": deadline}
        if answer.ticket is not None:
            values["ticket"] = ticket_to_json(answer.ticket)
        return Wait(after=pause, values=values)

    async def _collect(self, job: Job, application: Application, finished: Finished) -> Outcome:
        await asyncio.to_thread(results.check_study, finished, job.study_instance_uid or "", job.patient_id)
        if not finished.findings and finished.slide is None:
            finished = await asyncio.to_thread(results.with_findings, finished)
        stored = await asyncio.to_thread(results.to_json, finished, self._spool.folder(job.id))
        destinations = [name for name in application.deliver if name != "sectra" or job.slide_id is not None]
        await self._store.plan_deliveries(job, destinations)
        if self._calls_back(job):
            await self._store.sum_up_calls(job.id)
        return Advance(
            State.DELIVERING,
            "the vendor found nothing" if finished.empty else "the vendor is done",
            {"objects": len(finished.dicom), "findings": len(finished.findings)},
            {"result": stored, "received": len(finished.dicom)},
        )

    # -- delivering -----------------------------------------------------------------------------------

    async def _deliver(self, job: Job) -> Outcome:
        application = self._application(job)
        finished = await self._finished(job)
        if isinstance(finished, Pending):
            return Wait(after=finished.after, what="collecting the results again")
        outcome = await self._dispatch.run(job, application, finished)
        if isinstance(outcome, Advance):
            self._spool.forget(job.id)
        return outcome

    async def _finished(self, job: Job) -> Finished | Pending:
        if job.result is None or job.ticket is None:
            raise NeedsHuman("the job has no result to deliver", "Retry the job from the beginning.")
        work = self._spool.folder(job.id)
        if await asyncio.to_thread(results.files_are_here, job.result, work):
            return results.from_json(job.result, work)
        # Collected by another machine, or lost with its disk: the vendor still has them.
        self._spool.empty(job.id)
        answer = await self._adapter(job).poll(ticket_from_json(job.ticket))
        if isinstance(answer, Finished):
            await asyncio.to_thread(results.check_study, answer, job.study_instance_uid or "", job.patient_id)
            if len(answer.dicom) != job.received:
                raise NeedsHuman(
                    f"the vendor returned {job.received} objects at first and {len(answer.dicom)} now",
                    "Ask the vendor, then retry or cancel the job.",
                )
        return answer

    # -- ended or held --------------------------------------------------------------------------------

    async def _tell(self, job: Job) -> Outcome:
        """A doctor must never look at "queued" for ever."""
        if job.state == State.CANCELLED and (job.ticket is not None or job.submit_began):
            try:
                await self._call_off(job)
            except Failure as failure:
                await self._store.note(
                    job, "the vendor couldn't be told of the cancel", {"message": failure.message}
                )
        if job.state != State.HELD:
            self._spool.forget(job.id)
        if job.slide_id is None or job.error_kind == IGNORED or await self._result_stands(job):
            return Rest()
        await self._status.show_end(job)
        return Rest("said so on the slide")

    async def _result_stands(self, job: Job) -> bool:
        """Only its way elsewhere is held up: on the slide the result is worth more than news of that."""
        if job.state != State.HELD or job.held_in != State.DELIVERING:
            return False
        return any(
            one.destination == "sectra" and one.state == "done"
            for one in await self._store.deliveries_of(job.id)
        )

    async def _call_off(self, job: Job) -> None:
        adapter = self._adapter(job)
        ticket = None if job.ticket is None else ticket_from_json(job.ticket)
        if self._calls_back(job):
            await self._store.sum_up_calls(job.id)
            ticket = ticket or await self.slide_way.find(job, adapter)
        if ticket is not None:
            await adapter.cancel(ticket)
