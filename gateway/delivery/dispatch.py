"""The results of a job to each of its destinations, each on its own: one that hangs delays no other."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import structlog

from gateway.archives.spool import Spool
from gateway.circuits import Circuits
from gateway.contract import Busy, Failure, Finished, NeedsHuman, Retryable, blaming
from gateway.delivery.drawings import with_these_alone
from gateway.delivery.originals import Originals
from gateway.delivery.slide_status import SlideStatus
from gateway.dicom.part10 import MAX_HEADER, NotDicom, read_header
from gateway.jobs.outcomes import Advance, Outcome, Wait
from gateway.jobs.records import Delivery, Event, InstanceRecord, Job, Origin
from gateway.jobs.states import State
from gateway.jobs.store import Store
from gateway.settings.sections import Application, Retry
from gateway.watch import metrics

log = structlog.get_logger(__name__)

_AGAIN = "It is tried again by itself; if this goes on, mend the destination."


@dataclass(frozen=True, slots=True)
class Delivered:
    """`reference`: where to find it there. `stored`: objects stored and read back, if it takes objects."""

    what: str
    reference: str | None = None
    stored: int | None = None


class Destination(Protocol):
    async def deliver(self, job: Job, finished: Finished) -> Delivered: ...


class OnTheSlide:
    """The destination that every Sectra application has."""

    def __init__(self, status: SlideStatus, store: Store, originals: Originals, spool: Spool) -> None:
        self._status = status
        self._store = store
        self._originals = originals
        self._spool = spool

    async def deliver(self, job: Job, finished: Finished) -> Delivered:
        if finished.placed is not None:
            if not finished.placed:
                if job.origin is not Origin.NOTIFICATION:  # somebody looks at our sign there
                    await self._status.show_nothing(job, finished)
                return Delivered("the vendor left the slide alone")
            return Delivered("the vendor's own result stands on the slide", str(finished.placed.get("id")))
        images = await self._store.instances_of(job.id) if finished.findings else []
        elsewhere = await self._elsewhere(job, finished, images)
        here = [finding for finding in finished.findings if finding.sop_instance_uid not in elsewhere]
        drawn = await self._originals.place(job, here, self._spool.folder(job.id))
        widths = {image.sop_instance_uid: image.width for image in images if image.width}
        stored = await self._status.show_result(job, with_these_alone(drawn, finished), widths)
        if stored is None:
            return Delivered("a younger analysis stands on the slide; this one was left as it is")
        left_out = len(finished.findings) - len(drawn)
        said = (
            f"; {left_out} finding(s) in other images or at an unknown place aren't drawn" if left_out else ""
        )
        return Delivered(f"the result stands on the slide{said}", str(stored.id))

    async def _elsewhere(self, job: Job, finished: Finished, images: Sequence[InstanceRecord]) -> set[str]:
        """The images that findings lie in and that aren't of this slide: a study may have several."""
        series = {image.sop_instance_uid: image.series_instance_uid for image in images}
        named = series.keys() & {finding.sop_instance_uid for finding in finished.findings}
        own = await self._status.series_of(job, set(series.values())) if named else None
        return {uid for uid in named if series[uid] != own}


class Dispatch:
    def __init__(self, store: Store, destinations: Mapping[str, Destination], circuits: Circuits) -> None:
        self._store = store
        self._circuits = circuits
        self._destinations = destinations

    async def run(self, job: Job, application: Application, finished: Finished) -> Outcome:
        await self._remember(job, finished)
        planned = await self._store.deliveries_of(job.id)
        due = [delivery for delivery in planned if delivery.state == "pending" and delivery.is_due]
        tries = (self._try(job, application, finished, delivery) for delivery in due)
        ended = await asyncio.gather(*tries, return_exceptions=True)
        broken = [failure for failure in ended if failure is not None]
        if broken:
            raise broken[0]
        deliveries = await self._store.deliveries_of(job.id)
        failing = any(each.state != "done" and each.last_error is not None for each in deliveries)
        return _judge(job, deliveries, _advice_in(await self._store.events_of(job.id)) if failing else {})

    async def _remember(self, job: Job, finished: Finished) -> None:
        """What a vendor made is nobody's input later; an input that it returns under its old UID still is."""
        made = await asyncio.to_thread(_uids_of, finished)
        if made:
            await self._store.record_results(job, made)

    async def _try(self, job: Job, application: Application, finished: Finished, delivery: Delivery) -> None:
        to_slide = delivery.destination == "sectra"
        peer = f"sectra.{job.server}" if to_slide else f"destinations.{delivery.destination}"
        try:
            await self._circuits.require(peer)
            with blaming(peer), self._circuits.calling(peer):
                done = await self._to(delivery.destination).deliver(job, finished)
        except Failure as failure:
            if await self._circuits.met(failure, job.id):
                await self._let_wait(job, delivery, failure)
            else:
                await self._judge_failure(job, application.retry, delivery, failure)
        else:
            await self._circuits.heard(peer)
            await self._store.record_delivery(
                job, delivery.destination, "done", done.what, reference=done.reference, stored=done.stored
            )

    async def _let_wait(self, job: Job, delivery: Delivery, failure: Failure) -> None:
        """Until the peer is back; it costs no attempt."""
        assert failure.peer is not None
        why = self._circuits.why(failure.peer)
        await self._store.record_delivery(
            job,
            delivery.destination,
            "pending",
            f"waiting: {why}",
            error=why,
            detail={"peer": failure.peer, "message": failure.message, "advice": failure.advice},
            waits_for=failure.peer,
            tried=False,
        )
        log.warning("a delivery waits for a peer", job=str(job.id), peer=failure.peer, error=failure.message)

    async def _judge_failure(self, job: Job, policy: Retry, delivery: Delivery, failure: Failure) -> None:
        if isinstance(failure, Retryable):
            # A doctor looks at the slide: telling it has no budget.
            patient = isinstance(failure, Busy) or delivery.destination == "sectra"
            if patient or delivery.attempts + 1 < policy.attempts:
                metrics.delivery_retried(job.application)
                pause = policy.pause(delivery.attempts + 1, failure.after)
                await self._record(job, delivery, "pending", failure, failure.advice, pause)
            else:
                advice = f"{failure.advice} Once that is mended, resume the job.".strip()
                await self._record(job, delivery, "held", failure, advice)
        else:
            await self._record(job, delivery, "held", failure, failure.advice)

    def _to(self, name: str) -> Destination:
        if name not in self._destinations:
            raise NeedsHuman(
                f"the destination {name} of this job is no longer configured",
                f"Put destinations.{name} back into the configuration, then resume the job.",
            )
        return self._destinations[name]

    async def _record(
        self,
        job: Job,
        delivery: Delivery,
        state: str,
        failure: Failure,
        advice: str,
        after: float | None = None,
    ) -> None:
        what = "a delivery failed; it will be tried again" if after is not None else "a delivery failed"
        await self._store.record_delivery(
            job,
            delivery.destination,
            state,
            what,
            after=after,
            error=failure.message,
            detail={**failure.detail, "message": failure.message, "advice": advice},
            said=failure.said,
            held_by=failure.peer if after is None else None,
            tried=not isinstance(failure, Busy),
        )
        log.warning(
            what, job=str(job.id), destination=delivery.destination, error=failure.message, after=after
        )


def _uids_of(finished: Finished) -> set[str]:
    """The SOP instance UIDs of the objects; those that can't be read are judged elsewhere."""
    uids = set()
    for path in finished.dicom:
        with path.open("rb") as file, suppress(NotDicom):
            header = read_header(file.read(MAX_HEADER))
            if header is not None:
                uids.add(header.sop_instance_uid)
    return uids


def _advice_in(events: Sequence[Event]) -> dict[str, str]:
    """By destination, as the last of its failures had it."""
    return {
        event.detail["destination"]: event.detail["advice"]
        for event in events
        if "destination" in event.detail and event.detail.get("advice")
    }


def _named(failing: Delivery) -> str:
    """Most errors say themselves whose they are."""
    error = failing.last_error or ""
    says_so = failing.destination.casefold() in error.casefold()
    return error if says_so else f"{failing.destination}: {error}"


def _judge(job: Job, deliveries: list[Delivery], advised: Mapping[str, str]) -> Outcome:
    failing = [each for each in deliveries if each.state != "done" and each.last_error is not None]
    named = "not delivered everywhere: " + "; ".join(map(_named, failing))
    known = {each.destination: advised[each.destination] for each in failing if each.destination in advised}
    advice = " ".join(f"{name}: {it}" if len(known) > 1 else it for name, it in known.items())
    pending = [each for each in deliveries if each.state == "pending"]
    if pending:
        timed = [max(each.due_in, 0.0) for each in pending if each.due_in is not None]
        if not failing:
            return Wait(after=min(timed))
        error = {
            "error_kind": Retryable.kind,
            "error_message": named,
            "error_advice": f"{advice} {_AGAIN}".strip() if timed else advice or _AGAIN,
        }
        if timed:
            return Wait(after=min(timed), why=named, values=error)
        return Wait(why=named, values={**error, "waits_for": pending[0].waits_for})
    if failing:
        stuck = NeedsHuman(named, advice or "Mend the destination, then resume the job.")
        if all(each.held_by for each in failing):
            stuck.peer = failing[0].held_by
        raise stuck
    counted = [each.stored for each in deliveries if each.stored is not None]
    stored = min(counted) if counted else None
    if stored is not None and stored != job.received:
        raise NeedsHuman(
            f"the counts differ: {job.received} objects received from the vendor, {stored} stored",
            "Look at the archive, then resume the job.",
        )
    return Advance(State.DONE, "done", {"stored": stored}, {"stored": stored})
