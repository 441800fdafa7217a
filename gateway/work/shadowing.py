"""Shadows: a study goes to a vendor that is tried too, as a job of its own which nobody waits for, once the
vendor in use is done with it. Then what both made of it is compared, and only figures are kept of that.

All of it is done beside the work: nothing here is in the way of a job that somebody asked for.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import structlog

from gateway.jobs.records import LOWEST, SENDING, SHADOW, Event, Job, NewJob, Origin
from gateway.jobs.states import FINAL, State
from gateway.jobs.store import Store
from gateway.jobs.store.shadows import Made
from gateway.loops import Loop
from gateway.settings.sections import Settings
from gateway.settings.shadows import shadows_of

log = structlog.get_logger(__name__)

_LOOK = 2.0
_LONGEST_NAME = 80


class Shadowing:
    def __init__(self, settings: Settings, store: Store) -> None:
        self._store = store
        self._shadows = {
            name: [(shadow, each.adapter) for shadow, each in shadows_of(settings, application)]
            for name, application in settings.applications.items()
            if application.shadow
        }

    async def run(self) -> None:
        """Until it is cancelled; at once if there are none."""
        loop = Loop("shadows")
        if self._shadows:
            await loop.run(self.look, pause=_LOOK)
        else:
            await loop.until_well(self._store.end_shadows)

    async def look(self) -> None:
        await self._begin()
        for job_id, of in await self._store.uncompared():
            tried, own = await self._store.get(job_id), await self._store.get(of)
            if tried is not None and own is not None:
                known = {each for each in (own.patient_id, own.accession_number) if each}
                made = [made_of(job, await self._store.events_of(job.id), known) for job in (own, tried)]
                await self._store.compare(job_id, *made, final=tried.state in FINAL)

    async def _begin(self) -> None:
        ended, last = await self._store.ended_beside(self._shadows)
        for job_id in ended:
            job = await self._store.get(job_id)
            if job is not None:
                await self._begin_all(job)
        if last is not None:
            await self._store.shadows_begun(last)

    async def _begin_all(self, job: Job) -> None:
        for shadow, adapter in self._shadows[job.application]:
            named = f"{SHADOW}{job.application}/{shadow}"
            new = NewJob(
                department=job.department,
                application=named,
                adapter=adapter,
                origin=Origin.REST,
                priority=LOWEST,
                study_instance_uid=job.study_instance_uid,
                accession_number=job.accession_number,
                patient_id=job.patient_id,
                caller=named,
                idempotency_key=str(job.id),
                beside=True,
            )
            if await self._store.begin_shadow(new, job.id, job.application, shadow):
                log.info("the study goes to a shadow too", job=str(job.id), shadow=shadow)


def made_of(job: Job, events: Sequence[Event], known: Collection[str]) -> Made:
    """`known` of the patient: what a vendor calls a finding may hold it, and isn't kept then."""
    if job.result is not None and (job.held_in or job.state) in (State.DELIVERING, State.DONE):
        return Made("result", job.vendor_version, _seconds(events), found_in(job.result, known))
    unsuitable = any(event.state == State.FAILED and event.detail.get("unsuitable") for event in events)
    return Made("unsuitable" if unsuitable else job.state.value)


def found_in(result: Mapping[str, object], known: Collection[str] = ()) -> list[str]:
    """What was found, each once: as rules about findings read it, in small or capital letters."""
    findings = result.get("findings")
    assert isinstance(findings, list)
    names = {name_of(str(finding["label"])) for finding in findings}
    told = {each.casefold() for each in known}
    return sorted(name for name in names if name and not any(each in name for each in told))


def name_of(label: str) -> str:
    return " ".join(label.split()).casefold()[:_LONGEST_NAME]


def _seconds(events: Sequence[Event]) -> float | None:
    sent = [event.at for event in events if event.what == SENDING]
    came = [event.at for event in events if event.state == State.DELIVERING and "took" in event.detail]
    return (came[-1] - sent[-1]).total_seconds() if sent and came and came[-1] > sent[-1] else None
