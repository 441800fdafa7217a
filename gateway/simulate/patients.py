"""The made-up patients that the simulated hospital begins with, the same in every process.

Identities and UIDs follow from fixed words, so that the simulated Sectra can name a study which the
simulated archive, in another process, holds.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass

from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID

DATE, TIME = "20240315", "101500"


def make_uid(*words: str) -> str:
    digest = hashlib.sha256("/".join(words).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who and which study; enough to name it, nothing about its pixels."""

    key: str
    patient_id: str
    patient_name: str
    birth_date: str
    sex: str
    accession_number: str
    study_id: str
    description: str
    body_part: str
    modality: str

    @property
    def study_instance_uid(self) -> str:
        return make_uid("study", self.key)

    @property
    def series_instance_uid(self) -> str:
        return make_uid("series", self.key)

    def make_dataset(self, sop_class: str, number: int) -> Dataset:
        dataset = Dataset()
        dataset.SpecificCharacterSet = "ISO_IR 192"
        dataset.SOPClassUID = UID(sop_class)
        dataset.SOPInstanceUID = UID(make_uid("instance", self.key, str(number)))
        dataset.StudyDate = dataset.SeriesDate = dataset.ContentDate = dataset.AcquisitionDate = DATE
        dataset.StudyTime = dataset.SeriesTime = dataset.ContentTime = dataset.AcquisitionTime = TIME
        dataset.AccessionNumber = self.accession_number
        dataset.Modality = self.modality
        dataset.Manufacturer = "Hospital in a box"
        dataset.InstitutionName = "Synthetic General"
        dataset.ReferringPhysicianName = "Referrer^Synthetic"
        dataset.StudyDescription = self.description
        dataset.ManufacturerModelName = "Simulator"
        dataset.DeviceSerialNumber = "1"
        dataset.SoftwareVersions = "1"
        dataset.PatientName = self.patient_name
        dataset.PatientID = self.patient_id
        dataset.PatientBirthDate = self.birth_date
        dataset.PatientSex = self.sex
        dataset.StudyInstanceUID = UID(self.study_instance_uid)
        dataset.SeriesInstanceUID = UID(self.series_instance_uid)
        dataset.StudyID = self.study_id
        dataset.SeriesNumber = 1
        dataset.InstanceNumber = number
        return dataset


HAND = Identity(
    "hand",
    "SIM-1001",
    "Synthetic^Hanna",
    "19840211",
    "F",
    "SIMA1001",
    "E1001",
    "Hand PA and oblique",
    "HAND",
    "CR",
)
KNEE = Identity(
    "knee",
    "SIM-1002",
    "Synthetic^Karl",
    "19590730",
    "M",
    "SIMA1002",
    "E1002",
    "Knee AP and lateral",
    "KNEE",
    "DX",
)
CHEST = Identity(
    "chest",
    "SIM-1003",
    "Synthetic^Chiara",
    "19711123",
    "F",
    "SIMA1003",
    "E1003",
    "Chest PA and lateral",
    "CHEST",
    "DX",
)
SLIDE = Identity(
    "slide",
    "SIM-1004",
    "Synthetic^Sven",
    "19660405",
    "M",
    "SIMA1004",
    "E1004",
    "Breast biopsy",
    "BREAST",
    "SM",
)
XRAYS = (HAND, KNEE, CHEST)


def write_part10(dataset: Dataset, transfer_syntax: str) -> bytes:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = UID(transfer_syntax)
    meta.ImplementationClassUID = UID(make_uid("implementation", "hospital in a box"))
    meta.ImplementationVersionName = "SIMULATED_1"
    dataset.file_meta = meta
    buffer = io.BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()
