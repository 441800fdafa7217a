"""A study that was sent to us, as an archive: what lies in a folder of ours is looked for and given on like
what lies in a VNA."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pydicom

from gateway.archives.dicomweb import InstanceRef, Retrieval, StudyMatch
from gateway.archives.files import FileInstance, open_instance, read_file_header
from gateway.archives.landing import place_of
from gateway.archives.queries import texts_of
from gateway.contract import Health, NeedsHuman
from gateway.dicom.part10 import NotDicom

ARRIVED = "arrived"


def incoming_root(data_dir: Path) -> Path:
    return data_dir / "incoming"


def arrived_folder(data_dir: Path, context: Mapping[str, Any] | None) -> Path | None:
    """Where the study of a job lies that came with it; the job's context names it."""
    named = (context or {}).get(ARRIVED)
    return incoming_root(data_dir) / named if isinstance(named, str) else None


class ArrivedStudy:
    name = ARRIVED

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def find_studies(
        self,
        *,
        study_instance_uid: str | None = None,
        accession_number: str | None = None,  # noqa: ARG002 the folder holds one study, and it is the one meant
        patient_id: str | None = None,  # noqa: ARG002
    ) -> list[StudyMatch]:
        listed = await self.list_instances("")
        if not listed:
            return []
        match = await asyncio.to_thread(self._describe, listed)
        return [match] if study_instance_uid in (None, match.study_instance_uid) else []

    async def list_instances(
        self,
        study_instance_uid: str,  # noqa: ARG002
        promised: int | None = None,  # noqa: ARG002
        keywords: Collection[str] = (),
    ) -> list[InstanceRef]:
        listed = await asyncio.to_thread(self._list)
        return await asyncio.to_thread(self._describe_each, listed, keywords) if keywords else listed

    def retrieve(
        self,
        study_instance_uid: str,  # noqa: ARG002
        expected: Collection[str] | None = None,
        spool: Path | None = None,  # noqa: ARG002 it lies on the disk already
    ) -> Retrieval:
        return Retrieval(self._walk(expected), expected)

    async def check(self) -> Health:
        return Health(True, "what was sent to us lies on our own disk")

    async def _walk(self, expected: Collection[str] | None) -> AsyncGenerator[FileInstance, None]:
        uids = expected if expected is not None else [one.sop_instance_uid for one in self._list()]
        for uid in uids:
            path = place_of(self._folder, uid)
            if path.exists():
                yield await open_instance(path)

    def _list(self) -> list[InstanceRef]:
        listed = []
        for path in sorted(self._folder.glob("*.dcm")):
            try:
                header = read_file_header(path)
            except NotDicom as error:
                raise NeedsHuman(
                    f"an instance that was sent to us can't be read ({error})",
                    "Have the study sent again, and look at this machine's disk.",
                ) from error
            listed.append(
                InstanceRef(
                    header.series_instance_uid, header.sop_instance_uid, header.sop_class_uid, header.modality
                )
            )
        return listed

    def _describe_each(self, listed: list[InstanceRef], keywords: Collection[str]) -> list[InstanceRef]:
        described = []
        for one in listed:
            path = place_of(self._folder, one.sop_instance_uid)
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(keywords))
            told = {keyword: texts_of(header, keyword) for keyword in keywords}
            described.append(replace(one, attributes={word: texts for word, texts in told.items() if texts}))
        return described

    def _describe(self, listed: list[InstanceRef]) -> StudyMatch:
        tags = ["StudyInstanceUID", "AccessionNumber", "PatientID", "StudyID"]
        first = pydicom.dcmread(
            place_of(self._folder, listed[0].sop_instance_uid), stop_before_pixels=True, specific_tags=tags
        )

        def text(keyword: str) -> str | None:
            return str(first.get(keyword) or "").strip() or None

        return StudyMatch(
            archive=ARRIVED,
            study_instance_uid=text("StudyInstanceUID") or "",
            accession_number=text("AccessionNumber"),
            patient_id=text("PatientID"),
            study_id=text("StudyID"),
            modalities=tuple(sorted({one.modality for one in listed if one.modality})),
            series_count=len({one.series_instance_uid for one in listed}),
            instance_count=len(listed),
            availability="ONLINE",
        )
