"""A job and its parts as plain data."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from gateway.jobs.states import State

_SENT_BEFORE = "dimse"  # the last release's word, which it may still write


class Origin(StrEnum):
    """What started a job."""

    SECTRA = "sectra"  # a user asked on the slide
    NOTIFICATION = "notification"  # a slide was imported: nobody waits, and it may still be arriving
    REST = "rest"
    SENT = "sent"  # the study itself was sent to us, by C-STORE or by STOW-RS

    @classmethod
    def _missing_(cls, value: object) -> Origin | None:
        return cls.SENT if value == _SENT_BEFORE else None

    @property
    def stored(self) -> list[str]:
        """How it may stand in the database."""
        return [self.value, _SENT_BEFORE] if self is Origin.SENT else [self.value]


# What begins the application of jobs that nobody asked for: none can be called so.
CANARY, SHADOW, TRIAL = "canary/", "shadow/", "trial/"
UNASKED_FOR = (CANARY, SHADOW, TRIAL)
LOWEST = -1  # the priority of what nobody waits for; whatever somebody asked for has 0 at least


@dataclass(frozen=True, slots=True)
class NewJob:
    """What intake knows when it commits a job."""

    department: str
    application: str
    adapter: str
    origin: Origin
    priority: int = 0
    study_instance_uid: str | None = None
    accession_number: str | None = None
    patient_id: str | None = None
    slide_id: str | None = None
    server: str | None = None
    callback_url: str | None = None
    callback_token: str | None = None
    input: Mapping[str, Any] | None = None
    context: Mapping[str, Any] | None = None
    cancellation_token: str | None = None
    joinable: bool = False
    caller: str | None = None
    idempotency_key: str | None = None
    canary: bool = False
    beside: bool = False

    @property
    def join_key(self) -> str | None:
        """The same for all invocations that ask for the same thing. A vendor has one canary at a time."""
        if self.canary:
            return self.application
        if not self.joinable:
            return None
        return digest_of([self.application, self.server, self.slide_id, self.input])

    @property
    def request_digest(self) -> str:
        """Without the patient's id: it could be guessed from its hash."""
        return digest_of([self.application, self.study_instance_uid, self.accession_number, self.priority])

    def asks_for_the_same(self, job: Job) -> bool:
        """Whether an idempotency key that led to this job was used for the same request."""
        same_patient = self.patient_id is None or job.patient_id in (None, self.patient_id)
        return self.request_digest == job.request_digest and same_patient


@dataclass(frozen=True, slots=True)
class Job:
    """A job row, with its secrets in clear: never log one whole."""

    id: UUID
    department: str
    application: str
    adapter: str
    origin: Origin
    state: State
    held_in: State | None
    held_by: str | None
    recoveries: int
    attempt: int
    next_at: datetime | None
    priority: int
    created_at: datetime
    updated_at: datetime
    fence: int
    lease_holder: int | None
    at_vendor: bool
    study_instance_uid: str | None
    accession_number: str | None
    patient_id: str | None
    accession_number_issuer: str | None
    exam_id: str | None
    slide_id: str | None
    server: str | None
    callback_url: str | None
    callback_token: str | None
    callback_accepted: bool  # Sectra has let that token in, for this slide
    input: Mapping[str, Any] | None
    context: Mapping[str, Any] | None
    cancellation_tokens: tuple[str, ...]
    request_digest: str | None
    slide_width: int | None
    slide_height: int | None
    archive: str | None
    unasked: str | None  # archives before this one, which couldn't be reached
    submit_began: bool
    doubted_until: datetime | None
    ticket: Mapping[str, Any] | None
    waits_why: str | None
    waits_for: str | None
    result_by: datetime | None
    result: Mapping[str, Any] | None
    promised: int | None
    sent: int | None
    acknowledged: int | None
    received: int | None
    stored: int | None
    error_kind: str | None
    error_message: str | None
    error_advice: str | None
    revision: str | None  # of the configuration that its last step ran under
    purged_at: datetime | None
    canary: bool = False  # a study of nobody, which no list, count or destination sees
    vendor_version: str | None = None  # of what made its result
    beside: bool = False  # its vendor is only tried: seen where it is named, delivered nowhere
    unreadable: bool = False  # its secrets were stored with a key that is gone

    def __repr__(self) -> str:
        return f"Job({self.id}, {self.application}, {self.state})"


@dataclass(frozen=True, slots=True)
class Joining:
    """An invocation for a job that there is: acknowledged, and not let in yet.

    `tries`: whoever took it last may write, and nobody else. `asked` is None if it was stored with a key that
    isn't among ours."""

    id: int
    job: UUID
    tries: int
    asked: NewJob | None


@dataclass(frozen=True, slots=True)
class InstanceRecord:
    sop_instance_uid: str
    series_instance_uid: str
    sop_class_uid: str | None = None
    width: int | None = None  # of the image, in pixels
    bytes: int | None = None
    blake3: str | None = None
    sent: bool = False
    acknowledged: bool = False
    lies: str | None = None  # where, in the words of whoever reads images


@dataclass(frozen=True, slots=True)
class Delivery:
    destination: str
    state: str
    attempts: int
    next_at: datetime | None
    reference: str | None
    stored: int | None
    last_error: str | None
    held_by: str | None
    waits_for: str | None
    due_in: float | None  # seconds, by the database's clock; None while it waits for a peer

    @property
    def is_due(self) -> bool:
        return self.due_in is not None and self.due_in <= 0


@dataclass(frozen=True, slots=True)
class Place:
    """Where a result stands: each area of a slide has one of its own; the whole slide's is empty."""

    server: str
    application: str
    slide_id: str
    area: str = ""


@dataclass(frozen=True, slots=True)
class SlideRecord:
    """What we last stored for an application in an area of a slide, and for which job and step.

    `taken_by`: the job whose vendor writes on the slide itself and has put its own result there. `replaced`:
    the versions that writes of ours have replaced since then: who holds one of them has seen all that others
    wrote. `alone`: nothing else of ours stands there, as far as Sectra was asked. `result_of`: the job whose
    result it is; none for a sign."""

    result_id: int | None
    version_id: str | None
    job_id: UUID | None
    job_created_at: datetime | None
    rank: int | None
    taken_by: UUID | None = None
    replaced: Sequence[str] = ()
    alone: bool = True
    result_of: UUID | None = None


SEQUEL_OF = "sequel_of"  # in the context of a job that delivers what its vendor finished late: of which job
PURGED = "what identified the patient was removed"  # says an event whose own detail stays
# What is said when a patient's data go somewhere: whoever tells an audit collector of it knows it by these.
ACCEPTED, JOINED = "accepted", "joined"
FETCHING = "fetching the rest of the study from"
SENDING = "sending to the vendor"
CALLING = "calling the vendor"
CALLED = "the vendor called:"
CANCELLED, ONE_CANCELLED = "cancelled", "one of its invocations was cancelled"
CORRECTED = {
    "changed": "a user changed its result on the slide",
    "deleted": "a user removed its result from the slide",
}


@dataclass(frozen=True, slots=True)
class Event:
    """Its detail enters the hash by a salted digest, so that it can be purged and the chain still verified.

    `detail_digest` is None in an event of an older release, which was hashed with its detail in clear; ""
    when such a one was purged: then the event that says so vouches for it.
    """

    at: datetime
    state: str
    what: str
    detail: Mapping[str, Any] = field(default_factory=dict)
    previous_hash: str = ""
    hash: str = ""
    salt: str | None = None  # purged with the detail, which could be guessed from its digest otherwise
    detail_digest: str | None = None
    job_digest: str | None = None  # of what the job was about; None in an event of an older release

    def digest(self, job_id: UUID) -> str:
        """The hash that chains this event to the one before it."""
        return _hash(self.written(job_id))

    def written(self, job_id: UUID) -> str:
        """All that is hashed."""
        detail = self.detail if self.detail_digest is None else self.detail_digest
        told = [str(job_id), self._moment, self.state, self.what, detail, self.previous_hash]
        return canonical(told if self.job_digest is None else [*told, self.job_digest])

    def digest_detail(self) -> str:
        return digest_of([self.salt, self.detail])

    def voucher(self, job_id: UUID) -> str:
        """What stands for an older event whose detail is gone."""
        return digest_of(
            [str(job_id), self._moment, self.state, self.what, self.previous_hash, self.hash, "purged"]
        )

    @property
    def _moment(self) -> str:
        return moment_of(self.at)


@dataclass(frozen=True, slots=True)
class Said:
    """A peer's own words, and what they came with."""

    at: datetime
    what: str
    words: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Act:
    """A line of the audit: who did what. The seal that covers it chains it to the one before."""

    id: int
    at: datetime
    who: str
    what: str
    job_id: UUID | None
    detail: Mapping[str, Any]
    hash: str | None = None

    def digest(self, previous: str) -> str:
        job = None if self.job_id is None else str(self.job_id)
        return digest_of([self.id, moment_of(self.at), self.who, self.what, job, self.detail, previous])


@dataclass(frozen=True, slots=True)
class Seal:
    """A stretch of events and of the audit, in a chain of its own and signed with a key that the database
    doesn't know. `heads`: of each job in it, the last event.

    One of an older release has heads alone, and no signature: what it covers is sealed again.
    """

    at: datetime
    last_event_id: int
    heads: Mapping[str, str]
    previous_hash: str
    hash: str = ""
    after_event_id: int | None = None
    events_digest: str | None = None
    after_audit_id: int | None = None
    last_audit_id: int | None = None
    audit_hash: str | None = None
    signed_by: str | None = None
    signature: str | None = None

    @property
    def is_signed(self) -> bool:
        return self.events_digest is not None

    def digest(self) -> str:
        told = [moment_of(self.at), self.last_event_id, dict(self.heads), self.previous_hash]
        if self.is_signed:
            told += [self.after_event_id, self.events_digest, self.after_audit_id, self.last_audit_id]
            told += [self.audit_hash, self.signed_by]
        return digest_of(told)


def area_of(given: Mapping[str, Any] | None) -> str:
    """The same for all inputs that mean the same part of a slide, and for no others; empty for the whole."""
    content = (given or {}).get("content")
    if given is None or not isinstance(content, Mapping):
        return ""
    polygons = content.get("polygons") or [content.get("polygon") or {"points": []}]
    outlines = [
        [[float(point["x"]) + 0.0, float(point["y"]) + 0.0] for point in each["points"]] for each in polygons
    ]
    tags, index = content.get("tags") or [], content.get("tagIndex")
    tag = tags[index] if tags and index is not None else None
    written = json.dumps([given["type"], sorted(outlines), tag])
    return hashlib.sha256(written.encode()).hexdigest()


def storable(value: Any) -> Any:
    """As PostgreSQL gives it back, so that a hash made before is the hash made after: no NUL, no half of a
    surrogate pair, whole numbers without a fraction, none that JSON doesn't know."""
    if value is None or (type(value) is str and value.isascii() and "\0" not in value):
        return value  # as nearly all that comes
    match value:
        case str():
            return value.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
        case float():
            if not math.isfinite(value):
                return str(value)
            return int(value) if value.is_integer() else value
        case Mapping():
            return {str(storable(key)): storable(member) for key, member in value.items()}
        case list() | tuple():
            return [storable(member) for member in value]
        case _:
            return value


def digest_of(value: Any) -> str:
    return _hash(canonical(value))


def _hash(written: str) -> str:
    return hashlib.sha256(written.encode()).hexdigest()


def moment_of(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="microseconds")


canonical = json.JSONEncoder(sort_keys=True, ensure_ascii=False).encode
