"""What every archive can be asked, whichever way it speaks."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Protocol

from gateway.archives.dicomweb import InstanceRef, Retrieval, StudyMatch
from gateway.contract import Health


class Archive(Protocol):
    @property
    def name(self) -> str: ...

    async def find_studies(
        self,
        *,
        study_instance_uid: str | None = None,
        accession_number: str | None = None,
        patient_id: str | None = None,
    ) -> list[StudyMatch]: ...

    async def list_instances(
        self, study_instance_uid: str, promised: int | None = None, keywords: Collection[str] = ()
    ) -> list[InstanceRef]: ...

    def retrieve(
        self, study_instance_uid: str, expected: Collection[str] | None = None, spool: Path | None = None
    ) -> Retrieval:
        """`spool`: a folder of the job, for archives whose instances come as files."""
        ...

    async def check(self) -> Health: ...
