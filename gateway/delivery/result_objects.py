"""What leaves for an archive: the vendor's objects put right, or objects made of its findings."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import UUID
from weakref import WeakValueDictionary

from gateway.archives import canary
from gateway.archives.spool import Spool
from gateway.contract import Finished, NeedsHuman
from gateway.delivery.findings import REPORT, Made, make_objects
from gateway.delivery.objects import (
    NO_PREDECESSORS,
    NOTHING_TAKEN,
    Leaving,
    Maker,
    Source,
    correct,
    make_uid,
    reports_among,
)
from gateway.delivery.originals import Originals
from gateway.delivery.report_forms import FORMS, NEWEST, Form, restate
from gateway.jobs.records import Job, area_of
from gateway.jobs.store import Store
from gateway.settings.sections import Application, CStoreDestination, Settings, StowDestination
from gateway.settings.shadows import application_named


@dataclass(frozen=True, slots=True)
class Prepared:
    """`made`: how many of them the vendor didn't give; `report`: the UID of a structured report among these.
    `remarks`: what couldn't be made."""

    objects: tuple[Leaving, ...] = ()
    made: int = 0
    report: str = ""
    remarks: tuple[str, ...] = ()

    @property
    def files(self) -> list[Path]:
        return [made.path for made in self.objects]


class ResultObjects:
    def __init__(self, settings: Settings, store: Store, originals: Originals, spool: Spool) -> None:
        self._settings = settings
        self._store = store
        self._originals = originals
        self._spool = spool
        self._workshops: WeakValueDictionary[UUID, asyncio.Lock] = WeakValueDictionary()

    async def prepare(
        self,
        job: Job,
        finished: Finished,
        destination: str,
        taken: Mapping[str, int] = NOTHING_TAKEN,
        form: Form = NEWEST,
    ) -> Prepared:
        """Each destination has files of its own, so that two of them never write the same. `form`: of a
        report that is made here."""
        if not finished.dicom and not finished.findings:
            return Prepared()
        work = self._spool.folder(job.id)
        originals = work / "originals"
        source = await self._originals.source_of(job, originals)
        before = [str(each) for each in await self._store.runs_before(job)]
        predecessors = await self._predecessors(finished, before)
        maker = self._maker(job, finished, before, predecessors)
        made = Made(finished.dicom)
        if not finished.dicom:
            wanted = self._wanted(destination)
            made = Made(())
            if wanted:
                made = await self._make(job, finished, source, maker, originals)
            files = [file for file in made.files if ("sr" if file.name == REPORT else "capture") in wanted]
            made = replace(made, files=tuple(files))
        leaving = work / f"leaving-{destination}"
        if form is not NEWEST:
            older = (form, str(job.id), predecessors.get(form.sop_class, ""), leaving)
            made = replace(made, files=await asyncio.to_thread(_restate_among, made.files, *older))
        objects = await asyncio.to_thread(correct, made.files, leaving, source, maker, taken, predecessors)
        # They are about to join the study, and are nobody's input there.
        await self._store.record_results(job, {made.leaves_as for made in objects})
        if finished.dicom:
            return Prepared(objects, remarks=made.remarks)
        ours = form.uid_of(str(job.id))
        report = next((each.leaves_as for each in objects if each.came_as == ours), "")
        return Prepared(objects, len(objects), report, made.remarks)

    async def _make(self, job: Job, finished: Finished, source: Source, maker: Maker, folder: Path) -> Made:
        async with self._workshops.setdefault(job.id, asyncio.Lock()):
            await asyncio.to_thread(folder.mkdir, mode=0o700, exist_ok=True)
            images = await self._originals.fetch(job, finished.findings, folder)
            at = job.created_at.astimezone().replace(tzinfo=None)
            return await make_objects(folder, source.header, images, finished, maker, at)

    async def _predecessors(self, finished: Finished, before: Sequence[str]) -> Mapping[str, str]:
        """By the UID that a report of the vendor's has, that of the one which it takes the place of: it left
        under the vendor's own, or under one of ours. By its class, that of a report made here."""
        if not before:
            return NO_PREDECESSORS
        reports = await asyncio.to_thread(reports_among, finished.dicom)
        possible = {sop: [*(make_uid(job, "object", sop) for job in before), sop] for sop in reports}
        possible |= {form.sop_class: [form.uid_of(job) for job in before] for form in FORMS}
        known = await self._store.results_among([uid for uids in possible.values() for uid in uids])
        found = {sop: next((uid for uid in uids if uid in known), "") for sop, uids in possible.items()}
        return {sop: uid for sop, uid in found.items() if uid}

    def _wanted(self, destination: str) -> Collection[str]:
        place = self._settings.destinations.get(destination)
        return place.make if isinstance(place, StowDestination | CStoreDestination) else ()

    def _maker(
        self, job: Job, finished: Finished, before: Sequence[str], predecessors: Mapping[str, str]
    ) -> Maker:
        application = application_of(self._settings, job)
        return Maker(
            str(job.id),
            application.display_name,
            application.manufacturer,
            finished.version,
            line="/".join((job.application, job.study_instance_uid or "", area_of(job.input))),
            run=len(before) + 1,
            predecessor=predecessors.get(NEWEST.sop_class, ""),
        )


def _restate_among(
    files: Sequence[Path], form: Form, job_id: str, predecessor: str, into: Path
) -> tuple[Path, ...]:
    return tuple(
        restate(file, form, job_id, predecessor, into) if file.name == REPORT else file for file in files
    )


def application_of(settings: Settings, job: Job) -> Application:
    if job.canary:
        made = Application(display_name="Canary", adapter=job.adapter, deliver=[])
        return made.model_copy(update={"archives": [canary.ARCHIVE]})
    found = application_named(settings, job.application)
    if found is None:
        raise NeedsHuman(
            f"the application {job.application} is no longer configured",
            "Put it back into its department, then resume the job; or cancel the job.",
        )
    return found
