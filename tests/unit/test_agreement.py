"""Whatever a request and a study both know must agree before a byte leaves, whether archive or image tell."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from gateway.archives.archive import StudyMatch
from gateway.contract import NeedsHuman
from gateway.dicom.identity import Identity
from gateway.jobs.records import Job
from gateway.work.agreement import ImageCheck, asked_of, check_match

ASKED = Identity("1.2.3", "P1", "", "A1", "LAB", "E1")
OTHER = Identity("1.2.4", "P2", "CLINIC", "A2", "XRAY", "E2")
TOLD = ("patient_id", "accession_number", "issuer_of_accession_number", "study_id")
known = st.sets(st.sampled_from(TOLD))


def asked(names: set[str]) -> Job:
    values: dict[str, Any] = {each.name: None for each in fields(Job)}
    columns = {"issuer_of_accession_number": "accession_number_issuer", "study_id": "exam_id"}
    values |= {columns.get(name, name): getattr(ASKED, name) for name in names}
    return Job(**values | {"study_instance_uid": ASKED.study_instance_uid, "archive": "vna"})


def told(same: set[str], unlike: set[str]) -> Identity:
    values = {name: getattr(ASKED, name) for name in same} | {name: getattr(OTHER, name) for name in unlike}
    return Identity(ASKED.study_instance_uid, **values)


def image_of(identity: Identity) -> Dataset:
    issuer, header = Dataset(), Dataset()
    issuer.LocalNamespaceEntityID = identity.issuer_of_accession_number
    header.IssuerOfAccessionNumberSequence = [issuer]
    header.StudyInstanceUID, header.StudyID = identity.study_instance_uid, identity.study_id
    header.PatientID, header.AccessionNumber = identity.patient_id, identity.accession_number
    return header


@given(known, known, known)
def test_a_difference_in_anything_that_both_know_holds_the_job(
    ours: set[str], same: set[str], unlike: set[str]
) -> None:
    met = told(same, unlike)
    both = ours & unlike
    if not {"accession_number"} <= ours & (same | unlike):
        both -= {"issuer_of_accession_number"}  # whose number it is means nothing without the number
    for check in (
        lambda: check_match(asked_of(asked(ours)), StudyMatch("vna", met)),
        lambda: ImageCheck(asked(ours))(image_of(met)),
    ):
        if not both:
            check()
            continue
        with pytest.raises(NeedsHuman) as held:
            check()
        assert len(held.value.detail["differs"]) == len(both)
        assert {"expected", "met"} <= held.value.said.keys()
        assert not any(value in held.value.sentences for value in ("P1", "P2", "A1", "A2", "XRAY", "E2"))


@pytest.mark.parametrize("name", ["study_instance_uid", "patient_id"])
def test_images_of_two_patients_are_not_one_study_even_if_nothing_was_asked_of_the_patient(name: str) -> None:
    check = ImageCheck(asked(set()))
    check(image_of(ASKED))
    check(image_of(replace(ASKED, patient_id="P1\\P0")))
    with pytest.raises(NeedsHuman, match="aren't all of one patient: another "):
        check(image_of(replace(ASKED, **{name: getattr(OTHER, name)})))


def test_an_accession_number_that_is_missing_is_no_match() -> None:
    other = replace(ASKED, study_instance_uid=OTHER.study_instance_uid)
    check_match(asked_of(asked({"accession_number"})), StudyMatch("vna", other))
    with pytest.raises(NeedsHuman, match="found a study by its accession number, but it has none"):
        check_match(
            asked_of(asked({"accession_number"})), StudyMatch("vna", replace(other, accession_number=""))
        )
