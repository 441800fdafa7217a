"""Whatever two sides both know must agree; what one doesn't know can't be held against it."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from gateway.contract import NeedsHuman
from gateway.dicom.identity import Identity, differences, identity_of, require_agreement
from gateway.dicom.subject import subject_of

WHOLE = Identity(
    "1.2.3", "P1", "HOSPITAL", "A1", "LAB", "E1", "Müller^Anna^^Dr", birth_date="19700131", sex="F"
)
OTHER = Identity("1.2.4", "P2", "CLINIC", "A2", "XRAY", "E2", "Meier^Anna", birth_date="19710131", sex="M")
NAMES = [field.name for field in fields(Identity)]
ALONE = {"issuer_of_patient_id", "issuer_of_accession_number"}  # mean nothing without their number


@pytest.mark.parametrize("name", NAMES)
def test_each_single_difference_is_found(name: str) -> None:
    changed = replace(WHOLE, **{name: getattr(OTHER, name)})
    assert len(differences(WHOLE, changed)) == 1
    assert len(differences(changed, WHOLE)) == 1


@given(st.sets(st.sampled_from(NAMES)), st.sets(st.sampled_from(NAMES)))
def test_only_what_both_sides_know_is_compared(ours: set[str], theirs: set[str]) -> None:
    known = Identity(**{name: getattr(WHOLE, name) for name in ours})
    other = Identity(**{name: getattr(OTHER, name) for name in theirs})
    same = Identity(**{name: getattr(WHOLE, name) for name in theirs})
    assert differences(known, same) == []
    both = ours & theirs
    if "patient_id" not in both:
        both -= {"issuer_of_patient_id"}
    if "accession_number" not in both:
        both -= {"issuer_of_accession_number"}
    assert len(differences(known, other)) == len(both)


@pytest.mark.parametrize(
    ("known", "other"),
    [
        (Identity(patient_name="MÜLLER^ANNA"), Identity(patient_name="Muller^Anna^^Prof")),
        (Identity(patient_name="Müller"), Identity(patient_name="Müller^Anna")),
        (Identity(patient_name="Yamada^Tarou=山田^太郎"), Identity(patient_name="Yamada^Tarou")),
        (Identity(birth_date="1970"), Identity(birth_date="19700131")),
        (Identity(birth_date="19700000"), Identity(birth_date="1970-01-31")),
        (Identity(birth_date="00000000"), Identity(birth_date="19700131")),
        (Identity(sex="U"), Identity(sex="F")),
        (Identity(sex="female"), Identity(sex="F")),
        (Identity(patient_id=" P1 "), Identity(patient_id="P1")),
        (Identity(patient_id="P2"), Identity(patient_id="P1\\P2 ")),
    ],
)
def test_spellings_and_fillers_agree(known: Identity, other: Identity) -> None:
    assert differences(known, other) == []


def test_a_difference_holds_with_both_sides_in_the_detail_and_no_value_in_the_words() -> None:
    with pytest.raises(NeedsHuman) as held:
        require_agreement(WHOLE, OTHER, "the study found isn't the one asked for", "Compare the two.")
    told = held.value
    assert told.said["expected"]["patient_id"] == "P1"
    assert told.said["met"]["patient_id"] == "P2"
    assert not any(value in told.message for value in ("P1", "P2", "Meier", "1971"))


def test_a_header_tells_its_identity() -> None:
    issuer = Dataset()
    issuer.LocalNamespaceEntityID = "LAB"
    header = Dataset()
    header.PatientID, header.AccessionNumber, header.StudyID = ["P1", "P2"], "A1", "E1"
    header.IssuerOfAccessionNumberSequence = [issuer]
    told = identity_of(header)
    assert (told.patient_id, told.accession_number, told.study_id) == ("P1\\P2", "A1", "E1")
    assert told.issuer_of_accession_number == "LAB"
    assert "P1" not in repr(told)


def test_a_backslash_in_a_patient_id_is_part_of_it() -> None:
    header = Dataset()
    header.PatientID = "A\\B"
    assert identity_of(header).patient_id == subject_of(header).patient_id == "A\\B"
