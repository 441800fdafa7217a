"""Studies that were sent to us for an application, as an archive: what lies in folders of ours is looked for
and given on like what lies in a VNA."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway.archives.archive import InstanceRef, StudyMatch
from gateway.archives.files import FilesAtHand, describe_file, read_file_header
from gateway.contract import Health, NeedsHuman
from gateway.dicom.identity import identity_of
from gateway.dicom.part10 import NotDicom
from gateway.dicom.reading import read_before, readable
from gateway.dicom.web import require_uid

ARRIVED_IN = "arrived_in"  # in a job's context: the folder that it came with


def incoming_root(data_dir: Path) -> Path:
    return data_dir / "incoming"


def arrived_name(application: str) -> str:
    """No archive in the configuration can be called so."""
    return f"arrived/{application}"


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
            with _explained():
                listed.append(describe_file(path, read_file_header(path), keywords))
        return listed

    def _describe(self, study: str, listed: list[InstanceRef]) -> StudyMatch:
        first = self._files(study)[listed[0].sop_instance_uid]
        with _explained(), readable():
            return StudyMatch(self.name, identity_of(read_before(first)), len(listed), "ONLINE")


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except NotDicom as error:
        raise NeedsHuman(
            f"an instance that was sent to us can't be read ({error})",
            "Have the study sent again, and look at this machine's disk.",
        ) from error
