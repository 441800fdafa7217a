"""The study that canaries are sent with: a test pattern of ours, of nobody, which says so wherever a person
might look.

It is made from its UID alone, whenever it is asked for, so that it lies nowhere and every replica has it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Collection
from datetime import UTC, datetime
from functools import lru_cache
from io import BytesIO
from uuid import uuid4

from gateway.archives.archive import AtHand, InstanceRef, StudyMatch
from gateway.contract import Header, Health
from gateway.dicom.identity import Identity
from gateway.dicom.web import require_uid

ARCHIVE = "canary/study"  # no archive in the configuration can be called so

_PATIENT, _NAME = "GATEWAY-CANARY", "CANARY^NOT A PATIENT"
_CLASS, _SYNTAX = "1.2.840.10008.5.1.4.1.1.1", "1.2.840.10008.1.2.1"  # Computed Radiography, explicit
_SIZE, _SQUARE = 512, 64
_NOBODY = "Synthetic test study of the imaging gateway. Not a patient: not for diagnosis."


def fresh_study() -> str:
    return f"2.25.{uuid4().int}"


@lru_cache(maxsize=4)
def picture_of(study: str) -> bytes:
    """A chessboard as a DICOM file."""
    from pydicom.dataset import Dataset, FileMetaDataset  # much to load, for those alone who have a canary
    from pydicom.uid import UID

    now = datetime.now(UTC).astimezone()
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(_CLASS)
    meta.MediaStorageSOPInstanceUID = UID(f"{study}.1.1")
    meta.TransferSyntaxUID = UID(_SYNTAX)
    made = Dataset()
    made.file_meta = meta
    made.SpecificCharacterSet = "ISO_IR 192"
    made.ImageType = ["ORIGINAL", "PRIMARY"]
    made.SOPClassUID, made.SOPInstanceUID = UID(_CLASS), UID(f"{study}.1.1")
    made.StudyInstanceUID, made.SeriesInstanceUID = UID(study), UID(f"{study}.1")
    made.StudyDate = made.SeriesDate = made.AcquisitionDate = made.ContentDate = f"{now:%Y%m%d}"
    made.StudyTime = made.SeriesTime = made.AcquisitionTime = made.ContentTime = f"{now:%H%M%S}"
    made.PatientName, made.PatientID, made.PatientBirthDate, made.PatientSex = _NAME, _PATIENT, "", "O"
    made.PatientComments = made.ImageComments = _NOBODY
    made.StudyDescription = made.SeriesDescription = "GATEWAY CANARY, NOT A PATIENT"
    made.AccessionNumber, made.StudyID, made.ReferringPhysicianName = "", "CANARY", ""
    made.Modality, made.Manufacturer, made.ManufacturerModelName = "CR", "Imaging gateway", "Canary"
    made.BodyPartExamined, made.ViewPosition, made.KVP = "HAND", "AP", None
    made.SeriesNumber = made.InstanceNumber = 1
    made.PatientOrientation, made.Laterality = ["L", "F"], "R"
    made.QualityControlImage, made.BurnedInAnnotation = "YES", "NO"
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.Rows = made.Columns = _SIZE
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 16, 12, 11, 0
    dark, light = (value.to_bytes(2, "little") * _SQUARE for value in (600, 3000))
    pairs = _SIZE // _SQUARE // 2
    made.PixelData = ((dark + light) * pairs * _SQUARE + (light + dark) * pairs * _SQUARE) * pairs
    made["PixelData"].VR = "OW"
    file = BytesIO()
    made.save_as(file, enforce_file_format=True)
    return file.getvalue()


class _Picture:
    def __init__(self, study: str) -> None:
        self.header = Header(study, f"{study}.1", f"{study}.1.1", _CLASS, _SYNTAX, "CR")
        self._study = study

    async def chunks(self) -> AsyncIterator[bytes]:
        yield await asyncio.to_thread(picture_of, self._study)


class CanaryStudies(AtHand):
    name = ARCHIVE

    async def find_studies(
        self,
        *,
        study_instance_uid: str | None = None,
        accession_number: str | None = None,  # noqa: ARG002 it has none
        patient_id: str | None = None,  # noqa: ARG002
    ) -> list[StudyMatch]:
        if study_instance_uid is None:
            return []
        known = Identity(study_instance_uid, _PATIENT, study_id="CANARY", patient_name=_NAME, sex="O")
        return [StudyMatch(ARCHIVE, known, 1, "ONLINE")]

    async def list_instances(
        self,
        study_instance_uid: str,
        promised: int | None = None,  # noqa: ARG002
        keywords: Collection[str] = (),  # noqa: ARG002
    ) -> list[InstanceRef]:
        header = _Picture(require_uid(study_instance_uid)).header
        return [InstanceRef(header.series_instance_uid, header.sop_instance_uid, header.sop_class_uid, "CR")]

    async def _walk(self, study: str, expected: Collection[str] | None) -> AsyncGenerator[_Picture, None]:
        picture = _Picture(require_uid(study))
        if expected is None or picture.header.sop_instance_uid in expected:
            yield picture

    async def check(self) -> Health:
        return Health(True, "the canaries' study is made by ourselves")
