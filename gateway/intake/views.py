"""A job as the API and the command line show it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, Field

from gateway.jobs.records import Act, Delivery, Event, Job, Said
from gateway.jobs.states import State


class StudyView(BaseModel):
    study_instance_uid: str | None
    accession_number: str | None
    archive: str | None


class ErrorView(BaseModel):
    kind: str
    message: str
    advice: str


class ProofView(BaseModel):
    """Instances promised by the archive, sent, acknowledged; results received, stored and read back."""

    promised: int | None
    sent: int | None
    acknowledged: int | None
    received: int | None
    stored: int | None


class EventView(BaseModel):
    at: datetime
    state: str
    what: str
    detail: dict[str, Any] = Field(default_factory=dict)


class DeliveryView(BaseModel):
    destination: str
    state: str
    attempts: int
    reference: str | None
    last_error: str | None
    next_at: datetime | None


class WaitView(BaseModel):
    """`until` is unknown while a peer is waited for that is away or paused, or a place at the vendor."""

    until: datetime | None
    why: str


class SaidView(BaseModel):
    """What a peer said itself; for operators."""

    at: datetime
    what: str
    words: dict[str, Any]


class AnalysisView(BaseModel):
    """One of several that the vendor was asked for."""

    name: str
    sentence: str


class JobView(BaseModel):
    """Viewers aren't told which study, slide or order it is about, nor events' details and references."""

    id: UUID
    department: str
    application: str
    adapter: str
    state: State
    attempt: int
    next_at: datetime | None
    priority: int
    created_at: datetime
    updated_at: datetime
    study: StudyView
    slide_id: str | None
    vendor_reference: str | None
    revision: str | None  # of the configuration that it ran under
    waits: WaitView | None
    error: ErrorView | None
    proof: ProofView
    analyses: list[AnalysisView] | None = None
    events: list[EventView] | None = None
    deliveries: list[DeliveryView] | None = None
    said: list[SaidView] | None = None


class JobList(BaseModel):
    jobs: list[JobView]
    next_cursor: str | None


class ActView(BaseModel):
    """Who did what, and to which job if it was to one."""

    id: int
    at: datetime
    who: str
    what: str
    job_id: UUID | None
    detail: dict[str, Any]


class ActList(BaseModel):
    acts: list[ActView]
    next_cursor: str | None


def view_of_act(act: Act) -> ActView:
    return ActView(
        id=act.id,
        at=act.at.astimezone(UTC),
        who=act.who,
        what=act.what,
        job_id=act.job_id,
        detail=dict(act.detail),
    )


def view(
    job: Job,
    events: list[Event] | None = None,
    deliveries: list[Delivery] | None = None,
    said: list[Said] | None = None,
    *,
    identified: bool = True,
) -> JobView:
    """Not `identified`: nothing by which the patient could be found; for viewers."""
    error = None
    if job.error_kind is not None:
        error = ErrorView(kind=job.error_kind, message=job.error_message or "", advice=job.error_advice or "")
    return JobView(
        id=job.id,
        department=job.department,
        application=job.application,
        adapter=job.adapter,
        state=job.state,
        attempt=job.attempt,
        next_at=_utc(job.next_at),
        priority=job.priority,
        created_at=job.created_at.astimezone(UTC),
        updated_at=job.updated_at.astimezone(UTC),
        study=StudyView(
            study_instance_uid=job.study_instance_uid if identified else None,
            accession_number=job.accession_number if identified else None,
            archive=job.archive,
        ),
        slide_id=job.slide_id if identified else None,
        vendor_reference=(job.ticket or {}).get("reference") if identified else None,
        revision=job.revision,
        waits=None
        if job.waits_why is None
        or job.lease_holder is not None
        or (job.next_at is None and job.waits_for is None)
        else WaitView(until=_yet_to_come(job.next_at), why=job.waits_why),
        error=error,
        proof=ProofView(
            promised=job.promised,
            sent=job.sent,
            acknowledged=job.acknowledged,
            received=job.received,
            stored=job.stored,
        ),
        analyses=None if events is None else tell_analyses(events) or None,
        events=None if events is None else [_event(event, identified) for event in events],
        deliveries=None
        if deliveries is None
        else [
            DeliveryView(
                destination=delivery.destination,
                state=delivery.state,
                attempts=delivery.attempts,
                reference=delivery.reference if identified else None,
                last_error=delivery.last_error,
                next_at=_utc(delivery.next_at) if delivery.state == "pending" else None,
            )
            for delivery in deliveries
        ],
        said=None
        if said is None
        else [SaidView(at=each.at.astimezone(UTC), what=each.what, words=dict(each.words)) for each in said],
    )


def tell_analyses(events: Sequence[Event]) -> list[AnalysisView]:
    """What became of each, where the vendor makes several."""
    told: Sequence[Mapping[str, str]] = next(
        (event.detail["analyses"] for event in reversed(events) if "analyses" in event.detail), ()
    )
    return [AnalysisView(name=each["name"], sentence=each["sentence"]) for each in told]


def _event(event: Event, identified: bool) -> EventView:
    detail = dict(event.detail) if identified else {}
    return EventView(at=event.at.astimezone(UTC), state=event.state, what=event.what, detail=detail)


def _yet_to_come(moment: datetime | None) -> datetime | None:
    return None if moment is None or moment <= datetime.now(UTC) else _utc(moment)


def _utc(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.astimezone(UTC)
