"""A study made while it is read: it counts what was taken of it, and may break in the middle."""

from __future__ import annotations

import asyncio
import hashlib
import io
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian

from gateway.contract import Header, Order

STUDY = "1.2.826.0.1.3680043.10.999.1"
OTHER_STUDY = "1.2.826.0.1.3680043.10.999.2"
ORDER = Order("job-1", "trauma", STUDY)
_PIECE = 2**16


def make_instance(study: str, number: int, size: int, *, pixels: bool = True) -> bytes:
    """A Part 10 file as small as it may be, with so many bytes of pixels."""
    dataset = Dataset()
    dataset.SOPClassUID = ComputedRadiographyImageStorage
    dataset.SOPInstanceUID = f"{study}.1.{number}"
    dataset.Modality = "CR"
    dataset.PatientName = "Synthetic^Nobody"
    dataset.StudyInstanceUID = study
    dataset.SeriesInstanceUID = f"{study}.1"
    dataset.BitsAllocated = 8
    if pixels:
        dataset.PixelData = hashlib.sha256(str(number).encode()).digest() * (size // 32)
        dataset["PixelData"].VR = "OB"
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta = meta
    buffer = io.BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


@dataclass
class GivenInstance:
    header: Header
    data: bytes
    study: GivenStudy

    async def chunks(self) -> AsyncIterator[bytes]:
        for at in range(0, len(self.data), _PIECE):
            piece = self.data[at : at + _PIECE]
            self.study.given += len(piece)
            yield piece
            await asyncio.sleep(0)


@dataclass
class GivenStudy:
    """A study that is made while it is read, that counts what was taken, and that may break."""

    study_instance_uid: str = STUDY
    promised: int = 3
    size: int = 200_000
    withheld: int = 0  # the archive gives so many fewer than it promised
    breaks_with: Exception | None = None
    breaks_before: int = 2
    instances_of: str | None = None
    given: int = 0
    walks_open: int = 0
    acknowledged: list[str] = field(default_factory=list)

    def headings(self) -> AsyncIterator[GivenInstance]:
        return self.instances()

    async def acknowledge(self, sop_instance_uid: str) -> None:
        self.acknowledged.append(sop_instance_uid)

    async def begin_anew(self) -> None:
        self.acknowledged.clear()

    async def instances(self) -> AsyncIterator[GivenInstance]:
        self.walks_open += 1
        try:
            for number in range(self.promised - self.withheld):
                if self.breaks_with is not None and number == self.breaks_before:
                    raise self.breaks_with
                study = self.instances_of or self.study_instance_uid
                if f"{study}.1.{number}" in self.acknowledged:
                    continue
                data = make_instance(study, number, self.size)
                header = Header(
                    study,
                    f"{study}.1",
                    f"{study}.1.{number}",
                    ComputedRadiographyImageStorage,
                    ExplicitVRLittleEndian,
                    "CR",
                )
                yield GivenInstance(header, data, self)
        finally:
            self.walks_open -= 1

    @property
    def digests(self) -> set[str]:
        made = (make_instance(self.study_instance_uid, n, self.size) for n in range(self.promised))
        return {hashlib.sha256(each).hexdigest() for each in made}
