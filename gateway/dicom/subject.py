"""Whose study it is, as one of its own instances says: the truth that results are held against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.dicom.identity import text_in

if TYPE_CHECKING:  # pydicom is loaded when the first study is met
    from pydicom.dataset import Dataset


@dataclass(frozen=True, slots=True)
class Subject:
    """Names are in DICOM's order (family^given^middle^prefix^suffix). What isn't known is empty."""

    patient_id: str
    study_instance_uid: str
    patient_name: str = ""
    birth_date: str = ""
    sex: str = ""
    accession_number: str = ""
    issuer_of_patient_id: str = ""
    study_date: str = ""
    study_time: str = ""
    study_description: str = ""

    def __repr__(self) -> str:
        return "Subject()"


def subject_of(header: Dataset) -> Subject:
    return Subject(
        patient_id=text_in(header, "PatientID"),
        study_instance_uid=text_in(header, "StudyInstanceUID"),
        patient_name=text_in(header, "PatientName"),
        birth_date=text_in(header, "PatientBirthDate"),
        sex=text_in(header, "PatientSex"),
        accession_number=text_in(header, "AccessionNumber"),
        issuer_of_patient_id=text_in(header, "IssuerOfPatientID"),
        study_date=text_in(header, "StudyDate"),
        study_time=text_in(header, "StudyTime"),
        study_description=text_in(header, "StudyDescription"),
    )
