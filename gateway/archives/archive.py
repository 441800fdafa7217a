"""What every archive can be asked, whichever way it speaks, and what its answers are."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from gateway.contract import Health, Instance, Permanent, Retryable
from gateway.dicom.identity import ISSUER, Identity, read_identity

STUDY_KEYS = (
    "StudyInstanceUID",
    "AccessionNumber",
    ISSUER,
    "PatientID",
    "IssuerOfPatientID",
    "StudyID",
    "NumberOfStudyRelatedSeries",
    "NumberOfStudyRelatedInstances",
    "InstanceAvailability",
    "StudyDate",
    "StudyTime",
    "ModalitiesInStudy",
    "StudyDescription",
)
Text = Callable[..., str]  # what stands in an answer under a keyword, as `read_identity` asks for it
_WORSE_AND_WORSE = ("ONLINE", "NEARLINE", "OFFLINE", "UNAVAILABLE")


@dataclass(frozen=True, slots=True)
class StudyMatch:
    archive: str
    identity: Identity
    instance_count: int | None = None
    availability: str | None = None  # of its worst instance: ONLINE, NEARLINE, OFFLINE; None: not told
    told: str = ""  # its moment, modalities, description and counts, by which a person tells it from another

    @property
    def study_instance_uid(self) -> str:
        return self.identity.study_instance_uid

    def __repr__(self) -> str:
        return f"StudyMatch({self.archive})"


@dataclass(frozen=True, slots=True)
class InstanceRef:
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str | None
    modality: str | None
    # What else was asked for, by keyword; may be a patient's. Empty values aren't there.
    attributes: Mapping[str, tuple[str, ...]] = field(default_factory=dict, repr=False, hash=False)


class Retrieval:
    """A study on its way: walk it once. Left before its end, it is closed by `aclose` (see
    contextlib.aclosing). Who asked for instances counts what comes."""

    def __init__(self, instances: AsyncGenerator[Instance, None]) -> None:
        self._instances = instances

    async def __aiter__(self) -> AsyncIterator[Instance]:
        async with aclosing(self._instances):
            async for instance in self._instances:
                yield instance

    async def aclose(self) -> None:
        await self._instances.aclose()


class Archive(Protocol):
    """`spool`: a folder of the job, for archives whose instances come as files. `listed`: the study as the
    archive has just listed it, if it has."""

    @property
    def name(self) -> str: ...

    async def find_studies(
        self,
        *,
        study_instance_uid: str | None = None,
        accession_number: str | None = None,
        patient_id: str | None = None,
    ) -> list[StudyMatch]: ...

    async def list_instances(
        self, study_instance_uid: str, promised: int | None = None, keywords: Collection[str] = ()
    ) -> list[InstanceRef]: ...

    def retrieve(
        self,
        study_instance_uid: str,
        expected: Collection[str] | None = None,
        spool: Path | None = None,
        listed: Sequence[InstanceRef] | None = None,
    ) -> Retrieval: ...

    def retrieve_instance(
        self,
        study_instance_uid: str,
        series_instance_uid: str,
        sop_instance_uid: str,
        spool: Path | None = None,
        plain: bool = False,
    ) -> Retrieval:
        """`plain`: uncompressed, where the archive can be asked for that."""
        ...

    async def check(self) -> Health: ...


class AtHand(ABC):
    """An archive whose instances we have ourselves: they need no spool, and are known by their UID alone."""

    @abstractmethod
    def _walk(self, study: str, expected: Collection[str] | None) -> AsyncGenerator[Instance, None]: ...

    def retrieve(
        self,
        study_instance_uid: str,
        expected: Collection[str] | None = None,
        spool: Path | None = None,  # noqa: ARG002
        listed: Sequence[InstanceRef] | None = None,  # noqa: ARG002
    ) -> Retrieval:
        return Retrieval(self._walk(study_instance_uid, expected))

    def retrieve_instance(
        self,
        study_instance_uid: str,
        series_instance_uid: str,  # noqa: ARG002
        sop_instance_uid: str,
        spool: Path | None = None,
        plain: bool = False,  # noqa: ARG002 it comes as it is
    ) -> Retrieval:
        return self.retrieve(study_instance_uid, {sop_instance_uid}, spool)


def match_of(archive: str, text: Text) -> StudyMatch:
    identity = read_identity(text)
    if not identity.study_instance_uid:
        raise Retryable(
            f"the archive {archive} answered with a study that has no UID while looking for a study",
            "Look into its log.",
        )
    count = text("NumberOfStudyRelatedInstances").partition(".")[0]
    told = {value.strip().upper() for value in text("InstanceAvailability").split("\\")} - {""}
    worst = [value for value in _WORSE_AND_WORSE if value in told]
    return StudyMatch(
        archive,
        identity,
        int(count) if count.isdecimal() else None,
        next(iter(told.difference(_WORSE_AND_WORSE)), worst[-1] if worst else None),
        _tell(text),
    )


def _tell(text: Text) -> str:
    date = re.sub(r"^(\d{4})(\d\d)(\d\d)$", r"\1-\2-\3", text("StudyDate").strip())
    time = re.sub(r"^(\d\d)(\d\d).*$", r"\1:\2", text("StudyTime").strip())
    modalities = text("ModalitiesInStudy").replace("\\", " ")
    series = _count(text("NumberOfStudyRelatedSeries"), "series", "series")
    instances = _count(text("NumberOfStudyRelatedInstances"), "instance", "instances")
    told = (f"{date} {time}", modalities, text("StudyDescription"), series, instances)
    parts = (" ".join(part.split()) for part in told)
    return "".join(sign for sign in ", ".join(filter(None, parts)) if sign.isprintable())


def _count(told: str, one: str, several: str) -> str:
    number = told.partition(".")[0].strip()
    return f"{int(number)} {one if int(number) == 1 else several}" if number.isdecimal() else ""


def unlisted(archive: str) -> Retryable:
    return Retryable(
        f"the archive {archive} sent instances of the study that it hadn't listed",
        "The study may still be arriving; if this goes on, have the archive check it.",
    )


def answers(asked: Mapping[str, str], text: Text) -> bool:
    """An archive that doesn't know a key passes over it, and reads a * as anything: then others come. A study
    without a number isn't found by one."""
    told = {keyword: set(map(str.strip, text(keyword).split("\\"))) - {""} for keyword in asked}
    return told.get("AccessionNumber") != set() and all(
        not told[keyword] or value.strip() in told[keyword] for keyword, value in asked.items()
    )


def matches_among(archive: str, told: Sequence[Text], asked: Mapping[str, str]) -> list[StudyMatch]:
    """Those of an archive's answers that answer what was asked."""
    found = [match_of(archive, text) for text in told if answers(asked, text)]
    if told and not found and "StudyInstanceUID" in asked:  # what it has of that one, it hasn't said
        raise Retryable(
            f"the archive {archive} answered a search for one study with others alone",
            "It doesn't heed the study UID: have its search corrected.",
        )
    return found


def asked_of(
    study_instance_uid: str | None, accession_number: str | None, patient_id: str | None
) -> dict[str, str]:
    """What an archive is asked for, by keyword."""
    asked = {
        "StudyInstanceUID": study_instance_uid,
        "AccessionNumber": accession_number,
        "PatientID": patient_id,
    }
    known = {keyword: value for keyword, value in asked.items() if value}
    if not known:
        raise Permanent(
            "nothing was said that a study can be looked for with",
            "Name the study UID, or the accession number.",
        )
    return known
