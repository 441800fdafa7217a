from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from gateway.privacy.pseudonyms import ISSUER, Original, Pseudonyms

KEY, OTHER = b"k" * 32, b"o" * 32
UIDS = st.from_regex(r"\A[0-2](\.(0|[1-9][0-9]{0,8})){1,6}\Z")


@given(UIDS, UIDS)
def test_uids_are_stable_valid_and_no_two_share_one(first, second):
    ours = Pseudonyms(KEY).uid(first)
    assert ours == Pseudonyms(KEY).uid(first)
    assert re.fullmatch(r"2\.25\.(0|[1-9][0-9]{0,38})", ours)
    assert len(ours) <= 64
    assert (ours == Pseudonyms(KEY).uid(second)) is (first == second)
    assert ours != Pseudonyms(OTHER).uid(first)


def test_uids_of_the_standard_itself_stay():
    pseudonyms = Pseudonyms(KEY)
    assert [pseudonyms.uid(uid) for uid in ("1.2.840.10008.5.1.4.1.1.2", "")] == [
        "1.2.840.10008.5.1.4.1.1.2",
        "",
    ]
    assert not pseudonyms.unkept()


@given(st.text(), st.text(), st.text())
def test_numbers_fit_where_they_stand_and_tell_nothing(identifier, issuer, study):
    pseudonyms = Pseudonyms(KEY)
    patient = pseudonyms.patient(identifier, issuer, study)
    assert re.fullmatch("P[A-Z2-7]{15}", patient)
    assert re.fullmatch("A[A-Z2-7]{15}", pseudonyms.of("accession", identifier))
    assert 31 <= pseudonyms.days(identifier, issuer, study) <= 1855


def test_a_patient_is_the_same_in_every_study_of_his_and_another_with_another_issuer():
    pseudonyms = Pseudonyms(KEY)
    ours = pseudonyms.patient("12", "A", "1.2.3")
    assert pseudonyms.patient("12", "A", "1.2.4") == ours
    assert len({ours, pseudonyms.patient("12", "B", "1.2.3"), pseudonyms.patient("2", "A1", "1.2.3")}) == 3
    assert pseudonyms.days("12", "A", "1.2.3") == pseudonyms.days("12", "A", "1.2.4")


def test_the_issuer_that_was_named_first_is_that_of_the_whole_job():
    """Also after a crash, with what was kept of it."""
    first = Pseudonyms(KEY)
    assert [first.fix_issuer(each) for each in ("A", "", "B")] == ["A"] * 3
    assert first.unkept() == {ISSUER: Original("issuer", "A")}
    assert Pseudonyms(KEY, "A").fix_issuer("B") == "A"
    assert Pseudonyms(KEY, "").fix_issuer("B") == ""
    assert not Pseudonyms(KEY, "A").unkept()


def test_whoever_has_no_id_is_known_by_the_study():
    pseudonyms = Pseudonyms(KEY)
    assert pseudonyms.patient("", "A", "1.2.3") == pseudonyms.patient("", "", "1.2.3")
    assert pseudonyms.patient("", "A", "1.2.3") != pseudonyms.patient("", "A", "1.2.4")


def test_what_was_issued_is_told_until_it_is_kept():
    pseudonyms = Pseudonyms(KEY)
    uid = pseudonyms.uid("1.2.3")
    told = pseudonyms.unkept()
    assert told == {uid: Original("uid", "1.2.3")}
    pseudonyms.keep(told)
    pseudonyms.uid("1.2.3")
    assert not pseudonyms.unkept()
    assert "1.2.3" not in repr(told)
