"""What an audit collector is told of: from an event of a job, or a line of the audit, to its message.

    started, stopped                         Application Activity
    studies looked for, archives compared    Query
    bytes go to a vendor; have got there     Begin Transferring DICOM Instances; DICOM Instances Transferred
    a study sent to us, results stored       DICOM Instances Transferred
    what people do with a job or see of it   Patient Record, as are results that are no DICOM objects, and
                                             what users change or remove of them on the slide
    signed in, signed out, refused           User Authentication
    wrong tokens, whatever is switched       Security Alert

Of the audit nothing is left out; of events, whatever touches no patient's data. A canary's study is nobody's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.jobs.records import (
    ACCEPTED,
    CALLED,
    CALLING,
    CANCELLED,
    CORRECTED,
    FETCHING,
    JOINED,
    ONE_CANCELLED,
    PURGED,
    SENDING,
    Job,
    Origin,
)
from gateway.jobs.states import State
from gateway.jobs.store.disclosing import REPORTED
from gateway.jobs.store.trail import Record, Subject
from gateway.watch.atna import (
    MINOR,
    SERIOUS,
    SUCCESS,
    Action,
    Code,
    Event,
    Id,
    Kind,
    Message,
    Outcome,
    Participant,
    Role,
    Thing,
)

STARTED, STOPPED = "started", "stopped"
OURSELVES = "gateway"
_NOBODY = "nobody"
_STUDY_ROOT = "1.2.840.10008.5.1.4.1.2.2.1"  # find a study
_PEERS_WORDS = "looked at what peers said"

_DONE_BY_PEOPLE: Mapping[str, Action] = {
    "looked at": "R",
    _PEERS_WORDS: "R",
    REPORTED: "R",
    "job asked for": "C",
}
_LONGEST = 2000  # letters: collectors cut messages of more than 8 KiB, if nobody tells them otherwise


@dataclass(frozen=True, slots=True)
class Source:
    """Who tells it: all replicas by one name."""

    name: str
    titles: Collection[str] = ()

    def acting(self, role: Code, *, asks: bool = False) -> Participant:
        return Participant(self.name, role, asks, OURSELVES, tuple(self.titles))


Write = Callable[[Record, Subject, Source], Message]
NOBODY = Subject()


def writer_of(record: Record) -> Write | None:
    """None: nobody has to hear of it."""
    if record.job is not None and record.job.canary:
        return None
    return _of_act(record) if record.kind == "act" else _of_event(record)


# -- events of jobs -----------------------------------------------------------------------------------


def _of_event(record: Record) -> Write | None:
    detail, state, what = record.detail, record.state, record.what
    if what == PURGED:
        return _purged
    if "archives" in detail:
        return _looked_for
    if what == SENDING:
        return _begun
    if what.startswith(FETCHING):
        return _fetched
    if state == State.ANALYSING and "acknowledged" in detail:
        return _arrived
    if "destination" in detail:
        return _delivered
    if state == State.SUBMITTING and "message" in detail:
        return _arrived
    if what == CALLING or what.startswith(CALLED):
        return _called
    if what in (ACCEPTED, JOINED) and detail.get("origin") != Origin.REST:  # whose caller stands in the audit
        return _sent_to_us if detail.get("origin") in Origin.SENT.stored else _asked
    if what == ONE_CANCELLED or (what == CANCELLED and detail.get("by") == Origin.SECTRA):
        return _done_in_sectra
    if what in CORRECTED.values():
        return _done_in_sectra
    return None


def _looked_for(record: Record, subject: Subject, source: Source) -> Message:
    job = _job(record)
    asked = {
        "StudyInstanceUID": job.study_instance_uid,
        "AccessionNumber": job.accession_number,
        "PatientID": subject.patient_id,
    }
    query = json.dumps({name: value for name, value in asked.items() if value}, ensure_ascii=False)
    return Message(
        Event.QUERY,
        "E",
        record.at,
        [
            source.acting(Role.SOURCE, asks=True),
            Participant(_archive(job), Role.DESTINATION),
        ],
        [
            Thing("2", "24", Id.SOP_CLASS, _STUDY_ROOT, query.encode()),
            *_about(record, subject),
        ],
        outcome=_outcome(record),
        told=record.what,
    )


def _begun(record: Record, subject: Subject, source: Source) -> Message:
    return _transfer(Event.BEGIN, record, subject, source, subject.instances)


def _arrived(record: Record, subject: Subject, source: Source) -> Message:
    """Or not: it is tried again."""
    count = int(record.detail.get("acknowledged", 0))
    classes: Mapping[str | None, int] = subject.instances
    if sum(classes.values()) != count:
        classes = {None: count}
    return _transfer(Event.TRANSFERRED, record, subject, source, classes)


def _transfer(
    event: Code, record: Record, subject: Subject, source: Source, classes: Mapping[str | None, int]
) -> Message:
    """From the archive, or from Sectra, through us to the vendor."""
    job = _job(record)
    return Message(
        event,
        "E",
        record.at,
        [
            Participant(_archive(job), Role.SOURCE),
            Participant(f"adapters.{job.adapter}", Role.DESTINATION),
            source.acting(Role.APPLICATION, asks=True),
        ],
        _about(record, subject, classes),
        outcome=_outcome(record),
        told=record.what,
    )


def _fetched(record: Record, subject: Subject, source: Source) -> Message:
    """Into the gateway, what lacks of a study that was sent to it."""
    archive = record.what.removeprefix(FETCHING).strip()
    count = int(record.detail.get("instances", 0))
    return Message(
        Event.BEGIN,
        "E",
        record.at,
        [
            Participant(f"archives.{archive}", Role.SOURCE),
            source.acting(Role.DESTINATION, asks=True),
        ],
        _about(record, subject, {None: count}),
        told=record.what,
    )


def _called(record: Record, subject: Subject, source: Source) -> Message:
    """A vendor that reads the slide itself, or writes there: through us."""
    job = _job(record)
    answer = str(record.detail.get("outcome", "answered"))
    refused = answer != "answered" and not answer.startswith(("2", "3"))
    return Message(
        Event.RECORD,
        "U" if "result" in record.what else "R",
        record.at,
        [Participant(f"adapters.{job.adapter}", Role.SOURCE, asks=True), source.acting(Role.DESTINATION)],
        _about(record, subject),
        outcome=MINOR if refused else SUCCESS,
        told=record.what,
    )


def _sent_to_us(record: Record, subject: Subject, source: Source) -> Message:
    sender = Participant("dimse", Role.SOURCE, asks=True)
    return Message(
        Event.TRANSFERRED,
        "C",
        record.at,
        [sender, source.acting(Role.DESTINATION)],
        _about(record, subject),
        told="a study was sent to the gateway",
    )


def _asked(record: Record, subject: Subject, source: Source) -> Message:
    """By a user on the slide, or since a slide was imported."""
    origin = str(record.detail.get("origin", ""))
    server = _job(record).server
    asks = Participant(OURSELVES if server is None else f"sectra.{server}", asks=True, name=origin)
    return Message(
        Event.RECORD,
        "C",
        record.at,
        [asks, source.acting(Role.APPLICATION)],
        _about(record, subject),
        told=f"an analysis by {_job(record).application} was asked for",
    )


def _done_in_sectra(record: Record, subject: Subject, source: Source) -> Message:
    """By a user, who withdraws a call or corrects a result; what people do otherwise stands in the audit."""
    action: Action = "D" if record.what == CORRECTED["deleted"] else "U"
    server = Participant(f"sectra.{_job(record).server or ''}", asks=True)
    ours = source.acting(Role.APPLICATION)
    things = _about(record, subject)
    return Message(Event.RECORD, action, record.at, [server, ours], things, told=record.what)


def _delivered(record: Record, subject: Subject, source: Source) -> Message:
    job, destination = _job(record), str(record.detail["destination"])
    slide = destination == "sectra"
    whither = f"sectra.{job.server}" if slide else f"destinations.{destination}"
    stored = 0 if "message" in record.detail else subject.stored.get(destination, 0)
    return Message(
        Event.TRANSFERRED if stored else Event.RECORD,
        "C" if stored else "U",
        record.at,
        [source.acting(Role.SOURCE, asks=True), Participant(whither, Role.DESTINATION)],
        _about(record, subject, {None: stored} if stored else {}),
        outcome=_outcome(record),
        told=record.what,
    )


def _purged(record: Record, subject: Subject, source: Source) -> Message:
    things = _about(record, subject)
    return Message(
        Event.RECORD, "D", record.at, [source.acting(Role.APPLICATION, asks=True)], things, told=record.what
    )


# -- the audit ----------------------------------------------------------------------------------------


def _of_act(record: Record) -> Write:
    if record.what in (STARTED, STOPPED):
        return _activity
    if record.what in ("signed in", "signed out", "sign-in refused"):
        return _signed
    if record.what == "archive compared":
        return _compared
    if record.job is not None:
        return _done_with_a_job
    return _alert


def _activity(record: Record, _: Subject, source: Source) -> Message:
    detail = record.detail
    machine, process = str(detail.get("host", "")), f"{detail.get('host')}/{detail.get('pid')}"
    return Message(
        Event.ACTIVITY,
        "E",
        record.at,
        [Participant(process, Role.APPLICATION, False, source.name, tuple(source.titles), machine)],
        [_itself(record)],
        Kind.START if record.what == STARTED else Kind.STOP,
    )


def _signed(record: Record, _: Subject, source: Source) -> Message:
    refused = record.what == "sign-in refused"
    return Message(
        Event.AUTHENTICATION,
        "E",
        record.at,
        [_person(record), source.acting(Role.APPLICATION)],
        [_itself(record)],
        Kind.LOGOUT if record.what == "signed out" else Kind.LOGIN,
        MINOR if refused else SUCCESS,
        str(record.detail.get("why", "")) if refused else "",
    )


def _compared(record: Record, _: Subject, source: Source) -> Message:
    archive = f"archives.{record.detail.get('archive', '')}"
    return Message(
        Event.QUERY,
        "E",
        record.at,
        [source.acting(Role.SOURCE, asks=True), Participant(archive, Role.DESTINATION)],
        [Thing("2", "24", Id.SOP_CLASS, _STUDY_ROOT, b""), _itself(record)],
        told=record.what,
    )


def _done_with_a_job(record: Record, subject: Subject, source: Source) -> Message:
    return Message(
        Event.RECORD,
        _DONE_BY_PEOPLE.get(record.what, "U"),
        record.at,
        [_person(record), source.acting(Role.APPLICATION)],
        _about(record, subject),
        told=record.what,
    )


def _alert(record: Record, _: Subject, source: Source) -> Message:
    guessed = record.what == "wrong tokens"
    outcome: Outcome = SERIOUS if guessed else SUCCESS
    told = json.dumps({"what": record.what, **record.detail}, ensure_ascii=False, sort_keys=True, default=str)
    told = told if len(told) <= _LONGEST else f"{told[:_LONGEST]}…"
    return Message(
        Event.ALERT,
        "E",
        record.at,
        [source.acting(Role.APPLICATION), _person(record)],
        [
            Thing("2", "13", Id.NODE, source.name, details={"Alert Description": told}),
            _itself(record),
        ],
        Kind.NODE if guessed else _switched(record),
        outcome,
        record.what,
    )


def write_bare(record: Record, _: Subject, source: Source) -> Message:
    """That there is such a record, where no more can be told of it."""
    return Message(
        Event.ALERT,
        "E",
        record.at,
        [source.acting(Role.APPLICATION, asks=True)],
        [_itself(record)],
        Kind.RESTRICTED,
        SERIOUS,
        "no audit message could be made of this record",
    )


def _switched(record: Record) -> Code:
    return Kind.SOFTWARE if "peer" in record.detail else Kind.RESTRICTED


# -- who and what -------------------------------------------------------------------------------------


def _person(record: Record) -> Participant:
    address = record.detail.get("from")
    return Participant(record.who or _NOBODY, asks=True, address=address if isinstance(address, str) else "")


def _about(record: Record, subject: Subject, classes: Mapping[str | None, int] | None = None) -> list[Thing]:
    """The study, or the slide; the patient, once it is known whose they are; and the record itself."""
    job, things = _job(record), []
    if job.study_instance_uid:
        study = Thing(
            *("2", "3", Id.STUDY, job.study_instance_uid),
            accession=job.accession_number,
            classes=classes or {},
        )
        things.append(study)
    if job.slide_id:
        things.append(Thing("2", "3", Id.SLIDE, job.slide_id))
    if subject.patient_id:
        things.append(Thing("1", "1", Id.PATIENT, subject.patient_id))
    return [*things, _itself(record)]


def _itself(record: Record) -> Thing:
    """By which a collector knows a message that it is sent twice, and anybody finds it here."""
    job: dict[str, Any] = {} if record.job is None else {"job": str(record.job.id)}
    return Thing("2", "13", Id.RECORD, record.key, details=job)


def _archive(job: Job) -> str:
    if job.archive is None and job.slide_id is not None:
        return f"sectra.{job.server}"
    return "archives" if job.archive is None else f"archives.{job.archive}"


def _outcome(record: Record) -> Outcome:
    return MINOR if "message" in record.detail else SUCCESS


def _job(record: Record) -> Job:
    assert record.job is not None
    return record.job
