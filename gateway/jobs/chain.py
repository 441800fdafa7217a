"""What hashes prove: each event holds the hash of the one before it, and of what its job is about. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from gateway.jobs.records import PURGED, Event, Origin, Seal, canonical, digest_of, moment_of
from gateway.jobs.states import FINAL, State

ABOUT = (
    "department",
    "application",
    "adapter",
    "origin",
    "study_instance_uid",
    "accession_number",
    "slide_id",
    "server",
)
_PROOF = ("archive", "promised", "sent", "acknowledged", "received", "stored")
ABOUT_1 = "1:"  # ahead of a digest: of which columns it is

BEFORE_ALL = -(2**63)  # no number of a row is lower
Sealed = tuple[int, UUID, str]  # an event's number, its job, its hash


class LookedAt(NamedTuple):
    """All of a job's row that its history vouches for."""

    id: UUID
    state: State
    created_at: datetime
    department: str
    application: str
    adapter: str
    origin: str
    study_instance_uid: str | None
    accession_number: str | None
    slide_id: str | None
    server: str | None
    archive: str | None
    promised: int | None
    sent: int | None
    acknowledged: int | None
    received: int | None
    stored: int | None


def vouched_for(state: State) -> tuple[str, ...]:
    """Those of a job's columns that its next event vouches for."""
    return ABOUT + _PROOF if state in FINAL else ABOUT


def digest_job(job: Any, salt: str | None) -> str:
    """Of the job's columns that don't change without an event: an edit of them is seen. The counts enter
    when it has ended, for until then they do. Salted, since an accession number could be guessed."""
    names = vouched_for(job.state)
    about = [Origin(job.origin) if name == "origin" else getattr(job, name) for name in names]
    return ABOUT_1 + digest_of([salt, moment_of(job.created_at), *about])


def around_moment(salt: str, state: State, values: Mapping[str, Any]) -> tuple[str, str]:
    """What is hashed for `digest_job` before and after the moment of creation, which isn't known yet."""
    written = canonical([salt, "", *(values.get(name) for name in vouched_for(state))])
    before, after = written.split('""', 1)
    return f'{before}"', f'"{after}'


def end_of(seal: Seal | None) -> tuple[int, int, str]:
    """Where the next one begins: after this event and this line of the audit, on its hash."""
    if seal is None:
        return BEFORE_ALL, BEFORE_ALL, ""
    return seal.last_event_id, seal.last_audit_id or 0, seal.audit_hash or ""


def digest_events(events: Iterable[Sealed]) -> str:
    """Of a stretch of all events, in their order: one that is gone, put in or exchanged changes it."""
    digest = hashlib.sha256()
    for number, job_id, event_hash in events:
        digest.update(f"{number} {job_id} {event_hash}\n".encode())
    return digest.hexdigest()


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


def find_edit(job: Any, events: Sequence[Event]) -> str | None:
    """Whether the job's row still says what its last event said of it."""
    if not events:
        return "it has no history"
    last = events[-1]
    if State(last.state) != job.state:
        return "its state isn't what its history says"
    if last.job_digest is None or not last.job_digest.startswith(ABOUT_1):
        return None
    if last.job_digest != digest_job(job, last.salt):
        return "what it is about, or its counts, was changed past its history"
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
