"""HL7 v2 messages to the RIS (ORU^R01): composed by us, or a vendor's own, checked and re-addressed.

A message never leaves for another patient or order than the job's. Its control id follows from the job, the
destination and its content: sent again after a lost acknowledgement it is recognisably the same message, and
with other content it is another. What a machine saw and nobody verified is preliminary, so results say "P".
"""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from gateway.contract import NeedsHuman, Retryable
from gateway.dicom.subject import Subject

_ESCAPES = {"\\": "\\E\\", "|": "\\F\\", "^": "\\S\\", "&": "\\T\\", "~": "\\R\\", "\r": "\\X0D\\", "\t": " "}
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")  # two of them would end the message early
_ACCEPTED, _REFUSED = ("AA", "CA"), ("AE", "AR", "CE", "CR")
_STATUS = "P"
_COMPARE = "Compare the vendor's message with the patient and the order before anything else is done."


class _Marks(NamedTuple):
    """What separates fields, and within them components, repetitions and subcomponents."""

    separator: str = "|"
    encoding: str = "^~\\&"


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
    return "".join(_ESCAPES.get(one, one) for one in unified)


def compose(subject: Subject, observation: Observation, to: Addressing, seed: str) -> Message:
    """`seed`: the job and the destination, by which the control id differs from that of all others."""
    if not subject.patient_id:
        raise NeedsHuman(
            "the study has no patient id, so the RIS can't file a message about it",
            "Have the study's patient id completed in the archive, then resume the job.",
        )
    at = observation.at.astimezone(UTC).strftime("%Y%m%d%H%M%S+0000")
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
        _segment("MSH", {2: _USUAL.encoding, 7: at, 9: "ORU^R01^ORU_R01", 11: "P", 12: "2.5.1"}),
        _segment(
            "PID",
            {
                1: "1",
                3: patient,
                5: _name(subject.patient_name),
                7: escape(subject.birth_date),
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
    lines = [line for line in re.split(r"[\r\n]+", _CONTROLS.sub("", text)) if line]
    if not lines or not re.match(r"MSH([^\w\s])[^\w\s]{2,5}\1", lines[0]):
        raise NeedsHuman(
            "a ready HL7 message is none: it doesn't begin with a header segment (MSH)",
            "Ask the vendor, or look at the department's template.",
        )
    separator = lines[0][3]
    segments = [line.split(separator) for line in lines]
    encoding = segments[0][1]
    component = encoding[0]
    if [one[0] for one in segments].count("MSH") != 1 or _field(segments[0], 8).split(component)[0] != "ORU":
        raise NeedsHuman(
            "a ready HL7 message isn't one observation report (ORU)",
            "Only reports go to the RIS: ask the vendor what this message is for.",
        )
    patients = [one for one in segments if one[0] == "PID"]
    orders = [one for one in segments if one[0] == "OBR"]
    if len(patients) != 1 or not orders:
        raise NeedsHuman(
            f"a ready HL7 message names {len(patients)} patients and {len(orders)} orders",
            "It takes one patient and at least one order: ask the vendor, or look at the template.",
        )
    marks = _Marks(separator, encoding)
    _check_patient(patients[0], marks, subject)
    for segment in segments:
        if segment[0] in ("OBR", "ORC"):
            _check_order(segment, marks, subject)
    return _seal(segments, marks, to, seed)


def check_acknowledgement(answer: bytes, message: Message, peer: str) -> None:
    """Returns when the message was accepted. The peer's own words may name a patient: they are detail."""
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
        raise NeedsHuman(
            f"the {peer} answered {code}, {kind}; the message isn't in it",
            "Its log says why: have it accept such messages, then resume the job.",
            detail={"code": code, "text": _field(acknowledged, 3), "error": "|".join(errors[1:])},
        )


def _seal(segments: list[list[str]], marks: _Marks, to: Addressing, seed: str) -> Message:
    separator, header = marks.separator, segments[0]
    escaped = {2: to.sending_application, 3: to.sending_facility}
    escaped |= {4: to.receiving_application, 5: to.receiving_facility}
    for place, value in escaped.items():
        _put(header, place, _escape_for(value, marks))
    _put(header, 9, "")
    _put(header, 17, "UNICODE UTF-8")
    told = [header[:6] + header[7:], *segments[1:]]  # not the moment, which is that of the vendor's answer
    digest = hashlib.sha256("\r".join([seed, *map(separator.join, told)]).encode("utf-8", "replace"))
    control_id = digest.hexdigest()[:20]
    _put(header, 9, control_id)
    return Message(control_id, "".join(separator.join(one) + "\r" for one in segments))


def _check_patient(patient: list[str], marks: _Marks, subject: Subject) -> None:
    named = {_first(one, marks) for one in _field(patient, 3).split(marks.encoding[1])}
    named |= {_first(_field(patient, 2), marks)}
    named -= {""}
    if not subject.patient_id or (named and subject.patient_id not in named):
        raise NeedsHuman("a ready HL7 message is a message for another patient; it wasn't sent", _COMPARE)
    if not _field(patient, 3):
        _put(patient, 3, _escape_for(subject.patient_id, marks))


def _check_order(order: list[str], marks: _Marks, subject: Subject) -> None:
    places = (2, 3, 18) if order[0] == "OBR" else (2, 3)
    named = {_first(_field(order, place), marks) for place in places} - {""}
    if named and subject.accession_number not in named:
        raise NeedsHuman("a ready HL7 message is a message for another order; it wasn't sent", _COMPARE)
    if not named and order[0] == "OBR" and subject.accession_number:
        _put(order, 3, _escape_for(subject.accession_number, marks))


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
    """The first component, in clear."""
    component, repetition, mark, part = list(marks.encoding + _USUAL.encoding[len(marks.encoding) :])[:4]
    first = re.split(f"[{re.escape(component + part)}]", value, maxsplit=1)[0]
    clear = {"F": marks.separator, "S": component, "T": part, "R": repetition, "E": mark}
    escaped = f"{re.escape(mark)}([FSTRE]){re.escape(mark)}"
    return re.sub(escaped, lambda found: clear[found[1]], first).strip()


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


def _name(dicom_name: str) -> str:
    """HL7 has the suffix before the prefix, DICOM the other way round."""
    groups = [group for group in dicom_name.split("=") if group.strip("^ ")]
    family, given, middle, prefix, suffix = [*(groups[0] if groups else "").split("^"), "", "", "", "", ""][
        :5
    ]
    ordered = (family, given, middle, suffix, prefix)
    return "^".join(escape(part.strip()) for part in ordered).rstrip("^")


def _moment(subject: Subject) -> str:
    if not re.fullmatch(r"\d{8}", subject.study_date):
        return ""
    time = re.match(r"\d{4}(\d\d)?", subject.study_time)
    return subject.study_date + (time[0] if time else "")
