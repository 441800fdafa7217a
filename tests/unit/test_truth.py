"""A list of studies and what is true of them: read, or refused line by line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from gateway.work.strata import age_group
from gateway.work.truth import Unclear, read_truth

HEADER = "study_instance_uid,accession_number,patient_id,Fracture,effusion,sex,age\n"


def test_what_a_list_says() -> None:
    text = HEADER + "1.2.840.1,,,yes,0,F,47\n\n,A123,P7,no,?,,\n"
    findings, [first, second] = read_truth(text)
    assert findings == ["fracture", "effusion"]
    assert (first.study_instance_uid, first.truth) == ("1.2.840.1", {"fracture": True, "effusion": False})
    assert first.of == {"sex": "F", "age": "40-64"}
    assert (second.accession_number, second.patient_id) == ("A123", "P7")
    assert (second.truth, second.of) == ({"fracture": False}, {})
    assert "A123" not in repr(second)


@pytest.mark.parametrize("text", ["\ufeffAccession Number;Truth\nA1;+\n", "accession\ttruth\nA1\tTRUE\n"])
def test_as_spreadsheets_write_it(text: str) -> None:
    findings, [study] = read_truth(text)
    assert (findings, study.truth) == (["any finding"], {"any finding": True})


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("", ["the list is empty: its first line names the columns"]),
        ("\n \n", ["the list is empty: its first line names the columns"]),
        (HEADER, ["no study is listed below the names of the columns"]),
        ("fracture\nyes\n", ["line 1: no column names the study: study_instance_uid, or accession_number"]),
        ("study\n1.2\n", ["line 1: no column is a finding, or truth for any at all"]),
        ("study,a,A\n1.2,1,1\n", ["line 1: column 3 is the same as column 2"]),
        ("study,a,\n1.2,1,1\n", ["line 1: column 3 has no name"]),
        ("study,a\n1.2,perhaps\n", ["line 2: a is neither yes nor no, nor empty where nobody knows"]),
        ("study,a\n,yes\n", ["line 2: names no study: neither its UID nor its accession number"]),
        ("study,a\n1.x,yes\n", ["line 2: the study's UID is none: numbers and dots, 64 at the most"]),
        ("study,a\n1.2,yes\n1.3,no\n1.2,no\n", ["line 4: names the same study as line 2"]),
        ("study,a\n1.2,yes,no\n", ["line 2: 3 values for 2 columns"]),
        ("study,age,a\n1.2,old,1\n", ["line 2: age isn't an age in years"]),
        (
            "study,a\n1.2,maybe\nx,yes\n",
            [
                "line 2: a is neither yes nor no, nor empty where nobody knows",
                "line 3: the study's UID is none: numbers and dots, 64 at the most",
            ],
        ),
    ],
)
def test_each_line_that_is_no_good_is_a_sentence(text: str, sentences: list[str]) -> None:
    with pytest.raises(Unclear) as refused:
        read_truth(text)
    assert list(refused.value.sentences) == sentences


@given(some.text(max_size=200))
def test_whatever_it_is_it_is_read_or_refused(text: str) -> None:
    try:
        findings, studies = read_truth("study,a\n" + text)
    except Unclear as refused:
        assert refused.sentences
    else:
        assert findings == ["a"] and studies


@pytest.mark.parametrize(
    ("age", "group"),
    [
        *(("047Y", "40-64"), ("006M", "0-17"), ("003D", "0-17"), ("17", "0-17"), ("18", "18-39")),
        *(("80Y", "80+"), ("", ""), ("old", ""), ("999Y", ""), ("-3", "")),
    ],
)
def test_age_groups(age: str, group: str) -> None:
    assert age_group(age) == group
