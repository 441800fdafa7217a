"""The study that was analysed, read again from the archive it came from, right before results of it leave:
whose it is, what it consists of, and the images that findings lie in."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pydicom
from pydicom.dataset import FileDataset

from gateway.archives.archive import Retrieval
from gateway.archives.lookup import Lookup
from gateway.archives.sectra import Slides
from gateway.contract import NeedsHuman
from gateway.delivery.objects import Source
from gateway.dicom.heading import read_heading
from gateway.dicom.subject import Subject, subject_of
from gateway.jobs.records import InstanceRecord, Job
from gateway.jobs.store import Store


class Originals:
    def __init__(self, store: Store, lookup: Lookup, slides: Slides) -> None:
        self._store = store
        self._lookup = lookup
        self._slides = slides

    async def source_of(self, job: Job, folder: Path) -> Source:
        records = await self._records(job)
        return Source(
            await self._header(job, records, folder),
            {one.sop_instance_uid: one.sop_class_uid for one in records},
            frozenset(one.series_instance_uid for one in records),
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

    async def fetch(self, job: Job, wanted: Collection[str], folder: Path) -> list[Path]:
        """These instances as files, in order. Of one with several frames only the header comes."""
        records = {one.sop_instance_uid: one for one in await self._records(job)}
        return [await self._fetch(job, records[uid], folder / f"image-{uid}.dcm") for uid in wanted]

    async def _records(self, job: Job) -> list[InstanceRecord]:
        records = await self._store.instances_of(job.id)
        if job.study_instance_uid is None or job.archive is None or not records:
            raise NeedsHuman("the job has lost its study", "Retry the job from the beginning.")
        return sorted(records, key=lambda one: one.sop_instance_uid)

    async def _header(self, job: Job, records: list[InstanceRecord], folder: Path) -> FileDataset:
        async with aclosing(self._retrieve(job, records[0], folder)) as retrieval:
            async for instance in retrieval:
                if instance.header.sop_instance_uid == records[0].sop_instance_uid:
                    return (await read_heading(instance.chunks()))[0]
        raise _gone(job)

    async def _fetch(self, job: Job, record: InstanceRecord, path: Path) -> Path:
        if await asyncio.to_thread(path.exists):
            return path
        part = path.with_suffix(".part")
        async with aclosing(self._retrieve(job, record, path.parent)) as retrieval:
            async for instance in retrieval:
                if instance.header.sop_instance_uid != record.sop_instance_uid:
                    continue
                chunks = instance.chunks()
                header, taken = await read_heading(chunks)
                if int(header.get("NumberOfFrames") or 1) > 1:
                    await asyncio.to_thread(pydicom.dcmwrite, part, header, enforce_file_format=True)
                else:
                    with await asyncio.to_thread(part.open, "wb") as file:
                        await asyncio.to_thread(file.write, taken)
                        async for chunk in chunks:
                            await asyncio.to_thread(file.write, chunk)
                await asyncio.to_thread(part.replace, path)
                return path
        raise _gone(job)

    def _retrieve(self, job: Job, record: InstanceRecord, folder: Path) -> Retrieval:
        archive = self._lookup.archive(job.archive or "", self._slides.of(job))
        return archive.retrieve_instance(
            job.study_instance_uid or "", record.series_instance_uid, record.sop_instance_uid, folder
        )


def _gone(job: Job) -> NeedsHuman:
    return NeedsHuman(
        f"{job.archive} no longer has the study that was analysed",
        "Look at the study in the archive: results of it can't be filed without it.",
    )
