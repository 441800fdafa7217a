"""A job as the API and the command line show it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, Field

from gateway.jobs.records import Delivery, Event, Job
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
    until: datetime
    why: str


class JobView(BaseModel):
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
    waits: WaitView | None
    error: ErrorView | None
    proof: ProofView
    events: list[EventView] | None = None
    deliveries: list[DeliveryView] | None = None


class JobList(BaseModel):
    jobs: list[JobView]
    next_cursor: str | None


def view(job: Job, events: list[Event] | None = None, deliveries: list[Delivery] | None = None) -> JobView:
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
            study_instance_uid=job.study_instance_uid,
            accession_number=job.accession_number,
            archive=job.archive,
        ),
        slide_id=job.slide_id,
        vendor_reference=(job.ticket or {}).get("reference"),
        waits=None
        if job.next_at is None or job.waits_why is None or job.lease_holder is not None
        else WaitView(until=job.next_at.astimezone(UTC), why=job.waits_why),
        error=error,
        proof=ProofView(
            promised=job.promised,
            sent=job.sent,
            acknowledged=job.acknowledged,
            received=job.received,
            stored=job.stored,
        ),
        events=None if events is None else [_event(event) for event in events],
        deliveries=None
        if deliveries is None
        else [
            DeliveryView(
                destination=delivery.destination,
                state=delivery.state,
                attempts=delivery.attempts,
                reference=delivery.reference,
                last_error=delivery.last_error,
                next_at=_utc(delivery.next_at) if delivery.state == "pending" else None,
            )
            for delivery in deliveries
        ],
    )


def _event(event: Event) -> EventView:
    return EventView(
        at=event.at.astimezone(UTC), state=event.state, what=event.what, detail=dict(event.detail)
    )


def _utc(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.astimezone(UTC)
