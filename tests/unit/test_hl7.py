"""Messages to the RIS: what they say, whom they are for, and what an answer to them means."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from datetime import UTC, datetime

import hl7
import pytest
from hl7apy.consts import VALIDATION_LEVEL
from hl7apy.parser import parse_message
from hypothesis import given
from hypothesis import strategies as st

from gateway.contract import Finding, Finished, NeedsHuman, Retryable
from gateway.delivery.hl7 import (
    Addressing,
    Message,
    Observation,
    check_acknowledgement,
    compose,
    escape,
    readdress,
)
from gateway.delivery.pdf import set_in_pages
from gateway.delivery.wording import BadTemplate, Wording
from gateway.dicom.subject import Subject

SUBJECT = Subject(
    "P|1", "1.2.3", "Någon^Test^M^Dr^Jr=名^前", "19700101", "F", "A&1", "HOSP", "20260102", "101112.5", "Hand"
)
TO = Addressing("GATEWAY", "Radiology|1", "RIS", "HOSPITAL")
AT = datetime(2026, 1, 2, 11, 0, tzinfo=UTC)
PLAIN = Subject("4711", "1.2.3", "Family^Given", "19700101", "F", "A1")
READY = (
    "MSH|^~\\&|MILVUE|CLOUD|X|Y|20260102||ORU^R01|77|P|2.5\r"
    "PID|1||4711^^^H~99^^^N||Family^Given\r"
    "ORC|RE|A1\rOBR|1|A1|F9|XR^X-ray\r"
    "OBX|1|TX|S^Milvue||Fracture \\T\\ more||||||F\r"
)


def observe(text: str, pdf: bytes | None = None) -> Observation:
    return Observation("milvue-trauma", "Milvue trauma", text, AT, pdf)


def parse(message: Message) -> hl7.Message:
    """By the public parser, from the bytes that go over the wire."""
    return hl7.parse(message.encode(), encoding="utf-8")


def test_every_value_comes_back_as_it_was_put_in() -> None:
    text = "a|b^c&d~e\\f\r\ng\nh\ri \x0b\x1c\x00É 名 \u202f:"
    parsed = parse(compose(SUBJECT, observe(text), TO, "job"))
    in_wire = str(parsed.segment("OBX")[5])
    assert in_wire == "a\\F\\b\\S\\c\\T\\d\\R\\e\\E\\f\\X0D\\g\\X0D\\h\\X0D\\i É 名 \u202f:"
    # one step at a time, so that an escape in the value isn't undone as well
    assert re.sub(
        r"\\(F|S|T|R|E|X0D)\\",
        lambda found: {"F": "|", "S": "^", "T": "&", "R": "~", "E": "\\", "X0D": "\r"}[found[1]],
        in_wire,
    ) == ("a|b^c&d~e\\f\rg\rh\ri É 名 \u202f:")
    assert str(parsed.segment("MSH")[4]) == "Radiology\\F\\1"
    assert len(parsed) == 5, "no value opens a segment"


def test_a_message_is_about_the_studys_patient_and_order() -> None:
    parsed = parse(compose(SUBJECT, observe("Fracture", b"%PDF-1.4"), TO, "job"))
    header, patient, order = (parsed.segment(name) for name in ("MSH", "PID", "OBR"))
    assert [str(header[place]) for place in (3, 5, 6, 9, 11, 18)] == [
        *("GATEWAY", "RIS", "HOSPITAL", "ORU^R01^ORU_R01", "P", "UNICODE UTF-8")
    ]
    assert str(patient[3]) == "P\\F\\1^^^HOSP"
    assert str(patient[5]) == "Någon^Test^M^Jr^Dr"
    assert [str(patient[place]) for place in (7, 8)] == ["19700101", "F"]
    assert [str(order[place]) for place in (2, 3, 7, 25)] == ["A\\T\\1", "A\\T\\1", "20260102101112", "P"]
    text, document, study = parsed.segments("OBX")
    assert str(text[5]) == "Fracture"
    assert str(study[5]) == "1.2.3"
    kind, data = str(document[2]), str(document[5]).split("^")
    assert (kind, data[:4]) == ("ED", ["", "application", "pdf", "Base64"])
    assert base64.b64decode(data[4], validate=True) == b"%PDF-1.4"


def test_the_same_message_is_recognised_and_another_is_not_taken_for_it() -> None:
    first = compose(PLAIN, observe("Fracture"), TO, "job 1/ris")
    assert compose(PLAIN, observe("Fracture"), TO, "job 1/ris") == first
    others = {
        compose(PLAIN, observe("Fracture"), TO, "job 2/ris").control_id,
        compose(PLAIN, observe("No fracture"), TO, "job 1/ris").control_id,
        compose(replace(PLAIN, patient_name="Other"), observe("Fracture"), TO, "job 1/ris").control_id,
    }
    assert len(others | {first.control_id}) == 4
    assert len(first.control_id) == 20
    later = READY.replace("|20260102||", "|20260103||")
    ids = {readdress(text, PLAIN, TO, "job").control_id for text in (READY, later)}
    assert len(ids) == 1, "collected again, the vendor's moment is another and the message the same"


def test_without_a_patient_id_no_message_is_made() -> None:
    with pytest.raises(NeedsHuman, match="no patient id"):
        compose(replace(PLAIN, patient_id=""), observe("x"), TO, "job")


def test_a_vendors_message_is_readdressed_and_otherwise_left_as_it_is() -> None:
    message = readdress(READY.replace("\r", "\r\n"), PLAIN, TO, "job")
    ours, theirs = message.text.split("\r"), READY.split("\r")
    assert ours[1:] == theirs[1:]
    parsed = parse(message)
    assert str(parsed.segment("MSH")[7]) > "2026110100", "it was made when we made it"
    assert [str(parsed.segment("MSH")[place]) for place in (3, 4, 5, 6, 10, 18)] == [
        *("GATEWAY", "Radiology\\F\\1", "RIS", "HOSPITAL", message.control_id, "UNICODE UTF-8")
    ]


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("4711^^^H~99", "4712^^^H~99", "for another patient"),
        ("PID|1||4711^^^H~99", "PID|1|4711|4712^^^H~99", "for another patient"),
        ("4711^^^H~99^^^N||Family", "||Other", "for another patient"),
        ("4711^^^H~99^^^N||Family", "4711||Other", "for another patient"),
        ("Family^Given", "Family^Other", "for another patient"),
        ("Family^Given", "Family^Given||19700102", "for another patient"),
        ("Family^Given", "Family^Given|||M", "for another patient"),
        ("|A1|F9", "|B2|F9", "for another order"),
        ("ORC|RE|A1", "ORC|RE|B2", "for another order"),
        ("ORU^R01", "ADT^A40", "isn't one observation report"),
        ("PID|1|", "PID|1||4711\rPID|2|", "names 2 patients"),
        ("OBR|", "NTE|", "0 orders"),
        ("MSH|^~\\&|", "FHS|^~\\&|", "is none"),
        (READY, "", "is none"),
        (READY, READY + READY, "isn't one observation report"),
    ],
)
def test_a_message_for_somebody_else_never_leaves(old: str, new: str, sentence: str) -> None:
    assert old in READY
    with pytest.raises(NeedsHuman, match=sentence) as caught:
        readdress(READY.replace(old, new), PLAIN, TO, "job")
    assert not {"4711", "4712", "Family", "A1", "B2"} & set(re.split(r"\W", str(caught.value)))


def test_what_the_vendor_left_empty_is_filled_from_the_study() -> None:
    bare = READY.replace("4711^^^H~99^^^N", "").replace("ORC|RE|A1\r", "").replace("|A1|F9|", "|||")
    message = readdress(bare, PLAIN, TO, "job").text
    assert "\rPID|1||4711|" in message
    assert "\rOBR|1||A1|" in message


def test_separators_of_the_vendors_own_are_understood() -> None:
    turned = READY.translate(str.maketrans("|^~", "#*!"))
    assert readdress(turned, PLAIN, replace(TO, sending_facility="R"), "job").text.startswith(
        "MSH#*!\\&#GATEWAY#R#RIS#HOSPITAL#"
    )
    with pytest.raises(NeedsHuman, match="another patient"):
        readdress(turned.replace("4711", "4712"), PLAIN, TO, "job")
    with pytest.raises(NeedsHuman, match="separators of its own"):
        readdress(turned, PLAIN, replace(TO, sending_facility="R#1"), "job")
    escaped = READY.replace("4711^", "47\\T\\11^")
    assert readdress(escaped, replace(PLAIN, patient_id="47&11"), TO, "job").control_id


def test_another_issuers_patient_is_another_patient() -> None:
    ours = replace(PLAIN, issuer_of_patient_id="H")
    assert readdress(READY, ours, TO, "job").control_id
    with pytest.raises(NeedsHuman, match="another patient"):
        readdress(READY, replace(PLAIN, issuer_of_patient_id="N"), TO, "job")


def test_a_new_line_within_a_field_opens_no_segment() -> None:
    parsed = parse(readdress(READY.replace("Fracture", "Fracture\nOBX|2|TX"), PLAIN, TO, "job"))
    assert len(parsed) == 5
    assert str(parsed.segment("OBX")[5]).startswith("Fracture\\X0D\\OBX")
    with pytest.raises(NeedsHuman, match="a line that is no segment"):
        readdress(READY.replace("Fracture", "Fracture\nof the wrist").replace("\r", "\n"), PLAIN, TO, "job")


@pytest.mark.parametrize(
    ("written", "told"),
    [("19700101", "19700101"), ("197001", "197001"), ("1970", "1970")]
    + [(wrong, "") for wrong in ("19700000", "00000000", "19700230", "1970-01-01", "")],
)
def test_a_birth_date_is_valid_or_empty(written: str, told: str) -> None:
    subject = replace(PLAIN, birth_date=written)
    assert str(parse(compose(subject, observe("x"), TO, "job")).segment("PID")[7]) == told
    ready = READY.replace("Family^Given", "Family^Given||19700000")
    assert str(parse(readdress(ready, subject, TO, "job")).segment("PID")[7]) == told


@pytest.mark.parametrize(
    ("time", "told"), [("101112", "20260102101112"), ("240000", "20260102"), ("", "20260102")]
)
def test_the_moment_of_a_study_is_valid(time: str, told: str) -> None:
    subject = replace(PLAIN, study_date="20260102", study_time=time)
    assert str(parse(compose(subject, observe("x"), TO, "job")).segment("OBR")[7]) == told


def test_an_unnamed_patient_has_a_name_that_says_so() -> None:
    subject = replace(PLAIN, patient_name="")
    assert str(parse(compose(subject, observe("x"), TO, "job")).segment("PID")[5]) == "^^^^^^U"


WORDS = st.text(st.characters(blacklist_categories=["Cs", "Cc"]), max_size=30)
SUBJECTS = st.builds(
    Subject,
    patient_id=WORDS.map(lambda word: word.replace("\\", "")).filter(str.strip),  # that would part several
    study_instance_uid=st.just("1.2.3"),
    patient_name=st.lists(WORDS.map(lambda word: word.replace("^", "")), max_size=5).map("^".join),
    birth_date=st.sampled_from(["", "1970", "19700000", "19700230", "19700229", "20240229"]),
    sex=st.sampled_from(["", "M", "F", "O", "U", "m"]),
    accession_number=WORDS,
    study_date=st.sampled_from(["", "20260102", "20260231", "2026"]),
    study_time=st.sampled_from(["", "2400", "101112.5", "10:11:12"]),
)


@given(SUBJECTS, WORDS)
def test_whatever_a_study_says_the_message_is_valid_and_for_its_patient(subject: Subject, text: str) -> None:
    """Judged by another library, which knows the standard's structure of an ORU^R01."""
    message = compose(subject, observe(text), TO, "job")
    judged = parse_message(message.text, validation_level=VALIDATION_LEVEL.STRICT, find_groups=True)
    judged.validate()
    assert len(parse(message)) == 5
    again = readdress(message.text, subject, TO, "job")
    assert again.text.split("\r")[1:] == message.text.split("\r")[1:]
    with pytest.raises(NeedsHuman, match="for another patient"):
        readdress(message.text, replace(subject, patient_id=subject.patient_id + "1"), TO, "job")


@pytest.mark.parametrize("code", ["AA", "CA"])
def test_an_accepted_message_is_delivered(code: str) -> None:
    message = compose(PLAIN, observe("x"), TO, "job")
    check_acknowledgement(f"MSH|^~\\&|R\rMSA|{code}|{message.control_id}\r".encode(), message, "ris")


@pytest.mark.parametrize("code", ["AE", "AR", "CE", "CR"])
def test_a_refused_message_is_held_and_the_peers_words_stay_out_of_sight(code: str) -> None:
    message = compose(PLAIN, observe("x"), TO, "job")
    answer = f"MSH|^~\\&|R\rMSA|{code}|{message.control_id}|Family unknown\rERR||PID^1|204\r"
    with pytest.raises(NeedsHuman, match=f"answered {code}") as caught:
        check_acknowledgement(answer.encode(), message, "destination ris")
    assert "Family" not in f"{caught.value} {caught.value.advice}"
    assert caught.value.said == {"text": "Family unknown", "error": "|PID^1|204"}


def test_a_refusal_that_passes_is_sent_again_where_that_is_wanted() -> None:
    message = compose(PLAIN, observe("x"), TO, "job")
    answer = f"MSH|^~\\&|R\rMSA|AE|{message.control_id}\r".encode()
    with pytest.raises(Retryable, match="answered AE"):
        check_acknowledgement(answer, message, "destination ris", ["AE"])
    with pytest.raises(NeedsHuman):
        check_acknowledgement(answer, message, "destination ris", ["AR"])


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 400\r\n", b"MSH|^~\\&|R\r", b"MSH|^~\\&|R\rMSA|AA|other\r"]
)
def test_anything_else_is_no_acknowledgement_of_it(answer: bytes) -> None:
    message = compose(PLAIN, observe("x"), TO, "job")
    with pytest.raises(Retryable) as caught:
        check_acknowledgement(answer, message, "destination ris")
    assert caught.value.uncertain


FOUND = Finished(
    summary="abnormal",
    findings=(
        Finding("Fract|ure", "box", ((1, 2), (3, 4)), "1.2", 0.914),
        Finding("axis", "none", measure="3°"),
    ),
)


def test_our_own_words_tell_all_findings() -> None:
    text = Wording().fill(FOUND, PLAIN, "Milvue trauma", "Milvue")
    assert text.split("\n") == ["Milvue trauma: abnormal", "- Fract|ure (0.91)", "- axis: 3°", ""]


def test_a_departments_template_may_be_the_whole_message() -> None:
    wording = Wording(
        "MSH|^~\\&|||||20260101||ORU^R01||P|2.3\n"
        "PID|1||{{ subject.patient_id }}||{{ subject.patient_name }}||{{ subject.birth_date }}\n"
        "OBR|1|{{ subject.accession_number }}\n"
        "{% for one in findings %}\n"
        "OBX|{{ loop.index }}|TX|x||{{ one.label }} {{ one.score }}\n"
        "{% endfor %}\n"
    )
    assert wording.whole
    message = readdress(wording.fill(FOUND, SUBJECT, "a", "b"), SUBJECT, TO, "job")
    assert message.text.split("\r")[1:-1] == [
        "PID|1||P\\F\\1||Någon^Test^M^Jr^Dr||19700101",
        *("OBR|1|A\\T\\1", "OBX|1|TX|x||Fract\\F\\ure 0.914", "OBX|2|TX|x||axis "),
    ]


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("{% for %}", "line 1 of the template: Expected an expression"),
        ("{{ patient }}", "'patient' is undefined"),
        ("{{ subject.adress }}", "no attribute 'adress'"),
        ("{{ findings[7].label }}", "has no element 7"),
        ("{{ summary.__class__.__mro__ }}", "is unsafe"),
        ("{% include '/etc/passwd' %}", "no loader"),
        ("MSH|^~\\&|a\nOBX|1", "isn't one observation report"),
        ("MSH|^~\\&|||||||ORU^R01\nPID|1||77\nOBR|1", "for another patient"),
    ],
)
def test_a_bad_template_is_told_before_there_is_a_result(source: str, sentence: str) -> None:
    with pytest.raises(BadTemplate, match=re.escape(sentence)):
        Wording(source)


def test_a_template_that_fails_on_a_result_is_held_without_the_result() -> None:
    wording = Wording("{% if summary == 'normal' %}{{ 1 / 0 }}{% endif %}")
    with pytest.raises(NeedsHuman, match="ZeroDivisionError"):
        wording.fill(Finished(summary="normal"), PLAIN, "a", "b")


def test_a_report_is_set_in_pages() -> None:
    document = set_in_pages("Zażółć (fracture) \\ 12°\n" * 70 + "word " * 60)
    assert document.count(b"/Type /Page ") == 2
    assert document.count(b"(Zaz\xf3?c \\(fracture\\) \\\\ 12\xb0) Tj") == 70
    assert document.count(b"word") == 60
    start = int(document.split(b"startxref\n")[1].split()[0])
    entries = document[start:].splitlines()[3:]
    for number, entry in enumerate([candidate for candidate in entries if candidate.endswith(b" n ")], 1):
        assert document[int(entry[:10]) :].startswith(b"%d 0 obj\n" % number)


def test_nothing_an_escape_lets_through_can_end_a_message() -> None:
    every = escape("".join(map(chr, range(0x3000))))
    assert not re.search(r"[\x00-\x1f|^~&]", every)
