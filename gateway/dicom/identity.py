"""The one comparison of identity: whatever two sides both know of a patient, an order or a study must agree.

It is made whenever a study is chosen, resumed, received back or sent on. What one side doesn't know can't be
held against it; an unidentified patient's fillers (`U`, `00000000`) say nothing.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import asdict, dataclass
from typing import Any

from pydicom.dataset import Dataset

from gateway.contract import NeedsHuman

IDENTIFYING = (
    *("StudyInstanceUID", "PatientID", "IssuerOfPatientID", "StudyID", "PatientName", "PatientBirthDate"),
    *("PatientSex", "AccessionNumber", "IssuerOfAccessionNumberSequence", "SpecificCharacterSet"),
)
_SEXES = {"m": "M", "f": "F", "o": "O"}


@dataclass(frozen=True, slots=True)
class Identity:
    """What isn't known is empty. A name is in DICOM's order (family^given^middle^prefix^suffix)."""

    study_instance_uid: str = ""
    patient_id: str = ""
    issuer_of_patient_id: str = ""
    accession_number: str = ""
    issuer_of_accession_number: str = ""
    study_id: str = ""  # Sectra's exam id
    patient_name: str = ""
    birth_date: str = ""
    sex: str = ""

    def __repr__(self) -> str:
        return "Identity()"


def identity_of(header: Dataset) -> Identity:
    return Identity(
        study_instance_uid=_text(header, "StudyInstanceUID"),
        patient_id=_text(header, "PatientID"),
        issuer_of_patient_id=_text(header, "IssuerOfPatientID"),
        accession_number=_text(header, "AccessionNumber"),
        issuer_of_accession_number=_issuer(header),
        study_id=_text(header, "StudyID"),
        patient_name=_text(header, "PatientName"),
        birth_date=_text(header, "PatientBirthDate"),
        sex=_text(header, "PatientSex"),
    )


def differences(known: Identity, other: Identity) -> list[str]:
    """What both know and doesn't agree, in words for a person."""
    found = [
        words
        for words, first, second in (
            ("study UID", known.study_instance_uid, other.study_instance_uid),
            ("patient id", known.patient_id, other.patient_id),
            ("accession number", known.accession_number, other.accession_number),
            ("exam id", known.study_id, other.study_id),
        )
        if first.strip() and second.strip() and first.strip() != second.strip()
    ]
    if known.patient_id.strip() and other.patient_id.strip():
        found += _unlike("issuer of the patient id", known.issuer_of_patient_id, other.issuer_of_patient_id)
    if known.accession_number.strip() and other.accession_number.strip():
        found += _unlike(
            "issuer of the accession number",
            known.issuer_of_accession_number,
            other.issuer_of_accession_number,
        )
    if not _names_agree(known.patient_name, other.patient_name):
        found.append("patient's name")
    if not _dates_agree(known.birth_date, other.birth_date):
        found.append("birth date")
    found += _unlike("sex", _sex(known.sex), _sex(other.sex))
    return found


def require_agreement(ours: Identity, theirs: Identity, what: str, advice: str) -> None:
    """`what`: the sentence up to the difference, such as "the study found isn't the one asked for". Both
    sides go into the failure's detail, which is kept with the job and logged nowhere."""
    found = differences(ours, theirs)
    if found:
        raise NeedsHuman(
            f"{what}: another {_listed(found)}",
            advice,
            detail={"expected": _known(ours), "met": _known(theirs), "differs": found},
        )


def _known(identity: Identity) -> dict[str, Any]:
    return {name: value for name, value in asdict(identity).items() if value}


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _unlike(words: str, here: str, other: str) -> list[str]:
    here, other = here.strip(), other.strip()
    return [words] if here and other and here != other else []


def _names_agree(here: str, other: str) -> bool:
    """Component by component, in the alphabetic group; case, accents and what one side leaves out don't
    count."""
    pairs = zip(_components(here), _components(other), strict=False)
    return all(first == second for first, second in pairs if first and second)


def _components(name: str) -> list[str]:
    plain = unicodedata.normalize("NFKD", name.partition("=")[0])
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    return [" ".join(part.split()).casefold() for part in plain.split("^")]


def _dates_agree(here: str, other: str) -> bool:
    """`1970`, `19700000` and `19700101` agree."""
    first, second = _date(here), _date(other)
    return first.startswith(second) or second.startswith(first)


def _date(written: str) -> str:
    """As many of its digits as mean something."""
    found = re.match(r"(\d{4})(\d\d)?(\d\d)?", written.strip().replace("-", "").replace(".", ""))
    if found is None or found[1] == "0000":
        return ""
    if found[2] in (None, "00"):
        return found[1]
    return found[1] + found[2] + (found[3] if found[3] not in (None, "00") else "")


def _sex(written: str) -> str:
    return _SEXES.get(written.strip()[:1].casefold(), "")


def _text(header: Dataset, keyword: str) -> str:
    value = header.get(keyword)
    return "" if value is None else str(value).strip(" \0")


def _issuer(header: Dataset) -> str:
    """Of the accession number: it stands in a sequence of its own (0008,0051)."""
    for item in header.get("IssuerOfAccessionNumberSequence") or ():
        for keyword in ("LocalNamespaceEntityID", "UniversalEntityID"):
            if text := _text(item, keyword):
                return text
    return ""
