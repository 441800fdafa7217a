"""HL7 v2 messages to the RIS (ORU^R01): composed by us, or a vendor's own, checked and re-addressed.

A message never leaves for another patient or order than the job's. Its control id follows from the job, the
destination and its content: sent again after a lost acknowledgement it is recognisably the same message, and
with other content it is another. When it was made (MSH-7) is the moment at which we send it. What a machine
saw and nobody verified is preliminary, so results say "P".
"""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from gateway.contract import NeedsHuman, Retryable
from gateway.dicom.identity import Identity, differences
from gateway.dicom.subject import Subject

_ESCAPES = {"\\": "\\E\\", "|": "\\F\\", "^": "\\S\\", "&": "\\T\\", "~": "\\R\\", "\r": "\\X0D\\", "\t": " "}
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")  # two of them would end the message early
_ACCEPTED, _REFUSED = ("AA", "CA"), ("AE", "AR", "CE", "CR")
_STATUS = "P"
_UNNAMED = "^^^^^^U"  # a name has to stand there; U says that it isn't known
_COMPARE = "Compare the vendor's message with the patient and the order before anything else is done."


class _Marks(NamedTuple):
    """What separates fields, and within them components, repetitions and subcomponents."""

    separator: str = "|"
    encoding: str = "^~\\&"

    @property
    def all(self) -> str:
        """The separator, and the four others; those that a message doesn't define are the usual ones."""
        return self.separator + self.encoding + "^~\\&"[len(self.encoding) :]


_USUAL = _Marks()


@dataclass(frozen=True, slots=True)
class Addressing:
    sending_application: str = "GATEWAY"
    sending_facility: str = ""
    receiving_application: str = ""
    receiving_facility: str = ""


@dataclass(frozen=True, slots=True)
class Observation:
    """What is reported of the study, and by which application. `pdf`: the report as a document."""

    application: str
    display_name: str
    text: str
    at: datetime
    pdf: bytes | None = None


@dataclass(frozen=True, slots=True)
class Message:
    control_id: str
    text: str

    def __repr__(self) -> str:
        return f"Message({self.control_id})"

    def encode(self) -> bytes:
        return self.text.encode("utf-8", "replace")


def escape(text: str) -> str:
    """A value that can stand in any field; line ends of all kinds are one."""
    unified = _CONTROLS.sub("", text.replace("\r\n", "\r").replace("\n", "\r"))
    return "".join(_ESCAPES.get(letter, letter) for letter in unified)


def compose(subject: Subject, observation: Observation, to: Addressing, seed: str) -> Message:
    """`seed`: the job and the destination, by which the control id differs from that of all others."""
    if not subject.patient_id:
        raise NeedsHuman(
            "the study has no patient id, so the RIS can't file a message about it",
            "Have the study's patient id completed in the archive, then resume the job.",
        )
    at = _written(observation.at)
    service = f"{escape(observation.application)}^{escape(observation.display_name)}^L"
    patient = escape(subject.patient_id)
    if subject.issuer_of_patient_id:
        patient += f"^^^{escape(subject.issuer_of_patient_id)}"
    order = escape(subject.accession_number)
    told = [("TX", service, escape(observation.text.strip()))]
    if observation.pdf is not None:
        told.append(("ED", service, f"^application^pdf^Base64^{b64encode(observation.pdf).decode()}"))
    told.append(("HD", "113014^DICOM Study^DCM", subject.study_instance_uid))
    segments = [
        _segment("MSH", {2: _USUAL.encoding, 9: "ORU^R01^ORU_R01", 11: "P", 12: "2.5.1"}),
        _segment(
            "PID",
            {
                1: "1",
                3: patient,
                5: name_of(subject) or _UNNAMED,
                7: birth_date_of(subject),
                8: subject.sex if subject.sex in ("M", "F", "O") else "",
            },
        ),
        _segment(
            "OBR",
            {1: "1", 2: order, 3: order, 4: service, 7: _moment(subject), 22: at, 25: _STATUS},
        ),
        *(
            _segment("OBX", {1: str(number), 2: kind, 3: code, 5: value, 11: _STATUS, 14: at})
            for number, (kind, code, value) in enumerate(told, 1)
        ),
    ]
    return _seal(segments, _USUAL, to, seed)


def readdress(text: str, subject: Subject, to: Addressing, seed: str) -> Message:
    """A ready message: ours from a template, or the vendor's. Patient and order must be the study's."""
    lines = [line for line in _lines(_CONTROLS.sub("", text)) if line]
    if not lines or not re.match(r"MSH([^\w\s])[^\w\s]{2,5}\1", lines[0]):
        raise NeedsHuman(
            "a ready HL7 message is none: it doesn't begin with a header segment (MSH)",
            "Ask the vendor, or look at the department's template.",
        )
    separator = lines[0][3]
    segments = [line.split(separator) for line in lines]
    marks = _Marks(separator, segments[0][1])
    if not all(re.fullmatch("[A-Z][A-Z0-9]{2}", segment[0]) for segment in segments):
        raise NeedsHuman(
            "a ready HL7 message has a line that is no segment",
            "Within a field a new line is written as \\X0D\\: ask the vendor, or look at the template.",
        )
    segments = [[_one_line(field, marks) for field in segment] for segment in segments]
    names = [segment[0] for segment in segments]
    if names.count("MSH") != 1 or _first(_field(segments[0], 8), marks) != "ORU":
        raise NeedsHuman(
            "a ready HL7 message isn't one observation report (ORU)",
            "Only reports go to the RIS: ask the vendor what this message is for.",
        )
    patients, orders = names.count("PID"), names.count("OBR")
    if patients != 1 or not orders:
        raise NeedsHuman(
            f"a ready HL7 message names {patients} patients and {orders} orders",
            "It takes one patient and at least one order: ask the vendor, or look at the template.",
        )
    _check_patient(segments[names.index("PID")], marks, subject)
    for segment in segments:
        if segment[0] in ("OBR", "ORC"):
            _check_order(segment, marks, subject)
    return _seal(segments, marks, to, seed)


def check_acknowledgement(
    answer: bytes, message: Message, peer: str, send_again: Collection[str] = ()
) -> None:
    """Returns when the message was accepted. The peer's own words may name a patient: they are detail.
    `send_again`: the codes after which this peer takes the same message once more."""
    text = answer.decode("utf-8", "replace").strip("\r\n ")
    segments = {line[:3]: line.split(text[3:4] or "|") for line in reversed(re.split(r"[\r\n]+", text))}
    acknowledged = segments.get("MSA", [])
    code = _field(acknowledged, 1).strip().upper()
    if not text.startswith("MSH") or code not in (*_ACCEPTED, *_REFUSED):
        raise Retryable(
            f"the {peer} answered with something that is no acknowledgement",
            "Check that an HL7 listener is behind this host and port.",
            uncertain=True,
        )
    if _field(acknowledged, 2).strip() != message.control_id:
        raise Retryable(
            f"the {peer} acknowledged another message than the one sent",
            "If this goes on, look into its log: it may answer out of turn.",
            uncertain=True,
        )
    if code in _REFUSED:
        kind = "an error" if code in ("AE", "CE") else "a rejection"
        errors = segments.get("ERR", [])
        words = {"text": _field(acknowledged, 3), "error": "|".join(errors[1:])}
        said = f"the {peer} answered {code}, {kind}; the message isn't in it"
        if code in send_again:
            raise Retryable(said, "Its log says why.", said=words)
        advice = "Its log says why: have it accept such messages, then resume the job."
        raise NeedsHuman(said, advice, said=words)


def _seal(segments: list[list[str]], marks: _Marks, to: Addressing, seed: str) -> Message:
    separator, header = marks.separator, segments[0]
    escaped = {2: to.sending_application, 3: to.sending_facility}
    escaped |= {4: to.receiving_application, 5: to.receiving_facility}
    for place, value in escaped.items():
        _put(header, place, _escape_for(value, marks))
    _put(header, 6, "")
    _put(header, 9, "")
    _put(header, 17, "UNICODE UTF-8")
    digest = hashlib.sha256("\r".join([seed, *map(separator.join, segments)]).encode("utf-8", "replace"))
    control_id = digest.hexdigest()[:20]
    _put(header, 6, _written(datetime.now(UTC)))
    _put(header, 9, control_id)
    return Message(control_id, "".join(separator.join(segment) + "\r" for segment in segments))


def _check_patient(patient: list[str], marks: _Marks, subject: Subject) -> None:
    differs = differences(_identity_in(patient, marks, subject), _identity_of(subject))
    if not subject.patient_id or differs:
        raise NeedsHuman(
            "a ready HL7 message is a message for another patient; it wasn't sent",
            _COMPARE,
            detail={"differs": differs or ["patient id"]},
        )
    if not _field(patient, 3):
        _put(patient, 3, _escape_for(subject.patient_id, marks))
    if marks == _USUAL and not _field(patient, 5):
        _put(patient, 5, name_of(subject) or _UNNAMED)
    if _field(patient, 7) and not _is_moment(_field(patient, 7)):
        _put(patient, 7, birth_date_of(subject))


def _identity_of(subject: Subject) -> Identity:
    return Identity(
        patient_id=subject.patient_id,
        issuer_of_patient_id=subject.issuer_of_patient_id,
        patient_name=subject.patient_name,
        birth_date=subject.birth_date,
        sex=subject.sex,
    )


def _identity_in(patient: list[str], marks: _Marks, subject: Subject) -> Identity:
    """Of several ids in the list (PID-3) the one that may be ours; PID-2 only where that is empty."""
    listed = [_components(each, marks) for each in _field(patient, 3).split(marks.encoding[1])]
    ids = [(each[0], each[3]) for each in listed if each[0]]
    ids = ids or [(_components(_field(patient, 2), marks)[0], "")]
    ours = (subject.patient_id, subject.issuer_of_patient_id)
    patient_id, issuer = max(ids, key=lambda each: (each[0] == ours[0], each[1] in ("", ours[1])))
    family, given, middle, suffix, prefix = _components(
        _field(patient, 5).split(marks.encoding[1])[0], marks
    )[:5]
    return Identity(
        patient_id=patient_id,
        issuer_of_patient_id=issuer,
        patient_name="^".join(part.replace("^", " ") for part in (family, given, middle, prefix, suffix)),
        birth_date=_field(patient, 7),
        sex=_field(patient, 8),
    )


def _check_order(order: list[str], marks: _Marks, subject: Subject) -> None:
    places = (2, 3, 18) if order[0] == "OBR" else (2, 3)
    named = {_first(_field(order, place), marks) for place in places} - {""}
    if named and subject.accession_number.strip() not in named:
        raise NeedsHuman("a ready HL7 message is a message for another order; it wasn't sent", _COMPARE)
    if not named and order[0] == "OBR" and subject.accession_number:
        _put(order, 3, _escape_for(subject.accession_number, marks))
    if order[0] == "OBR" and len(order) > 7 and not order[7]:
        order[7] = _moment(subject)


def _segment(name: str, values: dict[int, str]) -> list[str]:
    """Fields by their number. In MSH the separator itself is the first, so all places are one less."""
    shift = 1 if name == "MSH" else 0
    fields = [name]
    for number, value in values.items():
        _put(fields, number - shift, value)
    return fields


def _put(fields: list[str], place: int, value: str) -> None:
    fields.extend([""] * (place + 1 - len(fields)))
    fields[place] = value


def _field(fields: Sequence[str], place: int) -> str:
    return fields[place] if place < len(fields) else ""


def _first(value: str, marks: _Marks) -> str:
    return _components(value, marks)[0]


def _components(value: str, marks: _Marks) -> list[str]:
    """At least five, of each its first part, in clear."""
    component, repetition, mark, part = list(marks.all[1:5])
    clear = {"F": marks.separator, "S": component, "T": part, "R": repetition, "E": mark}
    escaped = f"{re.escape(mark)}([FSTRE]){re.escape(mark)}"
    first = [each.split(part)[0] for each in value.split(component)]
    told = [re.sub(escaped, lambda found: clear[found[1]], each).strip() for each in first]
    return [*told, *[""] * (5 - len(told))]


def _lines(text: str) -> list[str]:
    """Of a message whose segments end with CR, as they should, a lone LF belongs to the field around it."""
    whole = text.replace("\r\n", "\r").strip("\r\n")
    return re.split("\r+", whole) if "\r" in whole else whole.split("\n")


def _one_line(field: str, marks: _Marks) -> str:
    mark = marks.all[3]
    return field.strip("\n").replace("\n", f"{mark}X0D{mark}")


def _escape_for(value: str, marks: _Marks) -> str:
    """For a message that may have separators of its own."""
    if marks == _USUAL:
        return escape(value)
    if set(value) & {marks.separator, *marks.encoding}:
        raise NeedsHuman(
            f"a ready HL7 message has separators of its own ({''.join(marks)}), which our values hold too",
            "Ask the vendor for messages with the usual separators (|^~\\&).",
        )
    return value


def name_of(subject: Subject) -> str:
    """As PID-5 holds it: HL7 has the suffix before the prefix, DICOM the other way round."""
    groups = [group for group in subject.patient_name.split("=") if group.strip("^ ")]
    parts = [*(groups[0] if groups else "").split("^"), "", "", "", "", ""]
    family, given, middle, prefix, suffix = parts[:5]
    ordered = (family, given, middle, suffix, prefix)
    return "^".join(escape(part.strip()) for part in ordered).rstrip("^")


def birth_date_of(subject: Subject) -> str:
    """As PID-7 may hold it, which knows no `19700000`: else empty."""
    return subject.birth_date if _is_moment(subject.birth_date) else ""


def _moment(subject: Subject) -> str:
    day = subject.study_date
    if len(day) != 8 or not _is_moment(day):
        return ""
    time = re.match(r"\d{4}(\d\d)?", subject.study_time)
    return day + time[0] if time and _is_moment(day + time[0]) else day


def _is_moment(text: str) -> bool:
    """A date, perhaps with a time, to whatever precision it is known."""
    digits = re.fullmatch(r"(\d{4,14})(\.\d{1,4})?([+-]\d{4})?", text)
    if digits is None or len(digits[1]) % 2:
        return False
    try:
        datetime.strptime((digits[1] + "0101000000"[len(digits[1]) - 4 :]), "%Y%m%d%H%M%S")
    except ValueError:
        return False
    return True


def _written(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y%m%d%H%M%S+0000")
