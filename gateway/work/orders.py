"""A job in the contract's words."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from gateway.contract import Callback, Instance, Order, Ticket
from gateway.jobs.records import Job, Origin


def order_of(
    job: Job, *, callback: Callback | None = None, image_info: Mapping[str, Any] | None = None
) -> Order:
    return Order(
        job_id=str(job.id),
        application=job.application,
        study_instance_uid=job.study_instance_uid or "",
        accession_number=job.accession_number,
        accession_number_issuer=job.accession_number_issuer,
        exam_id=job.exam_id,
        slide_id=job.slide_id,
        input=job.input,
        context=dict(job.context or {}),
        arrived=job.origin is Origin.NOTIFICATION,
        image_info=image_info,
        callback=callback,
    )


def ticket_to_json(ticket: Ticket) -> dict[str, object]:
    return {
        "reference": ticket.reference,
        "acknowledged": None if ticket.acknowledged is None else list(ticket.acknowledged),
        "state": dict(ticket.state),
    }


def ticket_from_json(stored: object) -> Ticket:
    assert isinstance(stored, dict)
    acknowledged = stored["acknowledged"]
    return Ticket(stored["reference"], None if acknowledged is None else tuple(acknowledged), stored["state"])


class NoInstances:
    """The study of a job that is about its slide alone: nothing of it goes through us."""

    promised = 0
    sent = 0

    def __init__(self, study_instance_uid: str) -> None:
        self.study_instance_uid = study_instance_uid

    async def acknowledge(self, sop_instance_uid: str) -> None:
        raise AssertionError(f"nothing was sent, and so not {sop_instance_uid}")

    async def begin_anew(self) -> None:
        raise AssertionError("nothing was sent that could begin anew")

    def headings(self) -> AsyncIterator[Instance]:
        return self.instances()

    async def instances(self) -> AsyncIterator[Instance]:
        none: tuple[Instance, ...] = ()
        for each in none:
            yield each
