"""What is done in each state. A step looks, acts and says what came of it; the engine writes it down."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Protocol

import structlog

from gateway.archives.arrived import Brought
from gateway.archives.lookup import Lookup
from gateway.archives.sectra import Slides
from gateway.archives.spool import Spool
from gateway.circuits import Circuits, quota_of
from gateway.contract import (
    Adapter,
    Busy,
    Failure,
    Finished,
    NeedsHuman,
    NotLetIn,
    Pending,
    Retryable,
    Unsuitable,
    blaming,
)
from gateway.delivery.dispatch import Dispatch
from gateway.delivery.originals import Originals
from gateway.delivery.result_objects import application_of
from gateway.delivery.slide_status import SlideStatus
from gateway.dicom.geometry import Plane
from gateway.dicom.reading import loaded
from gateway.gate import working_on
from gateway.jobs.outcomes import Advance, Outcome, Rest, Wait
from gateway.jobs.records import SEQUEL_OF, Job, Origin
from gateway.jobs.states import FINAL, WORKING, State
from gateway.jobs.store import Store
from gateway.jobs.store.fenced import AtLeast
from gateway.sectra.messages import ImageInfo
from gateway.settings.sections import Application, Retry, Settings
from gateway.settings.shadows import application_named
from gateway.watch.drift import bucket_of
from gateway.work import results
from gateway.work.agreement import asked_of
from gateway.work.consequences import decide, destinations_of, notify
from gateway.work.conversation import Conversation
from gateway.work.disguise import Disguises
from gateway.work.orders import ticket_to_json
from gateway.work.overdue import LOOKED_FOR, Overdue, ask_on, is_overdue
from gateway.work.register import check_version
from gateway.work.slide_way import SlideWay
from gateway.work.study_way import StudyWay
from gateway.work.suitability import check_slide
from gateway.work.vendors import Vendors

log = structlog.get_logger(__name__)

_DISK_PAUSE = 30.0
_BUSY_FOR = 30.0
_SHORTEST = 1.0  # before a result is due: clocks differ, and nobody is to ask time after time
_DISK_FULL = "waiting: the disk of data_dir is nearly full"
_TAKEN_UP = "A result that comes later is taken up by itself."
_MAKE_ROOM = "Make room there; the job then goes on by itself."
IGNORED = "ignored"  # a notification outside of what the application accepts


def _is_due(job: Job) -> bool:
    return job.result_by is not None and datetime.now(UTC) >= job.result_by


def _counted(job: Job) -> dict[str, object]:
    """Each result once: the rest of one that came later is no analysis of its own."""
    if SEQUEL_OF in (job.context or {}):
        return {}
    return {"took": bucket_of((datetime.now(UTC) - job.created_at).total_seconds())}


class _NotNow(Pending):
    """The vendor takes no questions: too many, or a quota is used up."""


class Way(Protocol):
    """How jobs of one kind of vendor are done: those that are sent a study, those that work on the slide."""

    async def locate(self, job: Job, application: Application) -> Outcome: ...

    async def submit(self, job: Job, application: Application, adapter: Adapter) -> Outcome: ...

    async def is_to_call_again(self, job: Job) -> bool: ...

    async def tell_progress(self, job: Job, answer: Pending) -> None: ...


class JobSteps:
    def __init__(
        self,
        settings: Settings,
        store: Store,
        lookup: Lookup,
        slides: Slides,
        vendors: Vendors,
        status: SlideStatus,
        dispatch: Dispatch,
        spool: Spool,
        brought_by: Callable[[Job], Brought],
        circuits: Circuits,
    ) -> None:
        self._settings = settings
        self._store = store
        self._lookup = lookup
        self._originals = Originals(store, lookup, slides)
        self._vendors = vendors
        self._status = status
        self._dispatch = dispatch
        self._spool = spool
        self._circuits = circuits
        self._conversation = Conversation(store, vendors, Disguises(store, settings))
        self._late = Overdue(self._conversation, circuits, spool, store)
        self._study_way = StudyWay(store, lookup, slides, self._conversation, status, spool, brought_by)
        self._slide_way = SlideWay(store, self._conversation, status)
        self._steps: dict[State, Callable[[Job], Awaitable[Outcome]]] = {
            State.RECEIVED: self._begin,
            State.LOCATING: self._locate,
            State.SUBMITTING: self._submit,
            State.ANALYSING: self._poll,
            State.DELIVERING: self._deliver,
            State.DONE: self._look_for_more,
            State.HELD: self._tell,
            State.FAILED: self._tell,
            State.CANCELLED: self._tell,
        }

    async def take(self, job: Job) -> Outcome:
        try:
            with working_on(job.id):
                for peer in self._needed(job):
                    await self._circuits.require(peer)
                if job.state in WORKING:
                    await loaded()
                with self._circuits.calling(*self._called(job)):
                    outcome = await self._steps[job.state](job)
        except Unsuitable as reason:
            now = await self._store.get(job.id) or job  # a user may have joined meanwhile
            if now.origin is not Origin.NOTIFICATION:
                reason.detail["unsuitable"] = True
                raise
            values = {"error_kind": IGNORED, "error_message": reason.message, "error_advice": reason.advice}
            return Advance(State.CANCELLED, "ignored", {"reason": reason.message}, values)
        except Failure as failure:
            if self._is_quota(job, failure):
                failure.peer = quota_of(job.adapter)
            if not await self._has_to_wait(job, failure):
                raise
            return await self._wait_for(job, failure)
        if isinstance(outcome, Advance) or job.state == State.ANALYSING:
            await self._circuits.heard(*self._called(job), job_id=job.id)
        return outcome

    # -- peers that are away ---------------------------------------------------------------------------

    def _needed(self, job: Job) -> Iterator[str]:
        """Without which there is nothing to begin; what else is needed asks for itself."""
        if job.state in WORKING:
            yield f"applications.{job.application}"
        yield from self._called(job)

    def _called(self, job: Job) -> Iterator[str]:
        """By each step of this kind, whatever it finds."""
        to_be_read = job.state == State.LOCATING and job.slide_width is None
        to_be_told = job.state in (State.FAILED, State.CANCELLED) or (
            job.state == State.HELD and job.waits_why != LOOKED_FOR
        )
        if job.slide_id is not None and (to_be_read or to_be_told):
            yield f"sectra.{job.server}"
        if job.state == State.SUBMITTING and job.archive is not None:
            yield self._lookup.peer_of(job.archive, job.server if job.slide_id is not None else None)
        polled = job.state == State.ANALYSING and not self._vendors.calls_back(job.adapter)
        if polled or job.state == State.SUBMITTING:
            yield f"adapters.{job.adapter}"
        if job.state == State.SUBMITTING:
            yield quota_of(job.adapter)

    def _is_quota(self, job: Job, failure: Failure) -> bool:
        busy = isinstance(failure, Busy) and failure.peer == f"adapters.{job.adapter}"
        return busy and job.state == State.SUBMITTING

    async def _has_to_wait(self, job: Job, failure: Failure) -> bool:
        """What only tries a vendor waits with the others, and makes nobody wait, nor hear of it."""
        if job.beside:
            return failure.peer is not None and self._circuits.bars(failure.peer)
        return await self._circuits.met(failure, job.id, canary=job.canary)

    async def _wait_for(self, job: Job, failure: Failure) -> Outcome:
        """It costs no attempt, and nobody tries again before the peer is back."""
        assert failure.peer is not None
        begun = job.submit_began or job.state not in (State.RECEIVED, State.LOCATING, State.SUBMITTING)
        why = self._circuits.waiting(failure.peer, begun=begun)
        if job.state in FINAL:
            why = f"{self._circuits.why(failure.peer)}; the slide is told of the end when it can be"
        advice = self._circuits.advice(failure.peer) or failure.advice
        values: dict[str, object] = {
            "waits_for": failure.peer,
            "attempt": max(0, job.attempt - 1),
            "at_vendor": job.at_vendor and (job.submit_began or job.state != State.SUBMITTING),
            "error_kind": Retryable.kind,
            "error_message": failure.message,
            "error_advice": advice,
        }
        if isinstance(failure, Busy):  # it took nothing, so that it needn't be asked what arrived
            values["submit_began"] = job.submit_began
        if job.state not in WORKING:  # it ended then, and for that
            values |= {"updated_at": job.updated_at, "error_kind": job.error_kind}
            values |= {"error_message": job.error_message, "error_advice": job.error_advice}
        else:
            if not await self._tell_waiting(job, why):
                self._circuits.tell_later(job.id)
        detail = {
            **failure.detail,
            "peer": failure.peer,
            "message": failure.message,
            "advice": advice,
        }
        log.warning("a job waits for a peer", job=str(job.id), peer=failure.peer, error=failure.message)
        return Wait(what=f"waiting: {why}", why=why, detail={**failure.detail, **detail}, values=values)

    async def tell_waiting(self, job: Job) -> bool:
        """On the slide of a job that was made to wait, or to go on, without being tried; whether it could."""
        return job.state not in WORKING or await self._tell_waiting(job, job.waits_why or "queued")

    async def _tell_waiting(self, job: Job, why: str) -> bool:
        if job.origin is Origin.NOTIFICATION or await self._result_stands(job):
            return True
        return await self._status.show_progress(job, why, None)

    def retry_of(self, job: Job) -> Retry:
        found = application_named(self._settings, job.application)
        return Retry() if found is None else found.retry

    def contact_of(self, job: Job) -> str:
        department = self._settings.departments.get(job.department)
        return "" if department is None else department.contact

    def _application(self, job: Job) -> Application:
        return application_of(self._settings, job)

    def _adapter(self, job: Job) -> Adapter:
        return self._vendors.make(job.adapter, self._spool.folder(job.id))

    def _way(self, job: Job) -> Way:
        return self._slide_way if self._vendors.works_on_slide(job.adapter) else self._study_way

    # -- received, locating ---------------------------------------------------------------------------

    async def _begin(self, job: Job) -> Outcome:
        self._application(job)
        return Advance(State.LOCATING, "begun")

    async def _locate(self, job: Job) -> Outcome:
        application = self._application(job)
        return await self._way(job).locate(await self._read_slide(job, application), application)

    async def _read_slide(self, job: Job, application: Application) -> Job:
        """Which study the slide belongs to, asked of Sectra once."""
        if job.slide_id is None or (job.slide_width is not None and job.callback_accepted):
            return job
        info = await self._ask_sectra(job, job.slide_id)
        check_slide(application.accept, info)
        size = info.image_size
        job = await self._store.keep(
            job,
            callback_accepted=True,
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

    async def _ask_sectra(self, job: Job, slide_id: str) -> ImageInfo:
        """With the invocation's own token until Sectra has let it in: one that it refuses may be anybody's,
        and is no trouble of the server's."""
        client = self._status.client_of(job)
        with blaming(f"sectra.{job.server}"):
            try:
                return await client.slide_info(slide_id, phi=True)
            except NotLetIn:
                if await self._status.was_let_in(job):
                    raise
        raise NeedsHuman(
            "Sectra refuses the token that this invocation brought, so that it may be anybody's",
            "If a user of Sectra's did ask, ask again from there: the job then goes on. Else cancel it, and"
            " see who may call /ia.",
        )

    # -- submitting -----------------------------------------------------------------------------------

    async def _submit(self, job: Job) -> Outcome:
        application = self._application(job)
        if self._spool.is_full and not job.submit_began:
            log.error("no new work begins: the disk of data_dir is nearly full", job=str(job.id))
            said = job.error_message == _DISK_FULL
            full = {"error_kind": Retryable.kind, "error_message": _DISK_FULL, "error_advice": _MAKE_ROOM}
            return Wait(
                after=_DISK_PAUSE,
                what=None if said else _DISK_FULL,
                why=_DISK_FULL,
                values={**full, "at_vendor": False},
            )
        with blaming(f"adapters.{job.adapter}"):
            return await self._way(job).submit(job, application, self._adapter(job))

    # -- analysing ------------------------------------------------------------------------------------

    async def _poll(self, job: Job) -> Outcome:
        application = self._application(job)
        if job.ticket is None:
            raise NeedsHuman("the job has no ticket of its vendor", "Retry the job from the beginning.")
        await self._spool.empty(job.id)
        way = self._way(job)
        if await way.is_to_call_again(job):
            return await way.submit(job, application, self._adapter(job))
        answer = await self._ask(job)
        if isinstance(answer, Pending) and _is_due(job):
            answer = await self._gather(job) or answer
        if isinstance(answer, Finished):
            return await self._collect(job, application, answer)
        await asyncio.to_thread(self._spool.remove, job.id)
        waiting = await self._wait_on(job, application, answer)
        await way.tell_progress(job, answer)
        if isinstance(answer, _NotNow) and waiting.why != job.waits_why:
            return replace(waiting, what=f"waiting: {waiting.why}")
        return waiting

    async def _wait_on(self, job: Job, application: Application, answer: Pending) -> Wait:
        """Until it is time to ask the vendor again, and never past the moment that its result is due by."""
        now = datetime.now(UTC)
        deadline = job.result_by or now + timedelta(seconds=application.result_within)
        if isinstance(answer, _NotNow):
            deadline += timedelta(seconds=answer.after)  # it asked for that time, and nobody could ask it
        if now >= deadline:
            raise await self._overdue(job, application, answer)
        values: dict[str, object] = {"result_by": deadline}
        if answer.ticket is not None:
            values["ticket"] = ticket_to_json(answer.ticket)
        pause = min(answer.after, max(_SHORTEST, (deadline - now).total_seconds()))
        return Wait(after=pause, why=answer.note or "the vendor is at work on it", values=values)

    async def _overdue(self, job: Job, application: Application, answer: Pending) -> NeedsHuman:
        """Of an unchanged study some vendors make nothing anew."""
        said = ": ".join(filter(None, (f"no result within {application.result_within:g} s", answer.note)))
        before = await self._store.answered_before(job)
        if before is None:
            return NeedsHuman(said, f"Ask the vendor for the state of the study. {_TAKEN_UP}")
        other, at, results = before
        return NeedsHuman(
            f"{said.rstrip('.')}. It has had the very same images for job {other}, asked for on"
            f" {at.astimezone():%Y-%m-%d %H:%M}, and made a result then (objects: {results}): of a study"
            " that hasn't changed it may make none anew",
            "What it made then stands where that job put it: cancel this one if that will do. Else have the"
            f" vendor look at the study anew. {_TAKEN_UP}",
        )

    async def _ask(self, job: Job) -> Pending | Finished:
        try:
            with blaming(f"adapters.{job.adapter}"):
                return await self._conversation.poll(job, self._adapter(job))
        except Busy as failure:
            return _NotNow(failure.after or _BUSY_FOR, failure.message)

    async def _gather(self, job: Job) -> Finished | None:
        """Of several things that a vendor makes, one that doesn't end holds none of the others back."""
        await self._spool.empty(job.id)
        try:
            with blaming(f"adapters.{job.adapter}"):
                return await self._conversation.gather(job, self._adapter(job))
        except Busy:
            return None

    async def _collect(self, job: Job, application: Application, finished: Finished) -> Outcome:
        judged = await asyncio.to_thread(
            results.judge,
            finished,
            asked_of(job),
            await self._images_of(job),
            images_known=bool(job.promised),
        )
        if judged.marks:
            judged = await asyncio.to_thread(judged.placed, await self._planes_of(job, judged.spaces))
        finished, version = results.say_undrawn(judged), judged.version
        await check_version(self._store, job.application, application, version)
        followed = decide(application.when, finished.findings)
        await self._store.plan_deliveries(job, destinations_of(application, job, followed))
        await notify(self._store, job, application, followed)
        await self._store.sum_up_calls(job.id)
        return Advance(
            State.DELIVERING,
            "the vendor found nothing" if finished.empty else "the vendor is done",
            {
                "objects": len(finished.dicom),
                "findings": len(finished.findings),
                "version": version,
                "empty": finished.empty,
                "positive": bool(finished.findings),
                **_counted(job),
                **({"failed": list(finished.failed)} if finished.failed else {}),
                **({"analyses": list(finished.analyses)} if finished.analyses else {}),
                **({"by_rule": followed.told} if followed.met else {}),
                **({"not_drawn": list(judged.undrawn)} if judged.undrawn else {}),
            },
            {
                "result": await asyncio.to_thread(results.to_json, finished, self._spool.folder(job.id)),
                "received": len(finished.dicom),
                "result_by": None,
                "vendor_version": version or None,
                **({} if followed.priority is None else {"priority": AtLeast(followed.priority)}),
            },
        )

    async def _images_of(self, job: Job) -> dict[str, int | None]:
        """And how wide each is."""
        return {image.sop_instance_uid: image.width for image in await self._store.instances_of(job.id)}

    async def _planes_of(self, job: Job, spaces: Collection[str]) -> list[Plane]:
        if job.archive is None or not job.promised:
            return []
        with blaming(self._lookup.peer_of(job.archive, job.server if job.slide_id is not None else None)):
            return await self._originals.planes(job, spaces, self._spool.folder(job.id))

    # -- delivering -----------------------------------------------------------------------------------

    async def _deliver(self, job: Job) -> Outcome:
        application = self._application(job)
        finished = await self._finished(job)
        if isinstance(finished, Pending):
            again = "collecting the results again" if job.result_by is None else None
            return replace(await self._wait_on(job, application, finished), what=again)
        return ask_on(job, await self._dispatch.run(job, application, finished), finished)

    async def _finished(self, job: Job) -> Finished | Pending:
        if job.result is None or job.ticket is None:
            raise NeedsHuman("the job has no result to deliver", "Retry the job from the beginning.")
        work = self._spool.folder(job.id)
        if await asyncio.to_thread(results.files_are_here, job.result, work):
            return results.from_json(job.result, work)
        # Collected by another machine, or lost with its disk: the vendor still has them.
        await self._spool.empty(job.id)
        answer = await self._ask(job)
        if isinstance(answer, Pending) and job.result.get("failed"):
            answer = await self._gather(job) or answer
        if isinstance(answer, Finished):
            images = await self._images_of(job)
            await asyncio.to_thread(results.check_study, answer, asked_of(job), images)
            if len(answer.dicom) != job.received:
                raise NeedsHuman(
                    f"the vendor returned {job.received} objects at first and {len(answer.dicom)} now",
                    "Ask the vendor, then retry or cancel the job.",
                )
        return answer

    # -- ended or held --------------------------------------------------------------------------------

    async def _tell(self, job: Job) -> Outcome:
        if not is_overdue(job):
            return await self._say_end(job)
        if job.waits_why != LOOKED_FOR:
            return self._late.wait(job, (await self._say_end(job)).what)
        if await self._late.has_come(job, self._adapter(job)):
            return self._late.go_on()
        return self._late.wait(job, None)

    async def _look_for_more(self, job: Job) -> Outcome:
        return await self._late.look(job, partial(self._adapter, job))

    async def _say_end(self, job: Job) -> Rest:
        """A doctor must never look at "queued" for ever."""
        at_vendor = job.ticket is not None or job.submit_began
        if job.state == State.CANCELLED and at_vendor and job.attempt <= self.retry_of(job).attempts:
            try:
                await self._conversation.cancel(job, self._adapter(job))
            except Failure as failure:
                await self._store.note(
                    job,
                    "the vendor couldn't be told of the cancel",
                    {"message": failure.message},
                    failure.said,
                )
        ignored = job.error_kind == IGNORED and job.origin is Origin.NOTIFICATION
        if job.slide_id is None or ignored or await self._result_stands(job):
            return Rest()
        with blaming(f"sectra.{job.server}"):
            try:
                await self._status.show_end(job)
            except NotLetIn:
                if await self._status.was_let_in(job):
                    raise
                return Rest("the slide can't be told: the invocation's token was never let in")
        return Rest("said so on the slide")

    async def _result_stands(self, job: Job) -> bool:
        """Only its way elsewhere is held up: on the slide the result is worth more than news of that."""
        if (job.held_in if job.state == State.HELD else job.state) != State.DELIVERING:
            return False
        return any(
            delivery.destination == "sectra" and delivery.state == "done"
            for delivery in await self._store.deliveries_of(job.id)
        )
