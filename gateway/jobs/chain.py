"""Whether a job's history is as it was written: each event holds the hash of the one before it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from gateway.jobs.records import PURGED, Event, Job
from gateway.jobs.store import Store

_PAGE = 200


def find_break(job_id: UUID, events: Sequence[Event]) -> str | None:
    """Where the chain is broken, in one sentence; None when it is whole."""
    vouched = {
        voucher for event in events if event.what == PURGED for voucher in event.detail.get("vouchers", ())
    }
    previous = ""
    for number, event in enumerate(events, start=1):
        if event.previous_hash != previous:
            return f"event {number} doesn't follow the one before it: one was removed, put in or moved"
        if not _is_as_written(job_id, event, vouched):
            return f"event {number} was changed after it was written"
        previous = event.hash
    return None


def _is_as_written(job_id: UUID, event: Event, vouched: Collection[str]) -> bool:
    if event.detail_digest == "":
        return not event.detail and event.voucher(job_id) in vouched
    if event.digest(job_id) != event.hash:
        return False
    if event.detail_digest is None:
        return True
    if event.salt is None:
        return not event.detail
    return event.digest_detail() == event.detail_digest


@dataclass(slots=True)
class Inspection:
    jobs: int = 0
    events: int = 0
    seals: int = 0
    breaks: list[str] = field(default_factory=list)  # where, and what is wrong there


async def verify(store: Store) -> Inspection:
    """Every history, and every seal on them."""
    inspection = Inspection()
    after = None
    while page := await store.find(limit=_PAGE, after=after):
        for job in page:
            await _verify_job(store, job, inspection)
        after = (page[-1].created_at, page[-1].id)
    previous = ""
    async for seal_id, seal in store.seals():
        inspection.seals += 1
        if seal.previous_hash != previous:
            inspection.breaks.append(f"seal {seal_id}: doesn't follow the one before it")
        if seal.digest() != seal.hash:
            inspection.breaks.append(f"seal {seal_id}: was changed after it was made")
        previous = seal.hash
        inspection.breaks += [
            f"job {job_id}: sealed by seal {seal_id}, and gone or cut short since"
            for job_id in await store.lost_heads(seal.heads)
        ]
    return inspection


async def _verify_job(store: Store, job: Job, inspection: Inspection) -> None:
    events = await store.events_of(job.id)
    inspection.jobs += 1
    inspection.events += len(events)
    broken = find_break(job.id, events)
    if broken is None and (not events or events[-1].state != job.state):
        broken = "its state isn't what its history says"
    if broken is not None:
        current = await store.get(job.id)
        if current is not None and current.updated_at != job.updated_at:
            return  # it has moved on while it was read
        inspection.breaks.append(f"job {job.id}: {broken}")
