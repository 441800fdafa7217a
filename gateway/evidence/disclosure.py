"""What was done with the data of one patient: what was sent to whom and when, what came back, where it went,
who looked at it. It names the patient: it is never logged, and only whoever asked for it may read it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from pydicom.uid import UID

from gateway import __version__
from gateway.evidence.page import write_page
from gateway.jobs.records import CALLED, CALLING, SENDING, Event, Job
from gateway.jobs.store import Store
from gateway.jobs.store.acts import ActFilter
from gateway.jobs.store.disclosing import REPORTED
from gateway.settings.sections import Settings

_MOST_ACTS = 10_000


@dataclass(frozen=True, slots=True)
class _Told:
    job: Job
    begun: str
    vendor: str
    facts: Sequence[Sequence[str]]
    pseudonyms: bool
    sent: Sequence[Sequence[str]]
    calls: str
    deliveries: Sequence[Sequence[str]]
    events: Sequence[Sequence[str]]
    people: Sequence[Sequence[str]]


async def write(settings: Settings, store: Store, patient_id: str, who: str) -> tuple[str, int]:
    """And how many jobs it tells of. That it was asked for is in the audit before it is told."""
    found = await store.find_patient(patient_id)
    await store.note_reported(found.jobs, who)
    jobs = [await _tell(settings, store, job) for job in found.jobs]
    now = datetime.now().astimezone()
    page = write_page(
        "disclosure.md",
        patient=_plain(patient_id),
        at=_when(now),
        zone=now.tzname(),
        version=__version__,
        who=who,
        found=found,
        jobs=jobs,
    )
    return page, len(jobs)


async def _tell(settings: Settings, store: Store, job: Job) -> _Told:
    events = await store.events_of(job.id)
    acts = await store.find_acts(ActFilter(job_id=job.id), limit=_MOST_ACTS)
    facts = {
        "job": str(job.id),
        "asked for": f"{_when(job.created_at)}, {job.origin}",
        "department": job.department,
        "state": f"{job.state}, {_when(job.updated_at)}",
        "study": job.study_instance_uid or "",
        "accession number": job.accession_number or "",
        "slide": job.slide_id or "",
        "fetched from": job.archive or "",
        "vendor": _vendor(settings, job),
        "results received": "" if job.received is None else str(job.received),
    }
    calls = await store.calls_for(job.id)
    return _Told(
        job,
        _when(job.created_at),
        _vendor(settings, job),
        [(name, value) for name, value in facts.items() if value],
        await store.went_under_pseudonyms(job.id),
        [
            (
                UID(each.sop_class).name or "not told",
                str(each.count),
                str(each.acknowledged),
                f"{each.bytes:,}",
            )
            for each in await store.sent_to_vendor(job.id)
        ],
        f"something of the slide, {calls} times" if calls else "",
        [
            (each.destination, each.state, "" if each.stored is None else str(each.stored))
            for each in await store.deliveries_of(job.id)
        ],
        [(_when(event.at), event.what, _peer(job, event)) for event in events],
        [(_when(act.at), act.who, act.what) for act in reversed(acts) if act.what != REPORTED],
    )


def _vendor(settings: Settings, job: Job) -> str:
    """And where that is, as far as the configuration still knows."""
    adapter = settings.adapters.get(job.adapter)
    options: dict[str, Any] = {} if adapter is None else adapter.options
    host = urlsplit(str(options.get("url", ""))).hostname or options.get("host")
    return f"{job.adapter} ({host})" if host else job.adapter


def _peer(job: Job, event: Event) -> str:
    if event.what in (SENDING, CALLING) or event.what.startswith(CALLED) or "acknowledged" in event.detail:
        return job.adapter
    return str(event.detail.get("destination") or event.detail.get("peer") or "")


def _when(moment: datetime) -> str:
    return f"{moment.astimezone():%Y-%m-%d %H:%M:%S}"


def _plain(text: str) -> str:
    return "".join(each for each in text.strip() if each.isprintable())
