"""A slide's own DICOM files, from its Sectra server: for hospitals whose slides are in no VNA.

Sectra doesn't list what is in them, so they are downloaded before any is chosen, and kept until the job ends.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gateway.archives.archive import InstanceRef, StudyMatch
from gateway.archives.files import FilesAtHand, describe_file
from gateway.archives.spool import Spool
from gateway.contract import Failure, Header, Health, NeedsHuman, Retryable, Unsuitable
from gateway.dicom.identity import Identity
from gateway.dicom.part10 import NotDicom
from gateway.dicom.whole import CutOff, check_whole
from gateway.jobs.records import Job
from gateway.sectra.client import SectraClient
from gateway.sectra.servers import SectraServers

_UNTOLD = (None, "", "application/octet-stream")


@dataclass(frozen=True, slots=True)
class Slide:
    """`folder`: where its files may lie until the job ends; `is_full`: whether the disk takes no more."""

    server: str
    slide_id: str
    folder: Path
    is_full: Callable[[], bool]
    client: Callable[[], SectraClient]

    def __repr__(self) -> str:
        return f"Slide({self.server})"


class Slides:
    """The slides that jobs are about."""

    def __init__(self, servers: SectraServers, spool: Spool) -> None:
        self._servers = servers
        self._spool = spool

    def of(self, job: Job) -> Slide | None:
        if job.slide_id is None or job.server is None or job.callback_url is None:
            return None
        place = job.server, job.callback_url, job.application, job.callback_token
        client = partial(self._servers.client, *place, own=job.callback_accepted)
        folder = self._spool.slide(job.id)
        return Slide(job.server, job.slide_id, folder, lambda: self._spool.is_full, client)


class SlideArchive(FilesAtHand):
    """Of one slide; without one it has nothing."""

    def __init__(self, name: str, slide: Slide | None = None) -> None:
        self.name = name
        self._slide = slide

    async def find_studies(
        self,
        *,
        study_instance_uid: str | None = None,
        accession_number: str | None = None,
        patient_id: str | None = None,  # noqa: ARG002 Sectra doesn't tell it
    ) -> list[StudyMatch]:
        if self._slide is None:
            return []
        info = await self._slide.client().slide_info(self._slide.slide_id, phi=True)
        kind = info.file_format.mime_type if info.file_format else None
        if kind not in _UNTOLD and "dicom" not in kind.lower():
            return []
        if accession_number is not None and info.accession_number not in (None, accession_number):
            return []
        study = info.study_instance_uid
        if study is None:
            study = next(iter((await self._files(self._slide)).values()))[1].study_instance_uid
        if study_instance_uid not in (None, study):
            return []
        identity = Identity(
            study_instance_uid=study,
            accession_number=info.accession_number or "",
            issuer_of_accession_number=info.accession_number_issuer or "",
            study_id=info.exam_id or "",
        )
        return [StudyMatch(self.name, identity, availability="ONLINE")]

    async def list_instances(
        self,
        study_instance_uid: str,
        promised: int | None = None,  # noqa: ARG002
        keywords: Collection[str] = (),
    ) -> list[InstanceRef]:
        files = await self._files_of(study_instance_uid)
        return await asyncio.to_thread(
            lambda: [describe_file(path, header, keywords) for path, header in files.values()]
        )

    async def check(self) -> Health:
        return Health(True, "the Sectra server of each slide is asked for its files, in the slide's own name")

    async def _paths_of(self, study: str) -> dict[str, Path]:
        return {uid: path for uid, (path, _) in (await self._files_of(study)).items()}

    async def _files_of(self, study: str) -> Mapping[str, tuple[Path, Header]]:
        if self._slide is None:
            return {}
        files = await self._files(self._slide)
        if any(header.study_instance_uid != study for _, header in files.values()):
            raise NeedsHuman(
                "the slide's files in Sectra belong to another study than the slide does",
                "Have the slide checked in Sectra; nothing of it is forwarded.",
            )
        return files

    async def _files(self, slide: Slide) -> Mapping[str, tuple[Path, Header]]:
        """Under their names only when all are there: a folder that a dying process left is filled again."""
        folder, coming = slide.folder / "files", slide.folder / "coming"
        if not await asyncio.to_thread(folder.is_dir):
            if slide.is_full():
                raise Retryable(
                    "the slide isn't downloaded: the disk of data_dir is nearly full",
                    "Make room there; the job then goes on by itself.",
                )
            await slide.client().download(slide.slide_id, coming)
            await asyncio.to_thread(coming.rename, folder)
        try:
            return await asyncio.to_thread(_read, folder)
        except Failure:
            await asyncio.to_thread(shutil.rmtree, folder)  # the next look is at what Sectra has by then
            raise


def _read(folder: Path) -> Mapping[str, tuple[Path, Header]]:
    """By their UIDs. What lies beside the instances (an index, a thumbnail) isn't the study's."""
    found: dict[str, tuple[Path, Header]] = {}
    for path in sorted(folder.iterdir()):
        try:
            header = check_whole(path)
        except CutOff:
            raise Retryable(
                "Sectra sent a file of the slide that isn't whole",
                "If this goes on, have the slide imported into Sectra again.",
            ) from None
        except NotDicom:
            continue
        found[header.sop_instance_uid] = path, header
    if not found:
        raise Unsuitable(
            "the slide's files in Sectra are no DICOM, and no archive has them as such",
            "Take the archive of kind sectra out of this application, or have such slides stored as DICOM.",
        )
    return found
