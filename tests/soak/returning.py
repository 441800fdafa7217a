"""What makes an Orthanc a vendor: somebody looks at each study that came, and gives a result back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp
import pydicom
from pydicom.filebase import DicomBytesIO
from pynetdicom import AE
from pynetdicom.sop_class import SecondaryCaptureImageStorage  # type: ignore[attr-defined]

from tests.peers.orthanc import Orthanc
from tests.soak.hospital import Hospital
from tests.soak.ledger import Ledger
from tests.soak.patients import Patient, number_of

PAUSE = 0.5
TRIES = 60
NOBODY_WAITS = 0x0124


class Vendors:
    def __init__(self, house: Hospital, ledger: Ledger) -> None:
        self._house = house
        self._ledger = ledger
        self._turn = 0
        self.returned: dict[str, int] = {}  # study: the status of the last try

    async def work(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch(self._house.orthancs["chest"], self._keep, group))
            group.create_task(self._watch(self._house.orthancs["lungs"], self._return, group))

    async def _watch(self, vendor: Orthanc, act: Callable[..., Any], group: asyncio.TaskGroup) -> None:
        seen, since = set(), 0
        while True:
            told = await self._get(vendor, f"/changes?since={since}&limit=100")
            since = told["Last"]
            for change in told["Changes"]:
                if change["ChangeType"] != "StableStudy":
                    continue
                tags = (await self._get(vendor, f"/studies/{change['ID']}"))["MainDicomTags"]
                number = number_of(tags["StudyInstanceUID"])
                if number is not None and number not in seen:
                    seen.add(number)
                    group.create_task(act(vendor, self._ledger.asked[number].patient))
            if told["Done"]:
                await asyncio.sleep(PAUSE)

    async def _get(self, vendor: Orthanc, path: str) -> Any:
        return await self._ask(vendor, "GET", path)

    async def _keep(self, vendor: Orthanc, patient: Patient) -> None:
        """Shown in the same study."""
        data = await asyncio.to_thread(patient.make_result)
        await self._ask(vendor, "POST", "/instances", data)

    async def _ask(self, vendor: Orthanc, method: str, path: str, data: bytes | None = None) -> Any:
        """A busy machine may keep an Orthanc from answering; that ends no run."""
        tries = 0
        while True:
            tries += 1
            try:
                async with self._house.http.request(
                    method, f"{vendor.url}{path}", data=data, auth=_auth(vendor)
                ) as answer:
                    answer.raise_for_status()
                    return await answer.json()
            except (aiohttp.ClientConnectionError, TimeoutError):
                if tries == TRIES:
                    raise
                await asyncio.sleep(2)

    async def _return(self, _: Orthanc, patient: Patient) -> None:
        """Stored with the gateway; sent again while it can't be taken."""
        data = await asyncio.to_thread(patient.make_result)
        for _number in range(TRIES):
            self._turn += 1
            replica = self._house.replicas[self._turn % len(self._house.replicas)]
            status = await asyncio.to_thread(_store, replica.dicom_port, replica.ae_title, data)
            self.returned[patient.study] = status
            if status == 0:
                return
            await asyncio.sleep(2)


def _auth(server: Orthanc) -> aiohttp.BasicAuth | None:
    return aiohttp.BasicAuth(*server.auth) if server.auth else None


def _store(port: int, called: str, data: bytes) -> int:
    """-1: nobody answered."""
    entity = AE("LUNGS")
    entity.connection_timeout = entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 10
    dataset = pydicom.dcmread(DicomBytesIO(data))
    entity.add_requested_context(SecondaryCaptureImageStorage, dataset.file_meta.TransferSyntaxUID)
    association = entity.associate("127.0.0.1", port, ae_title=called)
    if not association.is_established:
        return -1
    try:
        return int(association.send_c_store(dataset).get("Status", -1))
    except (RuntimeError, ValueError):
        return -1
    finally:
        association.release()
