"""Whose study it is, as one of its own instances says: the truth that results are held against."""

from __future__ import annotations

from dataclasses import dataclass

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
    def text(keyword: str) -> str:
        value = header.get(keyword)
        return "" if value is None else str(value).strip(" \0")

    return Subject(
        patient_id=text("PatientID"),
        study_instance_uid=text("StudyInstanceUID"),
        patient_name=text("PatientName"),
        birth_date=text("PatientBirthDate"),
        sex=text("PatientSex"),
        accession_number=text("AccessionNumber"),
        issuer_of_patient_id=text("IssuerOfPatientID"),
        study_date=text("StudyDate"),
        study_time=text("StudyTime"),
        study_description=text("StudyDescription"),
    )
