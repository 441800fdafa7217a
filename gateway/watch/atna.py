"""Audit messages as DICOM writes them (PS3.15 A.5), in XML. Pure."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal, NamedTuple
from xml.etree.ElementTree import Element, SubElement, tostring

_UNSPOKEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # what XML can't hold
_BLANKS = re.compile(r"\s+")


class Code(NamedTuple):
    code: str
    meaning: str
    system: str = "DCM"


class Event:
    ACTIVITY = Code("110100", "Application Activity")
    BEGIN = Code("110102", "Begin Transferring DICOM Instances")
    TRANSFERRED = Code("110104", "DICOM Instances Transferred")
    RECORD = Code("110110", "Patient Record")
    QUERY = Code("110112", "Query")
    ALERT = Code("110113", "Security Alert")
    AUTHENTICATION = Code("110114", "User Authentication")


class Kind:
    """Of an event, within its family."""

    START = Code("110120", "Application Start")
    STOP = Code("110121", "Application Stop")
    LOGIN = Code("110122", "Login")
    LOGOUT = Code("110123", "Logout")
    NODE = Code("110126", "Node Authentication")
    SOFTWARE = Code("110131", "Software Configuration")
    RESTRICTED = Code("110132", "Use of Restricted Function")


class Role:
    APPLICATION = Code("110150", "Application")
    LAUNCHER = Code("110151", "Application Launcher")
    DESTINATION = Code("110152", "Destination Role ID")
    SOURCE = Code("110153", "Source Role ID")


class Id:
    """What an object is known by."""

    PATIENT = Code("2", "Patient Number", "RFC-3881")
    USER = Code("11", "User Identifier", "RFC-3881")
    STUDY = Code("110180", "Study Instance UID")
    SOP_CLASS = Code("110181", "SOP Class UID")
    NODE = Code("110182", "Node ID")
    SLIDE = Code("slide", "Slide", "99GATEWAY")
    RECORD = Code("record", "Record of the gateway", "99GATEWAY")


Action = Literal["C", "R", "U", "D", "E"]
Outcome = Literal["0", "4", "8", "12"]
SUCCESS: Outcome = "0"
MINOR: Outcome = "4"
SERIOUS: Outcome = "8"
_MACHINE, _ADDRESS = "1", "2"


@dataclass(frozen=True, slots=True)
class Participant:
    """`machine`, `address`: where from. `titles`: its AE titles."""

    id: str
    role: Code | None = None
    asks: bool = False
    name: str = ""
    titles: Sequence[str] = ()
    machine: str = ""
    address: str = ""


@dataclass(frozen=True, slots=True)
class Thing:
    """A participating object. `kind`: 1 a person, 2 a system's. `role`: 1 patient, 3 report, 13 security
    resource, 24 query. `classes`: how many instances of which SOP class."""

    kind: Literal["1", "2"]
    role: str
    known_by: Code
    id: str
    query: bytes | None = None
    details: Mapping[str, str] = field(default_factory=dict)
    accession: str | None = None
    classes: Mapping[str | None, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Message:
    event: Code
    action: Action
    at: datetime
    participants: Sequence[Participant]
    things: Sequence[Thing] = ()
    kind: Code | None = None
    outcome: Outcome = SUCCESS
    told: str = ""  # what came of it, in words

    def write(self, source: str) -> bytes:
        """In UTF-8. `source`: who tells it."""
        root = Element("AuditMessage")
        self._identify(root)
        for participant in self.participants:
            _put_participant(root, participant)
        told_by = SubElement(root, "AuditSourceIdentification", AuditSourceID=_clean(source))
        SubElement(told_by, "AuditSourceTypeCode", {"csd-code": "4"})  # an application server
        for thing in self.things:
            _put_thing(root, thing)
        return b'<?xml version="1.0" encoding="UTF-8"?>' + tostring(root, encoding="unicode").encode()

    def _identify(self, root: Element) -> None:
        moment = self.at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        said = {
            "EventActionCode": self.action,
            "EventDateTime": moment,
            "EventOutcomeIndicator": self.outcome,
        }
        event = SubElement(root, "EventIdentification", said)
        _put_code(event, "EventID", self.event)
        if self.kind is not None:
            _put_code(event, "EventTypeCode", self.kind)
        if self.told:
            SubElement(event, "EventOutcomeDescription").text = _clean(self.told)


def _put_participant(root: Element, participant: Participant) -> None:
    said = {"UserID": participant.id, "UserIsRequestor": "true" if participant.asks else "false"}
    if participant.titles:
        said["AlternativeUserID"] = f"AETITLES={';'.join(participant.titles)}"
    if participant.name:
        said["UserName"] = participant.name
    if where := participant.address or participant.machine:
        said["NetworkAccessPointID"] = where
        said["NetworkAccessPointTypeCode"] = _ADDRESS if participant.address else _MACHINE
    put = SubElement(root, "ActiveParticipant", {name: _clean(value) for name, value in said.items()})
    if participant.role is not None:
        _put_code(put, "RoleIDCode", participant.role)


def _put_thing(root: Element, thing: Thing) -> None:
    put = SubElement(
        root,
        "ParticipantObjectIdentification",
        {
            "ParticipantObjectID": _clean(thing.id),
            "ParticipantObjectTypeCode": thing.kind,
            "ParticipantObjectTypeCodeRole": thing.role,
        },
    )
    _put_code(put, "ParticipantObjectIDTypeCode", thing.known_by)
    if thing.query is None:
        SubElement(put, "ParticipantObjectName")  # one of the two has to be there; no patient is named here
    else:
        SubElement(put, "ParticipantObjectQuery").text = base64.b64encode(thing.query).decode()
    for name, value in thing.details.items():
        encoded = base64.b64encode(_clean(value).encode()).decode()
        SubElement(put, "ParticipantObjectDetail", type=name, value=encoded)
    if thing.accession or thing.classes:
        described = SubElement(put, "ParticipantObjectDescription")
        if thing.accession:
            SubElement(described, "Accession", Number=_clean(thing.accession))
        for sop_class, count in thing.classes.items():
            named = {} if sop_class is None else {"UID": _clean(sop_class)}
            SubElement(described, "SOPClass", {**named, "NumberOfInstances": str(count)})


def _put_code(parent: Element, name: str, code: Code) -> None:
    said = {"csd-code": code.code, "codeSystemName": code.system, "originalText": code.meaning}
    SubElement(parent, name, said)


def _clean(text: str) -> str:
    return _BLANKS.sub(" ", _UNSPOKEN.sub("\ufffd", text)).strip()
