"""Results that a vendor stores with us: on the disk, and with the job that they belong to, before the vendor
hears of a success.

A result belongs to the job that is with the vendor, and whose study it is of, or whose study or instances it
refers to. If several jobs wait for the same, the oldest gets all that comes until it has its results; then
the next. A result of a study that we never sent is refused; one that merely refers to our study goes to the
job, which is then held: a person decides.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import TimeoutError as Waited
from pathlib import Path
from uuid import UUID

import pydicom
import structlog
from pydicom.dataset import Dataset

from gateway.archives.spool import Spool
from gateway.contract import Header, Sender
from gateway.dicom.arrival import NOT_AUTHORISED, NOT_UNDERSTOOD, OUT_OF_RESOURCES, Reply
from gateway.jobs.store import DatabaseError, Store

log = structlog.get_logger(__name__)

_PATIENCE = 20.0
_REFERRING = [
    "ReferencedStudySequence",
    "ReferencedSeriesSequence",
    "ReferencedImageSequence",
    "ReferencedInstanceSequence",
    "SourceImageSequence",
    "CurrentRequestedProcedureEvidenceSequence",
    "PertinentOtherEvidenceSequence",
    "StudiesContainingOtherReferencedInstancesSequence",
]
_MOST_REFERENCES = 1000


class Returned:
    """`senders`: by adapter. Made in the event loop that the store lives in, used from other threads."""

    def __init__(self, store: Store, senders: Mapping[str, Sequence[Sender]], spool: Spool) -> None:
        self._store = store
        self._spool = spool
        self._loop = asyncio.get_running_loop()
        self._adapters: dict[str, list[str]] = {}
        self.senders = [one for each in senders.values() for one in each]
        for adapter, each in senders.items():
            for one in each:
                self._adapters.setdefault(one.ae_title, []).append(adapter)

    def is_from(self, calling: str) -> bool:
        return calling in self._adapters

    def take(self, calling: str, header: Header, path: Path) -> Reply:
        return self.keep(self._adapters[calling], header, path)

    def keep(self, adapters: list[str], header: Header, path: Path) -> Reply:
        try:
            job = self._find(adapters, [header.study_instance_uid], [])
            if job is None:
                studies, instances = _references_of(path)
                job = self._find(adapters, studies, instances) if studies or instances else None
        except (DatabaseError, Waited) as trouble:
            log.error("a vendor's result can't be kept now", adapters=adapters, error=type(trouble).__name__)
            return Reply(OUT_OF_RESOURCES, "the database doesn't answer: send it again")
        except _UNREADABLE:
            return Reply(NOT_UNDERSTOOD, "the instance can't be read")
        if job is None:
            log.warning("refused a vendor's result: no job waits for it", adapters=adapters)
            return Reply(NOT_AUTHORISED, "no job here waits for a result of this study")
        self._spool.receive(job, header.sop_instance_uid, path)
        return Reply()

    def _find(self, adapters: list[str], studies: Sequence[str], instances: Sequence[str]) -> UUID | None:
        asked = asyncio.run_coroutine_threadsafe(
            self._store.awaiting(adapters, studies, instances), self._loop
        )
        try:
            return asked.result(_PATIENCE)
        except Waited:
            asked.cancel()
            raise


# What pydicom is seen to raise on bytes that aren't DICOM.
_UNREADABLE = (EOFError, ValueError, TypeError, LookupError, AttributeError, NotImplementedError)


def _references_of(path: Path) -> tuple[list[str], list[str]]:
    """The studies and instances that a result is about, by its own words."""
    told = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(_REFERRING))
    studies: dict[str, None] = {}
    instances: dict[str, None] = {}

    def walk(dataset: Dataset, within: str, depth: int) -> None:
        study = dataset.get("StudyInstanceUID")
        if study:
            studies[str(study)] = None
        sop = dataset.get("ReferencedSOPInstanceUID")
        if sop:
            (studies if within == "ReferencedStudySequence" else instances)[str(sop)] = None
        if depth and len(studies) + len(instances) < _MOST_REFERENCES:
            for element in dataset:
                if element.VR == "SQ":
                    for item in element.value:
                        walk(item, element.keyword, depth - 1)

    walk(told, "", 5)
    return list(studies)[:_MOST_REFERENCES], list(instances)[:_MOST_REFERENCES]
