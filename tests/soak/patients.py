"""Made-up patients whose names and numbers are so odd that they are found wherever they don't belong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.uid import UID, SecondaryCaptureImageStorage

from tests.peers.dicom_samples import encode, make_instance
from tests.soak.plan import Work

ROOT = "1.2.826.0.1.3680043.10.51951."
FAMILY = "Zyxwvut"


@dataclass(frozen=True, slots=True)
class Patient:
    number: int
    instances: int
    size: int

    @property
    def name(self) -> str:
        return f"{FAMILY}^Qophtab{self.number}"

    @property
    def patient_id(self) -> str:
        return f"ZPIDQ{self.number:06}"

    @property
    def accession(self) -> str:
        return f"ZACCQ{self.number:06}"

    @property
    def slide(self) -> str:
        return f"slide-{self.number:06}"

    @property
    def study(self) -> str:
        return f"{ROOT}{self.number + 1}"

    @property
    def uids(self) -> list[str]:
        return [f"{self.study}.1.{number + 1}" for number in range(self.instances)]

    @property
    def result_uid(self) -> str:
        """Of what a vendor without words of its own makes of the study."""
        return f"{self.study}.9.1"

    @property
    def secrets(self) -> Sequence[str]:
        return self.name, f"Qophtab{self.number}", self.patient_id, self.accession

    def make_study(self) -> list[bytes]:
        return [encode(self._identify(self._image(number))) for number in range(self.instances)]

    def make_result(self) -> bytes:
        dataset = make_instance(self.study, f"{self.study}.9", self.result_uid, size=32)
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
        dataset.ConversionType = "WSD"
        dataset.Modality = "OT"
        dataset.SeriesDescription = "Result"
        del dataset.ReferencedImageSequence
        return encode(self._identify(dataset))

    def _image(self, number: int) -> Dataset:
        return make_instance(
            self.study,
            f"{self.study}.1",
            self.uids[number],
            number=number + 1,
            size=self.size,
            seed=self.number,
        )

    def _identify(self, dataset: Dataset) -> Dataset:
        dataset.PatientName = self.name
        dataset.PatientID = self.patient_id
        dataset.AccessionNumber = self.accession
        dataset.StudyInstanceUID = UID(self.study)
        return dataset


def admit(work: Work) -> Patient:
    return Patient(work.number, work.instances, work.size)


def number_of(uid: str) -> int | None:
    """Whose it is."""
    if not uid.startswith(ROOT):
        return None
    return int(uid.removeprefix(ROOT).partition(".")[0]) - 1
