"""Studies that were sent to us for an application, as an archive: what lies in folders of ours is looked for
and given on like what lies in a VNA."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from gateway.archives.archive import InstanceRef, StudyMatch
from gateway.archives.awaited import file_of
from gateway.archives.files import FilesAtHand, describe_file, read_file_header, sync
from gateway.contract import Health, NeedsHuman
from gateway.dicom.identity import Identity, identity_of
from gateway.dicom.part10 import NotDicom
from gateway.dicom.reading import read_before, readable
from gateway.dicom.web import require_uid
from gateway.jobs.records import Job

ARRIVED_IN = "arrived_in"  # in a job's context: the folder that it came with


def incoming_root(data_dir: Path) -> Path:
    return data_dir / "incoming"


ARRIVED = "arrived/"  # begins what no archive in the configuration can be called


def arrived_name(application: str) -> str:
    return f"{ARRIVED}{application}"


class Brought(Protocol):
    """What a job came with: one delivery of its study."""

    async def uids(self) -> set[str]: ...

    async def identity(self) -> Identity:
        """As one of its instances says it."""
        ...

    async def add(self, uid: str, path: Path) -> None:
        """This file of the job's, which is whole; afterwards it is durable there."""
        ...


class ArrivedStudies(FilesAtHand):
    """Of one application. A study may have come in several deliveries, each in its folder <study>@<key>."""

    def __init__(self, application: str, data_dir: Path) -> None:
        self.name = arrived_name(application)
        self._root = incoming_root(data_dir) / application

    async def find_studies(
        self,
        *,
        study_instance_uid: str | None = None,
        accession_number: str | None = None,  # noqa: ARG002 what was sent to us is known by its UID
        patient_id: str | None = None,  # noqa: ARG002
    ) -> list[StudyMatch]:
        if study_instance_uid is None:
            return []
        listed = await self.list_instances(study_instance_uid)
        if not listed:
            return []
        return [await asyncio.to_thread(self._describe, study_instance_uid, listed)]

    async def list_instances(
        self,
        study_instance_uid: str,
        promised: int | None = None,  # noqa: ARG002
        keywords: Collection[str] = (),
    ) -> list[InstanceRef]:
        return await asyncio.to_thread(self._list, study_instance_uid, keywords)

    async def check(self) -> Health:
        return Health(True, "what was sent to us lies on our own disk")

    async def _paths_of(self, study: str) -> dict[str, Path]:
        return await asyncio.to_thread(self._files, study)

    def _files(self, study: str) -> dict[str, Path]:
        return {path.stem: path for path in sorted(self._root.glob(f"{require_uid(study)}@*/*.dcm"))}

    def _list(self, study: str, keywords: Collection[str]) -> list[InstanceRef]:
        listed = []
        for path in self._files(study).values():
            with explained():
                listed.append(describe_file(path, read_file_header(path), keywords))
        return listed

    def _describe(self, study: str, listed: list[InstanceRef]) -> StudyMatch:
        first = self._files(study)[listed[0].sop_instance_uid]
        with explained(), readable():
            return StudyMatch(self.name, identity_of(read_before(first)), len(listed), "ONLINE")


class BroughtFiles:
    def __init__(self, job: Job, data_dir: Path) -> None:
        self._folder = incoming_root(data_dir) / job.application / str((job.context or {}).get(ARRIVED_IN))

    async def uids(self) -> set[str]:
        return await asyncio.to_thread(lambda: {path.stem for path in self._folder.glob("*.dcm")})

    async def identity(self) -> Identity:
        def read() -> Identity:
            with explained(), readable():
                return identity_of(read_before(next(self._folder.glob("*.dcm"))))

        return await asyncio.to_thread(read)

    async def add(self, uid: str, path: Path) -> None:
        def place() -> None:
            sync(path)
            path.rename(file_of(self._folder, uid))

        await asyncio.to_thread(place)


@contextmanager
def explained() -> Iterator[None]:
    try:
        yield
    except NotDicom as error:
        raise NeedsHuman(
            f"an instance that was sent to us can't be read ({error})",
            "Have the study sent again, and look at this machine's disk.",
        ) from error
