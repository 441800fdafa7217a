"""A vendor behind a DICOM node, for the tests: told by the standard alone, and able to misbehave."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StudyRootQueryRetrieveInformationModelFind,
    Verification,
)

from adapters.dimse.adapter import Dimse
from adapters.dimse.wire import Options
from gateway.suite.studies import make_instance
from gateway.suite.vendor import Fault, Outcome, Step

AET = "VENDOR-SECRET-51"


class DimseVendor:
    secret = "no-credential-exists"

    def __init__(self, *, finds: bool = True, **options: Any) -> None:
        self.options = options
        self.complete: list[str] = []
        self.digests: set[str] = set()
        self.received = self.sendings = 0
        self.reading = asyncio.Event()
        self.reading.set()
        self.faults: dict[Step, Fault] = {}
        self.stored: dict[str, str] = {}  # study by SOP instance UID
        self.status = 0x0000
        self._work = Path()
        self._ended = False
        entity = AE(AET)
        entity.maximum_pdu_size = 0
        for context in AllStoragePresentationContexts:
            entity.add_supported_context(str(context.abstract_syntax), ExplicitVRLittleEndian)
        entity.add_supported_context(Verification)
        if finds:
            entity.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
        handlers: list[Any] = [
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_C_FIND, self._find),
            (evt.EVT_C_ECHO, self._echo),
            (evt.EVT_REQUESTED, self._admit),
            (evt.EVT_RELEASED, self._release),
        ]
        self._entity = entity
        server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        assert server is not None
        self._server, self.port = server, server.server_address[1]
        self._open: list[Any] = []

    async def stop(self) -> None:
        self.reading.set()
        if self._ended:
            return
        self._ended = True
        await asyncio.to_thread(self._server.shutdown)

    def adapter(
        self, session: aiohttp.ClientSession, work: Path, *, patience: float = 120, most: int | None = None
    ) -> Dimse:
        limits = {"connect_timeout": patience, "read_timeout": patience, "call_timeout": 4 * patience}
        given = {"host": "127.0.0.1", "port": self.port, "ae_title": AET, "quiet": "0s", **limits}
        self._work = work
        return Dimse(Options.model_validate({**given, **self.options}), session, work)

    @property
    def has(self) -> set[str]:
        return set(self.stored)

    def finish(
        self,
        study: str,
        *,
        results_of: str | None = None,
        cut: bool = False,
        size: int = 3_200,
        number: int = 900,
    ) -> Path:
        """As if the storage service had found whose it is."""
        inbox = self._work / "inbox"
        inbox.mkdir(exist_ok=True)
        path = inbox / f"{results_of or study}.1.{number}.dcm"
        data = make_instance(results_of or study, number, size)
        path.write_bytes(data[: len(data) // 2] if cut else data)
        return path

    def end(self, study: str, outcome: Outcome) -> None:
        raise NotImplementedError  # it says nothing of how it goes

    def _admit(self, event: Any) -> None:
        refused = [fault for fault in self.faults.values() if fault.status in (401, 403)]
        busy = [fault for fault in self.faults.values() if fault.status == 429]
        if refused or busy:
            event.assoc.acse.send_reject(*((1, 1, 3) if refused else (2, 3, 2)))
            event.assoc.kill()

    def _release(self, event: Any) -> None:
        studies = getattr(event.assoc, "studies", [])
        self.complete += studies

    def _misbehave(self, event: Any, step: Step) -> int | None:
        fault = self.faults.get(step)
        if fault is None:
            return None
        if fault.hang:
            while not self._ended and event.assoc.is_established:
                time.sleep(0.02)
        if fault.die or fault.raw is not None:
            if fault.raw:
                event.assoc.dul.socket.socket.sendall(fault.raw)
            event.assoc.abort()
        return 0x1234 if fault.status == 200 else 0xA700

    def _store(self, event: Any) -> int:
        while not self.reading.is_set() and event.assoc.is_established:
            time.sleep(0.02)
        if not getattr(event.assoc, "studies", []):
            self.sendings += 1
        fault = self.faults.get("submit")
        lost = fault is not None and fault.lost
        refused = None if lost else self._misbehave(event, "submit")
        if refused is not None or self.status:
            return refused or self.status
        dataset = event.encoded_dataset(include_meta=False)
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = event.request.AffectedSOPClassUID
        meta.MediaStorageSOPInstanceUID = event.request.AffectedSOPInstanceUID
        meta.TransferSyntaxUID = event.context.transfer_syntax
        head = DicomBytesIO()
        write_file_meta_info(head, meta, enforce_standard=True)
        whole = bytes(128) + b"DICM" + head.getvalue() + dataset
        self.digests.add(hashlib.sha256(whole).hexdigest())
        self.received += len(whole)
        study = str(event.dataset.StudyInstanceUID)
        self.stored[str(event.request.AffectedSOPInstanceUID)] = study
        event.assoc.studies = [study]
        if lost:
            event.assoc.abort()
        return 0x0000

    def _find(self, event: Any) -> Iterator[tuple[int, Dataset | None]]:
        fault = self._misbehave(event, "find")
        if fault is not None:
            yield fault, None
            return
        asked = event.identifier
        uids = [uid for uid, study in self.stored.items() if study == asked.StudyInstanceUID]
        if asked.QueryRetrieveLevel == "SERIES":
            uids = uids[:1]
        for uid in uids:
            item = Dataset()
            item.QueryRetrieveLevel = asked.QueryRetrieveLevel
            item.StudyInstanceUID = asked.StudyInstanceUID
            item.SeriesInstanceUID = f"{asked.StudyInstanceUID}.1"
            if asked.QueryRetrieveLevel == "IMAGE":
                item.SOPInstanceUID = uid
            yield 0xFF00, item

    def _echo(self, event: Any) -> int:
        return self._misbehave(event, "find") or 0x0000
