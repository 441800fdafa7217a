"""Destinations that take a job's result objects."""

from __future__ import annotations

import aiohttp

from gateway.archives.dicomweb import DicomwebArchive
from gateway.contract import Finished, NeedsHuman
from gateway.delivery.archive import store
from gateway.jobs.dispatch import Delivered
from gateway.jobs.records import Job


class IntoArchive:
    """By STOW-RS, and read back."""

    def __init__(self, archive: DicomwebArchive, session: aiohttp.ClientSession) -> None:
        self._archive = archive
        self._session = session

    async def deliver(self, job: Job, finished: Finished) -> Delivered:
        if not finished.dicom:
            return Delivered("there is no object to store", stored=0)
        if job.study_instance_uid is None:
            raise NeedsHuman("the job has lost its study", "Retry the job from the beginning.")
        stored = await store(self._session, self._archive.peer, finished.dicom, job.study_instance_uid)
        if not stored.remarks:
            return Delivered(f"{stored.count} objects stored and read back", stored.reference, stored.count)
        return Delivered(
            f"{stored.count} objects stored; the archive remarks: {'; '.join(stored.remarks)}",
            stored.reference,
            stored.count,
        )
