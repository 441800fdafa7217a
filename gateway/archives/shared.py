"""Studies that were sent to us for an application and lie in a bucket, as an archive: whichever machine took
them, any other gives them on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping
from pathlib import Path
from uuid import UUID, uuid4

from gateway.archives.archive import AtHand, InstanceRef, StudyMatch
from gateway.archives.arrived import ARRIVED_IN, arrived_name, explained
from gateway.archives.bucket import Bucket
from gateway.archives.files import describe_file, read_file_header
from gateway.contract import Header, Health, Instance
from gateway.dicom.identity import Identity, identity_of
from gateway.dicom.reading import read_before, readable
from gateway.dicom.web import require_uid
from gateway.jobs.records import Job
from gateway.jobs.store import Store
from gateway.jobs.store.arrivals import Arrival


class SharedStudies(AtHand):
    """Of one application, in a bucket."""

    def __init__(self, application: str, store: Store, bucket: Bucket) -> None:
        self.name = arrived_name(application)
        self._application = application
        self._store = store
        self._bucket = bucket

    async def find_studies(
        self,
        *,
        study_instance_uid: str | None = None,
        accession_number: str | None = None,  # noqa: ARG002 what was sent to us is known by its UID
        patient_id: str | None = None,  # noqa: ARG002
    ) -> list[StudyMatch]:
        if study_instance_uid is None:
            return []
        arrived = await self._arrived(study_instance_uid)
        if not arrived:
            return []
        identity = await asyncio.to_thread(_identity_in, self._bucket, next(iter(arrived.values())))
        return [StudyMatch(self.name, identity, len(arrived), "ONLINE")]

    async def list_instances(
        self,
        study_instance_uid: str,
        promised: int | None = None,  # noqa: ARG002
        keywords: Collection[str] = (),
    ) -> list[InstanceRef]:
        arrived = await self._arrived(study_instance_uid)
        return list(
            await asyncio.gather(
                *(asyncio.to_thread(self._describe, each, keywords) for each in arrived.values())
            )
        )

    async def check(self) -> Health:
        return await self._bucket.check()

    async def _walk(self, study: str, expected: Collection[str] | None) -> AsyncGenerator[Instance, None]:
        arrived = await self._arrived(study)
        for uid in arrived if expected is None else expected:
            if uid in arrived:
                header = await asyncio.to_thread(self._header_of, arrived[uid])
                yield _SharedInstance(header, arrived[uid], self._bucket)

    async def _arrived(self, study: str) -> Mapping[str, Arrival]:
        return await self._store.arrived_of(self._application, require_uid(study))

    def _header_of(self, arrived: Arrival) -> Header:
        with explained(), self._bucket.open(arrived.id, arrived.size) as file:
            return read_file_header(file)

    def _describe(self, arrived: Arrival, keywords: Collection[str]) -> InstanceRef:
        with explained(), self._bucket.open(arrived.id, arrived.size) as file:
            header = read_file_header(file)
            file.seek(0)
            return describe_file(file, header, keywords)


class _SharedInstance:
    def __init__(self, header: Header, arrived: Arrival, bucket: Bucket) -> None:
        self.header = header
        self._arrived = arrived
        self._bucket = bucket

    def chunks(self) -> AsyncIterator[bytes]:
        return self._bucket.chunks(self._arrived.id, self._arrived.size)


class BroughtObjects:
    """In a bucket."""

    def __init__(self, job: Job, store: Store, bucket: Bucket) -> None:
        self._application, self._study = job.application, job.study_instance_uid or ""
        self._key = UUID(str((job.context or {}).get(ARRIVED_IN)))
        self._store = store
        self._bucket = bucket

    async def uids(self) -> set[str]:
        return {*await self._arrived()}

    async def identity(self) -> Identity:
        first = next(iter((await self._arrived()).values()))
        return await asyncio.to_thread(_identity_in, self._bucket, first)

    async def add(self, uid: str, path: Path) -> None:
        size = (await asyncio.to_thread(path.stat)).st_size
        arrived = Arrival(uuid4(), uid, size, self._application, self._study, self._key)
        await self._bucket.put(arrived.id, path)
        await self._store.add_arrivals([arrived])
        await asyncio.to_thread(path.unlink)

    async def _arrived(self) -> Mapping[str, Arrival]:
        return await self._store.arrived_of(self._application, self._study, self._key)


def _identity_in(bucket: Bucket, arrived: Arrival) -> Identity:
    with explained(), bucket.open(arrived.id, arrived.size) as file, readable():
        return identity_of(read_before(file))
