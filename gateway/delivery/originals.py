"""The study that was analysed, read again from the archive it came from, right before results of it leave:
whose it is, what it consists of, and the images that findings lie in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.archives.archive import Retrieval
from gateway.archives.lookup import Lookup
from gateway.archives.sectra import Slides
from gateway.contract import Finding, NeedsHuman, Permanent
from gateway.delivery.objects import Source
from gateway.dicom.geometry import Plane, plane_noted, planes_of, space_noted
from gateway.dicom.heading import frames_of, place_of_frame, read_heading
from gateway.dicom.subject import Subject, subject_of
from gateway.jobs.records import InstanceRecord, Job
from gateway.jobs.store import Store

if TYPE_CHECKING:  # pydicom is loaded when the first study is met
    from pydicom.dataset import FileDataset


_MOST_HEADERS = 20  # that are read again for what was marked in space
_LARGEST = 2**29  # of an image that is fetched for one of its frames


class Originals:
    def __init__(self, store: Store, lookup: Lookup, slides: Slides) -> None:
        self._store = store
        self._lookup = lookup
        self._slides = slides

    async def source_of(self, job: Job, folder: Path) -> Source:
        records = await self._records(job)
        return Source(
            await self._header(job, records, folder),
            {record.sop_instance_uid: record.sop_class_uid for record in records},
            frozenset(record.series_instance_uid for record in records),
        )

    async def subject_of(self, job: Job, folder: Path) -> Subject:
        subject = subject_of(await self._header(job, await self._records(job), folder))
        if job.patient_id is not None and subject.patient_id not in ("", job.patient_id.strip()):
            raise NeedsHuman(
                "the study belongs to another patient id now than when the job began",
                "Compare the study in the archive with the request, then cancel or retry the job.",
            )
        known = subject.accession_number or (job.accession_number or "").strip()
        return replace(subject, accession_number=known)

    async def fetch(self, job: Job, findings: Sequence[Finding], folder: Path) -> list[Path]:
        """The images that findings lie in, as files. Of one with several frames only the header comes, unless
        a finding names its frame and it isn't too large."""
        records = {record.sop_instance_uid: record for record in await self._records(job)}
        framed = {finding.sop_instance_uid for finding in findings if finding.frame}
        return [
            await self._fetch(job, records[uid], folder / f"image-{uid}.dcm", uid in framed)
            for uid in dict.fromkeys(finding.sop_instance_uid for finding in findings)
            if uid is not None
        ]

    async def place(self, job: Job, findings: Iterable[Finding], folder: Path) -> tuple[Finding, ...]:
        """In pixels of the whole image each; those whose place in it isn't known are left out."""
        headers: dict[str | None, FileDataset] = {}
        placed = []
        for finding in findings:
            image = finding.sop_instance_uid
            if finding.frame is None or image is None:
                placed.append(finding)
                continue
            if image not in headers:
                records = [record for record in await self._records(job) if record.sop_instance_uid == image]
                headers[image] = await self._header(job, records, folder)
            if (corner := place_of_frame(headers[image], finding.frame)) is not None:
                points = tuple((x + corner[0], y + corner[1]) for x, y in finding.points)
                placed.append(replace(finding, points=points, frame=None))
        return tuple(placed)

    async def planes(self, job: Job, spaces: Collection[str], folder: Path) -> list[Plane]:
        """Of the images in these frames of reference, as was noted on their way. The headers of those with
        several frames are read again; of a slide's images, which show the same, the finest one's alone."""
        planes: list[Plane] = []
        unsaid: list[InstanceRecord] = []
        for record in await self._records(job):
            if record.lies is None or space_noted(record.lies) not in spaces:
                continue
            plane = plane_noted(record.sop_instance_uid, record.lies)
            if plane is None:
                unsaid.append(record)
            else:
                planes.append(plane)
        slides: set[str] = set()
        for record in sorted(unsaid, key=lambda each: -(each.width or 0))[:_MOST_HEADERS]:
            if space_noted(record.lies or "") in slides:
                continue
            header = await self._header(job, [record], folder)
            planes += await asyncio.to_thread(list, planes_of(header))
            if "TotalPixelMatrixColumns" in header:
                slides.add(space_noted(record.lies or ""))
        return planes

    async def _records(self, job: Job) -> list[InstanceRecord]:
        records = await self._store.instances_of(job.id)
        if job.study_instance_uid is None or job.archive is None or not records:
            raise NeedsHuman("the job has lost its study", "Retry the job from the beginning.")
        return sorted(records, key=lambda record: record.sop_instance_uid)

    async def _header(self, job: Job, records: list[InstanceRecord], folder: Path) -> FileDataset:
        async with self._retrieving(job, records[0], folder) as retrieval:
            async for instance in retrieval:
                if instance.header.sop_instance_uid == records[0].sop_instance_uid:
                    return (await read_heading(instance.chunks()))[0]
        raise _gone(job)

    async def _fetch(
        self, job: Job, record: InstanceRecord, path: Path, framed: bool, plain: bool = False
    ) -> Path:
        import pydicom
        from pydicom.uid import JPEGExtended12Bit

        if await asyncio.to_thread(path.exists):
            return path
        part = path.with_suffix(".part")
        async with self._retrieving(job, record, path.parent, plain) as retrieval:
            async for instance in retrieval:
                if instance.header.sop_instance_uid != record.sop_instance_uid:
                    continue
                chunks = instance.chunks()
                header, taken = await read_heading(chunks)
                if instance.header.transfer_syntax_uid == JPEGExtended12Bit and not plain:
                    # no decoder of ours knows it; an archive that can't decode it either gives it as it is
                    with suppress(NeedsHuman, Permanent):
                        return await self._fetch(job, record, path, framed, plain=True)
                if frames_of(header) > 1 and not (framed and (record.bytes or 0) <= _LARGEST):
                    await asyncio.to_thread(pydicom.dcmwrite, part, header, enforce_file_format=True)
                else:
                    with await asyncio.to_thread(part.open, "wb") as file:
                        await asyncio.to_thread(file.write, taken)
                        async for chunk in chunks:
                            await asyncio.to_thread(file.write, chunk)
                await asyncio.to_thread(part.replace, path)
                return path
        raise _gone(job)

    @asynccontextmanager
    async def _retrieving(
        self, job: Job, record: InstanceRecord, folder: Path, plain: bool = False
    ) -> AsyncIterator[Retrieval]:
        study, series, uid = job.study_instance_uid or "", record.series_instance_uid, record.sop_instance_uid
        async with (
            self._lookup.reading(job.archive or "", self._slides.of(job)) as archive,
            aclosing(archive.retrieve_instance(study, series, uid, folder, plain)) as retrieval,
        ):
            yield retrieval


def _gone(job: Job) -> NeedsHuman:
    return NeedsHuman(
        f"{job.archive} no longer has the study that was analysed",
        "Look at the study in the archive: results of it can't be filed without it.",
    )
